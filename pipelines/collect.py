#!/usr/bin/env -S python3 -P
"""Collects models' answers, item by item, into a lake. See --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collectors.lake.failure_rows import failure_row, write_failure
from collectors.lake.holdings import standing_damage
from collectors.lake.store import Lake
from collectors.runs.log_lines import log_as_json, quieten
from collectors.runs.record import recorded
from collectors.runs.stages import Trace, summary
from pipelines.console.config_keys import ShowKeys
from pipelines.console.script import Parser, command, run_script, sibling, write_file
from schemas.failures import NOTHING_ANSWERED, ConfigError, RouterlakeError, StorageError, TaskError, one_line
from schemas.identity import MAX_GENERATION

# Functions import slow modules: pydantic (the config) takes 0.2 s, lm-eval (planning, estimates) 5 s, Ray (fleet) 1 s.
# configure_logging has to run before the last two are imported.
if TYPE_CHECKING:
    from collectors.runs.plan import Plan, PlannedCell
    from pipelines.fleet.outcome import Outcome

logger = logging.getLogger("collect")

#: Exit code of a run that a budget ended before anything failed.
STOPPED = 3
#: Exit code after a SIGTERM, which `ray job stop` sends.
SIGTERM = 143
#: Lines printed for each kind of planning failure.
MOST_FAILURES = 10

HELP = """\
Collect models' answers, item by item, into a lake: a folder or bucket of Parquet files.

The config names models, tasks and how to prompt them; pipelines/configs/demo.yaml is a commented example. Every
(model, task, prompting) is a cell. A cell is collected in shards of about a minute's work, and a shard is one file that
is written whole or not at all. Run the same command again to collect what is missing, whatever stopped the run before.
"""

EPILOG = """\
examples:
  python pipelines/collect.py --config pipelines/configs/demo.yaml --dry-run
  python pipelines/collect.py --keys
  python pipelines/collect.py --config my.yaml --lake /data/lake --limit 100
  ray job submit --working-dir . -- python pipelines/collect.py --config my.yaml --lake /shared/lake

exit codes: 0 all collected; 1 some cells failed (they are named here and in the view failures), even if a budget was
spent, too; 2 the input is wrong and nothing was started; 3 a budget was spent before the end and nothing failed (raise
the limit and run the same command to continue); 130 or 143 stopped by hand; with --exit-zero 0 for 1 and 3, unless the
run could not go on
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__file__, description=HELP, epilog=EPILOG)
    parser.add_argument("--config", required=True, metavar="YAML", help="names models, tasks and prompting")
    parser.add_argument("--keys", action=ShowKeys, nargs=0, help="list all keys of the config with their defaults")
    parser.add_argument("--lake", metavar="URI", help="the lake to write to; overrides the config's")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="collect the first N items of each task that sets no limit of its own"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print the plan with notes on what models will be sent and what a part of the items "
        "would cost, start nothing",
    )
    parser.add_argument(
        "--generation",
        type=generation,
        metavar="N",
        help="collect every item that generation N (1, 2, …) lacks, whatever older ones hold; readers use the highest",
    )
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="also retry models that in an earlier run reached their cap or broke the engine: it died, ran out of "
        "memory or never answered",
    )
    parser.add_argument(
        "--exit-zero",
        action="store_true",
        help="exit with 0 when the run ended in order, also with failed cells or a spent budget, for runners that "
        "start every failed job anew; the lake and status.py have the outcome",
    )
    parser.add_argument(
        "--profile", metavar="JSON", help="write a trace of the stages of each shard; open it in chrome://tracing"
    )
    parser.add_argument(
        "--log-json",
        action="store_true",
        help="log JSON objects with run, cell, model and task; with --verbose the workers' logs, too",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="also show workers' logs and each shard, and in a dry run every planning failure",
    )
    return parser.parse_args(argv)


def generation(text: str) -> int:
    """The argument of --generation."""
    if not 1 <= int(text) <= MAX_GENERATION:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 1 to {MAX_GENERATION}")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    configure_logging(verbose=args.verbose, as_json=args.log_json)
    try:
        return collect(args)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RouterlakeError as error:
        print(
            f"error: {error}\nCommitted shards are safe: fix this, then run the same command to continue.",
            file=sys.stderr,
        )
        return 1
    except (KeyboardInterrupt, SystemExit) as error:
        print("\nstopped; committed shards are safe: run the same command again to continue", file=sys.stderr)
        return SIGTERM if isinstance(error, SystemExit) else 130


