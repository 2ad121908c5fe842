"""Replaces the placeholders of views by SQL that reads objects of a lake.

Owns the placeholders. Knows nothing of how a lake is listed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from schemas.failures import StorageError
from schemas.identity import IMPORTED
from schemas.records import ANSWERS, GLOBS, KEY, OF_CELL, RECORD, SCHEMA_FILES, TABLES
from schemas.sql import literal_path, no_rows, parquet_schema, quoted, quoted_path

#: Kind of cells -> the condition on their rows in runs/, and the first letters of their shards' names. The 's' is for
#: the schema file, because DuckDB refuses a pattern that matches no file.
INCLUDED = {
    "collected": ("imported_from IS NULL", "[0-9a-fs]"),
    "imported": ("imported_from IS NOT NULL", f"[{IMPORTED}s]"),
    "all": ("true", ""),
}

#: Placeholder -> columns of records: a new column of RECORD thus reaches every view of records.
_COLUMNS = {
    "key": KEY,
    "judged": [name for name in RECORD.names if name not in (*KEY, *ANSWERS)],
    "answers": ANSWERS,
    "of_cell": OF_CELL,
}

#: Variable of a connection with the paths of the files of records that its queries read; null: all that there are.
KEPT_PARTS = "kept_parts"
#: The function by which narrowable views read these, as a plan spells it. It is read_parquet by another name, so that a
#: plan tells their scans from all others.
PART_SCAN = "PARQUET_SCAN"
#: The tables of these files.
NARROWABLE = ("compact/records", "compact/responses", "compact/older")
_IS_KEPT = f"coalesce(list_contains(CAST(getvariable('{KEPT_PARTS}') AS VARCHAR[]), file), true)"

#: The view that gives outcomes to rows of schema 6.
RULED_ROWS = "_ruled_rows"
#: Columns of cells that the rules of schemas.verdicts need for rows without an outcome, with their types.
_OF_OLDER_ROWS = {
    "is_set_level": "BOOLEAN",
    "older_set_level": "BOOLEAN",
    "higher_is_better": "BOOLEAN",
    "correct_threshold": "DOUBLE",
}


#: The rows of the matrix by the verdicts of the chosen judge. Answers and their costs stay.
_SHOWN = """(
    SELECT
        ruled.* REPLACE (
            coalesce(_shown_judges.metric, ruled.metric) AS metric,
            shown.score AS score,
            shown.correct AS correct,
            coalesce(shown.outcome, 'judge') AS outcome,
            'judged' AS stored_outcome,
            CASE WHEN shown.outcome IS NULL THEN 'not_judged' ELSE shown.failure END AS failure
        )
    FROM ruled
    LEFT JOIN _shown_judges USING (task)
    LEFT JOIN _shown_verdicts AS shown USING (cell_id, generation, item)
)"""
#: The view _forecast_basis without rows: it reads all records, which a lake without a forecast need not.
_NO_BASIS = """(
    SELECT
        NULL::VARCHAR AS task,
        NULL::VARCHAR AS items_digest,
        NULL::VARCHAR AS prompting,
        NULL::VARCHAR AS metric,
        NULL::VARCHAR AS basis
    WHERE false
)"""
#: The cells with the metric of the chosen judge in place of their own.
_JUDGED_CELLS = """(
    SELECT
        cells.* REPLACE (
            coalesce(shown.metric, cells.metric) AS metric,
            coalesce(shown.aggregation, cells.aggregation) AS aggregation,
            coalesce(shown.higher_is_better, cells.higher_is_better) AS higher_is_better,
            CASE WHEN shown.metric IS NULL THEN cells.correct_threshold ELSE shown.correct_threshold END
                AS correct_threshold
        )
    FROM _run_cells AS cells
    LEFT JOIN _shown_judges AS shown USING (task)
)"""


@dataclass(frozen=True)
class ViewFiles:
    """The objects of a lake that the views read, by name."""

    #: Table of GLOBS -> its objects. None: a query reads all objects that exist when it runs, new shards too.
    listed: dict[str, list[str]] | None = None
    #: Table of a compaction -> objects of the newest one.
    compacted: dict[str, list[str]] = field(default_factory=dict)
    #: Objects of records without other rows than the matrix's: no second filter, no repeats.
    primary: frozenset[str] = frozenset()
    #: Objects that cannot be read: their rows count as not compacted.
    lost: Sequence[str] = ()
    #: The kind of cells that the views show, a key of INCLUDED. Imported and collected records mix only on request.
    include: str = "all"
    #: The compaction's manifest; '' before the first.
    manifest: str = ""
    #: Tables that the lake lacks, with their schema files, because an older program wrote it. They read as empty.
    absent: frozenset[str] = frozenset()
    #: Whether files may lack columns of today's schemas: null is read in their place, and binding a view costs twice as
    #: much. Otherwise DuckDB takes the columns of the lake's schema files, and a file that lacks one is an error.
    filled: bool = False
    #: Whether the compaction has parts of schema 6, whose rows have no outcome.
    has_older_parts: bool = False
    #: Object of records whose items all have a score -> items of each of its cells.
    whole: Mapping[str, int] = field(default_factory=dict)
    #: Name or id of the judge whose verdicts the matrix shows; None: the tasks' own, in records.
    judge: str | None = None
    #: Whether the lake holds so little that to bind a view costs more than its rows.
    small: bool = False
    #: Whether each query may be asked of some files of the compaction alone: of those in the variable KEPT_PARTS.
    narrowable: bool = False

    @property
    def has_older_rows(self) -> bool:
        """Whether rows may lack an outcome."""
        return self.filled or self.has_older_parts


@dataclass(frozen=True)
class Placeholders:
    """SQL for the placeholders of the view files."""

    place: str
    files: ViewFiles
    #: An SQL expression for `place`, which each query evaluates.
    place_sql: str | None = None
    #: Paths of the shard files that no compaction holds; None: all that exist.
    open_shards: list[str] | None = None
    #: Parts of the compaction with outdated rows; None: any part may have some.
    outdated: list[str] | None = None
    #: Tables whose rows the database itself holds (kept_table).
    kept: frozenset[str] = frozenset()

    def put_into(self, text: str) -> str:
        return re.sub(r"\{([a-z_]+)\}", lambda match: self._values[match[1]], text)

    def rows_of(self, table: str) -> str:
        """The relation of all rows of a table."""
        return self._parts(table) if table.startswith("compact/") else self._read(table, self._files(table))

    def rows_of_shards(self, paths: Iterable[str]) -> str:
        """The relation of all rows of these shard files, with their paths."""
        names = [path[len(self.place) + 1 :] for path in paths]
        return self._read("shards", self._list("shards", names), "filename = true")

    @cached_property
    def _values(self) -> dict[str, str]:
        parts = self.files.compacted.get("compact/records", [])
        outdated = set(parts if self.outdated is None else self.outdated)
        touched = [part for part in parts if part in outdated]
        clean = [part for part in parts if part not in outdated]
        primary = self.files.primary
        values = {
            "lake": self.place_sql or quoted(self.place),
            "shard_names": self._shard_names(),
            "shard_metadata": self._shard_metadata(),
            "shards": self._read("shards", self._files("shards"), "filename = true"),
            "lost": ", ".join(quoted(name) for name in self.files.lost) or "''",
            "primary_records": self._parts("compact/records", [p for p in clean if p in primary]),
            "mixed_records": self._parts("compact/records", [p for p in clean if p not in primary]),
            "outdated_records": self._parts("compact/records", touched),
            "responses": self._parts("compact/responses"),
            "older": self._parts("compact/older"),
            "folded": self._parts("compact/folded"),
            "included": INCLUDED[self.files.include][0],
            "include": quoted(self.files.include),
            "whole_parts": _whole_parts({} if self.files.judge else self.files.whole),
            "judge": quoted(self.files.judge) if self.files.judge else "NULL::VARCHAR",
            "shown": _SHOWN if self.files.judge else "ruled",
            "run_cells": _JUDGED_CELLS if self.files.judge else "_run_cells",
            "basis_of_fits": "_forecast_basis" if self._may_have_fits else _NO_BASIS,
            "of_shown_judge": "IN (SELECT judge_id FROM _shown_judges)" if self.files.judge else "IS NULL",
        }
        if "compact/records" in self.kept:
            none = no_rows(TABLES["compact/records"])
            values |= {
                "primary_records": none,
                "outdated_records": none,
                "mixed_records": kept_table("compact/records"),
            }
        # Metrics are read, and cells are joined, only where rows may have no outcome: they are large and slow.
        older = self.files.has_older_parts
        values["rows"] = RULED_ROWS if self.files.has_older_rows else "_rows"
        values["open_metrics"] = "metrics" if self.files.filled else "NULL"
        values["folded_metrics"] = "_folded_verdicts.metrics" if older else "NULL"
        values["folded_cells"] = "\n    INNER JOIN cells ON _folded_verdicts.cell_id = cells.cell_id" if older else ""
        for name, unread in _OF_OLDER_ROWS.items():
            values[f"folded_{name}"] = f"cells.{name}" if older else f"NULL::{unread}"
        values |= {name: ", ".join(columns) for name, columns in _COLUMNS.items()}
        values |= {table: self._read(table, self._files(table)) for table in GLOBS if table != "shards"}
        return values

    @property
    def _may_have_fits(self) -> bool:
        """Whether a forecast is there, or may come: a database file is the same with and without one."""
        listed = self.files.listed
        return listed is None or self.place_sql is not None or bool(listed["forecast_fits"])

    def _read(self, table: str, files: str, *options: str) -> str:
        """Returns the relation of a table's `files`, an SQL list.

        Where columns are filled with null, a null in a column that is never null is an error: the file is foreign. The
        view _stored checks shards itself, and a compaction checks its output.
        """
        schema = TABLES[table]
        if table in self.kept:
            return kept_table(table)
        if table in self.files.absent and (files == "[]" or not self._has_files(table)):
            return no_rows(schema if not options else schema.append(pa.field("filename", pa.string())))
        if self.files.filled:
            options = (*options, f"schema = {parquet_schema(schema)}")
        reader = "read_parquet"
        if self.files.narrowable and table in NARROWABLE and files != self._list(table, []):
            reader, files = PART_SCAN.lower(), f"list_filter({files}, lambda file: {_IS_KEPT})"
        rows = f"{reader}({files}, {', '.join(('hive_partitioning = false', *options))})"
        if not self.files.filled or table == "shards" or table.startswith("compact/"):
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
        """Returns the files of a table outside compactions, as an SQL list."""
        listed = self.files.listed
        if listed is None:
            return self._globbed(table, self._shards_pattern() if table == "shards" else GLOBS[table])
        if table != "shards":
            return self._list(table, listed[table])
        # The views of OWNERSHIP choose the open shards. They are made before this is known, and read none.
        return self._list(table, [path[len(self.place) + 1 :] for path in self.open_shards or ()])

    def _shard_metadata(self) -> str:
        files = self._files("shards")
        none = "(SELECT NULL::VARCHAR AS file_name, NULL::BLOB AS key, NULL::BLOB AS value WHERE false)"
        return none if files == "[]" else f"parquet_kv_metadata({files})"

    def _shard_names(self) -> str:
        if self.files.listed is None:
            shards = f"glob({quoted(literal_path(self.place) + '/' + self._shards_pattern())})"
            return f"(SELECT file FROM {shards} WHERE {self._is_newest()})"
        return "(SELECT '' AS file WHERE false)" if self.place_sql else "_listed"

    def _is_newest(self) -> str:
        """Returns SQL that is true or an error: shards of a later compaction may be deleted, and would seem missing."""
        manifests = f"glob({quoted(literal_path(self.place) + '/compact/*/manifest.json')})"
        mine = f"{self.place}/{self.files.manifest}" if self.files.manifest else ""
        message = "the lake was compacted since these views were made: make them anew with matrix.py"
        newest = f"SELECT coalesce(max(file), '') FROM {manifests}"
        return f"CASE WHEN ({newest}) > {quoted(mine)} THEN error({quoted(message)}) ELSE true END"

    def _shards_pattern(self) -> str:
        return GLOBS["shards"].replace("/*.", f"/{INCLUDED[self.files.include][1]}*.")

    def _list(self, table: str, names: Iterable[str]) -> str:
        # DuckDB assumes that all files are as large as the first, and joins in the wrong order if that one is empty.
        # Elsewhere the schema file comes first, so that a foreign file is the one that does not fit.
        schema = [] if table in self.files.absent else [SCHEMA_FILES[table]]
        files = (*names, *schema) if table.startswith("compact/") else (*schema, *names)
        if self.place_sql:
            return f"[{', '.join(f'{self.place_sql} || ' + quoted_path('/' + name) for name in files)}]"
        return f"[{', '.join(quoted_path(f'{self.place}/{name}') for name in files)}]"

    def _globbed(self, table: str, pattern: str) -> str:
        place = literal_path(self.place)
        return f"[{quoted(f'{place}/{SCHEMA_FILES[table]}')}, {quoted(f'{place}/{pattern}')}]"


def kept_table(table: str) -> str:
    """The table of a database file with the rows of a lake's table."""
    return f"_file_{table.replace('/', '_')}"


def _whole_parts(whole: Mapping[str, int]) -> str:
    if not whole:
        return "(SELECT '' AS part, 0 AS scored WHERE false)"
    names = ", ".join(map(quoted, whole))
    return f"(SELECT unnest([{names}]) AS part, unnest({list(whole.values())}) AS scored)"


def lake_place(lake_uri: str) -> str:
    """Returns the prefix of the lake's objects: the absolute path of a folder, or the URI."""
    if "://" in lake_uri:
        return lake_uri.rstrip("/")
    path = os.path.abspath(lake_uri)
    if "\\" in path:
        raise StorageError(f"{path}: DuckDB takes a backslash for a folder separator; move the lake to another path")
    return path


def object_path(lake_uri: str, name: str) -> str:
    """Returns the path of a lake's object for DuckDB's file readers."""
    return literal_path(f"{lake_place(lake_uri)}/{name}")
