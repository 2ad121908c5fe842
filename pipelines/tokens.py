#!/usr/bin/env -S python3 -P
"""Counts the tokens of a lake's texts with one tokenizer for all models. See --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from collectors.atomic import replacing
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.token_counts import VIEWS, encoding_counter, write_counts
from pipelines.console.script import Parser, command, sibling
from schemas.failures import ConfigError, RouterlakeError, one_line
from schemas.sql import quoted_path
from schemas.views import INCLUDED

DESCRIPTION = """\
Count the tokens of a lake's texts with one tokenizer for all models, as RouterBench does with cl100k_base.

The command writes a Parquet file with a row for each row of the matrix: cell_id, task, model, item, tokenizer,
question_tokens and response_tokens. The lake keeps the engines' own counts, and costs use those. question_tokens counts
the item's text in the lake: for RouterBench's files the whole prompt, for collected tasks the question without
description, few-shot examples and chat template. If the lake has no text (a task that scores choices has no response),
the count is null, never 0."""

EPILOG = """\
tiktoken downloads the vocabulary once. Without a network, set TIKTOKEN_CACHE_DIR to a folder that has it.

example:
  python pipelines/tokens.py --lake /data/lake --out cl100k.parquet
  python pipelines/matrix.py --lake /data/lake --sql "SELECT matrix.model, avg(response_tokens),
    avg(completion_tokens) FROM matrix JOIN 'cl100k.parquet' USING (cell_id, item) GROUP BY ALL"

exit codes: 0 done; 2 the input is wrong and nothing was written"""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        run(args)
    except RouterlakeError as error:
        print(f"tokens: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__file__, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--lake", metavar="URI", default="./lake", help="a lake or version (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the Parquet file to write")
    parser.add_argument(
        "--tokenizer", default="cl100k_base", metavar="NAME", help="an encoding of tiktoken (default: %(default)s)"
    )
    parser.add_argument("--task", nargs="+", metavar="T", help="tasks to count (default: all)")
    parser.add_argument("--include", choices=INCLUDED, default="all", help="which records (default: %(default)s)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    lake = Lake(args.lake).open_for_reading()
    if args.out.suffix != ".parquet" or not args.out.parent.is_dir():
        raise ConfigError(f"--out {args.out}: name a file that ends in .parquet, in a folder that exists")
    counter = encoding_counter(args.tokenizer)
    try:
        with replacing(args.out) as temporary:
            rows, questions, responses = ask(
                lake,
                lambda con, _: write_counts(con, counter, args.tokenizer, temporary, args.task),
                only=VIEWS,
                include=args.include,
            )
            if not rows:
                raise ConfigError(f"the lake {lake.uri} has no {args.include} records of {args.task or 'any task'}")
    except OSError as error:
        raise ConfigError(f"--out {args.out}: cannot be written: {one_line(error)}") from error
    print(f"{args.out}: {rows:,} rows by {args.tokenizer}; counted {questions:,} questions, {responses:,} responses")
    query = f"SELECT task, model, sum(response_tokens) FROM {quoted_path(str(args.out))} GROUP BY ALL ORDER BY ALL"
    print(f"next: {command(sibling(__file__, 'matrix.py'), '--lake', args.lake, '--sql', query)}")


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
