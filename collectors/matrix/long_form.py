"""A pool as a table: one row for each question and candidate. Knows no lakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.matrix.pool_arrays import Pool

#: Numbers beside the score that a row has, of collectors.matrix.pools.NUMBERS.
BESIDE = ("cached_tokens", "usd", "latency_s")


def long_form(pool: Pool) -> pa.Table:
    """One row for each question and candidate of its task, also without a score; `pool` has tokens and BESIDE.

    task, question, candidate (each with a dictionary), score, prompt_tokens, completion_tokens, cached_tokens, usd,
    latency_s. Null if unknown.
    """
    row, column = np.nonzero(_of_tasks(pool))
    names = {name: pool.questions[name].combine_chunks().dictionary_encode() for name in ("task", "question")}
    columns: dict[str, Any] = {name: values.take(pa.array(row)) for name, values in names.items()}
    columns["candidate"] = pa.DictionaryArray.from_arrays(column.astype(np.int32), pool.candidates)
    columns["score"] = pa.array(pool.scores[row, column].astype(np.float64), from_pandas=True)
    for name in ("prompt_tokens", "completion_tokens"):
        counts = getattr(pool, name)[row, column]
        columns[name] = pa.array(counts, mask=counts < 0)
    for name in BESIDE:
        columns[name] = pa.array(pool.number(name)[row, column], from_pandas=True)
    columns["cached_tokens"] = columns["cached_tokens"].cast(pa.int32())
    return pa.table(columns)


def _of_tasks(pool: Pool) -> npt.NDArray[np.bool_]:
    """(questions, candidates): whether the candidate is of the question's task."""
    of_task: dict[str, set[str]] = {}
    for task, candidate in zip(pool.cells["task"].to_pylist(), pool.cells["candidate"].to_pylist(), strict=True):
        of_task.setdefault(task, set()).add(candidate)
    rows = {task: np.array([one in names for one in pool.candidates], np.bool_) for task, names in of_task.items()}
    return np.array([rows[task] for task in pool.questions["task"].to_pylist()], np.bool_).reshape(pool.scores.shape)
