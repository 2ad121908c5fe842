"""Layouts of router benchmarks: every row in, none made up; files of another layout are refused."""

from __future__ import annotations

import decimal
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.importers.registry import FORMATS
from tests.helpers.importing import COLUMNS, imported, rows, write_json, write_lines
from tests.helpers.lm_eval_releases import TIME
from tests.helpers.thorough import long_only

RECORDS = (
    "SELECT model, task, item, score, failure, prompt_tokens, completion_tokens, stated_usd FROM records ORDER BY ALL"
)


def imported_rows(tmp_path: Path, form: str, paths: Path | list[Path], **settings: Any) -> list[tuple[Any, ...]]:
    """Records of a fresh lake; nothing may be rejected."""
    report = imported(form, paths, tmp_path / "lake", **settings)
    assert [reject["message"] for reject in report.rejects] == []
    return rows(tmp_path / "lake", RECORDS)


# ---- router benchmarks


def test_routerbench_wide_model_without_a_cost_comes_in_without_one_and_others_are_named(tmp_path: Path) -> None:
    head = "sample_id,prompt,eval_name,a,a|model_response,a|total_cost,b,b|model_response,c,c|total_cost,d,e|total_cost"
    values = ["arc.1,q,arc,1,x,0.5,0.25,y,1,0.1,1,0.2,[0],n", "arc.2,q2,arc,0,x,0.5,1,y,0,0.1,,0.2,[0],n"]
    (tmp_path / "t.csv").write_text("\n".join([f"{head},embedding,note", *values]) + "\n")
    report = imported("routerbench", tmp_path / "t.csv", tmp_path / "lake")
    assert rows(tmp_path / "lake", "SELECT model, score, stated_usd FROM records ORDER BY ALL") == [
        *[("a", 0.0, 0.5), ("a", 1.0, 0.5), ("b", 0.25, None), ("b", 1.0, None), ("c", 0.0, 0.1), ("c", 1.0, 0.1)]
    ]
    assert report.total.rejected == 0
    assert [(one["kind"], one["message"].split("'")[1]) for one in report.rejects] == [
        ("unknown_layout", "d"),
        ("unknown_layout", "e"),
    ]


def test_table_of_wide_decimals_is_exact_or_refused_by_the_columns_name(tmp_path: Path) -> None:
    given = ["0.1", "0.02834747652200631", "0.5"]
    for digits, kind in ((38, pa.decimal128(38, 20)), (60, pa.decimal256(60, 20))):
        columns = {"model": ["m"] * 3, "task": ["t"] * 3, "id": ["a", "b", "c"]}
        scores = pa.array([decimal.Decimal(one) for one in given], kind)
        pq.write_table(pa.table({**columns, "score": scores}), tmp_path / f"{digits}.parquet")
    imported("table", tmp_path / "38.parquet", tmp_path / "lake", options=COLUMNS)
    assert rows(tmp_path / "lake", "SELECT score FROM records ORDER BY item") == [(float(one),) for one in given]
    [reject] = imported("table", tmp_path / "60.parquet", tmp_path / "other", options=COLUMNS).rejects
    assert (reject["kind"], "'score'" in reject["message"]) == ("unknown_layout", True)


