"""RouterBench's and RouterEval's routers choose as their own programs did, question for question.

The expected choices are the programs' own output (formats/routerbench/reference), on other people's records.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from collectors.metrics.routereval import selection_entropy
from collectors.routers import routerbench, routereval
from tests.helpers.peer_routers import REFERENCE, BenchInputs, EvalInputs, lines, queries
from tests.helpers.thorough import long_only

pytestmark = [pytest.mark.needs_shared, pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared")]

SCOPES = ["arc-challenge", "mbpp", "winogrande", "all", "arc-challenge_nulls"]


@pytest.fixture(scope="module")
def bench() -> BenchInputs:
    return BenchInputs()


@pytest.fixture(scope="module")
def expected() -> dict[tuple[str, str, str], list[dict[str, str]]]:
    found: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in lines("predictions.csv.gz"):
        found.setdefault((row["scope"], row["router"], row["parameter"]), []).append(row)
    return found


PARAMETERS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "knn": [(f"k={k}", {"n_neighbors": k}) for k in (5, 10, 40)],
    "svm": [("-", {})],
    "mlp": [("hidden=100", {"hidden_layer_sizes": 100}), ("hidden=100-100", {"hidden_layer_sizes": [100, 100]})],
}
ROUTERS = {"knn": routerbench.Knn, "svm": routerbench.Svm, "mlp": routerbench.Mlp}


def check_choices(bench: BenchInputs, expected: dict[Any, list[dict[str, str]]], scope: str, kind: str) -> None:
    train, test = bench.part(scope, "train"), bench.part(scope, "test")
    ids = [bench.rows[at]["sample_id"] for at in range(len(bench.rows))]
    ties = {(row["scope"], row["parameter"], row["sample_id"]) for row in lines("ties.csv")}
    learned = queries([ids[at] for at in train], bench.models, bench.vectors[train])
    asked = queries([ids[at] for at in test], bench.models, bench.vectors[test])
    scores = bench.scores[train]
    for parameter, settings in PARAMETERS[kind]:
        rows = expected[scope, kind, parameter]
        assert [row["sample_id"] for row in rows] == asked.ids
        router = ROUTERS[kind](prices=bench.prices, **settings)
        router.fit(learned, scores, np.full(scores.shape, np.nan), ~np.isnan(scores))
        of = router.scores_of(asked)
        free = np.array([kind != "knn" or (scope, parameter, name) not in ties for name in asked.ids])
        for pay in [name for name in rows[0] if name not in ("scope", "sample_id", "router", "parameter")]:
            chosen = router.choose(of, None if pay == "none" else float(pay))
            theirs = np.array([int(row[pay]) for row in rows])
            assert np.array_equal(chosen[free], theirs[free]), (scope, parameter, pay)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("kind", ["knn", "svm"])
@pytest.mark.parametrize("scope", SCOPES)
def test_routerbench_choices_are_those_of_its_own_code(
    bench: BenchInputs, expected: dict[Any, list[dict[str, str]]], scope: str, kind: str
) -> None:
    check_choices(bench, expected, scope, kind)


@pytest.mark.filterwarnings("ignore::Warning")
def test_routerbench_mlp_choices_are_those_of_its_own_code(
    bench: BenchInputs, expected: dict[Any, list[dict[str, str]]]
) -> None:
    check_choices(bench, expected, "mbpp", "mlp")


@long_only
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("scope", SCOPES)
def test_routerbench_mlp_choices_on_all_scopes_are_those_of_its_own_code(
    bench: BenchInputs, expected: dict[Any, list[dict[str, str]]], scope: str
) -> None:
    check_choices(bench, expected, scope, "mlp")


# ---- RouterEval


@pytest.fixture(scope="module")
def pools() -> EvalInputs:
    return EvalInputs()


EVAL: dict[tuple[str, str], Any] = {
    **{("knn", f"knearest={k}"): lambda k=k: routereval.Knn(k) for k in (3, 5, 10)},
    **{("kmeans", f"numcluster={k}"): lambda k=k: routereval.KMeans(k) for k in (3, 5)},
    ("linear", "lr=0.1,epoch=10,batch=1024"): lambda: routereval.Network(None, 0.1, 10, 1024),
    ("mlp", "lr=0.001,epoch=100,hidden=400,batch=1024"): lambda: routereval.Network(400, 0.001, 100, 1024),
    ("linear", "lr=0.01,epoch=10,batch=1"): lambda: routereval.Network(None, 0.01, 10, 1),
}


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize(
    "router",
    [*list(EVAL)[:-2], *(pytest.param(one, marks=long_only) for one in list(EVAL)[-2:])],
    ids=lambda router: f"{router[0]}-{router[1]}",
)
def test_routereval_choices_and_entropy_are_those_of_its_own_code(pools: EvalInputs, router: tuple[str, str]) -> None:
    kind, parameter = router
    theirs: dict[tuple[str, int], list[str]] = {}
    for row in lines("routereval/predictions.csv.gz"):
        if (row["router"], row["parameter"]) == router:
            theirs.setdefault((row["group"], int(row["pool_size"])), []).append(row["model"])
    figures = {
        (row["group"], int(row["pool_size"])): float(row["e_p"])
        for row in lines("routereval/results.csv")
        if (row["router"], row["parameter"]) == router
    }
    for key, models in pools.models.items():
        scores = np.stack([pools.scores[model] for model in models], axis=1)
        train = queries([pools.ids[at] for at in pools.train], models, pools.vectors[pools.train])
        test = queries([pools.ids[at] for at in pools.test], models, pools.vectors[pools.test])
        ours = EVAL[router]()
        ours.fit(train, scores[pools.train], np.full(scores[pools.train].shape, np.nan), scores[pools.train] >= 0)
        assert [models[column] for column in ours.route(test, models)] == theirs[key], key
        entropy = selection_entropy(ours.probabilities(test, models)).value
        assert entropy == pytest.approx(figures[key], abs=1e-4), (kind, parameter)
