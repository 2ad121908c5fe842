"""Files of router benchmarks in the layout of their writers, and the figures that they state of their rows.

The files of golden/imports have the layouts of pandas 3.1.1, and of LLMRouterBench, RouterArena and RouterEval as of
their commits 46d48d4, 2fd498f and 2edf54d.
"""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.importers.unwrapping import text_of_list
from schemas.identity import content_hash
from tests.helpers.importing import CORPUS, imported, rows, write_json, write_lines


def stated(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# ---- LLMRouterBench


def test_llmrouterbench_the_newest_run_is_the_sources_own_and_gives_its_totals(tmp_path: Path) -> None:
    report = imported("llmrouterbench", CORPUS / "llmrouterbench", tmp_path / "lake")
    folder = CORPUS / "llmrouterbench/results/bench/sums/test"
    query = """
    SELECT avg(score), sum(prompt_tokens), sum(completion_tokens), sum(stated_usd)
    FROM records JOIN cells USING (cell_id) WHERE imported_from = '{}' AND records.model = '{}'
    """
    for run, name in (
        ("llmrouterbench", "Qwen3-8B/sums-test-Qwen3-8B-20250201_000000"),
        ("llmrouterbench#2", "Qwen3-8B/sums-test-Qwen3-8B-20250101_000000"),
        ("llmrouterbench", "gpt-5/sums-test-gpt-5-20250115_101010"),
    ):
        summary = stated(folder / f"{name}.json")
        figures = [summary[one] for one in ("performance", "prompt_tokens", "completion_tokens", "cost")]
        [stored] = rows(tmp_path / "lake", query.format(run, summary["model_name"]))
        assert stored == pytest.approx(figures)
    assert [reject["kind"] for reject in report.rejects] == ["left_out"], "the file of a trial"


def test_llmrouterbench_run_without_a_time_is_older_than_all_others_and_never_mixes(tmp_path: Path) -> None:
    source = CORPUS / "llmrouterbench/results/bench/sums/test/Qwen3-8B"
    folder = tmp_path / "in/sums/test/Qwen3-8B"
    folder.mkdir(parents=True)
    shutil.copy(source / "sums-test-Qwen3-8B-20250101_000000.json", folder / "result.json")
    shutil.copy(source / "sums-test-Qwen3-8B-20250201_000000.json", folder)
    imported("llmrouterbench", tmp_path / "in", tmp_path / "lake")
    query = (
        "SELECT imported_from, list(score ORDER BY item) FROM records JOIN cells USING (cell_id) GROUP BY 1 ORDER BY 1"
    )
    assert rows(tmp_path / "lake", query) == [
        ("llmrouterbench", [1.0, 1.0, None]),
        ("llmrouterbench#2", [1.0, 0.0, 1.0]),
    ]


def test_llmrouterbench_failed_call_has_failed_and_cost_nothing_known(tmp_path: Path) -> None:
    imported("llmrouterbench", CORPUS / "llmrouterbench", tmp_path / "lake")
    query = "SELECT failure, score, prompt_tokens, completion_tokens, stated_usd FROM records WHERE failure IS NOT NULL"
    assert rows(tmp_path / "lake", query) == [("failed_call", None, None, None, None)]


def test_llmrouterbench_zeros_that_nobody_counted_are_no_tokens_and_no_price(tmp_path: Path) -> None:
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0.0}
    records = [
        {"index": 1, "origin_query": "q1", "raw_output": "a", "score": 1.0, "extra_fields": {"score": 0.5}, **nothing},
        {"index": 2, "origin_query": "q2", "raw_output": "", "score": 0.0, **nothing, "prompt_tokens": 7},
    ]
    folder = tmp_path / "bench" / "quiz" / "test" / "m"
    write_json(folder / "quiz-test-m-20260102_030405.json", {"records": records})
    imported("llmrouterbench", tmp_path / "bench", tmp_path / "lake")
    query = "SELECT score, metrics, prompt_tokens, completion_tokens, stated_usd FROM records ORDER BY item"
    assert rows(tmp_path / "lake", query) == [(1.0, '{"score":1.0}', None, None, None), (0.0, None, 7, 0, 0.0)]


# ---- RouterArena


def test_routerarena_reasoning_that_stands_in_the_total_alone_is_counted(tmp_path: Path) -> None:
    report = imported("routerarena", CORPUS / "routerarena/cached_results", tmp_path / "lake")
    query = """
    SELECT source_key, score, failure, prompt_tokens, completion_tokens, stated_usd
    FROM records JOIN items USING (task, item) JOIN cells USING (cell_id)
    WHERE imported_from = 'routerarena' ORDER BY 1
    """
    assert rows(tmp_path / "lake", query) == [
        ("MMLU_0", 1.0, None, 92, 2408, 1e-5),
        ("MMLU_1", 1.0, None, 90, 7, 1e-5),
        ("MMLU_2", None, "failed_call", None, None, None),
        ("MMLU_3", 0.0, None, None, None, None),  # nobody counted its tokens
        ("MMLU_4", 0.0, None, None, None, 1e-5),  # 90 and 20 tokens, 60 in all
        ("MMLU_5", None, "not_judged", 90, 5, None),
    ]
    assert "odd_total" in {one.kind for one in report.suspicions}
    assert rows(tmp_path / "lake", "SELECT DISTINCT imported_from FROM cells ORDER BY 1") == [
        ("routerarena",),
        ("routerarena#2",),
    ], "its second run of an item"


