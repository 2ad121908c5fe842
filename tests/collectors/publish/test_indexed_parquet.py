"""Parquet with an index of pages: the rows of the query, the same bytes each time, small pages and groups."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from collectors.publish import indexed_parquet
from collectors.publish.indexed_parquet import write_indexed
from schemas.records import SCHEMA_VERSION
from schemas.versions import stated_version

_ROWS = """
SELECT (i // 50)::INTEGER AS item, i % 50 AS place, hash(i) / 1e18 AS latency_s, NULL::DOUBLE AS stated_usd,
    [repeat(md5(i::VARCHAR), 8), NULL] AS responses
FROM range(30000) AS r(i) ORDER BY item, place
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    with duckdb.connect(config={"threads": 2}) as con:
        assert write_indexed(con, _ROWS, tmp_path / "a.parquet") == 30_000
    return tmp_path / "a.parquet"


def test_indexed_file_holds_the_rows_and_an_index_of_small_pages(written: Path) -> None:
    with duckdb.connect() as con:
        assert con.execute("SELECT count(*) FROM read_parquet(?)", [str(written)]).fetchone() == (30_000,)
        lost = f"SELECT count(*) FROM (({_ROWS}) EXCEPT FROM read_parquet(?))"
        assert con.execute(lost, [str(written)]).fetchone() == (0,)
    metadata = pq.read_metadata(written)
    columns = [metadata.row_group(0).column(n) for n in range(metadata.num_columns)]
    assert all(column.has_offset_index for column in columns)
    assert stated_version(metadata.metadata) == SCHEMA_VERSION
    [texts] = [column for column in columns if column.path_in_schema.startswith("responses")]
    assert texts.total_uncompressed_size > 20 * indexed_parquet._PAGE_BYTES
    assert texts.dictionary_page_offset is None


def test_indexed_file_is_the_same_however_duckdb_hands_out_its_rows(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = written.read_bytes()
    groups = indexed_parquet._groups
    with duckdb.connect(config={"threads": 1}) as con:
        batches = con.execute(_ROWS).to_arrow_reader(2048)
        steps = list(indexed_parquet._steps(batches))
        assert {len(step) for step in steps[:-1]} == {indexed_parquet._STEP}
        write_indexed(con, _ROWS, tmp_path / "b.parquet")
        assert (tmp_path / "b.parquet").read_bytes() == write_bytes
        monkeypatch.setattr(indexed_parquet, "_GROUP_BYTES", steps[0].nbytes * 2)
        assert max(len(group) for group in groups(iter(steps))) == 2 * indexed_parquet._STEP
        assert sum(len(group) for group in groups(iter(steps))) == 30_000


def test_indexed_file_without_rows_has_its_columns(tmp_path: Path) -> None:
    with duckdb.connect() as con:
        assert write_indexed(con, f"SELECT * FROM ({_ROWS}) WHERE false", tmp_path / "none.parquet") == 0
    assert pq.read_schema(tmp_path / "none.parquet").names[0] == "item"
