"""Python's values as DuckDB's SQL."""

from __future__ import annotations

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from schemas.sql import quoted, text_rows

LINES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(LINES))
def test_text_rows_are_the_texts_in_their_order(texts: list[str]) -> None:
    found = duckdb.execute(f"SELECT place, text FROM {text_rows(texts)} ORDER BY place").fetchall()
    assert found == list(enumerate(texts))


def test_quoted_text_with_nul_and_quotes_is_the_text_itself() -> None:
    for text in ("\0", "a\0b", "'\0'", "it's", "\0\0x'"):
        assert duckdb.execute(f"SELECT {quoted(text)}").fetchall() == [(text,)]
