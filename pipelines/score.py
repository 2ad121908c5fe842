"""Judges routers by files of their choices: `matrix.py score`. See its --help and the README."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from collectors.choices import read_choices
from collectors.lake import Lake
from collectors.metrics.judging import Judgement, judge
from collectors.metrics.known import NO_CHOICE
from collectors.metrics.pool import oracle
from collectors.pools import Pool, load_pool
from collectors.reading import ask
from schemas.failures import ConfigError, RouterlakeError, one_line
from schemas.views import INCLUDED

DESCRIPTION = """\
Judge routers by what they chose: for each item one model of a pool.

Every figure rests on the items for which the router chose a model and every model of the pool has a score; what that
leaves out is counted. Costs are those of the view costs: put prices into the lake with prices.py."""

EPILOG = """\
The file of choices (CSV, Parquet or JSON lines) has a column model, one of item (position), item_hash or source_key
that names the item, task where items of several tasks are named alike, and router where it holds several routers.

figures  score: mean of the chosen models' (RouterEval's mu)   best: the best single model on the same items
         V_B: score / best   closed: (score - best) / (oracle - best)   E: entropy of the choices over models, bits
         $/1000: of a thousand items; empty where the cost of some choice is unknown

examples:
  python pipelines/matrix.py score --choices mine.csv --lake /data/lake
  python pipelines/matrix.py score --choices mine.csv --lake /data/lake --pool "num_fewshot = 5 AND model LIKE 'Qwen/%'"

exit codes: 0 done; 2 the input is wrong"""


@dataclass(frozen=True)
class Scored:
    router: str
    pool: Pool
    judged: Judgement
    #: USD per item of the best single model and of the oracle (best, then cheapest); None where some is unknown.
    best_usd: float | None
    oracle_usd: float | None
    #: Items of the pool for which the router chose no model.
    unchosen: int

    def row(self) -> dict[str, Any]:
        """Everything as one flat row; USD are per item."""
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
            "usd": judged.mean_usd,
            "unpriced": judged.unpriced,
            "best_usd": self.best_usd,
            "oracle_usd": self.oracle_usd,
        }


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    console = Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 160)
    try:
        lake = Lake(args.lake).open_for_reading()
        scored = ask(lake, lambda con, _: score(con, args.choices, args.pool), include=args.include)
    except RouterlakeError as error:
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
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, USD per item")
    return parser.parse_args(argv)


def score(con: duckdb.DuckDBPyConnection, choices: Path, where: str) -> list[Scored]:
    """The figures of each router of the file on each task that it chose models for."""
    chosen = read_choices(con, choices)
    tasks = {router: sorted({choice.task for choice in of}) for router, of in chosen.routers.items()}
    pools = {task: load_pool(con, task, where) for task in sorted({task for of in tasks.values() for task in of})}
    scored = []
    for router, of in tasks.items():
        for task in of:
            scored.append(_score(router, pools[task], chosen.columns(pools[task], router)))
    return scored


def _score(router: str, pool: Pool, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> Scored:
    try:
        judged = judge(chosen, pool.scores, pool.usd)
    except ValueError as error:
        raise ConfigError(f"{router} on {pool.task}: {error}") from error
    best = oracle(pool.scores, pool.usd)
    used = (best != NO_CHOICE) & (chosen != NO_CHOICE)
    rows = np.flatnonzero(used)
    return Scored(
        router=router,
        pool=pool,
        judged=judged,
        best_usd=_mean(pool.usd[rows, judged.best_model]),
        oracle_usd=_mean(pool.usd[rows, best[rows]]),
        unchosen=int((chosen == NO_CHOICE).sum()),
    )


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    """The mean; None where one is unknown."""
    return None if np.isnan(values).any() else float(values.mean())


def print_scored(scored: Sequence[Scored], console: Console) -> None:
    table = Table(box=SIMPLE_HEAD)
    for head in ("<router", "<task", "items", "score", "V_B", "closed", "E", "$/1000"):
        table.add_column(head.removeprefix("<"), justify="left" if head.startswith("<") else "right")
    for head in ("<best", "its score", "its $/1000", "random", "oracle", "its $/1000"):
        table.add_column(head.removeprefix("<"), justify="left" if head.startswith("<") else "right")
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
            _per_1000(judged.mean_usd),
            one.pool.models[judged.best_model],
            f"{judged.best_single:.4f}",
            _per_1000(one.best_usd),
            f"{judged.random:.4f}",
            f"{judged.oracle:.4f}",
            _per_1000(one.oracle_usd),
        )
    console.print(table)
    for one in scored:
        missing = one.judged.left_out - one.unchosen
        if one.unchosen or missing > 0 or one.judged.unpriced:
            console.print(
                f"{one.router} on {one.pool.task}: left out are {one.unchosen:,} items without a choice and "
                f"{missing:,} that some model has no score for; of {one.judged.unpriced:,} choices the cost is unknown",
                soft_wrap=True,
            )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _per_1000(usd: float | None) -> str:
    return "" if usd is None else f"{usd * 1000:.4g}"
