"""`publish.py site`: a lake or version as static pages.

Owns the options and what is printed. collectors/website/ has the pages.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path

from collectors.atomic import replacing
from collectors.lake.store import Lake
from collectors.website.building import SITE_MANIFEST, VERSION, BuiltSite, build_site
from pipelines.console.script import Parser
from schemas.failures import ConfigError
from schemas.views import INCLUDED

HELP = """\
Write a lake or published version as a site: static pages that need no server and load nothing from the network.

The pages show models, tasks, questions with every answer, pairs, what is missing, and downloads with their digests. The
same version gives the same bytes. OUT is a new folder, or a site that is written anew."""


def site(script: str, argv: list[str]) -> int:
    """Runs the command; `script` is the file of the script that has it."""
    args = _parse(script, argv)
    lake = Lake(args.uri).open_for_reading()
    check_out(args.out, lake)
    started = time.monotonic()
    with replacing(args.out) as folder:
        built = build_site(args.uri, folder, include=args.include)
        link_version(lake, folder, args.out)
        if args.out.is_dir():
            shutil.rmtree(args.out)
    _report(args.out, built, time.monotonic() - started)
    return 0


def _parse(script: str, argv: list[str]) -> argparse.Namespace:
    parser = Parser(script, "site", description=HELP)
    parser.add_argument("uri", metavar="VERSION_OR_LAKE", help="a version or lake: a folder, s3://… or hf://…")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write")
    parser.add_argument(
        "--include",
        choices=INCLUDED,
        default="all",
        help="which records: the collected ones, imported ones, or all (default: %(default)s)",
    )
    return parser.parse_args(argv)


def check_out(out: Path, lake: Lake) -> None:
    """Raises ConfigError if no site can be written at `out`: something else is there, or it is in the lake."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"{out} is a link or a file: give a folder for the site")
    if out.is_dir() and any(out.iterdir()) and not (out / SITE_MANIFEST).is_file():
        raise ConfigError(f"{out} holds other files: give a new folder, or one that holds a site")
    if lake.local and out.resolve().is_relative_to(Path(lake.root).resolve()):
        raise ConfigError(f"{out} is inside the lake: a site needs a place outside it")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent} is not a folder")


def link_version(lake: Lake, folder: Path, out: Path) -> None:
    """Links the version's own files beside the pages, where a folder of this machine has them."""
    if lake.local and lake.is_published():
        target = os.path.relpath(os.path.realpath(lake.root), out.resolve())
        (folder / VERSION).symlink_to(target)


def _report(out: Path, built: BuiltSite, seconds: float) -> None:
    size = sum(entry["bytes"] for entry in built.files.values())
    print(f"{out}: {len(built.files):,} files, {size / 2**20:,.1f} MiB, in {seconds:.0f} s")
    for note in built.notes:
        print(note)
    print(f"open {out / 'index.html'}")
