"""Reads the answers of a lake for judges, some cells at a time, and the documents that they answer.

Owns the batches: cells of one task and item table, as many as have BATCH_ROWS records. Knows nothing of judges.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb

from collectors.harness.documents import doc_hash
from collectors.harness.stored import StoredItem
from collectors.lake.holdings import Holdings, committed, ever_committed, read_folded, read_holdings
from collectors.lake.item_sets import ItemSets
from collectors.lake.reading import connect
from collectors.lake.retractions import read_retracted
from collectors.lake.store import Lake
from schemas.failures import ConfigError, TaskError
from schemas.identity import ShardName

Answer = TypeVar("Answer")

#: Records that one batch reads at once: 1 GB of Python objects, a second of judging in each of 100 batches.
BATCH_ROWS = 100_000

_CELLS = """
SELECT cells.*, rows
FROM (
    SELECT cell_id, task, items_digest, decoding, model, prompting, planned_items, thinking, sandbox, imported_from,
        metric, filter
    FROM cells
) AS cells
INNER JOIN (SELECT cell_id, count(*) AS rows FROM records GROUP BY cell_id) USING (cell_id)
WHERE $tasks IS NULL OR list_contains($tasks::VARCHAR[], task)
ORDER BY task, items_digest, cell_id
"""
_ITEMS = "SELECT item, doc, item_hash FROM items WHERE task = ? AND items_digest = ? ORDER BY item"
_ANSWERS = """
SELECT records.cell_id, records.generation, records.item, records.item_hash, records.filter, records.repeat,
    records.failure, records.outcome, records.finish_reason,
    responses.responses, responses.loglikelihoods, responses.is_greedy{verdicts}
FROM records LEFT JOIN responses
    ON records.cell_id = responses.cell_id AND records.generation = responses.generation
    AND records.item = responses.item AND records.filter = responses.filter AND records.repeat = responses.repeat
