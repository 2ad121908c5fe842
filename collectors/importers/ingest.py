"""From files of a source to records of the lake, step by step, and a report of all rows.

Owns the order of the steps: the importer stores rows (staging.py), rows are trusted or not (trust.py), items get their
table (items.py), cells their identity (cells.py), records are written (writing.py), and suspicions are noted
(suspicions.py). Knows nothing of formats.

Every step writes objects whose names follow from their content, and the rows of imports/ come last: an import that was
killed is done again and meets its own objects.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import itertools
import json
import logging
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from collectors.importers.cells import LakeRuns, number_cells
from collectors.importers.claims import claimed
from collectors.importers.contradictions import contradictions
from collectors.importers.files import BadFile, SourceFile
from collectors.importers.items import item_rows, number_items
from collectors.importers.raw_tables import REJECTED
from collectors.importers.sources import Counted, ImportSource
from collectors.importers.staging import Staging
from collectors.importers.suspicions import Suspicion, suspicions
from collectors.importers.trust import trust_rows
from collectors.importers.writing import RecordWriter
from collectors.lake import layout
from collectors.lake.holdings import ever_committed
from collectors.lake.reading import ask
from collectors.lake.retractions import Retracted, read_retracted
from collectors.lake.store import Lake
from collectors.scratch import scratch
from schemas.failures import StorageError, one_line
from schemas.identity import digest
from schemas.records import GLOBS, IMPORT, MODEL, REJECT, RUN_CELL, SCHEMA_FILES, SUSPICION
from schemas.sql import quoted
from schemas.texts import visible

logger = logging.getLogger(__name__)

#: Most rejects in one object, and in a report.
_REJECTS = 100_000
_REPORTED = 10_000
#: Files whose digests are taken at once.
_HASHING = 4


@dataclass
class Report:
    """The result of an import."""

    source: ImportSource
    import_id: str = ""
    #: Files that were imported before in the same way, and the number of rejects of that import.
    skipped: list[str] = field(default_factory=list)
    skipped_rejects: int = 0
    files: list[SourceFile] = field(default_factory=list)
    counts: list[Counted] = field(default_factory=list)
    #: The first rows that cannot be trusted; and by kind of reject: the number of all, and the first.
    rejects: list[dict[str, Any]] = field(default_factory=list)
    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)
    suspicions: list[Suspicion] = field(default_factory=list)
    cells: int = 0
    #: The source's name of a model -> its id.
    models: dict[str, str] = field(default_factory=dict)
    #: Task -> numbers of items: all, those that the lake's table had already, those with content, and those with
    #: content that another source's or a collected table has, too.
    items: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    #: Task of the lake none of whose items is one of these -> what differs.
    unmatched: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> Counted:
        names = [f.name for f in dataclasses.fields(Counted)]
        return Counted(**{name: sum(getattr(count, name) for count in self.counts) for name in names})


Importer = Callable[[Staging, ImportSource], None]


def ingest(
    importer: Importer,
    files: Sequence[SourceFile],
    source: ImportSource,
    lake: Lake,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda done, cells: None,
) -> Report:
    """Imports `files` into `lake`; with `dry_run` nothing is written. `progress` gets the number of
    cells written, and that of all.

    Rows that cannot be trusted are in the report and in the lake's rejects. Raises StorageError when the lake
    cannot be read or written.
    """
    report = Report(source)
    with contextlib.ExitStack() as stack:
        if not dry_run:
            stack.enter_context(claimed(lake.open_for_writing(), source.name))
        there = lake.exists() and _holds_rows(lake)
        with ThreadPoolExecutor(_HASHING) as pool:  # kept by the files
            list(pool.map(_sha256, files))
        fresh = _fresh(files, lake.open_for_reading() if there else None, report)
        if not fresh:
            return report
        folder = stack.enter_context(scratch("ingest-"))
        staging = Staging(Path(folder), fresh)
        try:
            return _Import(staging, source, lake, report, there=there).run(importer, dry_run=dry_run, progress=progress)
        except duckdb.Error as error:
            raise StorageError(f"cannot keep the rows on this machine: {one_line(error, 200)}") from error
        finally:
            staging.close()


def _holds_rows(lake: Lake) -> bool:
    """Whether the lake holds more than the schema files of one that was just begun: else no view need be asked."""
    if not set(lake.names(layout.COMPACTIONS)) <= set(SCHEMA_FILES.values()):
        return True
    tables = sorted(GLOBS, key=lambda table: table != layout.RUNS)  # whatever has rows has runs, but for prices
    return any(layout.is_of_table(table, name) for table in tables for name in lake.names(table))


def _fresh(files: Sequence[SourceFile], lake: Lake | None, report: Report) -> list[SourceFile]:
    """Returns no file if all were imported before, under the same names and settings; else all of them.

    Adds a suspicion to the report for each file that was imported under another name.
    """
    before: dict[str, list[str]] = {}
    imports: set[str] = set()
    if lake:
        query = "SELECT sha256, path, import_id FROM imports WHERE imported_from = ? AND format = ? ORDER BY path"
        key = [report.source.name, report.source.format]
        for sha256, path, import_id in ask(lake, lambda con, _: con.execute(query, key).fetchall(), only=["imports"]):
            before.setdefault(sha256, []).append(path)
            imports.add(import_id)
    import_id = import_id_of(report.source, files, lake)
    if lake and import_id in imports:
        report.skipped = [file.name for file in files]
        query = "SELECT count(*) FROM rejects WHERE import_id = ?"
        [(report.skipped_rejects,)] = ask(
            lake, lambda con, _: con.execute(query, [import_id]).fetchall(), only=["rejects"]
        )
        return []
    for number, file in enumerate(files):
        names = before.setdefault(sha256, []) if (sha256 := _sha256(file)) else []
        if names and file.name not in names:
            message = f"{file.name} is the same file as {names[0]}"
            report.suspicions.append(Suspicion("same_file", message, file=number))
        names.append(file.name)
    return list(files)


def import_id_of(source: ImportSource, files: Sequence[SourceFile], lake: Lake | None = None) -> str:
    """The id of an import: a digest of its files and of how they are read.

    Where `lake` has forgotten the import, it is the id of the next one of the same files.
    """
    named = [[file.name, _sha256(file)] for file in files]
    made_of = {"name": source.name, "format": source.format, "files": sorted(named, key=str)}
    # Rules for all names came later than the first lakes: an import that they change is of other cells.
    aliases = {name: model for name, model in source.aliases.items() if not name.endswith("/*")}
    how = {"model": source.model, "options": dict(source.options), "aliases": aliases}
    content: dict[str, Any] = {**made_of, **how}
    import_id = layout.import_run_id(digest(content))
    standing = read_retracted(lake).runs if lake else frozenset()
    for again in itertools.count(1):
        if import_id not in standing:
            break
        import_id = layout.import_run_id(digest({**content, "again": again}))
    return import_id


class _Import:
    def __init__(self, staging: Staging, source: ImportSource, lake: Lake, report: Report, *, there: bool) -> None:
        self.staging, self.source, self.lake, self.report = staging, source, lake, report
        self.con = staging.con
        self.lake_if_there = lake if there else None
        self.retracted = read_retracted(lake) if there else Retracted()
        self.now = dt.datetime.now(dt.UTC)
        report.files, report.counts = staging.files, staging.counts

    def run(self, importer: Importer, *, dry_run: bool, progress: Callable[[int, int], None]) -> Report:
        importer(self.staging, self.source)
        self.staging.flush()
        if changed := [file.name for file in self.staging.files if file.has_changed()]:
            raise StorageError(f"{changed[0]} changed while it was read: nothing was written; try again")
        hashes = [_sha256(file) for file in self.staging.files]
        self.import_id = self.report.import_id = import_id_of(self.source, self.staging.files, self.lake_if_there)
        self.hashes = hashes
        trust_rows(self.staging)
        self.tables = number_items(self.staging, self.lake_if_there, self.source.name)
        there = self.retracted.standing(ever_committed(self.lake)) if self.lake_if_there else {}
        runs = LakeRuns(self.lake, there, hashes)
        self.cells = number_cells(self.staging, self.source, self.tables, runs.run_of)
        self.report.cells = len(self.cells)
        models = self.con.execute("SELECT DISTINCT model FROM cell_numbers ORDER BY model").fetchall()
        self.report.models = {model: self.source.aliases.get(model, model) for (model,) in models}
        self._report_items()
        if not dry_run:
            self._write_tables()
        writer = RecordWriter(
            self.staging, self.lake, self.cells, there, hashes, self.import_id, self.source.name, self.retracted
        )
        writer.write(dry_run=dry_run, progress=progress)
        self.staging.flush()
        self._reject_silent_files()
        self._report_rejects()
        self.report.suspicions += suspicions(self.staging, self.cells, is_single=writer.wrote_each_item_once())
        if self.lake_if_there:
            self.report.suspicions += contradictions(self.staging, self.cells, self.lake_if_there)
        if not dry_run:
            self._write_report()
        return self.report

    def _reject_silent_files(self) -> None:
        """Rejects each file of which nothing became a record, if the file as a whole was not rejected before."""
        named = {file for (file,) in self.con.execute("SELECT file FROM rejects WHERE source_row IS NULL").fetchall()}
        for number, count in enumerate(self.staging.counts):
            if number in named or number in self.staging.describing or count.rows > count.rejected:
                continue
            none = f"none of its {count.rows:,} rows" if count.rows else "nothing in it"
            why = f": it holds {self.staging.holds[number]}" if number in self.staging.holds else ""
            self.staging.reject(number, None, "no_record", f"{none} became a record{why}")
        self.staging.flush()

    def _report_rejects(self) -> None:
        columns = ", ".join(REJECTED.names)
        ordered = f"SELECT {columns} FROM rejects ORDER BY file, source_row NULLS FIRST, kind, message"
        first = self.con.execute(f"{ordered} LIMIT {_REPORTED}").to_arrow_table()
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
        # A forgotten import, or this one before, is nothing to compare with.
        stored = self._of_others("SELECT DISTINCT content_hash FROM theirs WHERE content_hash IS NOT NULL")
        self.con.register("stored", pa.table({"content_hash": pa.array([one for (one,) in stored], pa.string())}))
        rows = self.con.execute(
            """
            SELECT task, count(DISTINCT key), count(DISTINCT key) FILTER (content_hash IS NOT NULL),
                count(DISTINCT key) FILTER (content_hash IN (SELECT content_hash FROM stored))
            FROM staged_items GROUP BY task ORDER BY task
            """
        ).fetchall()
        self.con.unregister("stored")
        self.report.unmatched = self._unmatched([task for task, _, texts, joined in rows if texts and not joined])
        for task, items, with_content, joined in rows:
            tables = {id(t): t for (_, name), t in self.tables.items() if name == task and t.stored}
            in_table = min(items, sum(len(table.hashes) - len(table.staged) for table in tables.values()))
            self.report.items[task] = (items, in_table, with_content, joined)

    def _of_others(self, query: str) -> list[Any]:
        """Rows of a query over `theirs`: items of the lake's collected cells and of other sources' imports."""
        if not self.lake_if_there:
            return []
        theirs = """
            SELECT * FROM items SEMI JOIN (
                SELECT task, items_digest FROM cells
                WHERE imported_from IS NULL OR NOT (imported_from = $1 OR starts_with(imported_from, $1 || '#'))
            ) AS counted USING (task, items_digest)
            """
        only, name = ["_run_cells", "_cell_rows", "cells", "items"], self.source.name
        whole = f"WITH theirs AS ({theirs}) {query}"
        return ask(self.lake_if_there, lambda con, _: con.execute(whole, [name]).fetchall(), only=only)

    def _unmatched(self, tasks: list[str]) -> dict[str, str]:
        """Of `tasks` those that others have, too -> what differs between their items and these."""
        if not tasks:
            return {}
        named = f"task IN ({', '.join(map(quoted, tasks))})"
        ours = self.con.execute(
            f"SELECT DISTINCT task FROM staged_texts WHERE {named} AND choices IS NOT NULL"
        ).fetchall()
        differs = {}
        for task, has_choices, has_content, prompt in self._of_others(
            "SELECT task, bool_or(choices IS NOT NULL), bool_or(content_hash IS NOT NULL), min(prompt) FROM theirs "
            f"WHERE {named} GROUP BY task"
        ):
            if has_choices != ((task,) in ours):
                differs[task] = f"those of the lake have {'choices, and these none' if has_choices else 'no choices'}"
            elif has_content:
                differs[task] = f"other texts; the lake's are such as {textwrap.shorten(visible(prompt or ''), 80)!r}"
            else:
                differs[task] = "those of the lake were stored without a text to compare"
        return differs

    # ---- writing

    def _write_tables(self) -> None:
        for table in {id(table): table for table in self.tables.values()}.values():
            if not table.staged or self.lake.has(table.name):
                continue
            if not self.lake.create_table(table.name, item_rows(self.con, table)) and table.stored:
                raise StorageError(f"{table.name} was written by another program just now: try again")
        models: dict[str, dict[str, Any]] = {}
        for cell in self.cells:
            row: dict[str, Any] = {"model": cell.model, "source": cell.source_model}
            row |= {"revision": cell.description.revision, "parameters": cell.description.parameters}
            models[digest(row)] = row
        if models:
            rows = [{**dict.fromkeys(MODEL.names), **row} for row in models.values()]
            self.lake.create_table(layout.imported_models_name(self.import_id), pa.Table.from_pylist(rows, MODEL))
        name = layout.run_name(self.import_id)
        if self.cells and not self.lake.has(name):
            self.lake.create_table(name, pa.Table.from_pylist(list(self._run_rows()), RUN_CELL))

    def _run_rows(self) -> Iterator[dict[str, Any]]:
        described = {"format": self.source.format, "files": [file.name for file in self.staging.files]}
        for cell in self.cells:
            # First, as the view _cell_rows looks for it without parsing the rest.
            limits = {"range": [cell.description.low, cell.description.high]}
            config = json.dumps(limits | described)
            row = {**cell.run_row(), "generation": self.retracted.next_generation(cell.cell_id, 0)}
            yield {**row, "run_id": self.import_id, "started_at": self.now, "config": config}

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
            name = layout.rejects_name(self.import_id, number)
            self.lake.create_table(name, pa.Table.from_pylist(rows, REJECT))
        if self.report.suspicions:
            rows = []
            for one in self.report.suspicions:
                in_file = where[one.file] if one.file is not None else {}
                text = {"kind": one.kind, "message": one.message, "model": one.model, "task": one.task}
                rows.append({**dict.fromkeys(SUSPICION.names), **head, **in_file, **text, "cell_id": one.cell_id})
            name = layout.suspicions_name(self.import_id)
            self.lake.create_table(name, pa.Table.from_pylist(rows, SUSPICION))
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
            unique = [self.import_id, file.name, sha256]
            name = layout.import_name(digest(unique))
            self.lake.create_table(name, pa.Table.from_pylist([row], IMPORT))


def _columns(rows: Sequence[Mapping[str, str | None]]) -> dict[str, pa.Array]:
    return {name: pa.array([row[name] for row in rows], pa.string()) for name in rows[0]}


def _sha256(file: SourceFile) -> str | None:
    try:
        return file.sha256
    except BadFile:
        return None
