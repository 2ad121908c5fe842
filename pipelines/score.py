"""Judges routers by files of their choices: `matrix.py score`. See its --help and the README."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from collectors.choices import read_choices
from collectors.lake import Lake
from collectors.metrics.judging import Judgement, judge
from collectors.metrics.known import NO_CHOICE
from collectors.metrics.plane import Points, aiq_code, aiq_paper, convex_hull, zero_router
from collectors.metrics.pool import oracle
from collectors.pools import Pool, load_pool
from collectors.reading import ask
from pipelines.plain_console import PlainConsole
from schemas.failures import ConfigError, RouterlakeError, one_line
from schemas.views import INCLUDED

DESCRIPTION = """\
Judge routers by what they chose: for each item one model of a pool.

Every figure rests on the items for which the router chose a model and every model of the pool has a score; what that
leaves out is counted. Costs are those of the view costs: put prices into the lake with prices.py. --against latency
takes seconds of latency for the cost."""

EPILOG = """\
The file of choices (CSV, Parquet or JSON lines) has a column model, one of item (position), item_hash or source_key
that names the item, task where items of several tasks are named alike, and router where it holds several routers.

figures  score: mean of the chosen models' (RouterEval's mu)   best: the best single model on the same items
         V_B: score / best   closed: (score - best) / (oracle - best)   E: entropy of the choices over models, bits
         $/1000: of a thousand items, or with --against latency seconds per item; empty where that of some choice is
         unknown   hull: what mixing single models at random reaches for the router's cost (RouterBench's Zero router)
         AIQ: RouterBench's, of the single models, as the paper defines it; --json has its code's too

examples:
  python pipelines/matrix.py score --choices mine.csv --lake /data/lake
  python pipelines/matrix.py score --choices mine.csv --lake /data/lake --pool "num_fewshot = 5 AND model LIKE 'Qwen/%'"

exit codes: 0 done; 2 the input is wrong"""


#: What --against takes -> the array of a pool that it means, as its figures are called.
AGAINST = {"usd": "usd", "latency": "latency_s"}
#: A choice whose cost is unknown.
UNCOSTED = {"usd": "unpriced", "latency_s": "untimed"}


@dataclass(frozen=True)
class Scored:
    router: str
    pool: Pool
    #: A value of AGAINST. All costs below are per item, and None where some is unknown.
    unit: str
    judged: Judgement
    best_cost: float | None
    #: Of the oracle: the best, of these the cheapest.
    oracle_cost: float | None
    #: Quality of the Zero router at the router's cost; None also where the router is cheaper than any model.
    hull_score: float | None
    #: Of the pool's models over the range of their costs; None also where all cost the same.
    aiq_paper: float | None
    aiq_code: float | None
    #: Items of the pool for which the router chose no model.
    unchosen: int

    def row(self) -> dict[str, Any]:
        """Everything as one flat row; costs are per item."""
        judged = self.judged
        return {
            "router": self.router,
            "task": self.pool.task,
            "metric": self.pool.metric,
            "models": len(self.pool.models),
            "items": judged.items,
            "left_out": judged.left_out,
            "unchosen": self.unchosen,
            "score": judged.accuracy,
            "best_model": self.pool.models[judged.best_model],
            "best_score": judged.best_single,
            "random_score": judged.random,
            "oracle_score": judged.oracle,
            "v_b": judged.v_b,
            "gap_closed": judged.gap_closed,
            "choice_entropy": judged.choice_entropy,
            self.unit: judged.mean_cost,
            UNCOSTED[self.unit]: judged.uncosted,
            f"best_{self.unit}": self.best_cost,
            f"oracle_{self.unit}": self.oracle_cost,
            "hull_score": self.hull_score,
            "aiq_paper": self.aiq_paper,
            "aiq_code": self.aiq_code,
        }


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    console = PlainConsole(width=None if sys.stdout.isatty() else 1000)
    try:
        lake = Lake(args.lake).open_for_reading()
        scored = ask(
            lake, lambda con, _: score(con, args.choices, args.pool, AGAINST[args.against]), include=args.include
        )
    except (RouterlakeError, duckdb.Error) as error:
        print(f"matrix: {one_line(error)}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps([one.row() for one in scored], indent=2))
    else:
        print_scored(scored, console)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="matrix.py score",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--choices", required=True, type=Path, metavar="FILE", help="what routers chose")
    parser.add_argument("--lake", metavar="URI", default="./lake", help="a lake or version (default: %(default)s)")
    parser.add_argument(
        "--pool", metavar="SQL", default="true", help="condition on columns of the view cells (default: all cells)"
    )
    parser.add_argument("--include", choices=INCLUDED, default="collected", help="which records (default: %(default)s)")
    parser.add_argument("--against", choices=AGAINST, default="usd", help="what is the cost (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, costs per item")
    return parser.parse_args(argv)


def score(con: duckdb.DuckDBPyConnection, choices: Path, where: str, unit: str) -> list[Scored]:
    """The figures of each router of the file on each task that it chose models for; `unit` is a value of AGAINST."""
    chosen = read_choices(con, choices)
    tasks = {router: sorted({choice.task for choice in of}) for router, of in chosen.routers.items()}
    pools = {task: load_pool(con, task, where) for task in sorted({task for of in tasks.values() for task in of})}
    scored = []
    for router, of in tasks.items():
        for task in of:
            scored.append(_score(router, pools[task], chosen.columns(pools[task], router), unit))
    return scored


def _score(router: str, pool: Pool, chosen: npt.NDArray[np.int64], unit: str) -> Scored:
    cost = getattr(pool, unit)
    try:
        judged = judge(chosen, pool.scores, cost)
    except ValueError as error:
        raise ConfigError(f"{router} on {pool.task}: {error}") from error
    best = oracle(pool.scores, cost)
    rows = np.flatnonzero((best != NO_CHOICE) & (chosen != NO_CHOICE))
    points = np.stack([cost[rows].mean(axis=0), pool.scores[rows].mean(axis=0)], axis=1)
    known = not np.isnan(points).any()
    ranges = known and np.ptp(points[:, 0]) > 0
    return Scored(
        router=router,
        pool=pool,
        unit=unit,
        judged=judged,
        best_cost=_mean(cost[rows, judged.best_model]),
        oracle_cost=_mean(cost[rows, best[rows]]),
        hull_score=_hull_score(points, judged.mean_cost) if known else None,
        aiq_paper=aiq_paper(points) if ranges else None,
        aiq_code=aiq_code(points) if ranges and convex_hull(points)[-1, 0] > 0 else None,
        unchosen=int((chosen == NO_CHOICE).sum()),
    )


def _hull_score(points: Points, cost: float | None) -> float | None:
    """The Zero router's at that mean cost; None where no mixture of the models costs so little."""
    if cost is None:
        return None
    lowest = float(points[:, 0].min())
    cost = lowest if math.isclose(cost, lowest, rel_tol=1e-9) else cost  # the same numbers added up in another order
    return zero_router(points, cost) if cost >= lowest else None


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    """The mean; None where one is unknown."""
    return None if np.isnan(values).any() else float(values.mean())


