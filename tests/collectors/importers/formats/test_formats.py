"""Each format's own layout, and other people's records through it: every row in, none made up."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.importers.registry import FORMATS
from tests.helpers.importing import SHARED, imported, rows, write_json, write_lines

RECORDS = (
    "SELECT model, task, item, score, failure, prompt_tokens, completion_tokens, stated_usd FROM records ORDER BY ALL"
)


def found(tmp_path: Path, form: str, paths: Path | list[Path], **facts: Any) -> list[tuple[Any, ...]]:
    """Records of a fresh lake; nothing may be rejected."""
    report = imported(form, paths, tmp_path / "lake", **facts)
    assert [reject["message"] for reject in report.rejects] == []
    return rows(tmp_path / "lake", RECORDS)


# ---- router benchmarks


def wide() -> pd.DataFrame:
    columns = {
        "sample_id": ["arc.1", "arc.2"],
        "prompt": ["['What is 1?']", "['What is 2?']"],
        "eval_name": ["arc", "arc"],
        "gpt": [1.0, 0.25],
        "gpt|model_response": ["['A']", "['B']"],
        "gpt|total_cost": [0.01, 0.02],
        "mistralai/mixtral-8x7b-chat": [0.0, 1.0],
        "mistralai/mixtral-8x7b-chat|model_response": ["['C']", "['D']"],
        "mistralai/mixtral-8x7b-chat|total_cost": [0.001, 0.0],
        "oracle_model_to_route_to": ["gpt", "gpt"],
    }
    frame = pd.DataFrame(columns)
    frame = frame.astype({name: object for name in frame.columns if frame[name].dtype.kind not in "fi"})
    return frame.set_axis(pd.Index(list(frame.columns), dtype=object), axis=1)


@pytest.mark.parametrize("kind", ["csv", "pkl", "parquet", "long.csv", "long.parquet"])
def test_routerbench_wide_and_long_are_the_same_records(tmp_path: Path, kind: str) -> None:
    frame, path = wide(), tmp_path / f"routerbench.{kind}"
    if kind.startswith("long"):
        parts = [
            frame[["sample_id", "prompt", "eval_name"]].assign(
                performance=frame[m],
                model_response=frame[f"{m}|model_response"],
                model_name=m,
                cost=frame[f"{m}|total_cost"],
            )
            for m in ("gpt", "mistralai/mixtral-8x7b-chat")
        ]
        frame = pd.concat(parts)
    if kind == "pkl":
        path.write_bytes(pickle.dumps(frame, 4))
    elif kind.endswith("csv"):
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    assert found(tmp_path, "routerbench", path) == [
        ("gpt", "arc", 0, 1.0, None, None, None, 0.01),
        ("gpt", "arc", 1, 0.25, None, None, None, 0.02),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "arc", 0, 0.0, None, None, None, 0.001),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "arc", 1, 1.0, None, None, None, 0.0),
    ]
    assert rows(tmp_path / "lake", "SELECT prompt, source_key FROM items ORDER BY item")[0] == (
        "['What is 1?']",
        "arc.1",
    )
    assert rows(tmp_path / "lake", "SELECT responses FROM responses ORDER BY model, item")[0] == (["['A']"],)


def test_routereval_matrices_and_prompts(tmp_path: Path) -> None:
    value = {"model": ["m1", "m2"], "data": {"arc": {"correctness": np.array([[1, 0], [0, 1], [1, np.nan]])}}}
    (tmp_path / "in").mkdir()
    (tmp_path / "in/leaderboard_old.pkl").write_bytes(pickle.dumps(value))
    (tmp_path / "in/leaderboard_old_prompt.pkl").write_bytes(pickle.dumps({"arc": np.array(["p0", "p1", "p2"])}))
    report = imported("routereval", tmp_path / "in", tmp_path / "lake")
    assert [reject["kind"] for reject in report.rejects] == ["not_finite"]
    assert rows(
        tmp_path / "lake", "SELECT model, item, score, prompt FROM records JOIN items USING (task, item) ORDER BY ALL"
    ) == [
        ("m1", 0, 1.0, "p0"),
        ("m1", 1, 0.0, "p1"),
        ("m1", 2, 1.0, "p2"),
        ("m2", 0, 0.0, "p0"),
        ("m2", 1, 1.0, "p1"),
    ]


def test_routerdc(tmp_path: Path) -> None:
    path = write_json(tmp_path / "gsm8k-test.json", [{"question": "q", "scores": {"a": 0.3, "b": 1}, "cluster_id": 2}])
    assert found(tmp_path, "routerdc", path) == [
        ("a", "gsm8k-test", 0, 0.3, None, None, None, None),
        ("b", "gsm8k-test", 0, 1.0, None, None, None, None),
    ]


def test_routerdc_files_called_alike_are_tasks_of_their_own(tmp_path: Path) -> None:
    for split, question in (("train", "A?"), ("test", "B?")):
        write_json(tmp_path / f"in/{split}/gsm.json", [{"question": question, "scores": {"a": 1.0}}])
    assert [row[1] for row in found(tmp_path, "routerdc", tmp_path / "in")] == ["test/gsm", "train/gsm"]


def test_lighteval_details_of_two_times_are_two_runs(tmp_path: Path) -> None:
    folder = tmp_path / "details_org__model"
    folder.mkdir()
    for day, question, score in ((1, "A?", 1.0), (2, "B?", 0.0)):
        values = pa.Table.from_pylist([{"example": question, "acc": score}])
        pq.write_table(values, folder / f"details_quiz_2025-10-0{day}T00-00-00.000000.parquet")
    assert [row[3] for row in found(tmp_path, "lighteval", folder)] == [0.0, 1.0]
    assert rows(
        tmp_path / "lake", "SELECT prompt, score FROM matrix JOIN items USING (task, items_digest, item) ORDER BY 1"
    ) == [
        ("A?", 1.0),
        ("B?", 0.0),
    ]


def test_embedllm(tmp_path: Path) -> None:
    given = {
        "prompt_id": [7, 7, 9],
        "model_id": [0, 1, 0],
        "model_name": ["a", "b", "a"],
        "category": ["x", "x", "y"],
        "label": [1, 0, 1],
    }
    (tmp_path / "in").mkdir()
    pd.DataFrame({**given, "prompt": ["p7", "p7", "p9"]}).to_csv(tmp_path / "in/train.csv", index=False)
    pd.DataFrame({"prompt_id": [7, 9], "prompt": ["p7", "p9"]}).to_csv(tmp_path / "in/question_order.csv", index=False)
    assert found(tmp_path, "embedllm", tmp_path / "in") == [
        ("a", "x", 0, 1.0, None, None, None, None),
        ("a", "y", 0, 1.0, None, None, None, None),
        ("b", "x", 0, 0.0, None, None, None, None),
    ]


def test_routellm(tmp_path: Path) -> None:
    path = tmp_path / "gsm8k_responses.csv"
    pd.DataFrame(
        {"prompt": ["p", "q"], "weak": [True, False], "strong": [True, True], "weak_response": ["1", "2"]}
    ).to_csv(path, index=False)
    assert [row[:4] for row in found(tmp_path, "routellm", path)] == [
        ("strong", "gsm8k", 0, 1.0),
        ("strong", "gsm8k", 1, 1.0),
        ("weak", "gsm8k", 0, 1.0),
        ("weak", "gsm8k", 1, 0.0),
    ]
    assert rows(tmp_path / "lake", "SELECT model, responses FROM responses ORDER BY ALL") == [
        ("weak", ["1"]),
        ("weak", ["2"]),
    ]


def test_llmrouter(tmp_path: Path) -> None:
    row = {
        "task_name": "t",
        "query": "q",
        "ground_truth": "1",
        "metric": "em",
        "task_id": "t_0",
        "model_name": "a",
        "response": "1",
    }
    row |= {
        "token_num": 7,
        "input_tokens": 5,
        "output_tokens": 2,
        "response_time": 0.5,
        "performance": 1.0,
        "choices": None,
    }
    path = write_lines(tmp_path / "routing.jsonl", [row, {**row, "model_name": "b", "performance": 0.0}])
    assert found(tmp_path, "llmrouter", path) == [
        ("a", "t", 0, 1.0, None, 5, 2, None),
        ("b", "t", 0, 0.0, None, 5, 2, None),
    ]


@pytest.mark.parametrize("says", [True, False])
def test_llmrouterbench(tmp_path: Path, says: bool) -> None:
    record = {
        "index": 0,
        "origin_query": "q",
        "prompt": "…",
        "prediction": "1",
        "ground_truth": "1",
        "score": 1.0,
        "raw_output": "so 1",
    }
    value: dict[str, Any] = {"records": [{**record, "prompt_tokens": 5, "completion_tokens": 9, "cost": 0.001}]}
    if says:
        value |= {"dataset_name": "aime", "split": "test", "model_name": "m"}
    write_json(tmp_path / "bench/aime/test/m/aime-test-m-20260101_000000.json", value)
    assert found(tmp_path, "llmrouterbench", tmp_path / "bench") == [("m", "aime/test", 0, 1.0, None, 5, 9, 0.001)]


def test_routerarena_a_failed_call_is_no_wrong_answer(tmp_path: Path) -> None:
    row = {"global_index": "ArcMMLU_1", "question": "q", "llm_selected": "m", "generated_answer": "A", "success": True}
    row |= {
        "token_usage": {"input_tokens": 5, "output_tokens": 1},
        "evaluation_result": {"score": 1.0, "inference_cost": 0.1},
    }
    failed = {
        **row,
        "global_index": "ArcMMLU_2",
        "success": False,
        "generated_answer": "",
        "evaluation_result": {"score": 0.0},
    }
    path = write_lines(tmp_path / "m.jsonl", [row, failed])
    assert found(tmp_path, "routerarena", path) == [
        ("m", "ArcMMLU", 0, 1.0, None, 5, 1, 0.1),
        ("m", "ArcMMLU", 1, None, "failed_call", 5, 1, None),
    ]


# ---- evaluation programs


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
    assert [row[:4] for row in found(tmp_path, "leaderboard_v1", folder)] == [
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
    assert found(tmp_path, "lighteval", tmp_path / "details") == [
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
    assert found(tmp_path, "helm", tmp_path / "runs") == [("org/m", "mmlu:subject=anatomy", 0, 1.0, None, 50, 1, None)]
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
    assert found(tmp_path, "inspect", path) == [
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
    told = "SELECT item, repeat, score FROM records ORDER BY ALL"
    repeats = [(0, 1, 1.0), (0, 2, 0.0), (1, 1, 0.0), (1, 2, 0.0)]
    for name, verdicts in (("with", [(0, 0, 0.5), (1, 0, 0.0)]), ("without", [])):
        report = imported("inspect", tmp_path / name, tmp_path / f"lake-{name}")
        assert (report.total.rejected, report.total.records) == (0, 4 + len(verdicts))
        assert rows(tmp_path / f"lake-{name}", told) == sorted([*repeats, *verdicts])


def test_opencompass_answers_with_and_without_verdicts(tmp_path: Path) -> None:
    one = {"origin_prompt": "q", "prediction": "A", "gold": "A"}
    write_json(tmp_path / "out/predictions/m/quiz.json", {"0": one, "1": {**one, "prediction": "B"}})
    write_json(tmp_path / "out/predictions/m/other.json", {"0": one})
    write_json(
        tmp_path / "out/results/m/quiz.json",
        {"accuracy": 50, "details": {"0": {"correct": True}, "1": {"correct": False}}},
    )
    assert [row[:5] for row in found(tmp_path, "opencompass", tmp_path / "out")] == [
        ("m", "other", 0, None, "not_judged"),
        ("m", "quiz", 0, 1.0, None),
        ("m", "quiz", 1, 0.0, None),
    ]


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
    assert found(tmp_path, "every_eval_ever", path) == [("org/m", "quiz", 0, 1.0, None, 5, 1, None)]
    assert rows(tmp_path / "lake", "SELECT latency_s, correct FROM records") == [(0.02, True)]


# ---- what is none of it


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "table"])
def test_files_of_another_layout_are_rejected_with_what_is_wrong(tmp_path: Path, form: str) -> None:
    given = [tmp_path / "x.json", tmp_path / "x.jsonl", tmp_path / "leaderboard_x.pkl", tmp_path / "details_x.parquet"]
    values = [b'{"a": [1, {"b": null}]}', b'[1]\n"x"\n{"score": {}}\n', pickle.dumps([1, 2]), b"PAR1 no table PAR1"]
    for path, value in zip(given, values, strict=True):
        path.write_bytes(value)
    report = imported(form, given, tmp_path / "lake", model="m")
    assert report.total.records == 0
    assert report.rejects or form == "opencompass"
    assert all(reject["message"] and "\n" not in reject["message"] for reject in report.rejects)


# ---- other people's records, whole

real = pytest.mark.skipif(not SHARED.exists(), reason="real records are not on this machine")
TIDY = {"model": "model", "task": "task", "key": "item_id", "score": "score"}


@real
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llmrouter_9model", {}),
        ("routellm", {"response": "response", "high": 10}),  # mt_bench's points
        (
            "routerbench_mini",
            {"filter": "strategy", "usd": "cost_usd", "latency_s": "latency_s", "prompt_tokens": "prompt_tokens"},
        ),
        ("routerbench_sub", {"usd": "cost_usd", "response": "response"}),
    ],
)
def test_tidy_tables_of_others_come_in_whole(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    path = SHARED / "records" / name / "records.parquet"
    report = imported("table", path, tmp_path / "lake", options={**TIDY, **settings})
    [(given, total)] = duckdb.execute("SELECT count(*), sum(score) FROM read_parquet(?)", [str(path)]).fetchall()
    assert report.total.rows == given
    assert report.total.records == given - report.total.rejected - report.total.folded
    assert report.total.rejected == (154 if name == "routerbench_sub" else 0)
    [(stored, score)] = rows(tmp_path / "lake", "SELECT count(*), sum(score) FROM records")
    assert (stored, score) == (report.total.records, pytest.approx(total))


@real
@pytest.mark.slow
def test_tidy_table_of_thousands_of_models_comes_in_whole(tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    source = SHARED / "records/metabench_a/records.parquet"
    duckdb.execute(f"COPY (SELECT * FROM '{source}' WHERE hash(model) % 20 = 0) TO '{path}'")
    report = imported("table", path, tmp_path / "lake", options=TIDY)
    [(given, total)] = duckdb.execute("SELECT count(*), sum(score) FROM read_parquet(?)", [str(path)]).fetchall()
    assert (report.total.rows, report.total.records) == (given, given)
    assert rows(tmp_path / "lake", "SELECT sum(score) FROM records") == [(total,)]


#: Means that others computed of the same records: RouteLLM's repository, and RouterBench's five-shot files.
PUBLISHED = {
    "routellm": {
        ("gsm8k", "gpt-4-1106-preview"): 0.8567,
        ("gsm8k", "mistralai/Mixtral-8x7B-Instruct-v0.1"): 0.6384,
        ("mmlu", "gpt-4-1106-preview"): 0.8058,
        ("mmlu", "mistralai/Mixtral-8x7B-Instruct-v0.1"): 0.6808,
    },
    "routerbench_sub": {
        ("arc-challenge", "gpt-4-1106-preview"): 0.9544,
        ("arc-challenge", "WizardLM/WizardLM-13B-V1.2"): 0.6592,
        ("mbpp", "gpt-4-1106-preview"): 0.6862,
        ("mbpp", "claude-v2"): 0.6417,
        ("winogrande", "gpt-4-1106-preview"): 0.8587,
        ("winogrande", "meta/llama-2-70b-chat"): 0.5028,
    },
}


@real
@pytest.mark.parametrize("name", PUBLISHED)
def test_means_of_others_records_are_those_that_they_published(tmp_path: Path, name: str) -> None:
    options = {**TIDY, "high": 10, "response": "response"}
    imported("table", SHARED / "records" / name / "records.parquet", tmp_path / "lake", options=options)
    means = rows(
        tmp_path / "lake",
        "SELECT CASE WHEN task LIKE 'mmlu%' THEN 'mmlu' ELSE task END AS test, model, avg(score) "
        "FROM matrix GROUP BY ALL",
    )
    found = {(task, model): round(mean, 4) for task, model, mean in means}
    assert {key: found[key] for key in PUBLISHED[name]} == PUBLISHED[name]
