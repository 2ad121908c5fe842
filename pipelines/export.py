#!/usr/bin/env -S python3 -P
"""Writes a pool of a lake as the files of router benchmarks. See --help and the README."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import duckdb

from collectors.exporters.grid import MISSING, Options, load_grids
from collectors.exporters.out import check_free
from collectors.exporters.registry import FORMATS, check_ending, export
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from schemas.failures import ConfigError, RouterlakeError, one_line
from schemas.views import INCLUDED, named_in

DESCRIPTION = """\
Write a pool of a lake as files that router benchmarks read: the items of some tasks × the models of the pool.

A missing answer is never written as wrong, nor an unknown cost as free. The export stops and counts such gaps, and
--missing selects what to leave out. The command prints which columns the format has no place for. A model may have only
one cell for each task: if the lake has several, narrow them with --pool. Costs come from the view costs; prices.py puts
prices into the lake."""

EPILOG = """\
formats:
{formats}

--missing  error        stop, and count what the other two would leave out
           drop-items   leave out items without an answer from some model of the pool
           drop-models  leave out models without an answer to some item
           (huggingface has room for gaps and writes null)
--pool is SQL over columns of the view cells, such as "num_fewshot = 5 AND model LIKE 'Qwen/%'"

examples:
  python pipelines/export.py --format routerbench --lake /data/lake --out mine.csv
  python pipelines/export.py --format routereval --out mine/ --tasks arc_challenge --missing drop-items
  python pipelines/export.py --format huggingface --lake /data/lake --out mine.parquet --include all

exit codes: 0 written; 2 the input is wrong or the output cannot be written, and nothing was written"""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        run(args)
    except (RouterlakeError, duckdb.Error) as error:
        print(f"export: {one_line(error, 1000)}", file=sys.stderr)
        return 2
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    formats = "\n".join(f"  {name:<17} {one.what}" for name, one in FORMATS.items())
    parser = argparse.ArgumentParser(
        prog="export.py",
        description=DESCRIPTION,
        epilog=EPILOG.format(formats=formats),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--format", required=True, choices=FORMATS, metavar="F", help="the files to write, see below")
    parser.add_argument("--lake", metavar="URI", default="./lake", help="a lake or version (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, metavar="PATH", help="the new file or folder to write")
    parser.add_argument(
        "--tasks", nargs="+", default=[], metavar="TASK", help="tasks to write (default: all of the pool)"
    )
    parser.add_argument("--pool", metavar="SQL", default="true", help="cells to write (default: all)")
    parser.add_argument("--include", choices=INCLUDED, default="collected", help="which records (default: %(default)s)")
    parser.add_argument(
        "--missing", choices=MISSING, default="error", help="how to treat gaps, see below (default: %(default)s)"
    )
    for name, form in _options().items():
        parser.add_argument(f"--{name}", type=Path, metavar="PATH", help=f"{OPTIONS[name]}; for --format {form}")
    return parser.parse_args(argv)


OPTIONS = {
    "encoder": "folder of the sentence-transformers model that computes embeddings",
    "keywords": "YAML of task: keywords that describe it",
}


def _options() -> dict[str, str]:
    """Option -> name of the format that takes it."""
    return {option: name for name, form in FORMATS.items() for option in form.options}


def run(args: argparse.Namespace) -> None:
    form = FORMATS[args.format]
    given = {field.name: getattr(args, field.name, None) for field in fields(Options)}
    if foreign := [name for name, value in given.items() if value is not None and name not in form.options]:
        raise ConfigError(f"--{foreign[0]} belongs to --format {_options()[foreign[0]]}")
    check_ending(form, args.out)
    check_free(args.out)
    lake = Lake(args.lake).open_for_reading()
    grids = ask(
        lake,
        lambda con, _: load_grids(con, args.tasks, args.pool, texts=form.texts),
        only=named_in(f"cells costs matrix items responses imports {args.pool}"),
        include=args.include,
    )
    kept, notes = export(form, grids, args.out, args.missing, Options(**given))
    items, models = sum(len(grid.items) for grid in kept), len(kept[0].models)
    print(f"{args.out}: {len(kept):,} tasks, {items:,} items × {models:,} models as {args.format}")
    for line in notes:
        print(f"  {line}")
    print(f"  not in this format: {form.cannot}")


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
