"""Trusted verdicts to shards of the lake: sorted, each answer once, beside what is there.

Owns what a duplicate is, and how an import that adds to a cell leaves what the cell holds. Knows nothing of formats, or
of what a cell's identity is made of (cells.py).
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from collectors.importers.cells import ImportedCell
from collectors.importers.sources import FOUND
from collectors.importers.staging import Staging
from collectors.lake.holdings import Holdings, read_holdings
from collectors.lake.layout import shard_name
from collectors.lake.reading import connect
from collectors.lake.store import Lake, parquet_bytes
from schemas.failures import NOT_JUDGED, StorageError
from schemas.identity import ShardName
from schemas.records import RECORD

#: Most items of an imported shard: nothing is lost with one but time, so it may be larger than a collected one.
SHARD_ITEMS = 200_000
#: Rows taken from the sorted stream at a time.
_BATCH_ROWS = 100_000
_KEY = ("item", "filter", "repeat")
#: A rule of right and wrong is one of a metric whose range is known, or of scores that look like shares.
_CORRECT = "CASE WHEN is_ranged OR score BETWEEN 0 AND 1 THEN score >= threshold END"
#: Columns that say where a row stands, not what it says.
_WHERE = ("file", "row", "cell")


class RecordWriter:
    """Writes the records of one import."""

    def __init__(
        self,
        staging: Staging,
        lake: Lake,
        cells: Sequence[ImportedCell],
        there: Mapping[str, list[ShardName]],
        hashes: Sequence[str | None],
        import_id: str,
        source: str,
    ) -> None:
        """`there`: the shards of `lake` by cell. `hashes`: SHA-256 of each file. `source`: what it is called."""
        self.staging, self.lake, self.cells, self.there, self.hashes = staging, lake, cells, there, hashes
        self.import_id, self.source = import_id, source
        self.con = staging.con
        self.lock = threading.Lock()

    def write(self, *, dry_run: bool, told: Callable[[int, int], None]) -> None:
        """Writes what is not there; `told` hears of cells done, and of all."""
        jobs: list[Future[None]] = []
        told(0, len(self.cells))
        done = 0
        with ThreadPoolExecutor(2) as pool:
            for rows in self._by_cell():
                cell = self.cells[rows["cell"][0].as_py()]
                there = self.there.get(cell.cell_id, [])
                jobs.append(pool.submit(self._write_cell, cell, rows, there, dry_run=dry_run))
                if len(jobs) > 8:
                    jobs.pop(0).result()
                    done += 1
                    told(done, len(self.cells))
            for job in jobs:
                job.result()
                done += 1
                told(done, len(self.cells))

    def _by_cell(self) -> Iterator[pa.Table]:
        """Trusted verdicts, sorted, a table for each cell (several for a large one, parted between items).

        Of FOUND's columns those that say something: what is the same for all rows is not sorted with them.
        """
        names = [name for name in FOUND.names if name not in ("run", "model", "task", "key", "filter", "repeat")]
        counts = ", ".join(f"count({name})" for name in names)
        [found] = self.con.execute(f"SELECT {counts} FROM found_rows").fetchall()
        names = [name for name, count in zip(names, found, strict=True) if count]
        [(first, last, least, most)] = self.con.execute(
            "SELECT min(filter), max(filter), min(repeat), max(repeat) FROM trusted"
        ).fetchall()
        self.filter = str(first)
        names += ["filter"] if first != last else []
        names += ["repeat"] if (least, most) != (0, 0) else []
        order = [
            "cell",
            "item",
            *(name for name in ("filter", "repeat") if name in names),
            "score IS NULL",
            "file",
            "row",
        ]
        reader = self.con.execute(
            f"""
            SELECT cell, item, {", ".join(f"trusted.{name}" for name in names)}
                {f", {_CORRECT} AS correct" if "score" in names else ""}
            FROM trusted
            JOIN cell_numbers USING (run, model, task)
            JOIN numbers USING (run, task, key)
            ORDER BY {", ".join(f"trusted.{name}" if name == "filter" else name for name in order)}
            """
        ).to_arrow_reader(_BATCH_ROWS)
        rest: pa.Table | None = None
        for batch in reader:
            rows = pa.Table.from_batches([batch])
            rest = pa.concat_tables([rest, rows]) if rest is not None else rows
            cells, items = (rest[name].to_numpy() for name in ("cell", "item"))
            ends = np.flatnonzero(np.diff(cells)) + 1
            start = 0
            for end in ends:
                yield from _in_shards(rest.slice(start, end - start))
                start = int(end)
            if len(np.unique(items[start:])) > SHARD_ITEMS:  # the last item may go on in the next batch
                *some, last = _in_shards(rest.slice(start))
                yield from some
                start = len(rest) - len(last)
            rest = rest.slice(start).combine_chunks()
        if rest is not None and len(rest):
            yield from _in_shards(rest)

    def _write_cell(self, cell: ImportedCell, rows: pa.Table, there: list[ShardName], *, dry_run: bool) -> None:
        rows = self._without_duplicates(cell, rows)
        records = self._records(cell, rows)
        items = rows["item"].to_numpy()
        name = ShardName(cell.cell_id, 0, int(items[0]), int(items[-1]))
        facts = {"shard": {"run_id": self.import_id, "source_run": cell.run, "items": len(np.unique(items))}}
        files = rows["file"].to_numpy()
        if not any(shard.first <= name.last and shard.last >= name.first for shard in there):
            if not dry_run:
                self._commit(cell, name, records, facts)
            self._count(files, "records")
            return
        if name in there and self._is_same(shard_name(cell.task, name), records, facts):
            self._count(files, "records")  # this import wrote it, before it was killed
            return
        self._write_beside(cell, rows, records, there, facts, dry_run=dry_run)

    def _records(self, cell: ImportedCell, rows: pa.Table) -> pa.Table:
        """Rows of the sorted stream as schemas.records.RECORD."""
        many = len(rows)
        own = {
            "cell_id": pa.repeat(pa.scalar(cell.cell_id), many),
            "model": pa.repeat(pa.scalar(cell.model), many),
            "task": pa.repeat(pa.scalar(cell.task), many),
            "item_hash": cell.table.hashes_of(rows["item"].to_numpy()),
            "source_file": pa.array(self.hashes, pa.string()).take(rows["file"]),
            "source_row": rows["row"],
        }
        there = {name: rows[name] for name in rows.schema.names}
        there.setdefault("filter", pa.repeat(pa.scalar(self.filter), many))
        there.setdefault("repeat", pa.repeat(pa.scalar(0, pa.int16()), many))
        score, failure = (there.get(name, pa.nulls(many)) for name in ("score", "failure"))
        if score.null_count:
            import pyarrow.compute as pc  # 75 ms

            is_open = pc.and_(pc.is_null(score), pc.is_null(failure))
            there["failure"] = pc.if_else(is_open, NOT_JUDGED, failure.cast(pa.string()))
        there |= own
        columns = [there[f.name].cast(f.type) if f.name in there else pa.nulls(many, f.type) for f in RECORD]
        return pa.table(columns, schema=RECORD)

    def _commit(self, cell: ImportedCell, name: ShardName, records: pa.Table, facts: dict[str, Any]) -> None:
        path = shard_name(cell.task, name)
        if not self.lake.create_table(path, records, facts):
            raise StorageError(f"{path} was written by somebody else in this moment: run the same command again")

    def _is_same(self, name: str, records: pa.Table, facts: dict[str, Any]) -> bool:
        try:
            return self.lake.read(name) == parquet_bytes(records, facts)
        except FileNotFoundError:  # pruned after it was folded
            return False

    def _write_beside(
        self,
        cell: ImportedCell,
        rows: pa.Table,
        records: pa.Table,
        there: list[ShardName],
        facts: dict[str, Any],
        *,
        dry_run: bool,
    ) -> None:
        """What the lake holds of the cell already is compared; the rest is written beside it."""
        held, table = self._held(cell, there)
        fresh = np.zeros(len(rows), np.bool_)
        values = [name for name in RECORD.names if name not in ("source_file", "source_row", *_KEY)]
        keys = list(zip(*(records[name].to_pylist() for name in _KEY), strict=True))
        contents = records.select(values).to_pylist()
        files = rows["file"].to_numpy()
        for position, (key, content) in enumerate(zip(keys, contents, strict=True)):
            if key not in held:
                fresh[position] = True
            elif held[key] == content:
                self._count(files[position : position + 1], "known")
            else:
                message = f"the lake holds another verdict of the same answer, from an earlier import of {self.source}"
                self._reject(rows, position, cell, message)
        if not fresh.any():
            return
        self._count(files[fresh], "records")
        if dry_run:
            return
        generation = max(shard.generation for shard in there) + 1
        # With what the lake holds of the same items: a higher generation stands for whole items.
        kept = records.filter(pa.array(fresh))
        import pyarrow.compute as pc

        beside = table.filter(pc.is_in(table["item"], kept["item"].combine_chunks()))
        order = [(name, "ascending") for name in _KEY]
        kept = pa.concat_tables([kept, beside.select(RECORD.names).cast(RECORD)]).sort_by(order).combine_chunks()
        kept = kept.replace_schema_metadata(RECORD.metadata).cast(RECORD)
        items = kept["item"].to_numpy()
        for start, stop in _runs(items):  # no gap: nothing that is there is covered
            some = kept.slice(start, stop - start)
            name = ShardName(cell.cell_id, generation, int(items[start]), int(items[stop - 1]))
            self._commit(cell, name, some, facts)

    @functools.cached_property
    def _holdings(self) -> Holdings:
        """What the lake held before this import: only one of a source is at work."""
        return read_holdings(self.lake)

    def _held(
        self, cell: ImportedCell, there: list[ShardName]
    ) -> tuple[dict[tuple[Any, ...], dict[str, Any]], pa.Table]:
        """What the lake holds of the cell: (item, filter, repeat) -> what is said; and the same as a table."""
        names = {shard_name(cell.task, shard) for shard in there}
        with self.lock:  # cells are written by several threads
            holdings = self._holdings
        manifest = holdings.manifest
        if manifest:
            mine = tuple(p for p in manifest.parts if p.prompting == cell.prompting and p.task == cell.task)
            manifest = dataclasses.replace(manifest, parts=mine)
        listed = {**holdings.listed, "shards": [name for name in holdings.listed["shards"] if name in names]}
        inputs = dataclasses.replace(holdings, listed=listed, manifest=manifest)
        with connect(self.lake, inputs, only=["records", "responses"]) as con:
            columns = ", ".join(name for name in RECORD.names)
            answers = (
                "SELECT cell_id, item, filter, repeat, responses, loglikelihoods, is_greedy, filtered FROM responses"
            )
            found = con.execute(
                f"SELECT {columns} FROM records LEFT JOIN ({answers}) USING (cell_id, item, filter, repeat) "
                "WHERE cell_id = ?",
                [cell.cell_id],
            ).to_arrow_table()
        values = [name for name in RECORD.names if name not in ("source_file", "source_row", *_KEY)]
        keys = zip(*(found[name].to_pylist() for name in _KEY), strict=True)
        return dict(zip(keys, found.select(values).to_pylist(), strict=True)), found

    def _without_duplicates(self, cell: ImportedCell, rows: pa.Table) -> pa.Table:
        """Of rows of one answer the first, if the others say the same; those that do not are rejected."""
        same = np.ones(max(len(rows) - 1, 0), np.bool_)
        for name in (name for name in _KEY if name in rows.schema.names):
            column = rows[name].combine_chunks()
            if name == "filter":
                column = column.dictionary_encode()
                column = (column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column).indices
            column = column.to_numpy()
            same &= column[1:] == column[:-1]
        if not same.any():
            return rows
        values = [name for name in rows.schema.names if name not in _WHERE]
        keep = np.ones(len(rows), np.bool_)
        first = 0
        contents: dict[int, dict[str, Any]] = {}

        def content(position: int) -> dict[str, Any]:
            if position not in contents:
                contents[position] = rows.select(values).slice(position, 1).to_pylist()[0]
            return contents[position]

        files = rows["file"].to_numpy()
        for position in (np.flatnonzero(same) + 1).tolist():
            if position == 1 or not same[position - 2]:
                first = int(position) - 1
                contents.clear()
            keep[position] = False
            if content(first) == content(int(position)):
                self._count(files[position : position + 1], "folded")
            else:
                where = f"row {rows['row'][first].as_py()} of {self.staging.files[int(files[first])].name}"
                self._reject(rows, int(position), cell, f"{where} says otherwise of the same answer")
        return rows.filter(pa.array(keep))

    def _reject(self, rows: pa.Table, position: int, cell: ImportedCell, message: str) -> None:
        with self.con.cursor() as con:  # beside the stream of rows
            query = "SELECT key FROM numbers WHERE run = ? AND task = ? AND item = ?"
            found = con.execute(query, [cell.run, cell.task, rows["item"][position].as_py()]).fetchone()
        known = {"model": cell.source_model, "task": cell.task, "source_key": found[0] if found else None}
        row = rows["row"][position].as_py()
        self.staging.reject(rows["file"][position].as_py(), row, "conflict", message, **known)

    def _count(self, files: np.ndarray[Any, Any], what: str) -> None:
        with self.lock:  # cells are written by several threads
            for file, rows in zip(*np.unique(files, return_counts=True), strict=True):
                count = self.staging.counts[int(file)]
                setattr(count, what, getattr(count, what) + int(rows))


def _in_shards(rows: pa.Table) -> Iterator[pa.Table]:
    """Parted between items where there are more than SHARD_ITEMS."""
    items = rows["item"].to_numpy()
    firsts = np.flatnonzero(np.diff(items, prepend=items[0] - 1))
    starts = firsts[::SHARD_ITEMS]
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield rows.slice(start, end - start)


def _runs(items: np.ndarray[Any, Any]) -> Iterator[tuple[int, int]]:
    """Positions (first, one after the last) of rows whose items follow each other without a gap."""
    cuts = np.flatnonzero(np.diff(items) > 1) + 1
    yield from zip([0, *cuts.tolist()], [*cuts.tolist(), len(items)], strict=True)
