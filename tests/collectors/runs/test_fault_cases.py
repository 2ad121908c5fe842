"""Cases that came out wrong once, with the right values: collected whole, and shown by the views.

They lie outside the repository; without them these tests are skipped, and the rules are held by the tests of the parts.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

from collectors.judging.judges import Judges
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.runs.aggregates import Aggregator
from collectors.runs.collector import Collector
from collectors.runs.config import RunConfig
from collectors.runs.planning import make_plan
from tests.helpers.mini_tasks import own_caches
from tests.helpers.thorough import long_only

__all__ = ["own_caches"]

ROOT = Path(__file__).parents[3]
CASES = ROOT.parent / "shared" / "faults" / "collect"
MODELS = ("good", "weak", "random")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CASES.is_dir(), reason=f"no {CASES}")]


def case(name: str, folder: Path) -> Path:
    """A copy of a case with its own place in its files."""
    copy = Path(shutil.copytree(CASES / name, folder / name))
    for file in copy.glob("*.yaml"):
        file.write_text(file.read_text(encoding="utf-8").replace("HERE", str(copy)), encoding="utf-8")
    (copy / "config.yaml").unlink(missing_ok=True)
    return copy


def board(lake: Path, models: list[Path], task: str, include: Path, **changes: Any) -> list[dict[str, Any]]:
    """Collects a task in this process with transformers. Returns its rows of the leaderboard, by model."""
    keys = {"models": list(map(str, models)), "tasks": [task], "include_tasks": [str(include)], "dtype": "float32"}
    config = RunConfig.model_validate({**keys, "engine": {"name": "hf"}, **changes})
    store = Lake(str(lake)).open_for_writing()
    plan = make_plan(config, store)
    assert not plan.failures
    plan.write(store)
    worker = Collector(plan.run_id, store.uri, "hf", {}, config.include_tasks)
    for planned in plan.cells:
        for span in planned.todo:
            worker.collect(planned.cell, *span)
    worker.engine.close()
    judges = Judges(config.include_tasks)
    Aggregator(plan, store, judges).complete([])
    judges.close()
    with connect(store, only=["leaderboard"]) as con:
        cursor = con.execute("SELECT * FROM leaderboard ORDER BY task, model")
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def stock(model: Path, task: str, include: Path, **settings: Any) -> dict[str, Any]:
    """lm-eval's own results of a task, without its bootstraps."""
    from lm_eval.models.huggingface import HFLM  # ten seconds of CPU, also for those who only collect the tests

    lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=1, **settings)
    manager = TaskManager(include_path=str(include), include_defaults=False)
    results: dict[str, Any] = lm_eval.simple_evaluate(model=lm, tasks=[task], task_manager=manager, bootstrap_iters=0)
    return dict(results["results"][task])


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("01-metrics-of-the-whole-set", "last_word_ppl"),
        pytest.param("scores_that_are_no_mean", "last_word", marks=long_only),
    ],
)
def test_perplexity_ranks_as_lm_evals_and_scores_no_item(
    tmp_path: Path, tiny_models: dict[str, Path], name: str, task: str
) -> None:
    include = case(name, tmp_path)
    models = [tiny_models[model] for model in MODELS]
    default = board(tmp_path / "default", models[:1], task, include)
    assert {row["metric"] for row in default} == {"acc"}
    assert all(row["score"] == pytest.approx(row["value"]) for row in default)
    rows = board(tmp_path / "lake", models, task, include, tasks=[{"task": task, "metric": "perplexity"}])
    theirs = {model.name: stock(model, task, include)["perplexity,none"] for model in models}
    assert {row["model"]: row["value"] for row in rows} == pytest.approx(theirs, rel=1e-4)
    assert {row["score"] for row in rows} == {None}
    by_rank = sorted(rows, key=lambda row: row["rank"])
    assert [row["model"] for row in by_rank] == sorted(theirs, key=theirs.__getitem__)
    if task == "last_word_ppl":  # sums, which the models know
        assert [row["model"] for row in by_rank] == list(MODELS)


@long_only
def test_correlation_of_a_set_is_no_score_of_its_items(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    include = case("scores_that_are_no_mean", tmp_path)
    models = [tiny_models[model] for model in MODELS]
    rows = board(tmp_path / "lake", models, "yes_no_mcc", include, tasks=[{"task": "yes_no_mcc", "metric": "mcc"}])
    theirs = {model.name: stock(model, "yes_no_mcc", include)["mcc,none"] for model in models}
    assert {row["model"]: row["value"] for row in rows} == pytest.approx(theirs, abs=1e-9)
    assert {(row["score"], row["scored"], row["ci_low"]) for row in rows} == {(None, 0, None)}


def test_answers_as_long_as_the_context_are_answered(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    include = case("16-answers-as-long-as-the-context", tmp_path)
    tasks = ["len2030", "len2047", "len2048", "len4096"]
    rows = board(tmp_path / "lake", [tiny_models["good"]], "", include, limit=1, tasks=tasks)
    assert [(row["task"], row["overlong"], row["scored"]) for row in rows] == [(task, 0, 1) for task in tasks]


def test_context_that_a_task_of_long_answers_needs_is_worked_out(tmp_path: Path) -> None:
    include = case("16b-aime-shape", tmp_path)
    model = tmp_path / "long"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 131072}))
    (model / "model.safetensors").write_bytes(b"weights")
    keys = {"models": [str(model)], "tasks": ["aime_shape"], "include_tasks": [str(include)], "dtype": "float32"}
    for changes, context in (({}, 33792), ({"max_length": 8192}, None), ({"overlong": "truncate"}, None)):
        config = RunConfig.model_validate({**keys, "engine": {"name": "hf"}, **changes})
        [cell] = make_plan(config, Lake(str(tmp_path / "none"))).cells
        assert (cell.cell.model.context, cell.cell.context, cell.row["context_length"]) == (context,) * 3
        assert cell.cell.model.max_length == 8192