def test_routerarena_runs_and_failures_that_are_given_as_texts_are_read(tmp_path: Path) -> None:
    lines = [
        {"global_index": "t_1", "llm_selected": "m", "run_number": run, "success": success, "generated_answer": "a"}
        | {"evaluation_result": {"score": score}}
        for run, success, score in ((1, True, 1), ("2", "True", 0), ("3", "False", 1), ("1.0", "true", 1))
    ]
    report = imported("routerarena", write_lines(tmp_path / "m.jsonl", lines), tmp_path / "lake")
    assert (report.total.folded, report.rejects) == (1, [])
    query = "SELECT imported_from, score, failure FROM records JOIN cells USING (cell_id) ORDER BY 1"
    assert rows(tmp_path / "lake", query) == [
        ("routerarena", 1.0, None),
        ("routerarena#2", 0.0, None),
        ("routerarena#3", None, "failed_call"),
    ]


def test_routerarena_predictions_are_the_answers_of_the_models_that_a_router_chose(tmp_path: Path) -> None:
    report = imported("routerarena", CORPUS / "routerarena/router_inference", tmp_path / "lake")
    query = "SELECT model, source_key, score, stated_usd FROM records JOIN items USING (task, item) ORDER BY ALL"
    assert rows(tmp_path / "lake", query) == [
        ("gpt-4.1", "MMLU_0", 0.0, 5e-4),
        ("gpt-4.1", "MMLU_1", 1.0, 5e-4),
        ("xai/thinker", "MMLU_0", 1.0, 2e-5),
    ]
    assert [(reject["kind"], reject["source_row"]) for reject in report.rejects] == [
        ("left_out", None),
        ("no_verdict", 4),
    ]


def test_routerarena_a_router_and_the_cache_never_share_a_cell(tmp_path: Path) -> None:
    imported("routerarena", CORPUS / "routerarena", tmp_path / "lake")
    query = """
    SELECT imported_from, score FROM records JOIN cells USING (cell_id)
    WHERE records.model = 'xai/thinker' AND item = 0 ORDER BY ALL
    """
    assert rows(tmp_path / "lake", query) == [("routerarena", 1.0), ("routerarena#2", 1.0), ("routerarena#3", 0.0)]
    assert rows(tmp_path / "lake", "SELECT count(DISTINCT items_digest) FROM items") == [(1,)]


# ---- RouterEval, RouterBench


@pytest.mark.parametrize("first", [["leaderboard_score", "leaderboard_prompt"], ["router_dataset"]])
def test_routereval_router_data_set_and_leaderboard_of_a_task_are_one_task(tmp_path: Path, first: list[str]) -> None:
    data = CORPUS / "routereval/data"
    one = imported("routereval", [data / name for name in first], tmp_path / "lake")
    both = imported("routereval", data, tmp_path / "lake")
    assert (one.total.records, one.total.rejected) == (60, 0)
    assert (both.total.rows, both.total.records, both.rejects) == (120, 0, [])
    assert rows(tmp_path / "lake", "SELECT task, count(*) FROM records GROUP BY 1") == [("harness_gsm8k_5", 60)]


@pytest.mark.parametrize("changed", [False, True])
def test_routereval_router_data_set_of_several_tasks_beside_their_leaderboard_is_left_out(
    tmp_path: Path, changed: bool
) -> None:
    random = np.random.default_rng(1)
    data = {name: random.integers(0, 2, (items, 4)) for name, items in (("b", 5), ("other", 4), ("a", 6))}
    board = {"model": ["w", "x", "y", "z"], "data": {name: {"correctness": one} for name, one in data.items()}}
    whole = np.concatenate([data["a"], data["b"]]).astype(float)
    places = random.permutation(len(whole))
    split = {"train": places[:8], "val": places[8:9], "test": places[9:]}
    pools = {}
    for kind, models in (("all_weak", [2, 0]), ("all_strong", [3, 1])):
        scores = {f"{part}_score": whole[np.ix_(of, models)] for part, of in split.items()}
        pools[kind] = {"data": scores, "model": np.array(["wxyz"[model] for model in models])}
    if changed:
        pools["all_strong"]["data"]["test_score"][0, 0] = 0.5
    value = {"easy": {2: pools}, "hard": {}, "split_index": {f"{part}_indices": of for part, of in split.items()}}
    for name, one in (("leaderboard_mine.pkl", board), ("mmlu_router_dataset.pkl", value)):
        (tmp_path / name).write_bytes(pickle.dumps(one))
    report = imported("routereval", tmp_path, tmp_path / "lake")
    tasks = [("a", 24), ("b", 20), *([("mmlu", 44)] if changed else []), ("other", 16)]
    assert rows(tmp_path / "lake", "SELECT task, count(*) FROM records GROUP BY 1 ORDER BY 1") == tasks
    left_out = [] if changed else [("mmlu_router_dataset.pkl", "left_out", None)]
    rejected = [(report.files[one["file"]].name, one["kind"], one["source_row"]) for one in report.rejects]
    assert rejected == left_out


