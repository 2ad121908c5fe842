#!/usr/bin/env -S python3 -P
"""Trains routers, lets them choose, and ranks them on a lake or published version. See --help and the README.

Owns the options and the output. collectors/routers/ has the routers and the board.
"""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from collectors.lake.store import Lake
from pipelines.console.board_shown import print_board, write_board
from pipelines.console.pool_options import add_pool, options_of, pool_of
from pipelines.console.rows_out import add_format
from pipelines.console.script import Parser, write_file
from schemas.failures import ConfigError, RouterlakeError, one_line

if TYPE_CHECKING:
    from collectors.metrics.splits import OwnSplit
    from collectors.routers.boards import Runner
    from collectors.routers.questions import Questions
    from collectors.routers.registry import RouterSpec

DESCRIPTION = """\
Train routers, let them choose, and rank them.

  board    train routers on training questions and rank them on test questions, with what is more than chance
  fit      train one router and keep it
  choose   let a kept router choose, for `matrix.py score`
  split    store a split of the questions in the lake
  scaling  draw how routers do in pools of 3 to 1,000 candidates
  list     list the routers that are shipped, with their sources

A router of your own is a class in any module: name it module:Class. It is run in a process of its own; one that raises,
chooses what is not in the pool, answers NaN or takes too long costs its own row alone."""

EPILOG = """\
examples:
  python pipelines/route.py board --lake /data/lake --out board
  python pipelines/route.py board --lake /data/lake --out board --routers mine.yaml --split task
  python pipelines/route.py fit --lake /data/lake --router knn --out kept && \\
  python pipelines/route.py choose --lake /data/lake --kept kept --out choices.csv
  python pipelines/route.py split --lake /data/lake --seed 1

exit codes: 0 done; 1 a router failed, or has no row (it is named); 2 the input is wrong"""

RULES = ("content", "task", "time", "model")


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(sys.argv[1:] if argv is None else list(argv))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        code: int = args.run(args)
        return code
    except (RouterlakeError, duckdb.Error) as error:
        print(f"route: {one_line(error)}", file=sys.stderr)
        return 1 if _is_of_a_router(error) else 2


