#!/usr/bin/env -S python3 -P
"""Folds a lake's shards into a few large, sorted files. See --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import datetime as dt
import time
from collections.abc import Sequence

from collectors.lake.compaction import Compacted, compact
from collectors.lake.layout import is_compacted
from collectors.lake.missing import Fault
from collectors.lake.pruning import prune
from collectors.lake.spread import Spread
from collectors.lake.store import Lake
from collectors.lake.verifying import Verified, record_faults, verify
from collectors.publish import verifying
from pipelines.console.progress import Counter
from pipelines.console.script import Parser, in_order
from pipelines.fleet.spreading import add_ray, spread_over
from pipelines.fleet.waiting import Outage, add_patience

HELP = """\
Fold a lake's shards into a few large Parquet files that are sorted for reading.

Collectors write many small shards, and a query over thousands of them spends its time on opening files. This command
copies new shards into files of about two million records each and writes a manifest last. From then on every reader
uses these files, plus the shards that came later. Every object has a checksum, and the command folds nothing that is
not as it was written. It changes no committed file and deletes nothing without --prune. If you kill it, at most one
unfinished file is lost; run it again to continue. It may run beside collectors, readers and other compactors.

With --verify it reads the whole lake instead, names each damaged, swapped or missing object, and changes nothing."""

EPILOG = """\
examples:
  python pipelines/compact.py --lake /data/lake
  python pipelines/compact.py --lake s3://bucket/lake --prune
  python pipelines/compact.py --lake lake --prune --keep-hours 0     # while nobody reads the lake
  python pipelines/compact.py --lake s3://bucket/lake --verify       # every few weeks, and before publishing
  ray job submit --working-dir . -- python pipelines/compact.py --lake s3://bucket/lake --ray

exit codes: 0 done, even if there was nothing to do; 1 the lake cannot be written, or a damaged file was skipped (it is
named here and in the view failures), or --verify named an object; 2 the input is wrong"""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return in_order(__file__, lambda: run(Lake(args.lake).open_for_reading(), args), unharmed=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__file__, description=HELP, epilog=EPILOG)
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake to compact (default: %(default)s)")
    parser.add_argument(
        "--prune",
        action="store_true",
        help="then delete folded shards and older compactions, and move damaged files to damaged/",
    )
    parser.add_argument(
        "--keep-hours",
        metavar="H",
        type=hours,
        default=24.0,
        help="with --prune: keep files for readers that started within the last H hours (default: %(default)s); "
        "an older matrix.duckdb has to be written again, with matrix.py",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="read the whole lake, or a published version, and name each object that is not as it was written; with "
        "--prune: then compact, and move these to damaged/",
    )
    parser.add_argument(
        "--give-up",
        action="store_true",
        help="leave out damaged files of a compaction whose shards are gone, if there is no whole copy of them: "
        "collect.py then collects their items again",
    )
    add_ray(parser)
    add_patience(parser)
    return parser.parse_args(argv)


def hours(text: str) -> float:
    """The argument of --keep-hours."""
    if not 0 <= float(text) <= 24 * 3650:
        raise argparse.ArgumentTypeError(f"{text} must be a number of hours, from 0 to ten years")
    return float(text)


def run(lake: Lake, args: argparse.Namespace) -> int:
    with spread_over(args.ray) as spread:
        return work(lake, args, spread)


def work(lake: Lake, args: argparse.Namespace, spread: Spread | None) -> int:
    outage = Outage(args.patience, "--patience")
    if args.verify:
        verified = outage.result(lambda: verify_lake(lake, spread))
        if not args.prune and not args.give_up:
            return 1 if verified.faults else 0
        outage.result(lambda: record_faults(lake.open_for_writing(), verified.damaged))
    started = time.monotonic()
    counter = Counter("files written")
    outcome = outage.result(lambda: compact(lake.open_for_writing(), counter, give_up=args.give_up, spread=spread))
    print_outcome(outcome, time.monotonic() - started)
    if args.prune:
        pruned = outage.result(lambda: prune(lake, dt.timedelta(hours=args.keep_hours)))
        print(
            f"pruned: {pruned.shards:,} shards, {pruned.others:,} other objects that no compaction needs, "
            f"{pruned.damaged} damaged objects set aside in damaged/"
        )
        if pruned.shards or pruned.others:
            print("write any older matrix.duckdb again, with matrix.py: it reads files that are gone")
        if pruned.later:
            until = dt.datetime.fromisoformat(pruned.later) + dt.timedelta(hours=args.keep_hours)
            print(f"more can be pruned after {until:%Y-%m-%d %H:%M} UTC")
        return 1 if any(is_compacted(name) for name in outcome.damaged) else 0
    return 1 if outcome.damaged else 0


def verify_lake(lake: Lake, spread: Spread | None = None) -> Verified:
    """Prints a line for each object that is not as it was written."""
    started = time.monotonic()
    if lake.is_published():
        proof = verifying.verify(lake.uri, Counter("files read"))
        parts = (fault.split(": ", 1) for fault in proof.faults)
        faults = {name: Fault(reason, "replace the version by a whole copy") for name, reason in parts}
        verified = Verified(proof.files, proof.bytes, 0, faults, {})
    else:
        verified = verify(lake, Counter("objects read"), spread)
    for name, fault in verified.faults.items():
        print(f"damaged: {name}: {fault.reason}; {fault.advice}")
    seconds = max(time.monotonic() - started, 1e-3)
    print(
        f"{verified.objects:,} objects, {verified.bytes / 1e6:,.1f} MB read in {seconds:.1f} s "
        f"({verified.bytes / 1e6 / seconds:,.0f} MB/s): {len(verified.faults):,} damaged or missing"
    )
    if verified.unsealed:
        print(
            f"{verified.unsealed:,} objects without checksums, written before schema version 7: they can be read, but "
            "a changed number in them would not be noticed; compact.py records their checksums from now on"
        )
    return verified


def print_outcome(outcome: Compacted, seconds: float) -> None:
    manifest = outcome.manifest
    if outcome.folded and manifest:
        print(f"compaction {manifest.number}: {outcome.folded:,} shards folded in {seconds:.0f} s")
    elif outcome.forgotten and manifest:
        print(f"compaction {manifest.number}: no new shards, in {seconds:.0f} s")
    else:
        print("nothing to fold: every shard is in the newest compaction already" if manifest else "nothing to fold")
    if manifest:
        rows, size = sum(part.rows for part in manifest.parts), sum(part.bytes for part in manifest.parts)
        answers = sum(part.other_bytes for part in manifest.parts)
        print(
            f"it holds {manifest.shards:,} shards in {len(manifest.parts):,} files: {rows:,} records, "
            f"{size / max(rows, 1):.2f} bytes each, and {answers / 2**20:,.1f} MiB of answers"
        )
    if outcome.unplanned:
        print(f"{outcome.unplanned} shards were not folded: no run in the lake planned their cells")
    if outcome.forgotten:
        print(f"{outcome.forgotten:,} shards were left out: they were forgotten")
    if outcome.withheld:
        print(f"{outcome.withheld} shards were not folded: a damaged file holds other rows of their cells")
    for name, reason in outcome.damaged.items():
        print(f"skipped: {name}: {reason}")
    if outcome.given_up:
        print(f"{outcome.given_up} damaged files were given up: run collect.py with the configs of their cells again")


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
