"""Pools of sampled cells: beside whole ones they are no candidates unless asked for, in views and in arrays."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from collectors.lake.reading import connect
from collectors.matrix.described import head
from collectors.matrix.pool_files import parse_pool
from collectors.matrix.pools import load_pools
from schemas.failures import ConfigError
from schemas.views import PoolChoice
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, rows

ITEMS = 12
LISTED = [1, 4, 8]


def sampled(builder: LakeBuilder, cell: BuiltCell) -> None:
    item_set = builder.item_set(LISTED)
    builder.run(cell, planned=ITEMS, sampled_items=len(LISTED), item_set=item_set)
    builder.shard(cell, [cell.record(item, score=float(item != 4)) for item in LISTED], listed=LISTED)


def mixture(folder: Path) -> LakeBuilder:
    """Task quiz: two whole cells and a sampled one. Task riddle: two sampled ones."""
    builder = LakeBuilder(folder)
    for number, model in enumerate("ab"):
        builder.planned(BuiltCell(model, items=ITEMS), [float(item % 3 == number) for item in range(ITEMS)])
    sampled(builder, BuiltCell("c", items=ITEMS))
    for model in "ac":
        sampled(builder, BuiltCell(model, task="riddle", items_digest="i1", items=ITEMS))
    return builder


@pytest.mark.parametrize(
    ("choice", "of_quiz", "questions"),
    [(PoolChoice(), ["a", "b"], ITEMS), (PoolChoice(sparse="mixed", questions="any"), ["a", "b", "c"], ITEMS)],
)
def test_sampled_cells_are_candidates_beside_whole_ones_only_if_asked_for(
    tmp_path: Path, choice: PoolChoice, of_quiz: list[str], questions: int
) -> None:
    lake = mixture(tmp_path / "lake").lake
    with contextlib.closing(connect(lake, only=["candidates", "oracle"], choice=choice)) as con:
        shown = rows(con, "SELECT task, list(candidate ORDER BY candidate) FROM candidates GROUP BY task ORDER BY task")
        counted = dict(rows(con, "SELECT task, questions FROM oracle"))
    assert shown == [("quiz", of_quiz), ("riddle", ["a", "c"])]
    pools = load_pools(lake, choice=choice)
    assert [(task, list(pools.of_task(task).candidates)) for task in pools.tasks] == shown
    assert len(pools.of_task("quiz").scores) == questions
    if choice.questions == "every":
        assert counted == {task: len(pools.of_task(task).scores) for task in pools.tasks}
    lines = head(pools)
    assert any("c in quiz (asked only a sample, and others all items" in line for line in lines) is (len(of_quiz) == 2)
    assert any("cells were sampled: runs meant to ask" in line for line in lines)


def test_one_item_of_one_whole_cell_does_not_remove_all_sampled_candidates(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    for model in "abc":
        sampled(builder, BuiltCell(model, items=ITEMS))
    whole = BuiltCell("w", items=ITEMS)
    builder.run(whole, planned=ITEMS)
    builder.scores(whole, [1.0])
    for choice in (PoolChoice(), PoolChoice(sparse="mixed")):
        pools = load_pools(builder.lake, choice=choice)
        assert pools.of_task("quiz").candidates == ["a", "b", "c"]
        assert pools.of_task("quiz").items.tolist() == LISTED
        assert any("left out: w in quiz, which lacks scores: without it 3 more" in line for line in head(pools))


def test_mixed_pool_is_on_the_questions_that_most_sampled_candidates_share(tmp_path: Path) -> None:
    pool = load_pools(mixture(tmp_path / "lake").lake, choice=PoolChoice(sparse="mixed")).of_task("quiz")
    assert (pool.candidates, pool.items.tolist()) == (["a", "b", "c"], LISTED)


def test_sampled_cell_that_was_completed_is_a_candidate_as_any_other(tmp_path: Path) -> None:
    builder = mixture(tmp_path / "lake")
    cell = BuiltCell("c", items=ITEMS)
    rest = [item for item in range(ITEMS) if item not in LISTED]
    builder.run(cell, planned=ITEMS)
    builder.shard(cell, [cell.record(item, score=1.0) for item in rest], listed=rest)
    assert load_pools(builder.lake, ["quiz"]).of_task("quiz").candidates == ["a", "b", "c"]
    assert builder.rows("SELECT count(rank) FROM leaderboard WHERE task = 'quiz'") == [(3,)]


def test_pool_file_says_whether_samples_compete() -> None:
    assert parse_pool(b"{name: p, sparse: mixed}", "p").choice.sparse == "mixed"
    assert parse_pool(b"{name: p, sparse: apart}", "p").digest == parse_pool(b"{name: p}", "p").digest
    with pytest.raises(ConfigError, match="sparse: 'both' is neither apart nor mixed"):
        parse_pool(b"{name: p, sparse: both}", "p")