def _is_of_a_router(error: Exception) -> bool:
    from collectors.routers.contract import RouterFailed  # numpy takes a while

    return isinstance(error, RouterFailed)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(__file__, description=DESCRIPTION, epilog=EPILOG)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser)

    def command(name: str, run: Callable[[argparse.Namespace], int], line: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=line, description=line)
        added.set_defaults(run=run)
        return added

    def of_lake(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added.add_argument("--lake", metavar="URI", default="./lake", help="a lake or version (default: %(default)s)")
        added.add_argument("--task", nargs="+", metavar="T", help="tasks (default: all)")
        add_pool(added)
        return added

    board = of_lake(command("board", run_board, "train routers and rank them"))
    board.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder: board.json, pictures, trials")
    _add_routers(board)
    _add_split(board)
    board.add_argument("--seeds", type=_number(1, 100), default=5, metavar="N", help="splits and seeds (default: 5)")
    board.add_argument("--stored", nargs="+", metavar="NAME", help="splits that the lake holds, in place of --split")
    board.add_argument("--seconds", type=_number(1, 10**6), metavar="S", help="most seconds of a router on one fold")
    _add_runner(board)
    board.add_argument("--quiet", action="store_true", help="no line for each trial")
    add_format(board, "a table")
    fit = of_lake(command("fit", run_fit, "train one router on a lake's questions and keep it"))
    fit.add_argument("--router", default="knn", metavar="NAME", help="a shipped router, or module:factory")
    fit.add_argument("--routers", type=Path, metavar="YAML", help="a file with --router's parameters")
    fit.add_argument("--encoder", default="tfidf", metavar="E", help="tfidf, minilm, none or a folder")
    fit.add_argument("--stored", metavar="NAME", help="only the training questions of a split that the lake holds")
    fit.add_argument("--seed", type=_number(0, 2**31), default=0, metavar="N")
    fit.add_argument("--out", type=Path, metavar="DIR", required=True, help="a new folder for the router")
    choose = of_lake(command("choose", run_choose, "let a kept router choose, for matrix.py score"))
    choose.add_argument("--kept", type=Path, metavar="DIR", required=True, help="what fit wrote")
    choose.add_argument(
        "--allow-code", action="store_true", help="also where another machine wrote it: loading it may run any code"
    )
    choose.add_argument("--stored", metavar="NAME", help="only the test questions of a split that the lake holds")
    choose.add_argument("--out", type=Path, metavar="FILE", required=True, help="choices as CSV")
    split = of_lake(command("split", run_split, "store a split of the questions in the lake"))
    _add_split(split)
    split.add_argument("--seed", type=_number(0, 2**31), default=0, metavar="N", help="(default: %(default)s)")
    scaling = of_lake(command("scaling", run_scaling, "draw how routers do in pools of 3 to 1,000 candidates"))
    scaling.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder: scaling.json, scaling.png")
    _add_routers(scaling)
    _add_split(scaling)
    scaling.add_argument("--draws", type=_number(1, 100), default=3, metavar="N", help="random pools of a size")
    _add_runner(scaling)
    command("list", run_list, "list the routers that are shipped, with their sources")
    return parser.parse_args(argv)


def _add_routers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--routers", type=Path, metavar="YAML", help="a file that lists routers")
    parser.add_argument("--router", nargs="+", metavar="NAME", help="shipped routers, or module:factory (default: all)")
    parser.add_argument("--encoder", default="tfidf", metavar="E", help="tfidf, minilm, none or a folder")


def _add_runner(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--processes",
        type=_number(1, 64),
        default=min(2, os.cpu_count() or 1),
        metavar="N",
        help="trials at once on this machine (default: %(default)s)",
    )
    parser.add_argument(
        "--address", metavar="RAY", help="trials on this Ray cluster; auto inside `ray job submit` (default: here)"
    )


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", choices=RULES, default="content", help="(default: %(default)s)")
    parser.add_argument("--fraction", type=_share, default=0.7, metavar="F", help="share for training (default: 0.7)")
    parser.add_argument(
        "--probes",
        type=_number(20, 1000),
        default=100,
        metavar="N",
        help="answers of an unseen candidate (default: 100)",
    )


# ---- commands


def run_board(args: argparse.Namespace) -> int:
    from collectors.matrix.luck import shown_luck
    from collectors.routers.boards import run_trials
    from collectors.routers.standings import stand

    lake, questions = _questions(args)
    pool = pool_of(args, lake)
    questions.notes.extend(shown_luck(lake, pool.choice, pool.include, set(questions.tasks)))
    routers = _routers(args)
    if args.seconds:
        routers = [replace(one, seconds=float(args.seconds)) for one in routers]
    splits = _splits(args, lake, questions)
    folds = [_fold(split) for split in splits]
    _make(args.out)
    with _runner(args) as runner:
        progress = None if args.quiet else _progress
        trials = run_trials(
            questions, routers, folds, args.out / "trials", runner, path=[os.getcwd()], progress=progress
        )
    board = stand(questions.pool, questions.tasks, questions.groups, routers, folds, trials)
    write_board(args.out, questions, splits, board)
    print_board(args.out, questions, board, args.format)
    return 1 if any(one.failed for one in board.standings) else 0


def run_fit(args: argparse.Namespace) -> int:
    from collectors.routers.kept import fit_and_keep

    lake, questions = _questions(args)
    chosen = [one for one in _routers(args, args.router) if one.name == args.router or not args.routers]
    if not chosen:
        raise ConfigError(f"{args.routers} has no router of the name {args.router}")
    split = _stored(lake, args.stored, questions) if args.stored else None
    lines = fit_and_keep(questions, chosen[0], split, args.out, seed=args.seed, path=[os.getcwd()])
    for line in [*questions.notes, *lines]:
        print(line)
    return 0


def run_choose(args: argparse.Namespace) -> int:
    from collectors.routers.kept import choose_by

    lake, questions = _questions(args)
    split = _stored(lake, args.stored, questions) if args.stored else None
    rows, lines = choose_by(args.kept, questions, split, path=[os.getcwd()], allow_code=args.allow_code)
    import csv
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, ["router", "task", "question", "model"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(args.out, text.getvalue().encode())
    for line in [*questions.notes, *lines]:
        print(line)
    score = ["python", "pipelines/matrix.py", "score", "--choices", str(args.out), "--lake", args.lake]
    print(f"→ {args.out}: {shlex.join([*score, *options_of(args)])}")
    return 0


def run_split(args: argparse.Namespace) -> int:
    from collectors.routers.questions import check_leaks, split_by, store_split

    lake, questions = _questions(args)
    if lake.is_published():
        raise ConfigError(f"{lake.uri} is published and never changes: split the lake it was made of")
    split = split_by(questions, args.split, args.fraction, args.seed, args.probes)
    check_leaks(split, questions)
    name, is_new = store_split(Lake(args.lake).open_for_writing(), split, questions)
    counts = {part: int((split.parts == part).sum()) for part in ("train", "test", "left_out")}
    shown = ", ".join(f"{count:,} {part.replace('_', ' ')}" for part, count in counts.items() if count)
    groups = len(questions.near) - len(set(questions.near))
    print(f"{name}: {shown} questions; {groups:,} nearly repeat another one and stay with it")
    if split.unseen is not None and split.probes is not None:
        print(f"{int(split.unseen.sum()):,} unseen candidates, each with {int(split.probes.sum()):,} probes")
    print("stored in the lake (view splits)" if is_new else "the lake had it already")
    return 0


def run_scaling(args: argparse.Namespace) -> int:
    from collectors.pictures.router_board import draw_scaling_of_routers
    from collectors.routers.scaling import scale

    _, questions = _questions(args)
    routers = _routers(args, ["best-constant", "knn", "ridge", "avengers"])
    _make(args.out)
    with _runner(args) as runner:
        points, failed = scale(
            questions,
            routers,
            lambda part: _fold(_split_of(args, part, 0)),
            args.out / "trials",
            runner,
            draws=args.draws,
            path=[os.getcwd()],
            progress=_progress,
        )
    task = ", ".join(sorted(set(questions.tasks))[:3])
    title = f"{task}: routers by pool size"
    under = f"{len(questions.ids):,} questions; bands span {args.draws} random pools of a size"
    write_file(args.out / "scaling.png", draw_scaling_of_routers(points, title, under))
    write_file(args.out / "scaling.json", json.dumps(points, indent=1).encode())
    for name, of in points.items():
        print(f"{name}: " + ", ".join(f"{size:,}: {sum(found) / len(found):.4f}" for size, found in sorted(of.items())))
    for line in failed:
        print(f"route: {line}", file=sys.stderr)
    print(f"→ {args.out / 'scaling.png'}")
    return 1 if failed else 0


def run_list(args: argparse.Namespace) -> int:
    from collectors.routers.registry import SHIPPED

    for name, one in SHIPPED.items():
        more = f"; needs {one.needs}" if one.needs else ""
        print(f"{name:<22} {one.source}{more}")
    return 0


# ---- parts of commands


def _questions(args: argparse.Namespace) -> tuple[Lake, Questions]:
    from collectors.routers.questions import load_questions

    lake = Lake(args.lake).open_for_reading()
    return lake, load_questions(lake, pool_of(args, lake), args.task)


def _routers(args: argparse.Namespace, default: Sequence[str] | str | None = None) -> list[RouterSpec]:
    from collectors.routers.encoders import check_encoder
    from collectors.routers.registry import default_routers, read_routers, router_of

    if args.routers:
        routers = read_routers(args.routers)
        names = [args.router] if isinstance(args.router, str) else args.router
        if names and not isinstance(args.router, str):
            routers += [router_of(name, args.encoder, os.getcwd()) for name in names]
    else:
        given = args.router or default
        names = [given] if isinstance(given, str) else given
        routers = (
            [router_of(name, args.encoder, os.getcwd()) for name in names] if names else default_routers(args.encoder)
        )
    if doubled := sorted({one.name for one in routers if [two.name for two in routers].count(one.name) > 1}):
        raise ConfigError(f"two routers have the name {doubled[0]!r}: give each a `name` in a file")
    for encoder in sorted({one.encoder for one in routers}):
        check_encoder(encoder)
    return routers


@contextmanager
def _runner(args: argparse.Namespace) -> Iterator[Runner]:
    """What runs trials: processes of this machine, or the cluster at --address."""
    if args.address:
        from pipelines.fleet.routing import on_cluster  # Ray takes a second

        with on_cluster(args.address) as runner:
            yield runner
    else:
        from collectors.routers.boards import in_processes

        yield in_processes(args.processes)


def _splits(args: argparse.Namespace, lake: Lake, questions: Questions) -> list[OwnSplit]:
    if args.stored:
        return [_stored(lake, name, questions) for name in args.stored]
    return [_split_of(args, questions, seed) for seed in range(args.seeds)]


def _split_of(args: argparse.Namespace, questions: Questions, seed: int) -> OwnSplit:
    from collectors.routers.questions import check_leaks, split_by

    split = split_by(questions, args.split, args.fraction, seed, args.probes)
    check_leaks(split, questions)
    return split


def _stored(lake: Lake, name: str, questions: Questions) -> OwnSplit:
    from collectors.routers.questions import check_leaks, stored_split

    split = stored_split(lake, name, questions)
    check_leaks(split, questions)
    return split


def _fold(split: OwnSplit) -> Any:
    import numpy as np

    from collectors.routers.trial import Fold

    probes = None if split.probes is None else np.flatnonzero(split.probes)
    return Fold(np.flatnonzero(split.train), np.flatnonzero(split.test), split.seed, split.unseen, probes)


def _progress(done: int, total: int, line: str) -> None:
    print(f"{done}/{total} {line}", file=sys.stderr, flush=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: {error.strerror}") from error


def _number(low: int, high: int) -> Callable[[str], int]:
    def parsed(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low:,} to {high:,}, not {text}")
        return int(text)

    return parsed


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, not {text}")
    return value


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
