"""Scores routers by files of their choices: the command `matrix.py score`. See its --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix import judged, luck
from collectors.matrix.item_rows import VIEWS
from collectors.matrix.judged import judge_lines
from collectors.matrix.pools import needed_views
from collectors.matrix.scoring import AGAINST, Scored, score_file
from pipelines.console.plain_console import PlainConsole
from pipelines.console.pool_options import add_pool, pool_of
from pipelines.console.rows_out import add_format, print_dicts
from pipelines.console.script import Parser, sibling
from schemas.failures import RouterlakeError, one_line

#: Columns of the tables where the output is not a terminal.
WIDTH = 100

DESCRIPTION = """\
Score routers by their choices: for each item one model of a pool.

The pool is that of the views candidates and questions. Every figure uses the questions that have a choice by the router
and a score from every candidate; the others are counted as left out. A router with choices in several tasks has two
rows `all`, with the candidates that all of these tasks have: by question each question counts once, by task each task
counts the same. Costs come from the view costs: put prices into the lake with prices.py. With --against latency the
cost is seconds of latency."""

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


def main(argv: Sequence[str]) -> int:
    args = parse(argv)
    console = PlainConsole(width=None if sys.stdout.isatty() else WIDTH)
    try:
        lake = Lake(args.lake).open_for_reading()
        pool = pool_of(args, lake)
        scored, notes, judges = ask(
            lake,
            lambda con, holdings: (
                *score_file(con, lake, holdings, args.choices, pool.choice, AGAINST[args.against]),
                judge_lines(con),
            ),
            only=lambda holdings: (*VIEWS, *needed_views(holdings, ["usd"]), *judged.VIEWS, *luck.VIEWS),
            include=pool.include,
            choice=pool.choice,
        )
    except (RouterlakeError, duckdb.Error) as error:
        print(f"matrix: {one_line(error)}", file=sys.stderr)
        return 2
    notes = [*pool.cited(lake.uri), *judges, *notes]
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
    parser = Parser(sibling(__file__, "matrix.py"), "score", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--choices", required=True, type=Path, metavar="FILE", help="the choices of routers, see below")
    parser.add_argument("--lake", metavar="URI", default="./lake", help="a lake or version (default: %(default)s)")
    add_pool(parser)
    parser.add_argument(
        "--against", choices=AGAINST, default="usd", help="the cost to compare by (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, costs per item")
    add_format(parser, "a table")
    return parser.parse_args(argv)


def print_scored(scored: Sequence[Scored], console: Console) -> None:
    """Two tables, of the routers and of their pools on the same questions; one line on omissions."""
    routers = list(dict.fromkeys(one.router for one in scored))
    if len(routers) == 1:
        console.print(f"router {routers[0]}", soft_wrap=True)
    names = ["<router"] * (len(routers) > 1) + ["<task"]
    unit = "latency s" if scored[0].unit == "latency_s" else "$/1000"
    figures, bounds = [], []
    for one in scored:
        judged = one.judged
        name = [one.router] * (len(routers) > 1) + [_task(one)]
        figures.append(
            [
                *name,
                f"{judged.items:,}",
                f"{judged.accuracy:.4f}",
                _number(judged.v_b),
                _number(judged.gap_closed),
                f"{judged.choice_entropy:.3f}",
                "" if judged.selection_entropy is None else f"{judged.selection_entropy:.3f}",
                _cost(judged.mean_cost, one.unit),
                _number(one.hull_score),
            ]
        )
        bounds.append(
            [
                *name,
                one.best_model,
                f"{judged.best_single:.4f}",
                _cost(one.best_cost, one.unit),
                f"{judged.random:.4f}",
                f"{judged.oracle:.4f}",
                _cost(one.oracle_cost, one.unit),
                _number(one.aiq_paper),
            ]
        )
    console.print(_table([*names, "items", "score", "V_B", "closed", "E", "E_p", unit, "hull"], figures))
    console.print("the pool on these questions:")
    titles = ["<best", "its score", f"its {unit}", "random", "oracle", f"its {unit}", "AIQ"]
    console.print(_table([*names, *titles], bounds))
    if line := left_out(scored):
        console.print(line, soft_wrap=True)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Titles that begin with '<' are of names, which wrap to the next line; numbers are never cut. No empty column."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    kept = [place for place in range(len(titles)) if any(row[place] for row in rows)]
    for title in (titles[place] for place in kept):
        left = title.startswith("<")
        table.add_column(
            title.removeprefix("<"), justify="left" if left else "right", no_wrap=not left, overflow="fold"
        )
    for row in rows:
        table.add_row(*(row[place] for place in kept))
    return table


def _task(one: Scored) -> str:
    return f"{one.task}, by {one.weighted_by.removesuffix('s')}" if one.weighted_by else one.task


def left_out(scored: Sequence[Scored]) -> str:
    """One line on the items and costs that the figures lack; '' if they lack none."""
    rows = [one for one in scored if one.weighted_by is None]
    unchosen, uncosted = sum(one.unchosen for one in rows), sum(one.judged.uncosted for one in rows)
    unscored = sum(max(one.left_out - one.unchosen, 0) for one in rows)
    most = max(rows, key=lambda one: (one.left_out, one.judged.uncosted))
    what = "latency" if rows[0].unit == "latency_s" else "cost"
    lacking = {"without a choice": unchosen, "without a score from some model": unscored}
    parts = [f"{items:,} items {why}" for why, items in lacking.items() if items]
    if parts and len(rows) > 1:
        parts[-1] += f", most of {most.router} on {most.task} ({most.left_out:,})"
    lines = [f"left out: {' and '.join(parts)}"] if parts else []
    return "; ".join(lines + ([f"{uncosted:,} choices have an unknown {what}"] if uncosted else []))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _cost(value: float | None, unit: str) -> str:
    """A cost as text: seconds per item, or USD per thousand items."""
    return "" if value is None else f"{value * (1 if unit == 'latency_s' else 1000):.4g}"