WHERE records.cell_id IN (SELECT unnest(?))
"""
_OF_JUDGE = "SELECT * FROM verdicts WHERE judge_id = ? AND cell_id IN (SELECT unnest(?))"
#: What a check compares.
_VERDICTS = ", records.score, records.correct, records.metrics, responses.filtered"


@dataclass(frozen=True)
class Batch:
    """Cells of one task and item table, asked with one decoding."""

    task: str
    items_digest: str
    #: JSON, as in the column: an answer is cut at its stops.
    decoding: str
    #: Whether their answers were run.
    in_sandbox: bool
    #: cell_id -> its row of the view cells.
    cells: Mapping[str, Mapping[str, Any]]

    @property
    def rows(self) -> int:
        """Number of their records."""
        return sum(int(row["rows"]) for row in self.cells.values())


@dataclass(frozen=True)
class Asked:
    """The stored items of a shard."""

    shard: ShardName
    items: list[StoredItem]


class Source:
    """The answers of a lake, as they are at one moment."""

    def __init__(self, lake: Lake, include: str = "all") -> None:
        self.lake = lake
        self.holdings = read_holdings(lake, include=include)
        self.retracted = read_retracted(lake)
        #: Cell -> all shards that were ever committed, forgotten ones too.
        self.ever = ever_committed(lake)
        #: Cell -> its committed shards, in name order.
        self.shards = committed(lake, self.retracted, self.ever)
        self.item_sets = ItemSets(lake)
        manifest = self.holdings.manifest
        rows = read_folded(lake, manifest, columns=["cell_id", "part"]) if manifest else []
        self._parts = {str(row["cell_id"]): str(row["part"]) for row in rows}

    def batches(self, tasks: Sequence[str] | None = None) -> list[Batch]:
        """All cells with records, or those of `tasks`. Raises ConfigError without any."""
        given = {"tasks": None if tasks is None else list(tasks)}
        rows = self._asked(lambda con: con.execute(_CELLS, given).to_arrow_table().to_pylist(), ["cells", "records"])
        if not rows:
            raise ConfigError(f"the lake at {self.lake.uri} has no answers{' to ' + ', '.join(tasks) if tasks else ''}")
        grouped: dict[tuple[str, str, str, bool], list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            key = row["task"], row["items_digest"], row["decoding"] or "{}", row["sandbox"] is not None
            grouped[key].append(row)
        return [
            Batch(task, items_digest, decoding, in_sandbox, {row["cell_id"]: row for row in part})
            for (task, items_digest, decoding, in_sandbox), of_key in grouped.items()
            for part in _cut(of_key)
        ]

    def documents(self, task: str, items_digest: str) -> list[Any]:
        """The documents of an item table, in order.

        Raises TaskError where the lake lacks one, or holds another than was asked.
        """
        rows = self._asked(lambda con: con.execute(_ITEMS, [task, items_digest]).fetchall(), ["items"])
        if not rows or [row[0] for row in rows] != list(range(len(rows))):
            raise TaskError(f"task {task}: the lake lacks documents of its items {items_digest}", "no_data")
        docs = []
        for item, text, item_hash in rows:
            if text is None:
                raise TaskError(
                    f"task {task}: the lake has no document of item {item}, so nothing can judge it", "no_data"
                )
            docs.append(json.loads(text))
            if doc_hash(docs[-1]) != item_hash:
                raise TaskError(
                    f"task {task}: the document of item {item} is not the one that was asked: see item_hash"
                )
        return docs

    def questions(self, task: str, items_digest: str) -> dict[int, tuple[str, str]]:
        """Item -> its question as the task asks it, and its reference answer; '' where the lake lacks it."""
        query = "SELECT item, prompt, _answer(target) FROM items WHERE task = ? AND items_digest = ?"
        rows = self._asked(lambda con: con.execute(query, [task, items_digest]).fetchall(), ["items", "_answer"])
        return {item: (prompt or "", target or "") for item, prompt, target in rows}

    def read(self, batch: Batch, *, verdicts: bool = False) -> list[Asked]:
        """The records and answers of a batch, by the shards that hold them; `verdicts` adds a check's columns."""
        query = _ANSWERS.format(verdicts=_VERDICTS if verdicts else "")
        with contextlib.closing(connect(self.lake, self._of(batch), only=["records", "responses"])) as con:
            rows = con.execute(query, [list(batch.cells)]).to_arrow_table().to_pylist()
        items: dict[tuple[str, int, int], dict[tuple[str, int], dict[str, Any]]] = defaultdict(dict)
        for row in rows:
            items[row["cell_id"], row["generation"], row["item"]][row["filter"], row["repeat"]] = row
        found: dict[ShardName, list[StoredItem]] = defaultdict(list)
        for (cell_id, generation, item), of in sorted(items.items()):
            if shard := self._shard_of(cell_id, generation, item):
                found[shard].append(StoredItem(item, of, batch.cells[cell_id]["thinking"]))
        return [Asked(shard, found[shard]) for shard in sorted(found)]

    def verdicts(self, batch: Batch, judge_id: str) -> dict[ShardName, dict[tuple[int, str, int], dict[str, Any]]]:
        """The verdicts of a judge by shard; then by item, filter and repeat."""
        with contextlib.closing(connect(self.lake, self._of(batch), only=["verdicts"])) as con:
            rows = con.execute(_OF_JUDGE, [judge_id, list(batch.cells)]).to_arrow_table().to_pylist()
        found: dict[ShardName, dict[tuple[int, str, int], dict[str, Any]]] = defaultdict(dict)
        for row in rows:
            if shard := self._shard_of(row["cell_id"], row["generation"], row["item"]):
                found[shard][row["item"], row["filter"], row["repeat"]] = row
        return found

    def _asked(self, question: Callable[[duckdb.DuckDBPyConnection], Answer], views: list[str]) -> Answer:
        with contextlib.closing(connect(self.lake, self.holdings, only=views)) as con:
            return question(con)

    def _of(self, batch: Batch) -> Holdings:
        """The part of the lake with the cells of a batch: a view over all shards would open each of them."""
        shards = [n for n in self.holdings.listed["shards"] if (s := ShardName.parse(n)) and s.cell_id in batch.cells]
        parts = {self._parts[cell_id] for cell_id in batch.cells if cell_id in self._parts}
        manifest = self.holdings.manifest
        if manifest:
            kept = tuple(part for part in manifest.parts if part.records in parts)
            manifest = dataclasses.replace(manifest, parts=kept)
        return dataclasses.replace(self.holdings, listed={**self.holdings.listed, "shards": shards}, manifest=manifest)

    def _shard_of(self, cell_id: str, generation: int, item: int) -> ShardName | None:
        of = self.shards.get(cell_id, ())
        return next((s for s in of if s.generation == generation and self.item_sets.holds(s, item)), None)


def _cut(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        if part and size + row["rows"] > BATCH_ROWS:
            yield part
            part, size = [], 0
        part.append(row)
        size += row["rows"]
    yield part
