"""A change of any column or table makes a new schema version."""

from __future__ import annotations

import pyarrow as pa
import pytest

from schemas.failures import ConfigError
from schemas.migrations import MIGRATIONS
from schemas.records import RECORD, SCHEMA_VERSION, TABLES
from schemas.sql import type_name
from schemas.versions import OLDEST_VERSION, check_readable, stated_version, tables_digest, with_columns

#: Schema version -> digest of all tables. A new version adds a line; a line that is here never changes.
DIGESTS = {
    6: "843efe16a76e6150",
    7: "d1b50c36ece5d9e2",
    8: "f25f42afee2d1ed2",
    9: "040b5251aa5675f9",
    10: "65f14a2e591f4fe4",
    11: "6b35a380c409ae5b",
    12: "7fee00af6bf49afd",
    13: "e9186dfcb5656198",
}


def test_tables_are_those_of_their_version() -> None:
    """If this fails, a column or table changed: raise SCHEMA_VERSION, write the reason beside it, add a line here."""
    assert tables_digest(TABLES) == DIGESTS.get(SCHEMA_VERSION)
    assert sorted(DIGESTS) == list(range(OLDEST_VERSION, SCHEMA_VERSION + 1))


@pytest.mark.parametrize(
    "changed",
    [
        RECORD.append(pa.field("more", pa.string())),
        RECORD.set(0, pa.field("cell_id", pa.large_string(), nullable=False)),
        RECORD.set(0, pa.field("cell_id", pa.string(), nullable=True)),
        RECORD.remove(0),
    ],
)
def test_tables_digest_any_change_of_a_column_changes_it(changed: pa.Schema) -> None:
    assert tables_digest({**TABLES, "shards": changed}) != tables_digest(TABLES)


def test_tables_every_type_has_a_name_in_sql() -> None:
    assert all(type_name(field.type) for schema in TABLES.values() for field in schema)


def test_migrations_lead_to_versions_that_there_are() -> None:
    assert all(OLDEST_VERSION < version <= SCHEMA_VERSION and m.reason for version, m in MIGRATIONS.items())


def test_versions_out_of_reach_are_refused_in_one_line() -> None:
    for version in range(OLDEST_VERSION, SCHEMA_VERSION + 1):
        check_readable("the lake", version)
    for version in (None, 0, OLDEST_VERSION - 1, SCHEMA_VERSION + 1):
        with pytest.raises(
            ConfigError, match=f"the lake has schema version {version or 0}, this program reads"
        ) as error:
            check_readable("the lake", version)
        assert "\n" not in str(error.value)


def test_stated_version_reads_metadata_and_refuses_what_is_not_a_number() -> None:
    assert stated_version(None) is None
    assert stated_version({b"other": b"1"}) is None
    assert stated_version({b"routerlake_schema_version": b"6"}) == 6
    with pytest.raises(ValueError, match="x"):
        stated_version({b"routerlake_schema_version": b"x"})


def test_columns_that_an_older_file_lacks_are_null_and_a_foreign_file_is_refused() -> None:
    schema = pa.schema([pa.field("cell", pa.string(), nullable=False), pa.field("count", pa.int32())])
    older = pa.table({"more": [1.5], "cell": ["a"]})
    filled = with_columns(older, schema)
    assert filled.to_pylist() == [{"cell": "a", "count": None}]
    assert filled.schema.types == schema.types
    with pytest.raises(ValueError, match="it lacks column cell"):
        with_columns(older.select(["more"]), schema)
