#!/usr/bin/env -S python3 -P
"""Shows the state of a run, read from its lake alone, and pauses it. See --help.

Owns the interval between two looks and the form of the output. collectors/runs/watching.py reads the state of a
run, and console/run_shown.py formats it.
"""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import json
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live

from collectors.lake.store import Lake
from collectors.runs.record import chosen_run, list_runs, read_end
from collectors.runs.signals import PAUSE, RESUME, send
from collectors.runs.status import RunStatus
from collectors.runs.watching import RunWatch
from pipelines.console.plain_console import stdout_console
from pipelines.console.rows_out import add_format, print_dicts
from pipelines.console.run_report import report
from pipelines.console.run_shown import as_json, line, shown
from pipelines.console.script import Parser, write_file
from pipelines.console.tables import headed
from schemas.failures import ConfigError, RouterlakeError, StorageError, one_line

#: Seconds between two looks with and without a terminal, and the least pause as a multiple of a look's own duration.
TERMINAL_SECONDS, LINE_SECONDS, LOOKS = 5.0, 30.0, 4.0
#: Seconds until a run at work looks for signals (pipelines.fleet.turns).
OBEYED_SECONDS = 15
#: Default of --footers. Opening so many takes one to three seconds in a local folder.
MOST_FOOTERS = 20_000

HELP = """\
Show the state of a run, read from its lake alone: on any machine, even after its driver has died.

The command shows cells and items (planned, done, failed, open), rate, expected end and last commit (by the times of the
lake's objects), failures by kind, cost and tokens so far, seconds by stage, and the slowest models."""

EPILOG = """\
examples:
  python pipelines/status.py --lake lake
  python pipelines/status.py --lake s3://bucket/lake --watch
  python pipelines/status.py --lake lake --json | jq .items_done
  python pipelines/status.py --lake lake --html run.html
  python pipelines/status.py --lake lake --pause

exit codes: 0 done; 2 no lake, no run, no run with this ID, or a signal to a run that has ended"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__file__, description=HELP, epilog=EPILOG)
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake to read (default: %(default)s)")
    parser.add_argument("--run", metavar="ID", help="the run to show (default: the newest)")
    parser.add_argument(
        "--pause", action="store_true", help="the run ends its shards in hand, gives its engines back, and waits"
    )
    parser.add_argument("--resume", action="store_true", help="a run that was paused goes on")
    parser.add_argument("--list", action="store_true", help="only list the lake's runs, the newest first")
    parser.add_argument(
        "--watch", action="store_true", help="look again and again until the run is over; a live view on a terminal"
    )
    parser.add_argument(
        "--interval",
        type=seconds,
        metavar="SECONDS",
        help=f"pause between two looks (default: {TERMINAL_SECONDS:g} on a terminal, else {LINE_SECONDS:g}); "
        "longer if a look takes long",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object, with --watch one line per look")
    parser.add_argument(
        "--html",
        metavar="FILE",
        type=Path,
        help="also write an HTML page that needs no network; with --watch at each look",
    )
    parser.add_argument(
        "--footers",
        type=count,
        metavar="N",
        default=MOST_FOOTERS,
        help="open N more shards at each look, the newest first, for cost, tokens and time (default: %(default)s)",
    )
    add_format(parser, "texts and tables")
    args = parser.parse_args(argv)
    if args.pause and args.resume:
        parser.error("give one of --pause and --resume")
    if args.watch and args.format in ("csv", "markdown"):
        parser.error(f"--format {args.format} is of one look: leave out --watch, or take --format json")
    args.json = args.json or args.format == "json"
    return args


def seconds(text: str) -> float:
    if not 0 < (value := float(text)) < math.inf:
        raise ValueError(text)
    return value


def count(text: str) -> int:
    if (value := int(text)) < 0:
        raise ValueError(text)
    return value


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    console = stdout_console()
    try:
        lake = Lake(args.lake).open_for_reading()
        if args.pause or args.resume:
            signal_run(lake, args)
            return 0
        if args.list:
            print_runs(lake, args, console)
            return 0
        with closing(RunWatch(lake, args.run)) as watched:
            if args.watch:
                watch(watched, args, console)
            else:
                print_status(look(watched, args), args, console)
    except RouterlakeError as error:
        print(f"status: {one_line(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if "interrupt" not in str(error).lower():
            raise
        return 130  # DuckDB turns Ctrl-C into a RuntimeError
    except KeyboardInterrupt:
        return 130
    return 0


def signal_run(lake: Lake, args: argparse.Namespace) -> None:
    run_id = chosen_run(lake, args.run)
    if end := read_end(lake, run_id):
        raise ConfigError(f"run {run_id} has ended ({end.outcome}): start another with collect.py")
    signal = PAUSE if args.pause else RESUME
    if send(lake, run_id, signal):
        print(f"{signal}: run {run_id} obeys within {OBEYED_SECONDS} s and the shards in hand")
    else:
        print(f"run {run_id} was not paused" if signal == RESUME else f"run {run_id} is paused already")


def look(watched: RunWatch, args: argparse.Namespace) -> RunStatus:
    status = watched.look(args.footers)
    if args.html:
        write_file(args.html, report(status).encode("utf-8", "replace"))
    return status


def watch(watched: RunWatch, args: argparse.Namespace, console: Console) -> None:
    """Looks until the run is over. After the first look it reports a store that fails, and looks again."""
    status: RunStatus | None = None
    live = console.is_terminal and not args.json
    pause = args.interval or (TERMINAL_SECONDS if live else LINE_SECONDS)
    with Live(console=console, auto_refresh=False) if live else open(os.devnull) as screen:
        while True:
            began = time.monotonic()
            try:
                status = look(watched, args)
            except StorageError as error:
                if status is None:
                    raise
                print(f"status: {one_line(error)}; looking again", file=sys.stderr)
                time.sleep(pause)
                continue
            if isinstance(screen, Live):
                screen.update(Group(*shown(status)), refresh=True)
            elif args.json:
                print_status(status, args, console)
            else:
                console.print(f"{time.strftime('%H:%M:%S')} {line(status)}", soft_wrap=True)
            if status.over:
                break
            time.sleep(max(pause, LOOKS * (time.monotonic() - began)))
    if not live and not args.json:
        print_status(status, args, console)


def print_status(status: RunStatus, args: argparse.Namespace, console: Console) -> None:
    if args.json:
        print(json.dumps(as_json(status)), flush=True)
        return
    if args.format:
        print_dicts(args.format, [as_json(status)])
        return
    for part in shown(status):
        console.print(part, soft_wrap=not hasattr(part, "columns"))


def print_runs(lake: Lake, args: argparse.Namespace, console: Console) -> None:
    runs = list_runs(lake)
    if args.json:
        print(json.dumps(runs))
    elif args.format:
        print_dicts(args.format, runs)
    elif not runs:
        console.print(f"the lake {lake.uri} holds no run yet: start one with pipelines/collect.py", soft_wrap=True)
    else:
        table = headed("<run", "<started", "<engine", "models", "tasks", "cells", "items", "<ended", "<outcome")
        for run in runs:
            counts = (f"{run[name]:,}" for name in ("models", "tasks", "cells", "items"))
            end = (run["ended_at"] or "", run["outcome"] or "at work, or killed")
            table.add_row(run["run_id"], run["started_at"], run["engine"] or "", *counts, *end)
        console.print(table)


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
