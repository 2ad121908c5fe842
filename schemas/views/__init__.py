"""The DuckDB views over a lake: the public contract of what can be asked of it.

Owns the numbered .sql files beside it, each with a comment that says what a row is, and how a lake's place and files
get into them. Views and macros whose names start with an underscore are steps of the others and may change. Knows
nothing of who writes a lake, and needs of one only that each table of `schemas.records.TABLES` has its schema file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources

import duckdb
import pyarrow as pa

from schemas.columns import column_docs
from schemas.failures import StorageError
from schemas.identity import IMPORTED
from schemas.records import SCHEMA_FILES

#: Where the files of a table are that are read as they come.
GLOBS = {
    "shards": "shards/*/*.parquet",
    "items": "items/*/*.parquet",
    "models": "models/*.parquet",
    "runs": "runs/*.parquet",
    "run_ends": "run_ends/*.parquet",
    "failures": "failures/*.parquet",
    "imports": "imports/*.parquet",
    "rejects": "rejects/*.parquet",
    "suspicions": "suspicions/*.parquet",
    "prices": "prices/*.parquet",
    "gpu_prices": "gpu_prices/*.parquet",
    "price_names": "price_names/*.parquet",
}

#: Which file owns what: said by names alone.
OWNERSHIP = ("_folded", "_shard_files", "_superseded", "_outdated")
#: That, and what the cells are: small, and asked by every query over records, so kept as tables where files are listed.
KEPT = (*OWNERSHIP, "_cell_facts")

#: Which cells views can show -> what is true of their rows in runs/, and how the names of their shards begin: with 's'
#: that of the schema file, because DuckDB refuses a pattern that fits none.
INCLUDED = {
    "collected": ("imported_from IS NULL", "[0-9a-fs]"),
    "imported": ("imported_from IS NOT NULL", f"[{IMPORTED}s]"),
    "all": ("true", ""),
}

_GLOB = re.compile(r"[*?\[]")


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


def create_views(
    con: duckdb.DuckDBPyConnection,
    lake_uri: str,
    files: ViewFiles | None = None,
    *,
    cells: pa.Table | None = None,
    only: Collection[str] | None = None,
    comments: bool = True,
) -> None:
    """Create all views over the lake at `lake_uri`, a folder or a URI that `con` can read, in the open database.

    A folder's absolute path goes into the views, so that a database file works from any working directory. `cells`:
    rows of the view of that name, for a caller who knows them: asking 100,000 takes half a second. `only`: names of the
    views to create, each with what it builds on (see `named_in`); one over 100,000 shard files takes a second. Raises
    StorageError at a path that DuckDB cannot glob, duckdb.Error where no lake is.
    """
    files = files or ViewFiles()
    names = _Names(lake_place(lake_uri), files)
    if files.listed is not None:  # as a parameter: a hundred thousand names in a statement take seconds
        paths = [f"{names.place}/{name}" for name in files.listed["shards"]]
        con.execute("CREATE TABLE _listed AS SELECT unnest($paths::VARCHAR[]) AS file", {"paths": paths})
    for text in view_files().values():
        kind, view = _made_by(text)
        if only is not None and kind == "view" and view not in only:
            continue
        if view in KEPT and files.listed is not None:
            text = text.replace("CREATE VIEW", "CREATE TABLE")  # what is listed does not change
        if view == "_cell_facts" and cells is not None:
            con.register("known_cells", cells)
            text = "CREATE TABLE _cell_facts AS FROM known_cells"
        con.execute(names.put_into(text))
        if view == "_outdated" and files.listed is not None:
            names = _choose(con, names)
    if comments:
        write_comments(con)


def write_comments(con: duckdb.DuckDBPyConnection) -> None:
    """Puts into the database what its views and their columns mean."""
    for target, comment in list(_comments(con)):
        con.execute(f"COMMENT ON {target} IS {_quoted(comment)}")


def _choose(con: duckdb.DuckDBPyConnection, names: _Names) -> _Names:
    """The files to read, now that it is known which hold what."""
    open_shards = con.execute("SELECT file FROM _shard_files WHERE NOT is_folded").fetchall()
    outdated = con.execute("SELECT DISTINCT part FROM _outdated").fetchall()
    return replace(names, open_shards=[file for (file,) in open_shards], outdated=[part for (part,) in outdated])


def relocatable_views(files: ViewFiles) -> list[str]:
    """Statements that create the views over `files` beside the database that they are put into, wherever that is.

    They read from the working directory, or from what the variable `snapshot` names:
    SET VARIABLE snapshot = 's3://bucket/version'.
    """
    names = _Names("", files, place_sql="coalesce(getvariable('snapshot'), '.')", open_shards=[], outdated=[])
    return [names.put_into(text) for text in view_files().values()]


@dataclass(frozen=True)
class _Names:
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
        values = {
            "lake": self.place_sql or _quoted(self.place),
            "shard_names": self._shard_names(),
            "lost": ", ".join(_quoted(name) for name in self.files.lost) or "''",
            "primary_records": self._list("compact/records", [p for p in clean if p in self.files.primary]),
            "mixed_records": self._list("compact/records", [p for p in clean if p not in self.files.primary]),
            "outdated_records": self._list("compact/records", touched),
            "responses": self._list("compact/responses", self.files.compacted.get("compact/responses", [])),
            "older": self._list("compact/older", self.files.compacted.get("compact/older", [])),
            "folded": self._list("compact/folded", self.files.compacted.get("compact/folded", [])),
            "included": INCLUDED[self.files.include][0],
        }
        listed = self.files.listed
        for table, pattern in GLOBS.items():
            if listed is None:
                values[table] = self._globbed(table, self._shards_pattern() if table == "shards" else pattern)
            elif table != "shards":
                values[table] = self._list(table, listed[table])
            else:  # which are open is not known while the views of OWNERSHIP are made: these ask for no file
                values[table] = self._list(table, [path[len(self.place) + 1 :] for path in self.open_shards or ()])
        return values

    def _shard_names(self) -> str:
        if self.files.listed is None:
            shards = f"glob({_quoted(_escaped(self.place) + '/' + self._shards_pattern())})"
            return f"(SELECT file FROM {shards} WHERE {self._is_newest()})"
        return "(SELECT '' AS file WHERE false)" if self.place_sql else "_listed"

    def _is_newest(self) -> str:
        """True, or an error: a later compaction's shards may be gone, and would be told to be missing."""
        manifests = f"glob({_quoted(_escaped(self.place) + '/compact/*/manifest.json')})"
        mine = f"{self.place}/{self.files.manifest}" if self.files.manifest else ""
        said = "the lake was compacted since these views were made: make them anew with matrix.py"
        newest = f"SELECT coalesce(max(file), '') FROM {manifests}"
        return f"CASE WHEN ({newest}) > {_quoted(mine)} THEN error({_quoted(said)}) ELSE true END"

    def _shards_pattern(self) -> str:
        return GLOBS["shards"].replace("/*.", f"/{INCLUDED[self.files.include][1]}*.")

    def _list(self, table: str, names: Sequence[str]) -> str:
        # DuckDB takes all files for as large as the first, and joins in the wrong order where that one is empty. Parts
        # are what we wrote; elsewhere the schema file comes first, so that a foreign file is what does not fit it.
        schema = SCHEMA_FILES[table]
        files = (*names, schema) if table.startswith("compact/") else (schema, *names)
        if self.place_sql:
            return f"[{', '.join(f'{self.place_sql} || ' + _quoted('/' + _escaped(name)) for name in files)}]"
        return f"[{', '.join(_quoted(_escaped(f'{self.place}/{name}')) for name in files)}]"

    def _globbed(self, table: str, pattern: str) -> str:
        place = _escaped(self.place)
        return f"[{_quoted(f'{place}/{SCHEMA_FILES[table]}')}, {_quoted(f'{place}/{pattern}')}]"


