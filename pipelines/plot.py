#!/usr/bin/env -S python3 -P
"""Draws the scores of model pools by size, and cost against quality, as PNG and HTML. See --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.described import check_more_is_better, head
from collectors.matrix.item_rows import VIEWS as CHOICE_VIEWS
from collectors.matrix.judged import shown_judges
from collectors.matrix.luck import shown_luck
from collectors.matrix.pool_arrays import COSTS, Pool, Pools
from collectors.matrix.pool_files import ChosenPool
from collectors.matrix.pools import load_pools
from collectors.matrix.routed import Choices, elsewhere, read_choices
from collectors.metrics.gaps import complete_items
from collectors.metrics.routereval import reference_accuracy
from collectors.pictures.draw import Drawing, draw_cost, draw_scaling
from collectors.pictures.headline import Headline, headline
from collectors.pictures.page import page
from pipelines.console.pool_options import add_pool, pool_of
from pipelines.console.script import Parser, write_file
from schemas.failures import ConfigError, RouterlakeError, one_line

DESCRIPTION = """\
Draw the two headline figures of a lake or published version, for each task and for all tasks together.

  pool size   the oracle and RouterEval's r_o(p) for p = 1, 0.5 and 0 against the number of models in the pool, with the
              pool's best single model and RouterEval's reference accuracy if it has one. Lines are exact means over all
              pools of a size, bands show 5 to 95 % of random pools.
  cost        a point for each model: USD per 1,000 items (from the view costs) and mean score, with Pareto frontier,
              non-decreasing convex hull, AIQ, the oracle and chance, and with --choices the routers. Latency replaces
              the cost if no cost is known."""

EPILOG = """\
The pool is that of the views candidates and questions: figures use the questions that have a score from every
candidate. A candidate that would cost more than a tenth of them is left out. The output and the page name what was left
out; nothing missing counts as wrong.

The command writes into DIR: index.html, which holds all figures and their numbers (tables; CSV and JSON to save) and
needs no network; for each task NAME-pool.png, and NAME-cost.png or NAME-latency.png. It replaces files of these names.

examples:
  python pipelines/plot.py --lake /data/lake --out pictures
  python pipelines/plot.py --lake /data/published/VERSION --out pictures --task gsm8k arc_challenge --include all
  python pipelines/plot.py --lake /data/lake --out pictures --choices knn.csv mlp.csv
  python pipelines/plot.py --lake /data/lake --out pictures --pool "num_fewshot = 5" --reference my_task=0.9

exit codes: 0 done; 1 some tasks could not be drawn (they are named); 2 the input is wrong and nothing was drawn"""

ALL = "all tasks"
#: Value of --against -> its name in Pool.numbers.
AGAINST = {"usd": "usd", "latency": "latency_s"}


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return run(args)
    except (RouterlakeError, duckdb.Error) as error:
        print(f"plot: {one_line(error)}", file=sys.stderr)
        return 2


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__file__, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--lake", metavar="URI", default="./lake", help="a lake or version (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--task", nargs="+", metavar="T", help="tasks to draw (default: all)")
    add_pool(parser)
    parser.add_argument(
        "--choices",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="draw routers by files of their choices, as matrix.py score takes them; those of one name, such as "
        "knn@0.1 and knn@1, make a curve",
    )
    parser.add_argument("--against", choices=AGAINST, help="cost axis (default: usd, else latency)")
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
    lake = lake.open_for_reading()
    chosen = pool_of(args, lake)
    kinds = COSTS if args.against is None else [AGAINST[args.against]]
    routers = [read_routers(lake, path, chosen) for path in args.choices]
    pools = load_pools(lake, args.task, chosen.choice, include=chosen.include, numbers=kinds)
    judges = shown_judges(lake, chosen.choice, chosen.include)
    luck = shown_luck(lake, chosen.choice, chosen.include, pools.tasks)
    notes = [*chosen.cited(lake.uri), *judges, *head(pools), *luck]
    for note in notes:
        print(note)
    drawn, why = [], []
    for task in args.task or pools.tasks:
        try:
            drawn.append(_of_task(pools, task, args, routers))
        except ConfigError as error:
            why.append(str(error))
    if not drawn:
        raise ConfigError(why[0])
    if len(drawn) > 1:
        drawn += _of_all(pools, [one.task for one in drawn], args, routers)
    _write(drawn, lake.uri, [*notes, *(f"Not drawn: {reason}" for reason in why)], args.out)
    for reason in why:
        print(f"plot: not drawn: {reason}", file=sys.stderr)
    return 1 if why else 0


def read_routers(lake: Lake, path: Path, chosen: ChosenPool) -> Choices:
    """The choices in a file, for the pool."""
    return ask(
        lake,
        lambda con, holdings: read_choices(con, path, elsewhere(con, lake, holdings)),
        only=CHOICE_VIEWS,
        include=chosen.include,
        choice=chosen.choice,
    )


def _chosen(
    routers: Sequence[Choices], pools: Pools, pool: Pool, tasks: Sequence[str]
) -> dict[str, npt.NDArray[np.int64]]:
    """Router -> its choices of a pool, of those that chose in all of the pool's tasks."""
    return {
        router: one.columns(pool, router, pools.absent)
        for one in routers
        for router in one.routers
        if set(tasks) <= set(one.tasks_of(router))
    }


