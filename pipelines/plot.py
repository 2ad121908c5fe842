#!/usr/bin/env -S python3 -P
"""Draws the scores of model pools by size, and cost against quality, as PNG and HTML. See --help and the README."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb

from collectors.lake.store import Lake
from collectors.matrix.wide_pools import COSTS, WidePool, joined, load_wide_pools, without_sparse
from collectors.metrics.gaps import complete_items
from collectors.metrics.routereval import reference_accuracy
from collectors.pictures.draw import Drawing, draw_cost, draw_scaling
from collectors.pictures.headline import Headline, headline
from collectors.pictures.page import page
from pipelines.console.script import write_file
from schemas.failures import ConfigError, RouterlakeError, one_line
from schemas.views import INCLUDED

DESCRIPTION = """\
Draw the two headline figures of a lake or published version, for each task and for all tasks together.

  pool size   the oracle and RouterEval's r_o(p) for p = 1, 0.5 and 0 against the number of models in the pool, with the
              pool's best single model and RouterEval's reference accuracy if it has one. Lines are exact means over all
              pools of a size, bands show 5 to 95 % of random pools.
  cost        a point for each model: USD per 1,000 items (from the view costs) and mean score, with Pareto frontier,
              non-decreasing convex hull, AIQ, the oracle and chance. Latency replaces the cost if no cost is known."""

EPILOG = """\
Figures use complete items, which have a score from every model in the figure. A model with many gaps would remove most
items, so the command first leaves out models that have a score on fewer than --least of a task's items. The output and
the page count the models and items that were left out; nothing missing counts as wrong.

The command writes into DIR: index.html, which holds all figures and their numbers (tables; CSV and JSON to save) and
needs no network; for each task NAME-pool.png, and NAME-cost.png or NAME-latency.png. It replaces files of these names.

examples:
  python pipelines/plot.py --lake /data/lake --out pictures
  python pipelines/plot.py --lake /data/published/VERSION --out pictures --task gsm8k arc_challenge --include all
  python pipelines/plot.py --lake /data/lake --out pictures --pool "num_fewshot = 5" --reference my_task=0.9

