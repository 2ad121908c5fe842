"""Folds shards into few large files.

Owns the choice of cells for each part, and the resumption of a compaction. Knows nothing of the order of rows in
a part (collectors.lake.parts), of readers, and of later deletions (collectors.lake.pruning).

A part holds a run of cells, by model name, of one task under one prompting, so that a query for a model or a task opens
few parts. A small JSON object commits each part, and a manifest commits the compaction. After a kill a compaction
resumes: the name of a part is a digest of its inputs, so no part is written twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake.holdings import Holdings, Manifest, Part, newest_manifest, read_unmigrated
from collectors.lake.layout import SHARDS, folded_name, part_commit_name, part_name
from collectors.lake.migrating import migrated_copy
from collectors.lake.parts import NEEDED_VIEWS, WrittenPart, limit_memory, write_part
from collectors.lake.reading import connect, pass_over_damage
from collectors.lake.store import Lake
from schemas.failures import StorageError, one_line
from schemas.identity import ShardName, digest
from schemas.migrations import first_readable
from schemas.records import FOLDED_SHARD, SCHEMA_VERSION
from schemas.sql import literal_path
from schemas.versions import OLDEST_VERSION, VERSION_KEY, check_readable
from schemas.views import KEPT, lake_place

logger = logging.getLogger(__name__)

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

    @property
    def shards(self) -> list[str]:
        return sorted(name for source in self.sources for name in source.shards)

    @property
    def parts(self) -> list[Part]:
        """Parts of the newest compaction that hold these cells."""
        return sorted({source.part for source in self.sources if source.part}, key=lambda part: part.records)

    @property
    def digest(self) -> str:
        cells = sorted(source.cell_id for source in self.sources)
        made_of = {"cells": cells, "shards": self.shards, "parts": [part.records for part in self.parts]}
        return digest({**made_of, "writer": [SCHEMA_VERSION, duckdb.__version__]})


@dataclass(frozen=True)
class Compacted:
    """The result of `compact`."""

    #: The newest compaction; None if there was never anything to fold.
    manifest: Manifest | None
    #: Number of shards that this call folded; 0 if none was left, or another compactor was faster.
    folded: int
    #: Number of shards that stay as they are, because no run in the lake planned their cell.
    unknown: int
    #: Name of an object that was passed over -> reason.
    damaged: dict[str, str]


def compact(lake: Lake, progress: Callable[[int, int], None] = lambda written, parts: None) -> Compacted:
    """Folds every shard that the newest compaction does not hold, and migrates rows that this program cannot read.

    `progress` gets the numbers of written and of all parts. It is safe beside collectors, readers and other compactors,
    and idempotent. It needs about 2 GB of memory, whatever the lake's size. Raises StorageError if the lake cannot be
    read or written; the next attempt uses the parts that were written by then. Raises ConfigError, and writes nothing,
    for a shard of a newer schema version.
    """
    with tempfile.TemporaryDirectory(prefix="routerlake-compact-") as folder:
        try:
            return pass_over_damage(
                lake,
                lambda damaged: read_unmigrated(lake, damaged),
                lambda holdings: _Compaction(lake, holdings, Path(folder)).run(progress),
            )
        except (duckdb.Error, StorageError, FileNotFoundError) as error:
            raise StorageError(f"cannot compact the lake at {lake.uri}: {one_line(error)}") from error


class _Compaction:
    """One attempt, on the objects of the lake at its start."""

    def __init__(self, lake: Lake, holdings: Holdings, folder: Path) -> None:
        self.lake, self.holdings, self.folder = lake, holdings, folder
        self.before = holdings.manifest
        self.number = self.before.number + 1 if self.before else 1

    def run(self, progress: Callable[[int, int], None]) -> Compacted:
        with contextlib.closing(connect(self.lake, self.holdings, only=[*KEPT, "cells"])) as con:
            limit_memory(con, self.folder)
            unknown = self._weigh_shards(con)
            self._check_versions(con)
            chunks = list(self._chunks(con))
            metadata = self._metadata(con) if chunks else {}
            self.cells = con.sql("FROM cells").to_arrow_table()
        if not chunks:
            return Compacted(self.before, 0, unknown, self.holdings.damaged)
        progress(0, len(chunks))
        written = {}
        for chunk in chunks:
            part, cells = self._part(chunk)
            written[part.records] = (part, chunk, cells)
            progress(len(written), len(chunks))
        manifest = self._manifest(written, metadata)
        if not self.lake.create(manifest.name, manifest.to_json()):
            logger.info("another compaction was faster: the next one folds the remaining shards")
            return Compacted(newest_manifest(self.lake), 0, unknown, self.holdings.damaged)
        return Compacted(manifest, sum(len(chunk.shards) for chunk in chunks), unknown, self.holdings.damaged)

    # ---- the choice of cells

    def _weigh_shards(self, con: duckdb.DuckDBPyConnection) -> int:
        """Makes the table `fresh` of shards to fold, with their cells. Returns the number of unplanned shards."""
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
            FROM _shard_files LEFT JOIN cells USING (cell_id) JOIN weight USING (file)
            WHERE NOT is_folded
            """
        )
        [(unknown,)] = con.execute("SELECT count(*) FROM fresh WHERE task IS NULL").fetchall()
        con.execute("DELETE FROM fresh WHERE task IS NULL")
        return int(unknown)

    def _check_versions(self, con: duckdb.DuckDBPyConnection) -> None:
        """Keeps the schema versions of all objects to be read, as self.versions: name -> version; None: not stated.

        Raises ConfigError for a newer version, StorageError if a version is not a number.
        """
        files = con.execute("SELECT name, file FROM fresh").fetchall()
        place = lake_place(self.lake.uri)
        others = [name for table, names in self.holdings.listed.items() if table != SHARDS for name in names]
        others += [name for part in self.holdings.parts for name in part.objects if name != part.bits]
        files += [(name, f"{place}/{name}") for name in others if name not in self.holdings.damaged]
        stated = dict(_values(con, VERSION_KEY, [literal_path(file) for _, file in files]))
        self.versions: dict[str, int | None] = {}
        for name, file in files:
            try:
                version = int(stated[file]) if file in stated else None
            except ValueError as error:
                raise StorageError(f"{name}: its schema version {stated[file]!r} is not a number") from error
            if version is not None:
                check_readable(f"{name} in {self.lake.uri}", version)
            self.versions[name] = version

    def _chunks(self, con: duckdb.DuckDBPyConnection) -> Iterator[Chunk]:
        """Yields, for each task and prompting with new shards, their cells and those of parts that are rewritten.

        Parts of an older version than the newest migration are always rewritten.
        """
        held = self._held(con)
        sources: dict[tuple[str, str], list[CellSource]] = {}
        for task, prompting, *values in con.execute(
            """
            SELECT task, prompting, cell_id, any_value(model), sum(rows)::BIGINT, sum(bytes)::BIGINT, list(name)
            FROM fresh GROUP BY ALL ORDER BY ALL
            """
        ).fetchall():
            cell_id, model, rows, size, names = values
            source = CellSource(cell_id, model, rows, size, tuple(names), fresh_rows=rows)
            sources.setdefault((task, prompting), []).append(source)
        for part in self.holdings.parts:
            if _is_old(part):
                sources.setdefault((part.task, part.prompting), [])
        for (task, prompting), fresh in sources.items():
            cells = {source.cell_id: source for source in fresh}
            for part in self.before.parts if self.before else ():
                if (part.task, part.prompting) == (task, prompting) and part.records not in self.holdings.damaged:
                    if lost := [name for name in part.objects if name in self.holdings.damaged]:
                        raise StorageError(
                            f"{lost[0]} is damaged, and its rows would be lost: put a whole copy in its place"
                        )
                    old = held[part.records]
                    if (
                        _is_small(part)
                        or _is_old(part)
                        or not cells.keys().isdisjoint(source.cell_id for source in old)
                    ):
                        for source in old:
                            if not source.model:
                                raise StorageError(f"no run in runs/ planned the cell {source.cell_id}: put it back")
                            cells[source.cell_id] = _joined(source, cells.get(source.cell_id))
            yield from (Chunk(task, prompting, tuple(run)) for run in _runs(list(cells.values())))

    def _held(self, con: duckdb.DuckDBPyConnection) -> dict[str, list[CellSource]]:
        """Returns the cells of each part of the newest compaction."""
        held: dict[str, list[CellSource]] = {}
        parts = {part.records: part for part in self.holdings.parts}
        for name, cell_id, model in con.execute(
            """
            SELECT DISTINCT part, cell_id, coalesce(model, '')
            FROM _folded LEFT JOIN cells USING (cell_id) ORDER BY ALL
            """
        ).fetchall():
            part = parts[name]
            weight = (part.rows // part.cells, (part.bytes + part.other_bytes) // part.cells)
            held.setdefault(name, []).append(CellSource(cell_id, model, *weight, part=part))
        return held

    def _metadata(self, con: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """Returns shard to be folded -> the metadata that its run wrote, as JSON."""
        names = {file: name for name, file in con.execute("SELECT name, file FROM fresh").fetchall()}
        return {names[file]: value for file, value in _values(con, b"shard", list(names))}

    # ---- one part

    def _part(self, chunk: Chunk) -> tuple[Part, list[str]]:
        """Returns the part of these cells, and its cells by place. Writes it unless an earlier attempt did."""
        commit = part_commit_name(self.number, chunk.task, chunk.digest)
        with contextlib.suppress(FileNotFoundError):
            return self._read_part(commit)
        manifest = dataclasses.replace(self.before, parts=tuple(chunk.parts)) if self.before else None
        listed = {**self.holdings.listed, "shards": chunk.shards}
        inputs = dataclasses.replace(self.holdings, listed=listed, manifest=manifest)
        import pyarrow.compute as pc  # 75 ms

        cells = [source.cell_id for source in chunk.sources]
        rows_of_cells = self.cells.filter(pc.field("cell_id").isin(cells))
        lake = self._readable(chunk)
        with contextlib.closing(connect(lake, inputs, cells=rows_of_cells, only=NEEDED_VIEWS)) as con:
            limit_memory(con, self.folder)
            # The order of the cells is part of the name: the next attempt may know more tokenizers.
            written = write_part(
                con,
                cells,
                self.folder,
                lambda kind, order: part_name(self.number, chunk.task, kind, digest([chunk.digest, order])),
                bits=True,
            )
            self._check_rows(con, lake, chunk, written)
        if lake is not self.lake:
            lake.remove([*chunk.shards, *(name for part in chunk.parts for name in part.objects)])
        for name, path in written.files.items():
            self.lake.create(name, path.read_bytes())
        value = {"part": written.part.to_value(), "cells": written.cells}
        if not self.lake.create(commit, json.dumps(value).encode()):
            return self._read_part(commit)  # another compactor was faster
        return written.part, written.cells

    def _read_part(self, commit: str) -> tuple[Part, list[str]]:
        """Reads a part that an earlier attempt committed. Raises FileNotFoundError without one."""
        try:
            value = json.loads(self.lake.read(commit))
            return Part(**value["part"]), list(value["cells"])
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(f"{commit} in {self.lake.uri} is damaged: remove it and try again") from error

    def _readable(self, chunk: Chunk) -> Lake:
        """Returns the lake, or a migrated copy of the chunk's inputs if the views cannot read their version."""
        versions = {name: self.versions[name] or OLDEST_VERSION for name in chunk.shards}
        versions |= {name: part.schema_version for part in chunk.parts for name in part.objects if name != part.bits}
        if min(versions.values()) >= first_readable():
            return self.lake
        whole = [name for table, names in self.holdings.listed.items() if table != "shards" for name in names]
        folded = [self.before.folded] if self.before else []
        return migrated_copy(self.lake, [*whole, *folded], versions, self.folder / "migrated")

    def _check_rows(self, con: duckdb.DuckDBPyConnection, lake: Lake, chunk: Chunk, written: WrittenPart) -> None:
        """Raises StorageError if a row went into no file, because it does not fit the name of its own file."""
        place = lake_place(lake.uri)
        stored = sum(source.fresh_rows for source in chunk.sources)
        if old := [f"{place}/{name}" for part in chunk.parts for name in (part.records, part.older) if name]:
            rows = "read_parquet(?, hive_partitioning = false)"
            query = f"SELECT count(*) FROM {rows} SEMI JOIN part_cells USING (cell_id)"
            [(held,)] = con.execute(query, [old]).fetchall()
            stored += held
        kept = written.part.rows + written.older_rows
        if stored != kept:
            raise StorageError(f"of {stored} rows of {chunk.task} only {kept} fit the names of their files")

    # ---- the commit

    def _manifest(self, written: dict[str, tuple[Part, Chunk, list[str]]], metadata: dict[str, str]) -> Manifest:
        """Writes the table of folded shards. Returns the manifest of the new parts and those that are kept."""
        rewritten = {part.records for _, chunk, _ in written.values() for part in chunk.parts}
        rewritten |= self._replaced(written)
        kept = [part for part in self.before.parts if part.records not in rewritten] if self.before else []
        parts = sorted([*kept, *(part for part, _, _ in written.values())], key=lambda part: part.records)
        folded = self._folded(written, metadata)
        name = folded_name(self.number, digest([part.records for part in parts]))
        self.lake.create_table(name, folded)
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        return Manifest(self.number, now, name, len(folded), tuple(parts))

    def _folded(self, written: dict[str, tuple[Part, Chunk, list[str]]], metadata: dict[str, str]) -> pa.Table:
        """Returns a row per folded shard, new ones and those of the compaction before, with the present part."""
        replaced = self._replaced(written)
        rows = [row for row in self._folded_before() if row["part"] not in replaced]
        homes: dict[str, dict[str, object]] = {}
        for part, chunk, cells in written.values():
            homes |= {cell_id: {"part": part.records, "place": place} for place, cell_id in enumerate(cells)}
            for name in chunk.shards:
                shard = ShardName.parse(name)
                assert shard, name
                origin = {"facts": metadata.get(name), "file": name}
                key = {"cell_id": shard.cell_id, "generation": shard.generation}
                rows.append({**key, "first_item": shard.first, "last_item": shard.last, **origin})
        for row in rows:
            row |= homes.get(str(row["cell_id"]), {})
        rows.sort(key=lambda row: str(row["file"]))
        return pa.Table.from_pylist(rows, schema=FOLDED_SHARD)

    def _folded_before(self) -> list[dict[str, object]]:
        if not self.before:
            return []
        rows: list[dict[str, object]] = pq.read_table(io.BytesIO(self.lake.read(self.before.folded))).to_pylist()
        return rows

    def _replaced(self, written: dict[str, tuple[Part, Chunk, list[str]]]) -> set[str]:
        """Returns the damaged parts with shards that all still exist, and are folded again."""
        again = {name for _, chunk, _ in written.values() for name in chunk.shards}
        damaged = [row for row in self._folded_before() if row["part"] in self.holdings.damaged]
        return {str(row["part"]) for row in damaged} - {str(r["part"]) for r in damaged if r["file"] not in again}


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
    return part.schema_version < first_readable()


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
