"""The options that choose a pool, alike for all commands, and pools that are written down.

Owns the words of --pool. Knows nothing of how a pool is loaded.
"""

from __future__ import annotations

import argparse
import dataclasses

from collectors.lake.store import Lake
from collectors.matrix.pool_files import ChosenPool, choose_pool
from schemas.views import INCLUDED
from schemas.views.choice import QUESTIONS, SETTINGS, SPARSE

HELP = (
    "the cells to choose among: SQL on columns of the view cells, @NAME for a pool that the published version keeps, "
    "or a file NAME.yaml (default: all)"
)


def add_pool(parser: argparse.ArgumentParser, *, include: str = "collected") -> None:
    """Adds --pool, --same, --questions, --sparse, --judge and --include."""
    parser.add_argument("--pool", metavar="SQL", help=HELP)
    parser.add_argument(
        "--same",
        metavar="SETTING,…",
        type=lambda text: tuple(filter(None, text.split(","))),
        help=f"settings that all candidates must share: {', '.join(SETTINGS)} (default: they may differ)",
    )
    parser.add_argument(
        "--questions",
        choices=QUESTIONS,
        help="which count: those that every candidate has a score for, or any (default: every)",
    )
    parser.add_argument(
        "--sparse",
        choices=SPARSE,
        help="cells of which runs asked a sample: no candidates of a task with whole cells, or beside them (default: "
        "apart)",
    )
    parser.add_argument(
        "--judge",
        metavar="NAME",
        help="the judge whose verdicts count, by name or judge_id: see judge.py (default: the verdicts as collected)",
    )
    parser.add_argument(
        "--include", choices=INCLUDED, help=f"which records: collected, imported or all (default: {include})"
    )


def options_of(args: argparse.Namespace) -> list[str]:
    """The options of add_pool that a person gave, to stand in another command on the same pool."""
    given = {
        "pool": args.pool,
        "same": ",".join(args.same or ()),
        "questions": args.questions,
        "sparse": args.sparse,
        "include": args.include,
        "judge": args.judge,
    }
    return [text for name, value in given.items() if value for text in (f"--{name}", value)]


def pool_of(args: argparse.Namespace, lake: Lake, include: str = "collected") -> ChosenPool:
    """The pool of the options that add_pool added. Raises ConfigError for a wrong or missing file."""
    names = ("same", "questions", "sparse", "prices_on", "price_provider")
    options = {name: getattr(args, name, None) for name in names}
    pool = choose_pool(lake, args.pool, args.include, options, include)
    return dataclasses.replace(pool, choice=dataclasses.replace(pool.choice, judge=args.judge)) if args.judge else pool