def _comments(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str]]:
    """What can be said of each view and its columns: the head of its file, and schemas.columns."""
    views = {name for (name,) in con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()}
    # Not DESCRIBE: it binds each view anew, a quarter of a second for all.
    columns: dict[str, list[str]] = {}
    query = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
    for view, column in con.execute(query).fetchall():
        columns.setdefault(view, []).append(column)
    for sql in view_files().values():
        head, view = sql.partition("CREATE ")[0], _made_by(sql)[1]
        if view not in views:
            continue
        yield f"VIEW {view}", " ".join(line.removeprefix("--").strip() for line in head.splitlines())
        if view.startswith("_"):
            continue
        docs = column_docs(view)
        for column in columns[view]:
            if column in docs:
                yield f"COLUMN {view}.{column}", docs[column]


def view_files() -> dict[str, str]:
    """File name -> text of the views, in build order."""
    files = [file for file in resources.files(__name__).iterdir() if file.name.endswith(".sql")]
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name)}


def named_in(sql: str) -> set[str]:
    """Views that a query names, and all that they are built on: for `only` of create_views."""
    words, found = set(re.findall(r"\w+", sql)), set()
    for text in reversed(view_files().values()):  # what a view is built on comes before it
        if (name := _made_by(text)[1]) in words:
            found.add(name)
            words |= set(re.findall(r"(?:FROM|JOIN)\s+(\w+)", text))
            if re.search(r"\{(shards|\w+_records)\}", text):
                words |= set(OWNERSHIP)  # they choose the files
    return found


def contents() -> set[tuple[str, str]]:
    """What create_views may leave in a database: pairs of 'view', 'table' or 'macro' and a name."""
    return {_made_by(text) for text in view_files().values()} | {("table", n) for n in ("_listed", *KEPT)}


def _made_by(sql: str) -> tuple[str, str]:
    """What a file makes: 'view' or 'macro', and its name."""
    kind, name = sql.partition("CREATE ")[2].split()[:2]
    return kind.lower(), name.partition("(")[0]


def lake_place(lake_uri: str) -> str:
    """`lake_uri` as it stands in front of the names of its objects: a folder's absolute path, or the URI."""
    if "://" in lake_uri:
        return lake_uri.rstrip("/")
    path = os.path.abspath(lake_uri)
    if "\\" in path:
        raise StorageError(f"{path}: DuckDB takes a backslash for a folder separator; move the lake to another path")
    return path


def object_path(lake_uri: str, name: str) -> str:
    """Where an object of a lake is, as DuckDB's readers take it."""
    return _escaped(f"{lake_place(lake_uri)}/{name}")


def _escaped(path: str) -> str:
    """`path` with its glob characters made literal."""
    return _GLOB.sub(lambda match: f"[{match[0]}]", path)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