def _of_task(pools: Pools, task: str, args: argparse.Namespace, routers: Sequence[Choices]) -> Headline:
    pool = pools.of_task(task)
    check_more_is_better(pool)
    if not complete_items(pool.scores).any():
        candidates = len(pool.candidates)
        raise ConfigError(f"{task}: no question has a score from all {candidates:,} candidates: see --pool")
    return _headline(pool, args, _chosen(routers, pools, pool, [task]))


def _of_all(pools: Pools, tasks: Sequence[str], args: argparse.Namespace, routers: Sequence[Choices]) -> list[Headline]:
    """The headline over the drawn tasks; empty if no two candidates have all of them in common."""
    try:
        pool = pools.over(tasks)
    except ValueError as error:
        print(f"{ALL}: not drawn: {error}")
        return []
    if len(pool.candidates) < 2 or not complete_items(pool.scores).any():
        print(f"{ALL}: not drawn, no two candidates have a score for the same questions of all of them")
        return []
    try:
        chosen = _chosen(routers, pools, pool, tasks)
    except ConfigError as error:  # such as a candidate that not all tasks have
        print(f"{ALL}: drawn without routers: {one_line(error)}")
        chosen = {}
    return [_headline(replace(pool, task=ALL), args, chosen)]


def _headline(pool: Pool, args: argparse.Namespace, chosen: Mapping[str, npt.NDArray[np.int64]]) -> Headline:
    kinds = COSTS if args.against is None else [AGAINST[args.against]]
    reference = dict(args.reference).get(pool.task, reference_accuracy(pool.task))
    return headline(
        pool.task,
        pool.metric,
        pool.candidates,
        pool.scores,
        {kind: pool.numbers.get(kind) for kind in kinds},
        reference=reference,
        draws=args.draws,
        seed=args.seed,
        chosen=chosen,
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
    write_file(out / "index.html", page(title, tasks, notes).encode())
    print(f"→ {out / 'index.html'}")


def _report(one: Headline) -> None:
    scaling = one.scaling
    print(
        f"{one.task}: {len(one.models):,} candidates, {scaling.items:,} questions: oracle {scaling.oracle[-1]:.4f}, "
        f"best single model {scaling.best_single[-1]:.4f}, random {scaling.random:.4f}"
    )
    if one.cost is None:
        print(f"{one.task}: no figure of cost: {one.no_cost}")
    elif one.cost.uncosted or one.cost.plane.left_out:
        print(
            f"{one.task}: the figure of cost leaves out {one.cost.uncosted:,} models without known costs and "
            f"{one.cost.plane.left_out:,} items"
        )
    _report_routers(one)


def _report_routers(one: Headline) -> None:
    for curve in one.cost.curves if one.cost else ():
        for router, (_, score), items in zip(curve.routers, curve.points, curve.items, strict=True):
            assert one.cost
            part = "" if items == one.cost.plane.items else f", on {items:,} of {one.cost.plane.items:,} questions"
            print(f"{one.task}: router {router} {score:.4f}{part}")
    if one.cost and one.cost.unplaced:
        print(f"{one.task}: not drawn, a choice has no known cost: {', '.join(one.cost.unplaced)}")


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
