"""Checks that the files of a published version fit together: each belongs to a table, and the compaction names its own.

Owns the rule that a version is a closed set. All that readers follow from one file to the next must be in the manifest:
the parts that the compaction names, the shards in its list, the paths in the views. Knows nothing of digests.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from collectors.lake import layout
from collectors.lake.contents import foreign_columns, foreign_rows
from collectors.lake.holdings import Manifest, Part, read_folded, read_holdings, read_manifest
from collectors.lake.store import Lake
from collectors.matrix.packed import FILES
from collectors.publish.citation import CITATION, ZENODO
from collectors.publish.datasheet import DATASHEET
from schemas.failures import StorageError, one_line
from schemas.records import GLOBS, SCHEMA_FILES, TABLES
from schemas.sql import quoted
from schemas.versions import check_readable, stated_version
from schemas.views import KEPT_TABLES, kept_table, rows_of_version, view_files

VIEWS = "views.sql"
_COMPACTION = layout.manifest_name(1)
_BESIDE = {VIEWS, layout.DATABASE, "croissant.json", "README.md"}
#: Descriptions that the first versions of all lack.
_DESCRIBED = {DATASHEET, CITATION, ZENODO}
#: Tables without which no release wrote a version.
_NEEDED = ("shards", "runs", "items", "compact/folded", "compact/records")
_REQUIRED = {*_BESIDE, *FILES.values(), _COMPACTION, *(SCHEMA_FILES[table] for table in _NEEDED)}
_WHOLE = {layout.published_name(table) for table in GLOBS if table not in ("shards", "items")}

#: The form in which views name a file; any other call of a reader, and any other text with a path, is foreign.
_TOKEN = re.compile(r"""'((?:[^']|'')*)'|"((?:[^"]|"")*)\"""")
#: The views print the name of a shard by it.
_SHARD_FORMATS = ("{}-g{}-{:07d}-{:07d}.parquet", "{}-g{}-{:07d}-{:07d}{}.parquet")
#: How views up to schema version 12 read the name of a shard.
_EARLIER_LITERALS = frozenset(
    [
        r"(?:^|/)[0-9a-fi][0-9a-f]{15}-g[0-9]{1,6}-[0-9]{7}-[0-9]{7}\.parquet$",
        r"(?:^|/)([0-9a-fi][0-9a-f]{15})-g([0-9]{1,6})-([0-9]{7})-([0-9]{7})\.parquet$",
    ]
)
#: Text and names in quotes, which may hold what looks like a comment, or a comment.
_QUOTED_OR_COMMENT = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")|--[^\n]*""")
_READER = re.compile(r"""\b(\w*scan\w*|read_\w+|glob|sniff_csv|getenv|query|query_table)"?(?:/\*.*?\*/|\s)*\(""", re.I)
_MADE = re.compile(r"CREATE (?:VIEW|TABLE|MACRO) (\w+)\b")
_DOLLARS = re.compile(r"\$\w*\$")
_FROM_TEXT = re.compile(r"(?<!DISTINCT )\b(?:FROM|JOIN)\s*''", re.I)


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

    def faults(self) -> Iterator[str]:
        described = _DESCRIBED if _DESCRIBED & self.files.keys() else set()
        required = (_REQUIRED | described) - self.files.keys()
        yield from (f"{name}: missing from the manifest" for name in sorted(required))
        for name in sorted(self.sound):
            if name.endswith(".parquet"):
                yield from self._of_parquet(name)
        compaction: Manifest | None = None
        if _COMPACTION in self.sound:
            try:
                compaction = read_manifest(self.store, _COMPACTION)
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
        yield from self._of_views()
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
                if table == "items" and (fault := foreign_rows(rows, name)):
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
        if not 0 <= part.primary_rows <= part.rows:
            yield f"{part.records}: {_COMPACTION} gives impossible rows for it"

    def _of_list(self, compaction: Manifest) -> Iterator[str]:
        if compaction.folded not in self.sound or compaction.folded not in self.rows:
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

        if self.sound != self.files.keys():
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
            # Earlier releases counted the columns of the packed matrix as models.
            if stated != count and not (name == "models" and stated == self.rows.get(FILES["models"], 0)):
                yield f"{layout.PUBLISHED_MANIFEST}: it counts other {name} than the {count:,} in the files"

    def _models(self, compaction: Manifest) -> int:
        """Names of models with records; -1 where they cannot be read, which another line reports."""
        if not {"cell_id", "model"} <= set(self._runs_columns()):
            return -1
        cells = {row["cell_id"] for row in read_folded(self.store, compaction, columns=["cell_id"])}
        data = io.BytesIO(self.store.read(layout.published_name(layout.RUNS)))
        rows = pq.read_table(data, columns=["cell_id", "model"])
        pairs = zip(rows["cell_id"].to_pylist(), rows["model"].to_pylist(), strict=True)
        return len({model for cell_id, model in pairs if cell_id in cells})

    def _runs_columns(self) -> list[str]:
        name = layout.published_name(layout.RUNS)
        return list(pq.read_schema(io.BytesIO(self.store.read(name))).names) if name in self.sound else []

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
                except (ValueError, RecursionError, yaml.YAMLError):
                    stated[name] = None
        return stated

    # ---- views

    def _of_views(self) -> Iterator[str]:
        if VIEWS in self.sound:
            text = self.store.read(VIEWS).decode(errors="replace")
            faults = [*_faults_of_statements(text), *_faults_of_sql(_QUOTED_OR_COMMENT.sub(r"\1", text), self.files)]
            yield from (f"{VIEWS}: {fault}" for fault in faults)


