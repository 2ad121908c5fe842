"""Changes of the record tables that are not additive, each as a function from rows of one schema version to the next.

A column that is added needs none: older files are read with null in its place. A column that is renamed, retyped or
given another meaning needs a migration. compact.py applies it while it writes a new compaction, so that nothing in a
lake is rewritten in place, and other commands refuse the lake until that was done. Only records are migrated: the
small tables (models, runs, prices, …) and the items change by additions alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from schemas.records import SCHEMA_VERSION


@dataclass(frozen=True)
class Migration:
    #: One line: what changed, and why adding a column would not do.
    reason: str
    #: (table of schemas.records.TABLES, rows of the version before) -> rows of this version.
    migrate: Callable[[str, pa.Table], pa.Table]


#: The schema version that a migration leads to -> the migration. Version 6 is the first, so there is none yet.
MIGRATIONS: dict[int, Migration] = {}


def first_readable() -> int:
    """The oldest version whose records the views read as they are."""
    return max(MIGRATIONS, default=0)


def migrated(table: str, rows: pa.Table, version: int) -> pa.Table:
    """`rows` of a record table that `version` wrote, as rows of the newest migration's version."""
    for step in range(version + 1, SCHEMA_VERSION + 1):
        if step in MIGRATIONS:
            rows = MIGRATIONS[step].migrate(table, rows)
    return rows
