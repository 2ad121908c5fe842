"""The matrix of a published version as Parquet: one row per question and candidate, what data loaders read first.

Owns its columns and its files. The rows are those of the pool's candidates before any is left out (view _pool_rows).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from collectors.lake import layout
from schemas.columns import column_docs
from schemas.records import RECORD, RUN_CELL
from schemas.sql import quoted

#: Column -> its type, in the order of the files.
_TYPES = {
    "task": pa.string(),
    **dict.fromkeys(("question", "candidate"), pa.string()),
    "item": pa.int32(),
    "score": pa.float64(),
    "correct": pa.bool_(),
    **{name: RECORD.field(name).type for name in ("failure", "outcome", "prompt_tokens", "completion_tokens")},
    **{name: RECORD.field(name).type for name in ("cached_tokens", "engine_tokens", "latency_s", "stated_usd")},
    "item_hash": pa.string(),
    **{name: RUN_CELL.field(name).type for name in ("model", "metric", "items_digest", "prompting", "dtype")},
    **{name: RUN_CELL.field(name).type for name in ("quantization", "imported_from", "cell_id")},
}


def matrix_schema() -> pa.Schema:
    """The columns with their descriptions."""
    docs = {**column_docs("matrix"), **column_docs("pool")}
    return pa.schema([pa.field(name, kind, metadata={"doc": docs[name]}) for name, kind in _TYPES.items()])


def write_matrix(con: duckdb.DuckDBPyConnection, folder: Path) -> Iterator[str]:
    """Writes a file for each task below `folder`; yields their names. `con` has all views of the version."""
    for task in matrix_tasks(con):
        name = layout.matrix_name(task)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        con.execute(
            f"COPY ({matrix_query(task)}) TO {quoted(str(folder / name))} "
            "(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)"
        )
        yield name


def matrix_tasks(con: duckdb.DuckDBPyConnection) -> list[str]:
    return [task for (task,) in con.execute("SELECT DISTINCT task FROM _pool_choice ORDER BY task").fetchall()]


def matrix_query(task: str) -> str:
    """A query for the rows of a task's file, in order."""
    columns = ", ".join(f"{name}::{_sql_type(kind)} AS {name}" for name, kind in _TYPES.items())
    return f"""
        SELECT {columns}
        FROM _pool_rows
        JOIN (SELECT question_number, question FROM _question_names WHERE task = $task) USING (question_number)
        WHERE task = $task
        ORDER BY item, items_digest, candidate, cell_id
    """.replace("$task", quoted(task))


def _sql_type(kind: pa.DataType) -> str:
    names = {pa.string(): "VARCHAR", pa.bool_(): "BOOLEAN", pa.float64(): "DOUBLE"}
    return names.get(kind) or ("BIGINT" if kind == pa.int64() else "INTEGER")
