"""What an item costs that was asked several times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.schemas.test_cost_views import per_million, price


@pytest.fixture
def lake(tmp_path: Path) -> LakeBuilder:
    return LakeBuilder(tmp_path / "lake")


def test_costs_of_an_item_that_was_asked_several_times_are_those_of_all_its_answers(lake: LakeBuilder) -> None:
    cell = BuiltCell(model="org/a", items=2)
    lake.run(cell)
    price(lake, per_million("org/a", 1_000_000, 2_000_000, usd_per_request=0.5))
    asked = {"score": 1.0, "prompt_tokens": 10, "completion_tokens": 3}
    thrice = [cell.record(0, **asked, repeat=repeat) for repeat in range(4)]  # 0: the verdict over all three
    lake.shard(cell, [*thrice, cell.record(1, **asked)])
    usd = [3 * (10 + 0.5) + 3 * 2, 10 + 0.5 + 3 * 2]  # USD: a dollar a prompt token, two a completion token
    assert lake.rows("SELECT usd FROM costs ORDER BY item") == [(one,) for one in usd]
    assert lake.rows("SELECT usd FROM pool ORDER BY item") == [(one,) for one in usd]
    assert lake.rows("SELECT usd FROM oracle_items ORDER BY item") == [(one,) for one in usd]
    assert lake.rows("SELECT usd_per_1000 FROM leaderboard") == [(1000 * sum(usd) / 2,)]
