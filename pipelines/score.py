"""Scores routers by files of their choices: the command `matrix.py score`. See its --help and the README."""

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

from collectors.lake.holdings import Holdings
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.described import check_more_is_better, head
from collectors.matrix.pools import Pool, needed_views, read_pools
from collectors.matrix.routed import VIEWS, Choices, read_choices
from collectors.metrics.agreement import Judgement, judge
from collectors.metrics.gaps import NO_CHOICE
from collectors.metrics.plane import Points, aiq_code, aiq_paper, convex_hull, zero_router
from collectors.metrics.pool import oracle
from pipelines.console.plain_console import PlainConsole
from pipelines.console.pool_options import add_pool, pool_of
from pipelines.console.rows_out import add_format, print_dicts
from schemas.failures import ConfigError, RouterlakeError, one_line
from schemas.views import PoolChoice

DESCRIPTION = """\
Score routers by their choices: for each item one model of a pool.

The pool is that of the views candidates and questions. Every figure uses the questions that have a choice by the router
and a score from every candidate; the others are counted as left out. A router with choices in several tasks has a row
`all` over their questions, each of which counts once, with the candidates that all of these tasks have. Costs come from
the view costs: put prices into the lake with prices.py. With --against latency the cost is seconds of latency."""

EPILOG = """\
The file of choices (CSV, Parquet or JSON lines) needs a column model, and one of the columns question (id of the view
questions), item (position), item_hash or source_key. Add a column task if items of several tasks have the same names,
and a column router if the file holds several routers. A column probabilities holds, as JSON, each model's probability:
{"model-a": 0.7, "model-b": 0.3};
they are divided by their sum.

figures, on the same items:
  score   mean score of the chosen models (RouterEval's mu)
  V_B     score / score of the best single model
  closed  (score - best single model) / (oracle - best single model)
  E       entropy of the choices over the models, in bits: 0 if one model gets all items
  E_p     mean entropy of the probabilities of single items, in bits (RouterEval's E_p); empty without probabilities
  $/1000  USD per thousand items, or with --against latency seconds per item; empty if a choice's cost is unknown
  hull    score of a random mixture of single models at the router's cost (RouterBench's Zero router)
  best    the best single model, with its score and cost; then random choice, and the oracle with its cost
  AIQ     RouterBench's AIQ of the single models, as defined in the paper; --json adds AIQ as in its code

examples:
  python pipelines/matrix.py score --choices mine.csv --lake /data/lake
  python pipelines/matrix.py score --choices mine.csv --lake /data/lake --pool "num_fewshot = 5 AND model LIKE 'Qwen/%'"

exit codes: 0 done; 2 the input is wrong"""


#: Value of --against -> its name in Pool.numbers. Figures in JSON have the same name.
AGAINST = {"usd": "usd", "latency": "latency_s"}
#: Array of costs -> name of the count of choices with an unknown cost.
UNCOSTED = {"usd": "unpriced", "latency_s": "untimed"}


