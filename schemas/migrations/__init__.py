"""Migrates record tables: each migration is a function from rows of one schema version to rows of the next.

An added column needs none: in older files it is read as null. A column with a new name, type or meaning needs a
migration. compact.py applies it while it writes a new compaction, so that nothing in a lake is rewritten in place.
Until then other commands refuse the lake. Only records can be migrated: items and the small tables (models, runs,
prices, …) may only gain columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from schemas.records import SCHEMA_VERSION


@dataclass(frozen=True)
class Migration:
    """The step from the version before to the one that it is registered for."""

    #: One line: the change, and why an added column would not suffice.
    reason: str
    #: (table of schemas.records.TABLES, rows of the version before) -> rows of this version.
    migrate: Callable[[str, pa.Table], pa.Table]


#: Schema version -> the migration that leads to it. Version 6 is the first, so there is none yet.
MIGRATIONS: dict[int, Migration] = {}


def first_readable() -> int:
    """Returns the oldest version of records that the views read without a migration."""
    return max(MIGRATIONS, default=0)


def migrated(table: str, rows: pa.Table, version: int) -> pa.Table:
    """Migrates rows of a record table from `version` through all later migrations."""
    for step in range(version + 1, SCHEMA_VERSION + 1):
        if step in MIGRATIONS:
            rows = MIGRATIONS[step].migrate(table, rows)
    return rows
