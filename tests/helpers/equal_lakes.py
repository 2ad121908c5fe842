"""Random lakes with awkward numbers, and the answers of every view over them as text, for tests of equality.

Owns the laws of the numbers. `answers` is equal for two lakes only if every number is equal to the last bit.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from collectors.lake import layout
from collectors.lake.holdings import read_holdings
from collectors.lake.store import Lake
from collectors.prices.tables import add_prices, read_prices
from schemas.views import create_views, view_files
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

#: Views of files, which name the place of rows, and those with the time at which a price was added.
NOT_COMPARED = {"shards", "collection_costs", "prices", "gpu_prices", "price_names", "imports"}
_PRICES = [("model-a", 0.1, 0.3), ("model-b", 1 / 3, 2 / 3), ("model-c", 1e-9, 7.5)]


@dataclass(frozen=True)
class RandomLake:
    """Records of a seed: each cell with its rows, which may be committed in any order and in any shards.

    `is_odd` adds cells that meet the others oddly, and item tables.
    """

    seed: int
    items: int = 60
    tasks: tuple[str, ...] = ("quiz", "maths")
    is_odd: bool = False

    def cells(self) -> list[tuple[BuiltCell, list[dict[str, Any]]]]:
        rng = np.random.default_rng(self.seed)
        made = []
        for task in self.tasks:
            scores = _scores(rng, self.items)
            for name in "abcd":
                metric = "acc" if task == "quiz" else "gain"
                cell = BuiltCell(model=f"model-{name}", task=task, metric=metric, items=self.items)
                own = rng.permutation(scores) if name in "abc" else _scores(rng, self.items)  # three are equal
                seconds = rng.lognormal(0, 2, self.items)
                rows = [
                    cell.record(
                        item,
                        score=float(own[item]),
                        latency_s=float(seconds[item]) if rng.random() < 0.9 else None,
                        stated_usd=float(10 ** rng.uniform(-9, 1)) if rng.random() < 0.5 else None,
                        completion_tokens=int(rng.integers(1, 500)) if rng.random() < 0.8 else None,
                    )
                    for item in range(self.items)
                ]
                made.append((cell, rows))
        return made

    def odd_cells(self) -> list[tuple[BuiltCell, list[dict[str, Any]]]]:
        """Cells of the first task that meet those of `cells` oddly, of which a seed draws about half.

        Another dtype and prompting, a quantization, half of the items, answers that were asked three times, a source's
        import with its own item table, and one without a record.
        """
        rng, task = np.random.default_rng([self.seed, 1]), self.tasks[0]
        common = {"task": task, "metric": "acc" if task == "quiz" else "gain", "items": self.items}
        kinds = {
            "settings": BuiltCell(model="model-a", dtype="bfloat16", prompting="p1", **common),
            "quantized": BuiltCell(model="model-b", quantization="int4", **common),
            "half": BuiltCell(model="model-e", **common),
            "repeats": BuiltCell(model="model-f", **common),
            "imported": BuiltCell(model="model-g", items_digest="theirs", **common),
            "dead": BuiltCell(model="model-h", **common),
        }
        made = []
        for kind, cell in kinds.items():
            asked = rng.permutation(self.items)[: 0 if kind == "dead" else self.items // (2 if kind == "half" else 1)]
            repeats = range(4 if kind == "repeats" else 1)
            rows = [
                cell.record(int(item), score=float(rng.random()), latency_s=float(rng.random()), repeat=repeat)
                for item in sorted(asked)
                for repeat in repeats
            ]
            if rng.random() < 0.5:
                made.append((cell, rows))
        return made

    def write(self, folder: Path, order: int, halfway: Callable[[Lake], object] = lambda lake: None) -> Lake:
        """The lake whose rows, shards and cells come in the order of this number; `halfway` gets it half written."""
        rng = np.random.default_rng([self.seed, order])
        builder, cells, odd = LakeBuilder(folder), self.cells(), self.odd_cells() if self.is_odd else []
        builder.run(*(cell for cell, _ in cells))
        for cell, _ in odd:
            builder.run(cell, **({"imported_from": "elsewhere"} if cell.items_digest == "theirs" else {}))
        shards = []
        for cell, rows in [*cells, *odd]:
            cuts = sorted({0, self.items, *rng.integers(1, self.items, order % 4).tolist()})
            for first, stop in itertools.pairwise(cuts):
                inside = [row for row in rows if first <= row["item"] < stop]
                if inside:
                    shards.append((cell, [inside[at] for at in rng.permutation(len(inside))]))
        if self.is_odd:
            self._write_items(builder, {cell.items_digest for cell, _ in [*cells, *odd]})
        for number, at in enumerate(rng.permutation(len(shards))):
            if number == len(shards) // 2:
                halfway(builder.lake)
            builder.shard(*shards[at])
        put_prices(builder.lake, _PRICES)
        return builder.lake

    def _write_items(self, builder: LakeBuilder, asked: set[str]) -> None:
        """The item tables: twice the same question, unknown and other right answers, another order in the import."""
        rng = np.random.default_rng([self.seed, 2])
        texts = [f"text {number}" for number in rng.integers(0, 2 * self.items, self.items)]
        golds: list[str | None] = [json.dumps(str(number)) for number in rng.integers(0, 2, self.items)]
        theirs = rng.permutation(self.items)
        stated = [None if rng.random() < 0.2 else '"1"' if rng.random() < 0.1 else golds[at] for at in theirs]
        builder.items(self.tasks[0], "i0", self.items, content_hash=texts, target=golds)
        if "theirs" in asked:  # a version has no table that no cell asks
            builder.items(self.tasks[0], "theirs", self.items, content_hash=[texts[at] for at in theirs], target=stated)


def _scores(rng: np.random.Generator, count: int) -> Any:
    law = rng.integers(5)
    if law == 0:
        return (rng.random(count) < 0.5).astype(float)
    if law == 1:
        return np.round(rng.random(count), 3)
    if law == 2:
        return rng.beta(0.2, 0.8, count)
    if law == 3:
        return rng.lognormal(0, 1, count)
    return 10 ** rng.uniform(-30, 30, count) * rng.choice([-1, 1], count)


def put_prices(lake: Lake, prices: Sequence[tuple[str, float, float]], day: str = "2026-01-01") -> None:
    """Adds prices of a million prompt and completion tokens."""
    path = Path(lake.root).parent / "prices.csv"
    head = "model,provider,usd_per_million_prompt,usd_per_million_completion,valid_from,source\n"
    path.write_text(head + "".join(f"{model},host,{prompt!r},{done!r},{day},made\n" for model, prompt, done in prices))
    add_prices(lake, *read_prices(path))


def answers(lake: Lake, threads: int = 2, include: str = "all") -> dict[str, list[str]]:
    """View -> its rows as sorted texts that show every bit."""
    lake = lake.open_for_reading()
    with duckdb.connect() as con:
        con.execute(f"SET threads = {threads}")
        create_views(con, lake.uri, read_holdings(lake, include=include).view_files(), comments=False)
        return _rows_of_views(con)


def answers_of_database(version: Path, threads: int) -> dict[str, list[str]]:
    """The same from the database of a published version alone, but for what it reads from the version's files."""
    with duckdb.connect(version / layout.DATABASE, read_only=True) as con:
        con.execute(f"SET threads = {threads}")
        con.execute("SET VARIABLE snapshot = ?", [str(version)])
        return _rows_of_views(con)


def _rows_of_views(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    views = [name for name, file in view_files().items() if file.kind == "view" and not name.startswith("_")]
    return {name: rows_of(con, name) for name in views if name not in NOT_COMPARED}


def rows_of(con: duckdb.DuckDBPyConnection, view: str) -> list[str]:
    """The rows of a view or a query in parentheses, sorted."""
    return sorted(repr(tuple(map(_text, row))) for row in con.execute(f"FROM {view}").fetchall())


def _text(value: Any) -> Any:
    if isinstance(value, float):
        return value.hex()
    return value.isoformat() if isinstance(value, dt.datetime) else value
