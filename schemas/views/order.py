"""Reads the .sql files beside this module, and orders them by the views that each one reads.

A file makes one view or macro of its own name. Knows nothing of lakes: placeholders in braces stand for their files.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass
from graphlib import TopologicalSorter
from importlib import resources

#: The views that decide by names which file owns which rows. They choose the files of the placeholders of records.
OWNERSHIP = (
    "_folded",
    "_retracted",
    "_shard_files",
    "_item_sets",
    "_shared_items",
    "_taken",
    "_owned",
    "_superseded",
    "_outdated",
)

#: Steps that choose the pool, each read several times by the next one. They are tables everywhere, because DuckDB binds
#: a view anew wherever it is named: as views they took 27 CPU-seconds on a lake of five cells, and half a second as
#: tables. To read one reads no records. They read the variables pool_cells, pool_same and pool_questions when they are
#: made.
POOL = (
    *("_pool_questions", "_scored", "_pool_choice", "_pool_cells", "_questions_of"),
    *("_ragged", "_left_out", "_members"),
)

#: Steps whose rows are of the pool's cells alone, and the repeats that they join.
POOL_ROWS = ("_pool_rows", "_member_rows", "_repeats")

_CHOSEN_BY_OWNERSHIP = re.compile(r"\{(shards|shard_metadata|\w+_records)\}")
_COMMENT = re.compile(r"--[^\n]*")


@dataclass(frozen=True)
class ViewFile:
    """One .sql file."""

    name: str
    #: 'view' or 'macro'.
    kind: str
    sql: str
    #: Views and macros that must exist first.
    reads: frozenset[str]

    @property
    def as_table(self) -> str:
        """The statement that keeps the view's rows in one order, so that a file of them has the same bytes."""
        return f"CREATE TABLE {self.name} AS\nFROM (\n{self.query}\n) ORDER BY ALL;\n"

    @property
    def as_rows(self) -> str:
        """The statement that keeps the view's rows as they come: to sort 102,000 wide ones takes half a second."""
        return f"CREATE TABLE {self.name} AS\n{self.query};\n"

    @property
    def query(self) -> str:
        """The SELECT of a view."""
        return self.sql.split("CREATE VIEW", 1)[1].split(" AS\n", 1)[1].rstrip().removesuffix(";")

    @property
    def comment(self) -> str:
        """The comment at the head of the file, which defines a row."""
        head = self.sql.partition("CREATE ")[0]
        return " ".join(line.removeprefix("--").strip() for line in head.splitlines())


@functools.cache
def view_files() -> dict[str, ViewFile]:
    """Returns name -> file of every view and macro, each after all that it reads."""
    folder = resources.files(__package__)
    texts = {
        file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    }
    reads = {name: _reads(name, text, texts.keys()) for name, text in sorted(texts.items())}
    order = TopologicalSorter(reads).static_order()
    return {name: ViewFile(name, _kind(texts[name]), texts[name], frozenset(reads[name])) for name in order}


def _reads(name: str, text: str, names: Collection[str]) -> list[str]:
    code = _COMMENT.sub("", text)
    words = set(re.findall(r"\b(?:FROM|JOIN)\s+(\w+)", code)) | set(re.findall(r"\b(\w+)\(", code))
    if _CHOSEN_BY_OWNERSHIP.search(code):
        words |= set(OWNERSHIP)
    if "{shown}" in code:
        words |= {"_shown_judges", "_shown_verdicts"}
    if "{run_cells}" in code:
        words |= {"_run_cells", "_shown_judges"}
    if "{of_shown_judge}" in code:
        words.add("_shown_judges")
    if "{basis_of_fits}" in code:
        words.add("_forecast_basis")
    if "{rows}" in code:
        words |= {"_rows", "_ruled_rows"}
    return sorted(word for word in words & set(names) if word != name)


def _kind(text: str) -> str:
    return text.partition("CREATE ")[2].split()[0].lower()


def with_dependencies(names: Collection[str], given: Collection[str] = ()) -> set[str]:
    """Returns `names` and all views that they read, but nothing that is `given` or only read by it."""
    files, needed = view_files(), set[str]()
    open_names = [name for name in names if name in files]
    while open_names:
        name = open_names.pop()
        if name not in needed and name not in given:
            needed.add(name)
            open_names += files[name].reads
    return needed


def named_in(sql: str) -> set[str]:
    """Returns the views that a query names, whatever the case, and all that they read."""
    words = {word.lower() for word in re.findall(r"\w+", sql)}
    return with_dependencies([name for name in view_files() if name in words])


def reads_pool_alone(query: str) -> bool:
    """Whether all records that a query reads are of cells in _pool_choice: by way of POOL_ROWS."""
    files, words = view_files(), {word.lower() for word in re.findall(r"\w+", query)}
    open_names, seen = [name for name in files if name in words], {*POOL_ROWS}
    if "_repeats" in open_names or views_of(query) is None:
        return False
    while open_names:
        name = open_names.pop()
        if name not in seen:
            seen.add(name)
            if _CHOSEN_BY_OWNERSHIP.search(_COMMENT.sub("", files[name].sql)) or "{responses}" in files[name].sql:
                return False
            open_names += files[name].reads - {*POOL}
    return True


def views_of(query: str) -> set[str] | None:
    """The views that a query names; None, which means all, for a query about the database itself."""
    about_all = r"\b(SHOW|SUMMARIZE|PRAGMA|duckdb_\w+|information_schema|pg_\w+|sqlite_\w+)\b"
    return None if re.search(about_all, query, re.I) else named_in(query)
