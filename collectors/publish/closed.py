"""Checks that the files of a published version fit together: each belongs to a table, and the compaction names its own.

Owns the rule that a version is a closed set. All that readers follow from one file to the next must be in the manifest:
the parts that the compaction names, the shards in its list, the paths in the views. Knows nothing of digests.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from collectors.lake import layout
from collectors.lake.contents import foreign_columns, foreign_rows, list_fault
from collectors.lake.holdings import Manifest, Part, read_folded, read_manifest
from collectors.lake.parts import grid_of
from collectors.lake.seals import read_seal
from collectors.lake.store import Lake
from collectors.matrix.packed import FILES
from collectors.matrix.pool_files import parse_pool
from collectors.publish.citation import CITATION, ZENODO
from collectors.publish.datasheet import DATASHEET
from collectors.publish.published_sql import VIEWS, views_faults
from schemas.failures import YAML_VALUE_ERRORS, ConfigError, StorageError, one_line
from schemas.records import GLOBS, SCHEMA_FILES, TABLES
from schemas.versions import check_readable, stated_version

_COMPACTION = layout.manifest_name(1)
_BESIDE = {VIEWS, layout.DATABASE, "croissant.json", "README.md"}
#: Descriptions that the first versions of all lack.
_DESCRIBED = {DATASHEET, CITATION, ZENODO}
#: The first schema version whose releases all seal the compaction's manifest.
_SEALED = 7
#: Tables without which no release wrote a version.
_NEEDED = ("shards", "runs", "items", "compact/folded", "compact/records")
_REQUIRED = {*_BESIDE, *FILES.values(), _COMPACTION, *(SCHEMA_FILES[table] for table in _NEEDED)}
_WHOLE = {layout.published_name(table) for table in GLOBS if table not in ("shards", "items")}
#: Table, column -> the table that has each of its values.
_LINKS = (
    (layout.VERDICTS, "judge_id", layout.JUDGES),
    (layout.VERDICTS, "cell_id", layout.RUNS),
    (layout.FORECASTS, "forecast", layout.FORECAST_FITS),
)


def set_faults(store: Lake, manifest: dict[str, Any], sound: set[str]) -> list[str]:
    """Returns a line for each file that does not fit the others.

    `sound` are the files that equal their lines in the manifest. Raises ConfigError for a newer schema version.
    """
    check = _Check(store, manifest, sound)
    return list(dict.fromkeys(check.faults()))


class _Check:
    def __init__(self, store: Lake, manifest: dict[str, Any], sound: set[str]) -> None:
        self.store, self.manifest, self.sound = store, manifest, sound
        self.files: dict[str, dict[str, Any]] = manifest["files"]
        #: Parquet object -> its number of rows.
        self.rows: dict[str, int] = {}
        #: Parquet objects that have the columns and values of their table.
        self.fitting = set[str]()

    def faults(self) -> Iterator[str]:
        described = _DESCRIBED if _DESCRIBED & self.files.keys() else set()
        required = (_REQUIRED | described) - self.files.keys()
        yield from (f"{name}: missing from the manifest" for name in sorted(required))
        for name in sorted(self.sound):
            if name.endswith(".parquet"):
                faults = list(self._of_parquet(name))
                yield from faults
                self.fitting |= set() if faults else {name}
        compaction: Manifest | None = None
        if _COMPACTION in self.sound:
            try:
                compaction = read_manifest(self.store, _COMPACTION)
                is_sealed = read_seal(self.store.read(_COMPACTION)).stated is not None
                if not is_sealed and self.manifest["schema_version"] >= _SEALED:
                    yield f"{_COMPACTION}: it has no seal"
            except StorageError as error:
                yield f"{_COMPACTION}: damaged: {one_line(error.__cause__ or error, 200)}"
        named = set(compaction.objects) if compaction else set()
        places = {*_BESIDE, *_DESCRIBED, *FILES.values(), *SCHEMA_FILES.values(), *_WHOLE, *named}
        for name in self.files:
            if not _has_place(name, places) and (compaction or not layout.is_compacted(name)):
                yield f"{name}: no table of a version holds it"
        if compaction:
            yield from self._of_compaction(compaction)
            yield from self._of_counts(compaction)
        yield from self._of_links()
        if VIEWS in self.sound:
            try:
                text = self.store.read(VIEWS).decode()
            except UnicodeDecodeError:
                yield f"{VIEWS}: it is not UTF-8"
            else:
                yield from (f"{VIEWS}: {fault}" for fault in views_faults(text, self.files))
        yield from self._of_descriptions()

    def _of_parquet(self, name: str) -> Iterator[str]:
        """Reads a file's footer, and all of a table outside the compaction."""
        try:
            file = pq.ParquetFile(io.BytesIO(self.store.read(name)), page_checksum_verification=True)
            version = stated_version(file.schema_arrow.metadata)
            if version is not None:
                check_readable(f"{name} in {self.store.uri}", version)
            self.rows[name] = file.metadata.num_rows
            if name in FILES.values() or layout.is_matrix(name):
                return
            table = layout.table_of(name)
            if fault := foreign_columns(file.schema_arrow, table) if table in TABLES else None:
                yield f"{name}: {fault}"
            elif name in SCHEMA_FILES.values() and self.rows[name]:
                yield f"{name}: it holds rows, and a schema file has none"
            elif not layout.is_compacted(name):
                rows = file.read()
                rows.validate(full=True)  # or a text that is not UTF-8 is met later
                columns = TABLES.get(table, ())
                if lacking := [one.name for one in columns if not one.nullable and rows[one.name].null_count]:
                    yield f"{name}: it is foreign: column {lacking[0]} lacks values"
                elif table == "items" and (fault := foreign_rows(rows, name)):
                    yield f"{name}: {fault}"
        except (OSError, ValueError, pa.ArrowException) as error:
            yield f"{name}: it is not a whole Parquet file: {one_line(error, 160)}"

    def _of_compaction(self, compaction: Manifest) -> Iterator[str]:
        for name, times in Counter(compaction.objects).items():
            if times > 1:
                yield f"{_COMPACTION}: it names {name} {times} times"
            if name not in self.files:
                yield f"{_COMPACTION}: it names {name}, which is not in the manifest"
        if compaction.inventory:
            yield f"{_COMPACTION}: it names an inventory, which no version has"
        for name, sha256 in compaction.recorded.items():
            if name in self.files and self.files[name]["sha256"] != sha256:
                yield f"{name}: its SHA-256 in {_COMPACTION} is another"
        for part in compaction.parts:
            yield from self._of_part(part)
        yield from self._of_list(compaction)

    def _of_part(self, part: Part) -> Iterator[str]:
        sizes = [self.files[name]["bytes"] for name in part.objects if name in self.files]
        stated = (part.rows, part.bytes, part.other_bytes)
        counted = (self.rows.get(part.records), sizes[0] if sizes else None, sum(sizes[1:]))
        if len(sizes) == len(part.objects) and part.records in self.rows and stated != counted:
            yield f"{part.records}: {_COMPACTION} gives other rows or bytes for it"
        if not layout.is_of_task(part.task, part.records):
            yield f"{part.records}: {_COMPACTION} gives another task for it"
        if part.records in self.fitting and (wrong := self._wrong_of(part)):
            yield f"{part.records}: {_COMPACTION} gives another {wrong} for it"

    def _wrong_of(self, part: Part) -> str | None:
        """What the compaction says of a part and its rows do not: readers choose parts and read grids by it."""
        file = pq.ParquetFile(io.BytesIO(self.store.read(part.records)))
        if not {"is_primary", "place", "prompting"} <= set(file.schema_arrow.names):
            return None  # of an early release
        rows = file.read(["task", "prompting", "is_primary", "item", "place"])
        primary = rows.filter(rows["is_primary"])
        cells = len(rows["place"].unique())
        items, places = (primary[name].to_numpy() for name in ("item", "place"))
        of_rows = (
            *(rows[name].unique().to_pylist() for name in ("task", "prompting")),
            *(cells, *grid_of(items, places, cells)),
        )
        stated = (
            *([part.task], [part.prompting], part.cells),
            *(part.primary_rows, part.first_item, part.last_item, part.is_grid),
        )
        names = ("task", "prompting", "number of cells", "number of primary rows", "first item", "last item", "grid")
        return next((name for name, one, other in zip(names, of_rows, stated, strict=True) if one != other), None)

    def _of_links(self) -> Iterator[str]:
        """A line for each table that names rows which another lacks, and for each list or pool under a wrong name."""
        for table, column, other in _LINKS:
            if layout.published_name(other) in self.files.keys() - self.fitting:
                continue
            if lost := self._values(table, column) - self._values(other, column):
                lacking = json.dumps(min(lost))[:80]
                yield f"{layout.published_name(table)}: {column} {lacking} is not in {layout.published_name(other)}"
        lists: dict[str, list[int | None]] = {}
        name = layout.published_name(layout.ITEM_SETS)
        if name in self.fitting:
            rows = pq.read_table(io.BytesIO(self.store.read(name)), columns=["item_set", "item"]).sort_by(
                [("item_set", "ascending"), ("item", "ascending")]
            )
            for item_set, item in zip(rows["item_set"].to_pylist(), rows["item"].to_pylist(), strict=True):
                lists.setdefault(item_set, []).append(item)
        yield from (
            f"{name}: list {one[:80]}: {fault}" for one, items in lists.items() if (fault := list_fault(items, one))
        )
        for pool in layout.pools_of(self.sound):
            try:
                stated = parse_pool(self.store.read(layout.pool_name(pool)), f"@{pool}").name
            except ConfigError as error:
                yield f"{layout.pool_name(pool)}: {one_line(error, 200)}"
                continue
            if stated != pool:
                yield f"{layout.pool_name(pool)}: it holds the pool {stated}"

    def _values(self, table: str, column: str) -> set[str]:
        """The values of a column of a table that is written whole, but null."""
        name = layout.published_name(table)
        if name not in self.fitting:
            return set()
        values = pq.read_table(io.BytesIO(self.store.read(name)), columns=[column])[column]
        return set(values.unique().to_pylist()) - {None}

    def _of_list(self, compaction: Manifest) -> Iterator[str]:
        if compaction.folded not in self.fitting:
            return
        try:
            rows = read_folded(self.store, compaction, columns=["part", "file"])
        except StorageError as error:
            yield f"{compaction.folded}: {one_line(error, 200)}"
            return
        parts = {part.records for part in compaction.parts}
        if {row["part"] for row in rows} != parts:
            yield f"{compaction.folded}: its shards are in other parts than {_COMPACTION} names"
        if len({row["file"] for row in rows}) != len(rows) or len(rows) != compaction.shards:
            yield f"{compaction.folded}: it lists a shard twice, or not as many as {_COMPACTION} states"

    def _of_counts(self, compaction: Manifest) -> Iterator[str]:
        def rows(chosen: Callable[[str], bool]) -> int:
            return sum(count for name, count in self.rows.items() if chosen(name) and name in self.files)

        def of_parts(kind: str) -> int:
            return sum(self.rows.get(name, 0) for part in compaction.parts if (name := getattr(part, kind)))

        tables = {name for name in self.files if name.endswith(".parquet")}
        if self.sound != self.files.keys() or self.fitting != tables:
            return  # named already, and the numbers of rows are not all there
        counted = {
            "records": of_parts("records"),
            "responses": of_parts("responses"),
            "superseded": of_parts("older"),
            "cells": sum(part.cells for part in compaction.parts),
            "models": self._models(compaction),
            "tasks": len({part.task for part in compaction.parts}),
            "runs": len(self.manifest["provenance"].get("runs") or ()),
            "items": rows(layout.is_items),
            "failures": rows(lambda name: name == layout.published_name("failures")),
        }
        if "forecasts" in self.manifest["counts"]:  # stated where there are some
            counted["forecasts"] = rows(lambda name: name == layout.published_name(layout.FORECASTS))
        for name, count in counted.items():
            stated = self.manifest["counts"].get(name)
            if stated == count or count is None:
                continue
            # Earlier releases counted the columns of the packed matrix as models.
            if name != "models" or stated != self.rows.get(FILES["models"], 0):
                yield f"{layout.PUBLISHED_MANIFEST}: it counts other {name} than the {count:,} in the files"

    def _models(self, compaction: Manifest) -> int | None:
        """Names of models with records; None where the list of shards cannot be read, which another line reports."""
        name = layout.published_name(layout.RUNS)
        if name not in self.fitting:
            return 0
        try:
            cells = {row["cell_id"] for row in read_folded(self.store, compaction, columns=["cell_id"])}
        except StorageError:
            return None
        rows = pq.read_table(io.BytesIO(self.store.read(name)), columns=["cell_id", "model"])
        pairs = zip(rows["cell_id"].to_pylist(), rows["model"].to_pylist(), strict=True)
        return len({model for cell_id, model in pairs if cell_id in cells})

    def _of_descriptions(self) -> Iterator[str]:
        """A line for each description of another version or of other files."""
        version, digests = self.manifest["version"], {entry["sha256"] for entry in self.files.values()}

        def is_foreign(sha256: object) -> bool:
            return sha256 is not None and not (isinstance(sha256, str) and sha256 in digests)

        for name, stated in self._stated().items():
            if not isinstance(stated, dict):
                yield f"{name}: it is no description of a version"
            elif stated.get("version") != version:
                yield f"{name}: it describes version {json.dumps(stated.get('version'), default=str)[:80]}"
            elif any(is_foreign(one.get("sha256")) for one in _objects(stated.get("distribution"))):
                yield f"{name}: it gives the SHA-256 of files that are not in the manifest"

    def _stated(self) -> dict[str, Any]:
        readers: dict[str, Callable[[bytes], Any]] = {"croissant.json": json.loads, ZENODO: json.loads}
        stated = {}
        for name, read in {**readers, CITATION: yaml.safe_load}.items():
            if name in self.sound:
                try:
                    stated[name] = read(self.store.read(name))
                except (*YAML_VALUE_ERRORS, yaml.YAMLError):
                    stated[name] = None
        return stated


def _has_place(name: str, places: Collection[str]) -> bool:
    return name in places or layout.is_items(name) or layout.is_matrix(name) or bool(layout.pools_of([name]))


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
