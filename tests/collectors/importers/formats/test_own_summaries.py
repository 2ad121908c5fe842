"""Files in the layout of their writers, and the figures that they themselves state of their rows.

The files of golden/imports have the layouts of crfm-helm 0.5.16 and opencompass 0.5.4.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from collectors.importers.formats.opencompass import _results_of
from schemas.content import document_hash
from tests.helpers.importing import CORPUS, imported, rows, write_json

#: Means as a reader of the lake sees them: (run of the source, task, model) -> mean.
MEANS = "SELECT imported_from, task, model, avg(score) FROM matrix GROUP BY ALL ORDER BY ALL"


def means(lake: Path) -> dict[tuple[str, str, str], float | None]:
    return {(run, task, model): mean for run, task, model, mean in rows(lake, MEANS)}


def stated(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# ---- HELM


def test_helm_run_shows_its_scenarios_metric_on_the_test_split_unperturbed(tmp_path: Path) -> None:
    report = imported("helm", CORPUS / "helm", tmp_path / "lake")
    assert (report.total.rejected, report.total.records) == (0, 10)
    model, task = "meta-llama/Llama-3.1-8B-Instruct", "narrative_qa"
    for suite, run in (("v1.0.0", "helm"), ("v1.1.0", "helm#2")):
        summary = stated(CORPUS / f"helm/runs/{suite}/narrative_qa:model=meta_llama-3.1-8b-instruct/stats.json")
        [shown] = [one["mean"] for one in summary if one["name"] == {"name": "f1_score", "split": "test"}]
        assert means(tmp_path / "lake")[run, task, model] == pytest.approx(shown)
    apart = {task for _, task, _ in means(tmp_path / "lake") if task.startswith("narrative_qa:")}
    assert apart == {"narrative_qa:split=valid", "narrative_qa:perturbation=typos"}


def test_helm_counts_of_an_echoed_prompt_are_no_tokens_of_the_answer(tmp_path: Path) -> None:
    imported("helm", CORPUS / "helm", tmp_path / "lake")
    query = "SELECT prompt_tokens, completion_tokens FROM records WHERE task LIKE 'mmlu%' ORDER BY item"
    assert rows(tmp_path / "lake", query) == [(20, 1), (21, 1)]


def test_helm_right_answers_alone_are_not_choices(tmp_path: Path) -> None:
    imported("helm", CORPUS / "helm", tmp_path / "lake")
    query = "SELECT DISTINCT choices FROM items WHERE task = 'narrative_qa'"
    assert rows(tmp_path / "lake", query) == [(None,)]
    query = "SELECT choices, content_hash FROM items WHERE task LIKE 'mmlu%' ORDER BY item LIMIT 1"
    document = {"question": "Which bone is the longest?", "choices": ["Ulna", "Femur", "Tibia", "Radius"]}
    assert rows(tmp_path / "lake", query) == [(document["choices"], document_hash(document))], "as lm-eval's document"


def test_helm_metric_that_is_not_from_0_to_1_is_kept_as_it_is_published(tmp_path: Path) -> None:
    folder = tmp_path / "runs/v1/wildbench:subset=v2,model=org_m"
    write_json(
        folder / "run_spec.json", {"name": folder.name, "groups": ["wildbench"], "adapter_spec": {"model": "o/m"}}
    )
    write_json(folder / "scenario_state.json", {"request_states": []})
    stats = [{"name": {"name": "wildbench_score_rescaled", "split": "test"}, "count": 1, "sum": -0.033, "mean": -0.033}]
    write_json(folder / "per_instance_stats.json", [{"instance_id": "id1", "train_trial_index": 0, "stats": stats}])
    report = imported("helm", tmp_path / "runs", tmp_path / "lake")
    assert report.total.rejected == 0
    query = "SELECT metric, higher_is_better, score, correct FROM records JOIN cells USING (cell_id)"
    assert rows(tmp_path / "lake", query) == [("wildbench_score_rescaled", True, -0.033, None)]


def test_helm_perturbations_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "runs/v1/mmlu:model=org_m"
    given = [{"name": "gender", "mode": mode} for mode in ("pronouns", "terms")] + [{"name": "typos", "prob": 0.1}]
    metric = {"name": {"name": "exact_match"}, "count": 1, "sum": 1.0, "mean": 1.0}
    rows_of = [{"instance_id": "id1", "perturbation": one, "train_trial_index": 0, "stats": [metric]} for one in given]
    requests = [
        # Older references are texts, and the keys of a perturbation come in any order.
        {
            "instance": {
                "id": "id1",
                "split": "test",
                "input": mode,
                "references": [{"output": "A", "tags": ["correct"]}],
                "perturbation": dict(reversed(one.items())),
            },
            "train_trial_index": 0,
        }
        for mode, one in zip(("he", "man", "teh"), given, strict=True)
    ]
    write_json(folder / "run_spec.json", {"name": folder.name, "groups": ["mmlu"], "adapter_spec": {"model": "org/m"}})
    write_json(folder / "scenario_state.json", {"request_states": requests})
    write_json(folder / "per_instance_stats.json", rows_of)
    report = imported("helm", tmp_path / "runs", tmp_path / "lake")
    assert (report.total.rejected, report.total.records) == (0, 3)
    stored = rows(tmp_path / "lake", "SELECT task, prompt, target FROM items ORDER BY prompt")
    assert [row[1:] for row in stored] == [("he", '["A"]'), ("man", '["A"]'), ("teh", '["A"]')]
    assert stored[2][0] == "mmlu:perturbation=typos"
    assert len({task for task, *_ in stored}) == 3


def test_helm_call_that_failed_is_neither_wrong_nor_unjudged(tmp_path: Path) -> None:
    source = CORPUS / "helm/runs/v1.1.0"
    shutil.copytree(source, tmp_path / "runs")
    path = next((tmp_path / "runs").rglob("scenario_state.json"))
    state = stated(path)
    state["request_states"][0]["result"] |= {"success": False, "completions": []}
    write_json(path, state)
    imported("helm", tmp_path / "runs", tmp_path / "lake")
    assert rows(tmp_path / "lake", "SELECT score, failure FROM records WHERE item = 0") == [(None, "failed_call")]


# ---- OpenCompass


def test_opencompass_runs_give_the_accuracies_that_their_results_state(tmp_path: Path) -> None:
    report = imported("opencompass", CORPUS / "opencompass", tmp_path / "lake")
    model, outputs = "llama-3.1-8b-instruct-hf", CORPUS / "opencompass/outputs/default"
    stored = means(tmp_path / "lake")
    for time, run in (("20240601_120000", "opencompass"), ("20240602_090000", "opencompass#2")):
        accuracy = stated(outputs / time / "results" / model / "sums.json")["accuracy"]
        assert stored[run, "sums", model] == pytest.approx(accuracy / 100)
    average = stated(outputs / "20240602_090000/results" / model / "riddles.json")["accuracy (2 runs average)"]
    assert stored["opencompass", "riddles", model] == pytest.approx(average / 100)
    query = "SELECT repeat, score FROM records WHERE task = 'riddles' AND repeat > 0 AND item = 1 ORDER BY repeat"
    assert rows(tmp_path / "lake", query) == [(1, 0.0), (2, 1.0)]
    [left_out] = report.rejects
    assert (left_out["kind"], report.files[left_out["file"]].stem) == ("left_out", "tmp_sums.jsonl")


def test_opencompass_equal_texts_are_no_verdict_where_the_results_state_another_accuracy(tmp_path: Path) -> None:
    report = imported("opencompass", CORPUS / "opencompass", tmp_path / "lake")
    query = "SELECT score, failure FROM records WHERE task = 'words'"
    assert rows(tmp_path / "lake", query) == [(None, "not_judged")] * 2
    assert [(one.kind, one.task) for one in report.suspicions] == [("odd_accuracy", "words")]


ONE = {"origin_prompt": "q", "prediction": "A", "gold": "A"}


@pytest.mark.parametrize(
    ("files", "tasks", "left_out"),
    [
        (["x_0", "x_1"], {"x": 2}, []),
        (["x_0", "x_1", "x_3"], {"x": 2}, ["x_3"]),
        (["x_1", "x_2"], {}, ["x_1", "x_2"]),
        (["x", "x_0", "x_1"], {"x": 1}, ["x_0", "x_1"]),
        (["x_7"], {"x_7": 1}, []),
        (["x", "tmp_x"], {"x": 1}, ["tmp_x"]),
    ],
)
def test_opencompass_parts_are_read_as_it_reads_them(
    tmp_path: Path, files: list[str], tasks: dict[str, int], left_out: list[str]
) -> None:
    for name in files:
        write_json(tmp_path / f"in/predictions/m/{name}.json", {"0": ONE})
    report = imported("opencompass", tmp_path / "in", tmp_path / "lake")
    assert [report.files[reject["file"]].stem.removesuffix(".json") for reject in report.rejects] == left_out
    if tasks:
        query = "SELECT task, count(*) FROM records GROUP BY task ORDER BY task"
        assert dict(rows(tmp_path / "lake", query)) == tasks


def test_opencompass_set_whose_name_ends_with_a_number_is_no_part(tmp_path: Path) -> None:
    for name in ("needle_0", "needle_1"):
        write_json(tmp_path / f"in/predictions/m/{name}.json", {"0": ONE})
        write_json(tmp_path / f"in/results/m/{name}.json", {"accuracy": 100, "details": [{"correct": True}]})
    imported("opencompass", tmp_path / "in", tmp_path / "lake")
    assert rows(tmp_path / "lake", "SELECT task, score FROM records ORDER BY task") == [
        ("needle_0", 1.0),
        ("needle_1", 1.0),
    ]


@pytest.mark.parametrize(
    ("detail", "score"),
    [
        ({"correct": False}, False),
        ({"is_correct": 1}, 1),
        ({"cascade_correct": True, "rule_evaluation": {"correct": False}}, True),
        ({"correct": [True, False]}, False),
        ({"pred": "a", "refr": "a"}, True),
        ({"predictions": "['a']", "references": ["a"]}, True),
        ({"pred": "a"}, None),
    ],
)
def test_opencompass_verdict_stands_under_one_of_its_names(detail: dict[str, Any], score: Any) -> None:
    accuracy = 100.0 if score in (None, True, 1) else 0.0
    results = _results_of({"accuracy": accuracy, "details": [detail]})
    assert (results.of(0), results.is_odd) == ((score, None), False)
