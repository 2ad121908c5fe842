"""Tokens of the texts that a lake holds, by one tokenizer for all models, as RouterBench counts them.

Owns which texts are counted and how they are read. The engine's own counts are in the records and stay the ones that
costs rest on: these say what the same texts are by another rule. Knows no tokenizer but by what it returns.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.failures import ConfigError, one_line

#: Number of tokens of each text.
Counter = Callable[[Sequence[str]], list[int]]
#: Rows that are counted at a time.
BATCH = 20_000

#: Cells to count, and whether a text of theirs may be a list of texts, written as Python writes one.
_CELLS = """
CREATE OR REPLACE TABLE counted_cells AS
SELECT
    cell_id,
    task,
    items_digest,
    coalesce(
        split_part(imported_from, '#', 1) IN (SELECT imported_from FROM imports WHERE format = 'routerbench'), false
    ) AS has_lists
FROM cells
WHERE $tasks::VARCHAR[] IS NULL OR list_contains($tasks::VARCHAR[], task)
"""
_QUESTIONS = """
SELECT DISTINCT items.task, items.items_digest, items.item, has_lists, [prompt] AS texts
FROM items
INNER JOIN counted_cells ON items.task = counted_cells.task AND items.items_digest = counted_cells.items_digest
WHERE prompt IS NOT NULL
"""
_RESPONSES = """
SELECT responses.cell_id, responses.item, has_lists, responses.responses AS texts
FROM responses
INNER JOIN counted_cells ON responses.cell_id = counted_cells.cell_id
WHERE responses.repeat = 0 AND responses.responses IS NOT NULL
"""
_COUNTS = """
SELECT
    matrix.cell_id,
    matrix.task,
    matrix.model,
    matrix.item,
    $tokenizer AS tokenizer,
    questions.tokens AS question_tokens,
    answers.tokens AS response_tokens
FROM matrix
INNER JOIN counted_cells ON matrix.cell_id = counted_cells.cell_id
LEFT JOIN counted_questions AS questions
    ON questions.task = matrix.task
    AND questions.items_digest = matrix.items_digest
    AND questions.item = matrix.item
    AND questions.has_lists = counted_cells.has_lists
LEFT JOIN counted_responses AS answers ON answers.cell_id = matrix.cell_id AND answers.item = matrix.item
ORDER BY matrix.task, matrix.cell_id, matrix.item
"""


def encoding_counter(name: str) -> Counter:
    """tiktoken's encoding of that name; special tokens in a text are text. Raises ConfigError where there is none."""
    import tiktoken  # not needed elsewhere

    if name not in tiktoken.list_encoding_names():
        raise ConfigError(f"no tokenizer {name!r}: tiktoken has {', '.join(tiktoken.list_encoding_names())}")
    try:
        encoding = tiktoken.get_encoding(name)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        raise ConfigError(
            f"tiktoken cannot fetch {name}: let TIKTOKEN_CACHE_DIR name a folder that holds it ({one_line(error, 160)})"
        ) from error
    return lambda texts: [len(tokens) for tokens in encoding.encode_ordinary_batch(list(texts))]


def write_counts(
    con: duckdb.DuckDBPyConnection, counter: Counter, tokenizer: str, out: Path, tasks: Sequence[str] | None = None
) -> tuple[int, int, int]:
    """Writes a row of counts for each row of the matrix; returns rows, and how many questions and responses are known.

    `con`: views of a lake. Columns: cell_id, task, model, item, tokenizer, question_tokens (the item's text as the lake
    holds it: RouterBench's whole prompt, but of a collected task what is asked without description, few-shot examples
    and chat template), response_tokens (all texts that the model wrote). Null: no such text is kept.
    """
    con.execute(_CELLS, {"tasks": None if tasks is None else list(tasks)})
    _count(con, counter, "counted_questions", _QUESTIONS)
    _count(con, counter, "counted_responses", _RESPONSES)
    found = con.execute(_COUNTS, {"tokenizer": tokenizer}).to_arrow_table()
    pq.write_table(found, out)
    known = [len(found) - found[name].null_count for name in ("question_tokens", "response_tokens")]
    return len(found), known[0], known[1]


def _count(con: duckdb.DuckDBPyConnection, counter: Counter, name: str, query: str) -> None:
    """Makes a table of the query's rows with `tokens` in the place of their `texts`."""
    columns = "* EXCLUDE (texts), 0::BIGINT AS tokens"
    con.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT {columns} FROM ({query}) LIMIT 0")
    with con.cursor() as reading:
        for batch in reading.execute(query).to_arrow_reader(BATCH):
            tokens = tokens_of(batch["texts"].to_pylist(), batch["has_lists"].to_pylist(), counter)
            rows = pa.Table.from_batches([batch]).drop_columns(["texts"]).append_column("tokens", pa.array(tokens))
            con.register("counted_batch", rows)
            con.execute(f"INSERT INTO {name} FROM counted_batch")
            con.unregister("counted_batch")


def tokens_of(rows: Sequence[Sequence[str]], has_lists: Sequence[bool], counter: Counter) -> list[int]:
    """Tokens of all texts of each row; where it may have lists, of a list's elements.

    Source: tokencost.count_string_tokens as routers/common.py of withmartian/routerbench calls it: a text that begins
    and ends with square brackets is a Python list, and its elements are counted. One that is no list of texts is text.
    """
    texts = [
        [part for text in row for part in (_parts(text) if lists else [text])]
        for row, lists in zip(rows, has_lists, strict=True)
    ]
    counts = iter(counter([part for row in texts for part in row]))
    return [sum(next(counts) for _ in row) for row in texts]


def _parts(text: str) -> list[str]:
    if not (text.startswith("[") and text.endswith("]")):
        return [text]
    try:
        parts = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return [text]
    return parts if all(isinstance(part, str) for part in parts) else [text]
