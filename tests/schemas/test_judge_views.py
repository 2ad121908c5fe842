"""Views over verdicts: agreement by Krippendorff's alpha, and what the tasks' own verdicts hide."""

from __future__ import annotations

import datetime as dt
import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from collectors.lake import layout
from collectors.lake.reading import ask
from collectors.runs.aggregates import covers_of
from schemas.identity import ShardName
from schemas.records import AGGREGATE, JUDGE, VERDICT
from schemas.views import PoolChoice
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

#: K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section A: two observers, ten units, alpha 0.095.
#: Of 0 and 1 the distance of interval data is that of nominal data.
PUBLISHED = ([0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0])


def judged_by_two(folder: Path, first: Sequence[float | None], second: Sequence[float | None]) -> LakeBuilder:
    builder = LakeBuilder(folder)
    cell = BuiltCell(items=len(first))
    builder.run(cell)
    builder.shard(cell, [cell.record(item, score=None, failure="not_judged") for item in range(len(first))])
    shard = ShardName(cell.cell_id, 0, 0, len(first) - 1)
    for name, scores in (("a" * 16, first), ("b" * 16, second)):
        judged(builder, name, cell, shard, {"none": scores})
    return builder


def judged(
    builder: LakeBuilder, name: str, cell: BuiltCell, shard: ShardName, scores: Mapping[str, Sequence[float | None]]
) -> None:
    """A judge whose filter is the first of `scores`, with its verdicts by each filter on a shard."""
    judge = {"judge_id": name, "judge": name[0], "kind": "task", "task": cell.task, "digest": "d", "metric": "m"}
    judge |= {"aggregation": "mean", "higher_is_better": True, "settings": "{}", "versions": "{}"}
    judge |= {"filter": next(iter(scores)), "made_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}
    builder.lake.create_table(layout.judge_name(name), pa.Table.from_pylist([judge], schema=JUDGE))
    shared = {"judge_id": name, "cell_id": cell.cell_id, "generation": 0, "task": cell.task}
    rows = [
        {**shared, "filter": one, "item": item, "item_hash": "h", "repeat": 0, "score": score, "outcome": "ok"}
        for one, of in scores.items()
        for item, score in enumerate(of)
    ]
    builder.lake.create_table(layout.verdicts_name(name, shard), pa.Table.from_pylist(rows, schema=VERDICT))


def alpha(builder: LakeBuilder) -> tuple[int, float | None]:
    [(answers, value)] = builder.rows("SELECT answers, alpha FROM judge_agreement WHERE judge <> ''")
    return answers, value


def test_alpha_is_the_published_one(tmp_path: Path) -> None:
    answers, value = alpha(judged_by_two(tmp_path, *PUBLISHED))
    assert (answers, value) == (10, pytest.approx(0.095, abs=0.0005))


def test_alpha_of_any_numbers_is_that_of_its_definition(tmp_path: Path) -> None:
    draw = random.Random(5)
    first = [draw.choice([None, 0.0, 0.25, 0.5, 1.0]) for _ in range(40)]
    second = [draw.choice([one, None, 0.75]) for one in first]
    pairs = [(x, y) for x, y in zip(first, second, strict=True) if x is not None and y is not None]
    values = list(itertools.chain(*pairs))
    observed = sum((x - y) ** 2 for x, y in pairs) / len(pairs)
    everything = [(x - y) ** 2 for x, y in itertools.permutations(values, 2)]
    expected = 1 - observed / (sum(everything) / len(everything))
    assert alpha(judged_by_two(tmp_path, first, second)) == (len(pairs), pytest.approx(expected, abs=1e-12))


def test_alpha_of_judges_that_agree_is_one_and_of_equal_values_undefined(tmp_path: Path) -> None:
    assert alpha(judged_by_two(tmp_path / "1", [0, 1, 1], [0, 1, 1])) == (3, 1.0)
    assert alpha(judged_by_two(tmp_path / "2", [1, 1, 1], [1, 1, 1])) == (3, None)
    assert alpha(judged_by_two(tmp_path / "3", [1], [0])) == (1, None)


def test_board_shows_score_and_value_by_the_filter_of_the_judge(tmp_path: Path) -> None:
    """Collected under a strict filter, judged by a flexible one: the judge has verdicts and values by both."""
    builder = LakeBuilder(tmp_path)
    cell = BuiltCell(filter="strict", items=4)
    builder.run(cell)
    shard = builder.shard(cell, [cell.record(item, score=0.0, filter="strict") for item in range(4)])
    scores = {"flexible": [1.0, 1.0, 1.0, 0.0], "strict": [1.0, 0.0, 0.0, 0.0]}
    judged(builder, "a" * 16, cell, shard, scores)
    shared = {"task": cell.task, "is_group": False, "model": cell.model, "cell_id": cell.cell_id, "prompting": "p0"}
    shared |= {"metric": "m", "aggregation": "mean", "higher_is_better": True, "items": 4, "judge_id": "a" * 16}
    shared |= {"covers": covers_of([shard]), "computed_at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}
    rows = [{**shared, "filter": name, "value": sum(of) / 4} for name, of in scores.items()]
    builder.lake.create_table(layout.aggregates_name("again"), pa.Table.from_pylist(rows, schema=AGGREGATE))
    board = "SELECT metric, filter, score, value, rank FROM leaderboard"
    choice = PoolChoice(judge="a")
    shown = ask(builder.lake, lambda con, _: con.execute(board).fetchall(), only=["leaderboard"], choice=choice)
    assert shown == [("m", "flexible", 0.75, 0.75, 1)]
    assert builder.rows(board) == [("acc", "strict", 0.0, None, 1)]


def test_hidden_counts_what_the_verdicts_do_not_show(tmp_path: Path) -> None:
    """Of five models four give one wrong answer to item 0; item 1 is unparsed, 2 cut off, 3 judged in two ways."""
    builder = LakeBuilder(tmp_path)
    cells = [BuiltCell(model=f"m{number}", metric="exact_match", items=4) for number in range(5)]
    builder.run(*cells, output_type="generate_until", correct_threshold=0.5)
    for number, cell in enumerate(cells):
        answers = ['["7"]' if number else '["8"]', '["[invalid]"]', '["2"]', '["3"]']
        scores = [0.0 if number else 1.0, 0.0, 1.0, 1.0]
        rows = []
        for item, (answer, score) in enumerate(zip(answers, scores, strict=True)):
            reason = "length" if item == 2 else "stop"
            rows.append(cell.record(item, score=score, finish_reason=reason, filtered=answer, responses=["text"]))
            other = 0.0 if item == 3 and number == 0 else score
            rows.append(cell.record(item, score=other, filter="other", finish_reason=reason, filtered=answer))
        builder.shard(cell, rows)
    row = builder.row("FROM hidden")
    assert row == {
        **{"task": "quiz", "answers": 20, "truncated": 5, "refused": 0, "filtered": 0, "empty": 0},
        **{"unparsed": 5, "contested": 1, "doubted": 1},
    }
