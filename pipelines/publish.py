#!/usr/bin/env -S python3 -P
"""Publishes a lake as an immutable version, verifies a copy, and compares versions. See --help and the README."""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from collectors.lake.layout import PUBLISHED_MANIFEST
from collectors.lake.spread import Spread
from collectors.lake.store import Lake
from collectors.matrix.pool_files import read_pool_file
from collectors.publish.card import Description
from collectors.publish.earlier import earlier_versions, named_version
from collectors.publish.manifests import is_version_name
from collectors.publish.publishing import Difference, differences, publish
from collectors.publish.verifying import verify
from collectors.publish.version import PublishedVersion, build_version
from collectors.scratch import scratch
from collectors.website.building import SITE_MANIFEST
from collectors.website.verifying import is_site, verify_site
from pipelines.console.progress import Counter
from pipelines.console.script import Parser, command, in_order
from pipelines.fleet.spreading import add_ray, spread_over
from pipelines.fleet.waiting import Outage, add_patience
from schemas.failures import ConfigError
from schemas.texts import visible, without_key_values
from schemas.views import INCLUDED

HELP = """\
Publish a lake as an immutable version that anyone can cite, check and query in place.

  publish.py --lake L --to URI     write a version below a folder, s3://bucket/prefix or hf://datasets/owner/name
  publish.py verify URI            check that a copy of a version, or of a site, is whole
  publish.py diff URI URI          count added, removed and changed records between versions, by task and model
  publish.py site URI OUT          write a version or lake as static pages that a person browses without a server
  publish.py check FILE            check a router's choices, or a model's records, against a version
  publish.py board FOLDER          build a board of a version from a folder of submissions

A version holds all records, items, models and runs as Parquet, the whole matrix packed, a DuckDB file and its SQL, a
dataset card, a data sheet, croissant.json, CITATION.cff, .zenodo.json, and manifest.json with the SHA-256 of each file
and the provenance of the numbers. The same lake gives the same bytes, and the same name unless you choose one, where it
replaces the same version. Once its manifest is written, a version never changes."""

EPILOG = """\
examples:
  python pipelines/publish.py --lake /data/lake --to /data/published --licence cc-by-4.0 --source gsm8k=mit
  python pipelines/publish.py --lake s3://bucket/lake --to hf://datasets/me/router-matrix --version 1.0.0
  python pipelines/publish.py --lake /data/lake --to /data/published --pools small.yaml
  python pipelines/publish.py verify /data/published/1.0.0
  python pipelines/publish.py diff s3://bucket/published/1.0.0 s3://bucket/published/1.1.0
  python pipelines/publish.py site /data/published/1.0.0 /data/site

exit codes: 0 published, whole, or no difference; 1 the target cannot be written, files differ from the manifest, or the
versions differ; 2 the input is wrong, or the version exists with other content: nothing was written"""


#: Label of the digest that proves a version: the manifest holds the digests of all other files.
MANIFEST_SAYS = "SHA-256 of manifest.json:"


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        names = ", ".join(COMMANDS)
        print(f"publish: unknown command {arguments[0]!r}: use {names}, or the options in --help", file=sys.stderr)
        return 2
    work = COMMANDS[arguments.pop(0)] if arguments and arguments[0] in COMMANDS else publish_lake
    return in_order(__file__, lambda: work(arguments))


# ---- publish


def publish_lake(argv: list[str]) -> int:
    args = parse(argv)
    lake = Lake(args.lake).open_for_reading()
    check_place(args.to, lake)
    with spread_over(args.ray) as spread:
        return publish_as(args, lake, spread)


