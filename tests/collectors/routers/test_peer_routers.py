"""RouterBench's and RouterEval's routers choose as their own programs did, question for question.

The expected choices are the programs' own output (formats/routerbench/reference), on other people's records.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from collectors.metrics.routereval import selection_entropy
from collectors.routers import routerbench, routereval
from collectors.routers.contract import Queries
from tests.helpers.thorough import long_only

SHARED = Path(__file__).resolve().parents[4] / "shared"
REFERENCE = SHARED / "formats" / "routerbench" / "reference"
RECORDS = SHARED / "data" / "records"
pytestmark = [pytest.mark.needs_shared, pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared")]

SCOPES = ["arc-challenge", "mbpp", "winogrande", "all", "arc-challenge_nulls"]


def lines(name: str) -> Iterator[dict[str, str]]:
    opener: Any = gzip.open if name.endswith(".gz") else open
    with opener(REFERENCE / name, "rt", newline="") as file:
        yield from csv.DictReader(file)


def queries(ids: list[str], candidates: list[str], vectors: np.ndarray) -> Queries:
    return Queries(ids, ["t"] * len(ids), ids, candidates, vectors.astype(np.float64))


class Bench:
    """RouterBench's rows in the order of the reference, and its split."""

    def __init__(self) -> None:
        self.rows = list(lines("rows.csv.gz"))
        place = {(row["sample_id"], int(row["parts"])): at for at, row in enumerate(self.rows)}
        self.models = [row["model"] for row in lines("models.csv")]
        self.prices = {
            row["model"]: float(row["completion_price"]) + 0.0 + float(row["prompt_price"])
            for row in lines("models.csv")
        }
        columns = {model: at for at, model in enumerate(self.models)}
        table = pq.read_table(RECORDS / "routerbench_sub" / "records.parquet").to_pydict()
        doubled = {row["sample_id"] for row in self.rows if row["null_row"] == "True"}
        self.scores = np.full((len(self.rows), len(self.models)), np.nan)
        for item, model, score in zip(table["item_id"], table["model"], table["score"], strict=True):
            if score is None:
                continue
            # Of a doubled question the first model has a score for its two parts, all others for its one.
            part = (2 if model == self.models[0] else 1) if item in doubled else None
            at = (
                place[item, part]
                if part
                else next(p for p in (place.get((item, n)) for n in range(1, 20)) if p is not None)
            )
            self.scores[at, columns[model]] = score
        self.vectors = np.load(REFERENCE / "embedding.npy")
        self.parts = {(row["scope"], row["sample_id"]): row["part"] for row in lines("split.csv.gz")}

    def part(self, scope: str, part: str) -> list[int]:
        task = scope.split("_")[0]
        return [
            at
            for at, row in enumerate(self.rows)
            if (row["null_row"] == "False" and self.parts.get((scope, row["sample_id"])) == part)
            or (row["null_row"] == "True" and part == "train" and scope.endswith("_nulls") and task == "arc-challenge")
        ]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


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


def check_choices(bench: Bench, expected: dict[Any, list[dict[str, str]]], scope: str, kind: str) -> None:
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
    bench: Bench, expected: dict[Any, list[dict[str, str]]], scope: str, kind: str
) -> None:
    check_choices(bench, expected, scope, kind)


@pytest.mark.filterwarnings("ignore::Warning")
def test_routerbench_mlp_choices_are_those_of_its_own_code(
    bench: Bench, expected: dict[Any, list[dict[str, str]]]
) -> None:
    check_choices(bench, expected, "mbpp", "mlp")


@long_only
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("scope", SCOPES)
def test_routerbench_mlp_choices_on_all_scopes_are_those_of_its_own_code(
    bench: Bench, expected: dict[Any, list[dict[str, str]]], scope: str
) -> None:
    check_choices(bench, expected, scope, "mlp")


# ---- RouterEval


class Pools:
    """The GSM8K questions and pools of the reference."""

    def __init__(self) -> None:
        items = pq.read_table(RECORDS / "metabench_a" / "items.parquet", filters=[("task", "==", "gsm8k")])
        self.ids = sorted(items["item_id"].to_pylist())
        self.models: dict[tuple[str, int], list[str]] = {}
        for row in lines("routereval/pools.csv"):
            self.models.setdefault((row["group"], int(row["pool_size"])), []).append(row["model"])
        every = sorted({model for models in self.models.values() for model in models})
        where = [("task", "==", "gsm8k"), ("model", "in", every)]
        records = pq.read_table(RECORDS / "metabench_a" / "records.parquet", filters=where).to_pydict()
        place = {name: at for at, name in enumerate(self.ids)}
        self.scores = {model: np.full(len(self.ids), np.nan) for model in every}
        for item, model, score in zip(records["item_id"], records["model"], records["score"], strict=True):
            self.scores[model][place[item]] = score
        self.vectors = np.load(REFERENCE / "routereval" / "embedding.npy")
        order = np.random.RandomState(0).permutation(len(self.ids))
        cut = int(len(self.ids) * 0.7)
        self.train, self.test = np.sort(order[:cut]), np.sort(order[cut:])


@pytest.fixture(scope="module")
def pools() -> Pools:
    return Pools()


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
def test_routereval_choices_and_entropy_are_those_of_its_own_code(pools: Pools, router: tuple[str, str]) -> None:
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