def collect(args: argparse.Namespace) -> int:
    from collectors.runs.config import load_config

    started = time.monotonic()
    overrides = {key: getattr(args, key) for key in ("lake", "limit") if getattr(args, key) is not None}
    config = load_config(args.config, overrides)
    lake = Lake(config.lake_uri)
    if reason := unwritable(lake):
        raise ConfigError(f"the lake at {lake.uri} cannot be written: {reason}; nothing was started")
    refuse_lost_lake(lake)
    if args.profile:
        check_writable(Path(args.profile))
    if lake.exists():
        lake.open_for_reading()  # refuses another schema version before any planning

    from collectors.harness.loading import use_datasets
    from collectors.runs.planning import make_plan

    use_datasets(config.datasets_folder)
    logger.info("planning: loading tasks and pinning models")
    plan = make_plan(config, lake, generation=args.generation, retry_failed=args.retry_failed)
    rest = "--verbose names them" if args.dry_run else "see the view failures"
    print_plan(plan, lake, most_failures=None if args.dry_run and args.verbose else MOST_FAILURES, rest=rest)
    print_damage(lake)
    check_budget(plan, lake)
    if args.dry_run:
        from pipelines.console.estimate_shown import print_estimate

        print_estimate(plan, lake)
        print("dry run: nothing was started or written")
        return 1 if plan.failures or plan.quarantined else 0
    try:
        lake.open_for_writing()
        if not (plan.cells and plan.items_todo):
            with recorded(plan, lake):
                pass
    except StorageError as error:
        if plan.items_todo or plan.failures:
            raise
        logger.warning("the lake cannot record this run, which has nothing to add: %s", error)
    planned = time.monotonic()
    if args.log_json:
        log_as_json(plan.run_id)
    outcome = work(plan, lake, args)
    while (later := later_round(plan, lake, args, outcome)) and later.items_todo:
        plan, failed = later, outcome.failed if outcome else {}
        if args.log_json:
            log_as_json(plan.run_id)
        outcome = work(plan, lake, args)
        if outcome:
            outcome.failed = failed | outcome.failed
    unanswered = complete_aggregates(plan, lake, outcome)
    now = time.monotonic()
    print_end(plan, lake, outcome, planning=planned - started, seconds=now - started)
    if args.exit_zero:
        return 0
    if (outcome and outcome.failed) or plan.failures or plan.quarantined or unanswered:
        return 1
    return STOPPED if outcome and outcome.stopped else 0


def later_round(plan: Plan, lake: Lake, args: argparse.Namespace, outcome: Outcome | None) -> Plan | None:
    """The plan of the next round of a run with `until`; None where enough was asked, or the run cannot go on."""
    until = plan.config.until
    if until is None or not plan.cells or (outcome and outcome.stopped):
        return None
    from collectors.runs.adapting import next_round
    from collectors.runs.planning import make_plan

    wanted = next_round(plan, lake, until.error)
    if wanted is None:
        return None
    print(f"{'next round' if wanted.lists else 'the rounds end'}: {wanted.words}")
    if not wanted.lists:
        return None
    later = make_plan(plan.config, lake, generation=args.generation, retry_failed=args.retry_failed, wanted=wanted)
    for planned in later.cells:
        if outcome and planned.cell.cell_id in outcome.failed:
            planned.todo = []
    print_plan(later, lake, most_failures=0)
    return later


def unwritable(lake: Lake) -> str | None:
    """Why nothing could be written to a lake in a folder, without a trial; None where it could, or in a store."""
    if not lake.local:
        return None
    place = next(path for path in (Path(lake.root), *Path(lake.root).parents) if os.path.lexists(path))
    if not place.is_dir():
        return f"{place} is not a folder"
    return None if os.access(place, os.W_OK | os.X_OK) else f"you may not write to {place}"


