"""Writes trusted verdicts into shards of the lake: sorted, each answer once, beside the rows that are there.

Owns the rule for duplicates, and how an import adds to a cell without changing its rows. Knows nothing of formats, or
of a cell's identity (cells.py).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from collectors.importers.cells import ImportedCell
from collectors.importers.earlier import EarlierRows, ItemRange
from collectors.importers.raw_tables import RAW_VERDICT
from collectors.importers.staging import Staging
from collectors.lake.layout import shard_name
from collectors.lake.retractions import Retracted
from collectors.lake.store import Lake, parquet_bytes
from schemas.failures import NOT_JUDGED, StorageError
from schemas.identity import ShardName
from schemas.records import RECORD
from schemas.verdicts import AT_LIMIT, EMPTY, ENGINE, OF_OURS, OK, OUTCOME_OF_FAILURE, TRUNCATED, is_set_level

#: Most items of an imported shard. It may be larger than a collected one, because losing it costs only time.
SHARD_ITEMS = 200_000
#: Rows taken from the sorted stream at a time, and rows that one query reads of a lake.
_BATCH_ROWS = 100_000
#: Most cells that one job writes where the lake holds some of their items: progress is shown after each job.
_BATCH_CELLS = 200
#: Jobs that wait for the threads that write.
_WAITING_JOBS = 8
_KEY = ("item", "filter", "repeat")
#: Columns in which two verdicts of one answer have to agree.
_VALUES = [name for name in RECORD.names if name not in ("source_file", "source_row", "outcome", *_KEY)]
#: Scores outside 0 to 1 are judged by the threshold only if the source states the metric's range.
_CORRECT = "CASE WHEN is_ranged OR score BETWEEN 0 AND 1 THEN score >= threshold END"
#: Words of hosts for an answer that reached the limit of generated tokens.
_AT_LIMIT = (AT_LIMIT, "max_tokens", "max_output_tokens", "max_new_tokens", "model_length")
#: Columns of a row's place; the others are its content.
_WHERE = ("file", "row", "cell")


@dataclass(frozen=True)
class _CellRows:
    """Sorted rows of one cell, and which items they are."""

    rows: pa.Table
    range: ItemRange


@dataclass(frozen=True)
class _NewRecords:
    """Rows of a cell without duplicates, their records (schemas.records.RECORD), and the metadata of their shard."""

    rows: pa.Table
    records: pa.Table
    range: ItemRange
    metadata: dict[str, Any]


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
        retracted: Retracted,
    ) -> None:
        """`there`: the shards of `lake` by cell. `hashes`: SHA-256 of each file. `source`: its name."""
        self.retracted = retracted
        self.staging, self.lake, self.cells, self.there, self.hashes = staging, lake, cells, there, hashes
        self.import_id, self.source = import_id, source
        self.earlier = EarlierRows(lake)
        self.con = staging.con
        self.lock = threading.Lock()
        #: Rows of the stream, and whether some item of a cell has more than one.
        self.rows, self.has_several = 0, False

    def write(self, *, dry_run: bool, progress: Callable[[int, int], None]) -> None:
        """Writes the records that the lake lacks. `progress` gets the number of cells written, and that of all.

        A cell of more than SHARD_ITEMS items counts once for each shard.
        """
        jobs: deque[Future[int]] = deque()
        progress(0, len(self.cells))
        done = 0
        with ThreadPoolExecutor(2) as pool:
            for batch in self._batches():
                jobs.append(pool.submit(self._write_batch, batch, dry_run=dry_run))
                if len(jobs) > _WAITING_JOBS:
                    done += jobs.popleft().result()
                    progress(done, len(self.cells))
            for job in jobs:
                done += job.result()
                progress(done, len(self.cells))

    def wrote_each_item_once(self) -> bool:
        """Whether each trusted verdict is the only one of its item and cell, and each cell has one name in the source.

        Where it is not known, it is not so.
        """
        [(trusted, named)] = self.con.execute(
            """
            SELECT (SELECT sum(rows) FROM groups WHERE reason IS NULL), (SELECT count(*) FROM cell_numbers)
            """
        ).fetchall()
        return not self.has_several and self.rows == trusted and named == len(self.cells)

    def _batches(self) -> Iterator[list[_CellRows]]:
        """Yields cells of new items one by one, and the others together, so that one query reads their earlier rows."""
        batch: list[_CellRows] = []
        weight = 0
        for rows in self._by_cell():
            cell = self.cells[rows["cell"][0].as_py()]
            items = rows["item"]
            one = _CellRows(
                rows, ItemRange(cell, self.there.get(cell.cell_id, []), items[0].as_py(), items[-1].as_py())
            )
            if not one.range.overlapping:
                yield [one]
                continue
            batch.append(one)
            weight += len(rows) + one.range.earlier_items
            if len(batch) >= _BATCH_CELLS or weight >= _BATCH_ROWS:
                yield batch
                batch, weight = [], 0
        if batch:
            yield batch

    def _by_cell(self) -> Iterator[pa.Table]:
        """Yields the trusted verdicts, sorted, as a table for each cell (several for a large one, cut between items).

        Columns of RAW_VERDICT that are empty, or equal in all rows, are not sorted with the others.
        """
        names = [name for name in RAW_VERDICT.names if name not in ("run", "model", "task", "key", "filter", "repeat")]
        counts = ", ".join(f"count({name})" for name in names)
        [filled] = self.con.execute(f"SELECT {counts} FROM raw_verdicts").fetchall()
        names = [name for name, count in zip(names, filled, strict=True) if count]
        verdicts = (["trusted.correct"] if "correct" in names else []) + ([_CORRECT] if "score" in names else [])
        names = [name for name in names if name != "correct"]
        [(first, last, least, most)] = self.con.execute(
            """
            SELECT min(first_filter), max(last_filter), min(least_repeat), max(most_repeat)
            FROM groups WHERE reason IS NULL
            """
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
                {f", coalesce({', '.join(verdicts)}) AS correct" if verdicts else ""}
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
            if _number_of_items(items[start:]) > SHARD_ITEMS:  # the last item may go on in the next batch
                *some, last = _in_shards(rest.slice(start))
                yield from some
                start = len(rest) - len(last)
            rest = rest.slice(start).combine_chunks()
        if rest is not None and len(rest):
            yield from _in_shards(rest)

    def _write_batch(self, batch: Sequence[_CellRows], *, dry_run: bool) -> int:
        """Writes the records of some cells. Returns the number of cells."""
        beside = [new for one in batch if (new := self._write_if_free(one, dry_run=dry_run))]
        if beside:
            for new, earlier in zip(beside, self.earlier.read([new.range for new in beside]), strict=True):
                self._write_beside(new, earlier, dry_run=dry_run)
        return len(batch)

    def _write_if_free(self, one: _CellRows, *, dry_run: bool) -> _NewRecords | None:
        """Writes the records of a cell unless the lake has some of their items: then it returns them."""
        cell = one.range.cell
        rows = self._without_duplicates(cell, one.rows)
        items = _number_of_items(rows["item"].to_numpy())
        with self.lock:
            self.rows += len(one.rows)
            self.has_several |= items < len(one.rows)
        metadata = {"shard": {"run_id": self.import_id, "source_run": cell.run_name, "items": items}}
        new = _NewRecords(rows, self._records(cell, rows), one.range, metadata)
        generation = self.retracted.next_generation(cell.cell_id, 0)
        name = ShardName(cell.cell_id, generation, one.range.first, one.range.last)
        if not one.range.overlapping:
            if not dry_run:
                self._commit(cell, name, new.records, metadata)
        elif not (name in one.range.shards and self._is_same(shard_name(cell.task, name), new.records, metadata)):
            return new
        self._count(rows["file"].to_numpy(), "records")  # or this import wrote them, before it was killed
        return None

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
        there |= _ruled(there, many, cell.description.metric) | own
        columns = [there[f.name].cast(f.type) if f.name in there else pa.nulls(many, f.type) for f in RECORD]
        return pa.table(columns, schema=RECORD)

    def _commit(self, cell: ImportedCell, name: ShardName, records: pa.Table, metadata: dict[str, Any]) -> None:
        path = shard_name(cell.task, name)
        if not self.lake.create_table(path, records, metadata):
            raise StorageError(f"{path} was written by another program just now: run the same command again")

    def _is_same(self, name: str, records: pa.Table, metadata: dict[str, Any]) -> bool:
        try:
            return self.lake.read(name) == parquet_bytes(records, metadata, name)
        except FileNotFoundError:  # pruned after it was folded
            return False

    def _write_beside(self, new: _NewRecords, earlier: pa.Table, *, dry_run: bool) -> None:
        """Compares records with the lake's rows of their items, and writes those that it lacks beside these."""
        cell, records = new.range.cell, new.records
        is_new = self._lacking(new, earlier)
        if not is_new.any():
            return
        self._count(new.rows["file"].to_numpy()[is_new], "records")
        if dry_run:
            return
        newest = max(shard.generation for shard in new.range.shards)
        generation = self.retracted.next_generation(cell.cell_id, newest + 1)
        # With the lake's rows of the same items: a higher generation replaces whole items.
        kept = records.filter(pa.array(is_new))
        import pyarrow.compute as pc

        beside = earlier.filter(pc.is_in(earlier["item"], kept["item"].combine_chunks()))
        order = [(name, "ascending") for name in _KEY]
        kept = pa.concat_tables([kept, beside.select(RECORD.names).cast(RECORD)]).sort_by(order).combine_chunks()
        kept = kept.replace_schema_metadata(RECORD.metadata).cast(RECORD)
        items = kept["item"].to_numpy()
        for start, stop in _runs(items):  # without gaps, or rows between them would be replaced
            some = kept.slice(start, stop - start)
            name = ShardName(cell.cell_id, generation, int(items[start]), int(items[stop - 1]))
            self._commit(cell, name, some, new.metadata)

    def _lacking(self, new: _NewRecords, earlier: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of the records the lake lacks. Rejects those that differ from its own."""
        held = dict(zip(_keys(earlier), earlier.select(_VALUES).to_pylist(), strict=True))
        lacking = np.zeros(len(new.rows), np.bool_)
        contents = new.records.select(_VALUES).to_pylist()
        files = new.rows["file"].to_numpy()
        same = np.zeros(len(new.rows), np.bool_)
        for position, (key, content) in enumerate(zip(_keys(new.records), contents, strict=True)):
            if key not in held:
                lacking[position] = True
            elif held[key] == content:
                same[position] = True
            else:
                where = f"the lake holds another verdict of the same answer, from an earlier import of {self.source}"
                message = f"{where}: {_differences(content, held[key])}"
                self._reject(new.rows, position, new.range.cell, message)
        self._count(files[same], "known")
        return lacking

    def _without_duplicates(self, cell: ImportedCell, rows: pa.Table) -> pa.Table:
        """Keeps the first row of each answer. Rejects others that differ from it."""
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
                differences = _differences(content(int(position)), content(first))
                self._reject(
                    rows, int(position), cell, f"{where} has another verdict of the same answer: {differences}"
                )
        return rows.filter(pa.array(keep))

    def _reject(self, rows: pa.Table, position: int, cell: ImportedCell, message: str) -> None:
        with self.con.cursor() as con:  # beside the stream of rows
            query = "SELECT key FROM numbers WHERE run = ? AND task = ? AND item = ?"
            key = con.execute(query, [cell.run, cell.task, rows["item"][position].as_py()]).fetchone()
        place = {"model": cell.source_model, "task": cell.task, "source_key": key[0] if key else None}
        row = rows["row"][position].as_py()
        self.staging.reject(rows["file"][position].as_py(), row, "conflict", message, **place)

    def _count(self, files: np.ndarray[Any, Any], name: str) -> None:
        with self.lock:  # cells are written by several threads
            counts = np.bincount(files)
            for file in np.flatnonzero(counts).tolist():
                count = self.staging.counts[file]
                setattr(count, name, getattr(count, name) + int(counts[file]))


def _number_of_items(items: np.ndarray[Any, Any]) -> int:
    """The number of different items, which are sorted."""
    return int(np.count_nonzero(np.diff(items))) + bool(len(items))


def _differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The columns in which two verdicts of one answer differ, with both values."""
    names = [name for name, value in mine.items() if value != theirs[name]]
    texts = [f"{name} is {str(mine[name])[:40]!r} here and {str(theirs[name])[:40]!r} there" for name in names[:3]]
    return "; ".join(texts) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


def _in_shards(rows: pa.Table) -> Iterator[pa.Table]:
    """Cuts rows between items into tables of at most SHARD_ITEMS items."""
    items = rows["item"].to_numpy()
    firsts = np.flatnonzero(np.diff(items, prepend=items[0] - 1))
    starts = firsts[::SHARD_ITEMS]
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield rows.slice(start, end - start)


def _ruled(there: Mapping[str, Any], many: int, metric: str) -> dict[str, Any]:
    """Failure, outcome and score of imported rows by schemas.verdicts."""
    import pyarrow.compute as pc  # 75 ms

    score, failure, reason = (
        there.get(name, pa.nulls(many)).cast(kind)
        for name, kind in (("score", pa.float64()), ("failure", pa.string()), ("finish_reason", pa.string()))
    )
    is_open = pc.and_(pc.is_null(score), pc.is_null(failure))
    failure = pc.if_else(is_open, NOT_JUDGED, failure)
    kinds = pa.array(OUTCOME_OF_FAILURE.keys(), pa.string())
    of_failure = pa.array(OUTCOME_OF_FAILURE.values(), pa.string()).take(pc.index_in(failure, value_set=kinds))
    at_limit = pc.is_in(pc.utf8_lower(reason), value_set=pa.array(_AT_LIMIT))
    answered = pc.if_else(_is_empty(there, many), EMPTY, pc.if_else(at_limit.fill_null(False), TRUNCATED, OK))
    outcome = pc.coalesce(of_failure, pc.if_else(pc.is_valid(failure), ENGINE, answered))
    ruled = {"failure": failure, "outcome": outcome}
    if is_set_level(None, metric, None, is_imported=True):
        return {**ruled, "score": pa.nulls(many, pa.float64()), "correct": pa.nulls(many, pa.bool_())}
    is_ours = pc.is_in(outcome, value_set=pa.array(OF_OURS))
    return {**ruled, "score": pc.if_else(is_ours, pa.scalar(None, pa.float64()), score)}


def _is_empty(there: Mapping[str, Any], many: int) -> Any:
    """Whether a row states that its answer has no text, or no token."""
    import pyarrow.compute as pc

    tokens = there.get("completion_tokens", pa.nulls(many)).cast(pa.int64())
    answers = there.get("responses", pa.nulls(many)).cast(pa.list_(pa.string()))
    text = pc.utf8_trim_whitespace(pc.binary_join(answers, ""))
    return pc.or_(pc.equal(text, "").fill_null(False), pc.equal(tokens, 0).fill_null(False))


def _runs(items: np.ndarray[Any, Any]) -> Iterator[tuple[int, int]]:
    """Yields positions (first, one after the last) of rows whose items follow each other without a gap."""
    cuts = np.flatnonzero(np.diff(items) > 1) + 1
    yield from zip([0, *cuts.tolist()], [*cuts.tolist(), len(items)], strict=True)


def _keys(records: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(records[name].to_pylist() for name in _KEY), strict=True)
