"""The options that choose a pool, alike for all commands, and pools that are written down.

Owns the words of --pool. Knows nothing of how a pool is loaded.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from collectors.lake.store import Lake
from collectors.matrix.pool_files import PoolFile, kept_pool, read_pool_file
from schemas.failures import ConfigError
from schemas.views import INCLUDED, PoolChoice
from schemas.views.choice import QUESTIONS, SETTINGS

HELP = (
    "the cells to choose among: SQL on columns of the view cells, @NAME for a pool that the published version keeps, "
    "or a file NAME.yaml (default: all)"
)


@dataclass(frozen=True)
class ChosenPool:
    """The pool that a command's options name."""

    choice: PoolChoice
    include: str
    #: The file it was written in.
    file: PoolFile | None = None

    def cited(self, uri: str) -> list[str]:
        """A line that names a written pool, as a paper cites it."""
        return [f"pool {self.file.name} ({self.file.digest}) of {uri}"] if self.file else []


def add_pool(parser: argparse.ArgumentParser, *, include: str = "collected") -> None:
    """Adds --pool, --same, --questions and --include."""
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
        "--include", choices=INCLUDED, help=f"which records: collected, imported or all (default: {include})"
    )


def pool_of(args: argparse.Namespace, lake: Lake, include: str = "collected") -> ChosenPool:
    """The pool of the options that add_pool added. Raises ConfigError for a wrong or missing file."""
    given = {name: getattr(args, name) for name in ("same", "questions") if getattr(args, name) is not None}
    prices = {name: value for name in ("prices_on", "price_provider") if (value := getattr(args, name, None))}
    text = args.pool or "true"
    if not (text.startswith("@") or text.endswith((".yaml", ".yml"))):
        return ChosenPool(PoolChoice(where=text, **given, **prices), args.include or include)
    file = kept_pool(lake, text[1:]) if text.startswith("@") else read_pool_file(text)
    if given or prices or args.include:
        name = next(iter({**given, **prices, **({"include": 1} if args.include else {})})).replace("_", "-")
        raise ConfigError(f"--{name} stands in the pool {file.name}: change it there, or give --pool as SQL")
    return ChosenPool(file.choice, file.include, file)
