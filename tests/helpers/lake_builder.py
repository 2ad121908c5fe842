"""Small lakes with known answers for tests of what reads them: cells, shards and rows from the pinned schemas."""

from __future__ import annotations

import datetime as dt
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from collectors.lake.holdings import read_holdings
from collectors.lake.item_sets import ItemSets
from collectors.lake.layout import shard_name
from collectors.lake.reading import connect
from collectors.lake.store import Lake, parquet_bytes
from schemas.identity import ShardName, digest
from schemas.records import FAILURE, ITEM, MODEL, RECORD, RUN_CELL, RUN_END
from schemas.verdicts import outcome_of, score_of
from schemas.views import ViewFiles, named_in

#: A Parquet file without the columns of any table of a lake.
FOREIGN = parquet_bytes(pa.table({"a": [1]}))


@dataclass(frozen=True)
class BuiltCell:
    """A cell for a test, with the same default for every other column."""

    model: str = "model-a"
    task: str = "quiz"
    prompting: str = "p0"
    dtype: str = "float32"
    quantization: str | None = None
    items_digest: str = "i0"
    metric: str = "acc"
    filter: str = "none"
    higher_is_better: bool = True
    items: int = 10

    @property
    def cell_id(self) -> str:
        return digest(asdict(self))

    def record(self, item: int, **changes: Any) -> dict[str, Any]:
        """A RECORD row of this cell, its outcome and score by the rules; `correct` is what a threshold of 1 gives.

        With `outcome=None` it is a row of schema 6, as it is.
        """
        if "outcome" not in changes:
            score, failure = changes.get("score"), changes.get("failure")
            is_judged = score is not None and math.isfinite(score)
            outcome = outcome_of(failure, changes.get("finish_reason"), is_judged=is_judged)
            verdict = score if is_judged else None
            changes |= {
                "outcome": outcome,
                "score": score_of(outcome, verdict, higher_is_better=self.higher_is_better),
            }
        score = changes.get("score")
        row = {
            "cell_id": self.cell_id,
            "model": self.model,
            "task": self.task,
            "item": item,
            "item_hash": f"hash-{item}",
            "filter": self.filter,
            "repeat": 0,
            "correct": None if score is None else score >= 1,
            "prompt_tokens": 10 + item,
            "completion_tokens": 2,
            "cached_tokens": 4,
            "engine_tokens": 16,
            "latency_s": 0.5,
        }
        return {**row, **changes}