def print_scored(scored: Sequence[Scored], console: Console) -> None:
    table = Table(box=SIMPLE_HEAD)
    unit = "latency s" if scored[0].unit == "latency_s" else "$/1000"
    heads = ("<router", "<task", "items", "score", "V_B", "closed", "E", unit, "hull")
    for head in (*heads, "<best", "its score", f"its {unit}", "random", "oracle", f"its {unit}", "AIQ"):
        # Names go on in the next line where a terminal is narrow; numbers are never cut.
        left = head.startswith("<")
        table.add_column(
            head.removeprefix("<"),
            justify="left" if left else "right",
            no_wrap=not left,
            overflow="fold",
            min_width=None if left else 6,
        )
    for one in scored:
        judged = one.judged
        table.add_row(
            one.router,
            one.pool.task,
            f"{judged.items:,}",
            f"{judged.accuracy:.4f}",
            _number(judged.v_b),
            _number(judged.gap_closed),
            f"{judged.choice_entropy:.3f}",
            _cost(judged.mean_cost, one.unit),
            _number(one.hull_score),
            one.pool.models[judged.best_model],
            f"{judged.best_single:.4f}",
            _cost(one.best_cost, one.unit),
            f"{judged.random:.4f}",
            f"{judged.oracle:.4f}",
            _cost(one.oracle_cost, one.unit),
            _number(one.aiq_paper),
        )
    console.print(table)
    for one in scored:
        missing = one.judged.left_out - one.unchosen
        if one.unchosen or missing > 0 or one.judged.uncosted:
            what = "latency" if one.unit == "latency_s" else "cost"
            console.print(
                f"{one.router} on {one.pool.task}: left out are {one.unchosen:,} items without a choice and "
                f"{missing:,} that some model has no score for; of {one.judged.uncosted:,} choices the {what} is "
                "unknown",
                soft_wrap=True,
            )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _cost(value: float | None, unit: str) -> str:
    """Seconds per item, or USD per thousand items."""
    return "" if value is None else f"{value * (1 if unit == 'latency_s' else 1000):.4g}"
