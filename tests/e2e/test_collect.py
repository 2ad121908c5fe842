"""pipelines/collect.py on the stub engine and the demo's data: collected and open items."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import s3fs

from collectors.lake.reading import connect
from collectors.lake.store import Lake
from schemas.records import RECORD
from tests.helpers import runs
from tests.helpers.collect_calls import NO_RAY, Collect, collect, own_tasks, plan
from tests.helpers.object_store import BUCKET, ObjectStore
from tests.helpers.runs import CHOICE, ITEMS, ROOT, TEXT, config, query, shard_files
from tests.helpers.thorough import long_only

__all__ = ["collect", "plan"]  # fixtures


def record_counts(lake: Path) -> dict[tuple[str, str], int]:
    """(model, task) -> items in the lake, over all cells; proves the rows per item on the way."""
    counts = {}
    for row in query(
        lake,
        "SELECT model, task, count(*) AS rows, count(DISTINCT (cell_id, item)) AS items FROM records GROUP BY ALL",
    ):
        assert row["rows"] == row["items"] * runs.ROWS.get(row["task"], 1)
        counts[row["model"], row["task"]] = row["items"]
    return counts


def everything(items: int, models: tuple[str, ...] = ("stub/alpha", "stub/beta")) -> dict[tuple[str, str], int]:
    return {(model, task): items for model in models for task in (CHOICE, TEXT)}


@pytest.mark.slow
def test_collect_as_a_script_from_another_folder_with_a_ray_of_its_own_collects_everything(tmp_path: Path) -> None:
    path, lake = config(tmp_path), tmp_path / "lake"
    command = [sys.executable, str(ROOT / "pipelines" / "collect.py"), "--config", path.name]
    run = runs.finish(runs.start(command, cwd=tmp_path))
    assert run.code == 0, run.err
    assert "collected 4 cells" in run.out
    assert "Traceback" not in run.err
    assert record_counts(lake) == everything(ITEMS)
    assert all(
        pq.read_schema(lake / name).remove_metadata().equals(RECORD.remove_metadata()) for name in shard_files(lake)
    )
    assert runs.failures(lake) == []
    left = [f for f in lake.rglob("*") if f.name.endswith(".tmp") or ("probe" in f.name and "probe_sets" not in str(f))]
    assert left == []

    before = shard_files(lake)
    again = runs.finish(runs.start_collect(path, env={"RAY_ADDRESS": NO_RAY}))
    assert again.code == 0, again.err
    assert "nothing to collect" in again.out
    assert shard_files(lake) == before


@long_only
@pytest.mark.slow
def test_collect_into_an_object_store_collects_what_a_folder_gets(
    tmp_path: Path, object_store: ObjectStore, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"models": ["stub/alpha"], "limit": 6}
    uri = f"s3://{BUCKET}/{secrets.token_hex(4)}/lake"
    path = config(tmp_path, **few, lake=uri)
    run = runs.finish(runs.start_collect(path, env=object_store.environment))
    assert run.code == 0, run.err
    assert object_store.secret not in run.out + run.err
    assert collect(config(tmp_path, **few)).code == 0

    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    sql = f"SELECT {', '.join(runs.SAME)} FROM _open_rows ORDER BY ALL"
    there, here = (connect(Lake(place)).sql(sql).fetchall() for place in (uri, str(tmp_path / "lake")))
    assert there == here != []
    assert "nothing to collect" in collect(path).out


@long_only
@pytest.mark.slow
def test_collect_with_a_limit_and_then_without_adds_only_the_other_items(tmp_path: Path, collect: Collect) -> None:
    path, lake = config(tmp_path), tmp_path / "lake"
    assert collect(path, "--limit", "10").code == 0
    first = shard_files(lake)
    assert record_counts(lake) == everything(10)

    run = collect(path)
    assert run.code == 0
    assert f"to collect: {4 * (ITEMS - 10)} items in 4 cells; already in the lake: 40" in run.out
    assert first.items() <= shard_files(lake).items()
    assert record_counts(lake) == everything(ITEMS)
    assert {row["first_item"] for row in runs.shard_metadata(lake) if row["last_item"] == ITEMS - 1} != {0}
    assert runs.stored_records(lake).num_rows == 2 * (ITEMS + 2 * ITEMS)

    fewer = collect(path, "--limit", "7")
    assert "nothing to collect" in fewer.out


@long_only
@pytest.mark.slow
def test_collect_another_generation_keeps_the_old_and_is_resumed(tmp_path: Path, collect: Collect) -> None:
    path, lake = config(tmp_path, models=["stub/alpha"], limit=5), tmp_path / "lake"
    assert collect(path).code == 0
    first, records = shard_files(lake), runs.viewed_records(lake)

    assert collect(path, "--generation", "1").code == 0
    both = shard_files(lake)
    assert first.items() <= both.items()
    assert sorted(set(both) - set(first)) == sorted(name.replace("-g0-", "-g1-") for name in first)
    runs.assert_same(runs.viewed_records(lake), records)

    for again in ((), ("--generation", "1")):
        assert "nothing to collect" in collect(path, *again).out
    assert shard_files(lake) == both


@long_only
@pytest.mark.slow
def test_collect_under_another_prompting_makes_cells_of_their_own(tmp_path: Path, collect: Collect) -> None:
    models, lake = ["stub/alpha"], tmp_path / "lake"
    assert collect(config(tmp_path, models=models, tasks=[TEXT], limit=4)).code == 0
    before, answers = shard_files(lake), runs.stored_records(lake)["responses"].to_pylist()

    assert collect(config(tmp_path, models=models, tasks=[TEXT], limit=4, num_fewshot=2)).code == 0
    assert before.items() <= shard_files(lake).items()
    cells = query(lake, "SELECT num_fewshot, planned_items FROM cells ORDER BY ALL")
    assert cells == [{"num_fewshot": 2, "planned_items": 4}, {"num_fewshot": 5, "planned_items": 4}]
    both = runs.stored_records(lake)["responses"].to_pylist()
    assert len(both) == 2 * len(answers)
    assert any(answer not in answers for answer in both)


@long_only
@pytest.mark.slow
def test_collect_with_a_changed_setting_plans_other_cells(tmp_path: Path, collect: Collect, plan: Collect) -> None:
    same: dict[str, Any] = {"models": ["stub/alpha"], "tasks": [TEXT], "limit": 3}
    assert collect(config(tmp_path, **same)).code == 0

    def plan_only(**changes: Any) -> str:
        return plan(config(tmp_path, **{**same, **changes}), "--dry-run").out

    assert "to collect: 0 items in 0 cells; already in the lake: 3" in plan_only()
    assert "to collect: 0 items in 0 cells; already in the lake: 3" in plan_only(fleet={"workers": 3})
    for changes in (
        {"dtype": "float16"},
        {"num_fewshot": 4},
        {"fewshot_seed": 7},
        {"chat_template": True},
        {"system_prompt": "Answer."},
        {"decoding": {"max_gen_toks": 9}},
        {"models": [{"source": "stub/alpha", "name": "another"}]},
    ):
        assert "to collect: 3 items in 1 cells; already in the lake: 0" in plan_only(**changes), changes


@long_only
@pytest.mark.slow
def test_collect_with_bad_models_and_tasks_among_good_ones_collects_the_good(tmp_path: Path, collect: Collect) -> None:
    own = own_tasks(tmp_path / "tasks")
    lake = tmp_path / "lake"
    path = config(
        tmp_path,
        models=["stub/alpha", "stub/gated", "stub/beta"],
        tasks=[CHOICE, "no_items", "mini_group"],
        include_tasks=[str(own)],
        allow_code=True,
        engine={"name": "stub", "options": {"fail_load": {"*/gated": "gated"}}},
        limit=6,
    )
    run = collect(path)
    assert run.code == 1
    tasks = (CHOICE, "mini_choice", "mini_likelihood")
    assert record_counts(lake) == {(model, task): 6 for model in ("stub/alpha", "stub/beta") for task in tasks}
    assert sum(1 for line in run.out.splitlines() if line.startswith("failed: stub/gated on ")) == len(tasks)
    found = runs.failures(lake)
    assert [(row["kind"], row["model"], row["task"]) for row in found] == [
        ("empty_task", None, "no_items"),
        *(("gated", "stub/gated", task) for task in sorted(tasks)),
    ]
    assert "no_items" in found[0]["message"]
    assert "does not load (fail_load" in found[1]["message"]
    assert "cannot be planned: no_items" in run.out