class LakeViews:
    """A database in memory with the views that its queries have named so far, over the lake's present objects.

    The commands read a lake in the same way. Views that look for the objects by themselves take five times as long.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._made: set[str] = set()
        self._files: ViewFiles | None = None
        self._con: duckdb.DuckDBPyConnection | None = None

    def execute(self, sql: str) -> duckdb.DuckDBPyConnection:
        return self.having(sql).execute(sql)

    def having(self, names: str) -> duckdb.DuckDBPyConnection:
        """The database, with the views that stand in `names`, a query or a list; made anew if the lake has changed."""
        wanted, holdings = named_in(names), read_holdings(self.lake)
        files = holdings.view_files()
        if files == self._files:
            wanted |= self._made
        if self._con is None or (wanted, files) != (self._made, self._files):
            if self._con is not None:
                self._con.close()
            self._con, self._made, self._files = connect(self.lake, holdings, only=wanted), wanted, files
        return self._con


class LakeBuilder:
    """A lake in `folder`, empty at first."""

    def __init__(self, folder: Path | str) -> None:
        self.lake = Lake(str(folder)).open_for_writing()
        self._runs = 0
        self._views: LakeViews | None = None

    def copied(self, folder: Path) -> LakeBuilder:
        """A lake in `folder` that begins with the objects of this one."""
        shutil.copytree(self.lake.root, folder)
        copy = LakeBuilder(folder)
        copy._runs = self._runs
        return copy

    def run(self, *cells: BuiltCell, planned: int | None = None, **changes: Any) -> str:
        """Plans the cells in a new run, a day after the one before. Returns its id."""
        self._runs += 1
        run_id = f"run-{self._runs:04d}"
        started = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=self._runs)
        rows = [{**_planned(cell, run_id, started, planned), **changes} for cell in cells]
        self._create(f"runs/{run_id}.parquet", rows, RUN_CELL)
        return run_id

    def shard(
        self,
        cell: BuiltCell,
        rows: Iterable[Mapping[str, Any]],
        *,
        generation: int = 0,
        metadata: Mapping[str, Any] | None = None,
        listed: Sequence[int] | None = None,
    ) -> ShardName:
        """Commits the rows as one shard, named by their first and last item, and as a sparse one with `listed`."""
        rows = list(rows)
        items = [row["item"] for row in rows]
        item_set = "" if listed is None else self.item_set(listed)
        name = ShardName(cell.cell_id, generation, min(items), max(items), item_set)
        self._create(shard_name(cell.task, name), rows, RECORD, {"shard": dict(metadata)} if metadata else None)
        return name

    def item_set(self, items: Sequence[int]) -> str:
        """Stores a list of items, in ascending order. Returns its digest."""
        sets = ItemSets(self.lake)
        item_set = sets.add(items)
        sets.write(item_set)
        return item_set

    def scores(self, cell: BuiltCell, scores: Sequence[float | None], *, first: int = 0, generation: int = 0) -> None:
        """Commits one shard with a row per score from item `first` on; None: the item was never collected."""
        rows = [cell.record(item, score=score) for item, score in enumerate(scores, first) if score is not None]
        if rows:
            self.shard(cell, rows, generation=generation)

    def planned(self, cell: BuiltCell, scores: Sequence[float | None]) -> BuiltCell:
        """`run` of as many items as there are scores, and `scores`, in one."""
        self.run(cell, planned=len(scores))
        self.scores(cell, scores)
        return cell

    def items(self, task: str, items_digest: str, count: int, **columns: Sequence[Any]) -> None:
        """The task's table; `columns` of ITEM hold a value for each item."""
        rows = [{"task": task, "items_digest": items_digest, "item": i, "item_hash": f"hash-{i}"} for i in range(count)]
        rows = [row | {name: values[i] for name, values in columns.items()} for i, row in enumerate(rows)]
        self._create(f"items/task={task}/{items_digest}.parquet", rows, ITEM)

    def model(self, name: str, revision: str, **columns: Any) -> None:
        row = {"model": name, "source": f"somewhere/{name}", "revision": revision, **columns}
        self._create(f"models/{name}-{revision}.parquet", [row], MODEL)

    def failure(self, run_id: str, kind: str, message: str, **columns: Any) -> None:
        row = {"run_id": run_id, "failed_at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "kind": kind, "message": message}
        self._create(
            f"failures/{digest({**columns, 'run': run_id, 'kind': kind})}.parquet", [{**row, **columns}], FAILURE
        )

    def end(self, run_id: str, outcome: str, ended: dt.datetime, message: str | None = None) -> None:
        row = {"run_id": run_id, "ended_at": ended, "outcome": outcome, "message": message}
        self._create(f"run_ends/{run_id}.parquet", [row], RUN_END)

    def views(self) -> LakeViews:
        """The views over this lake, each made when a query first names it."""
        self._views = self._views or LakeViews(self.lake)
        return self._views

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """A query over this lake, with the views that it names."""
        return rows(self.views(), sql)

    def row(self, sql: str) -> dict[str, Any]:
        """The query's only row, by column name."""
        return row(self.views(), sql)

    def _create(self, name: str, rows: list[Any], schema: pa.Schema, metadata: dict[str, Any] | None = None) -> None:
        assert self.lake.create_table(name, pa.Table.from_pylist(rows, schema), metadata), f"{name} is there already"


def _planned(cell: BuiltCell, run_id: str, started: dt.datetime, planned: int | None) -> dict[str, Any]:
    return {
        **asdict(cell),
        "run_id": run_id,
        "started_at": started,
        "cell_id": cell.cell_id,
        "source": f"somewhere/{cell.model}",
        "revision": "r0",
        "task_version": "1.0",
        "task_digest": "t0",
        "output_type": "multiple_choice",
        "num_fewshot": 0,
        "fewshot_seed": 1234,
        "fewshot_as_multiturn": False,
        "decoding": "{}",
        "correct_threshold": 1.0,
        "planned_items": cell.items if planned is None else planned,
        "generation": 0,
        "engine": "stub",
        "versions": "{}",
        "config": "{}",
    }


def rows(con: duckdb.DuckDBPyConnection | LakeViews, sql: str) -> list[tuple[Any, ...]]:
    return con.execute(sql).fetchall()


def row(con: duckdb.DuckDBPyConnection | LakeViews, sql: str) -> dict[str, Any]:
    """The query's only row, by column name."""
    cursor = con.execute(sql)
    names = [column[0] for column in cursor.description or []]
    [values] = cursor.fetchall()
    return dict(zip(names, values, strict=True))
