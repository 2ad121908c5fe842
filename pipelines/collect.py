#!/usr/bin/env -S python3 -P
"""Collect what models answer, item by item, into a lake. See --help and the README."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collectors.lake import Lake
    from collectors.planning import Plan
    from collectors.stages import Trace
    from pipelines.outcome import Outcome

logger = logging.getLogger("collect")

#: Exit code of a run that a budget ended before anything failed.
STOPPED = 3
#: That of one that was sent a SIGTERM, as `ray job stop` does.
SIGTERM = 143
#: Lines printed of what cannot be planned, of each kind of failure.
MOST_FAILURES = 10

HELP = """\
Collect what models answer, item by item, into a lake of Parquet files.

The config names models, tasks and how they are prompted; pipelines/configs/demo.yaml is a commented example. Every
(model, task, prompting) is a cell, every minute of a cell's work a shard, every shard one file that is written whole
or not at all. Running the same command again collects only what is missing, whatever stopped the run before.
"""

EPILOG = """\
examples:
  python pipelines/collect.py --config pipelines/configs/demo.yaml --dry-run
  python pipelines/collect.py --config my.yaml --lake /data/lake --limit 100
  ray job submit --working-dir . -- python pipelines/collect.py --config my.yaml --lake /shared/lake

exit codes: 0 all collected, 1 some cells failed (named, and in the lake's failures), whether or not a budget was spent
too, 2 the input is wrong and nothing was started, 3 a budget was spent before the end and nothing failed (the same
command goes on), 130 or 143 stopped by hand
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=HELP, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="YAML", help="what to collect")
    parser.add_argument("--lake", metavar="URI", help="where to write; overrides the config's lake")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only the first N items of each task without a limit of its own"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the plan, start nothing")
    parser.add_argument(
        "--generation",
        type=generation,
        metavar="N",
        help="collect again what generation N (1, 2, …) lacks, whatever older ones hold; readers prefer the highest",
    )
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="also try models again that broke the engines of an earlier run: died, out of memory, never answered",
    )
    parser.add_argument(
        "--profile", metavar="JSON", help="write when each stage of each shard ran: open it in chrome://tracing"
    )
    parser.add_argument(
        "--log-json",
        action="store_true",
        help="log lines as JSON objects with run, cell, model and task; with --verbose the workers' too",
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="also show workers' logs and each shard, and in a dry run all that cannot be planned",
    )
    return parser.parse_args(argv)


def generation(text: str) -> int:
    """The argument of --generation."""
    from schemas.identity import MAX_GENERATION

    if not 1 <= int(text) <= MAX_GENERATION:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MAX_GENERATION}")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    configure_logging(verbose=args.verbose, as_json=args.log_json)
    from schemas.failures import ConfigError, RouterlakeError  # after parse_args: --help needs no imports

    try:
        return collect(args)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RouterlakeError as error:
        print(
            f"error: {error}\nCommitted shards are safe: once that is mended the same command goes on.", file=sys.stderr
        )
        return 1
    except (KeyboardInterrupt, SystemExit) as error:
        print("\nstopped; committed shards are safe: run the same command again to go on", file=sys.stderr)
        return SIGTERM if isinstance(error, SystemExit) else 130


def collect(args: argparse.Namespace) -> int:
    from collectors.config import load_config
    from collectors.lake import Lake
    from collectors.log_lines import log_as_json
    from schemas.failures import StorageError

    started = time.monotonic()
    overrides = {key: getattr(args, key) for key in ("lake", "limit") if getattr(args, key) is not None}
    config = load_config(args.config, overrides)
    lake = Lake(config.lake)
    refuse_lost_lake(lake)
    if args.profile:
        check_writable(Path(args.profile))
    if lake.exists():
        lake.open_for_reading()  # of another schema version: refused before anything is planned

    from collectors.harness.tasks import use_datasets
    from collectors.planning import make_plan
    from collectors.runs import recorded

    use_datasets(config.datasets)
    logger.info("planning: loading tasks and pinning models")
    plan = make_plan(config, lake, generation=args.generation, retry_failed=args.retry_failed)
    rest = "--verbose names them" if args.dry_run else "see the view failures"
    print_plan(plan, lake, most_failures=None if args.dry_run and args.verbose else MOST_FAILURES, rest=rest)
    print_damage(lake)
    check_budget(plan, lake)
    if args.dry_run:
        from pipelines.estimated import print_estimate

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
        logger.warning("this run leaves no trace, but it has nothing to add: %s", error)
    planned = time.monotonic()
    if args.log_json:
        log_as_json(plan.run_id)
    outcome = work(plan, lake, args)
    now = time.monotonic()
    print_end(plan, lake, outcome, planning=planned - started, seconds=now - started)
    if (outcome and outcome.failed) or plan.failures or plan.quarantined:
        return 1
    return STOPPED if outcome and outcome.stopped else 0


def check_budget(plan: Plan, lake: Lake) -> None:
    """Raises ConfigError where a budget of dollars cannot be told. A cluster's own GPUs are known once it is joined."""
    if plan.gpus and plan.items_todo:
        from pipelines.budget import gpu_prices_for

        places = {cell.cell.model.placement for cell in plan.cells if cell.todo}
        gpu_prices_for(plan.config.budget, lake, {place.gpu for place in places if place})


