"""The work of judge.py, and its output. Owns the lines; the script owns the options.

Knows nothing of how a verdict is made.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

from collectors.harness.own_code import use_code
from collectors.lake.store import Lake
from collectors.runs.judge_model import judging_model, load_judge_config
from collectors.verdicts.answers import Source
from collectors.verdicts.checking import Checked, check
from collectors.verdicts.groups import write_groups
from collectors.verdicts.judging import Choice, Report, Sum, Tasks
from collectors.verdicts.models import ModelJudge, judge_by_model
from collectors.verdicts.prompts import read_prompt
from collectors.verdicts.spreading import in_processes, parts_of
from pipelines.console.script import command
from pipelines.fleet.waiting import Outage
from schemas.failures import ConfigError
from schemas.texts import visible


def choice_of(args: argparse.Namespace) -> Choice:
    folders = tuple(str(Path(os.path.expanduser(folder)).absolute()) for folder in args.include_tasks)
    return Choice(args.judge or "", args.metric, args.filter, folders, args.code == "sandbox")


# ---- judging


def run_judge(lake: Lake, args: argparse.Namespace, matrix: str, progress: Callable[[int, int], None]) -> int:
    """Judges, and prints a summary. `matrix` is the script that shows it.

    `progress` gets the numbers of records that are done and of all, here and below.
    """
    started = time.monotonic()
    use_code(args.allow_code)
    lake.open_for_writing()
    outage = Outage(args.patience, "--patience")
    choice = choice_of(args)
    if args.prompt:
        report = run_model_judge(lake, args, progress)
        print_report(report, choice, time.monotonic() - started)
        return 1 if report.failed else 0
    parts = outage.result(lambda: parts_of(lake, args.include, args.task, choice))
    if args.address:
        from pipelines.fleet.judging import on_cluster  # Ray takes a second

        report = outage.result(lambda: on_cluster(parts, args.address, progress, allow_code=args.allow_code))
    else:
        report = outage.result(lambda: in_processes(parts, args.jobs or os.cpu_count() or 1, progress))
    print_report(report, choice, time.monotonic() - started)
    if report.judges:  # the views know no judge without a verdict
        outage.result(lambda: write_groups(lake, choice.name))
        print(f"next: {command(matrix, '--lake', args.lake, '--judge', choice.name, '--show')}")
    return 1 if report.failed else 0


def run_model_judge(lake: Lake, args: argparse.Namespace, progress: Callable[[int, int], None]) -> Report:
    """Lets the model of --config judge with --prompt, in this process."""
    file = read_prompt(args.prompt)
    if file.prompt.is_pair != bool(args.against):
        raise ConfigError("--against MODEL and a prompt with $answer_a and $answer_b belong together")
    if not args.config:
        raise ConfigError("--prompt needs --config: a config with the model that judges")
    config = load_judge_config(args.config)
    source = Source(lake, args.include)
    batches = source.batches(args.task)
    models = {row["model"] for batch in batches for row in batch.cells.values()}
    if args.against and args.against not in models:
        raise ConfigError(f"--against {args.against}: the lake has no answers of this model")
    with judging_model(config, lake) as (engine, model):
        judge = ModelJudge(args.judge, engine, model, file, opponent=args.against)
        return judge_by_model(lake, source, batches, judge, Sum(sum(batch.rows for batch in batches), progress))


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


def run_check(lake: Lake, args: argparse.Namespace, progress: Callable[[int, int], None]) -> int:
    """Checks, and prints what differs."""
    use_code(args.allow_code)
    source = Source(lake, args.include)
    choice = choice_of(args)
    batches = source.batches(args.task)
    if (args.metric or args.filter) and not choice.name:
        raise ConfigError("--check takes --metric and --filter of a --judge; without it each cell has its own")
    with Tasks(choice.include) as tasks:
        own = choice if choice.name else None
        checked = check(source, batches, tasks, own, progress, in_sandbox=choice.in_sandbox)
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
