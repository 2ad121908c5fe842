#!/usr/bin/env -S python3 -P
"""Judges the answers of a lake again, or checks the verdicts that it holds. See --help and the README."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from collectors.harness.own_code import use_code
from collectors.lake.store import Lake
from collectors.runs.judge_model import judging_model, load_judge_config
from collectors.verdicts.answers import Source
from collectors.verdicts.checking import Checked, check
from collectors.verdicts.judging import Choice, Report, Tasks
from collectors.verdicts.models import ModelJudge, judge_by_model
from collectors.verdicts.prompts import read_prompt
from collectors.verdicts.spreading import in_processes, parts_of
from pipelines.console.script import Parser, command, sibling
from pipelines.fleet.waiting import Outage, add_patience
from schemas.failures import ConfigError, RouterlakeError, one_line
from schemas.texts import visible
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
  python pipelines/judge.py --lake /data/lake --judge flexible --tasks gsm8k --filter flexible-extract
  python pipelines/judge.py --lake /data/lake --judge today               # every task, at today's version
  python pipelines/judge.py --lake /data/lake --judge helpful --prompt helpful.yaml --config judge.yaml --tasks mt_bench
  python pipelines/matrix.py --lake /data/lake --judge flexible --show

exit codes: 0 done, or all equal; 1 a task could not be judged, or --check named a difference; 2 the input is wrong"""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    use_code(args.allow_code)
    try:
        lake = Lake(args.lake).open_for_reading()
        return run_check(lake, args) if args.check else run_judge(lake, args)
    except ConfigError as error:
        print(f"judge: {one_line(error)}", file=sys.stderr)
        return 2
    except RouterlakeError as error:
        print(f"judge: {one_line(error)}", file=sys.stderr)
        return 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__file__, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake to judge (default: %(default)s)")
    parser.add_argument("--judge", metavar="NAME", type=name, help="name of the judge; --check: check its verdicts")
    parser.add_argument("--check", action="store_true", help="derive the verdicts again and name those that differ")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks to judge (default: all with answers)")
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
    return args


def name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot name a judge: use letters, digits, '.', '_' and '-'")
    return text


def choice_of(args: argparse.Namespace) -> Choice:
    folders = tuple(str(Path(os.path.expanduser(folder)).absolute()) for folder in args.include_tasks)
    return Choice(args.judge or "", args.metric, args.filter, folders, args.code == "sandbox")


# ---- judging


def run_judge(lake: Lake, args: argparse.Namespace) -> int:
    started = time.monotonic()
    lake.open_for_writing()
    outage = Outage(args.patience, "--patience")
    choice = choice_of(args)
    if args.prompt:
        report = run_model_judge(lake, args)
        print_report(report, choice, time.monotonic() - started)
        return 1 if report.failed else 0
    parts = outage.result(lambda: parts_of(lake, args.include, args.tasks, choice))
    if args.address:
        from pipelines.fleet.judging import on_cluster  # Ray takes a second

        report = outage.result(lambda: on_cluster(parts, args.address, allow_code=args.allow_code))
    else:
        report = outage.result(lambda: in_processes(parts, args.jobs or os.cpu_count() or 1))
    print_report(report, choice, time.monotonic() - started)
    if report.judges:
        print(f"next: {command(sibling(__file__, 'matrix.py'), '--lake', args.lake, '--judge', choice.name, '--show')}")
    return 1 if report.failed else 0


def run_model_judge(lake: Lake, args: argparse.Namespace) -> Report:
    """Lets the model of --config judge with --prompt, in this process."""
    file = read_prompt(args.prompt)
    if file.prompt.is_pair != bool(args.against):
        raise ConfigError("--against MODEL and a prompt with $answer_a and $answer_b belong together")
    if not args.config:
        raise ConfigError("--prompt needs --config: a config with the model that judges")
    config = load_judge_config(args.config)
    source = Source(lake, args.include)
    batches = source.batches(args.tasks)
    models = {row["model"] for batch in batches for row in batch.cells.values()}
    if args.against and args.against not in models:
        raise ConfigError(f"--against {args.against}: the lake has no answers of this model")
    with judging_model(config, lake) as (engine, model):
        judge = ModelJudge(args.judge, engine, model, file, opponent=args.against)
        return judge_by_model(lake, source, batches, judge)


def print_report(report: Report, choice: Choice, seconds: float) -> None:
    for row in sorted(report.judges.values(), key=lambda row: str(row["task"])):
        sandbox = f", answers run in {row['sandbox'].split(' cpu')[0]}" if row["sandbox"] else ""
        print(
            f"judge {choice.name} of {row['task']}: {row['judge_id']}, version {row['version']}, "
            f"metric {row['metric']}, filter {row['filter']}{sandbox}"
        )
    rate = report.judged / max(seconds, 1e-3)
    print(
        f"{report.judged:,} answers judged in {report.shards:,} shards, {seconds:.0f} s ({rate:,.0f} a second); "
        f"{report.known:,} were judged before; {report.unjudged:,} have no verdict"
    )
    for task, why in sorted(report.failed.items()):
        print(f"not judged: {visible(task)}: {visible(why)}")


# ---- checking


def run_check(lake: Lake, args: argparse.Namespace) -> int:
    source = Source(lake, args.include)
    choice = choice_of(args)
    batches = source.batches(args.tasks)
    if (args.metric or args.filter) and not choice.name:
        raise ConfigError("--check takes --metric and --filter of a --judge; without it each cell has its own")
    with Tasks(choice.include) as tasks:
        checked = check(source, batches, tasks, choice if choice.name else None, in_sandbox=choice.in_sandbox)
    print_checked(checked)
    return 0 if checked.is_equal else 1


def print_checked(checked: Checked) -> None:
    for difference in checked.named:
        print(f"differs: {visible(str(difference))}")
    if len(checked.named) < checked.differing:
        print(f"and {checked.differing - len(checked.named):,} more")
    for task, count in sorted(checked.by_task.items()):
        print(f"{visible(task)}: {count:,} verdicts differ")
    for task, why in sorted(checked.failed.items()):
        print(f"not derived: {visible(task)}: {visible(why)}")
    print(
        f"{checked.rows:,} verdicts on {checked.items:,} answers derived again: {checked.differing:,} differ; "
        f"{checked.unjudged:,} have no verdict, then or now"
    )


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
