"""Lakes with all that a lake may hold, for tests of compaction and publishing, and the rows of their views."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from collectors.lake.holdings import read_holdings
from collectors.lake.layout import shard_name
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.pool_arrays import Pool
from collectors.publish.card import Description
from collectors.publish.version import PublishedVersion, build_version
from schemas.identity import ShardName
from schemas.views import create_views, named_in
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, rows

NOW = dt.timedelta(0)
VIEWS = [
    "records",
    "responses",
    "superseded",
    "matrix",
    "cells",
    "failures",
    "runs",
    "items",
    "tasks",
    "models",
]
#: Views of these and nothing else. Binding them takes two thirds of all time.
SUMMARIES = ["coverage", "leaderboard", "oracle"]


def everything(lake: Lake, *, live: bool = False, summaries: bool = False) -> dict[str, list[Any]]:
    """All rows of VIEWS, as an open connection or as a file of views that are asked later reads them."""
    views = [*VIEWS, *(SUMMARIES if summaries else ())]
    with duckdb.connect(config={"threads": 1}) as con:  # more gain nothing over a few rows
        files, asked = read_holdings(lake).view_files(live=live), named_in(" ".join([*views, "shards"]))
        create_views(con, lake.uri, files, only=asked, comments=False)
        found = {view: rows(con, f"FROM {view} ORDER BY ALL") for view in views}
        found["shards"] = rows(con, "SELECT * EXCLUDE (file, in_compaction) FROM shards ORDER BY ALL")
    return {
        view: [tuple(round(v, 12) if isinstance(v, float) else v for v in row) for row in table]
        for view, table in found.items()
    }


def add(builder: LakeBuilder, model: str, task: str, generation: int, first: int, count: int) -> None:
    """A shard of two filters, one of them with two repeats; its answers name the origin of a row."""
    cell, source = BuiltCell(model=model, task=task), f"{generation}-{first}-{count}"
    found = []
    for item in range(first, first + count):
        score = [1.0, 0.0, None, float("nan")][(item + generation) % 4]
        texts = {"responses": [source, str(item)], "filtered": f'["{item}"]'}
        found.append(cell.record(item, score=score, failure=None if item % 3 else "empty_answer", **texts))
        found += [cell.record(item, filter="strict", repeat=r, score=0.5, finish_reason=source) for r in (0, 1)]
    name = ShardName(cell.cell_id, generation, first, first + count - 1)
    if not builder.lake.has(shard_name(task, name)):
        builder.shard(cell, found, generation=generation, metadata={"run_id": source, "host": "h"})


def planned(folder: str) -> LakeBuilder:
    builder = LakeBuilder(folder)
    builder.run(*(BuiltCell(model=model, task=task) for model in "abc" for task in "tu"))
    builder.model("a", "r0", tokenizer_hash="z")
    return builder


def plain_lake(uri: str, models: int = 3) -> LakeBuilder:
    """Whole cells of right and wrong answers, and nothing else."""
    builder = LakeBuilder(uri)
    cells = [BuiltCell(model=f"m{i}", task=task) for i in range(models) for task in ("t", "u")]
    builder.run(*cells)
    for number, cell in enumerate(cells):
        draw = random.Random(number)
        builder.scores(cell, [draw.choice([0.0, 1.0]) for _ in range(cell.items)])
    return builder


DESCRIPTION = Description("A matrix", "Of tests.", "cc-by-4.0", {"quiz": "mit"})


def filled(folder: Path) -> LakeBuilder:
    """Generations, gaps, unknown verdicts, fractions, two filters, answers, items and a failure."""
    builder = planned(str(folder))
    for shard in (
        ("a", "t", 0, 0, 5),
        ("a", "t", 1, 2, 2),
        ("b", "t", 0, 0, 5),
        ("b", "u", 0, 1, 4),
        ("c", "u", 2, 0, 3),
    ):
        add(builder, *shard)
    builder.items("t", "i0", 10)
    builder.items("u", "i0", 10)
    builder.failure("run-0001", "no_weights", "x has none", model="x")
    return builder


def published(
    lake: Lake, folder: Path, version: str | None = None, description: Description = DESCRIPTION
) -> PublishedVersion:
    """The lake as a published version in `folder`.

    The same lake gives the same bytes (tests/collectors/publish/test_version.py), so each is built once and copied.
    """
    assert lake.local
    content = hashlib.sha256(repr((sorted(contents(Path(lake.root)).items()), version, description)).encode())
    key = content.hexdigest()
    if key not in _BUILT:
        kept = Path(_KEPT.name) / key
        kept.mkdir()
        _BUILT[key] = build_version(lake, kept, description, version)
    shutil.copytree(_BUILT[key].folder, folder)
    return dataclasses.replace(_BUILT[key], folder=folder)


_KEPT = tempfile.TemporaryDirectory(prefix="routerlake-published-")
_BUILT: dict[str, PublishedVersion] = {}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same(first: Pool, second: Pool) -> None:
    for name in ("scores", "prompt_tokens", "completion_tokens"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (first.candidates, first.questions, first.cells) == (second.candidates, second.questions, second.cells)


def query(lake: Lake | str, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query over a lake as it is now, compacted or not."""
    lake = Lake(lake).open_for_reading() if isinstance(lake, str) else lake
    return ask(lake, lambda con, _: con.execute(sql).fetchall(), only=named_in(sql))
