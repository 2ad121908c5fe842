"""Parts of a pool's questions by the rules of benchmarks, under the names of the benchmarks.

Owns which tasks share a draw. The draws are collectors.metrics.splits'.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from collectors.exporters.formats.routereval import name_of, split_indices
from collectors.matrix.pool_arrays import Pool
from collectors.metrics.splits import routerbench_split
from schemas.failures import ConfigError

Rows = npt.NDArray[np.int64]

RULES = ("routereval", "routerbench")


def split(pool: Pool, rule: str, fraction: float | None = None) -> dict[str, Rows]:
    """Part -> its rows in the pool, in the order of the draw; `fraction` of RouterBench's questions are for training.

    Raises ConfigError for a rule that is none of RULES, and for a fraction that it does not take.
    """
    if rule not in RULES:
        raise ConfigError(f"split: {rule!r} is none of {', '.join(RULES)}")
    if fraction is not None and (rule == "routereval" or not 0 < fraction < 1):
        raise ConfigError("split: fraction lies between 0 and 1, and routereval takes none: it cuts 8:1:1")
    tasks = np.array(pool.questions["task"].to_pylist(), object)
    rows = {task: np.flatnonzero(tasks == task) for task in dict.fromkeys(tasks)}
    if rule == "routerbench":
        return _joined([_routerbench(pool, of, 0.7 if fraction is None else fraction) for of in rows.values()])
    by_set: dict[tuple[str, str], list[str]] = {}
    for task in sorted(rows, key=lambda task: (name_of(task).place, task)):
        by_set.setdefault((name_of(task).family, name_of(task).data_set), []).append(task)
    return _joined([_routereval([rows[task] for task in of]) for of in by_set.values()])


def _routereval(of_tasks: Sequence[Rows]) -> dict[str, Rows]:
    rows = np.concatenate(of_tasks)
    return {part: rows[places] for part, places in split_indices([len(of) for of in of_tasks]).items()}


def _routerbench(pool: Pool, rows: Rows, fraction: float) -> dict[str, Rows]:
    questions = pool.questions["question"].take(rows).to_pylist()
    row_of = dict(zip(questions, rows.tolist(), strict=True))
    parts = zip(("train", "test"), routerbench_split(questions, fraction), strict=True)
    return {part: np.array([row_of[question] for question in of], np.int64) for part, of in parts}


def _joined(of_sets: Sequence[dict[str, Rows]]) -> dict[str, Rows]:
    return {part: np.concatenate([one[part] for one in of_sets]) for part in of_sets[0]} if of_sets else {}
