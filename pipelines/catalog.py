#!/usr/bin/env -S python3 -P
"""Lists models of the Hugging Face Hub in a lake, with the metadata of each. See --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.models.hub_catalog import RecordedModels, Update, find, installed_vllm, state_support, update
from collectors.models.hub_listing import SORTS, Query, parameters, read_names
from pipelines.console.lake_shown import show_catalog
from pipelines.console.plain_console import stdout_console
from pipelines.console.progress import LiveLine
from pipelines.console.script import Parser
from schemas.failures import ConfigError, RouterlakeError

if TYPE_CHECKING:
    from collectors.models.hub_client import Hub

logger = logging.getLogger("catalog")

#: How many unreadable models are printed by name. The view `models` has them all.
MOST_NAMES = 10

DESCRIPTION = """\
List models of the Hugging Face Hub in a lake. Each is pinned to a commit and described: parameters, architecture,
whether vLLM supports it, dtype, context, licence, base model, downloads, size, quantization, and digests of weights,
tokenizer and chat template. No weights are downloaded; only the headers of safetensors files are read.

Models come from a query, from a file of names, or from both. With neither, the command shows the models that the lake
holds. The view models explains why a config's catalog would skip a model: adapters, GGUF files, quantized copies,
copies of another model's weights, older revisions, classes that vLLM lacks, files that cannot be downloaded.

A second run asks the Hub for the listing alone: a model whose newest commit is in the lake costs no request. You may
kill the command at any moment and run it again to continue. It takes a token from HF_TOKEN and the address of another
hub from HF_ENDPOINT."""

EPILOG = """\
examples:
  python pipelines/catalog.py --lake /data/lake --min-downloads 1000 --max-parameters 15B
  python pipelines/catalog.py --lake /data/lake --author allenai --licence apache-2.0
  python pipelines/catalog.py --lake /data/lake --names my-models.txt --newest
  python pipelines/catalog.py --lake /data/lake                       # show the models in the lake
  python pipelines/matrix.py --lake /data/lake --sql "SELECT model, skipped, skipped_because FROM models"

then, in a config of collect.py:
  models:
    - catalog: parameters < 15e9 AND downloads >= 1000 AND NOT gated

exit codes: 0 done; 1 some models failed (they are named) or the hub did not answer: run it again; 2 the input is wrong
and nothing was written; 130 stopped by hand"""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("catalog", "collectors.models.hub_catalog", "pipelines.console.progress"):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        return run(args)
    except ConfigError as error:
        print(f"catalog: {error}", file=sys.stderr)
        return 2
    except RouterlakeError as error:
        print(
            f"catalog: {error}\nEverything read so far is in the lake; run the same command to continue.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\nstopped; everything read so far is in the lake: run the same command to continue", file=sys.stderr)
        return 130


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__file__, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake (default: %(default)s)")
    query = parser.add_argument_group("query (every condition holds)")
    query.add_argument("--search", metavar="TEXT", help="text in the name")
    query.add_argument("--author", metavar="NAME", help="user or organization")
    query.add_argument(
        "--pipeline-tag",
        metavar="TAG",
        default="text-generation",
        help="what the hub says a model is for, or any (default: %(default)s)",
    )
    query.add_argument("--min-downloads", type=whole, metavar="N", help="downloads of the last 30 days")
    query.add_argument(
        "--max-parameters", type=size, metavar="N", help="such as 15B; skips models whose size the hub does not know"
    )
    query.add_argument("--licence", metavar="ID", help="such as apache-2.0")
    query.add_argument("--library", metavar="NAME", help="such as transformers")
    query.add_argument("--sort", choices=SORTS, default="downloads", help="order, highest first (default: %(default)s)")
    query.add_argument("--most", type=whole, metavar="N", help="take only the first N")
    names = parser.add_argument_group("names")
    names.add_argument(
        "--names", type=Path, metavar="FILE", help="a file with one model per line, org/name or org/name@revision"
    )
    names.add_argument(
        "--newest", action="store_true", help="look for newer commits of named models that are in the lake already"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--again",
        action="store_true",
        help="retry models that could not be read, such as after you accepted their terms",
    )
    how.add_argument("--jobs", type=whole, default=8, metavar="N", help="requests at a time (default: %(default)s)")
    how.add_argument(
        "--patience",
        type=whole,
        default=900,
        metavar="S",
        help="seconds to wait for a hub that does not answer (default: %(default)s)",
    )
    how.add_argument(
        "--dry-run", action="store_true", help="list models and count how many would be read; write nothing"
    )
    return parser.parse_args(argv)


def whole(text: str) -> int:
    """The argument of an option that takes a whole number, at least 1."""
    if not text.isdecimal() or not 1 <= int(text) < 10**12:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")
    return int(text)


def size(text: str) -> str:
    """The argument of --max-parameters."""
    try:
        parameters(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def query_of(args: argparse.Namespace) -> Query | None:
    asked = ("search", "author", "min_downloads", "max_parameters", "licence", "library", "most")
    given = {name: getattr(args, name) for name in asked if getattr(args, name) is not None}
    tag = None if args.pipeline_tag == "any" else args.pipeline_tag
    return Query(**given, pipeline_tag=tag, sort=args.sort) if given else None


def run(args: argparse.Namespace) -> int:
    lake, query = Lake(args.lake), query_of(args)
    names = read_names(args.names) if args.names else []
    if not query and not names:
        if not lake.exists():
            raise ConfigError(
                f"no lake at {lake.uri}: give a query or --names to make one, or name another with --lake"
            )
        show(lake.open_for_reading())
        return 0
    if lake.exists():
        lake.open_for_reading()
    from collectors.models.hub_client import Hub  # 0.2 s, for the Hub's own client

    hub, started = Hub(args.patience), time.monotonic()
    if lake.exists():
        recorded = RecordedModels.of(lake, newest=args.newest, again=args.again)
    else:
        recorded = RecordedModels(newest=args.newest)
    with LiveLine() as line:
        listed, to_read = find(hub, recorded, query, names, lambda seen: line.show(f"listing: {seen:,} models seen"))
        print(f"{len(listed):,} models listed, {len(names):,} named; {len(to_read):,} to read")
        if args.dry_run:
            print("dry run: nothing was written")
            return 0
        lake.open_for_writing()
        begun = time.monotonic()
        done = update(
            hub,
            lake,
            recorded,
            listed,
            to_read,
            jobs=args.jobs,
            progress=lambda now: line.show(progress_line(now, hub, begun)),
        )
    state_support(lake, installed_vllm())
    show(lake)
    print(f"{done.read:,} models read by {hub.requests:,} requests in {time.monotonic() - started:.0f} s")
    return report(done)


def progress_line(now: Update, hub: Hub, begun: float) -> str:
    done = now.read + len(now.failed)
    left = (now.to_read - done) * (time.monotonic() - begun) / done if done else 0
    return (
        f"models {done:,}/{now.to_read:,} not readable {len(now.troubled):,} failed {len(now.failed):,} "
        f"requests {hub.requests:,} eta {left:.0f}s"
    )


def show(lake: Lake) -> None:
    console = stdout_console()
    ask(lake, lambda con, _: show_catalog(con, console), only=["models"])


def report(done: Update) -> int:
    for title, messages in (("cannot be read", done.troubled), ("failed", done.failed)):
        for model, message in list(messages.items())[:MOST_NAMES]:
            print(f"{title}: {model}: {message}")
        if len(messages) > MOST_NAMES:
            print(f"… and {len(messages) - MOST_NAMES:,} more")
    return 1 if done.failed else 0


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