def check_budget(plan: Plan, lake: Lake) -> None:
    """Raises ConfigError if the plan's endpoints or GPUs lack a price that the budget needs.

    A plan without placements is checked later, when the cluster is joined and its GPUs are listed.
    """
    if plan.items_todo:
        from pipelines.fleet.budget import host_prices_for

        host_prices_for(plan.config.budget, lake, {cell.cell.model for cell in plan.cells if cell.todo})
    if plan.gpus and plan.items_todo:
        from pipelines.fleet.budget import gpu_prices_for

        places = {cell.cell.model.placement for cell in plan.cells if cell.todo}
        gpu_prices_for(plan.config.budget, lake, {place.gpu for place in places if place})


def work(plan: Plan, lake: Lake, args: argparse.Namespace) -> Outcome | None:
    """Collects the plan's open cells. Returns None, and starts no engine, if there are none."""
    if not plan.cells:
        why = "every open cell is quarantined" if plan.quarantined else "no cell could be planned"
        print(f"nothing to collect: {why}")
        return None
    if not plan.items_todo:
        but = ", except quarantined cells" if plan.quarantined else ""
        print(f"nothing to collect: every planned item is in the lake already{but}; no model was loaded")
        return None
    from pipelines.fleet.run import run_plan

    trace = Trace() if args.profile else None
    outcome = run_plan(plan, lake, verbose=args.verbose, log_json=args.log_json, trace=trace)
    print(f"workers' time: {summary(outcome.stages)}")
    if trace:
        write_trace(Path(args.profile), trace)
    return outcome


def complete_aggregates(plan: Plan, lake: Lake, outcome: Outcome | None) -> list[PlannedCell]:
    """Writes the values of metrics over cells and groups that are whole now. Returns cells without any verdict."""
    from collectors.judging.judges import Judges
    from collectors.runs.aggregates import Aggregator

    include = [str(Path(os.path.expanduser(folder)).absolute()) for folder in plan.config.include_tasks]
    judges = Judges(include)
    aggregator = Aggregator(plan, lake, judges)
    try:
        aggregator.complete(outcome.aggregates if outcome else [])
    except StorageError as error:
        logger.warning("no aggregates were written, and the next run does it: %s", error)
    finally:
        judges.close()
    for planned in aggregator.unanswered:
        cell = planned.cell
        print(
            f"failed: {cell.model.name} on {cell.spec.task}: none of its {cell.items} items has an answer that could "
            "be judged: see outcome and failure in the view matrix; --generation N collects them again, and --verbose "
            "shows the errors of a judge"
        )
        if outcome:  # a run that collects nothing new has nothing new to record
            nothing = TaskError(f"none of its {cell.items} items has an answer that could be judged", NOTHING_ANSWERED)
            place = {"model": cell.model.name, "task": cell.spec.task, "cell_id": cell.cell_id}
            write_failure(lake, failure_row(plan.run_id, nothing, **place))
    return aggregator.unanswered


def configure_logging(*, verbose: bool, as_json: bool = False) -> None:
    # huggingface_hub sets its logger to this level when it is imported, whatever is set below.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    if as_json:
        log_as_json()
        # Ray reads these on import. Without them it puts a worker's name before a line and "repeated 2x" after it.
        os.environ |= {"RAY_DISABLE_WORKER_LOG_PREFIX": "1", "RAY_DEDUP_LOGS": "0"}
    quieten()


def check_writable(path: Path) -> None:
    """Raises ConfigError if `path` cannot be written: after hours of work the trace would be lost.

    Leaves no file behind, because a run that is killed has no trace.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise ConfigError(f"--profile {path}: cannot be written: {one_line(error)}") from error


def write_trace(path: Path, trace: Trace) -> None:
    """Writes the trace, and logs an error if it cannot: the records are in the lake anyway."""
    try:
        write_file(path, trace.to_json())
    except ConfigError as error:
        logger.error("--profile: %s", error)
    else:
        print(f"wrote {path}: open it in chrome://tracing or ui.perfetto.dev")


def refuse_lost_lake(lake: Lake) -> None:
    """Raises ConfigError if the lake is inside a Ray job's unpacked files, which are deleted with the job."""
    if lake.local and "runtime_resources/working_dir_files" in os.path.abspath(lake.root):
        raise ConfigError(
            "lake: a relative path would be lost with the job; give an absolute path or a URI with --lake"
        )


