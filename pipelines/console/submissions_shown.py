"""Submissions of others: the commands `publish.py check` and `publish.py board`. See their --help and the README."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.console.rows_out import markdown_table
from pipelines.console.script import Parser, write_file
from schemas.failures import ConfigError
from schemas.texts import visible

if TYPE_CHECKING:
    from collectors.routers.checking import Basis
    from collectors.routers.open_board import OpenBoard

CHECK = """\
Check a submission against a published version: its pool, split and prices, rows that are missing, doubled or of
unknown questions, and whether they know the answers.

FILE is a file of a router's choices as matrix.py score reads it, or a JSON file that states what they are:

  {"name": "my-router", "by": "Jane Doe", "file": "choices.csv", "sha256": "…", "version": "1.0.0",
   "pool": "small", "split": "content-0-1a2b3c4d5e6f", "usd_per_query": 0.00002, "url": "https://example.org"}

name, file and sha256 are needed (sha256sum prints it). pool and split are names that the version keeps; without a pool
all candidates of all tasks are meant, without a split all questions. include (collected, imported or all) and prices
(the digest that this command prints) may be stated, too.

Records of a model are a table with a row for each question: question, item_hash, source_key or item (with task where
there are several), score, and as far as known prompt_tokens, completion_tokens, latency_s and usd. It is stated by

  {"name": "Acme 7B our run", "kind": "records", "model": "acme/acme-7b", "revision": "…", "file": …, "sha256": …}

A model that lacks a test question has no rank. What looks wrong, such as scores that are another model's, is shown as
suspicious and keeps nothing off the board."""

BOARD = """\
Build a board from a folder of submissions (*.json and the files that they name): board.json and board.md. The same
folder and version give the same bytes. A submission that does not fit is named with its reason and is on no board."""

_LEGEND = (
    "In a tie the difference from the best constant may be chance (paired bootstrap, Holm's correction, {0:g}); its "
    "{1:.0%} interval stands in brackets. Suspicious choices are nearer to the oracle than a router often gets: "
    "compare them with the router's choices on new questions."
)

_OF_MODELS = (
    "Models that were sent beside those of the version. A rank is 1 + the models that are better beyond chance (paired "
    "bootstrap, Holm's correction, {0:g}), so ties share one; a model that lacks a score has none. A cost is by the "
    "version's prices, else as its sender states; suspicious ones are explained by check and in board.json."
)

CODES = "exit codes: 0 it fits, or all do; 1 it does not, or some do not: each is named; 2 the input is wrong"


def check(script: str, argv: Sequence[str]) -> int:
    parser = Parser(script, "check", description=CHECK, epilog=CODES)
    parser.add_argument("file", metavar="FILE", type=Path, help="a submission")
    parser.add_argument("--version", metavar="URI", required=True, help="the published version that it is for")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    from collectors.routers.checking import PublishedBasis, lines_of
    from collectors.routers.open_board import is_taken, taken_line
    from collectors.routers.submissions import read_submission

    version = PublishedBasis(args.version)
    submission = read_submission(args.file)
    found = version.examine(submission)
    if args.file.suffix == ".json" and is_taken(submission.name):  # choices alone state no name
        found.faults.insert(0, taken_line(submission.name))
    lines = lines_of(found, version)
    if args.json:
        print(json.dumps({"fits": not found.faults, "lines": lines, "faults": found.faults}, indent=1))
    else:
        for line in (*lines, *found.faults):
            print(visible(line))
    if found.faults:
        many = len(found.faults)
        print(f"{args.file}: it does not fit: {many} fault{'s' * (many > 1)}", file=sys.stderr)
        return 1
    print(f"{args.file}: it fits the board of version {version.version}", file=sys.stderr)
    return 0


def board(script: str, argv: Sequence[str]) -> int:
    parser = Parser(script, "board", description=BOARD, epilog=CODES)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the submissions")
    parser.add_argument("--version", metavar="URI", required=True, help="the published version that they are for")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for board.json and board.md")
    args = parser.parse_args(argv)
    from collectors.routers.checking import PublishedBasis
    from collectors.routers.open_board import as_json, build

    version = PublishedBasis(args.version)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {args.out}: {error.strerror}") from error
    made = build(args.folder, version)
    text = _markdown(made, version.version)
    write_file(args.out / "board.json", as_json(made, version))
    write_file(args.out / "board.md", text.encode())
    print(text, end="")
    for name, why in sorted(made.refused.items()):
        print(f"publish: {visible(name)}: {visible('; '.join(why))}", file=sys.stderr)
    print(f"→ {args.out / 'board.json'}, {args.out / 'board.md'}", file=sys.stderr)
    return 1 if made.refused else 0


def _markdown(made: OpenBoard, version: str) -> str:
    from collectors.metrics.resampling import LEVEL
    from collectors.routers.open_board import models_for_people, rows_for_people

    legend = _LEGEND.format(LEVEL, 1 - LEVEL)
    parts = [f"# Board of version {version}"]
    for basis, standings, found in made.boards:
        parts.append(
            f"## {_titled(basis, 'Pool')}\n\n"
            f"{len(basis.questions.pool.candidates):,} candidates, {len(basis.fold.test):,} test questions. "
            f"{legend}\n\n" + markdown_table(rows_for_people(standings, found))
        )
    for basis, ranking in made.models:
        notes = "".join(f" {visible(note[:1].upper() + note[1:])}." for note in ranking.notes)
        parts.append(
            f"## {_titled(basis, 'Models, pool')}\n\n{len(basis.fold.test):,} test questions. "
            f"{_OF_MODELS.format(LEVEL)}{notes}\n\n" + markdown_table(models_for_people(ranking))
        )
    if made.refused:
        rows = [{"file": name, "why": "; ".join(why)} for name, why in sorted(made.refused.items())]
        parts.append("## On no board\n\n" + markdown_table(rows))
    return "\n\n".join(parts) + "\n"


def _titled(basis: Basis, what: str) -> str:
    pool, split = basis.pool or "of all candidates", basis.split or "none: all questions"
    return f"{what} {pool}, {basis.include} records, split {split}"
