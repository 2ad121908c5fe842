"""Writes a published version: a lake at one moment, which never changes and can be cited, checked and queried in place.

Owns the order in which a version is assembled, its parts and its manifest. Knows nothing of the rows of its other
tables (collectors.publish.version_tables) and of the place of publication (collectors.publish.publishing).

A version is itself a lake with a single compaction, so whatever reads a lake reads it. Beside it lie the packed matrix,
a DuckDB file and its SQL, and descriptions for people and machines. The same lake gives the same bytes, compacted or
not: nothing in them depends on the time, the place or the publisher.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.file_digests import sha256_of
from collectors.lake import layout
from collectors.lake.chunks import PART_ROWS
from collectors.lake.holdings import Holdings, Manifest, Part, includes, read_holdings
from collectors.lake.inventory import check_objects
from collectors.lake.keyless import without_keys_in
from collectors.lake.parts import together
from collectors.lake.reading import connect, imports_left_out, record_damaged
from collectors.lake.retractions import read_retracted
from collectors.lake.spread import Spread
from collectors.lake.store import Lake, parquet_bytes
from collectors.matrix.blocks import blocks_of_tasks
from collectors.matrix.packed import FILES, write_packed
from collectors.matrix.pool_files import PoolFile
from collectors.publish.anonymous import Anonymous, hosts_of
from collectors.publish.card import Contents, Description, KeptPool, Predecessor
from collectors.publish.database import write_database
from collectors.publish.descriptions import descriptions, kept_pool
from collectors.publish.earlier import replaced_by
from collectors.publish.provenance import PROVENANCE_VIEWS, keyless_provenance
from collectors.publish.published_sql import VIEWS
from collectors.publish.version_parts import PartsWork, VersionChunk, made_parts, write_parts
from collectors.publish.version_tables import VersionTables, chosen_rows, views_of_tables
from schemas.failures import ConfigError, StorageError, one_line
from schemas.identity import COLUMN_KEY, ShardName, digest
from schemas.records import FOLDED_SHARD, GLOBS, SCHEMA_FILES, SCHEMA_VERSION, TABLES
from schemas.sql import quoted
from schemas.views import relocatable_views


@dataclass(frozen=True)
class PublishedVersion:
    """A whole version in a folder of this machine."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    @property
    def manifest_bytes(self) -> bytes:
        return (self.folder / layout.PUBLISHED_MANIFEST).read_bytes()

    @property
    def manifest_sha256(self) -> str:
        return hashlib.sha256(self.manifest_bytes).hexdigest()

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Name -> sha256 and bytes of every file but the manifest."""
        return dict(self.manifest["files"])


def build_version(
    lake: Lake,
    folder: Path,
    description: Description,
    version: str | None = None,
    progress: Callable[[int, int], None] = lambda written, parts: None,
    include: str = "collected",
    pools: Sequence[PoolFile] = (),
    earlier: Sequence[Predecessor] = (),
    spread: Spread | None = None,
) -> PublishedVersion:
    """Writes the lake as a version into the empty `folder`.

    `progress` gets the numbers of written and of all parts. `include` is a key of schemas.views.INCLUDED: other cells,
    and the objects that only they need, are left out. `pools` are kept under their names. `earlier` are
    versions that this one may replace (collectors.publish.earlier). The default name is the
    newest run's day and a digest of the content. `spread` lets other processes read and write the records; the bytes
    are the same. Every checksum is compared. Raises ConfigError for a lake without
    records or with damaged objects: prune these first, because a version never changes and would lack them for good.
    """
    _check_pools(pools, include)
    holdings = read_holdings(lake, include=include)
    if holdings.damaged:
        raise _is_damaged(lake, holdings.damaged)
    try:
        check_objects(lake, holdings.objects(), holdings.recorded, spread)
        writer = _Writer(lake, holdings, folder)
        writer.write_tables()
        writer.write_parts(progress, spread)
        writer.write_packed()
        writer.write_views()
        writer.write_pools(pools)
        return writer.finish(description, version, earlier)
    except (duckdb.Error, pa.ArrowException, StorageError, FileNotFoundError) as error:
        if damaged := record_damaged(lake, error, holdings):
            raise _is_damaged(lake, damaged) from error
        raise StorageError(f"cannot publish the lake at {lake.uri}: {one_line(error)}") from error


def _check_pools(pools: Sequence[PoolFile], include: str) -> None:
    """Raises ConfigError for pools that no version of these records can keep, before minutes of work are spent."""
    names = [pool.name for pool in pools]
    if len({name.casefold() for name in names}) < len(names):  # one file where case is ignored
        raise ConfigError(f"two of the pools {', '.join(sorted(names))} have one name")
    for pool in pools:
        if include not in ("all", pool.include):
            raise ConfigError(
                f"pool {pool.name} includes {pool.include} records, and the version has {include} ones: see --include"
            )


def _is_damaged(lake: Lake, damaged: Mapping[str, str]) -> ConfigError:
    name = min(damaged)
    return ConfigError(
        f"{len(damaged)} objects of {lake.uri} are damaged, such as {name} ({damaged[name]}): remove them with "
        "compact.py --prune, or collect them again, then publish"
    )


class _Writer:
    """Writes the files in order: each step uses the results of the steps before."""

    def __init__(self, lake: Lake, holdings: Holdings, folder: Path) -> None:
        self.lake, self.holdings, self.folder = lake, holdings, folder
        self.files: dict[str, dict[str, Any]] = {}
        self.parts: list[Part] = []
        self.pools: list[KeptPool] = []
        #: Cell -> the part that holds it, and its position there.
        self.home: dict[str, tuple[str, int]] = {}
        self.listed: dict[str, list[str]] = {"shards": []}
        #: Cell -> its shards.
        self.shards_of: dict[str, list[str]] = {}
        for name in holdings.listed["shards"]:
            if shard := ShardName.parse(name):
                self.shards_of.setdefault(shard.cell_id, []).append(name)
        self.retracted = read_retracted(lake, holdings.listed[layout.RETRACTIONS])
        with contextlib.closing(connect(lake, holdings, only=[*PROVENANCE_VIEWS, *views_of_tables(holdings)])) as con:
            self.provenance = keyless_provenance(con)
            self.cells = con.execute(_CELLS).fetchall()
            self.shards = con.execute(_SHARDS).fetchall()
            unplanned = con.execute("SELECT cell_id FROM shards WHERE cell_id NOT IN (SELECT cell_id FROM cells)")
            self.unplanned = sum(includes(holdings.include, cell_id) for (cell_id,) in unplanned.fetchall())
            self.old_parts = dict(con.execute("SELECT DISTINCT cell_id, part FROM _folded").fetchall())
            # An older release stored keys that stood in a model's name or source: no object of a version repeats them.
            self.planned_cells = without_keys_in(con.sql("FROM cells").to_arrow_table())
            self.chosen = chosen_rows(con, holdings)
            con.register("published_cells", self.planned_cells)
            self.models = con.sql(
                f"SELECT DISTINCT {', '.join(COLUMN_KEY)} FROM published_cells ORDER BY {', '.join(COLUMN_KEY)}"
            ).to_arrow_table()
        hosts = hosts_of([facts for _, facts, *_ in self.shards])
        self.anonymous = Anonymous(hosts, self.planned_cells["source"].to_pylist())
        self.provenance = self.anonymous.provenance(self.provenance)
        if not self.cells:
            hint = imports_left_out(lake, holdings.include)
            raise ConfigError(
                f"the lake at {lake.uri} holds no records of planned cells: there is nothing to publish{hint}"
            )

    def write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.sign(name)

    def sign(self, name: str) -> None:
        """Adds the file to the manifest."""
        sha256 = sha256_of(self.folder / name)
        self.files[name] = {"sha256": sha256, "bytes": (self.folder / name).stat().st_size}

    # ---- tables

    def write_tables(self) -> None:
        """Writes the schemas of all tables, then the tables without records."""
        for table, schema in TABLES.items():
            self.write(SCHEMA_FILES[table], parquet_bytes(schema.empty_table()))
        tables = VersionTables(
            self.lake, self.holdings, self.planned_cells, self.chosen, self.retracted, self.anonymous
        )
        for table in ("items", *(name for name in GLOBS if name not in ("shards", "items"))):
            self.listed[table] = []
            for name, data in tables.objects(table):
                self.write(name, data)
                self.listed[table].append(name)

    # ---- records

    def write_parts(self, progress: Callable[[int, int], None], spread: Spread | None) -> None:
        chunks = list(self._chunks())
        progress(0, len(chunks))
        if spread:
            for part, cells, files in itertools.chain.from_iterable(spread(made_parts, self._works(chunks))):
                for name, data in files.items():
                    self.write(name, data)
                self._keep(part, cells)
                progress(len(self.parts), len(chunks))
        for work in () if spread else self._works(chunks):
            for written in write_parts(work, self.folder):
                for name, path in written.files.items():
                    (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                    path.rename(self.folder / name)
                    self.sign(name)
                self._keep(written.part, written.cells)
                progress(len(self.parts), len(chunks))
        for kind in ("records", "responses", "older"):
            (self.folder / f"{kind}.parquet").unlink(missing_ok=True)
        rows = [
            dict(zip(FOLDED_SHARD.names, (*key, *self.home[key[0]], self.anonymous.facts(facts), name), strict=True))
            for task, facts, item_set, *key in self.shards
            if key[0] in self.home
            for name in [layout.shard_name(task, ShardName(*(*key, item_set)))]
        ]
        folded = layout.folded_name(1)
        self.write(folded, parquet_bytes(without_keys_in(pa.Table.from_pylist(rows, schema=FOLDED_SHARD))))
        self.compaction = Manifest(1, self.provenance["created"], folded, len(rows), tuple(self.parts))
        self.write(self.compaction.name, self.compaction.to_json())

    def _works(self, chunks: list[VersionChunk]) -> Iterator[PartsWork]:
        import pyarrow.compute as pc  # 75 ms

        first = 0
        for group in together(chunks, lambda chunk: chunk.rows):
            of_group = {cell_id for chunk in group for cell_id in chunk.cells}
            rows_of_cells = self.planned_cells.filter(pc.field("cell_id").isin(sorted(of_group)))
            yield PartsWork(self.lake.uri, self._inputs(of_group), rows_of_cells, group, first)
            first += len(group)

    def _keep(self, part: Part, cells: list[str]) -> None:
        self.parts.append(part)
        self.home |= {cell_id: (part.records, place) for place, cell_id in enumerate(cells)}

    def _chunks(self) -> Iterator[VersionChunk]:
        """Yields cells by task, prompting and model, about PART_ROWS rows at a time, however the lake stores them."""
        for (task, _), group in itertools.groupby(self.cells, key=lambda row: row[:2]):
            run: list[str] = []
            size = 0
            for *_, cell_id, rows in group:
                if run and size + rows > PART_ROWS:
                    yield VersionChunk(task, run, size)
                    run, size = [], 0
                run.append(cell_id)
                size += rows
            yield VersionChunk(task, run, size)

    def _inputs(self, cells: set[str]) -> Holdings:
        """The part of the lake that holds these cells."""
        shards = sorted(name for cell_id in cells for name in self.shards_of.get(cell_id, ()))
        names = {self.old_parts[cell_id] for cell_id in cells if cell_id in self.old_parts}
        manifest = self.holdings.manifest
        if manifest:
            manifest = dataclasses.replace(manifest, parts=tuple(p for p in manifest.parts if p.records in names))
        listed = {**self.holdings.listed, "shards": shards}
        return dataclasses.replace(self.holdings, listed=listed, manifest=manifest)

    # ---- the matrix and the views

    def write_packed(self) -> None:
        tasks = sorted(set(self.planned_cells["task"].to_pylist()))
        mine = Lake(str(self.folder))  # not from the lake: it may have grown since
        write_packed(blocks_of_tasks(mine, tasks, self.holdings.include), self.models, self.folder)
        for name in FILES.values():
            self.sign(name)

    def write_views(self) -> None:
        """Writes the views as SQL, a DuckDB file with the tables behind them, and the matrix of each task."""
        compaction = Holdings(self.listed, self.compaction)
        statements = relocatable_views(compaction.view_files())
        head = (
            "-- The views over this published version. Read from its own folder, or from anywhere after\n"
            "-- SET VARIABLE snapshot = 's3://bucket/version';\n\n"
        )
        self.write(VIEWS, (head + "\n".join(statements)).encode())
        tables = (self._rows_of(table) for table in ("runs", "prices"))
        for name in write_database(self.folder, compaction.view_files(), *tables):
            self.sign(name)

    def _rows_of(self, table: str) -> str:
        """The rows of a table of this version, for a query."""
        name = next(iter(self.listed[table]), SCHEMA_FILES[table])
        return f"read_parquet({quoted(str(self.folder / name))})"

    def write_pools(self, pools: Sequence[PoolFile]) -> None:
        """Keeps each pool. Raises ConfigError for one that this version has no candidate of."""
        mine = Lake(str(self.folder))
        for pool in pools:
            self.pools.append(kept_pool(mine, pool))
            self.write(layout.pool_name(pool.name), pool.data)

    def finish(self, description: Description, version: str | None, earlier: Sequence[Predecessor]) -> PublishedVersion:
        counts = self._counts()
        # Without its newest run, which was forgotten, a lake would look older than the version before.
        forgotten = [row["retracted_at"].isoformat(timespec="seconds") for row in self.retracted.rows]
        previous = replaced_by(self.files, max([self.provenance["created"], *forgotten]), earlier)
        replaces = {"previous": previous.stated()} if previous else {}
        content = digest({"files": self.files, "description": description.stated(), **replaces}, 8)
        day = [int(number) for number in self.provenance["created"][:10].split("-")]
        version = version or f"{day[0]}.{day[1]}.{day[2]}-r{content}"  # a valid semantic version
        contents = Contents(version, counts, self.provenance, self.files, tuple(self.pools), previous)
        described = descriptions(description, contents)
        for name, data in described.items():
            self.write(name, data)
        manifest = {
            "kind": layout.PUBLISHED_KIND,
            "schema_version": SCHEMA_VERSION,
            "version": version,
            "description": description.stated(),
            **replaces,
            "counts": counts,
            "provenance": self.provenance,
            "files": dict(sorted(self.files.items())),
        }
        (self.folder / layout.PUBLISHED_MANIFEST).write_bytes(json.dumps(manifest, indent=1, sort_keys=True).encode())
        return PublishedVersion(self.folder, manifest)

    def _models_of_cells(self) -> Iterator[tuple[str, str]]:
        columns = (self.planned_cells[name].to_pylist() for name in ("cell_id", "model"))
        return zip(*columns, strict=True)

    def _counts(self) -> dict[str, int]:
        def rows(*names: str | None) -> int:
            return sum(pq.read_metadata(self.folder / name).num_rows for name in names if name)

        return {
            "records": sum(part.rows for part in self.parts),
            "responses": rows(*(part.responses for part in self.parts)),
            "superseded": rows(*(part.older for part in self.parts)),
            "cells": len(self.home),
            "models": len({model for cell_id, model in self._models_of_cells() if cell_id in self.home}),
            "tasks": len({task for task, *_ in self.cells}),
            "items": rows(*self.listed["items"]),
            "runs": len(self.provenance["runs"]),
            "failures": rows(*self.listed["failures"]),
            "shards left out, because no run planned their cells": self.unplanned,
            **({"forecasts": rows(*self.listed[layout.FORECASTS])} if self.listed[layout.FORECAST_FITS] else {}),
        }


#: Cells with records and their numbers of records, replaced ones too: so parts do not depend on the lake's form.
_CELLS = """
SELECT task, prompting, cell_id, rows
FROM (
    SELECT cell_id, count(*) AS rows
    FROM (SELECT cell_id FROM records UNION ALL SELECT cell_id FROM superseded) GROUP BY cell_id
) JOIN cells USING (cell_id)
ORDER BY task, prompting, model, cell_id
"""

_SHARDS = """
SELECT task, facts::VARCHAR, coalesce(shards.item_set, ''), cell_id, shards.generation, first_item, last_item
FROM shards JOIN cells USING (cell_id)
ORDER BY task, cell_id, shards.generation, first_item, last_item, shards.item_set
"""