def publish_as(args: argparse.Namespace, lake: Lake, spread: Spread | None) -> int:
    started = time.monotonic()
    stated = (args.title, args.text, args.licence, dict(args.source), args.creator, args.url)
    title, text, licence, sources, creators, url = (without_key_values(value) for value in stated)
    description = Description(title, text, licence, sources, tuple(creators), url)
    outage = Outage(args.patience, "--patience")
    pools = [read_pool_file(path) for path in args.pools]
    with scratch("publish-") as folder:
        earlier = outage.result(lambda: [named_version(args.previous)] if args.previous else earlier_versions(args.to))

        def build() -> PublishedVersion:
            place = Path(tempfile.mkdtemp(dir=folder))  # a build that failed half-way left files
            progress = Counter("files of records written")
            return build_version(lake, place, description, args.version, progress, args.include, pools, earlier, spread)

        built = outage.result(build)
        uri, is_new = outage.result(lambda: publish(built, args.to, Counter("files published")))
        size = sum(entry["bytes"] for entry in built.files.values())
        what = f"in {time.monotonic() - started:.0f} s" if is_new else "published before and whole: nothing was written"
        print(f"{uri}: {len(built.files)} files, {size / 2**20:,.1f} MiB, {what}")
        counts = built.manifest["counts"].items()
        print(", ".join(f"{count:,} {name}" for name, count in counts if count or "left out" not in name))
        if previous := built.manifest.get("previous"):
            print(f"it replaces version {previous['version']}")
        for pool in pools:
            print(f"pool {pool.name} ({pool.digest}): --pool @{pool.name}")
        print(f"{MANIFEST_SAYS} {built.manifest_sha256}")
    print(f"next: {command(__file__, 'verify', uri)}")
    return 0


def check_place(to: str, lake: Lake) -> None:
    """Raises ConfigError if no version can be written below `to`, before minutes of work are spent."""
    if not to.strip("/"):
        raise ConfigError("--to is empty: give a folder, s3://… or hf://datasets/OWNER/NAME")
    if to.startswith("hf://"):
        return
    place = Lake(to)
    if f"{place.uri}/".startswith(f"{lake.uri}/"):
        raise ConfigError(f"--to {to} is inside the lake: a version needs a place outside it")
    if place.local:
        there = next(path for path in (Path(place.root), *Path(place.root).parents) if os.path.lexists(path))
        if not there.is_dir():
            raise ConfigError(f"--to {to}: {there} is not a folder")
    if place.is_published():
        raise ConfigError(f"--to {to} is itself a published version, which never changes: give the folder above it")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(__file__, description=HELP, epilog=EPILOG)
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake to publish (default: %(default)s)")
    parser.add_argument("--to", metavar="URI", required=True, help="where to write: the version gets a folder below it")
    parser.add_argument(
        "--include",
        choices=INCLUDED,
        default="collected",
        help="which records: the collected ones, the ones that ingest.py imported, or all (default: %(default)s); "
        "check that the sources' licences allow it",
    )
    parser.add_argument(
        "--pools",
        nargs="+",
        default=[],
        metavar="YAML",
        help="files of pools to keep in the version: commands take them by --pool @NAME, and papers cite them",
    )
    parser.add_argument(
        "--version",
        type=version,
        help="name of the version (default: the newest run's day and a digest of the content)",
    )
    parser.add_argument(
        "--title", type=line, default=Description.title, help="title of the data set (default: %(default)s)"
    )
    parser.add_argument("--text", default="", help="introduction of the dataset card, in Markdown")
    parser.add_argument(
        "--licence",
        type=line,
        help="licence of the records, such as cc-by-4.0 (default: the card notes that none is stated)",
    )
    parser.add_argument(
        "--source",
        metavar="NAME=LICENCE",
        type=source,
        action="append",
        default=[],
        help="a source of prompts or answers and its licence, for the card; repeat for each source",
    )
    parser.add_argument(
        "--creator",
        metavar="NAME",
        type=line,
        action="append",
        default=[],
        help="who made the data set, as 'Family, Given' or an organisation's name, for citations; repeat for each",
    )
    parser.add_argument(
        "--url",
        type=web_address,
        help="web address at which the folder of --to is served: croissant.json then names each file by its own, which "
        "mlcroissant reads from there",
    )
    parser.add_argument(
        "--previous",
        metavar="URI",
        help="the version that this one replaces (default: the newest one at --to whose runs are not newer)",
    )
    add_ray(parser)
    add_patience(parser)
    return parser.parse_args(argv)


