"""Counts the tokens of a lake's texts with one tokenizer for all models, as RouterBench does.

Owns the choice of texts and their reading. The records keep the engine's own counts, and costs use those; these counts
measure the same texts by another rule. Knows a tokenizer only as a function from texts to numbers.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.failures import ConfigError, one_line

#: Returns the number of tokens of each text.
Counter = Callable[[Sequence[str]], list[int]]
#: Rows in one batch.
BATCH = 20_000
#: The views that `write_counts` reads.
VIEWS = ("cells", "imports", "items", "matrix", "responses")

#: The cells to count. has_lists: a text may be the Python literal of a list of texts.
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
    """A counter with tiktoken's encoding `name`, which reads special tokens in a text as plain text.

    Raises ConfigError if tiktoken does not know the name or cannot download the encoding.
    """
    import tiktoken  # only this command needs it

    if name not in tiktoken.list_encoding_names():
        raise ConfigError(f"no tokenizer {name!r}: tiktoken has {', '.join(tiktoken.list_encoding_names())}")
    try:
        encoding = tiktoken.get_encoding(name)
    except (OSError, ValueError) as error:  # the errors of requests are OSErrors
        raise ConfigError(
            f"tiktoken cannot fetch {name}: set TIKTOKEN_CACHE_DIR to a folder that has it ({one_line(error, 160)})"
        ) from error
    return lambda texts: [len(tokens) for tokens in encoding.encode_ordinary_batch(list(texts))]


def write_counts(
    con: duckdb.DuckDBPyConnection, counter: Counter, tokenizer: str, out: Path, tasks: Sequence[str] | None = None
) -> tuple[int, int, int]:
    """Writes a row of counts for each row of the matrix. Returns the numbers of rows, counted questions and responses.

    `con` has the views of a lake. The columns are cell_id, task, model, item, tokenizer, question_tokens and
    response_tokens. question_tokens counts the item's text in the lake: RouterBench's whole prompt, but for a collected
    task the question without description, few-shot examples and chat template. response_tokens counts all texts that
    the model wrote. A count is null if the lake does not have the text.
    """
    con.execute(_CELLS, {"tasks": None if tasks is None else list(tasks)})
    _count(con, counter, "counted_questions", _QUESTIONS)
    _count(con, counter, "counted_responses", _RESPONSES)
    table = con.execute(_COUNTS, {"tokenizer": tokenizer}).to_arrow_table()
    pq.write_table(table, out)
    counted = [len(table) - table[name].null_count for name in ("question_tokens", "response_tokens")]
    return len(table), counted[0], counted[1]


def _count(con: duckdb.DuckDBPyConnection, counter: Counter, name: str, query: str) -> None:
    """Makes a table of the query's rows, with `tokens` in place of `texts`."""
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
    """The tokens of all texts of each row. In a row that may have lists, a list counts as its elements.

    Source: tokencost.count_string_tokens as routers/common.py of withmartian/routerbench calls it. A text that begins
    and ends with square brackets is a Python list, and its elements are counted. If it does not parse as a list of
    texts, it counts as text.
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
