"""Files of evaluation programs are read as records."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.importing import CORPUS, imported, rows, write_json, write_lines

RECORDS = (
    "SELECT model, task, item, score, failure, prompt_tokens, completion_tokens, stated_usd FROM records ORDER BY ALL"
)


def imported_rows(tmp_path: Path, form: str, paths: Path | list[Path], **settings: Any) -> list[tuple[Any, ...]]:
    """Records of a fresh lake; nothing may be rejected."""
    report = imported(form, paths, tmp_path / "lake", **settings)
    assert [reject["message"] for reject in report.rejects] == []
    return rows(tmp_path / "lake", RECORDS)


DETAILS: dict[str, Callable[[float], dict[str, Any]]] = {
    "flat": lambda score: {"acc": score / 2, "acc_norm": score},
    "dotted": lambda score: {"metrics.acc": score / 2, "metrics.acc_norm": score},
    "struct": lambda score: {"metrics": {"acc": score / 2, "acc_norm": score}},
}


@pytest.mark.parametrize("layout", DETAILS)
def test_leaderboard_v1_details_of_three_layouts(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "details_org__model-7b"
    folder.mkdir()
    given = [
        {"example": f"q{i}", "choices": ["a", "b"], "gold": "a", **DETAILS[layout](score)}
        for i, score in enumerate((1.0, 0.0))
    ]
    pq.write_table(
        pa.Table.from_pylist(given), folder / "details_harness|arc:challenge|25_2023-08-01T00:00:00.000000.parquet"
    )
    assert [row[:4] for row in imported_rows(tmp_path, "leaderboard_v1", folder)] == [
        ("org/model-7b", "harness|arc:challenge|25", 0, 1.0),
        ("org/model-7b", "harness|arc:challenge|25", 1, 0.0),
    ]
    assert rows(tmp_path / "lake", "SELECT metric, num_fewshot FROM cells") == [("acc_norm", 25)]


def test_lighteval_details_of_structs_count_their_tokens(tmp_path: Path) -> None:
    folder = tmp_path / "details/org/model/2025-10-01T00-00-00.000000"
    folder.mkdir(parents=True)
    row = {
        "__doc__": {"query": "q", "choices": ["a", "b"], "gold_index": [0]},
        "__model_response__": {"input_tokens": [1, 2, 3], "output_tokens": [[4, 5]], "text": ["a"]},
        "__metric__": {"acc": 1.0},
    }
    pq.write_table(pa.Table.from_pylist([row]), folder / "details_lighteval|arc|0_2025-10-01T00-00-00.000000.parquet")
    assert imported_rows(tmp_path, "lighteval", tmp_path / "details") == [
        ("org/model", "lighteval|arc|0", 0, 1.0, None, 3, 2, None)
    ]


def test_helm_run(tmp_path: Path) -> None:
    folder = tmp_path / "runs/mmlu:subject=anatomy,model=org_m"
    spec = {
        "name": "mmlu:subject=anatomy,model=org_m",
        "adapter_spec": {"model": "org/m", "max_train_instances": 5, "temperature": 0.0},
    }
    instance = {
        "id": "id1",
        "input": {"text": "q"},
        "references": [{"output": {"text": "A"}, "tags": ["correct"]}, {"output": {"text": "B"}, "tags": []}],
    }
    request = {
        "instance": instance,
        "train_trial_index": 0,
        "result": {"success": True, "completions": [{"text": "A"}]},
    }
    stats = [
        {"name": {"name": n, "split": "test"}, "count": 1, "mean": v}
        for n, v in (("exact_match", 1.0), ("num_prompt_tokens", 50), ("num_completion_tokens", 1))
    ]
    write_json(folder / "run_spec.json", spec)
    write_json(folder / "scenario_state.json", {"adapter_spec": {}, "request_states": [request]})
    write_json(folder / "per_instance_stats.json", [{"instance_id": "id1", "train_trial_index": 0, "stats": stats}])
    assert imported_rows(tmp_path, "helm", tmp_path / "runs") == [
        ("org/m", "mmlu:subject=anatomy", 0, 1.0, None, 50, 1, None)
    ]
    assert rows(tmp_path / "lake", "SELECT prompt, choices, target FROM items") == [("q", ["A", "B"], '["A"]')]
    assert rows(tmp_path / "lake", "SELECT num_fewshot FROM cells") == [(5,)]


@pytest.mark.parametrize("kind", ["json", "eval"])
def test_inspect_log(tmp_path: Path, kind: str) -> None:
    header = {"version": 2, "status": "success", "eval": {"task": "quiz", "model": "openai/m", "config": {"epochs": 1}}}
    usage = {"openai/m": {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11, "input_tokens_cache_read": 4}}
    sample = {
        "id": "s1",
        "epoch": 1,
        "input": "q",
        "target": "A",
        "scores": {"choice": {"value": "C"}},
        "model_usage": usage,
    }
    failed = {
        "id": "s2",
        "epoch": 1,
        "input": [{"role": "user", "content": "r"}],
        "target": "B",
        "scores": {},
        "error": {"message": "x"},
    }
    path = tmp_path / f"log.{kind}"
    if kind == "json":
        write_json(path, {**header, "samples": [sample, failed]})
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("header.json", json.dumps(header))
            archive.writestr("samples/s1_epoch_1.json", json.dumps(sample))
            archive.writestr("samples/s2_epoch_1.json", json.dumps(failed))
    assert imported_rows(tmp_path, "inspect", path) == [
        ("openai/m", "quiz", 0, 1.0, None, 9, 2, None),
        ("openai/m", "quiz", 1, None, "failed_call", None, None, None),
    ]


def test_inspect_epochs_are_repeats_and_what_inspect_reduces_them_to_is_the_verdict(tmp_path: Path) -> None:
    about = {"task": "quiz", "model": "openai/m", "config": {"epochs": 2}}
    samples = [
        {"id": key, "epoch": epoch, "input": key, "target": "A", "scores": {"choice": {"value": value}}}
        for key, values in {"s1": "CI", "s2": "II"}.items()
        for epoch, value in enumerate(values, 1)
    ]
    reduced = {"scorer": "choice", "reducer": "mean", "samples": []}
    reduced["samples"] = [{"sample_id": "s1", "value": 0.5}, {"sample_id": "s2", "value": 0.0}]
    other = {**reduced, "scorer": "other", "samples": [{"sample_id": "s1", "value": 1.0}]}
    log = {"version": 2, "eval": about, "samples": samples}
    write_json(tmp_path / "with/log.json", {**log, "reductions": [other, reduced]})
    write_json(tmp_path / "without/log.json", log)
    query = "SELECT item, repeat, score FROM records ORDER BY ALL"
    repeats = [(0, 1, 1.0), (0, 2, 0.0), (1, 1, 0.0), (1, 2, 0.0)]
    for name, verdicts in (("with", [(0, 0, 0.5), (1, 0, 0.0)]), ("without", [])):
        report = imported("inspect", tmp_path / name, tmp_path / f"lake-{name}")
        assert (report.total.rejected, report.total.records) == (0, 4 + len(verdicts))
        assert rows(tmp_path / f"lake-{name}", query) == sorted([*repeats, *verdicts])


def test_opencompass_answers_with_and_without_verdicts(tmp_path: Path) -> None:
    one = {"origin_prompt": "q", "prediction": "A", "gold": "A"}
    write_json(tmp_path / "out/predictions/m/quiz.json", {"0": one, "1": {**one, "prediction": "B"}})
    write_json(tmp_path / "out/predictions/m/other.json", {"0": one})
    write_json(
        tmp_path / "out/results/m/quiz.json",
        {"accuracy": 50, "details": {"0": {"correct": True}, "1": {"correct": False}}},
    )
    assert [row[:5] for row in imported_rows(tmp_path, "opencompass", tmp_path / "out")] == [
        ("m", "other", 0, None, "not_judged"),
        ("m", "quiz", 0, 1.0, None),
        ("m", "quiz", 1, 0.0, None),
    ]


@pytest.mark.parametrize(
    ("sets", "judged", "tasks"),
    [
        (["x_1"], [], {"x_1": 2}),
        (["x_0"], [], {"x_0": 2}),
        (["x_0", "x_1"], [], {"x": 4}),
        (["x_0", "x_1"], ["x"], {"x": 4}),
        (["x_0", "x_1"], ["x_1"], {"x_0": 2, "x_1": 2}),
        (["x_0", "x_1"], ["x_0", "x_1"], {"x_0": 2, "x_1": 2}),
        (["x", "x_1"], [], {"x": 2, "x_1": 2}),
    ],
)
def test_opencompass_sets_whose_names_end_like_those_of_parts_are_sets(
    tmp_path: Path, sets: list[str], judged: list[str], tasks: dict[str, int]
) -> None:
    for name in sets:
        value = {str(n): {"origin_prompt": f"{name} {n}", "prediction": "A"} for n in range(2)}
        write_json(tmp_path / f"out/predictions/m/{name}.json", value)
    for name in judged:
        many = 2 if name in sets else 4
        write_json(tmp_path / f"out/results/m/{name}.json", {"accuracy": 100, "details": [{"correct": True}] * many})
    report = imported("opencompass", tmp_path / "out", tmp_path / "lake")
    assert report.rejects == []
    assert dict(rows(tmp_path / "lake", "SELECT task, count(*) FROM records GROUP BY 1")) == tasks


def test_helm_count_below_zero_is_unknown(tmp_path: Path) -> None:
    shutil.copytree(CORPUS / "helm", tmp_path / "helm")
    for path in (tmp_path / "helm").rglob("per_instance_stats.json"):
        text = json.loads(path.read_text())
        for stat in text[0]["stats"]:
            if stat["name"]["name"] in ("num_prompt_tokens", "num_output_tokens"):
                stat |= {"sum": -1, "mean": -1.0}
        write_json(path, text)
    report = imported("helm", tmp_path / "helm", tmp_path / "lake")
    assert report.rejects == []
    query = "SELECT count(*), min(prompt_tokens) > 0, min(completion_tokens) > 0 FROM records WHERE item > 0"
    assert rows(tmp_path / "lake", f"{query} AND prompt_tokens IS NULL") == [(0, None, None)]
    assert rows(tmp_path / "lake", "SELECT count(*) > 0 FROM records WHERE prompt_tokens IS NULL") == [(True,)]


def test_every_eval_ever(tmp_path: Path) -> None:
    row = {
        "model_id": "org/m",
        "evaluation_name": "quiz",
        "sample_id": "1",
        "input": {"raw": "q", "reference": ["A"]},
        "output": {"raw": ["A"]},
        "evaluation": {"score": 1.0, "is_correct": True},
        "token_usage": {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6},
        "performance": {"latency_ms": 20.0},
    }
    path = write_lines(tmp_path / "x_samples.jsonl", [row])
    assert imported_rows(tmp_path, "every_eval_ever", path) == [("org/m", "quiz", 0, 1.0, None, 5, 1, None)]
    assert rows(tmp_path / "lake", "SELECT latency_s, correct FROM records") == [(0.02, True)]
