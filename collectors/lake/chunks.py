"""Chooses the cells of each part of a compaction.

Owns the choice: which shards are folded, which parts are written again, and how cells are grouped. It lets nothing
into a compaction that is not of this lake's form. Knows nothing of the writing of parts and of their commit
(collectors.lake.compaction).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake.contents import foreign_columns
from collectors.lake.holdings import Holdings, Part, read_folded
from collectors.lake.layout import RETRACTIONS, SHARDS
from collectors.lake.parts import limit_memory
from collectors.lake.reading import connect
from collectors.lake.retractions import Retracted, read_retracted
from collectors.lake.store import Lake
from schemas.failures import StorageError, one_line
from schemas.identity import ShardName, digest
from schemas.migrations import first_readable
from schemas.records import SCHEMA_VERSION
from schemas.sql import literal_path
from schemas.versions import RULED_VERSION, VERSION_KEY, check_readable
from schemas.views import KEPT, lake_place

#: Approximate number of rows in a part.
PART_ROWS = 2_000_000
#: Most bytes of the objects that go into one part, unless one cell has more: it bounds the memory for sorting answers.
PART_BYTES = 256 * 2**20


@dataclass(frozen=True)
class CellSource:
    """A cell that goes into a part, with its size."""

    cell_id: str
    model: str
    rows: int
    bytes: int
    #: Shards that no compaction holds yet, and the number of their rows.
    shards: tuple[str, ...] = ()
    fresh_rows: int = 0
    #: The part of the newest compaction that holds the cell, if any.
    part: Part | None = None


@dataclass(frozen=True)
class Chunk:
    """Cells of one task under one prompting that make one part."""

    task: str
    prompting: str
    sources: tuple[CellSource, ...]
    #: Retractions that concern its cells.
    retracted: tuple[str, ...] = ()

    @property
    def shards(self) -> list[str]:
        return sorted(name for source in self.sources for name in source.shards)

    @property
    def rows(self) -> int:
        return sum(source.rows for source in self.sources)

    @property
    def parts(self) -> list[Part]:
        """Parts of the newest compaction that hold these cells."""
        return sorted({source.part for source in self.sources if source.part}, key=lambda part: part.records)

    @property
    def digest(self) -> str:
        cells = sorted(source.cell_id for source in self.sources)
        made_of = {"cells": cells, "shards": self.shards, "parts": [part.records for part in self.parts]}
        if self.retracted:
            made_of["retracted"] = list(self.retracted)
        return digest({**made_of, "writer": [SCHEMA_VERSION, duckdb.__version__]})


@dataclass
class Choice:
    """What one attempt of a compaction folds."""

    chunks: list[Chunk] = field(default_factory=list)
    #: Rows of the view `cells`.
    cells: pa.Table = field(default_factory=lambda: pa.table({}))
    #: Shard to be folded -> the metadata that its run wrote, as JSON.
    metadata: dict[str, str] = field(default_factory=dict)
    #: Object to be read -> its schema version; None if it is not stated.
    versions: dict[str, int | None] = field(default_factory=dict)
    #: Rows of schemas.records.FOLDED_SHARD of the compaction before.
    folded: list[dict[str, object]] = field(default_factory=list)
    #: Damaged parts whose shards are all folded again.
    replaced: set[str] = field(default_factory=set)
    #: Number of shards that stay as they are: no run planned their cell, or a damaged part holds rows of it that no
    #: shard has.
    unplanned: int = 0
    withheld: int = 0
    #: Damaged parts that are left out, with rows that no shard has.
    given_up: set[str] = field(default_factory=set)
    #: What was forgotten; the parts with nothing else; the number of the shards that are left out for it.
    retracted: Retracted = field(default_factory=Retracted)
    dropped: set[str] = field(default_factory=set)
    forgotten: int = 0

    @property
    def changes(self) -> bool:
        """Whether the lake needs a compaction."""
        return bool(self.chunks or self.given_up or self.dropped)


def choose(lake: Lake, holdings: Holdings, folder: Path, *, give_up: bool = False) -> Choice:
    """Chooses the chunks of the next compaction of `lake`. DuckDB sorts in `folder`.

    With `give_up` it leaves out damaged parts whose shards are gone: their items are open again, to be collected.

    Raises ConfigError for an object of a newer schema version, StorageError naming a foreign shard or a damaged object
    whose rows the next compaction would lose.
    """
    with contextlib.closing(connect(lake, holdings, only=[*KEPT, "cells"])) as con:
        limit_memory(con, folder)
        return _Chooser(lake, holdings, con, give_up=give_up).choose()


class _Chooser:
    def __init__(
        self, lake: Lake, holdings: Holdings, con: duckdb.DuckDBPyConnection, *, give_up: bool = False
    ) -> None:
        self.lake, self.holdings, self.con, self.give_up = lake, holdings, con, give_up
        self.choice = Choice(folded=read_folded(lake, holdings.manifest) if holdings.manifest else [])
        self.choice.retracted = read_retracted(lake, holdings.listed[RETRACTIONS])
        #: Parts that still hold forgotten rows.
        self.touched = self._leave_out_forgotten()

    def choose(self) -> Choice:
        choice = self.choice
        self._weigh_shards()
        self._withhold()
        self._read_versions()
        self._check_columns()
        choice.chunks = list(self._chunks())
        if choice.chunks:
            names = {file: name for name, file in self.con.execute("SELECT name, file FROM fresh").fetchall()}
            choice.metadata = {names[file]: value for file, value in _values(self.con, b"shard", list(names))}
        choice.cells = self.con.sql("FROM cells").to_arrow_table()
        return choice

    def _leave_out_forgotten(self) -> set[str]:
        """Takes forgotten shards out of the list of folded ones. Returns the parts that hold forgotten rows."""
        choice, manifest = self.choice, self.holdings.manifest
        if not choice.retracted.ranges or not manifest:
            return set()
        newer = choice.retracted.only(choice.retracted.ids.difference(manifest.retracted))
        kept, touched = [], set()
        for row in choice.folded:
            shard = ShardName.parse(str(row["file"]))
            assert shard
            if not choice.retracted.covers(shard):
                kept.append(row)
            if choice.retracted.covers(shard) or newer.touches(shard):
                touched.add(str(row["part"]))
        choice.forgotten = len(choice.folded) - len(kept)
        choice.folded = kept
        choice.dropped = touched - {str(row["part"]) for row in kept}
        return touched

    def _weigh_shards(self) -> None:
        """Makes the table `fresh` of shards to fold, with their cells."""
        con = self.con
        place = lake_place(self.lake.uri)
        con.execute("CREATE TABLE weight (file VARCHAR, rows BIGINT, bytes BIGINT)")
        files = [file for (file,) in con.execute("SELECT file FROM _shard_files WHERE NOT is_folded").fetchall()]
        for some in _batches(files):
            con.execute(
                "INSERT INTO weight SELECT file_name, num_rows, file_size_bytes FROM parquet_file_metadata(?)", [some]
            )
        con.execute(
            f"""
            CREATE TABLE fresh AS
            SELECT task, prompting, cell_id, model, rows, bytes, file, file[{len(place) + 2}:] AS name
            FROM (
                FROM _shard_files ANTI JOIN _retracted
                ON _shard_files.cell_id = _retracted.cell_id AND _shard_files.generation <= _retracted.generation
                    AND _shard_files.first_item >= _retracted.first_item
                    AND _shard_files.last_item <= _retracted.last_item
            ) LEFT JOIN cells USING (cell_id) JOIN weight USING (file)
            WHERE NOT is_folded
            """
        )
        [(self.choice.unplanned,)] = con.execute("DELETE FROM fresh WHERE task IS NULL").fetchall()

    def _withhold(self) -> None:
        """Leaves out the cells of damaged parts that cannot be folded anew, because some of their shards are gone.

        Their rows come back with a whole copy of the part, and would then be there twice.
        """
        fresh = {name for (name,) in self.con.execute("SELECT name FROM fresh").fetchall()}
        damaged = [row for row in self.choice.folded if row["part"] in self.holdings.damaged]
        lost = {str(row["part"]) for row in damaged if row["file"] not in fresh}
        if self.give_up:
            self.choice.given_up, lost = lost, set()
        self.choice.replaced = {str(row["part"]) for row in damaged} - lost
        cells = sorted({str(row["cell_id"]) for row in damaged if row["part"] in lost})
        [(self.choice.withheld,)] = self.con.execute(
            "DELETE FROM fresh WHERE list_contains(?, cell_id)", [cells]
        ).fetchall()

    def _read_versions(self) -> None:
        """Keeps the schema versions of all objects to be read.

        Raises ConfigError for a newer version, StorageError if a version is not a number.
        """
        files = self.con.execute("SELECT name, file FROM fresh").fetchall()
        place = lake_place(self.lake.uri)
        others = [name for table, names in self.holdings.listed.items() if table != SHARDS for name in names]
        others += [name for part in self.holdings.parts for name in part.objects if name != part.bits]
        files += [(name, f"{place}/{name}") for name in others if name not in self.holdings.damaged]
        stated = dict(_values(self.con, VERSION_KEY, [literal_path(file) for _, file in files]))
        for name, file in files:
            try:
                version = int(stated[file]) if file in stated else None
            except ValueError as error:
                raise StorageError(f"{name}: its schema version {stated[file]!r} is not a number") from error
            if version is not None:
                check_readable(f"{name} in {self.lake.uri}", version)
            self.choice.versions[name] = version

    def _check_columns(self) -> None:
        """Raises StorageError for shards whose columns are not those of a shard: DuckDB would cast them unseen.

        Shards with the same columns are judged by one of them.
        """
        files = dict(self.con.execute("SELECT file, name FROM fresh").fetchall())
        of_columns: dict[tuple[str, int | None], list[str]] = {}
        for some in _batches(list(files)):
            query = """
                SELECT file_name, string_agg(concat_ws(' ', name, type, repetition_type, converted_type, logical_type),
                    ',' ORDER BY name, type, num_children) AS columns
                FROM parquet_schema(?) GROUP BY file_name
            """
            for file, columns in self.con.execute(query, [some]).fetchall():
                of_columns.setdefault((columns, self.choice.versions[files[file]]), []).append(files[file])
        for (_, version), names in of_columns.items():
            if version is not None and version < first_readable():  # it is migrated, and has other columns
                continue
            try:
                schema = pq.read_schema(io.BytesIO(self.lake.read(names[0])))
            except (OSError, ValueError, pa.ArrowException) as error:  # DuckDB read its footer, pyarrow cannot
                raise StorageError(f"{names[0]} cannot be read: {one_line(error)}") from error
            if reason := foreign_columns(schema, SHARDS):
                raise StorageError(f"{reason}: {', '.join(sorted(names)[:1000])}")

    def _chunks(self) -> Iterator[Chunk]:
        """Yields, for each task and prompting with new shards, their cells and those of parts that are rewritten.

        Parts of an older version than the newest migration, or without outcomes, are always rewritten.
        """
        held = self._held()
        sources: dict[tuple[str, str], list[CellSource]] = {}
        for task, prompting, *values in self.con.execute(
            """
            SELECT task, prompting, cell_id, any_value(model), sum(rows)::BIGINT, sum(bytes)::BIGINT, list(name)
            FROM fresh GROUP BY ALL ORDER BY ALL
            """
        ).fetchall():
            cell_id, model, rows, size, names = values
            source = CellSource(cell_id, model, rows, size, tuple(names), fresh_rows=rows)
            sources.setdefault((task, prompting), []).append(source)
        for part in self.holdings.parts:
            if _is_old(part) or part.records in self.touched - self.choice.dropped:
                sources.setdefault((part.task, part.prompting), [])
        for (task, prompting), fresh in sources.items():
            cells = {source.cell_id: source for source in fresh}
            for part in self.holdings.manifest.parts if self.holdings.manifest else ():
                if (part.task, part.prompting) == (task, prompting) and part.records not in self.holdings.damaged:
                    if lost := [name for name in part.objects if name in self.holdings.damaged]:
                        raise StorageError(
                            f"{lost[0]} is damaged, and its rows would be lost: put a whole copy in its place, or "
                            "compact.py --give-up leaves it out and collect.py collects its items again"
                        )
                    old = held.get(part.records, [])
                    if (
                        _is_small(part)
                        or _is_old(part)
                        or part.records in self.touched
                        or not cells.keys().isdisjoint(source.cell_id for source in old)
                    ):
                        for source in old:
                            if not source.model:
                                raise StorageError(f"no run in runs/ planned the cell {source.cell_id}: put it back")
                            cells[source.cell_id] = _joined(source, cells.get(source.cell_id))
            yield from (self._chunk(task, prompting, run) for run in _runs(list(cells.values())))

    def _chunk(self, task: str, prompting: str, sources: list[CellSource]) -> Chunk:
        cells = {source.cell_id for source in sources}
        of_cells = {str(row["retraction_id"]) for row in self.choice.retracted.rows if row["cell_id"] in cells}
        return Chunk(task, prompting, tuple(sources), tuple(sorted(of_cells)))

    def _held(self) -> dict[str, list[CellSource]]:
        """Returns the cells of each part of the newest compaction."""
        held: dict[str, list[CellSource]] = {}
        parts = {part.records: part for part in self.holdings.parts}
        left = {str(row["cell_id"]) for row in self.choice.folded}
        for name, cell_id, model in self.con.execute(
            """
            SELECT DISTINCT part, cell_id, coalesce(model, '')
            FROM _folded LEFT JOIN cells USING (cell_id) ORDER BY ALL
            """
        ).fetchall():
            if name not in parts:
                raise StorageError(f"the newest manifest lacks {name}, which its list of folded shards names")
            if cell_id not in left:
                continue
            part = parts[name]
            weight = (part.rows // part.cells, (part.bytes + part.other_bytes) // part.cells)
            held.setdefault(name, []).append(CellSource(cell_id, model, *weight, part=part))
        return held


def _batches(files: list[str]) -> Iterator[list[str]]:
    """Yields batches, because DuckDB holds the footers of all files of one statement: 100,000 take a gigabyte."""
    for start in range(0, len(files), 5000):
        yield files[start : start + 5000]


def _values(con: duckdb.DuckDBPyConnection, key: bytes, files: list[str]) -> Iterator[tuple[str, str]]:
    """Yields each file with `key` in its Parquet metadata, and the value."""
    query = "SELECT file_name, decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = ?"
    for some in _batches(files):
        yield from con.execute(query, [some, key.decode()]).fetchall()


def _is_old(part: Part) -> bool:
    return part.schema_version < max(first_readable(), RULED_VERSION)


def _is_small(part: Part) -> bool:
    """Whether it is less than half full. Such parts are filled up, or each run would leave one more of them."""
    return part.rows * 2 <= PART_ROWS and (part.bytes + part.other_bytes) * 2 <= PART_BYTES


def _joined(old: CellSource, fresh: CellSource | None) -> CellSource:
    if not fresh:
        return old
    return dataclasses.replace(fresh, rows=old.rows + fresh.rows, bytes=old.bytes + fresh.bytes, part=old.part)


def _runs(sources: list[CellSource]) -> Iterator[list[CellSource]]:
    """Yields the cells by model name, in runs of one part each."""
    run: list[CellSource] = []
    rows = size = 0
    for source in sorted(sources, key=lambda source: (source.model, source.cell_id)):
        if run and (rows + source.rows > PART_ROWS or size + source.bytes > PART_BYTES):
            yield run
            run, rows, size = [], 0, 0
        run.append(source)
        rows, size = rows + source.rows, size + source.bytes
    if run:
        yield run
