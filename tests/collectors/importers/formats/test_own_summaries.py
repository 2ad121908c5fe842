"""Files in the layout of their writers, and the figures that they themselves state of their rows.

The files of golden/imports have the layouts of crfm-helm 0.5.16, opencompass 0.5.4 and pandas 3.1.1, and of
LLMRouterBench, RouterArena and RouterEval as of their commits 46d48d4, 2fd498f
and 2edf54d.
"""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.importers.formats.opencompass import _results_of
from collectors.importers.unwrapping import text_of_list
from schemas.content import document_hash
from schemas.identity import content_hash
from tests.helpers.importing import CORPUS, imported, rows, write_json, write_lines

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
