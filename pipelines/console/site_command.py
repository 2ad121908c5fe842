"""`publish.py site`: a lake or version as static pages.

Owns the options and the output. collectors/website/ has the pages.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from collectors.lake.store import Lake
from collectors.website.building import VERSION, BuiltSite, build_site
from collectors.website.serving import HOST, server
from collectors.website.verifying import first_stray, is_site
from pipelines.console.script import Parser, command
from schemas.failures import ConfigError
from schemas.views import INCLUDED

HELP = """\
Write a lake or published version as a site: static pages that need no server and load nothing from the network.

The pages show models, tasks, questions with every answer, pairs, what is missing, and downloads with their digests. The
same version gives the same bytes. OUT is a new folder, or a site without other files, which is written anew."""

#: In a folder of work: the mark that it is one, the site that is being written, and the one that it replaces.
_MARK, _NEW, _OLD = ".routerlake-site", "new", "old"


def site(script: str, argv: list[str]) -> int:
    """Runs the command; `script` is the file of the script that has it."""
    args = _parse(script, argv)
    if args.out is None:
        return _serve_site(args)
    lake = Lake(args.uri).open_for_reading()
    check_out(args.out, lake)
    started = time.monotonic()
    with building(args.out) as folder:
        built = build_site(
            args.uri, folder, include=args.include, sql=args.sql, before=args.before, board_file=args.board
        )
        link_version(lake, folder, args.out)
        check_out(args.out, lake)  # again: building takes minutes
        _replace(args.out, folder)
    _report(script, args.out, built, time.monotonic() - started)
    return serve(args.out, args.port) if args.serve else 0


def _parse(script: str, argv: list[str]) -> argparse.Namespace:
    parser = Parser(script, "site", description=HELP)
    parser.add_argument(
        "uri", metavar="VERSION_OR_LAKE", help="a version or lake: a folder, s3://… or hf://…; or a written site"
    )
    parser.add_argument(
        "out", metavar="OUT", type=Path, nargs="?", help="the folder to write; without it --serve serves"
    )
    parser.add_argument(
        "--include",
        choices=INCLUDED,
        default="all",
        help="which records: the collected ones, imported ones, or all (default: %(default)s)",
    )
    parser.add_argument(
        "--no-sql",
        dest="sql",
        action="store_false",
        help="leave out what npm brings at the first site: the query page's engine (35 MB), and the reader of answers "
        "where they are too many for a page each question",
    )
    parser.add_argument(
        "--before",
        metavar="URI",
        help="the version before, for the page of changes (default: what the version names, beside it)",
    )
    parser.add_argument(
        "--board",
        metavar="JSON",
        type=Path,
        help="board.json of route.py board or publish.py board, for a page of routers and models",
    )
    parser.add_argument("--serve", action="store_true", help=f"serve the site on {HOST} until Ctrl-C")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port of --serve (default: %(default)s)")
    return parser.parse_args(argv)


def _serve_site(args: argparse.Namespace) -> int:
    """`site SITE --serve`: a site that was written before."""
    folder = Path(args.uri)
    if not (args.serve and is_site(args.uri)):
        raise ConfigError("give OUT, the folder to write; or a folder with a site, and --serve")
    return serve(folder, args.port)


def serve(folder: Path, port: int) -> int:
    """Serves the site until it is stopped."""
    try:
        serving = server(folder, port)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot serve on port {port}: {error}; see --port") from error
    with serving:
        print(f"http://{HOST}:{serving.server_port}/ until Ctrl-C", flush=True)
        serving.serve_forever()
    return 0


def check_out(out: Path, lake: Lake) -> None:
    """Raises ConfigError if no site can be written at `out`: something else is there, or it is in the lake."""
    if out.name in ("", ".."):
        raise ConfigError(f"{out} is no name for a new folder: give the site one of its own")
    try:
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise ConfigError(f"{out} is a link or a file: give a folder for the site")
        if out.is_dir() and any(out.iterdir()):
            _check_is_site(out)
        if lake.local and out.resolve().is_relative_to(Path(lake.root).resolve()):
            raise ConfigError(f"{out} is inside the lake: a site needs a place outside it")
        if not out.parent.is_dir():
            raise ConfigError(f"{out.parent} is not a folder")
    except OSError as error:
        raise ConfigError(f"cannot read {out}: {error.strerror}") from error


def _check_is_site(out: Path) -> None:
    """Raises ConfigError if the folder holds files that are not a site's: they would vanish with it."""
    if not is_site(str(out)):
        raise ConfigError(f"{out} holds other files: give a new folder, or one that holds a site")
    try:
        stray = first_stray(out)
    except ConfigError as error:
        raise ConfigError(f"{error}: give a new folder, or one that holds a site") from error
    if stray:
        raise ConfigError(f"{out} holds a file that would be lost: {stray}; move it away first")


@contextlib.contextmanager
def building(out: Path) -> Iterator[Path]:
    """An empty folder that this process alone writes, in one beside `out`: what a killed one left there is cleared.

    Raises ConfigError while another process builds `out`, and where the folder beside it is not ours.
    """
    digest = hashlib.sha256(os.fsencode(out.name)).hexdigest()
    work = out.with_name(f".{out.name[:40]}.{digest[:8]}.site")
    try:
        lock = _locked(work, out)
    except OSError as error:
        raise ConfigError(f"cannot write {work}: {error.strerror}") from error
    try:
        yield work / _NEW
    finally:
        _clear(work)
        (work / _MARK).unlink(missing_ok=True)  # last: without the mark nobody clears what is left
        with contextlib.suppress(OSError):  # it holds what others put there
            work.rmdir()
        os.close(lock)


def _locked(work: Path, out: Path) -> int:
    """A lock on the folder of work, which then holds its mark and an empty folder for the site."""
    while True:
        work.mkdir(exist_ok=True)
        try:
            lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # the process that had it has ended
            continue
        is_ready = False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(work.lstat(), os.fstat(lock)):
                    if any(work.iterdir()) and not (work / _MARK).is_file():
                        raise ConfigError(f"{work} is in the way: move it away first")
                    (work / _MARK).touch()
                    _clear(work)
                    (work / _NEW).mkdir()
                    is_ready = True
                    return lock
        except BlockingIOError:
            raise ConfigError(f"another process writes {out}: wait until it has ended") from None
        finally:
            if not is_ready:
                os.close(lock)


def _clear(work: Path) -> None:
    for name in (_NEW, _OLD):
        shutil.rmtree(work / name, ignore_errors=True)


def _replace(out: Path, folder: Path) -> None:
    """Gives the new site its name. The old one stands aside until then: a kill leaves one or the other."""
    try:
        if out.is_dir():
            out.rename(folder.with_name(_OLD))
        folder.rename(out)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}") from error


def link_version(lake: Lake, folder: Path, out: Path) -> None:
    """Links the version's own files beside the pages, where a folder of this machine has them."""
    if lake.local and lake.is_published():
        target = os.path.relpath(os.path.realpath(lake.root), out.resolve())
        (folder / VERSION).symlink_to(target)


def _report(script: str, out: Path, built: BuiltSite, seconds: float) -> None:
    size = sum(entry["bytes"] for entry in built.files.values())
    print(f"{out}: {len(built.files):,} files, {size / 2**20:,.1f} MiB, in {seconds:.0f} s")
    for note in built.notes:
        print(note)
    what = "SQL and answers" if "static/rows.js" in built.files else "SQL"
    served = f"; for {what}: {command(script, 'site', str(out), '--serve')}" if "static/query.js" in built.files else ""
    print(f"open {out / 'index.html'}{served}")
