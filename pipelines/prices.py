#!/usr/bin/env -S python3 -P
"""Puts price tables into a lake, and shows the price of each of its models. See --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import difflib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from rich.console import Console

from collectors.lake.holdings import Holdings
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.prices.tables import SHIPPED, add_prices, read_prices, shipped_path
from pipelines.console.lake_shown import show_prices
from pipelines.console.plain_console import stdout_console
from pipelines.console.rows_out import add_format, print_rows
from pipelines.console.script import Parser
from pipelines.console.tables import MOST_TASKS
from schemas.failures import ConfigError, RouterlakeError, one_line

DESCRIPTION = """\
Put price tables into a lake, and show the price of each of its models.

A record never stores a cost: views join tokens with dated prices, so a corrected price corrects every cost. A model
gets the price that price_names assigns to it, else the price under its own name, else the price for its size. A model
without any is unpriced, which is not free. If the lake does not exist, it is made for the tables. Without tables the
command only shows prices."""

EPILOG = """\
files: UTF-8 CSV with a header; lines that begin with # are comments; an empty field means unknown, never 0
  prices       model, provider, usd_per_million_prompt, usd_per_million_completion, valid_from, source
               [usd_per_million_cached, usd_per_million_cache_write, usd_per_million_reasoning,
               usd_per_million_batch_prompt, usd_per_million_batch_completion, usd_per_request, over_parameters,
               to_parameters]
  GPU prices   accelerator, provider, usd_per_gpu_hour, valid_from, source
  price names  name, price_name, source [provider]: the price entry of a model or GPU; an empty price_name: unpriced
A row replaces an earlier row for the same model, provider and day.

tables that come with routerlake: open_models (hosts' prices for open models, and prices by size), hosted_models (what
makers of closed models ask for them), price_names, gpus,
routerbench (the prices behind its published costs)

examples:
  python pipelines/prices.py --lake /data/lake --shipped open_models price_names
  python pipelines/prices.py mine.csv --lake /data/lake
  python pipelines/prices.py --lake /data/lake                    # show the models' prices

exit codes: 0 done; 2 the input is wrong and nothing was written"""


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
    parser = Parser(__file__, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="price tables, see below")
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake (default: %(default)s)")
    parser.add_argument(
        "--shipped", nargs="+", choices=SHIPPED, default=[], metavar="NAME", help="tables that come with routerlake"
    )
    add_format(parser, "a table of up to 50 models")
    return parser.parse_args(argv)


def run(args: argparse.Namespace, console: Console) -> None:
    lake = Lake(args.lake)
    if not (lake.exists() or args.files or args.shipped):
        raise ConfigError(f"no lake at {lake.uri}: name another with --lake, or give tables to make one")
    tables = [(path.name, *read_prices(path)) for path in args.files]
    for name in args.shipped:
        with shipped_path(name) as path:
            tables.append((path.name, *read_prices(path)))
    if tables:
        lake.open_for_writing()
    for name, table, rows in tables:  # after all were read, so that one wrong table keeps all out
        state = "rows put into" if add_prices(lake, table, rows) else "rows were already in"
        print(f"{name}: {len(rows):,} {state} {table}", file=sys.stderr if args.format else sys.stdout)
    if args.format:
        print_rows(args.format, *ask(lake.open_for_reading(), price_rows, only=["model_prices"]))
        return
    # Tables that come with routerlake name many models that no lake has.
    own = tables[: len(args.files)]

    def show(con: duckdb.DuckDBPyConnection, _: Holdings) -> None:
        for name, table, rows in own:
            if line := without_models(con, table, rows):
                console.print(f"{name}: {line}")
        show_prices(con, console)

    ask(lake.open_for_reading(), show, only=["model_prices", "prices", "price_names"], include="all")


def without_models(con: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> str | None:
    """Which names of a price table no model of the lake has. None: none, or the lake has no model yet."""
    column = {"prices": "model", "price_names": "name"}.get(table)
    models = con.sql("SELECT DISTINCT unnest([model, model_source]) FROM model_prices ORDER BY ALL").fetchall()
    if column is None or not models:
        return None
    known = {name.lower(): name for [name] in models if name}
    known |= {name.rpartition("/")[2]: name for name in list(known)}
    for [priced, name] in con.sql("SELECT price_name, name FROM price_names WHERE price_name <> ''").fetchall():
        if name.lower() in known:
            known[priced.lower()] = name
    named = dict.fromkeys(name for name in rows[column].to_pylist() if name)
    lacking = [name for name in named if not {name.lower(), name.lower().rpartition("/")[2]} & known.keys()]
    if not lacking:
        return None
    shown = []
    for name in lacking[:MOST_TASKS]:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        shown.append(f"{name} (did you mean {known[near[0]]}?)" if near else name)
    more = f" and {len(lacking) - MOST_TASKS:,} more" if len(lacking) > MOST_TASKS else ""
    return f"no model of this lake is named {', '.join(shown)}{more}"


def price_rows(con: duckdb.DuckDBPyConnection, _: Holdings) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the view's columns, and the row of each model."""
    prices = con.sql("FROM model_prices ORDER BY model, model_source, parameters")
    return prices.columns, prices.fetchall()


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
