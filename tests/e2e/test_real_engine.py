"""collect.py with real vLLM on real Ray: good models beside every kind of broken one, then the matrix of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from collectors.models.pinning import fingerprint
from pipelines.matrix import main as matrix
from tests.e2e.conftest import Cluster
from tests.helpers.mini_tasks import write_tasks
from tests.helpers.runs import (
    CHOICE,
    TEXT,
    Run,
    config,
    failures,
    finish,
    of_model,
    query,
    start_collect,
    stored_records,
)
from tests.helpers.thorough import long_only

pytestmark = pytest.mark.slow

#: Shorter than some of the prompts.
MAX_LENGTH = 1700
#: Broken folder's name -> the kind of its failures.
BROKEN = {
    "no-weights": "no_weights",
    "unknown": "unknown_architecture",
    "own-code": "remote_code",
    "cut": "bad_model",
    "gone": "not_found",
}


def broken_models(good: Path, folder: Path) -> list[str]:
    """Copies of a good model, each with one thing wrong."""
    for name in BROKEN.keys() - {"gone"}:
        shutil.copytree(good, folder / name)
    (folder / "no-weights" / "model.safetensors").unlink()
    (folder / "cut" / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:-100])
    own = {"auto_map": {"AutoModelForCausalLM": "modeling.Own"}}
    for name, changes in (("unknown", {}), ("own-code", own)):
        file = folder / name / "config.json"
        other = {"model_type": "martian", "architectures": ["MartianForCausalLM"], **changes}
        file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **other}), encoding="utf-8")
    return [str(folder / name) for name in BROKEN]


@pytest.fixture(scope="module")
def collected(
    tiny_models: dict[str, Path], cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Path]:
    """A finished run of two good and five broken models on six tasks, one of them empty; and its lake."""
    folder = tmp_path_factory.mktemp("real")
    tasks: list[Any] = [
        CHOICE,
        {"task": TEXT, "limit": 4},
        "mini_rolling",
        "mini_repeats",
        "mini_empty",
        {"task": "mini_choice", "limit": 5},
    ]
    broken = broken_models(tiny_models["good"], folder / "models")
    path = config(
        folder,
        models=[str(tiny_models["good"]), *broken, str(tiny_models["other"])],
        tasks=tasks,
        include_tasks=[str(write_tasks(folder / "tasks"))],
        limit=8,
        engine={"name": "vllm"},
        max_length=MAX_LENGTH,
        fleet={"first_shard_items": 5, "workers": 1},
    )
    return finish(start_collect(path, env={"RAY_ADDRESS": cluster.address})), folder / "lake"


@long_only
def test_real_run_with_broken_models_collects_the_others_and_names_each(collected: tuple[Run, Path]) -> None:
    run, lake = collected
    assert run.code == 1, run.err[-3000:]
    assert "Traceback" not in run.err
    assert {r["model"] for r in query(lake, "SELECT DISTINCT model FROM records")} == {"good", "other"}
    found = {(row["model"], row["kind"]) for row in failures(lake) if row["model"]}
    assert found == set(BROKEN.items())
    assert [(row["task"], row["kind"]) for row in failures(lake) if not row["model"]] == [("mini_empty", "empty_task")]
    for name in BROKEN:
        assert name in run.out + run.err


def test_real_run_coverage_counts_every_planned_item_once(collected: tuple[Run, Path]) -> None:
    rows = query(collected[1], "SELECT * FROM coverage WHERE model IN ('good', 'other')")
    assert {(row["task"], row["planned"]) for row in rows} == {
        (CHOICE, 8), (TEXT, 4), ("mini_rolling", 8), ("mini_repeats", 8), ("mini_choice", 5),
    }  # fmt: skip
    for row in rows:
        assert row["missing"] == 0
        assert row["attempted"] == row["planned"]
        assert row["scored"] == (0 if row["task"] == "mini_rolling" else row["planned"])
        outcomes = ("ok", "empty", "truncated", "overlong", "nan", "filtered", "refused", "failed")
        assert row["planned"] == sum(row[outcome] for outcome in outcomes)


def test_real_run_prompt_beyond_the_context_counts_and_is_counted_apart(collected: tuple[Run, Path]) -> None:
    rows = query(collected[1], f"SELECT * FROM records WHERE task = '{TEXT}'")
    long = [row for row in rows if row["failure"] == "prompt_too_long"]
    assert 0 < len(long) < len(rows)  # five solved problems in the tiny tokenizer's short tokens
    for row in long:
        assert (row["outcome"], row["score"], row["correct"]) == ("overlong", 0.0, False)
        assert row["prompt_tokens"] >= MAX_LENGTH


def test_real_run_values_over_sets_are_there_for_each_whole_cell(collected: tuple[Run, Path]) -> None:
    rows = query(collected[1], "SELECT task, metric, value, items FROM aggregates WHERE stale IS NULL")
    assert {row["task"] for row in rows} == {CHOICE, TEXT, "mini_rolling", "mini_repeats", "mini_choice"}
    assert all(row["value"] is not None and row["items"] > 0 for row in rows)
    [board] = query(
        collected[1], "SELECT * FROM leaderboard WHERE task = 'mini_rolling' AND model = 'good' AND rank IS NOT NULL"
    )
    assert (board["score"], board["metric"]) == (None, "word_perplexity")
    assert board["value"] > 1


def test_real_run_models_differ_and_trace_to_their_files(
    collected: tuple[Run, Path], tiny_models: dict[str, Path]
) -> None:
    lake = collected[1]
    records = stored_records(lake)
    one, two = (of_model(records, name)["loglikelihoods"].to_pylist() for name in ("good", "other"))
    assert len(one) == len(two)
    assert one != two
    rows = {row["model"]: row for row in query(lake, "SELECT model, revision, parameters, architecture FROM models")}
    for name in ("good", "other"):
        assert rows[name]["revision"] == fingerprint(tiny_models[name])
        assert rows[name]["architecture"] == "LlamaForCausalLM"
        assert rows[name]["parameters"] > 100_000


def test_real_run_times_and_counts_come_from_the_engine(collected: tuple[Run, Path]) -> None:
    lake = collected[1]
    rows = query(lake, "SELECT * FROM records WHERE failure IS NULL AND repeat = 0")
    assert rows
    for row in rows:
        assert 0 <= row["ttft_s"] <= row["latency_s"]
        assert 0 <= row["cached_tokens"] <= row["engine_tokens"]
        assert row["prompt_tokens"] > 0
    for shard in query(lake, "SELECT engine_seconds, tokens_per_second, concurrency, gpu, host FROM shards"):
        assert shard["host"]
        assert shard["gpu"] is None
        if shard["engine_seconds"]:
            assert shard["tokens_per_second"] is not None


def test_real_run_shown_by_matrix_names_models_scores_and_failures(
    collected: tuple[Run, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert matrix(["--lake", str(collected[1]), "--out", str(tmp_path / "m.duckdb"), "--show"]) == 0
    shown = capsys.readouterr().out
    for word in ("good", "other", CHOICE, "oracle", "overlong", "no_weights"):
        assert word in shown
