"""Forecasts: errors and bands of models that were held out, at random and by whole families, and what a fit costs.

DATA is a folder with records.parquet (model, task, item_id, score) and items.parquet (prompts). Without it the answers
are those of simulated worlds. Half of the complete models of a random split would be enough to learn from; three
quarters are learned here, because bands are calibrated by holding these out and need no quarter of their own. Models
with a part of the tasks are learned, too, but none of a family that is tested.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collectors.forecasts.adaptive import local_factors
from collectors.forecasts.bands import check
from collectors.forecasts.choice import METHODS, choose_items, goals_of, greedy
from collectors.forecasts.expecting import foretold_means
from collectors.forecasts.factors import complete_models
from collectors.forecasts.families import families, near_copies, stem
from collectors.forecasts.foretelling import FAMILY, RANDOM, Forecaster
from collectors.forecasts.smoothing import Learned, Reals, learn
from collectors.routers.contract import Queries
from collectors.routers.encoders import TFIDF, vectors_of
from collectors.routers.estimating import Neighbours, Ridge
from tests.benchmarks.bench_lake import Report
from tests.benchmarks.peak import peak_memory
from tests.helpers.foretold_worlds import world

SHARES = (0.025, 0.05, 0.1)
#: What the error of the mean of the tasks shall be at these shares, in points.
MOST_OF_MEAN = dict(zip(SHARES, (2.0, 1.3, 1.0), strict=True))
#: Answers between two choices for a model.
ROUND = 8
#: Share that is asked of every model before the first choice of its own.
BEGINNING = 0.01
PARTS = ("bands", "errors", "choices", "router", "size")


@dataclass(frozen=True)
class Data:
    answers: npt.NDArray[np.float32]
    tasks: npt.NDArray[np.str_]
    names: list[str]
    #: (items,); None in simulated worlds.
    prompts: list[str] | None
    families: npt.NDArray[np.int64]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="records.parquet and items.parquet")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--splits", nargs="+", choices=(RANDOM, FAMILY), default=(RANDOM, FAMILY))
    parser.add_argument("--seeds", type=int, default=4, help="splits of each kind for bands (default %(default)s)")
    parser.add_argument("--asked", type=int, default=100, help="models that are asked one by one (default %(default)s)")
    parser.add_argument("--models", type=int, default=4_250, help="models of the part size (default %(default)s)")
    parser.add_argument("--items", type=int, default=11_764, help="items of the part size (default %(default)s)")
    args = parser.parse_args()
    report, data = Report(), read(args.data) if args.data else simulated()
    which = f"{args.data}" if args.data else "simulated worlds, because no DATA names records"
    whole = int(complete_models(data.answers).sum())
    print(f"{which}: {len(data.names):,} models, {whole:,} of them complete, {len(data.tasks):,} items\n")
    for split in args.splits:
        held = []
        for seed in range(args.seeds if "bands" in args.only else 1):
            tested, rest = halves(data, split, seed)
            if "bands" in args.only:
                held.append(bench_bands(report, data, f"{split} {seed}", tested, rest))
            if "errors" in args.only and not seed:
                bench_errors(report, data, split, tested, rest, args.asked)
            if "choices" in args.only and not seed:
                bench_choices(report, data, split, tested, rest)
        if held:
            # Of 250 models the share within bands of 90 % is 90 ± 2 %: by one split of them no task can be judged.
            share = 100 * np.concatenate(held).mean(axis=0)[:-1]
            name = f"{split}, {len(held)} splits: 10 % of the items, one probe set: bands of 90 % hold"
            report.row(f"{name}, least held task", share.min(), 88, f"mean {share.mean():.1f}", more=True)
            report.row(f"{name}, most held task", share.max(), 93)
    if "router" in args.only:
        for split in args.splits:
            bench_router(report, data, split)
    if "size" in args.only:
        bench_size(report, args.models, args.items)
    return 0 if report.good else 1


def read(folder: Path) -> Data:
    records = pq.read_table(folder / "records.parquet")
    items = pq.read_table(folder / "items.parquet").to_pylist()
    keys = pc.binary_join_element_wise(records["task"].cast("string"), records["item_id"].cast("string"), "/")
    columns = sorted(set(keys.to_pylist()))
    names = sorted(set(records["model"].to_pylist()))
    answers = np.full((len(names), len(columns)), np.nan, np.float32)
    rows = pc.index_in(records["model"].cast("string"), value_set=_strings(names)).to_numpy()
    answers[rows, pc.index_in(keys, value_set=_strings(columns)).to_numpy()] = records["score"].to_numpy()
    answers = answers[(~np.isnan(answers)).any(axis=1)]
    texts = {f"{item['task']}/{item['item_id']}": item["prompt"] for item in items}
    tasks = np.array([column.split("/")[0] for column in columns])
    return Data(answers, tasks, names, [texts[column] for column in columns], families(answers, names))


def simulated() -> Data:
    made = world(models=640, items=(240, 480, 100, 130, 100), seed=1)
    return Data(made.answers, made.tasks, made.names, None, families(made.answers, made.names))


def halves(data: Data, split: str, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A quarter of the complete models to test, and all models to learn from.

    Of a split by families whole ones are drawn. No model is learned that nearly repeats a tested one, or that has its
    name but for size, version and form.
    """
    whole = np.flatnonzero(complete_models(data.answers))
    random = np.random.default_rng(seed)
    if split == RANDOM:
        tested = np.sort(random.permutation(whole)[: len(whole) // 4])
        return tested, np.setdiff1d(np.arange(len(data.names)), tested)
    tested = np.zeros(0, np.int64)
    for family in random.permutation(np.unique(data.families[whole])):
        if len(tested) < len(whole) // 4:
            tested = np.concatenate([tested, whole[data.families[whole] == family]])
    is_tested = np.isin(np.arange(len(data.names)), tested)
    related = is_tested | np.isin(data.families, data.families[tested])
    pairs = near_copies(data.answers)
    related[pairs[is_tested[pairs[:, 0]], 1]] = True
    related[pairs[is_tested[pairs[:, 1]], 0]] = True
    stems = {stem(data.names[model]) for model in tested}
    return np.sort(tested), np.flatnonzero(~related & [stem(name) not in stems for name in data.names])


# ---- errors and bands


Rows = npt.NDArray[np.int64]


def bench_bands(report: Report, data: Data, split: str, tested: Rows, rest: Rows) -> npt.NDArray[np.bool_]:
    """One probe set of 10 %: bands, pairs and items. Returns (tested, goals): whether the bands hold the true means."""
    learned, truth, true_means, order = _learned(data, split, tested, rest)
    asked = np.sort(order[: round(0.1 * truth.shape[1])])
    answers = np.full(truth.shape, np.nan, np.float32)
    answers[:, asked] = truth[:, asked]
    forecaster = Forecaster(learned, [asked])
    values, bands = forecaster.means(answers)
    is_held = np.asarray(np.abs(values - true_means) <= bands, np.bool_)
    held = 100 * is_held.mean(axis=0)
    off = 100 * np.abs(values - true_means).mean(axis=0)
    name = f"{split}: 10 % of the items, one probe set"
    errors = (
        f"errors: worst {off[:-1].max():.2f}, mean {off[:-1].mean():.2f}, of the mean of tasks {off[-1]:.2f} points"
    )
    print(f"  {errors}; bands hold " + ", ".join(f"{one:.1f}" for one in held) + " %, the last of the mean of tasks")
    done = [check(values[:, goal], bands[:, goal], true_means[:, goal]) for goal in range(len(held))]
    right = min(one.pairs_right for one in done if one.pairs_right is not None)
    report.row(f"{name}: pairs told apart that are right, worst task, %", 100 * right, 95, more=True)
    probable = forecaster.items(answers)
    mean = np.average(learned.answers, axis=0, weights=learned.weights)
    is_open = np.setdiff1d(np.arange(truth.shape[1]), asked)
    brier = np.square(probable - truth)[:, is_open].mean() / np.square(mean - truth)[:, is_open].mean()
    report.row(f"{name}: Brier of unasked items ÷ the items' means", brier, 0.8)
    return is_held


def bench_errors(report: Report, data: Data, split: str, tested: Rows, rest: Rows, models: int) -> None:
    """Items chosen one by one for each model, against one probe set for all."""
    learned, truth, true_means, order = _learned(data, split, tested, rest)
    rows = np.random.default_rng(0).permutation(len(tested))[:models]
    truth, true_means = truth[rows], true_means[rows]
    asked = ask_adaptively(learned, truth, order)
    forecaster = Forecaster(learned, [np.sort(order[: round(max(SHARES) * truth.shape[1])])])
    for share, answers in asked.items():
        name = f"{split}: {share:.1%} of the items, chosen one by one"
        off = 100 * np.abs(forecaster.values(answers)[0] - true_means)
        report.row(f"{name}: mean of the tasks, points", off[:, -1].mean(), MOST_OF_MEAN[share])
    per_task = off[:, :-1].mean(axis=0)
    report.row(f"{name}: worst task, points", per_task.max(), 2.5)
    report.row(f"{name}: mean over tasks, points", per_task.mean(), 2.0, " ".join(f"{one:.2f}" for one in per_task))
    bench_saving(report, split, learned, truth, true_means, order, off[:, -1].mean())
    values, bands = forecaster.means(answers)
    held = 100 * (np.abs(values - true_means) <= bands + 1e-9)[:, :-1].mean()
    report.row(f"{name}: bands of 90 % hold, mean over tasks", held, 88, more=True)
    report.row(f"{name}: the same, not too wide", held, 93)


def _learned(data: Data, split: str, tested: Rows, rest: Rows) -> tuple[Learned, Reals, Reals, Rows]:
    """What was learned, (tested, items) true answers, (tested, goals) true means, and items in the order of use."""
    learned = learn(data.answers[rest], data.tasks, related=data.families[rest])
    truth = data.answers[tested].astype(np.float64)
    whole = int(learned.whole.sum())
    print(f"\n{split}: {len(learned.weights):,} models learned, {whole:,} of them complete; {len(tested):,} tested")
    order = greedy(learned.factors, goals_of(learned.tasks), round(0.3 * len(data.tasks)))
    return learned, truth, truth @ learned.goals.T, order


def ask_adaptively(
    learned: Learned, truth: Reals, order: npt.NDArray[np.int64]
) -> dict[float, npt.NDArray[np.float32]]:
    """Share -> the answers of each model when so many items were asked, ROUND by ROUND by its own factors."""
    goals, items = goals_of(learned.tasks), truth.shape[1]
    made = {share: np.full(truth.shape, np.nan, np.float32) for share in SHARES}
    for model, true in enumerate(truth):
        answers = np.full(items, np.nan, np.float32)
        first = order[: round(BEGINNING * items)]
        answers[first] = true[first]
        for share in SHARES:
            most = round(share * items)
            while (count := int((~np.isnan(answers)).sum())) < most:
                asked = np.flatnonzero(~np.isnan(answers))
                local = local_factors(learned.factors, answers, asked)
                more = greedy(local, goals, min(ROUND, max(2, count // 4), most - count), asked=asked)
                answers[more] = true[more]
            made[share][model] = answers
    return made


def bench_saving(
    report: Report,
    split: str,
    learned: Learned,
    truth: Reals,
    true_means: Reals,
    order: npt.NDArray[np.int64],
    error: float,
) -> None:
    """Items of a fixed probe set with the error that adaptive choice has at 10 %."""
    sizes = np.array([round(share * len(order) / 0.3) for share in (0.1, 0.15, 0.2, 0.3)])
    off = []
    for size in sizes:
        foretold = foretold_means(learned, order[:size], truth[:, order[:size]])
        off.append(100 * np.abs(foretold.mean(axis=1) - true_means[:, -1]).mean())
    falling = np.minimum.accumulate(off)
    needed = float(np.exp(np.interp(-error, -falling, np.log(sizes))))
    beyond = " or more" if error < falling[-1] else ""
    adaptive = round(max(SHARES) * len(order) / 0.3)
    report.row(
        f"{split}: items of adaptive choice ÷ of a fixed probe set, same error",
        adaptive / needed,
        0.7,
        f"{adaptive} against {needed:.0f}{beyond}",
    )


def bench_choices(
    report: Report, data: Data, split: str, tested: npt.NDArray[np.int64], rest: npt.NDArray[np.int64]
) -> None:
    """The ways to choose a probe set, and a floor: greedy choice by the answers of the tested models themselves."""
    learned = learn(data.answers[rest], data.tasks, related=data.families[rest])
    truth = data.answers[tested].astype(np.float64)
    size = round(0.1 * len(data.tasks))
    ways = {method: choose_items(learned.answers, size, tasks=data.tasks, method=method) for method in METHODS}
    ways["floor: chosen with the tested answers known"] = choose_items(truth, size, tasks=data.tasks)
    for name, order in ways.items():
        off = 100 * (foretold_means(learned, order, truth[:, order]) - truth @ learned.shares.T)
        report.row(
            f"{split}: mean of the tasks at 10 %, items by {name}",
            np.abs(off.mean(axis=1)).mean(),
            None,
            f"mean over tasks {np.abs(off).mean():.2f}",
        )


# ---- routers


def bench_router(report: Report, data: Data, split: str) -> None:
    """A router that learns from a tenth of the answers and forecasts, against one that learns from all of them."""
    tested, rest = halves(data, split, 0)
    learned = learn(data.answers[rest], data.tasks, related=data.families[rest])
    truth = data.answers[tested].astype(np.float64)
    means = truth @ learned.goals.T
    pool = list(dict.fromkeys([int(means[:, task].argmax()) for task in range(means.shape[1])]))
    scores = truth[pool].T
    order = greedy(learned.factors, goals_of(learned.tasks), round(0.3 * len(scores)))
    asked = np.sort(order[: round(0.1 * len(scores))])
    sparse = ask_adaptively(learned, truth[pool], order)[max(SHARES)]
    foretold = Forecaster(learned, [asked]).items(sparse).T.astype(np.float64)
    names = [f"m{one}" for one in pool]
    queries = _queries(data, names)
    best: dict[str, list[float]] = {"all": [], "forecast": [], "asked alone": []}
    for seed in range(5):
        train = np.random.default_rng(seed).permutation(len(scores))
        train, test = np.sort(train[: len(train) // 2]), np.sort(train[len(train) // 2 :])
        single = scores[test][:, scores[train].mean(axis=0).argmax()].mean()
        few = np.intersect1d(train, asked)
        for name, rows, given in (("all", train, scores), ("forecast", train, foretold), ("asked alone", few, scores)):
            made = []
            for router in (Ridge(), Neighbours(40)):
                router.fit(
                    queries.take(rows), given[rows], np.ones_like(given[rows]), np.ones(given[rows].shape, np.bool_)
                )
                made.append(
                    scores[test][np.arange(len(test)), _columns(router.route(queries.take(test), names))].mean()
                )
            best[name].append(max(made) - single)
    gains = {name: float(np.mean(gain)) for name, gain in best.items()}
    words = ", ".join(f"{name} {100 * gain:+.2f}" for name, gain in gains.items())
    name = f"{split}: router on 10 % + forecast ÷ on all, above the best single of {len(pool)}"
    if gains["all"] <= 0:
        print(f"{name}: a router on all gains nothing here ({words} points)")
        return
    report.row(name, gains["forecast"] / gains["all"], 0.9, f"points: {words}", more=True)


def _queries(data: Data, names: list[str]) -> Queries:
    texts = data.prompts or [f"{task} question {number}" for number, task in enumerate(data.tasks)]
    ids = [str(number) for number in range(len(texts))]
    return Queries(ids, data.tasks.tolist(), texts, names, vectors_of(TFIDF, texts))


def _columns(routed: object) -> npt.NDArray[np.int64]:
    return np.asarray(routed, np.int64)


# ---- size


def bench_size(report: Report, models: int, items: int) -> None:
    """A fit of simulated answers: learning, bands and probabilities. Extrapolated by the cube of the models."""
    made = _large(models, items)
    tasks = np.arange(items) * 57 // items
    started = time.perf_counter()
    learned = learn(made, tasks)
    learning = time.perf_counter() - started
    order = greedy(learned.factors, goals_of(learned.tasks), round(0.1 * items))
    choosing = time.perf_counter() - started - learning
    asked = np.sort(order)
    sparse = np.full((64, items), np.nan, np.float32)
    sparse[:, asked] = made[:64, asked]
    forecaster = Forecaster(learned, [asked])
    forecaster.means(sparse)
    forecaster.items(sparse)
    smoothing = time.perf_counter() - started - learning - choosing
    # Learning is models × items × rank and models² × compared items; smoothing is models³; a choice is items².
    cells, cubes, squares = 8_500 * 23_529 / (models * items), (8_500 / models) ** 3, (23_529 / items) ** 2
    seconds = learning * max(cells, (8_500 / models) ** 2) + choosing * squares + smoothing * cubes
    gib = peak_memory() / 2**30
    measured = f"{models:,} × {items:,}: {learning:.0f} + {choosing:.0f} + {smoothing:.0f} s, {gib:.2f} GiB"
    is_whole = (models, items) == (8_500, 23_529)
    name = "fit at 8,500 × 23,529" if is_whole else "fit at 8,500 × 23,529, extrapolated"
    report.row(f"{name}, minutes", seconds / 60, 10, f"measured at {measured}")
    report.row(f"{name}, GiB", gib * (1 if is_whole else cells), 6)


def _large(models: int, items: int) -> npt.NDArray[np.float32]:
    """Right or wrong by eight abilities, made block by block."""
    random = np.random.default_rng(0)
    abilities = random.standard_normal((models, 8)).astype(np.float32)
    made = np.empty((models, items), np.float32)
    for first in range(0, items, 1_000):
        some = slice(first, min(first + 1_000, items))
        loadings = random.standard_normal((some.stop - first, 8)).astype(np.float32) / 2
        logits = abilities @ loadings.T + random.standard_normal(some.stop - first).astype(np.float32)
        made[:, some] = random.random(logits.shape, np.float32) < 1 / (1 + np.exp(-logits))
    return made


def _strings(names: list[str]) -> object:
    import pyarrow as pa

    return pa.array(names, pa.string())


if __name__ == "__main__":
    raise SystemExit(main())
