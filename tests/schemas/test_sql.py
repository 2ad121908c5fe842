"""Python's values as DuckDB's SQL."""

from __future__ import annotations

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from schemas.sql import text_rows

LINES = st.text(st.characters(exclude_characters="\n\x00", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(LINES))
def test_text_rows_are_the_texts_in_their_order(texts: list[str]) -> None:
    found = duckdb.execute(f"SELECT place, text FROM {text_rows(texts)} ORDER BY place").fetchall()
    assert found == list(enumerate(texts))
