"""Equality: views bytewise, cells that others leave alone, coverage of intervals, exact sums."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.lake.compaction import compact
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.publish.card import Description
from collectors.publish.version import build_version
from schemas.views import create_views, view_files
from tests.benchmarks.bench_lake import Report
from tests.helpers.equal_lakes import RandomLake, answers, answers_of_database, put_prices
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

Floats = npt.NDArray[np.float64]
Law = Callable[[np.random.Generator, tuple[int, int]], Floats]

#: Law of scores -> how it is drawn, its mean, and whether its metric has the range [0, 1].
LAWS: dict[str, tuple[Law, float, bool]] = {
    "uniform": (lambda rng, shape: rng.random(shape), 0.5, True),
    "beta(.2, .8)": (lambda rng, shape: rng.beta(0.2, 0.8, shape), 0.2, True),
    "log-normal": (lambda rng, shape: rng.lognormal(0, 1, shape), float(np.exp(0.5)), False),
}
SIZES = (5, 10, 20, 50)
#: Shares of right answers. Of whole numbers of right answers no interval covers every one of them alike: 92 to 98 %.
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lakes", type=int, default=5, help="random lakes (default %(default)s)")
    parser.add_argument("--orders", type=int, default=5, help="orders of each, in one state each (default %(default)s)")
    parser.add_argument("--samples", type=int, default=2000, help="samples of a law and size (default %(default)s)")
    parser.add_argument("--numbers", type=int, default=20_000_000, help="numbers to add up (default %(default)s)")
    args = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        bench_equal(report, Path(folder), range(args.lakes), args.orders)
        bench_alone(report, Path(folder), args.lakes)
    bench_coverage(report, args.samples)
    bench_sums(report, args.numbers)
    return 0 if report.good else 1


def bench_equal(report: Report, folder: Path, lakes: range, orders: int) -> None:
    """The share of answers of views, in any order, state and number of threads, that are those of the first."""
    same = total = 0
    for number, seed in enumerate(lakes, 1):
        first: dict[str, list[str]] = {}
        for order in range(orders):
            place = folder / f"{seed}-{order}"
            for state, found in _states(RandomLake(seed, is_odd=seed % 2 == 1), place, order):
                first = first or found
                differing = [name for name in first if found[name] != first[name]]
                if differing:
                    print(f"lake {seed}, order {order}, {state}: {', '.join(differing)} differ", flush=True)
                same, total = same + len(first) - len(differing), total + len(first)
            shutil.rmtree(place)
        if number % 5 == 0:
            print(f"{time.strftime('%H:%M')} {number} lakes: {same:,} of {total:,} answers equal", flush=True)
    report.row("views equal to the last bit, share", same / total, 1, f"{total:,} answers of views", more=True)


def _states(made: RandomLake, folder: Path, order: int) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """The answers in one of five states for each order, a published one twice, with 1, 2 and 4 threads in turn."""
    folder.mkdir()
    threads = (1, 2, 4)[(made.seed + order) % 3]
    state = ("as written", "half compacted", "compacted", "compacted twice", "published")[order % 5]
    lake = made.write(folder / "lake", order, compact if state in ("half compacted", "compacted twice") else _leave)
    if state in ("compacted", "compacted twice"):
        compact(lake)
    if state != "published":
        yield state, answers(lake, threads)
        return
    build_version(lake, folder / "version", Description(licence="mit"), include="all")
    yield state, answers(Lake(str(folder / "version")), threads)
    yield "its database", answers_of_database(folder / "version", threads)


def _leave(lake: Lake) -> None:
    """Leaves a lake as it is."""


def bench_alone(report: Report, folder: Path, lakes: int) -> None:
    """The numbers of cells that change when cells, runs, imports, models and prices come that do not concern them."""
    changed = total = 0
    for seed in range(lakes):
        place = folder / f"alone-{seed}"
        place.mkdir()
        lake = RandomLake(seed).write(place / "lake", 0)
        cells = [cell.cell_id for cell, _ in RandomLake(seed).cells()]
        before = _of_cells(lake, cells)
        _add_others(lake, seed)
        after = _of_cells(lake, cells)
        changed += sum(one != other for one, other in zip(before, after, strict=True))
        total += len(before)
    report.row("rows of a cell changed by what does not concern it", changed, 0, f"{total:,} rows")


def _add_others(lake: Lake, seed: int) -> None:
    builder, rng = LakeBuilder(lake.root), np.random.default_rng(seed)
    builder._runs = 100  # of other names than those before
    others = [BuiltCell(model=f"model-{name}", task="another") for name in "abcd"]
    others += [BuiltCell(model="model-a", prompting="p1"), BuiltCell(model="model-a", dtype="int8")]
    for number, other in enumerate(others):
        source = {"source": f"/folders/{number}", "revision": f"r{number}"}
        foreign = {"imported_from": "elsewhere"} if number % 2 else {}
        builder.run(other, **source, **foreign)
        builder.scores(other, rng.random(other.items).tolist())
    builder.model("model-a", "r5", parameters=8_000_000_000)
    put_prices(lake, [("other/thing", 9.0, 9.0)])
    put_prices(lake, [("model-a", 0.0, 0.0)], day="2099-01-01")


def _of_cells(lake: Lake, cells: list[str]) -> list[str]:
    found = answers(lake)
    names = ("coverage", "costs", "matrix", "throughput", "records")
    mine = [row for name in names for row in found[name] if any(cell in row for cell in cells)]
    return mine + [row for row in found["leaderboard"] if any(cell in row for cell in cells)]


def bench_coverage(report: Report, samples: int) -> None:
    for law, (draw, mean, is_unit) in LAWS.items():
        for size in SIZES:
            if law == "log-normal" and size < 20:
                continue
            share = coverage(draw(np.random.default_rng(size), (samples, size)), mean, is_unit=is_unit)
            reach = 0.9 if law == "log-normal" else 0.93
            report.row(f"coverage, {law}, n = {size}", share, reach, more=True)

    for size in SIZES:
        rng = np.random.default_rng(size)
        shares = [coverage((rng.random((samples, size)) < p).astype(float), p, is_unit=True) for p in SHARES]
        report.row(f"coverage, 0/1, n = {size}", sum(shares) / len(shares), 0.93, f"from {min(shares):.3f}", more=True)


def coverage(scores: Floats, mean: float, *, is_unit: bool) -> float:
    """The share of samples (samples, n) whose interval in the view leaderboard holds the mean."""
    samples, size = scores.shape
    cells = [f"{number:016x}" for number in range(samples)]
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        builder = LakeBuilder(Path(folder))
        builder.planned(BuiltCell(items=1), [0.0])
        with connect(builder.lake, only=["matrix", "cells"]) as views:
            for name in ("matrix", "cells"):
                con.register(f"one_{name}", views.execute(f"FROM {name}").to_arrow_table())
        con.register("given", pa.table({"cell_id": np.repeat(cells, size), "score": scores.ravel()}))
        con.execute(
            "CREATE TABLE matrix AS SELECT * REPLACE (given.cell_id AS cell_id, given.score AS score) "
            "FROM one_matrix, given"
        )
        con.execute(
            "CREATE TABLE cells AS SELECT * REPLACE (given.cell_id AS cell_id, ? AS planned_items, "
            "CAST(? AS DOUBLE) AS correct_threshold) FROM one_cells, (SELECT DISTINCT cell_id FROM given) AS given",
            [size, 0.5 if is_unit else None],
        )
        create_views(con, builder.lake.uri, only=["leaderboard"], comments=False)
        [(held,)] = con.execute(
            "SELECT count(*) FILTER (? BETWEEN ci_low AND ci_high) FROM leaderboard", [mean]
        ).fetchall()
    return float(held) / samples


def bench_sums(report: Report, numbers: int) -> None:
    """CPU seconds of the exact mean against avg, which gives another last bit for every order of rows."""
    with duckdb.connect() as con:
        for name in ("_as_double", "_units", "_remainder", "_mean"):
            con.execute(view_files()[name].sql)
        con.execute(
            "CREATE TABLE numbers AS SELECT (i % 4000)::INTEGER AS cell, CASE WHEN i % 2 = 0 THEN hash(i) % 2 "
            f"ELSE (hash(i + 7) % 1000) / 1000 END::DOUBLE AS x FROM range({numbers}) AS r(i)"
        )
        exact, plain = (_cpu(con, f"SELECT {what} FROM numbers GROUP BY cell") for what in ("_mean(x, 1e12)", "avg(x)"))
    report.row(f"exact mean ÷ avg, {numbers:,} numbers", exact / plain, None, f"{exact:.2f} ÷ {plain:.2f} CPU s")


def _cpu(con: duckdb.DuckDBPyConnection, sql: str) -> float:
    found: list[Any] = []
    for _ in range(3):
        started = time.process_time()
        con.execute(sql).fetchall()
        found.append(time.process_time() - started)
    return min(found)


if __name__ == "__main__":
    sys.exit(main())
