#!/usr/bin/env -S python3 -P
"""Judges the answers of a lake again, or checks the verdicts that it holds. See --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from collectors.lake.store import Lake
from pipelines.console.progress import beating
from pipelines.console.script import Parser, in_order, sibling
from pipelines.fleet.waiting import add_patience
from schemas.views import INCLUDED

DESCRIPTION = """\
Judge the answers that a lake holds again, by lm-eval's own tasks as they are installed here: no model is asked. With
--prompt a model judges, alone or each answer against another model's, in both orders.

The verdicts are tables of their own, beside the records: no stored byte changes. A judge has a name, and an identity
over its version, code, metric, filter and sandbox: a mended task is another judge of the same name. matrix.py, score,
export.py and publish.py show it with --judge NAME. Judging goes on where it was stopped, shard by shard.

The documents come from the lake, so no data set is fetched. With --check nothing is written: each record is derived
again from its stored answer, with the metric and filter of its cell, and those that differ are named."""

EPILOG = """\
examples:
  python pipelines/judge.py --lake /data/lake --check
  python pipelines/judge.py --lake /data/published/1.0.0 --check          # of a published version
  python pipelines/judge.py --lake /data/lake --judge flexible --task gsm8k --filter flexible-extract
  python pipelines/judge.py --lake /data/lake --judge today               # every task, at today's version
  python pipelines/judge.py --lake /data/lake --judge helpful --prompt helpful.yaml --config judge.yaml --task mt_bench
  python pipelines/matrix.py --lake /data/lake --judge flexible --show

exit codes: 0 done, or all equal; 1 a task could not be judged, or --check named a difference; 2 the input is wrong"""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return in_order(__file__, lambda: run(args))


def run(args: argparse.Namespace) -> int:
    lake = Lake(args.lake).open_for_reading()
    with beating("lm-eval loads, then the answers and their tasks", "records done") as progress:
        from pipelines.fleet.judge_run import run_check, run_judge  # lm-eval takes 5 s

        if args.check:
            return run_check(lake, args, progress)
        return run_judge(lake, args, sibling(__file__, "matrix.py"), progress)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__file__, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake to judge (default: %(default)s)")
    parser.add_argument("--judge", metavar="NAME", type=name, help="name of the judge; --check: check its verdicts")
    parser.add_argument("--check", action="store_true", help="derive the verdicts again and name those that differ")
    parser.add_argument("--task", nargs="+", metavar="TASK", help="tasks to judge (default: all with answers)")
    parser.add_argument("--metric", help="the metric behind the score (default: the task's first)")
    parser.add_argument("--filter", help="the filter behind the score (default: the task's first)")
    parser.add_argument("--include", choices=INCLUDED, default="collected", help="which records (default: %(default)s)")
    parser.add_argument("--include-tasks", nargs="+", default=[], metavar="FOLDER", help="folders with your own tasks")
    parser.add_argument("--allow-code", action="store_true", help="allow the code of your own task folders")
    parser.add_argument(
        "--code", choices=["sandbox"], help="run the answers of tasks that run answers, in the sandbox alone"
    )
    parser.add_argument(
        "--prompt", type=Path, metavar="FILE", help="let a model judge: its prompt file, with version, scale and parser"
    )
    parser.add_argument(
        "--config", metavar="YAML", help="with --prompt: a config with one model and its engine, as for collect.py"
    )
    parser.add_argument("--against", metavar="MODEL", help="with a prompt for pairs: the model to compare with")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes that judge (default: one for each core)")
    parser.add_argument(
        "--address", metavar="RAY", help="judge on this Ray cluster; auto inside `ray job submit` (default: here)"
    )
    add_patience(parser)
    args = parser.parse_args(argv)
    if not args.check and not args.judge:
        parser.error("give the judge a --judge NAME, or --check the verdicts that are there")
    if args.address and (args.check or args.prompt):
        parser.error("--address is for judging by tasks: --check and --prompt work in this process")
    return args


def name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot name a judge: use letters, digits, '.', '_' and '-'")
    return text


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
