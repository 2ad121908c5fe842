#!/usr/bin/env -S python3 -P
"""Brings records that others wrote into a lake. See --help and the README."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from collectors.importers.files import find_files
from collectors.importers.found import Source
from collectors.importers.ingest import Report, ingest
from collectors.importers.registry import FORMATS, aliases_of
from collectors.importers.settings import check_settings, described
from collectors.lake import Lake
from pipelines.progress import Counter
from pipelines.script import command, sibling
from schemas.failures import ConfigError, RouterlakeError

HELP = """\
Bring records that others wrote into a lake, beside the collected ones and never mixed with them unasked.

Every row of the source becomes a record, or is known already, or says again what another row says, or is rejected with
its reason, file and line: the four are counted, and add up. Nothing is guessed: what a source does not tell is null.
Items are joined to those of other sources where their text is the same, models by a table of aliases. What looks wrong
without being so for certain is named and left as it is. Running it twice adds nothing; killed, it goes on."""

EPILOG = """\
formats:
{formats}

examples:
  python pipelines/ingest.py --format lm_eval results/ --lake /data/lake --dry-run
  python pipelines/ingest.py --format lm_eval 'runs/*/samples_gsm8k_*.jsonl' --model me/my-model --lake /data/lake
  python pipelines/ingest.py --format table scores.csv --columns columns.yaml --name my-scores --lake /data/lake

exit codes: 0 every row is a record, or was one; 1 some are rejected, or the lake cannot be written; 2 the input is
wrong and nothing was written"""

HELP_TABLE = """\
# What can stand in the YAML of ingest.py --format table --columns. Leave out what your table has not.
"""

#: Rows printed of what is told one by one.
MOST = 10


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        return run(args)
    except ConfigError as error:
        print(f"ingest: {error}", file=sys.stderr)
        return 2
    except RouterlakeError as error:
        print(f"ingest: {error}\nWhat is in the lake is whole; the same command goes on.", file=sys.stderr)
        return 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    formats = "\n".join(f"  {name:<20} {one.what}" for name, one in FORMATS.items())
    parser = argparse.ArgumentParser(
        prog="ingest.py",
        description=HELP,
        epilog=EPILOG.format(formats=formats),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, folder, glob, or URI of one")
    parser.add_argument("--format", required=True, choices=FORMATS, metavar="F", help="what wrote it, see below")
    parser.add_argument("--lake", metavar="URI", default="./lake", help="where to write (default: %(default)s)")
    parser.add_argument("--name", help="what the source is called in the lake (default: the format)")
    parser.add_argument("--licence", help="licence of the source, such as mit")
    parser.add_argument("--model", help="whose answers these are, where the files do not say")
    parser.add_argument("--aliases", type=Path, metavar="YAML", help="source's model names and their ids, one a line")
    parser.add_argument(
        "--columns", type=Path, metavar="YAML", help="for --format table: which column is what, see --help-table"
    )
    parser.add_argument("--help-table", action=_HelpTable, nargs=0, help="say what can stand in that file, and exit")
    parser.add_argument("--dry-run", action="store_true", help="say what would come in, write nothing")
    return parser.parse_args(argv)


class _HelpTable(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(HELP_TABLE + described(), end="")
        parser.exit()


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    form = FORMATS[args.format]
    if not args.lake:
        raise ConfigError("--lake names no place")
    if (args.columns is None) == (args.format == "table"):
        raise ConfigError(
            "--format table needs --columns, a YAML that says which column is what; no other format takes it"
        )
    if args.name and not (args.name.isprintable() and "#" not in args.name):
        raise ConfigError(f"--name {args.name!r} is no name: no '#', and nothing but text")
    own = mapping_of(args.aliases) if args.aliases else {}
    options = mapping_of(args.columns) if args.columns else {}
    if args.columns:
        check_settings(options)
    source = Source(
        name=args.name or args.format,
        format=args.format,
        licence=args.licence,
        aliases=aliases_of(args.format, own),
        model=args.model,
        options=options,
    )
    files = find_files(args.paths, form.patterns)
    report = ingest(form.read, files, source, Lake(args.lake), dry_run=args.dry_run, told=Counter("cells"))
    print_report(report, args.lake, dry_run=args.dry_run, seconds=time.monotonic() - started)
    return 1 if report.rejects or report.skipped_rejects else 0


def mapping_of(path: Path) -> Mapping[str, Any]:
    """A YAML file with a mapping. Raises ConfigError for anything else."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must be a mapping of names")
    return value


def print_report(report: Report, lake: str, *, dry_run: bool, seconds: float) -> None:
    total = report.total
    if report.skipped:
        rejects = f", with {report.skipped_rejects:,} rejects (view rejects)" if report.skipped_rejects else ""
        print(f"{len(report.skipped):,} files were imported before, such as {report.skipped[0]}{rejects}")
    if not report.files:
        print("nothing new")
        return
    print(
        f"{len(report.files):,} files, {total.rows:,} rows in: {total.records:,} records, {total.known:,} known "
        f"already, {total.folded:,} folded, {total.rejected:,} rejected"
    )
    changed = {name: model for name, model in report.models.items() if name != model}
    print(f"{report.cells:,} cells: {len(set(report.models.values())):,} models on {len(report.items):,} tasks")
    for name, model in list(changed.items())[:MOST]:
        print(f"  model {name} is {model}")
    for task, (items, in_table, with_content, joined) in list(report.items.items())[:MOST]:
        print(
            f"  task {task}: {items:,} items, {in_table:,} in a table of the lake; by content {joined:,} are known, "
            f"{with_content - joined:,} are new, {items - with_content:,} cannot be joined"
        )
    if len(report.items) > MOST:
        print(f"  … and {len(report.items) - MOST:,} more tasks")
    for kind, (count, first) in report.kinds.items():
        print(f"  rejected, {kind}: {count:,}, first {first}")
    for kind, count in sorted(Tally(one.kind for one in report.suspicions).items()):
        one = next(one for one in report.suspicions if one.kind == kind)
        of = " on ".join(filter(None, (one.model, one.task)))
        print(f"  suspicious, {kind}: {count:,}, first{f' {of}' if of else ''}: {one.message}")
    if dry_run:
        print("dry run: nothing was written")
    else:
        print(f"{report.import_id} → {lake} in {seconds:.0f} s")
        words = ["--lake", lake, "--include", "imported", "--show"]
        print(f"next: {command(sibling(__file__, 'matrix.py'), *words)}")


if __name__ == "__main__":
    from pipelines.script import run_script

    run_script(main)
