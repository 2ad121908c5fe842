"""Routers: a whole board, peers' figures, a large matrix, and what boards say in worlds whose truth is known."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from collectors.metrics.resampling import holm, resample
from collectors.metrics.routereval import selection_entropy
from collectors.routers import routerbench, routereval
from collectors.routers.contract import Queries
from collectors.routers.estimating import Neighbours, Ridge
from tests.benchmarks.bench_lake import Report
from tests.benchmarks.peak import measured
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.peer_routers import RECORDS, REFERENCE, BenchInputs, EvalInputs, lines, queries

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("board", "routerbench", "routereval", "large", "worlds", "heldout")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--worlds", type=int, default=300, help="simulated worlds (default %(default)s)")
    args = parser.parse_args()
    report = Report()
    real = {"board": bench_board, "routerbench": bench_routerbench, "routereval": bench_routereval}
    for name, part in real.items():
        if name in args.only and REFERENCE.exists():
            part(report)
        elif name in args.only:
            print(f"{name}: not measured, ../shared is not there")
    if "large" in args.only:
        bench_large(report)
    if "worlds" in args.only:
        bench_worlds(report, args.worlds)
    if "heldout" in args.only:
        bench_heldout(report)
    return 0 if report.good else 1


# ---- a whole board


def bench_board(report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder) / "lake"
        import_routerbench(Path(folder), lake)
        env = {**os.environ, "ROUTERLAKE_CACHE": folder, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "pipelines/route.py", "board", "--lake", str(lake), "--include", "all", "--quiet"]
        first = [*command, "--router", "ridge", "--seeds", "1", "--out", f"{folder}/made"]
        subprocess.run(first, cwd=ROOT, env=env, check=True, capture_output=True)  # makes the embeddings
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "--out", f"{folder}/board"], cwd=ROOT, env=env, check=False, capture_output=True)
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        board = json.loads((Path(folder) / "board" / "board.json").read_text())
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        detail = f"{len(board['rows'])} routers"
        report.row("board on routerbench_sub, all shipped, 5 seeds: seconds", seconds, 180, detail)
        report.row("… CPU-seconds, of which two quiet cores give 360 in that time", cpu, 360)
        report.row("… its largest process, GiB", after.ru_maxrss / 2**20, 3)
        failed = [row["router"] for row in board["rows"] if row["failed"]]
        report.row("… routers without a row", len(failed), 0, ", ".join(failed))
        print("\n".join(board["notes"]))


def import_routerbench(folder: Path, lake: Path) -> None:
    """RouterBench's rows with the prompt of each: of a doubled question its records and items are in one order."""
    import pyarrow.parquet as pq

    from tests.helpers.importing import imported

    source = RECORDS / "routerbench_sub"
    records = pq.read_table(source / "records.parquet").to_pylist()
    prompts: dict[str, list[str]] = {}
    for item in pq.read_table(source / "items.parquet").to_pylist():
        prompts.setdefault(item["item_id"], []).append(item["prompt"])
    seen: dict[tuple[str, str], int] = {}
    rows = []
    for row in records:
        key = (row["model"], row["item_id"])
        seen[key] = seen.get(key, -1) + 1
        if row["score"] is not None:
            rows.append({**row, "prompt": prompts[row["item_id"]][seen[key]]})
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    columns = {"model": "model", "task": "task", "key": "item_id", "score": "score", "usd": "cost_usd"}
    imported("table", folder / "rows.parquet", lake, options={**columns, "prompt": "prompt"})


# ---- peers