def _has_place(name: str, places: Collection[str]) -> bool:
    return name in places or layout.is_items(name) or layout.is_matrix(name) or bool(layout.pools_of([name]))


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def database_faults(store: Lake, manifest: dict[str, Any]) -> list[str]:
    """Returns a line for each view of the version's database that reads anything but files of the manifest.

    It opens the database, so all else must be whole. Elsewhere than on this machine its SHA-256 has to suffice.
    """
    if not store.local:
        return []
    try:
        faults = [*_faults_of_sql(_statements(store), manifest["files"])]
        faults += [] if faults else _other_rows(store)
    except duckdb.Error as error:
        faults = [f"it cannot be opened: {one_line(error, 160)}"]
    return [f"{layout.DATABASE}: {fault}" for fault in faults]


def _other_rows(store: Lake) -> Iterator[str]:
    """A line for each table of the database that holds other rows than the files that it was made of."""
    with contextlib.closing(duckdb.connect()) as con:
        con.execute(f"ATTACH {quoted(store.local_path(layout.DATABASE))} AS version (READ_ONLY)")
        query = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'version'"
        there = {name for (name,) in con.execute(query).fetchall()}
        holdings = read_holdings(store)
        for table in KEPT_TABLES:
            if kept_table(table) not in there:  # a release before made views alone
                continue
            both = (f"version.{kept_table(table)}", rows_of_version(holdings.view_files(), table, store.uri))
            counts = [con.execute(f"SELECT count(*), bit_xor(hash(t)) FROM {one} AS t").fetchall() for one in both]
            if counts[0] != counts[1]:
                yield f"it holds other rows of {table} than the files"


def _faults_of_statements(text: str) -> Iterator[str]:
    """A line for each statement that is not the making of a view, a table or a macro of its own name."""
    try:
        statements = [_QUOTED_OR_COMMENT.sub(r"\1", one.query).strip() for one in duckdb.extract_statements(text)]
    except duckdb.Error as error:
        yield f"it is not SQL: {one_line(error, 160)}"
        return
    made = [match[1] if (match := _MADE.match(statement)) else None for statement in statements]
    for statement, name in zip(statements, made, strict=True):
        if name is None:
            yield f"a statement makes no view, table or macro: {json.dumps(statement[:60])}"
    for name, times in Counter(filter(None, made)).items():
        if times > 1:
            yield f"it makes {name} {times} times"
    if lost := sorted({"leaderboard", "matrix", "records"} - set(made)):
        yield f"it does not make {', '.join(lost)}"


@functools.cache
def _own_literals() -> frozenset[str]:
    """The texts in quotes of this release's views, and those of earlier ones that look like paths."""
    own = {literal for file in view_files().values() for literal, _ in _TOKEN.findall(file.sql)}
    return _EARLIER_LITERALS | own


def _faults_of_sql(text: str, files: Collection[str]) -> Iterator[str]:
    if _DOLLARS.search(_QUOTED_OR_COMMENT.sub("", text)):
        yield "a view holds a text in dollars"
    if _FROM_TEXT.search(_TOKEN.sub(lambda match: "named" if match[0][0] == '"' else "''", text)):
        yield "a view reads a file by its name"
    for reader in sorted({match[1].lower() for match in _READER.finditer(text)} - {"read_parquet"}):
        yield f"a view calls {reader}, which may read other files"
    for literal, identifier in _TOKEN.findall(text):
        if "/" in identifier or "." in identifier:
            yield f"a view reads {json.dumps(identifier)} by its name"
        path = literal.replace("''", "'").replace("[*]", "*").replace("[?]", "?").replace("[[]", "[")
        if path in _SHARD_FORMATS:
            continue
        # A path may be put together of several texts, and have any ending.
        is_path = path.endswith(".parquet") or ("/" in path and literal not in _own_literals())
        if "://" in path or (is_path and path.removeprefix("/") not in files and path != "/"):
            yield f"a view reads {json.dumps(path)}, which is not in the manifest"


def _statements(store: Lake) -> str:
    """Returns the SQL of all views and macros of the version's database."""
    path = store.local_path(layout.DATABASE)
    with contextlib.closing(duckdb.connect()) as con:
        con.execute(f"ATTACH {quoted(path)} AS version (READ_ONLY)")
        con.execute("SET enable_external_access = false")
        rows = con.execute(
            "SELECT sql FROM duckdb_views() WHERE database_name = 'version' UNION ALL SELECT macro_definition "
            "FROM duckdb_functions() WHERE database_name = 'version' AND macro_definition IS NOT NULL"
        ).fetchall()
    return "\n".join(text for (text,) in rows)
