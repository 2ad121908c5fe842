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
from collectors.forecasts.fitting import Fitted, Settings, faults_of, fits_of, store
from collectors.forecasts.foretelling import KEPT, REFUSED, percent
from collectors.forecasts.lake_answers import LakeAnswers, read_answers
from collectors.lake.layout import FORECAST_FITS, is_of_table
from collectors.lake.reading import ask, imports_left_out
from collectors.lake.store import Lake
from pipelines.console.script import Parser, command, in_order, sibling
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
  python pipelines/matrix.py --lake /data/lake --sql "FROM forecast_leaderboard ORDER BY task, rank, value DESC"

exit codes: 0 done; 1 a task was refused, or --check names a stale, refused or damaged forecast; 2 the input is wrong"""

_CHECKS = """
SELECT task, split, verdict, asked, models, level, coverage, error, width, brier / nullif(brier_of_mean, 0), stale,
    reason, forecast
FROM forecast_fits WHERE is_shown ORDER BY items_digest = '', task, items_digest, prompting, metric, split
"""

_LATER = """
SELECT DISTINCT made.forecast, shown.forecast, shown.level
FROM forecast_fits AS made
INNER JOIN forecast_fits AS shown USING (task, items_digest, prompting, metric)
WHERE list_contains(?, made.forecast) AND NOT made.is_shown AND shown.is_shown
ORDER BY ALL
"""

_LEGEND = """\

held out: models one by one (random), or with all models of their family. asked: items of the task that they were taken
to be asked. error: mean distance of the foretold mean from the true one. band: half of its mean width. level: share of
models that bands shall hold; held: share that they held. verdict: kept, widened (bands had to grow) or refused (none).
items: squared error of single items, as a share of what each item's mean over models would give."""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return in_order(__file__, lambda: run(args), unharmed=True)


def run(args: argparse.Namespace) -> int:
    lake = Lake(args.lake).open_for_reading()
    made: list[str] = []
    if not args.check:
        lake.open_for_writing()
        made = _fit(lake, args)
        if not made:
            return 0
    return _show(lake, args, made)


def _fit(lake: Lake, args: argparse.Namespace) -> list[str]:
    """Makes and stores the forecasts. Returns their ids."""
    source = _read(lake, args)
    for line in source.left_out:
        print(f"left out: {line}")
    settings = Settings(args.level, args.seed, not args.no_items, args.catalog)
    fits = fits_of(source, settings)
    has_some = any(is_of_table(FORECAST_FITS, name) for name in lake.names(FORECAST_FITS))
    if len(fits) > 1:
        print(f"too few models have all {len(fits)} tasks whole: each task is foretold from its own answers alone")
    made, lacking = [], []
    open_fits = [one for one in fits if has_some or not one.is_measured]
    for fitted in open_fits:
        try:
            forecast, done = store(lake, fitted)
        except ConfigError as error:
            lacking.append(str(error))
            continue
        made.append(forecast)
        print(f"forecast {forecast}: {_described(fitted)}; {done}")
        if fitted.no_mean:
            print(fitted.no_mean)
    if len(open_fits) < len(fits):
        print(
            f"{_count(len(fits) - len(open_fits), 'forecast')} not made: every model has all answers, and the view "
            "leaderboard has the scores"
        )
    if lacking and len(lacking) == len(open_fits):
        raise ConfigError(lacking[0])
    for line in lacking:
        print(f"left out: {line}")
    return made


def _read(lake: Lake, args: argparse.Namespace) -> LakeAnswers:
    try:
        return read_answers(lake, args.task, args.include)
    except ConfigError as error:
        raise ConfigError(f"{error}{imports_left_out(lake, args.include)}") from error


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _described(fitted: Fitted) -> str:
    tasks = sorted({block.task for block in fitted.source.blocks})
    which = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
    whole, sparse = int(fitted.is_whole.sum()), len(fitted.sparse)
    return f"{which}, {whole:,} complete model{'s' * (whole != 1)}, {sparse:,} with a part of the answers"


def _show(lake: Lake, args: argparse.Namespace, made: list[str]) -> int:
    checks, later = ask(
        lake,
        lambda con, _: (con.execute(_CHECKS).fetchall(), con.execute(_LATER, [made]).fetchall()),
        only=["forecast_fits"],
    )
    if not checks:
        script = sibling(__file__, "forecast.py")
        raise ConfigError(f"the lake at {lake.uri} has no forecast: run {script} --lake {args.lake}")
    if done := [row for row in checks if row[6] is not None]:
        print("\nmodels that were held out, foretold as if they had been asked so many items:\n")
        for line in _table([_HEAD, *(_cells(row) for row in done)]):
            print(line)
        print(_LEGEND)
    for forecast, shown, of_level in later:
        print(
            f"forecast {forecast} is not shown: {shown}, with bands of {percent(of_level)}, was made later; another "
            "--seed makes a newer one"
        )
    for line in _remarks(checks):
        print(line)
    # A version has its forecasts in one object, which publish.py verifies.
    forecasts = [] if lake.is_published() else sorted({row[12] for row in checks})
    faults = [line for forecast in forecasts for line in faults_of(lake, forecast)]
    for line in faults:
        print(f"{line}; run forecast.py again, which makes it anew")
    include = [] if args.include == "collected" else ["--include", args.include]
    words = ("--lake", args.lake, *include, "--sql", "FROM forecast_leaderboard ORDER BY task, rank, value DESC")
    print(f"next: {command(sibling(__file__, 'matrix.py'), *words)}")
    wrong = any(row[2] == REFUSED for row in checks) or (args.check and any(row[10] for row in checks))
    return 1 if wrong or faults else 0


_HEAD = ("task", "held out", "asked", "models", "error", "band", "level", "held", "verdict", "items")
#: Of _HEAD: texts, which stand on the left.
_TEXTS = ("task", "held out", "verdict")


def _cells(row: Sequence[Any]) -> tuple[str, ...]:
    task, split, verdict, asked, models, level, coverage, error, width, of_mean, *_ = row
    numbers = (f"{error:.4f}", f"±{width / 2:.3f}", percent(level), f"{coverage:.1%}")
    return task, split, f"{asked:,}", f"{models:,}", *numbers, verdict, "" if of_mean is None else f"{of_mean:.2f}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<" if name in _TEXTS else ">" for name in _HEAD]
    return [
        "  " + "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]


def _remarks(checks: Sequence[Sequence[Any]]) -> list[str]:
    """A line for each remark, with the tasks that it is about."""
    of: dict[str, dict[str, None]] = {}
    for row in checks:
        task, verdict, stale, reason = row[0], row[2], row[10], row[11]
        parts = [] if verdict == KEPT else [f"{verdict}: {reason}"]
        parts += [f"stale: {stale}; run forecast.py again"] if stale else []
        if parts:
            of.setdefault("; ".join(parts), {})[task] = None
    named = {remark: ", ".join(tasks) if len(tasks) <= 3 else f"{len(tasks)} tasks" for remark, tasks in of.items()}
    return sorted(f"{tasks}: {remark}" for remark, tasks in named.items())


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__file__, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="show how the stored forecasts did; fit and write nothing")
    parser.add_argument("--task", nargs="+", metavar="TASK", help="tasks to foretell (default: all)")
    parser.add_argument("--include", choices=INCLUDED, default="collected", help="which records (default: %(default)s)")
    parser.add_argument(
        "--level", type=level, default=LEVEL, help="share of models within the bands (default: %(default)s)"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of splits and draws (default: 0)")
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


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 0 to {2**63 - 1}")
    return int(text)


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
