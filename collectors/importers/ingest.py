"""From what importers found to records of the lake: checked, joined, numbered, written once.

Owns which rows are trusted, what a duplicate is, and what an imported cell is. Knows nothing of formats
(collectors.importers.*), of how items find their table (items.py) or of what looks wrong without being so
(suspicions.py).

Every step writes objects whose names follow from what is in them, and the rows of imports/ come last: what is killed is
done again and finds its own objects there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import io
import itertools
import json
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collectors.holdings import Holdings, committed, newest_manifest, read_holdings
from collectors.importers.files import BadFile, SourceFile
from collectors.importers.items import ItemTable, item_rows, number_items
from collectors.importers.staging import FOUND, REJECTED, Counted, Facts, Staging
from collectors.importers.suspicions import Suspicion, suspicions
from collectors.lake import Lake, parquet_bytes
from collectors.reading import ask, connect
from schemas.failures import NOT_JUDGED, ConfigError, StorageError, one_line
from schemas.identity import ShardName, digest, imported_identity
from schemas.records import IMPORT, MODEL, RECORD, REJECT, RUN_CELL, SUSPICION

logger = logging.getLogger(__name__)

#: Most items of an imported shard: nothing is lost with one but time, so it may be larger than a collected one.
SHARD_ITEMS = 200_000
#: Rows taken from the sorted stream at a time.
_BATCH_ROWS = 100_000
#: Rejects that are stored in one object, and that a report holds.
_REJECTS = 100_000
_TOLD = 10_000


@dataclass(frozen=True)
class Source:
    """What is imported, as the person who does says it."""

    #: What the records are told from others by: `imported_from`.
    name: str
    format: str
    licence: str | None = None
    #: The source's name of a model -> its id.
    aliases: Mapping[str, str] = field(default_factory=dict)
    #: The model of files that do not say whose answers they are.
    model: str | None = None
    #: Settings of the format `table`.
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """What became of what was given."""

    source: Source
    import_id: str = ""
    #: Files that were imported before.
    skipped: list[str] = field(default_factory=list)
    files: list[SourceFile] = field(default_factory=list)
    counts: list[Counted] = field(default_factory=list)
    #: The first rows that cannot be trusted; and of all, by kind: how many, and which is first.
    rejects: list[dict[str, Any]] = field(default_factory=list)
    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)
    suspicions: list[Suspicion] = field(default_factory=list)
    cells: int = 0
    #: Model as the source calls it -> its id.
    models: dict[str, str] = field(default_factory=dict)
    #: Task -> (items, those that stood in the lake's table already, those with content, those of them that are in
    #: another source's or a collected table by content).
    items: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)

    @property
    def total(self) -> Counted:
        names = [f.name for f in dataclasses.fields(Counted)]
        return Counted(**{name: sum(getattr(count, name) for count in self.counts) for name in names})


Importer = Callable[[Staging, Source], None]


def ingest(
    importer: Importer,
    files: Sequence[SourceFile],
    source: Source,
    lake: Lake,
    *,
    dry_run: bool = False,
    told: Callable[[int, int], None] = lambda done, cells: None,
) -> Report:
    """Imports `files` into `lake`; with `dry_run` nothing is written. `told` hears of cells done, and of all.

    What a file holds that cannot be trusted is in the report and the lake's rejects. Raises StorageError when the lake
    cannot be read or written.
    """
    report = Report(source)
    with contextlib.ExitStack() as stack:
        if not dry_run:
            stack.enter_context(claimed(lake.open_for_writing(), source.name))
        there = lake.exists()
        fresh = _fresh(files, lake.open_for_reading() if there else None, report)
        if not fresh:
            return report
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="routerlake-ingest-"))
        staging = Staging(Path(folder), fresh)
        try:
            return _Import(staging, source, lake, report, there=there).run(importer, dry_run=dry_run, told=told)
        except duckdb.Error as error:
            raise StorageError(f"cannot hold what was found on this machine: {one_line(error, 200)}") from error
        finally:
            staging.close()


@contextlib.contextmanager
def claimed(lake: Lake, source: str) -> Iterator[None]:
    """One import of a source at a time: of two that write the same cells one would hide what the other wrote.

    The claim of a process of this machine that is gone is taken over. Raises ConfigError for any other.
    """
    name = f"imports/claim-{digest(source)}.json"
    mine = json.dumps({"source": source, "host": socket.gethostname(), "process": os.getpid()}).encode()
    if not lake.create(name, mine):
        try:
            other = json.loads(lake.read(name))
        except FileNotFoundError:
            other = {}
        except ValueError:
            other = {"host": "a host that is not told"}
        if other and not (other.get("host") == socket.gethostname() and _is_gone(other.get("process"))):
            raise ConfigError(
                f"another import of {source} is at work, on {other.get('host')} (process {other.get('process')}): wait "
                f"for it, or if it is not, remove {lake.uri}/{name}"
            )
        lake.remove([name])
        if not lake.create(name, mine):
            raise ConfigError(f"another import of {source} began in this moment: wait for it")
    try:
        yield
    finally:
        lake.remove([name])


def _is_gone(process: Any) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, TypeError, ValueError):
        return True
    except PermissionError:  # of somebody else
        return False
    return False


def _fresh(files: Sequence[SourceFile], lake: Lake | None, report: Report) -> list[SourceFile]:
    """None where all were imported before under the same names; the report is told of equal ones under others."""
    before: dict[str, list[str]] = {}
    if lake:
        query = "SELECT sha256, path FROM imports WHERE imported_from = ? AND format = ? ORDER BY path"
        key = [report.source.name, report.source.format]
        for sha256, path in ask(lake, lambda con, _: con.execute(query, key).fetchall(), only=["imports"]):
            before.setdefault(sha256, []).append(path)
    fresh: list[SourceFile] = []
    known: list[str] = []
    for file in files:
        try:
            names = before.setdefault(file.sha256, [])
        except BadFile:
            names = []  # the importer will meet the same, and say so
        if file.name in names:
            known.append(file.name)
        elif names:
            message = f"{file.name} is the same file as {names[0]}"
            report.suspicions.append(Suspicion("same_file", message, file=len(fresh)))
        names.append(file.name)
        fresh.append(file)
    if len(known) < len(files):
        return fresh  # those known among them too: files of a run say of each other what they are
    report.skipped = known
    return []


class _Import:
    def __init__(self, staging: Staging, source: Source, lake: Lake, report: Report, *, there: bool) -> None:
        self.staging, self.source, self.lake, self.report = staging, source, lake, report
        self.con = staging.con
        self.lake_if_there = lake if there else None
        self.now = dt.datetime.now(dt.UTC)
        self.lock = threading.Lock()
        report.files, report.counts = staging.files, staging.counts

    def run(self, importer: Importer, *, dry_run: bool, told: Callable[[int, int], None]) -> Report:
        importer(self.staging, self.source)
        self.staging.flush()
        if changed := [file.name for file in self.staging.files if file.has_changed()]:
            raise StorageError(f"{changed[0]} changed while it was read: nothing was written; try again")
        hashes = [_sha256(file) for file in self.staging.files]
        files = [[file.name, sha256] for file, sha256 in zip(self.staging.files, hashes, strict=True)]
        made_of = {"name": self.source.name, "format": self.source.format, "files": sorted(files, key=str)}
        how = {"model": self.source.model, "options": dict(self.source.options), "aliases": dict(self.source.aliases)}
        self.import_id = self.report.import_id = f"import-{digest({**made_of, **how})}"
        self.hashes = hashes
        self._trust()
        self.tables = number_items(self.staging, self.lake_if_there, self.source.name)
        self._number_cells()
        self._report_items()
        if not dry_run:
            self._write_tables()
        self._write_records(dry_run=dry_run, told=told)
        self.staging.flush()
        self._report_rejects()
        self.report.suspicions += suspicions(self.staging, self.cells)
        if not dry_run:
            self._write_report()
        return self.report

    # ---- what is trusted

    def _trust(self) -> None:
        """Makes the view `trusted`, and rejects the others."""
        con = self.con
        con.execute("CREATE TABLE ranges (run VARCHAR, model VARCHAR, task VARCHAR, low DOUBLE, high DOUBLE)")
        own = [
            (*key, facts.low, facts.high)
            for key, facts in self.staging.facts.items()
            if (facts.low, facts.high) != (self.staging.default.low, self.staging.default.high)
        ]
        if own:
            columns = zip(*own, strict=True)
            con.register("given", pa.table(dict(zip(("run", "model", "task", "low", "high"), columns, strict=True))))
            con.execute("INSERT INTO ranges FROM given")
            con.unregister("given")
        default = self.staging.default
        low, high = ("NULL" if x is None else repr(float(x)) for x in (default.low, default.high))
        limits = f"{low}::DOUBLE AS low, {high}::DOUBLE AS high"
        if own:
            join = "LEFT JOIN ranges USING (run, model, task)"
            limits = ", ".join(
                f"CASE WHEN ranges.task IS NOT NULL THEN ranges.{name} ELSE {value} END AS {name}"
                for name, value in (("low", low), ("high", high))
            )
        else:
            join = ""
        con.execute(
            """
            CREATE VIEW every AS
            SELECT * REPLACE (
                coalesce(run, '') AS run, coalesce(repeat, 0)::SMALLINT AS repeat, coalesce(filter, 'none') AS filter
            )
            FROM found_rows
            """
        )
        con.execute(
            f"""
            CREATE VIEW judged AS
            SELECT every.*, CASE
                WHEN coalesce(model, '') = '' OR coalesce(task, '') = '' OR coalesce(key, '') = '' THEN 'no_key'
                WHEN NOT (isfinite(coalesce(score, 0)) AND isfinite(coalesce(stated_usd, 0))
                    AND isfinite(coalesce(latency_s, 0)) AND isfinite(coalesce(ttft_s, 0))) THEN 'not_finite'
                WHEN score < low OR score > high THEN 'out_of_range'
                WHEN least(prompt_tokens, completion_tokens, cached_tokens, engine_tokens, stated_usd, latency_s) < 0
                    THEN 'negative_tokens'
                WHEN score IS NULL AND failure IS NULL AND responses IS NULL AND prompt_tokens IS NULL
                    AND completion_tokens IS NULL AND filtered IS NULL AND loglikelihoods IS NULL THEN 'no_verdict'
            END AS reason
            FROM (SELECT every.*, {limits} FROM every {join}) AS every
            """
        )
        con.execute("CREATE VIEW trusted AS SELECT * FROM judged WHERE reason IS NULL")
        con.execute(
            "CREATE TABLE groups AS SELECT run, model, task, file, reason, count(*) AS rows FROM judged GROUP BY ALL"
        )
        for file, rows in con.execute("SELECT file, sum(rows)::BIGINT FROM groups GROUP BY file").fetchall():
            self.staging.counts[file].rows += rows
        for count in self.staging.counts:
            count.rows += count.rejected  # by the importer
        for file, rows in con.execute(
            "SELECT file, sum(rows)::BIGINT FROM groups WHERE reason IS NOT NULL GROUP BY file"
        ).fetchall():
            self.staging.counts[file].rejected += rows
        reasons = " ".join(f"WHEN '{kind}' THEN {message}" for kind, message in _REASONS.items())
        con.execute(
            f"""
            INSERT INTO rejects
            SELECT file, row, reason, CASE reason {reasons} END, model, task, key FROM judged WHERE reason IS NOT NULL
            """
        )

    # ---- cells

    def _number_cells(self) -> None:
        """Makes the table `cell_numbers`, and `cells`: what each is."""
        rows = self.con.execute(
            "SELECT DISTINCT run, model, task FROM groups WHERE reason IS NULL ORDER BY ALL"
        ).fetchall()
        self.cells: list[ImportedCell] = []
        numbers: dict[str, int] = {}
        taken: dict[str, str] = {}
        self.there = committed(self.lake) if self.lake_if_there else {}
        of_row = []
        for run, model, task in rows:
            table = self.tables.get((run, task))
            if table is None:  # all its items were rejected
                continue
            facts = self.staging.facts.get((run, model, task), self.staging.default)
            cell = self._cell(run, model, task, facts, table, taken)
            self.report.models[model] = cell.model
            if cell.cell_id not in numbers:  # two names in the source of one model are one
                numbers[cell.cell_id] = len(self.cells)
                self.cells.append(cell)
            of_row.append((run, model, task, numbers[cell.cell_id], facts.threshold, facts.filter))
        names = ("run", "model", "task", "cell", "threshold", "filter")
        types = (pa.string(), pa.string(), pa.string(), pa.int32(), pa.float64(), pa.string())
        columns = list(zip(*of_row, strict=True)) or [()] * len(names)
        table_of_cells = {n: pa.array(c, t) for n, c, t in zip(names, columns, types, strict=True)}
        self.con.register("given", pa.table(table_of_cells))
        self.con.execute("CREATE TABLE cell_numbers AS FROM given")
        self.con.unregister("given")
        self.report.cells = len(self.cells)

    def _cell(
        self, run: str, model: str, task: str, facts: Facts, table: ItemTable, taken: dict[str, str]
    ) -> ImportedCell:
        """Of the runs of one model on one task each is a cell of its own, numbered in their order."""
        for number in itertools.count(1):
            cell = ImportedCell.of(self.source, number, run, model, task, facts, table)
            if cell.cell_id not in taken:
                shards = self.there.get(cell.cell_id)
                taken[cell.cell_id] = self._run_of(cell, shards[0]) if shards else run
            if taken[cell.cell_id] == run:
                return cell
        raise AssertionError

    def _run_of(self, cell: ImportedCell, shard: ShardName) -> str:
        """Which run of its source a shard of the lake is of."""
        name = Lake.shard_path(cell.task, shard)
        try:
            facts = pq.read_schema(io.BytesIO(self.lake.read(name))).metadata[b"shard"]
        except FileNotFoundError:  # folded and pruned
            manifest = newest_manifest(self.lake)
            assert manifest, name
            rows = pq.read_table(io.BytesIO(self.lake.read(manifest.folded)), columns=["file", "facts"])
            [facts] = rows.filter(pc.equal(rows["file"], name))["facts"].to_pylist()
        return str(json.loads(facts).get("source_run", ""))

    def _report_rejects(self) -> None:
        columns = ", ".join(REJECTED.names)
        ordered = f"SELECT {columns} FROM rejects ORDER BY file, source_row NULLS FIRST, kind, message"
        first = self.con.execute(f"{ordered} LIMIT {_TOLD}").to_arrow_table()
        self.report.rejects = first.to_pylist()
        for kind, count, file, row, message in self.con.execute(
            """
            SELECT kind, count(*), arg_min(file, (file, source_row)), arg_min(source_row, (file, source_row)),
                arg_min(message, (file, source_row))
            FROM rejects GROUP BY kind ORDER BY kind
            """
        ).fetchall():
            where = self.staging.files[file].name + (f" row {row}" if row else "")
            self.report.kinds[kind] = (count, f"{where}: {message}")

    def _report_items(self) -> None:
        known: set[str] = set()
        if self.lake_if_there:
            query = "SELECT DISTINCT content_hash FROM items WHERE content_hash IS NOT NULL"
            found = ask(self.lake_if_there, lambda con, _: con.sql(query).to_arrow_table(), only=["items"])
            known = set(found["content_hash"].to_pylist())
        self.con.register("known", pa.table({"content_hash": pa.array(sorted(known), pa.string())}))
        rows = self.con.execute(
            """
            SELECT task, count(DISTINCT key), count(DISTINCT key) FILTER (content_hash IS NOT NULL),
                count(DISTINCT key) FILTER (content_hash IN (SELECT content_hash FROM known))
            FROM staged_items GROUP BY task ORDER BY task
            """
        ).fetchall()
        self.con.unregister("known")
        for task, items, with_content, joined in rows:
            stored = {id(t): t for (_, name), t in self.tables.items() if name == task and t.stored}
            in_table = min(items, sum(len(table.hashes) for table in stored.values()))
            self.report.items[task] = (items, in_table, with_content, joined)

    # ---- writing

    def _write_tables(self) -> None:
        for table in {id(table): table for table in self.tables.values()}.values():
            if not table.stored and not self.lake.has(table.name):
                self.lake.create_table(table.name, item_rows(self.con, table))
        models: dict[str, dict[str, Any]] = {}
        for cell in self.cells:
            row: dict[str, Any] = {"model": cell.model, "source": cell.source_model}
            row |= {"revision": cell.facts.revision, "parameters": cell.facts.parameters}
            models[digest(row)] = row
        if models:
            rows = [{**dict.fromkeys(MODEL.names), **row} for row in models.values()]
            self.lake.create_table(f"models/{self.import_id}.parquet", pa.Table.from_pylist(rows, MODEL))
        name = f"runs/{self.import_id}.parquet"
        if self.cells and not self.lake.has(name):
            self.lake.create_table(name, pa.Table.from_pylist(list(self._run_rows()), RUN_CELL))

    def _run_rows(self) -> Iterator[dict[str, Any]]:
        config = json.dumps({"format": self.source.format, "files": [file.name for file in self.staging.files]})
        for cell in self.cells:
            yield {**cell.run_row(), "run_id": self.import_id, "started_at": self.now, "config": config}

    def _write_records(self, *, dry_run: bool, told: Callable[[int, int], None]) -> None:
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
                {", CASE WHEN score BETWEEN 0 AND 1 THEN score >= threshold END AS correct" if "score" in names else ""}
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
        if name in there and self._is_same(Lake.shard_path(cell.task, name), records, facts):
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
            "item_hash": cell.table.column.take(rows["item"]),
            "source_file": pa.array(self.hashes, pa.string()).take(rows["file"]),
            "source_row": rows["row"],
        }
        there = {name: rows[name] for name in rows.schema.names}
        there.setdefault("filter", pa.repeat(pa.scalar(self.filter), many))
        there.setdefault("repeat", pa.repeat(pa.scalar(0, pa.int16()), many))
        score, failure = (there.get(name, pa.nulls(many)) for name in ("score", "failure"))
        if score.null_count:
            is_open = pc.and_(pc.is_null(score), pc.is_null(failure))
            there["failure"] = pc.if_else(is_open, NOT_JUDGED, failure.cast(pa.string()))
        there |= own
        columns = [there[f.name].cast(f.type) if f.name in there else pa.nulls(many, f.type) for f in RECORD]
        return pa.table(columns, schema=RECORD)

    def _commit(self, cell: ImportedCell, name: ShardName, records: pa.Table, facts: dict[str, Any]) -> None:
        path = Lake.shard_path(cell.task, name)
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
                message = (
                    f"the lake holds another verdict of the same answer, from an earlier import of {self.source.name}"
                )
                self._reject(rows, position, cell, message)
        if not fresh.any():
            return
        self._count(files[fresh], "records")
        if dry_run:
            return
        generation = max(shard.generation for shard in there) + 1
        # With what the lake holds of the same items: a higher generation stands for whole items.
        kept = records.filter(pa.array(fresh))
        beside = table.filter(pc.is_in(table["item"], kept["item"].combine_chunks()))
        order = [(name, "ascending") for name in _KEY]
        kept = pa.concat_tables([kept, beside.select(RECORD.names).cast(RECORD)]).sort_by(order).combine_chunks()
        kept = kept.replace_schema_metadata(RECORD.metadata).cast(RECORD)
        items = kept["item"].to_numpy()
        for start, stop in _runs(items):  # no gap: nothing that is there is covered
            some = kept.slice(start, stop - start)
            name = ShardName(cell.cell_id, generation, int(items[start]), int(items[stop - 1]))
            self._commit(cell, name, some, facts)

    def _held(
        self, cell: ImportedCell, there: list[ShardName]
    ) -> tuple[dict[tuple[Any, ...], dict[str, Any]], pa.Table]:
        """What the lake holds of the cell: (item, filter, repeat) -> what is said; and the same as a table."""
        names = {Lake.shard_path(cell.task, shard) for shard in there}
        holdings = read_holdings(self.lake)
        manifest = holdings.manifest
        if manifest:
            mine = tuple(p for p in manifest.parts if p.prompting == cell.prompting and p.task == cell.task)
            manifest = dataclasses.replace(manifest, parts=mine)
        listed = {**holdings.listed, "shards": [name for name in holdings.listed["shards"] if name in names]}
        with connect(self.lake, Holdings(listed, manifest, holdings.damaged)) as con:
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

    # ---- the report

    def _write_report(self) -> None:
        head = {"import_id": self.import_id, "imported_from": self.source.name}
        where = [
            {"path": file.name, "source_file": sha256}
            for file, sha256 in zip(self.staging.files, self.hashes, strict=True)
        ]
        files = pa.table({"file": pa.array(range(len(where)), pa.int32()), **_columns(where)})
        self.con.register("files", files)
        rest = ", ".join(name for name in REJECT.names if name not in (*head, "path", "source_file"))
        reader = self.con.execute(
            f"SELECT path, source_file, {rest} FROM rejects JOIN files USING (file) "
            "ORDER BY file, source_row NULLS FIRST, kind, message"
        ).to_arrow_reader(_REJECTS)
        for number, batch in enumerate(reader):
            rows = [{**head, **row} for row in batch.to_pylist()]
            name = f"rejects/{self.import_id}-{number:04d}.parquet"
            self.lake.create_table(name, pa.Table.from_pylist(rows, REJECT))
        if self.report.suspicions:
            found = []
            for one in self.report.suspicions:
                in_file = where[one.file] if one.file is not None else {}
                said = {"kind": one.kind, "message": one.message, "model": one.model, "task": one.task}
                found.append({**dict.fromkeys(SUSPICION.names), **head, **in_file, **said, "cell_id": one.cell_id})
            name = f"suspicions/{self.import_id}.parquet"
            self.lake.create_table(name, pa.Table.from_pylist(found, SUSPICION))
        # Last: a file with a row here is imported.
        for number, (file, sha256) in enumerate(zip(self.staging.files, self.hashes, strict=True)):
            if sha256 is None:
                continue
            row = {
                **head,
                "imported_at": self.now,
                "format": self.source.format,
                "format_version": self.staging.format_version[number],
                "path": file.name,
                "sha256": sha256,
                "bytes": file.size,
                "licence": self.source.licence,
                **dataclasses.asdict(self.staging.counts[number]),
            }
            unique = [self.source.name, self.source.format, file.name, sha256]
            name = f"imports/{digest(unique)}.parquet"
            self.lake.create_table(name, pa.Table.from_pylist([row], IMPORT))


_KEY = ("item", "filter", "repeat")
#: Columns that say where a row stands, not what it says.
_WHERE = ("file", "row", "cell")

#: Kind -> what is said of the row, as SQL.
_REASONS = {
    "no_key": "'no model, task or item'",
    "not_finite": "concat('a number is NaN or infinite: score ', score, ', cost ', stated_usd, ', time ', latency_s)",
    "out_of_range": "'the score ' || score || ' is beyond its range'",
    "negative_tokens": "'a count of tokens is no whole number, or one, a cost or a time is below 0'",
    "no_verdict": "'no score, and nothing that says that the model was asked'",
}


@dataclass(frozen=True)
class ImportedCell:
    """One model on one task, as one source saw it."""

    cell_id: str
    prompting: str
    imported_from: str
    #: Which of the source's runs; '' where it knows one only.
    run: str
    model: str
    source_model: str
    task: str
    facts: Facts
    table: ItemTable

    @classmethod
    def of(
        cls, source: Source, number: int, run: str, model: str, task: str, facts: Facts, table: ItemTable
    ) -> ImportedCell:
        imported_from = source.name if number == 1 else f"{source.name}#{number}"
        name = source.aliases.get(model, model)
        prompted = {
            "source": source.name,
            "task": task,
            "items": table.digest,
            **{
                key: getattr(facts, key)
                for key in (
                    "metric",
                    "filter",
                    "threshold",
                    "higher_is_better",
                    "task_version",
                    "task_digest",
                    "output_type",
                    "num_fewshot",
                    "fewshot_seed",
                    "chat_template",
                    "fewshot_as_multiturn",
                    "system_prompt",
                    "decoding",
                )
            },
        }
        prompting = imported_identity(prompted)
        who = {key: getattr(facts, key) for key in ("revision", "dtype", "quantization", "max_length", "overrides")}
        cell_id = imported_identity({"model": name, **who, "from": imported_from, "prompting": prompting})
        return cls(cell_id, prompting, imported_from, run, name, model, task, facts, table)

    def run_row(self) -> dict[str, Any]:
        """Its row of schemas.records.RUN_CELL, but for the run's id, time and config."""
        facts = self.facts
        known = {name: getattr(facts, name) for name in RUN_CELL.names if hasattr(facts, name)}
        return {
            **known,
            "cell_id": self.cell_id,
            "imported_from": self.imported_from,
            "model": self.model,
            "source": self.source_model,
            "task": self.task,
            "items_digest": self.table.digest,
            "prompting": self.prompting,
            "correct_threshold": facts.threshold,
            "items": max(facts.items or 0, self.table.items),
            "planned_items": self.table.items,
            "generation": 0,
            "engine": None,
            "versions": json.dumps(dict(facts.versions), sort_keys=True),
        }


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


def _columns(rows: Sequence[Mapping[str, str | None]]) -> dict[str, pa.Array]:
    return {name: pa.array([row[name] for row in rows], pa.string()) for name in rows[0]}


def _sha256(file: SourceFile) -> str | None:
    try:
        return file.sha256
    except BadFile:
        return None