@dataclass(frozen=True)
class Part:
    """What one router chose of a pool."""

    pool: Pool
    #: (questions,): columns, or NO_CHOICE.
    chosen: npt.NDArray[np.int64]
    #: (questions, candidates), NaN for a question without; None: no question has any.
    probabilities: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class Scored:
    """The figures of one router on one task. Costs are means over items, and None if some cost is unknown."""

    router: str
    pool: Pool
    #: A value of AGAINST.
    unit: str
    judged: Judgement
    #: Mean cost of the best single model.
    best_cost: float | None
    #: Mean cost of the oracle, which takes the cheapest of the best models for each item.
    oracle_cost: float | None
    #: Score of the Zero router at the router's cost; None also if the router is cheaper than every model.
    hull_score: float | None
    #: AIQ of the pool's single models, as in the paper and as in RouterBench's code; None also if all cost the same.
    aiq_paper: float | None
    aiq_code: float | None
    #: Items of the pool without a choice by the router.
    unchosen: int

    @property
    def left_out(self) -> int:
        """Questions of the task or tasks that are not in the figures."""
        return self.pool.left_out + self.judged.left_out

    def row(self) -> dict[str, Any]:
        """All figures as one flat row for JSON; costs are per item."""
        judged = self.judged
        return {
            "router": self.router,
            "task": self.pool.task,
            "metric": self.pool.metric or None,
            "models": len(self.pool.candidates),
            "items": judged.items,
            "left_out": self.left_out,
            "unchosen": self.unchosen,
            "score": judged.accuracy,
            "best_model": self.pool.candidates[judged.best_model],
            "best_score": judged.best_single,
            "random_score": judged.random,
            "oracle_score": judged.oracle,
            "v_b": judged.v_b,
            "gap_closed": judged.gap_closed,
            "choice_entropy": judged.choice_entropy,
            "selection_entropy": judged.selection_entropy,
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
        pool = pool_of(args, lake)
        scored, notes = ask(
            lake,
            lambda con, holdings: score(con, lake, holdings, args.choices, pool.choice, AGAINST[args.against]),
            only=lambda holdings: (*VIEWS, *needed_views(holdings, ["usd"])),
            include=pool.include,
            choice=pool.choice,
        )
    except (RouterlakeError, duckdb.Error) as error:
        print(f"matrix: {one_line(error)}", file=sys.stderr)
        return 2
    notes = [*pool.cited(lake.uri), *notes]
    for note in notes:
        print(f"matrix: {note}", file=sys.stderr)
    if args.json:
        print(json.dumps([one.row() for one in scored], indent=2))
    elif args.format:
        print_dicts(args.format, [one.row() for one in scored])
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
    parser.add_argument("--choices", required=True, type=Path, metavar="FILE", help="the choices of routers, see below")
    parser.add_argument("--lake", metavar="URI", default="./lake", help="a lake or version (default: %(default)s)")
    add_pool(parser)
    parser.add_argument(
        "--against", choices=AGAINST, default="usd", help="the cost to compare by (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, costs per item")
    add_format(parser, "a table")
    return parser.parse_args(argv)


def score(
    con: duckdb.DuckDBPyConnection, lake: Lake, holdings: Holdings, choices: Path, choice: PoolChoice, unit: str
) -> tuple[list[Scored], list[str]]:
    """The figures of each router in the file on each of its tasks, and over all; `unit` is a value of AGAINST.

    Also lines for the user on the pool, and on each router that has no row over all tasks. Raises ConfigError if the
    choices do not fit the pool, or leave no question to score.
    """
    chosen = read_choices(con, choices)
    tasks_of = {router: sorted({choice.task for choice in rows}) for router, rows in chosen.routers.items()}
    tasks = sorted(set().union(*tasks_of.values()))
    pools = read_pools(con, lake, holdings, tasks, choice, numbers=[unit])
    scored, notes = [], head(pools)
    for router, of in tasks_of.items():
        scored += [_score(router, _part(chosen, pools.of_task(task), router), unit) for task in of]
        if len(of) > 1:
            try:
                scored.append(_score(router, _part(chosen, pools.over(of), router), unit))
            except ValueError as error:
                notes.append(f"{router} has no row over all tasks: {error}")
            except ConfigError as error:
                notes.append(f"{router} has no row over all tasks: {one_line(error)}")
    return scored, notes


def _part(chosen: Choices, pool: Pool, router: str) -> Part:
    check_more_is_better(pool)
    return Part(pool, chosen.columns(pool, router), chosen.probabilities(pool, router))


def _score(router: str, part: Part, unit: str) -> Scored:
    pool, chosen = part.pool, part.chosen
    cost = pool.number(unit)
    try:
        judged = judge(chosen, pool.scores, cost, probabilities=part.probabilities)
    except ValueError as error:
        raise ConfigError(f"{router} on {pool.task}: {error}") from error
    best = oracle(pool.scores, cost)
    rows = np.flatnonzero((best != NO_CHOICE) & (chosen != NO_CHOICE))
    points = np.stack([cost[rows].mean(axis=0), pool.scores[rows].mean(axis=0)], axis=1)
    all_costed = not np.isnan(points).any()
    differ = all_costed and np.ptp(points[:, 0]) > 0
    return Scored(
        router=router,
        pool=pool,
        unit=unit,
        judged=judged,
        best_cost=_mean(cost[rows, judged.best_model]),
        oracle_cost=_mean(cost[rows, best[rows]]),
        hull_score=_hull_score(points, judged.mean_cost) if all_costed else None,
        aiq_paper=aiq_paper(points) if differ else None,
        aiq_code=aiq_code(points) if differ and convex_hull(points)[-1, 0] > 0 else None,
        unchosen=int((chosen == NO_CHOICE).sum()),
    )


def _hull_score(points: Points, cost: float | None) -> float | None:
    """The Zero router's score at a mean cost of `cost`; None if no mixture of the models is so cheap."""
    if cost is None:
        return None
    lowest = float(points[:, 0].min())
    cost = lowest if math.isclose(cost, lowest, rel_tol=1e-9) else cost  # equal but for the order of the sum
    return zero_router(points, cost) if cost >= lowest else None


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    """The mean; None if a value is unknown (NaN)."""
    return None if np.isnan(values).any() else float(values.mean())


def print_scored(scored: Sequence[Scored], console: Console) -> None:
    table = Table(box=SIMPLE_HEAD)
    unit = "latency s" if scored[0].unit == "latency_s" else "$/1000"
    heads = ("<router", "<task", "items", "score", "V_B", "closed", "E", "E_p", unit, "hull")
    for title in (*heads, "<best", "its score", f"its {unit}", "random", "oracle", f"its {unit}", "AIQ"):
        # On a narrow terminal names wrap to the next line; numbers are never cut.
        left = title.startswith("<")
        table.add_column(
            title.removeprefix("<"),
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
            "" if judged.selection_entropy is None else f"{judged.selection_entropy:.3f}",
            _cost(judged.mean_cost, one.unit),
            _number(one.hull_score),
            one.pool.candidates[judged.best_model],
            f"{judged.best_single:.4f}",
            _cost(one.best_cost, one.unit),
            f"{judged.random:.4f}",
            f"{judged.oracle:.4f}",
            _cost(one.oracle_cost, one.unit),
            _number(one.aiq_paper),
        )
    console.print(table)
    for one in scored:
        missing = one.left_out - one.unchosen
        if one.unchosen or missing > 0 or one.judged.uncosted:
            what = "latency" if one.unit == "latency_s" else "cost"
            console.print(
                f"{one.router} on {one.pool.task}: left out {one.unchosen:,} items without a choice and {missing:,} "
                f"without a score from some model; {one.judged.uncosted:,} choices have an unknown {what}",
                soft_wrap=True,
            )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _cost(value: float | None, unit: str) -> str:
    """A cost as text: seconds per item, or USD per thousand items."""
    return "" if value is None else f"{value * (1 if unit == 'latency_s' else 1000):.4g}"
