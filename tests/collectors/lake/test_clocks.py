"""The store's own times decide: clocks of machines that write to a lake may be days off."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import time
from pathlib import Path

import pytest

from collectors.lake.compaction import compact
from collectors.lake.holdings import read_manifest
from collectors.lake.layout import run_name
from collectors.lake.pruning import prune
from collectors.lake.seals import sealed_json
from collectors.runs.record import chosen_run, run_ids
from schemas.failures import StorageError
from tests.helpers.filled_lakes import plain_lake

DAY = 86_400.0


def test_prune_after_a_compaction_whose_clock_was_behind_keeps_its_grace_time(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path), 1).lake
    manifest = compact(lake).manifest
    assert manifest
    early = dataclasses.replace(manifest, created_at=(dt.datetime.now(dt.UTC) - dt.timedelta(days=2)).isoformat())
    value = json.loads(early.to_json())
    del value["seal"]
    (tmp_path / manifest.name).write_bytes(sealed_json(value, manifest.name))
    assert read_manifest(lake, manifest.name) == early
    pruned = prune(lake, dt.timedelta(hours=24))
    assert (pruned.shards, bool(pruned.later)) == (0, True)
    os.utime(tmp_path / manifest.name, (time.time() - 2 * DAY,) * 2)
    assert prune(lake, dt.timedelta(hours=24)).shards == 2


def test_run_of_a_clock_ahead_is_not_the_newest_for_years(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path), 1).lake
    lake.remove([run_name("run-0001")])
    ahead, later = "20361129T100000-00000000", "20261129T120000-00000000"
    stamp = dt.datetime(2026, 11, 29, 10, tzinfo=dt.UTC).timestamp()
    for run_id, made in ((ahead, stamp), (later, stamp + 7200)):
        path = tmp_path / run_name(run_id)
        path.write_bytes(b"")
        os.utime(path, (made, made))
    assert chosen_run(lake, None) == later
    assert run_ids(lake) == [ahead, later]


def test_run_in_a_copy_of_a_lake_keeps_its_order(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path), 1).lake
    lake.remove([run_name("run-0001")])
    first, second = "20261129T100000-00000000", "20261129T120000-00000000"
    for number, run_id in enumerate((second, first)):  # as cp without -p writes them
        path = tmp_path / run_name(run_id)
        path.write_bytes(b"")
        os.utime(path, (time.time() + number,) * 2)
    assert run_ids(lake) == [first, second]


def test_lake_in_whose_place_another_was_put_is_noticed(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path / "lake"), 1).lake
    lake.check_holds(run_name("run-0001"))
    os.rename(tmp_path / "lake", tmp_path / "old")
    other = plain_lake(str(tmp_path / "lake"), 1).lake
    other.remove([run_name("run-0001")])
    with pytest.raises(StorageError, match="another lake than before"):
        lake.check_holds(run_name("run-0001"))
