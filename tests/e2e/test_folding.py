"""A run folds the lake that it collects into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collectors.lake.holdings import newest_manifest
from collectors.lake.layout import manifest_name
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from pipelines.fleet import folding
from tests.e2e.conftest import Cluster
from tests.helpers.runs import ITEMS, TEXT, collect_here, config
from tests.helpers.thorough import long_only


@long_only
@pytest.mark.slow
def test_run_folds_shards_while_it_collects_and_its_rows_are_the_same(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "LEAST", 3)
    rows = []
    for name, fold in (("folded", True), ("open", False)):
        fleet = {"address": cluster.address, "first_shard_items": 1, "shard_seconds": 0.2, "compact": fold}
        engine: dict[str, Any] = {"name": "stub", "options": {"latency_s": 0.15}}
        path = config(tmp_path / name, models=["stub/alpha"], tasks=[TEXT], fleet=fleet, engine=engine)
        run = collect_here(capsys, path)
        assert run.code == 0, run.err
        lake = tmp_path / name / "lake"
        assert (newest_manifest(Lake(str(lake))) is not None) == fold
        with connect(Lake(str(lake)), only=["records", "responses"]) as con:
            stored = (
                "SELECT cell_id, item, filter, repeat, score, outcome, prompt_tokens, completion_tokens FROM records"
            )
            answers = "SELECT cell_id, item, filter, repeat, responses FROM responses"
            rows.append([con.execute(f"{query} ORDER BY ALL").fetchall() for query in (stored, answers)])
    assert rows[0] == rows[1]
    assert len({row[1] for row in rows[0][0]}) == ITEMS
    assert "nothing to collect" in collect_here(capsys, tmp_path / "folded" / "run-0.yaml").out


def test_fold_begins_at_a_thousand_open_shards_or_a_tenth_of_the_folded_ones() -> None:
    assert [folding.shards_to_fold(folded) for folded in (0, 9_000, 25_000, 10**6)] == [1000, 1000, 2500, 4000]


def test_lake_that_cannot_be_folded_is_collected_into_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    broken = Path(lake.root) / manifest_name(1)
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    one = folding.Folding(lake, on=True)
    one.tick()
    one.done()
    one.tick()
    assert caplog.text.count("the lake is not folded by this run any more") == 1