def print_plan(plan: Plan, lake: Lake, *, most_failures: int | None, rest: str = "") -> None:
    """Prints cells, items and requests by task, the items that are in the lake already, and the planning failures.

    `most_failures` is the number of lines for each kind of failure (None: no limit); `rest` explains where to see the
    others.
    """
    cells = plan.cells
    models = {cell.cell.model.name: cell.cell.model for cell in cells}
    done = sum(cell.wanted for cell in cells) - plan.items_todo
    print(f"run {plan.run_id}: {len(cells)} cells = {len(models)} models × {len(plan.items)} tasks → {lake.uri}")
    for model in models.values():
        context = f"  context {model.context:,}, which a task needs" if model.context else ""
        print(f"  model {model.name}  revision {model.revision[:22]}  {model.dtype}{context}")
    tasks: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        tasks.setdefault(cell.cell.prompting, []).append(cell)
    for same in tasks.values():
        cell = same[-1]
        todo = sum(c.items_todo for c in same)
        requests = round(sum(c.items_todo * c.requests_per_item for c in same))
        shots = f"{cell.row['num_fewshot']}-shot"
        times = f", {cell.cell.spec.repeats.times} answers each" if cell.cell.spec.repeats else ""
        print(
            f"  task {cell.cell.spec.task} ({shots}, {cell.row['output_type']}, {cell.wanted} of "
            f"{cell.row['items']} items{times}): {todo} items to collect, {requests} requests"
        )
    print(
        f"to collect: {plan.items_todo} items in {sum(1 for c in cells if c.todo)} cells; already in the lake: {done}"
    )
    for note in dict.fromkeys(plan.notes):
        print(f"  note: {note}")
    print_quarantine(plan)
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in plan.failures:
        kinds.setdefault(row["kind"], []).append(row)
    for kind, rows in kinds.items():
        for row in rows[:most_failures]:
            print(f"  cannot be planned: {row.get('model') or row.get('task')}: {row['message']}")
        if more := len(rows) - len(rows[:most_failures]):
            print(f"  … and {more} more planning failures ({kind}): {rest}")


def print_quarantine(plan: Plan) -> None:
    if plan.quarantined:
        broke = sorted({cell.cell.model.name for cell in plan.quarantined})
        more = ", …" if len(broke) > MOST_FAILURES else ""
        print(
            f"quarantined: {len(plan.quarantined)} cells of {len(broke)} models that broke engines or their cap before "
            f"({', '.join(broke[:MOST_FAILURES])}{more}); --retry-failed retries them"
        )


def print_damage(lake: Lake) -> None:
    """Prints how many files of the lake are damaged. Their items count as collected until the files are removed."""
    damaged = standing_damage(lake)
    if damaged:
        print(
            f"{len(damaged)} damaged files stand in the lake, such as {min(damaged)}: remove them with "
            "compact.py --prune, then collect.py collects their items again"
        )


def print_end(plan: Plan, lake: Lake, outcome: Outcome | None, *, planning: float, seconds: float) -> None:
    if outcome:
        left = outcome.left
        done = sum(1 for c in plan.cells if c.todo and c.cell.cell_id not in outcome.failed) - len(left)
        others = f"; other runs on this lake collected {outcome.elsewhere} of its items" if outcome.elsewhere else ""
        print(f"collected {done} cells in {seconds:.0f} s, {planning:.0f} s of them for planning{others}")
        planned = {cell.cell.cell_id: cell for cell in plan.cells}
        for cell_id, message in outcome.failed.items():
            cell = planned[cell_id].cell
            print(f"failed: {cell.model.name} on {cell.spec.task}: {message}")
        if outcome.stopped:
            items = sum(left.values())
            print(
                f"stopped: {outcome.stopped}; {items} items in {len(left)} cells are left: raise the limit, or give "
                "budget.name another name, and run the same command to continue"
            )
        print_quarantine(plan)
    print(f"next: {command(sibling(__file__, 'matrix.py'), '--lake', lake.uri, '--show')}")


if __name__ == "__main__":
    run_script(main)