def work(plan: Plan, lake: Lake, args: argparse.Namespace) -> Outcome | None:
    """Collects what is open. No engine starts when nothing is: None."""
    if not plan.cells:
        why = "all open cells are in quarantine" if plan.quarantined else "no cell could be planned"
        print(f"nothing to collect: {why}")
        return None
    if not plan.items_todo:
        but = ", quarantined ones aside" if plan.quarantined else ""
        print(f"nothing to collect: every planned item is in the lake already{but}, no model was loaded")
        return None
    from collectors.stages import Trace, told
    from pipelines.run import run_plan  # seconds to import

    trace = Trace() if args.profile else None
    outcome = run_plan(plan, lake, verbose=args.verbose, log_json=args.log_json, trace=trace)
    print(f"workers' time: {told(outcome.stages)}")
    if trace:
        write_trace(Path(args.profile), trace)
    return outcome


def configure_logging(*, verbose: bool, as_json: bool = False) -> None:
    # Its logger is given this level when it is imported, whatever is set below.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    from collectors.log_lines import log_as_json, quieten

    if as_json:
        log_as_json()
        # Read when Ray is imported: a line of a worker comes as it is, not behind its name or before "repeated 2x".
        os.environ |= {"RAY_DISABLE_WORKER_LOG_PREFIX": "1", "RAY_DEDUP_LOGS": "0"}
    quieten()


def check_writable(path: Path) -> None:
    """Raises ConfigError where `path` cannot be made: found out after hours of work, the trace would be lost.

    Leaves nothing: a run that is killed has no trace.
    """
    from schemas.failures import ConfigError, one_line

    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise ConfigError(f"--profile {path}: cannot be written: {one_line(error)}") from error


def write_trace(path: Path, trace: Trace) -> None:
    """What was collected stands, whether or not the trace can be written."""
    from pipelines.script import write_file
    from schemas.failures import ConfigError

    try:
        write_file(path, trace.to_json())
    except ConfigError as error:
        logger.error("--profile: %s", error)
    else:
        print(f"wrote {path}: open it in chrome://tracing or ui.perfetto.dev")


def refuse_lost_lake(lake: Lake) -> None:
    """A lake inside a Ray job's unpacked files would be deleted with the job."""
    from schemas.failures import ConfigError

    if lake.local and "runtime_resources/working_dir_files" in os.path.abspath(lake.root):
        raise ConfigError(
            "lake: a relative path would be lost with the job; give an absolute path or a URI with --lake"
        )


def print_plan(plan: Plan, lake: Lake, *, most_failures: int | None, rest: str = "") -> None:
    """Cells, items and requests by task, what is in the lake already, and what cannot be planned: so many of each kind
    (None: all), and where the `rest` is told."""
    cells = plan.cells
    models = {cell.cell.model.name: cell.cell.model for cell in cells}
    done = sum(cell.cell.items for cell in cells) - plan.items_todo
    print(f"run {plan.run_id}: {len(cells)} cells = {len(models)} models × {len(plan.items)} tasks → {lake.uri}")
    for model in models.values():
        print(f"  model {model.name}  revision {model.revision[:22]}  {model.dtype}")
    tasks = {cell.cell.prompting: cell for cell in cells}
    for prompting, cell in tasks.items():
        same = [c for c in cells if c.cell.prompting == prompting]
        todo = sum(c.items_todo for c in same)
        requests = round(sum(c.items_todo * c.requests_per_item for c in same))
        shots = f"{cell.facts['num_fewshot']}-shot"
        print(
            f"  task {cell.cell.spec.task} ({shots}, {cell.facts['output_type']}, {cell.cell.items} of "
            f"{cell.facts['items']} items): {todo} items to collect, {requests} requests"
        )
    print(
        f"to collect: {plan.items_todo} items in {sum(1 for c in cells if c.todo)} cells; already in the lake: {done}"
    )
    print_quarantine(plan)
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in plan.failures:
        kinds.setdefault(row["kind"], []).append(row)
    for kind, rows in kinds.items():
        for row in rows[:most_failures]:
            print(f"  cannot be planned: {row.get('model') or row.get('task')}: {row['message']}")
        if more := len(rows) - len(rows[:most_failures]):
            print(f"  … and {more} more that cannot be planned ({kind}): {rest}")


def print_quarantine(plan: Plan) -> None:
    if plan.quarantined:
        broke = sorted({cell.cell.model.name for cell in plan.quarantined})
        more = ", …" if len(broke) > MOST_FAILURES else ""
        print(
            f"quarantined: {len(plan.quarantined)} cells of {len(broke)} models that broke engines before "
            f"({', '.join(broke[:MOST_FAILURES])}{more}); --retry-failed brings them back"
        )


def print_damage(lake: Lake) -> None:
    """What is in the lake and cannot be read: it counts as collected until it is removed."""
    from collectors.holdings import standing_damage

    damaged = standing_damage(lake)
    if damaged:
        print(
            f"{len(damaged)} damaged files are in the way, such as {min(damaged)}: remove them with "
            "compact.py --prune, and what they held is collected anew"
        )


def print_end(plan: Plan, lake: Lake, outcome: Outcome | None, *, planning: float, seconds: float) -> None:
    if outcome:
        left = outcome.left
        done = sum(1 for cell in plan.cells if cell.todo) - len(outcome.failed) - len(left)
        print(f"collected {done} cells in {seconds:.0f} s, of which planning took {planning:.0f}")
        names = {cell.cell.cell_id: cell for cell in plan.cells}
        for cell_id, message in outcome.failed.items():
            cell = names[cell_id].cell
            print(f"failed: {cell.model.name} on {cell.spec.task}: {message}")
        if outcome.stopped:
            items = sum(left.values())
            print(f"stopped: {outcome.stopped}; {items} items in {len(left)} cells are left: the same command goes on")
        print_quarantine(plan)
    from pipelines.script import command, sibling

    print(f"next: {command(sibling(__file__, 'matrix.py'), '--lake', lake.uri, '--show')}")


if __name__ == "__main__":
    from pipelines.script import run_script

    run_script(main)