def test_routerbench_wrapped_and_plain_prompts_of_one_question_are_one_item(tmp_path: Path) -> None:
    for name in ("routerbench_0shot_pandas_3.1.1.pkl", "routerbench_raw.csv"):
        report = imported("routerbench", CORPUS / "routerbench" / name, tmp_path / "lake")
        assert report.total.rejected == 0
    assert (report.total.records, report.total.known) == (0, 4)
    gap = "Choose the best option to fill the gap.\nAda is taller than Bo, so _ reaches the shelf."
    quotes = 'It\'s "odd":\n1 + 1?'
    assert rows(tmp_path / "lake", "SELECT prompt, content_hash FROM items ORDER BY item") == [
        (gap, content_hash(gap)),
        (quotes, content_hash(quotes)),
    ]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("['a\\n\"b\"']", 'a\n"b"'),
        ('["it\'s"]', "it's"),
        ("['a', 'b']", "['a', 'b']"),
        ("['a' + 'b']", "['a' + 'b']"),
        ("[not python]", "[not python]"),
        ("['\\N{no such name}']", "['\\N{no such name}']"),
        ("[['a']]", "[['a']]"),
        ("", ""),
        (None, None),
    ],
)
def test_routerbench_list_of_one_text_alone_is_unwrapped(text: str | None, plain: str | None) -> None:
    assert text_of_list(text) == plain


@pytest.mark.parametrize(
    ("form", "path", "expected"),
    [
        (
            "routerdc",
            "routerdc",
            {"mistralai/Mistral-7B-v0.1": 1.3, "cognitivecomputations/dolphin-2.6-mistral-7b": 2.7},
        ),
        ("embedllm", "embedllm", {"org/a": 2.0, "org/b": 1.0}),
        ("routellm", "routellm", {"mistralai/Mixtral-8x7B-Instruct-v0.1": 1.0, "gpt-4-1106-preview": 2.0}),
    ],
)
def test_router_tables_come_in_whole(tmp_path: Path, form: str, path: str, expected: dict[str, float]) -> None:
    report = imported(form, CORPUS / path, tmp_path / "lake")
    assert (report.total.rejected, report.suspicions) == (0, [])
    stored = dict(rows(tmp_path / "lake", "SELECT model, sum(score) FROM records GROUP BY model"))
    assert stored == pytest.approx(expected)


def test_llmrouter_total_score_and_failed_call_are_as_they_are_stated(tmp_path: Path) -> None:
    report = imported("llmrouter", CORPUS / "llmrouter", tmp_path / "lake")
    assert report.total.rejected == 0
    query = """
    SELECT model, score, failure, prompt_tokens, completion_tokens, latency_s FROM records
    WHERE task = 'commongen' ORDER BY model
    """
    assert rows(tmp_path / "lake", query) == [
        ("llama-3.1-8b-instruct", -0.033, None, 12, 2, 0.5),
        ("mixtral-8x7b-instruct", None, "failed_call", None, None, None),
        ("qwen2.5-7b-instruct", 0.61, None, 12, 500, 0.5),
    ]
    query = "SELECT model, sum(score) FROM records WHERE task = 'gsm8k' GROUP BY model ORDER BY model"
    assert rows(tmp_path / "lake", query) == [("llama-3.1-8b-instruct", 1.0), ("qwen2.5-7b-instruct", 2.0)]


def test_files_beside_the_rows_of_router_benchmarks_are_no_damaged_rows(tmp_path: Path) -> None:
    write_json(tmp_path / "arena/config/r.json", {"pipeline_params": {"router_name": "r", "models": ["m"]}})
    entry = {"global index": "t_1", "prediction": "m", "generated_result": {"success": True, "generated_answer": "a"}}
    write_json(tmp_path / "arena/predictions/r.json", [{**entry, "accuracy": 1.0}])
    row = {"task_name": "t", "query": "q", "model_name": "m", "performance": 1}
    write_lines(tmp_path / "router/routing_data/train.jsonl", [row])
    write_lines(tmp_path / "router/query_data/train.jsonl", [{"task_name": "t", "query": "q"}])
    (tmp_path / "router/llm_candidates").mkdir()
    (tmp_path / "router/llm_candidates/llm.json").write_text(json.dumps({"m": {"size": "7B"}}, indent=1))
    (tmp_path / "embed").mkdir()
    (tmp_path / "embed/val.csv").write_text("prompt_id,model_name,label\n")
    (tmp_path / "embed/train.csv").write_text("prompt_id,model_name,label\n1,m,1\n")
    for form, folder in (("routerarena", "arena"), ("llmrouter", "router"), ("embedllm", "embed")):
        report = imported(form, tmp_path / folder, tmp_path / f"lake-{form}")
        assert (report.rejects, report.total.rows, report.total.records) == ([], 1, 1), form
