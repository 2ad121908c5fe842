"""Figures that others computed of the same records: RouteLLM's repository, and RouterBench's five-shot files."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import pytest

from collectors.metrics.agreement import judge
from collectors.metrics.complementarity import complementarity
from collectors.metrics.plane import aiq_paper, model_points, zero_router
from collectors.metrics.pool import cheapest_correct, model_means, oracle
from collectors.metrics.routellm import sweep
from tests.helpers.importing import SHARED

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="real records are not on this machine")

Array = npt.NDArray[Any]
WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"


def read(name: str, table: str, *columns: str) -> pd.DataFrame:
    return pq.read_table(SHARED / "records" / name / f"{table}.parquet", columns=list(columns)).to_pandas()


def routellm(task: str) -> Array:
    """(items, 2): scores of the weak and the strong model."""
    records = read("routellm", "records", "model", "task", "item_id", "score")
    records = records[records.task.str.startswith(task)]
    return records.pivot(index=["task", "item_id"], columns="model", values="score")[[WEAK, STRONG]].to_numpy()


def routerbench(task: str) -> tuple[list[str], Array, Array]:
    """Models, scores and USD, the rows in the order of the file."""
    records = read("routerbench_sub", "records", "model", "task", "item_id", "score", "cost_usd")
    records = records[records.task == task]
    models = records.model.drop_duplicates().tolist()
    columns = [records[records.model == model] for model in models]
    scores, usd = (np.stack([column[name] for column in columns], axis=1) for name in ("score", "cost_usd"))
    return models, scores, usd


@pytest.mark.parametrize(
    ("task", "weak", "strong", "best"), [("gsm8k", 0.6384, 0.8567, 0.9287), ("mmlu", 0.6808, 0.8058, 0.8586)]
)
def test_routellm_pair_has_the_published_means(task: str, weak: float, strong: float, best: float) -> None:
    scores = routellm(task)
    found = judge(oracle(scores), scores)
    assert model_means(scores).means == pytest.approx([weak, strong], abs=5e-5)
    assert (found.best_single, found.oracle) == pytest.approx((strong, best), abs=5e-5)
    assert (found.left_out, found.gap_closed) == (0, pytest.approx(1))
    pairs = complementarity(scores)
    assert (pairs.both + pairs.only_row + pairs.only_column)[0, 1] / len(scores) == pytest.approx(best, abs=5e-5)


def test_routellm_blind_router_recovers_half_of_the_gap() -> None:
    scores = routellm("mmlu")
    blind = sweep(np.random.default_rng(0).random(len(scores)), scores[:, 0], scores[:, 1])
    assert blind.apgr == pytest.approx(0.5, abs=0.03)
    assert blind.cpt(0.5) == pytest.approx(0.5, abs=0.06)
    told = sweep(scores[:, 1] - scores[:, 0], scores[:, 0], scores[:, 1])
    assert told.apgr > 1  # it knows which items only the strong model solves, so it passes the strong model


#: Accuracy and USD of RouterBench's oracle, and accuracies of some models, over all rows of the five-shot file.
ROWS = {
    "mbpp": (0.8665, 0.203, {"gpt-4-1106-preview": 0.6862, "claude-v2": 0.6417, "mistralai/mistral-7b-chat": 0.3443}),
    "winogrande": (0.9992, 0.136, {"gpt-4-1106-preview": 0.8587, "claude-v2": 0.4775, "claude-instant-v1": 0.5170}),
}


@pytest.mark.parametrize("task", ROWS)
def test_routerbench_oracle_and_models_are_those_computed_from_the_file(task: str) -> None:
    accuracy, usd, means = ROWS[task]
    models, scores, cost = routerbench(task)
    found = cheapest_correct(scores, cost)
    assert (found.solved / len(scores), found.left_out) == (pytest.approx(accuracy, abs=5e-5), 0)
    assert found.total_cost == pytest.approx(usd, abs=5e-4)
    found_means = dict(zip(models, model_means(scores).means, strict=True))
    assert {model: found_means[model] for model in means} == pytest.approx(means, abs=5e-5)


def test_routerbench_duplicates_of_items_with_gaps_are_left_out() -> None:
    _, scores, cost = routerbench("arc-challenge")
    found = cheapest_correct(scores, cost)
    assert (len(scores), found.left_out, found.solved, found.unsolved) == (1484, 28, 1437, 19)
    taken_for_wrong = cheapest_correct(np.nan_to_num(scores, nan=-1), cost)
    assert taken_for_wrong.solved / 1484 == pytest.approx(0.9852, abs=5e-5)  # the published value


@pytest.mark.parametrize(("task", "rows"), [("arc-challenge", 1456), ("mbpp", 427), ("winogrande", 1267)])
def test_routerbench_oracle_names_the_models_of_the_published_column(task: str, rows: int) -> None:
    models, scores, cost = routerbench(task)
    items = read("routerbench_sub", "items", "task", "oracle_model_to_route_to")
    published = items[items.task == task].oracle_model_to_route_to.tolist()
    choices = oracle(scores, cost)
    known = [i for i, choice in enumerate(choices) if choice >= 0]
    assert len(known) == rows
    for i in known:
        assert published[i] == (models[choices[i]] if scores[i].max() > 0 else "no_model_correct")


def test_routerbench_zero_router_lies_between_models_and_oracle() -> None:
    models, scores, cost = routerbench("winogrande")
    plane = model_points(scores, cost)
    by_name = dict(zip(models, plane.points.tolist(), strict=True))
    dear, quality = by_name["gpt-4-1106-preview"]
    assert zero_router(plane.points, dear) == pytest.approx(quality)
    assert aiq_paper(plane.points) < quality < cheapest_correct(scores, cost).solved / len(scores)


REFERENCE = SHARED.parent / "formats/routerbench/reference/routereval"


def gsm8k_of(models: set[str]) -> pd.DataFrame:
    """metabench's GSM8K scores of some models, items by their names."""
    wanted = [("task", "=", "gsm8k"), ("model", "in", sorted(models))]
    columns = ["item_id", "model", "score"]
    records = pq.read_table(SHARED / "records/metabench_a/records.parquet", columns=columns, filters=wanted).to_pandas()
    return records.pivot_table(index="item_id", columns="model", values="score", aggfunc="first").sort_index()