def test_scores_below_zero_are_scores_where_nothing_bounds_the_metric(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sample_id,eval_name,m,m|total_cost\na.1,a,-0.033,1\na.2,a,-7,1\n")
    report = imported("routerbench", tmp_path / "t.csv", tmp_path / "lake")
    assert [(one["kind"], one["source_row"]) for one in report.rejects] == [("out_of_range", 2)]
    assert rows(tmp_path / "lake", "SELECT score, correct FROM records") == [(-0.033, False)]
    for metric, rejected in (("f1_bert", 0), ("embedding_similarity", 0), ("rouge1", 0), ("acc", 1), ("em", 1)):
        lines = [
            {"doc_id": n, "doc": {"q": n}, "arguments": [["a", {}]], "metrics": [metric], metric: score}
            for n, score in enumerate((0.5, -0.033))
        ]
        path = write_lines(tmp_path / metric / f"samples_t_{TIME}.jsonl", lines)
        assert imported("lm_eval", path, tmp_path / "other", model=metric).total.rejected == rejected, metric


@pytest.mark.parametrize("groups", [300, pytest.param(3000, marks=long_only)])
def test_table_of_many_small_row_groups_is_read_in_its_order(tmp_path: Path, groups: int) -> None:
    schema = pa.schema([("model", pa.string()), ("task", pa.string()), ("id", pa.string()), ("score", pa.float64())])
    with pq.ParquetWriter(tmp_path / "t.parquet", schema) as writer:
        for n in range(groups):
            columns = {"model": ["m"], "task": ["t"], "id": [f"q{n}"], "score": [float(n % 2)]}
            writer.write_table(pa.table(columns, schema=schema))
    report = imported("table", tmp_path / "t.parquet", tmp_path / "lake", options=COLUMNS)
    assert (report.total.records, report.rejects) == (groups, [])
    query = (
        "SELECT count(*) FROM records JOIN items USING (task, item) "
        "WHERE source_key = 'q' || item AND score = item % 2 AND source_row = item + 1"
    )
    assert rows(tmp_path / "lake", query) == [(groups,)]


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


@pytest.mark.few(3)
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
    assert imported_rows(tmp_path, "routerbench", path) == [
        ("gpt", "arc", 0, 1.0, None, None, None, 0.01),
        ("gpt", "arc", 1, 0.25, None, None, None, 0.02),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "arc", 0, 0.0, None, None, None, 0.001),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "arc", 1, 1.0, None, None, None, 0.0),
    ]
    assert rows(tmp_path / "lake", "SELECT prompt, source_key FROM items ORDER BY item")[0] == (
        "What is 1?",
        "arc.1",
    )
    assert rows(tmp_path / "lake", "SELECT responses FROM responses ORDER BY model, item")[0] == (["A"],)


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
    assert imported_rows(tmp_path, "routerdc", path) == [
        ("a", "gsm8k-test", 0, 0.3, None, None, None, None),
        ("b", "gsm8k-test", 0, 1.0, None, None, None, None),
    ]


def test_routerdc_question_without_a_score_is_rejected_by_its_row(tmp_path: Path) -> None:
    lines = [{"question": "q", "scores": {"a": 1}}, {"question": "p", "scores": {}}]
    report = imported("routerdc", write_json(tmp_path / "t.json", lines), tmp_path / "lake")
    assert [(one["kind"], one["source_row"]) for one in report.rejects] == [("unknown_layout", 2)]


def test_routerdc_files_called_alike_are_tasks_of_their_own(tmp_path: Path) -> None:
    for split, question in (("train", "A?"), ("test", "B?")):
        write_json(tmp_path / f"in/{split}/gsm.json", [{"question": question, "scores": {"a": 1.0}}])
    assert [row[1] for row in imported_rows(tmp_path, "routerdc", tmp_path / "in")] == ["test/gsm", "train/gsm"]


def test_lighteval_details_of_two_times_are_two_runs(tmp_path: Path) -> None:
    folder = tmp_path / "details_org__model"
    folder.mkdir()
    for day, question, score in ((1, "A?", 1.0), (2, "B?", 0.0)):
        values = pa.Table.from_pylist([{"example": question, "acc": score}])
        pq.write_table(values, folder / f"details_quiz_2025-10-0{day}T00-00-00.000000.parquet")
    assert [row[3] for row in imported_rows(tmp_path, "lighteval", folder)] == [0.0, 1.0]
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
    assert imported_rows(tmp_path, "embedllm", tmp_path / "in") == [
        ("a", "x", 0, 1.0, None, None, None, None),
        ("a", "y", 0, 1.0, None, None, None, None),
        ("b", "x", 0, 0.0, None, None, None, None),
    ]


def test_routellm(tmp_path: Path) -> None:
    path = tmp_path / "gsm8k_responses.csv"
    pd.DataFrame(
        {"prompt": ["p", "q"], "weak": [True, False], "strong": [True, True], "weak_response": ["1", "2"]}
    ).to_csv(path, index=False)
    assert [row[:4] for row in imported_rows(tmp_path, "routellm", path)] == [
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
    assert imported_rows(tmp_path, "llmrouter", path) == [
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
    assert imported_rows(tmp_path, "llmrouterbench", tmp_path / "bench") == [
        ("m", "aime/test", 0, 1.0, None, 5, 9, 0.001)
    ]


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
    assert imported_rows(tmp_path, "routerarena", path) == [
        ("m", "ArcMMLU", 0, 1.0, None, 5, 1, 0.1),
        ("m", "ArcMMLU", 1, None, "failed_call", 5, 1, None),
    ]


# ---- files of no format


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
