"""The one loader of pools: what the views show, in any state of a lake, as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from collectors.lake.compaction import compact
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.described import head
from collectors.matrix.pool_arrays import Pool
from collectors.matrix.pools import load_matrix, load_pools
from collectors.publish.card import Description
from collectors.publish.version import build_version
from schemas.failures import ConfigError
from schemas.views import PoolChoice
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.thorough import often

Key = tuple[str, str, str]

#: A third is not exact in float32.
SCORES = st.sampled_from([0.0, 1.0, 1.0, 1 / 3, None])
TABLES = {"i0": ["q0", "q1", "q2", "q3"], "i1": ["q2", "q0", "q4", "q2"]}


@st.composite
def lakes(draw: st.DrawFn) -> dict[BuiltCell, list[float | None]]:
    cells = {}
    for _ in range(draw(st.integers(1, 7))):
        cell = BuiltCell(
            model=draw(st.sampled_from("abc")),
            task=draw(st.sampled_from(["quiz", "quiz", "trivia"])),
            prompting=draw(st.sampled_from(["p0", "p1"])),
            dtype=draw(st.sampled_from(["float32", "bfloat16"])),
            quantization=draw(st.sampled_from([None, None, "awq"])),
            items_digest=draw(st.sampled_from(sorted(TABLES))),
        )
        kinds = SCORES if draw(st.booleans()) else st.sampled_from([0.0, 1.0])
        cells[cell] = draw(st.lists(kinds, min_size=4, max_size=4))
    return cells


def fill(folder: Path, cells: dict[BuiltCell, list[float | None]]) -> LakeBuilder:
    lake = LakeBuilder(folder)
    for task, digest in sorted({(cell.task, cell.items_digest) for cell in cells}):
        texts = TABLES[digest]
        lake.items(task, digest, len(texts), content_hash=texts, prompt=texts, target=[f'"{text}"' for text in texts])
    for cell, scores in cells.items():
        lake.planned(cell, scores)
    return lake


def shown(lake: Lake, choice: PoolChoice) -> dict[Key, tuple[Any, ...]]:
    """The rows of the view pool."""
    sql = "SELECT task, question, candidate, score, prompt_tokens, completion_tokens, latency_s FROM pool"
    found = ask(lake, lambda con, _: con.execute(sql).fetchall(), only=["pool"], choice=choice)
    return {row[:3]: row[3:] for row in found if row[3] is not None}


def loaded(pool: Pool) -> dict[Key, tuple[Any, ...]]:
    tasks, questions = pool.questions["task"].to_pylist(), pool.questions["question"].to_pylist()
    seconds = pool.number("latency_s")
    arrays = (pool.scores, pool.prompt_tokens, pool.completion_tokens, seconds)
    return {
        (tasks[row], questions[row], pool.candidates[column]): tuple(array[row, column].item() for array in arrays)
        for row, column in np.argwhere(pool.valid)
    }


def test_same_settings_hold_task_by_task_and_the_head_names_who_differs_where(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    for model, task, dtype, more in [
        *((model, task, dtype, {}) for model in "abc" for task, dtype in (("quiz", "float32"), ("maths", "bfloat16"))),
        ("d", "quiz", "bfloat16", {}),
        ("d", "maths", "bfloat16", {}),
        ("a", "quiz", "float16", {"quantization": "awq"}),
        ("e", "quiz", "float32", {"metric": "loss", "higher_is_better": False}),
    ]:
        lake.planned(BuiltCell(model=model, task=task, dtype=dtype, **more), [1.0, 0.0])
    lake.run(BuiltCell(model="f", task="quiz"))
    pools = load_pools(lake.lake, choice=PoolChoice(same=("dtype", "prompting")))
    assert {task: pools.of_task(task).candidates for task in pools.tasks} == {"quiz": [*"abc"], "maths": [*"abcd"]}
    over_all = pools.over_all()
    assert over_all is not None
    assert over_all.candidates == [*"abc"]
    assert head(pools) == [
        "pool: 4 candidates × 4 questions of 2 tasks",
        "the same within each task: dtype bfloat16 in maths, float32 in quiz; prompting",
        "over all tasks: 3 of 4 candidates, those that every task has",
        "left out: f in quiz (no score yet)",
        "left out: a@awq in quiz (--same: dtype float16)",
        "left out: d in quiz (--same: dtype bfloat16)",
        "left out: e in quiz (another metric)",
    ]


def load(lake: Lake, choice: PoolChoice) -> Pool | None:
    try:
        return load_matrix(lake, choice=choice, numbers=["latency_s"])
    except ConfigError:
        return None


@settings(
    max_examples=often(20, 2),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(
    cells=lakes(),
    where=st.sampled_from(["true", "true", "model <> 'b'", "prompting = 'p0'"]),
    same=st.sampled_from([(), ("dtype",), ("dtype", "prompting")]),
    questions=st.sampled_from(["every", "any"]),
)
def test_pool_as_arrays_equals_the_view_in_every_state_of_the_lake(
    tmp_path_factory: pytest.TempPathFactory,
    cells: dict[BuiltCell, list[float | None]],
    where: str,
    same: tuple[str, ...],
    questions: str,
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    lake = fill(folder / "lake", cells).lake
    choice = PoolChoice(where, same, questions)
    expected = shown(lake, choice)
    pool = load(lake, choice)
    assert (loaded(pool) if pool else {}) == expected
    if not pool:
        return
    compact(lake)
    assert loaded(load_matrix(lake, choice=choice, numbers=["latency_s"])) == expected
    made = build_version(lake, folder / "version", Description("name", "title", "text"))
    version = Lake(str(made.folder))
    assert shown(version, choice) == expected
    assert loaded(load_matrix(version, choice=choice, numbers=["latency_s"])) == expected
    pool.save(folder / "pool.npz")
    assert loaded(Pool.load(folder / "pool.npz")) == expected