exit codes: 0 done; 1 some tasks could not be drawn (they are named); 2 the input is wrong and nothing was drawn"""

ALL = "all tasks"


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return run(args)
    except (RouterlakeError, duckdb.Error) as error:
        print(f"plot: {one_line(error)}", file=sys.stderr)
        return 2


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="plot.py", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lake", metavar="URI", default="./lake", help="a lake or version (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--task", nargs="+", metavar="T", help="tasks to draw (default: all)")
    parser.add_argument(
        "--pool", metavar="SQL", default="true", help="condition on columns of the view cells (default: all cells)"
    )
    parser.add_argument("--include", choices=INCLUDED, default="collected", help="which records (default: %(default)s)")
    parser.add_argument("--against", choices=("usd", "latency"), help="cost axis (default: usd, else latency)")
    parser.add_argument(
        "--least",
        type=_between(float, 0, 1),
        default=0.9,
        metavar="SHARE",
        help="share of a task's items that a model must have a score on (default: %(default)s)",
    )
    parser.add_argument(
        "--reference",
        nargs="+",
        type=_reference,
        default=[],
        metavar="TASK=ACCURACY",
        help="draw your own reference line for a task",
    )
    parser.add_argument(
        "--draws",
        type=_between(int, 1, 10_000),
        default=100,
        metavar="N",
        help="random pools for a band (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=_between(int, 0, 2**63),
        default=0,
        metavar="N",
        help="seed of the random pools (default: %(default)s)",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    lake = Lake(args.lake)
    if not lake.exists():
        raise ConfigError(f"no lake at {lake.uri}: collect or ingest into one first, or name another with --lake")
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"--out {args.out} is not a folder")
    pools, why = load_wide_pools(lake.open_for_reading(), args.task, args.pool, args.include)
    drawn = []
    dense = []
    for pool in pools:
        kept, sparse = without_sparse(pool, args.least)
        try:
            _check(kept, args.least)
        except ConfigError as error:
            why[pool.task] = str(error)
            continue
        drawn.append(_headline(kept, sparse, args))
        dense.append(kept)
    if not drawn:
        raise ConfigError(next(iter(why.values())))
    if len(dense) > 1:
        drawn += _of_all(dense, args)
    _write(drawn, lake.uri, list(why.values()), args.out)
    for reason in why.values():
        print(f"plot: not drawn: {reason}", file=sys.stderr)
    return 1 if why else 0


def _check(pool: WidePool, least: float) -> None:
    if not pool.models:
        raise ConfigError(f"{pool.task}: no model has a score on {least:.0%} of the {len(pool.items):,} items: --least")
    if not complete_items(pool.scores).any():
        raise ConfigError(
            f"{pool.task}: none of the {len(pool.items):,} items has a score from all {len(pool.models):,} models: see "
            "--pool and --least"
        )


def _of_all(pools: Sequence[WidePool], args: argparse.Namespace) -> list[Headline]:
    """The headline over all tasks; empty if no models have all tasks in common."""
    whole = joined(pools, ALL)
    if whole is None:
        print(f"{ALL}: not drawn, no two models answered all of them under metrics that can be averaged")
        return []
    return [_headline(whole, 0, args)]


def _headline(pool: WidePool, sparse: int, args: argparse.Namespace) -> Headline:
    kinds = COSTS if args.against is None else [{"usd": "usd", "latency": "latency_s"}[args.against]]
    reference = dict(args.reference).get(pool.task, reference_accuracy(pool.task))
    return headline(
        pool.task,
        pool.metric,
        pool.models,
        pool.scores,
        {kind: pool.costs.get(kind) for kind in kinds},
        sparse=sparse,
        least=args.least,
        reference=reference,
        draws=args.draws,
        seed=args.seed,
    )


def _write(drawn: Sequence[Headline], uri: str, notes: Sequence[str], out: Path) -> None:
    _make(out)
    names = _file_names([one.task for one in drawn])
    tasks: list[tuple[Headline, list[Drawing]]] = []
    for one, name in zip(drawn, names, strict=True):
        drawings = {"pool": draw_scaling(one)}
        if one.cost:
            drawings["cost" if one.cost.kind == "usd" else "latency"] = draw_cost(one)
        for kind, drawing in drawings.items():
            write_file(out / f"{name}-{kind}.png", drawing.png)
        tasks.append((one, list(drawings.values())))
        _report(one)
    title = f"What routing can reach: {uri.rstrip('/').rpartition('/')[2]}"
    lines = [f"Not drawn: {reason}" for reason in notes]
    write_file(out / "index.html", page(title, tasks, lines).encode())
    print(f"→ {out / 'index.html'}")


def _report(one: Headline) -> None:
    scaling = one.scaling
    print(
        f"{one.task}: {len(one.models):,} models ({one.sparse:,} left out for too few scores), {scaling.items:,} items "
        f"({scaling.left_out:,} left out for a missing score): oracle {scaling.oracle[-1]:.4f}, best single model "
        f"{scaling.best_single[-1]:.4f}, random {scaling.random:.4f}"
    )
    if one.cost is None:
        print(f"{one.task}: no figure of cost: {one.no_cost}")
    elif one.cost.uncosted or one.cost.plane.left_out:
        print(
            f"{one.task}: the figure of cost leaves out {one.cost.uncosted:,} models without known costs and "
            f"{one.cost.plane.left_out:,} items"
        )


def _file_names(tasks: Sequence[str]) -> list[str]:
    """A file name for each task, in letters, digits, '_', '.' and '-', all different even if case is ignored."""
    names: list[str] = []
    for task in tasks:
        plain = name = re.sub(r"[^\w.-]+", "_", task, flags=re.ASCII).strip("._")[:100] or "task"
        number = 2
        while name.lower() in (taken.lower() for taken in names):
            name, number = f"{plain}_{number}", number + 1
        names.append(name)
    return names


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: {error.strerror}") from error


def _between(kind: type[int] | type[float], low: int, high: int) -> Callable[[str], float]:
    def parsed(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low:,} to {high:,}, not {text}")
        return value

    return parsed


def _reference(text: str) -> tuple[str, float]:
    task, equals, value = text.rpartition("=")
    if not (task and equals):
        raise argparse.ArgumentTypeError(f"expected TASK=ACCURACY, not {text}")
    return task, _between(float, 0, 1)(value)


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
