#!/usr/bin/env -S python3 -P
"""Takes records of a lake back, or brings them back. See --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from collectors.lake.forgetting import Forgetting, Wish, plan_forgetting, take_back, write_retraction
from collectors.lake.retractions import retraction_rows
from collectors.lake.store import Lake
from pipelines.console.script import Parser, command, in_order, sibling
from schemas.failures import ConfigError

HELP = """\
Forget records of a lake: a wrong import, a dead revision, an old definition of a task, a model without a licence.

It works out which cells are meant, says what it would hide, and asks. Then it writes one small object, a retraction
with your reason, and changes nothing else: from that moment no view, reader, export, pool, status or plan has these
records. --take-back brings them back. compact.py leaves them out of the next compaction, and compact.py --prune deletes
them for good once the retraction is as old as --keep-hours. Versions that were published before stand; `publish.py
diff` says that the next one retracted them. What was forgotten can be collected or imported again, as the next
generation."""

EPILOG = """\
examples:
  python pipelines/forget.py --import my-scores --reason "wrong prompt column" --lake /data/lake
  python pipelines/forget.py --model acme/secret-7b --reason "its licence forbids it" --lake /data/lake --yes
  python pipelines/forget.py "task = 'gsm8k' AND num_fewshot = 0" --reason "asked without examples" --lake /data/lake
  python pipelines/forget.py --list --lake /data/lake
  python pipelines/forget.py --take-back 20261130T101500-1a2b3c4d --reason "it was right" --lake /data/lake

exit codes: 0 done; 1 not confirmed, the lake cannot be written, or not all could be brought back; 2 the input is wrong,
or nothing meets it"""

#: Names of models, tasks and sources that are printed.
MOST = 5


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return in_order(__file__, lambda: run(args))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__file__, description=HELP, epilog=EPILOG)
    parser.add_argument("where", nargs="?", metavar="CONDITION", help="SQL on the columns of the view cells")
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake (default: %(default)s)")
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="cells of this model; repeatable")
    parser.add_argument("--revision", metavar="R", help="cells of models whose revision begins so")
    parser.add_argument("--run", metavar="ID", help="the shards that this run of collect.py made")
    parser.add_argument("--import", dest="source", metavar="NAME", help="all that was imported under this name")
    parser.add_argument("--task", action="append", default=[], metavar="NAME", help="cells of this task; repeatable")
    parser.add_argument(
        "--definition", metavar="D", help="cells whose task_digest, items_digest or prompting begins so"
    )
    parser.add_argument("--items", type=item_ranges, default=(), metavar="N,N-M", help="only these items of the cells")
    parser.add_argument("--reason", metavar="TEXT", help="why; it is stored, and published with the next version")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="say what would be hidden; write nothing")
    parser.add_argument("--list", action="store_true", help="list all retractions of the lake")
    parser.add_argument("--take-back", metavar="ID", help="bring back what this retraction hides")
    return parser.parse_args(argv)


def item_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """The argument of --items, such as 3,7-9."""
    ranges = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        ranges.append((int(first), int(last or first)))
        if not 0 <= ranges[-1][0] <= ranges[-1][1] < 2**31:
            raise argparse.ArgumentTypeError(f"{part} is not a range of items")
    return tuple(ranges)


def run(args: argparse.Namespace) -> int:
    lake = Lake(args.lake).open_for_reading()
    if args.list:
        print_retractions(retraction_rows(lake))
        return 0
    wish = Wish(
        args.where or "true",
        tuple(args.model),
        args.revision,
        args.definition,
        tuple(args.task),
        args.run,
        args.source,
        args.items,
    )
    if not args.take_back and not wish.words:
        raise ConfigError("say what to forget: a condition, --model, --import, … (--help shows all)")
    if not args.dry_run and not (args.reason or "").strip():
        raise ConfigError("--reason is missing: say in a few words why, for those who look for these records")
    if args.take_back:
        return bring_back(lake, args)
    planned = plan_forgetting(lake, wish)
    print_planned(planned)
    if args.dry_run:
        print("dry run: nothing was written")
        return 0
    if not args.yes and not confirmed():
        print("nothing was written")
        return 1
    retraction_id = write_retraction(lake.open_for_writing(), planned, args.reason)
    print(f"forgotten by retraction {retraction_id}; to bring it back:")
    print(f"  {command(__file__, '--take-back', retraction_id, '--reason', '…', '--lake', args.lake)}")
    print("to delete it for good, a day later:")
    print(f"  {command(sibling(__file__, 'compact.py'), '--prune', '--lake', args.lake)}")
    return 0


def bring_back(lake: Lake, args: argparse.Namespace) -> int:
    if args.dry_run:
        raise ConfigError("--take-back has no --dry-run")
    taken = take_back(lake.open_for_writing(), args.take_back, args.reason)
    is_whole = not (taken.lost or taken.lost_items)
    what = "the records" if is_whole else "what is left of the records"
    print(f"taken back by {taken.retraction_id}: {what} of {args.take_back} count again")
    if taken.restored:
        print(f"{taken.restored:,} shards were written again, which a compaction had left out")
    for count, name in ((taken.lost, "cells"), (taken.lost_items, "items of other cells")):
        if count:
            print(f"{count:,} {name} were deleted meanwhile: collect or import them again", file=sys.stderr)
    return 0 if is_whole else 1


def print_planned(planned: Forgetting) -> None:
    """Prints counts of all that a retraction would hide."""
    counts = {
        "record": planned.records,
        "cell": planned.cells,
        "model": len(planned.models),
        "task": len(planned.tasks),
    }
    records, cells, models, tasks = (f"{n:,} {word}{'s' * (n != 1)}" for word, n in counts.items())
    print(f"this hides {records} of {cells}: {models} on {tasks}")
    for name, values in (("models", planned.models), ("tasks", planned.tasks), ("imported from", planned.sources)):
        if values:
            more = f" and {len(values) - MOST:,} more" if len(values) > MOST else ""
            print(f"  {name}: {', '.join(values[:MOST])}{more}")
    imports = [line["run_id"] for line in planned.lines if "run_id" in line]
    if imports:
        print(f"  whole runs and imports: {', '.join(imports[:MOST])}{' …' if len(imports) > MOST else ''}")


def confirmed() -> bool:
    """Asks on the terminal. Raises ConfigError where nobody can answer."""
    if not sys.stdin.isatty():
        raise ConfigError("there is no terminal to ask at: add --yes")
    return input("forget them? [y/N] ").strip().lower() in ("y", "yes")


def print_retractions(rows: Sequence[Mapping[str, Any]]) -> None:
    back = {row["takes_back"]: row["retraction_id"] for row in rows if row["takes_back"]}
    ids = list(dict.fromkeys(row["retraction_id"] for row in rows if not row["takes_back"]))
    if not ids:
        print("nothing was forgotten")
    for retraction_id in ids:
        lines = [row for row in rows if row["retraction_id"] == retraction_id]
        cells = len({row["cell_id"] for row in lines} - {None})
        state = f"taken back by {back[retraction_id]}" if retraction_id in back else "stands"
        at = lines[0]["retracted_at"].strftime("%Y-%m-%d %H:%M UTC")
        print(f"{retraction_id}  {at}  {cells:,} cells  {state}")
        print(f"  {lines[0]['condition']}: {lines[0]['reason']}")


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
