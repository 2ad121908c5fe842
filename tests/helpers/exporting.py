"""Exports for tests: a small lake with texts and prices, exported by the command line and read back by the importer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from collectors.exporters.grid import Grid, Options
from collectors.exporters.reading import needed_views, read_grids
from collectors.exporters.registry import FORMATS, export
from collectors.lake.holdings import Holdings
from collectors.lake.reading import ask, connect
from collectors.lake.store import Lake
from collectors.prices.tables import add_prices, read_prices
from schemas.views import PoolChoice, named_in
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

#: USD per million prompt tokens; completion tokens cost ten times that.
USD = {"org/a": 5.0, "b": 1.0, "c": 2.0}

#: Texts that a reader mistakes for something else.
PROMPTS = ["plain", "[not python]", "['a', 'b']", "quotes \" and ' and, commas", "lines\r\nand\ttabs\n", "ü 漢 \x00 🙂"]
RESPONSES = ["", "[1, 2", "NA", "A\nB", '"', "\\"]


def build(
    folder: Path,
    scores: Mapping[str, Sequence[float | None]],
    *,
    tasks: Sequence[str] = ("quiz",),
    prompts: Sequence[str | None] = PROMPTS,
    responses: Sequence[str | None] | None = RESPONSES,
    stated_usd: float | None = None,
    **cell: Any,
) -> LakeBuilder:
    """A lake of models × items with the same scores in every task; None: never collected."""
    builder = LakeBuilder(folder)
    for task in tasks:
        for model, of in scores.items():
            built = BuiltCell(model=model, task=task, **cell)
            builder.run(built, planned=len(of))
            texts = [*responses, *[f"answer {n}" for n in range(len(of))]] if responses else [None] * len(of)
            records = [
                built.record(
                    item,
                    score=score,
                    responses=None if texts[item] is None else [texts[item]],
                    stated_usd=stated_usd,
                )
                for item, score in enumerate(of)
                if score is not None
            ]
            if records:
                builder.shard(built, records)
        count = len(next(iter(scores.values())))
        builder.items(
            task, "i0", count, prompt=[*prompts, *[f"question {n}" for n in range(len(prompts), count)]][:count]
        )
    return builder


def price(builder: LakeBuilder, usd: Mapping[str, float] = USD) -> LakeBuilder:
    path = Path(builder.lake.root) / "prices.csv"
    lines = ["model,provider,usd_per_million_prompt,usd_per_million_completion,valid_from,source"]
    lines += [f"{model},host,{one},{one * 10},2026-01-01,test" for model, one in usd.items()]
    path.write_text("\n".join(lines) + "\n")
    add_prices(builder.lake, *read_prices(path))
    return builder


def grids(
    lake: LakeBuilder | Lake, form: str, where: str = "true", tasks: Sequence[str] = (), questions: str = "any"
) -> list[Grid]:
    """What a format sees of the lake, imported records among them; by default questions with gaps, too."""
    choice = PoolChoice(where, questions=questions)
    one = FORMATS[form]

    def read(con: duckdb.DuckDBPyConnection, holdings: Holdings) -> list[Grid]:
        options = {"texts": one.texts, "numbers": one.numbers, "unscored": one.unscored}
        return list(read_grids(con, _lake(lake), holdings, tasks or None, choice, **options)[0])  # type: ignore[arg-type]

    return ask(_lake(lake), read, only=lambda holdings: needed_views(holdings, one.numbers), choice=choice)


def exported(lake: LakeBuilder | Lake, form: str, out: Path, *, missing: str = "error", **options: Any) -> list[str]:
    """Exports the whole lake, and returns the lines for a person."""
    return export(FORMATS[form], grids(lake, form), out, missing, Options(**options))[1]


def answers(lake: LakeBuilder | Lake, columns: str = "task, item, model, score, usd") -> list[tuple[Any, ...]]:
    """The lake's own rows, in order."""
    query = f"SELECT {columns} FROM costs ORDER BY task, item, model"
    with connect(_lake(lake), only=named_in(query)) as con:
        return con.execute(query).fetchall()


def _lake(lake: LakeBuilder | Lake) -> Lake:
    return lake if isinstance(lake, Lake) else lake.lake
