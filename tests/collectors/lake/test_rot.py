"""Bit rot: a damage of a lake's objects is named by `compact.py --verify`, and no compaction makes it look sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.rot import Storm, damages, rotting_lake
from tests.helpers.thorough import long_only, often


@long_only
@pytest.mark.slow
def test_storm_of_damages_changes_nothing_unnamed_and_is_not_folded(tmp_path: Path) -> None:
    storm = Storm(rotting_lake(tmp_path / "lake"))
    for number, damage in enumerate(damages(storm.objects, often(1000, few=200))):
        storm.verify(damage)
        if number % often(2, few=25) == 0:
            storm.fold(damage)
    print(sorted(storm.counts.items()), storm.compacted)
    assert not storm.silent
    assert not storm.laundered