def bench_routerbench(report: Report) -> None:
    """The largest difference between our and its mean scores, over 165 lines of a router and set, kNN's ties aside."""
    import warnings

    warnings.simplefilter("ignore")
    inputs = BenchInputs()
    theirs = {
        (row["scope"], row["router"], row["parameter"], row["willingness_to_pay"]): float(row["mean_score"])
        for row in lines("results.csv")
    }
    ids = [row["sample_id"] for row in inputs.rows]
    tied = {(row["scope"], row["parameter"]) for row in lines("ties.csv")}
    routers: dict[str, list[tuple[str, Any]]] = {
        "knn": [(f"k={k}", routerbench.Knn(k, prices=inputs.prices)) for k in (5, 10, 40)],
        "svm": [("-", routerbench.Svm(prices=inputs.prices))],
        "mlp": [("hidden=100", routerbench.Mlp(100, prices=inputs.prices))],
    }
    for kind, some in routers.items():
        worst, compared, left = 0.0, 0, 0
        for scope in ("mbpp", "winogrande", "arc-challenge"):
            train, test = inputs.part(scope, "train"), inputs.part(scope, "test")
            scores = inputs.scores[train]
            for parameter, router in some:
                if (scope, parameter) in tied:
                    left += 1
                    continue
                fresh = type(router).__new__(type(router))
                fresh.__dict__.update(router.__dict__, **({"models": []} if hasattr(router, "models") else {}))
                learned = queries([ids[at] for at in train], inputs.models, inputs.vectors[train])
                fresh.fit(learned, scores, np.full(scores.shape, np.nan), ~np.isnan(scores))
                of = fresh.scores_of(queries([ids[at] for at in test], inputs.models, inputs.vectors[test]))
                for (where, what, how, pay), mean in theirs.items():
                    if (where, what, how) == (scope, kind, parameter):
                        chosen = fresh.choose(of, None if pay == "none" else float(pay))
                        mine = math.fsum(inputs.scores[test][np.arange(len(test)), chosen]) / len(test)
                        worst, compared = max(worst, abs(mine - mean)), compared + 1
        detail = f"{compared} figures" + (
            f"; {left} sets with a tie at k are compared by choice in the tests" if left else ""
        )
        report.row(f"RouterBench's {kind}: largest difference of a mean score", worst, 1e-9, detail)


def bench_routereval(report: Report) -> None:
    inputs = EvalInputs()
    theirs = {
        (row["group"], int(row["pool_size"]), row["router"], row["parameter"]): row
        for row in lines("routereval/results.csv")
    }
    made: dict[tuple[str, str], Any] = {
        **{("knn", f"knearest={k}"): lambda k=k: routereval.Knn(k) for k in (3, 5, 10)},
        **{("kmeans", f"numcluster={k}"): lambda k=k: routereval.KMeans(k) for k in (3, 5)},
        ("linear", "lr=0.1,epoch=10,batch=1024"): lambda: routereval.Network(None, 0.1, 10, 1024),
        ("mlp", "lr=0.001,epoch=100,hidden=400,batch=1024"): lambda: routereval.Network(400, 0.001, 100, 1024),
    }
    for (kind, parameter), make in made.items():
        score, bits = 0.0, 0.0
        for (group, size), models in inputs.models.items():
            scores = np.stack([inputs.scores[model] for model in models], axis=1)
            train, test = (
                queries([inputs.ids[at] for at in rows], models, inputs.vectors[rows])
                for rows in (inputs.train, inputs.test)
            )
            router = make()
            learned = scores[inputs.train]
            router.fit(train, learned, np.full(learned.shape, np.nan), ~np.isnan(learned))
            mine = scores[inputs.test][np.arange(len(test)), router.route(test, models)].mean()
            row = theirs[group, size, kind, parameter]
            score = max(score, abs(mine - float(row["mean_score"])))
            entropy = selection_entropy(router.probabilities(test, models)).value
            bits = max(bits, abs(entropy - float(row["e_p"])))
        report.row(f"RouterEval's {kind} ({parameter}): difference of a mean", score, 1e-4, f"of E_p {bits:.1e}")


# ---- a large matrix


LARGE = """
import numpy as np, sys, tempfile, time
from pathlib import Path
from collectors.routers.registry import router_of
from collectors.routers.trial import Data, Fold, run_trial
from tests.benchmarks.peak import tell
folder = Path(sys.argv[2])
questions, models = 23_529, 8_500
random = np.random.default_rng(0)
path = folder / "scores.npy"
if not path.exists():
    scores = np.lib.format.open_memmap(path, "w+", np.float32, (questions, models))
    level, hard = random.random(models, np.float32), random.random(questions, np.float32)
    for first in range(0, questions, 1024):
        chance = 0.5 * (level + 1 - hard[first : first + 1024, None])
        scores[first : first + 1024] = random.random(chance.shape, np.float32) < chance
    scores.flush()
    del scores
vectors = random.standard_normal((questions, 64)).astype(np.float64)
names = [str(row) for row in range(questions)]
data = Data(folder, names, ["t"] * questions, names, [f"m{column}" for column in range(models)], [], {})
order = random.permutation(questions)
fold = Fold(np.sort(order[: int(0.7 * questions)]), np.sort(order[int(0.7 * questions) :]), 0)
began = time.perf_counter()
made = run_trial(data, router_of(sys.argv[1]), fold, vectors)
print(time.perf_counter() - began)
tell()
"""