def test_routereval_scripts_choices_have_the_figures_that_the_scripts_printed() -> None:
    """μ, V_B and kNN's E_p of RouterEval's kNN, k-means, linear and FNN routers on six pools."""
    pools = pd.read_csv(REFERENCE / "pools.csv")
    chosen = pd.read_csv(REFERENCE / "predictions.csv.gz", dtype={"item_id": str})
    results, scores = pd.read_csv(REFERENCE / "results.csv"), gsm8k_of(set(pools.model))
    vectors = np.load(REFERENCE / "embedding.npy").astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.random.RandomState(0).permutation(len(vectors))
    train, test = np.sort(order[:340]), np.sort(order[340:])
    nearest = np.argsort(-(vectors[test] @ vectors[train].T), axis=1)
    for result in results.itertuples():
        models = pools[(pools.group == result.group) & (pools.pool_size == result.pool_size)].model.tolist()
        own = (chosen.group == result.group) & (chosen.pool_size == result.pool_size)
        own &= (chosen.router == result.router) & (chosen.parameter == result.parameter)
        of_pool = scores[models].to_numpy(float)
        probabilities = None
        if result.router == "knn":  # a softmax of the neighbours' means
            near = nearest[:, : int(result.parameter.removeprefix("knearest="))]
            probabilities = np.exp(of_pool[train][near].mean(axis=1))
        choices = chosen[own].set_index("item_id").model[scores.index[test]].map(models.index).to_numpy()
        found = judge(choices, of_pool[test], probabilities=probabilities)
        assert (found.items, found.left_out) == (result.test_rows, 0)
        assert (found.accuracy, found.v_b) == pytest.approx((result.mean_score, result.v_b), rel=1e-12)
        assert found.selection_entropy == (None if probabilities is None else pytest.approx(result.e_p, rel=1e-12))
    assert len(results) > 20
