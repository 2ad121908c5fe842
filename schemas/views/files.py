"""Which objects of a lake the views read, as SQL in the place of the views' placeholders.

Owns the placeholders. Knows nothing of how a lake is listed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from schemas.failures import StorageError
from schemas.identity import IMPORTED
from schemas.records import ANSWERS, GLOBS, KEY, OF_CELL, RECORD, SCHEMA_FILES, TABLES
from schemas.sql import literal_path, no_rows, parquet_schema, quoted, quoted_path

#: Which cells views can show -> the condition on their rows in runs/, and how the names of their shards begin: with 's'
#: that of the schema file, because DuckDB refuses a pattern that fits no file.
INCLUDED = {
    "collected": ("imported_from IS NULL", "[0-9a-fs]"),
    "imported": ("imported_from IS NOT NULL", f"[{IMPORTED}s]"),
    "all": ("true", ""),
}

#: Columns of records, as placeholders: a column that is added to RECORD goes through every view of records.
_COLUMNS = {
    "key": KEY,
    "verdicts": [name for name in RECORD.names if name not in (*KEY, *ANSWERS)],
    "answers": ANSWERS,
    "of_cell": OF_CELL,
}


@dataclass(frozen=True)
class ViewFiles:
    """Which objects of a lake the views read, by their names in it."""

    #: Table of GLOBS -> its objects. None: all that there are when a query is asked, so that new shards are seen.
    listed: dict[str, list[str]] | None = None
    #: What the newest compaction wrote: table -> objects.
    compacted: dict[str, list[str]] = field(default_factory=dict)
    #: Those of its records that hold nothing but what the matrix shows: no second filter, no repeats.
    primary: frozenset[str] = frozenset()
    #: Those that cannot be read: what they hold counts as not compacted.
    lost: Sequence[str] = ()
    #: Which cells the views show, a key of INCLUDED: imported records are not mixed with collected ones unasked.
    include: str = "all"
    #: The compaction's manifest; '' before the first.
    manifest: str = ""
    #: Tables that the lake lacks, schema file and all: a program wrote it that did not know them. They read as empty.
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Placeholders:
    """The objects as SQL, for the placeholders of the view files."""

    place: str
    files: ViewFiles
    #: An expression in the place of `place`, which is known only when a query is asked.
    place_sql: str | None = None
    #: Paths of the shard files that no compaction holds; None: whichever there are.
    open_shards: list[str] | None = None
    #: Parts of the compaction that hold outdated rows; None: any part may.
    outdated: list[str] | None = None

    def put_into(self, text: str) -> str:
        return re.sub(r"\{([a-z_]+)\}", lambda match: self._values[match[1]], text)

    @cached_property
    def _values(self) -> dict[str, str]:
        parts = self.files.compacted.get("compact/records", [])
        touched = parts if self.outdated is None else [part for part in parts if part in self.outdated]
        clean = [part for part in parts if part not in set(touched)]
        primary = self.files.primary
        values = {
            "lake": self.place_sql or quoted(self.place),
            "shard_names": self._shard_names(),
            "shard_files": self._files("shards"),
            "shards": self._read("shards", self._files("shards"), "filename = true"),
            "lost": ", ".join(quoted(name) for name in self.files.lost) or "''",
            "primary_records": self._parts("compact/records", [p for p in clean if p in primary]),
            "mixed_records": self._parts("compact/records", [p for p in clean if p not in primary]),
            "outdated_records": self._parts("compact/records", touched),
            "responses": self._parts("compact/responses"),
            "older": self._parts("compact/older"),
            "folded": self._parts("compact/folded"),
            "included": INCLUDED[self.files.include][0],
        }
        values |= {name: ", ".join(columns) for name, columns in _COLUMNS.items()}
        values |= {table: self._read(table, self._files(table)) for table in GLOBS if table != "shards"}
        return values

    def _read(self, table: str, files: str, *options: str) -> str:
        """The relation of a table's `files`, an SQL list: all columns of its schema, whatever version wrote a file.

        A column that a file lacks is null, but in columns that never are null, that is an error: the file is foreign.
        The view _stored checks shards itself, and a compaction what it writes.
        """
        schema = TABLES[table]
        if table in self.files.absent and not self._has_files(table):
            return no_rows(schema if not options else schema.append(pa.field("filename", pa.string())))
        if not self.place_sql:  # the files of a published version are all of the version that made its views
            options = (*options, f"schema = {parquet_schema(schema)}")
        rows = f"read_parquet({files}, {', '.join(('hive_partitioning = false', *options))})"
        if self.place_sql or table == "shards" or table.startswith("compact/"):
            return rows
        lacks = " OR ".join(f"{field.name} IS NULL" for field in schema if not field.nullable)
        message = quoted(f"a file of {table}/ lacks a column that every row has")
        return f"(FROM {rows} WHERE CASE WHEN {lacks} THEN error({message}) ELSE true END)"

    def _has_files(self, table: str) -> bool:
        files = self.files.compacted if table.startswith("compact/") else self.files.listed or {}
        return bool(files.get(table))

    def _parts(self, table: str, names: Sequence[str] | None = None) -> str:
        return self._read(table, self._list(table, self.files.compacted.get(table, []) if names is None else names))

    def _files(self, table: str) -> str:
        """The files of a table that is not a compaction's, as an SQL list."""
        listed = self.files.listed
        if listed is None:
            return self._globbed(table, self._shards_pattern() if table == "shards" else GLOBS[table])
        if table != "shards":
            return self._list(table, listed[table])
        # Which are open is not known while the views of OWNERSHIP are made: these ask for no file.
        return self._list(table, [path[len(self.place) + 1 :] for path in self.open_shards or ()])

    def _shard_names(self) -> str:
        if self.files.listed is None:
            shards = f"glob({quoted(literal_path(self.place) + '/' + self._shards_pattern())})"
            return f"(SELECT file FROM {shards} WHERE {self._is_newest()})"
        return "(SELECT '' AS file WHERE false)" if self.place_sql else "_listed"

    def _is_newest(self) -> str:
        """True, or an error: a later compaction's shards may be gone, and would count as missing."""
        manifests = f"glob({quoted(literal_path(self.place) + '/compact/*/manifest.json')})"
        mine = f"{self.place}/{self.files.manifest}" if self.files.manifest else ""
        message = "the lake was compacted since these views were made: make them anew with matrix.py"
        newest = f"SELECT coalesce(max(file), '') FROM {manifests}"
        return f"CASE WHEN ({newest}) > {quoted(mine)} THEN error({quoted(message)}) ELSE true END"

    def _shards_pattern(self) -> str:
        return GLOBS["shards"].replace("/*.", f"/{INCLUDED[self.files.include][1]}*.")

    def _list(self, table: str, names: Iterable[str]) -> str:
        # DuckDB takes all files for as large as the first, and joins in the wrong order where that one is empty. Parts
        # are what we wrote; elsewhere the schema file comes first, so that a foreign file is what does not fit it.
        schema = [] if table in self.files.absent else [SCHEMA_FILES[table]]
        files = (*names, *schema) if table.startswith("compact/") else (*schema, *names)
        if self.place_sql:
            return f"[{', '.join(f'{self.place_sql} || ' + quoted_path('/' + name) for name in files)}]"
        return f"[{', '.join(quoted_path(f'{self.place}/{name}') for name in files)}]"

    def _globbed(self, table: str, pattern: str) -> str:
        place = literal_path(self.place)
        return f"[{quoted(f'{place}/{SCHEMA_FILES[table]}')}, {quoted(f'{place}/{pattern}')}]"


def lake_place(lake_uri: str) -> str:
    """`lake_uri` as it stands in front of the names of its objects: a folder's absolute path, or the URI."""
    if "://" in lake_uri:
        return lake_uri.rstrip("/")
    path = os.path.abspath(lake_uri)
    if "\\" in path:
        raise StorageError(f"{path}: DuckDB takes a backslash for a folder separator; move the lake to another path")
    return path


def object_path(lake_uri: str, name: str) -> str:
    """The path of a lake's object, as DuckDB's readers take it."""
    return literal_path(f"{lake_place(lake_uri)}/{name}")
