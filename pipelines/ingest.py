#!/usr/bin/env -S python3 -P
"""Imports other people's records into a lake. See --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from collectors.importers.files import find_files
from collectors.importers.formats.table_settings import check_settings, described
from collectors.importers.ingest import Report, ingest
from collectors.importers.registry import FORMATS, aliases_of
from collectors.importers.sources import ImportSource
from collectors.lake.forgetting import Wish, plan_forgetting, take_back, write_retraction
from collectors.lake.store import Lake
from pipelines.console.progress import Counter
from pipelines.console.script import Parser, command, in_order, sibling
from schemas.failures import YAML_VALUE_ERRORS, ConfigError
from schemas.texts import without_keys

HELP = """\
Import other people's records into a lake. They stand beside the collected records; a reader sees them only on request.

Every row of the source becomes a record, is in the lake already, repeats another row, or is rejected with a reason,
file and line. The command counts all four, and they add up. It guesses nothing: a value that the source lacks is null.
Items are joined to those of other sources by equal text, models by a table of aliases. Suspicious values are named and
kept. If it was killed, run it again to continue; a second complete run adds nothing, nor does one of a later release:
--replace NAME has the files read anew, and forgets what they gave before."""

EPILOG = """\
formats:
{formats}

examples:
  python pipelines/ingest.py --format lm_eval results/ --lake /data/lake --dry-run
  python pipelines/ingest.py --format lm_eval 'runs/*/samples_gsm8k_*.jsonl' --model me/my-model --lake /data/lake
  python pipelines/ingest.py --format table scores.csv --columns columns.yaml --name my-scores --lake /data/lake
  python pipelines/ingest.py --format table scores.csv --columns right.yaml --replace my-scores --lake /data/lake

exit codes: 0 every row is in the lake; 1 some rows were rejected, a file gave no record, or the lake cannot be written;
2 the input is wrong and nothing was written"""

HELP_TABLE = """\
# Keys of the YAML file for ingest.py --format table --columns. Leave out keys that your table has no column for.
"""

#: Lines printed for each list of models or tasks.
MOST = 10


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return in_order(__file__, lambda: run(args), unharmed=True)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    formats = "\n".join(f"  {name:<20} {one.what}" for name, one in FORMATS.items())
    parser = Parser(__file__, description=HELP, epilog=EPILOG.format(formats=formats))
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, folder or glob, also as a URI")
    parser.add_argument("--format", required=True, choices=FORMATS, metavar="F", help="format of the source, see below")
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake to write to (default: %(default)s)")
    parser.add_argument("--name", help="name of the source in the lake (default: the format)")
    parser.add_argument(
        "--replace",
        metavar="NAME",
        help="forget what was imported under NAME before, and import under that name: for files that were read wrongly",
    )
    parser.add_argument("--licence", help="licence of the source, such as mit")
    parser.add_argument("--model", help="the model that answered, if the files do not name it")
    parser.add_argument("--aliases", type=Path, metavar="YAML", help="maps the source's model names to model ids")
    parser.add_argument(
        "--columns", type=Path, metavar="YAML", help="for --format table: meaning of the columns, see --help-table"
    )
    parser.add_argument("--help-table", action=_HelpTable, nargs=0, help="explain the file for --columns and exit")
    parser.add_argument("--dry-run", action="store_true", help="count what an import would add; write nothing")
    return parser.parse_args(argv)


class _HelpTable(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(HELP_TABLE + described(), end="")
        parser.exit()


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    form = FORMATS[args.format]
    if not args.lake:
        raise ConfigError("--lake is empty: name the lake to write to")
    if (args.columns is None) == (args.format == "table"):
        raise ConfigError(
            "--format table needs --columns, a YAML file with the meaning of each column; no other format takes it"
        )
    if args.name and not (args.name.isprintable() and "#" not in args.name):
        raise ConfigError(f"--name {args.name!r}: use printable text without '#'")
    if args.replace and args.name not in (None, args.replace):
        raise ConfigError("--replace NAME imports under that name: leave out --name")
    own = mapping_of(args.aliases) if args.aliases else {}
    options = mapping_of(args.columns) if args.columns else {}
    if args.columns:
        check_settings(options)
    source = ImportSource(
        name=without_keys(args.replace or args.name or args.format),
        format=args.format,
        licence=args.licence,
        aliases=aliases_of(args.format, own),
        model=args.model,
        options=options,
    )
    files = find_files(args.paths, form.patterns)
    lake = Lake(args.lake)
    is_new = not lake.exists()

    def work() -> Report:
        return ingest(form.read, files, source, lake, dry_run=args.dry_run, progress=Counter("cells"))

    report = replacing(lake, source.name, work, dry_run=args.dry_run) if args.replace else work()
    if is_new:
        print(f"a new lake: there was none at {lake.uri}")
    print_report(report, args.lake, dry_run=args.dry_run, seconds=time.monotonic() - started)
    return 1 if report.rejects or report.skipped_rejects else 0


def replacing(lake: Lake, name: str, work: Callable[[], Report], *, dry_run: bool) -> Report:
    """Forgets an import before `work`, and takes that back where it fails or brings nothing.

    Raises ConfigError if the lake has none of this name.
    """
    planned = plan_forgetting(lake.open_for_reading(), Wish(source=name))
    print(f"replaces {planned.records:,} records of {planned.cells:,} cells that were imported as {name}")
    if dry_run:
        return work()
    retraction_id = write_retraction(lake.open_for_writing(), planned, f"replaced by another import as {name}")
    try:
        report = work()
    except BaseException:
        take_back(lake, retraction_id, "the import that should replace it failed")
        raise
    if report.total.records:
        print(f"the earlier import is forgotten by retraction {retraction_id} (forget.py --list)")
    else:
        take_back(lake, retraction_id, "the import that should replace it brought no record")
        print("the earlier import stays: nothing came in its place")
    return report


def mapping_of(path: Path) -> Mapping[str, Any]:
    """Reads a YAML file that holds a mapping. Raises ConfigError for anything else."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, *YAML_VALUE_ERRORS, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold a YAML mapping (name: value)")
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
            f"  task {task}: {items:,} items, {in_table:,} in the lake's table of items; by text {joined:,} match, "
            f"{with_content - joined:,} are new, {items - with_content:,} cannot be compared"
        )
        if task in report.unmatched:
            print(f"    none is a question of the lake's {task}: {report.unmatched[task]}")
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
    from pipelines.console.script import run_script

    run_script(main)
