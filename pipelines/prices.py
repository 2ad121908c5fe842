#!/usr/bin/env -S python3 -P
"""Puts price tables into a lake, and says what each of its models is charged by. See --help and the README."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb
from rich.console import Console

from collectors.lake import Lake
from collectors.prices import SHIPPED, add_prices, read_prices, shipped_path
from collectors.reading import ask
from pipelines.plain_console import stdout_console
from pipelines.shown import show_prices
from schemas.failures import ConfigError, RouterlakeError, one_line

DESCRIPTION = """\
Put price tables into a lake, and say by which price each of its models is charged.

Costs are never stored in a record: views join tokens with dated prices, so a corrected price corrects every cost. A
model finds its price by the name that price_names gives it, else by an entry of its own name, else by the tier of its
size; what finds none is unpriced, which is not free. A lake that is not there yet is made for the tables; without any
nothing is put in."""

EPILOG = """\
files: UTF-8 CSV with a header; lines that begin with # are comments; an empty field is unknown, never 0
  prices       model, provider, usd_per_million_prompt, usd_per_million_completion, valid_from, source
               [usd_per_million_cached, usd_per_request, over_parameters, to_parameters]
  GPU prices   accelerator, provider, usd_per_gpu_hour, valid_from, source
  price names  name, price_name, source [provider]: which entry a model or GPU is priced by; no price_name: by none
A row replaces one of the same model, provider and day that was put in before.

tables that come with routerlake: open_models (what hosts ask for open models, and tiers of sizes), price_names,
gpus, routerbench (what its published costs were made of)

examples:
  python pipelines/prices.py --lake /data/lake --shipped open_models price_names
  python pipelines/prices.py mine.csv --lake /data/lake
  python pipelines/prices.py --lake /data/lake                    # which model is charged by what

exit codes: 0 done; 2 the input is wrong, nothing was written"""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    console = stdout_console()
    try:
        run(args, console)
    except (RouterlakeError, duckdb.Error) as error:
        print(f"prices: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="prices.py", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="price tables, see below")
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake (default: %(default)s)")
    parser.add_argument(
        "--shipped", nargs="+", choices=SHIPPED, default=[], metavar="NAME", help="tables that come with routerlake"
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace, console: Console) -> None:
    lake = Lake(args.lake)
    if not (lake.exists() or args.files or args.shipped):
        raise ConfigError(f"no lake at {lake.uri}: name another with --lake, or give tables: one is made for them")
    tables = [(path.name, *read_prices(path)) for path in args.files]
    for name in args.shipped:
        with shipped_path(name) as path:
            tables.append((path.name, *read_prices(path)))
    if tables:
        lake.open_for_writing()
    for name, table, rows in tables:  # all were read: a wrong one keeps all out
        said = "rows put into" if add_prices(lake, table, rows) else "rows that stand already in"
        console.print(f"{name}: {len(rows):,} {said} {table}")
    ask(lake.open_for_reading(), lambda con, _: show_prices(con, console), include="all")


if __name__ == "__main__":
    from pipelines.script import run_script

    run_script(main)
