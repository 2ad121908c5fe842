"""Cuts keys out of the texts of a table before it is stored: a user in an address, a signature, a token.

Owns the choice of tables. Prompts, answers and other content of items stay as they are: they belong to the data.
"""

from __future__ import annotations

import pyarrow as pa

from collectors.lake import layout
from schemas.texts import MAY_HOLD, without_keys


def keyless(name: str, table: pa.Table) -> pa.Table:
    """Returns the rows to store under `name`, with keys cut."""
    return table if layout.holds_content(name) else without_keys_in(table)


def without_keys_in(table: pa.Table) -> pa.Table:
    """Returns `table` with keys cut in all columns of texts."""
    import pyarrow.compute as pc  # 75 ms

    for place, column in enumerate(table.schema):
        if not pa.types.is_string(column.type):
            continue
        distinct = pc.unique(table[place])
        # One pass of RE2 over the distinct texts: few are suspects.
        suspects = distinct.filter(pc.fill_null(pc.match_substring_regex(distinct, MAY_HOLD), False)).to_pylist()
        cut = {text: clean for text in suspects if (clean := without_keys(text)) != text}
        if cut:
            texts = [cut.get(text, text) for text in table[place].to_pylist()]
            table = table.set_column(place, column, pa.chunked_array([pa.array(texts, column.type)]))
    return table
