"""Folds shards into few large files.

Owns the writing of parts, their commit, and the resumption of a compaction. Knows nothing of the choice of cells
(collectors.lake.chunks), of the order of rows in a part (collectors.lake.parts), of readers, and of later deletions
(collectors.lake.pruning).

A part holds a run of cells, by model name, of one task under one prompting, so that a query for a model or a task opens
few parts. A small JSON object commits each part, and a manifest commits the compaction. After a kill a compaction
resumes: the name of a part is a digest of its inputs, so no part is written twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import itertools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake.chunks import Choice, Chunk, choose
from collectors.lake.damage import examine
from collectors.lake.groups import GroupWork, cells_of, manifest_of, work_of
from collectors.lake.holdings import Holdings, Manifest, Part, newest_manifest, read_unmigrated
from collectors.lake.inventory import checked, inventory, read_inventory
from collectors.lake.layout import SHARDS, folded_name, part_commit_name, part_name
from collectors.lake.migrating import migrated_copy
from collectors.lake.parts import (
    NEEDED_VIEWS,
    WrittenPart,
    has_every_row_once,
    limit_memory,
    read_together,
    together,
    write_part,
)
from collectors.lake.reading import connect, pass_over_damage
from collectors.lake.seals import broken_seal, sealed_json
from collectors.lake.spread import Spread
from collectors.lake.store import Lake
from collectors.scratch import scratch
from schemas.failures import StorageError, one_line
from schemas.identity import ShardName, digest
from schemas.migrations import first_readable
from schemas.records import FOLDED_SHARD, SCHEMA_FILES
from schemas.versions import OLDEST_VERSION
from schemas.views import lake_place

logger = logging.getLogger(__name__)


_FORGOTTEN = """
{join} JOIN _retracted ON written.cell_id = _retracted.cell_id AND written.generation <= _retracted.generation
AND written.item BETWEEN _retracted.first_item AND _retracted.last_item
"""


@dataclass(frozen=True)
class Compacted:
    """The result of `compact`."""

    #: The newest compaction; None if there was never anything to fold.
    manifest: Manifest | None
    #: Number of shards that this call folded; 0 if none was left, or another compactor was faster.
    folded: int
    #: Number of shards that stay as they are, because no run in the lake planned their cell.
    unplanned: int
    #: Number of shards that stay as they are, because a damaged part holds rows of their cell that no shard has.
    withheld: int
    #: Name of an object that was passed over -> reason.
    damaged: dict[str, str]
    #: Number of damaged parts that were left out, with rows that no shard has.
    given_up: int = 0
    #: Number of shards of the compaction before that are left out, because they were forgotten.
    forgotten: int = 0


def compact(
    lake: Lake,
    progress: Callable[[int, int], None] = lambda written, parts: None,
    *,
    give_up: bool = False,
    spread: Spread | None = None,
) -> Compacted:
    """Folds every shard that the newest compaction does not hold, and migrates rows that this program cannot read.

    `progress` gets the numbers of written and of all parts. It is safe beside collectors, readers and other compactors,
    and idempotent. It needs about 2 GB of memory, whatever the lake's size. Raises StorageError if the lake cannot be
    read or written; the next attempt uses the parts that were written by then. Raises ConfigError, and writes nothing,
    for a shard of a newer schema version. With `give_up` damaged parts whose shards are gone are left out, so that
    their items can be collected again. `spread` lets other processes write the parts; the bytes are the same.
    """
    with scratch("compact-") as folder:
        try:
            return pass_over_damage(
                lake,
                lambda damaged: _whole_parts(read_unmigrated(lake, damaged), give_up=give_up),
                lambda holdings: _begin(lake, holdings, Path(folder)).run(progress, give_up=give_up, spread=spread),
            )
        except (duckdb.Error, StorageError, FileNotFoundError) as error:
            raise StorageError(f"cannot compact the lake at {lake.uri}: {one_line(error)}") from error


def _whole_parts(holdings: Holdings, *, give_up: bool) -> Holdings:
    """With `give_up` a part counts as damaged if any object with its rows is."""
    if not give_up or not holdings.manifest:
        return holdings
    beside = {
        part.records: f"{name} beside it is damaged"
        for part in holdings.manifest.parts
        for name in part.objects
        if name in holdings.damaged and name != part.bits
    }
    return dataclasses.replace(holdings, damaged={**beside, **holdings.damaged})


def _begin(lake: Lake, holdings: Holdings, folder: Path) -> _Compaction:
    try:
        known = read_inventory(lake, holdings.manifest)
    except FileNotFoundError:
        logger.warning(
            "the inventory of %s is missing: a new one is made", holdings.manifest and holdings.manifest.name
        )
        known = {}
    return _Compaction(lake, holdings, folder, known)


def write_group(work: GroupWork) -> dict[str, str]:
    """Writes the parts of a group that are not there yet. Returns the SHA-256 of the objects that it read."""
    with scratch("compact-") as folder, contextlib.ExitStack() as connections:
        lake = Lake(work.uri, is_open=True)
        one = _Compaction(lake, work.holdings, Path(folder), dict(work.inventory), threads=1)
        one.choice = work.choice
        for chunk in work.chunks:
            one.part(chunk, work.chunks, connections)
        return {name: one.inventory[name] for chunk in work.chunks for name in chunk.shards}


class _Compaction:
    """One attempt, on the objects of the lake at its start. `inventory` is that of the compaction before."""

    def __init__(
        self, lake: Lake, holdings: Holdings, folder: Path, inventory: dict[str, str], threads: int | None = None
    ) -> None:
        self.lake, self.holdings, self.folder, self.threads = lake, holdings, folder, threads
        self.inventory = inventory
        self.choice = Choice()
        self.before = holdings.manifest
        self.number = self.before.number + 1 if self.before else 1
        #: Shards that other processes have read and found whole.
        self._hashed = set[str]()
        #: The group that is read now, with its lake and connection.
        self._open: tuple[list[Chunk], Lake, duckdb.DuckDBPyConnection] | None = None

    def run(
        self, progress: Callable[[int, int], None], *, give_up: bool = False, spread: Spread | None = None
    ) -> Compacted:
        choice = self.choice = choose(self.lake, self.holdings, self.folder, give_up=give_up)
        rest = (choice.unplanned, choice.withheld, self.holdings.damaged)
        chunks = choice.chunks
        if not choice.changes:
            return Compacted(self.before, 0, *rest)
        progress(0, len(chunks))
        self._take_stock()
        groups = list(self._groups(chunks))
        if spread:
            self._spread(groups, spread, progress)
        written = {}
        for group in groups:
            with contextlib.ExitStack() as connections:
                for chunk in group:
                    part, cells = self.part(chunk, group, connections)
                    written[part.records] = (part, chunk, cells)
                    progress(len(written), len(chunks))
        manifest = self._manifest(written)
        if not self.lake.create(manifest.name, manifest.to_json()):
            logger.info("another compaction was faster: the next one folds the remaining shards")
            return Compacted(newest_manifest(self.lake), 0, *rest)
        folded = sum(len(chunk.shards) for chunk in chunks)
        return Compacted(manifest, folded, *rest, len(choice.given_up), choice.forgotten)

    # ---- by other processes

    def _spread(self, groups: list[list[Chunk]], spread: Spread, progress: Callable[[int, int], None]) -> None:
        """Lets other processes write all parts. Each is committed by itself, and so found as after a kill."""
        works = (work_of(self.lake, self.holdings, self.choice, self.inventory, group) for group in groups)
        done = 0
        for group, hashes in zip(groups, spread(write_group, works), strict=True):
            self.inventory |= hashes
            self._hashed |= hashes.keys()
            done += len(group)
            progress(done, len(self.choice.chunks))

    # ---- checks of bytes

    def _take_stock(self) -> None:
        """Adds objects outside compactions to the inventory.

        The rows of runs and models go into parts, so all of them are read. Raises StorageError for damaged ones.
        """
        listed = {table: names for table, names in self.holdings.listed.items() if table != SHARDS}
        schemas = [name for table, name in SCHEMA_FILES.items() if table not in self.holdings.absent]
        read = [*listed["runs"], *listed["models"]]
        others = [name for names in (schemas, *listed.values()) for name in names]
        names = {*read, *(name for name in others if name not in self.inventory)}
        self.inventory |= checked(self.lake, sorted(names), self.inventory)

    def _check_bytes(self, chunk: Chunk) -> None:
        """Raises StorageError unless the objects that go into a part are as they were written."""
        self._check_shards(chunk)
        for part in chunk.parts:
            checked(self.lake, part.parquet_objects, part.recorded)
            self._check_count(part)

    def _check_shards(self, chunk: Chunk) -> None:
        unread = [name for name in chunk.shards if name not in self._hashed]
        self.inventory |= checked(self.lake, unread, self.inventory)

    def _check_count(self, part: Part) -> None:
        """Raises StorageError for another number of rows than the manifest's: version 6 recorded no SHA-256."""
        try:
            rows = pq.read_metadata(self.lake.open_object(part.records)).num_rows
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
            raise StorageError(f"{part.records} cannot be read: {one_line(error)}") from error
        if rows != part.rows:
            raise StorageError(
                f"{part.records} has {rows} rows, and its manifest {part.rows}: put a whole copy in its place"
            )

    def _with_sha256(self, part: Part) -> Part:
        """A part of version 6 gets its SHA-256 from the first compaction that keeps it, as it is."""
        if part.sha256 or not self.holdings.damaged.keys().isdisjoint((part.records, *part.objects)):
            return part
        try:
            self._check_count(part)
            hashes = checked(self.lake, part.objects, {})
        except FileNotFoundError:  # readers find that out, and compact.py --verify
            return part
        return dataclasses.replace(part, sha256=tuple(hashes[name] for name in part.objects))

    # ---- one part

    def _groups(self, chunks: list[Chunk]) -> Iterator[list[Chunk]]:
        """Chunks that one connection reads. One whose rows have to be migrated, or are many, is alone."""
        for is_read, some in itertools.groupby(chunks, key=self._is_readable):
            alike = list(some)
            yield from together(alike, lambda chunk: chunk.rows) if is_read else ([chunk] for chunk in alike)

    def part(self, chunk: Chunk, group: list[Chunk], connections: contextlib.ExitStack) -> tuple[Part, list[str]]:
        """Returns the part of these cells, and its cells by place. Writes it unless an earlier attempt did.

        The first chunk of its `group` that is written opens the connection that reads them all, on `connections`.
        """
        commit = part_commit_name(self.number, chunk.task, chunk.digest)
        with contextlib.suppress(FileNotFoundError):
            return self._read_part(commit, chunk)
        self._check_bytes(chunk)
        lake, con = self._reading(group, connections)
        # The order of the cells is part of the name: the next attempt may know more tokenizers.
        written = write_part(
            con,
            [source.cell_id for source in chunk.sources],
            self.folder,
            lambda kind, order: part_name(self.number, chunk.task, kind, digest([chunk.digest, order])),
            bits=True,
        )
        self._check_rows(con, lake, chunk, written)
        for name, path in written.files.items():
            self.lake.create(name, path.read_bytes())
        value = {"part": written.part.to_value(), "cells": written.cells}
        if not self.lake.create(commit, sealed_json(value, commit)):
            return self._read_part(commit, chunk)  # another compactor was faster
        return written.part, written.cells

    def _reading(self, group: list[Chunk], connections: contextlib.ExitStack) -> tuple[Lake, duckdb.DuckDBPyConnection]:
        """The lake, or a migrated copy of the group's objects, and a connection with its views: made once a group."""
        if self._open and self._open[0] is group:
            return self._open[1:]
        shards = sorted(name for chunk in group for name in chunk.shards)
        manifest = manifest_of(self.before, group)
        inputs = dataclasses.replace(
            self.holdings, listed={**self.holdings.listed, "shards": shards}, manifest=manifest
        )
        lake = self._readable(group[0])
        con = connections.enter_context(
            contextlib.closing(
                connect(lake, inputs, cells=cells_of(self.choice, group), only=NEEDED_VIEWS, threads=self.threads)
            )
        )
        limit_memory(con, self.folder)
        if len(group) > 1:
            read_together(con)
        if lake is not self.lake:
            copied = [*shards, *(name for part in (manifest.parts if manifest else ()) for name in part.objects)]
            connections.callback(lake.remove, copied)
        self._open = (group, lake, con)
        return lake, con

    def _read_part(self, commit: str, chunk: Chunk) -> tuple[Part, list[str]]:
        """Reads a part that an earlier attempt committed. Raises FileNotFoundError without one."""
        data = self.lake.read(commit)
        try:
            if reason := broken_seal(data, commit):
                raise ValueError(reason)
            value = json.loads(data)
            part, cells = Part.from_value(value["part"]), list(value["cells"])
            self._check_shards(chunk)
            return part, cells
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(f"{commit} in {self.lake.uri} is damaged: remove it and try again") from error

    def _versions(self, chunk: Chunk) -> dict[str, int]:
        """Object with rows of the chunk -> its schema version."""
        versions = {name: self.choice.versions[name] or OLDEST_VERSION for name in chunk.shards}
        return versions | {
            name: part.schema_version for part in chunk.parts for name in part.objects if name != part.bits
        }

    def _is_readable(self, chunk: Chunk) -> bool:
        """Whether the views can read the rows of the chunk as they are."""
        return min(self._versions(chunk).values()) >= first_readable()

    def _readable(self, chunk: Chunk) -> Lake:
        """Returns the lake, or a migrated copy of the chunk's inputs if the views cannot read their version."""
        if self._is_readable(chunk):
            return self.lake
        versions = self._versions(chunk)
        whole = [name for table, names in self.holdings.listed.items() if table != "shards" for name in names]
        folded = [self.before.folded] if self.before else []
        return migrated_copy(self.lake, [*whole, *folded], versions, self.folder / "migrated")

    def _check_rows(self, con: duckdb.DuckDBPyConnection, lake: Lake, chunk: Chunk, written: WrittenPart) -> None:
        """Raises StorageError if the part does not hold every row once, or lacks values that every row has."""
        place = lake_place(lake.uri)
        stored = sum(source.fresh_rows for source in chunk.sources)
        if old := [f"{place}/{name}" for part in chunk.parts for name in (part.records, part.older) if name]:
            rows = "read_parquet(?, hive_partitioning = false)"
            query = f"SELECT count(*) FROM {rows} AS written SEMI JOIN part_cells USING (cell_id)"
            query += _FORGOTTEN.format(join="ANTI") if chunk.retracted else ""
            [(held,)] = con.execute(query, [old]).fetchall()
            stored += held
        if chunk.retracted:
            mine = "_stored AS written SEMI JOIN part_cells USING (cell_id)"  # the view has a whole group of chunks
            query = f"SELECT count(*) FROM {mine}{_FORGOTTEN.format(join='SEMI')}"
            [(forgotten,)] = con.execute(query).fetchall()
            stored -= forgotten
        kept = written.part.rows + written.older_rows
        if stored != kept:
            raise StorageError(f"of {stored} rows of {chunk.task} only {kept} fit the names of their files")
        if not has_every_row_once(con, written.files[written.part.records]):
            foreign = {name: reason for name in chunk.shards if (reason := examine(lake, name))}
            where = ", ".join(f"{name}: {reason}" for name, reason in foreign.items()) or ", ".join(chunk.shards)
            raise StorageError(f"rows of {chunk.task} stand there twice or lack a value: {where}")

    # ---- the commit

    def _manifest(self, written: dict[str, tuple[Part, Chunk, list[str]]]) -> Manifest:
        """Writes the table of folded shards. Returns the manifest of the new parts and those that are kept."""
        rewritten = {part.records for _, chunk, _ in written.values() for part in chunk.parts}
        rewritten |= self.choice.replaced | self.choice.dropped
        kept = [part for part in self.before.parts if part.records not in rewritten] if self.before else []
        kept = [self._with_sha256(part) for part in kept]
        parts = sorted([*kept, *(part for part, _, _ in written.values())], key=lambda part: part.records)
        folded = self._folded(written)
        name = folded_name(self.number, digest([part.records for part in parts]))
        there = {*self.holdings.listed[SHARDS]}
        objects = {n: sha256 for n, sha256 in self.inventory.items() if n in there or not ShardName.parse(n)}
        inventory_name, inventory_data = inventory(self.number, objects)
        self.lake.create_table(name, folded)
        self.lake.create(inventory_name, inventory_data)
        hashes = checked(self.lake, [name, inventory_name], {})
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        return Manifest(
            number=self.number,
            created_at=now,
            folded=name,
            shards=len(folded),
            parts=tuple(parts),
            inventory=inventory_name,
            folded_sha256=hashes[name],
            inventory_sha256=hashes[inventory_name],
            retracted=tuple(sorted(self.choice.retracted.ids)),
        )

    def _folded(self, written: dict[str, tuple[Part, Chunk, list[str]]]) -> pa.Table:
        """Returns a row per folded shard, new ones and those of the compaction before, with the present part."""
        rows = [row for row in self.choice.folded if row["part"] not in self.choice.replaced]
        homes: dict[str, dict[str, object]] = {}
        for part, chunk, cells in written.values():
            homes |= {cell_id: {"part": part.records, "place": place} for place, cell_id in enumerate(cells)}
            for name in chunk.shards:
                shard = ShardName.parse(name)
                assert shard, name
                origin = {"facts": self.choice.metadata.get(name), "file": name}
                key = {"cell_id": shard.cell_id, "generation": shard.generation}
                rows.append({**key, "first_item": shard.first, "last_item": shard.last, **origin})
        for row in rows:
            row |= homes.get(str(row["cell_id"]), {})
        rows.sort(key=lambda row: str(row["file"]))
        return pa.Table.from_pylist(rows, schema=FOLDED_SHARD)
