#!/usr/bin/env -S python3 -P
"""Writes a pool of a lake as the files of router benchmarks. See --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import logging
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from collectors.exporters.gaps import MISSING
from collectors.exporters.grid import Options
from collectors.exporters.out import check_free
from collectors.exporters.reading import needed_views, read_grids
from collectors.exporters.registry import FORMATS, Written, check_ending, export
from collectors.lake.holdings import Holdings
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix import judged
from collectors.matrix.item_rows import VIEWS
from collectors.matrix.judged import judge_lines
from collectors.matrix.routed import chosen_models
from pipelines.console.pool_options import add_pool, pool_of
from pipelines.console.script import Parser
from schemas.failures import ConfigError, RouterlakeError, one_line

DESCRIPTION = """\
Write a pool of a lake as files that router benchmarks read: the questions of some tasks × the candidates of the pool.

The pool is that of the views candidates and questions: questions that every candidate has a score for. A missing
answer is never written as wrong, nor an unknown cost as free. The export stops and counts such gaps, and --missing
selects what to leave out. The command prints what the pool leaves out, and which columns the format has no place for.
Costs come from the view costs; prices.py puts prices into the lake."""

EPILOG = """\
formats:
{formats}

--missing  error        stop, and count what the other two would leave out
           drop-items   leave out questions where some candidate's answer has such a gap
           drop-models  leave out candidates with such a gap
           With --questions any an answer without a score is a gap, too. huggingface writes gaps as null, and all that
           the chosen cells were asked.
--pool is SQL over columns of the view cells, such as "num_fewshot = 5 AND model LIKE 'Qwen/%'"

examples:
  python pipelines/export.py --format routerbench --lake /data/lake --out mine.csv
  python pipelines/export.py --format routereval --out mine/ --task arc_challenge --missing drop-items
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
    parser = Parser(__file__, description=DESCRIPTION, epilog=EPILOG.format(formats=formats))
    parser.add_argument("--format", required=True, choices=FORMATS, metavar="F", help="the files to write, see below")
    parser.add_argument("--lake", metavar="URI", default="./lake", help="a lake or version (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, metavar="PATH", help="the new file or folder to write")
    parser.add_argument(
        "--task", nargs="+", default=[], metavar="TASK", help="tasks to write (default: all of the pool)"
    )
    add_pool(parser)
    parser.add_argument(
        "--missing", choices=MISSING, default="error", help="how to treat gaps, see below (default: %(default)s)"
    )
    parser.add_argument(
        "--names",
        choices=("lake", "source"),
        default="lake",
        help="names of imported models: the lake's, or their source's, before an alias (default: %(default)s)",
    )
    for name, forms in _options().items():
        kind, text = OPTIONS[name]
        how = {"action": "store_true"} if kind is bool else {"type": kind, "metavar": "X" if kind is finite else "PATH"}
        parser.add_argument(f"--{name.replace('_', '-')}", help=f"{text}; for {', '.join(forms)}", **how)
    return parser.parse_args(argv)


def finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


#: Option -> type and help.
OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "encoder": (Path, "folder of the sentence-transformers model that computes embeddings"),
    "threshold": (
        finite,
        "the lowest graded score that counts as right, where a format has nothing but right and wrong",
    ),
    "tokens": (Path, "Parquet file of tokens.py, for answers whose token counts are unknown"),
    "accuracy_only": (bool, "write neither token counts nor costs, and ask for none"),
    "choices": (Path, "choices of routers, as for matrix.py score; without it each model is a router"),
    "keywords": (Path, "YAML of task: keywords that describe it"),
}


def _options() -> dict[str, list[str]]:
    """Option -> names of the formats that take it."""
    return {option: [name for name, form in FORMATS.items() if option in form.options] for option in OPTIONS}


def run(args: argparse.Namespace) -> None:
    form = FORMATS[args.format]
    given = {name: value for name in OPTIONS if (value := getattr(args, name)) not in (None, False)}
    if foreign := [name for name in given if name not in form.options]:
        raise ConfigError(f"--{foreign[0].replace('_', '-')} belongs to --format {' or '.join(_options()[foreign[0]])}")
    check_ending(form, args.out)
    check_free(args.out)
    lake = Lake(args.lake).open_for_reading()
    pool = pool_of(args, lake)
    choices = given.pop("choices", None)

    def write(con: duckdb.DuckDBPyConnection, holdings: Holdings) -> tuple[Written, list[str]]:
        grids, lines = read_grids(
            con,
            lake,
            holdings,
            args.task or None,
            pool.choice,
            texts=form.texts,
            numbers=form.numbers,
            unscored=form.unscored,
        )
        routers = chosen_models(con, choices) if choices else None
        lines = [*judge_lines(con), *lines]
        options = Options(**given, routers=routers, names=args.names)
        written, notes = export(form, grids, args.out, args.missing, options)
        return written, [*lines, *notes]

    written, lines = ask(
        lake,
        write,
        only=lambda holdings: (*VIEWS, *needed_views(holdings, form.numbers), *judged.VIEWS),
        include=pool.include,
        choice=pool.choice,
    )
    print(f"{args.out}: {written.tasks:,} tasks, {written.items:,} items × {written.models:,} models as {args.format}")
    for line in (*pool.cited(lake.uri), *lines):
        print(f"  {line}")
    print(f"  not in this format: {form.cannot}")


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