def web_address(text: str) -> str:
    """The argument of --url."""
    if not re.fullmatch(r"https?://[^\s/?#@<>\\]+(/[^\s?#<>\\]*)?", line(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not http://… or https://… without user, query and fragment")
    return text.rstrip("/")


def version(text: str) -> str:
    """The argument of --version, which has to be valid as a folder name and as a git tag."""
    if not is_version_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot name a version: use letters, digits, '.', '_' and '-'")
    return text


def line(text: str) -> str:
    """An argument that becomes one line of the card."""
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} must be one line of printable text")
    return text


def source(text: str) -> tuple[str, str]:
    """An argument of --source."""
    name, equals, licence = line(text).partition("=")
    if not (name and equals and licence):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=LICENCE")
    return name, licence


# ---- verify and diff


def verify_copy(argv: list[str]) -> int:
    parser = Parser(__file__, "verify", description="Check that a copy of a version, or of a site, is whole.")
    parser.add_argument(
        "uri", metavar="URI", help="a version: a folder, s3://… or hf://datasets/owner/name@version; or a site"
    )
    add_patience(parser)
    args = parser.parse_args(argv)
    is_of_pages = is_site(args.uri)
    check = (
        (lambda: verify_site(Path(args.uri), Counter("files read")))
        if is_of_pages
        else (lambda: verify(args.uri, Counter("files read")))
    )
    proof = Outage(args.patience, "--patience").result(check)
    for fault in proof.faults:
        print(visible(fault))
    if proof.faults:
        print(f"{args.uri}: not whole: {len(proof.faults)} faults in {proof.files} files", file=sys.stderr)
        return 1
    print(f"{args.uri}: whole: {proof.files} files, {proof.bytes:,} bytes, each as in the manifest")
    for note in proof.notes:
        print(f"note: {visible(note)}")
    says = MANIFEST_SAYS.replace(PUBLISHED_MANIFEST, SITE_MANIFEST) if is_of_pages else MANIFEST_SAYS
    print(f"{says} {proof.manifest_sha256}: compare it with the publisher's, and cite it")
    return 0


def show_differences(argv: list[str]) -> int:
    parser = Parser(__file__, "diff", description="Count records that came, went or changed between two versions.")
    parser.add_argument("first", metavar="URI", help="the earlier version")
    parser.add_argument("second", metavar="URI", help="the later version")
    args = parser.parse_args(argv)
    changes = differences(args.first, args.second)
    if not changes:
        print("no difference in the records")
        return 0
    print(in_all(changes))
    print(f"{'came':>12} {'went':>12} {'retracted':>12} {'changed':>12}  records of task, model")
    for row in changes:
        print(f"{row.came:>12,} {row.went:>12,} {row.retracted:>12,} {row.changed:>12,}  {row.task}, {row.model}")
    return 1


def in_all(changes: Sequence[Difference]) -> str:
    """One line of totals."""
    came, went, retracted, changed = (
        sum(getattr(row, name) for row in changes) for name in ("came", "went", "retracted", "changed")
    )
    tasks, models = len({row.task for row in changes}), len({row.model for row in changes})
    of_them = f", {retracted:,} of them retracted" if retracted else ""
    return (
        f"{came:,} records came, {went:,} went{of_them}, {changed:,} changed: "
        f"{models:,} model{'s' * (models > 1)} on {tasks:,} task{'s' * (tasks > 1)}"
    )


def write_site(argv: list[str]) -> int:
    from pipelines.console.site_command import site

    return site(__file__, argv)


def check_submission(argv: list[str]) -> int:
    from pipelines.console.submissions_shown import check

    return check(__file__, argv)


def build_board(argv: list[str]) -> int:
    from pipelines.console.submissions_shown import board

    return board(__file__, argv)


COMMANDS = {
    "verify": verify_copy,
    "diff": show_differences,
    "site": write_site,
    "check": check_submission,
    "board": build_board,
}


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