def bench_large(report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("knn", "avengers"):
            done = subprocess.run(
                [sys.executable, "-c", LARGE, name, folder],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=True,
            )
            peak = measured(done.stderr)[1]
            report.row(f"8,500 models × 23,529 questions, {name}: seconds", float(done.stdout), 180)
            report.row("… GiB, with the mapped scores", peak / 2**30, 4)


# ---- worlds


def bench_worlds(report: Report, worlds: int) -> None:
    """Three folds of 1,000 questions; the truth is each fitted router's own, on 20,000 new questions of its world."""
    covered = total = blind = 0
    for world in range(worlds):
        random = np.random.default_rng(world)
        levels, slopes = random.normal(0.3, 0.4, 6), random.normal(0, 0.5, (6, 8))
        inputs = random.standard_normal((1000, 8))
        new = random.standard_normal((20_000, 8))
        chance = lambda x, levels=levels, slopes=slopes: 1 / (1 + np.exp(-(levels + x @ slopes.T)))  # noqa: E731
        scores = (random.random((1000, 6)) < chance(inputs)).astype(float)
        of_new = chance(new)
        noise, new_noise = random.standard_normal((1000, 8)), random.standard_normal((20_000, 8))
        values = np.full((4, 3, 1000), np.nan)
        truth = np.zeros((4, 3))
        for number in range(3):
            train = random.random(1000) < 0.7
            test = ~train
            constant = int(scores[train].mean(axis=0).argmax())
            for place, (router, old, fresh) in enumerate(
                [
                    (Ridge(), inputs, new),
                    (Neighbours(20), inputs, new),
                    (Ridge(), noise, new_noise),
                    (Neighbours(20), noise, new_noise),
                ]
            ):
                nothing = np.full(scores[train].shape, np.nan)
                router.fit(_plain(old[train]), scores[train], nothing, np.ones(nothing.shape, bool))
                chosen = router.route(_plain(old[test]), [])
                values[place, number, test] = scores[test, chosen] - scores[test, constant]
                at = np.arange(2000) if place % 2 else np.arange(20_000)
                later = router.route(_plain(fresh[at]), [])
                truth[place, number] = (of_new[at, later] - of_new[at, constant]).mean()
        found = resample(values, np.arange(1000), draws=1000, seed=world)
        low, high = found.interval()
        covered += int(((low <= truth.mean(axis=1)) & (truth.mean(axis=1) <= high)).sum())
        total += 4
        p_values = holm(found.p_values())
        blind += sum(p_values[place] < 0.05 and found.figures[place] > 0 for place in (2, 3))
    share = covered / total
    report.row("simulated worlds: share of intervals that hold the truth", share, 0.93, f"{total} intervals", more=True)
    report.row("… the same, at most", share, 0.97)
    report.row("… routers without a signal called better than the constant", blind / (2 * worlds), 0.05)


def _plain(vectors: Any) -> Queries:
    names = [""] * len(vectors)
    return Queries(names, names, names, [str(column) for column in range(6)], vectors)


def bench_heldout(report: Report) -> None:
    """The view against the chances that drew the answers; the questions leave 0.3 points of noise."""
    for count, asked in ((2, 12_000), (4, 6_000), (10, 2_400)):
        random = np.random.default_rng(count)
        chances = random.beta(0.8, 0.6, (7, asked))
        draws = (random.random((*chances.shape, count)) < chances[..., np.newaxis]).astype(float)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            lake = LakeBuilder(folder)
            for place, of in enumerate(draws):
                cell = BuiltCell(model=f"m{place}", items=len(of))
                lake.run(cell)
                rows = [cell.record(item, score=float(one.mean())) for item, one in enumerate(of)]
                rows += [
                    cell.record(item, score=float(score), repeat=repeat + 1)
                    for item, one in enumerate(of)
                    for repeat, score in enumerate(one)
                ]
                lake.shard(cell, rows)
            row = lake.row("SELECT * FROM oracle_heldout")
        truth = []
        for half in (draws[..., 0::2].mean(axis=2), draws[..., 1::2].mean(axis=2)):
            chosen = (half + 1e-9 * half.mean(axis=1, keepdims=True)).argmax(axis=0)
            truth.append(chances[chosen, np.arange(chances.shape[1])].mean())
        bias = 100 * abs(row["oracle_score"] - np.mean(truth))
        known = chances.max(axis=0).mean()
        detail = (
            f"one draw flatters by {100 * (row['one_draw_score'] - np.mean(truth)):.1f}; who knew all has {known:.3f}"
        )
        report.row(f"oracle_heldout of {count} draws: bias in points", bias, 0.5, detail)


if __name__ == "__main__":
    sys.exit(main())
