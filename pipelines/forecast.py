#!/usr/bin/env -S python3 -P
"""Foretells what models would score on items that they were not asked, with bands. See --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
from collections.abc import Sequence
from typing import Any

from collectors.forecasts.bands import LEVEL
from collectors.forecasts.fitting import Fitted, Settings, fits_of, store
from collectors.forecasts.foretelling import KEPT, REFUSED
from collectors.forecasts.lake_answers import read_answers
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from pipelines.console.script import Parser, in_order, sibling
from schemas.failures import ConfigError
from schemas.views import INCLUDED

DESCRIPTION = """\
Foretell the scores of models that were asked a part of their tasks, from models that answered them whole.

A forecast is a table of its own, beside the records: matrix, records, leaderboard, pool, oracle and exports never show
it. Ask for it by name: forecast_leaderboard has models, measured or foretold with a band; forecast_matrix has items.
Every fit holds out models, one by one and by whole families, and stores how its bands did. Where they fail it widens
them, or refuses the task with a line."""

EPILOG = """\
examples:
  python pipelines/forecast.py --lake /data/lake
  python pipelines/forecast.py --lake /data/lake --check     # how they did, and whether they are stale
  python pipelines/matrix.py --lake /data/lake --sql "FROM forecast_leaderboard ORDER BY task, rank"

exit codes: 0 done; 1 a task was refused, or --check names a stale or refused forecast; 2 the input is wrong"""

_CHECKS = """
SELECT task, split, verdict, asked, models, level, coverage, error, width, brier / brier_of_mean, pairs_right, stale,
    reason
FROM forecast_fits WHERE is_shown ORDER BY task = 'all', task, items_digest, prompting, metric, split
"""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return in_order(__file__, lambda: run(args), unharmed=True)


def run(args: argparse.Namespace) -> int:
    lake = Lake(args.lake).open_for_reading()
    if not args.check:
        lake.open_for_writing()
        _fit(lake, args)
    return _show(lake, args)


def _fit(lake: Lake, args: argparse.Namespace) -> None:
    source = read_answers(lake, args.tasks, args.include)
    for line in source.left_out:
        print(f"left out: {line}")
    settings = Settings(args.level, args.seed, not args.no_items, args.catalog)
    fits = fits_of(source, settings)
    if len(fits) > 1:
        print(f"too few models have all {len(fits)} tasks whole: each task is foretold from its own answers alone")
    lacking = []
    for fitted in fits:
        try:
            forecast, is_new = store(lake, fitted)
        except ConfigError as error:
            lacking.append(str(error))
            continue
        print(f"forecast {forecast}: {_described(fitted)}; {'stored' if is_new else 'the lake had it already'}")
    if len(lacking) == len(fits):
        raise ConfigError(lacking[0])
    for line in lacking:
        print(f"left out: {line}")


def _described(fitted: Fitted) -> str:
    tasks = sorted({block.task for block in fitted.source.blocks})
    which = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
    return f"{which}, {int(fitted.is_whole.sum()):,} complete models, {len(fitted.sparse):,} with a part of the answers"


def _show(lake: Lake, args: argparse.Namespace) -> int:
    checks = ask(lake, lambda con, _: con.execute(_CHECKS).fetchall(), only=["forecast_fits"])
    if not checks:
        script = sibling(__file__, "forecast.py")
        raise ConfigError(f"the lake at {lake.uri} has no forecast: run {script} --lake {args.lake}")
    print("\nmodels that were held out, foretold as if they had been asked so many items:\n")
    print(_HEAD.format("task", "held out", "asked", "models", "error", "band", "level", "held", "Brier"))
    for row in checks:
        print(_line(row))
    for line in sorted({_remark(row) for row in checks if row[2] != KEPT or row[11]}):
        print(line)
    wrong = any(row[2] == REFUSED for row in checks) or (args.check and any(row[11] for row in checks))
    return 1 if wrong else 0


_HEAD = "  {:<32} {:<8} {:>6} {:>7} {:>7} {:>7} {:>6} {:>6}  {}"


def _line(row: Sequence[Any]) -> str:
    task, split, _, asked, models, level, coverage, error, width, brier, *_ = row
    if coverage is None:
        return _HEAD.format(task, split, f"{asked:,}", f"{models:,}", "?", "?", f"{level:.0%}", "?", "").rstrip()
    of_mean = "" if brier is None else f"{brier:.2f} of the item's mean"
    numbers = (f"{asked:,}", f"{models:,}", f"{error:.4f}", f"±{width / 2:.3f}", f"{level:.0%}", f"{coverage:.1%}")
    return _HEAD.format(task, split, *numbers, of_mean).rstrip()


def _remark(row: Sequence[Any]) -> str:
    task, verdict, stale, reason = row[0], row[2], row[11], row[12]
    parts = [] if verdict == KEPT else [f"{verdict}: {reason}"]
    parts += [f"stale: {stale}; run forecast.py again"] if stale else []
    return f"{task}: {'; '.join(parts)}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__file__, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="show how the stored forecasts did; fit and write nothing")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks to foretell (default: all)")
    parser.add_argument("--include", choices=INCLUDED, default="collected", help="which records (default: %(default)s)")
    parser.add_argument(
        "--level", type=level, default=LEVEL, help="share of models within the bands (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of splits and draws (default: 0)")
    parser.add_argument("--no-items", action="store_true", help="means of tasks alone, without rows for single items")
    parser.add_argument(
        "--catalog", action="store_true", help="also models that the lake only describes, by relatives and size"
    )
    return parser.parse_args(argv)


def level(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0.5 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a share from 0.5 to 1, such as 0.9")
    return value


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
