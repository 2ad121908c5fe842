#!/usr/bin/env -S python3 -P
"""Counts the texts of a lake by one tokenizer for all models. See its --help."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from collectors.lake import Lake
from collectors.reading import ask
from collectors.token_counts import encoding_counter, write_counts
from pipelines.script import command, sibling
from schemas.failures import ConfigError, RouterlakeError, one_line
from schemas.views import INCLUDED

DESCRIPTION = """\
Count the texts of a lake by one tokenizer for all models, as RouterBench does by cl100k_base.

Writes a Parquet file with a row for each row of the matrix: cell_id, task, model, item, tokenizer, question_tokens and
response_tokens. The engine's counts stay in the lake, and costs rest on them; these stand beside them. question_tokens
are those of the item's text as the lake holds it: of RouterBench's files the whole prompt, of collected tasks the
question without description, few-shot examples and chat template. Where no text is kept (choices are scored, not
written) the count is null, never 0."""

EPILOG = """\
The vocabulary is tiktoken's, which fetches it once; without a network let TIKTOKEN_CACHE_DIR name a folder that has it.

example:
  python pipelines/tokens.py --lake /data/lake --out cl100k.parquet
  python pipelines/matrix.py --lake /data/lake --sql "SELECT matrix.model, avg(response_tokens),
    avg(completion_tokens) FROM matrix JOIN 'cl100k.parquet' USING (cell_id, item) GROUP BY ALL"

exit codes: 0 done; 2 the input is wrong, nothing was written"""


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
    parser = argparse.ArgumentParser(
        prog="tokens.py", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lake", metavar="URI", default="./lake", help="a lake or version (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the Parquet file to write")
    parser.add_argument(
        "--tokenizer", default="cl100k_base", metavar="NAME", help="an encoding of tiktoken's (default: %(default)s)"
    )
    parser.add_argument("--task", nargs="+", metavar="T", help="tasks to count (default: all)")
    parser.add_argument("--include", choices=INCLUDED, default="all", help="which records (default: %(default)s)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    lake = Lake(args.lake).open_for_reading()
    if args.out.suffix != ".parquet" or not args.out.parent.is_dir():
        raise ConfigError(f"--out {args.out}: name a file that ends in .parquet, in a folder that is there")
    counter = encoding_counter(args.tokenizer)
    temporary = args.out.with_name(f".{args.out.name}.{secrets.token_hex(4)}.tmp")
    try:
        rows, questions, responses = ask(
            lake,
            lambda con, _: write_counts(con, counter, args.tokenizer, temporary, args.task),
            include=args.include,
        )
        if not rows:
            raise ConfigError(f"the lake {lake.uri} has no {args.include} records of {args.task or 'any task'}")
        os.replace(temporary, args.out)
    except OSError as error:
        raise ConfigError(f"--out {args.out}: cannot be written: {one_line(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{args.out}: {rows:,} rows by {args.tokenizer}; known are {questions:,} questions, {responses:,} responses")
    query = f"SELECT task, model, sum(response_tokens) FROM '{args.out}' GROUP BY ALL ORDER BY ALL"
    print(f"next: {command(sibling(__file__, 'matrix.py'), '--lake', args.lake, '--sql', query)}")


if __name__ == "__main__":
    from pipelines.script import run_script

    run_script(main)
