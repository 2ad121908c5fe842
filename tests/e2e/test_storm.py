"""A short storm: the lake ends as if nothing had happened. The long one is tests/benchmarks/bench_storm.py."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import runs, storm
from tests.helpers.raylets import Raylets, raylets
from tests.helpers.thorough import long_only, often

MODELS = 3


@pytest.fixture
def nodes(own_home: Path) -> Iterator[Raylets]:
    with raylets(own_home / "storm") as cluster:
        for _ in range(storm.NODES):
            cluster.add()
        yield cluster


@long_only
@pytest.mark.slow
@pytest.mark.parametrize("storm_number", range(often(3, few=1)))
def test_storm_of_kills_leaves_the_lake_of_a_quiet_run(tmp_path: Path, nodes: Raylets, storm_number: int) -> None:
    quiet = storm.configured(tmp_path / "quiet", nodes.address, MODELS)
    assert runs.finish(runs.start_collect(quiet)).code == 0
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    path = storm.configured(tmp_path / "storm", nodes.address, MODELS)
    disturbed = storm.Storm(path, tmp_path / "storm" / "lake", nodes, MODELS * 2 * runs.ITEMS, kills=4, seed=seed)
    disturbed.run()
    assert disturbed.killed.total() == 4
    expected = runs.stored_records(tmp_path / "quiet" / "lake")
    runs.assert_same(runs.stored_records(disturbed.lake), expected)
    runs.assert_same(runs.viewed_records(disturbed.lake), expected)
    # A model whose engine is killed twice in a row from outside is taken for the culprit; the next driver frees it.
    assert {row["kind"] for row in runs.failures(disturbed.lake)} <= {"engine_died"}
