"""Writes a site into a folder: pages, data, scripts and `site.json`, which names each file with its SHA-256.

Owns the files of a site. The same version gives the same bytes: nothing in them depends on time, place or machine.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collectors.extras import advice
from collectors.file_digests import sha256_of
from collectors.lake.layout import PUBLISHED_MANIFEST
from collectors.lake.store import Lake
from collectors.publish.manifests import open_published
from collectors.publish.whole import check_whole
from collectors.website.database import DATABASE, MOST_ANSWERS, write_database
from collectors.website.extra_pages import BOARD, CHANGES, board, changes
from collectors.website.foretold import FORETOLD, foretold
from collectors.website.many_pages import item_pages, model_pages, task_pages
from collectors.website.pages import single_pages
from collectors.website.question_data import no_answers, notes_of_questions, question_page, question_scripts
from collectors.website.reading import Tables
from collectors.website.rendering import Page, Site, render
from collectors.website.scripts import NoScriptsError, scripts
from schemas.failures import ConfigError
from schemas.texts import visible

#: The list of a site's files.
SITE_MANIFEST = "site.json"
KIND = "routerlake site"
#: Where pages look for the version's own files: a link beside them, which the site does not list.
VERSION = "version"
#: What stands in place of a version's name in the site of a lake.
OF_LAKE = "a lake"
_STATIC = ("site.css", "site.js", "answers.js")
#: The script of the page of all questions, and the one from npm that reads Parquet for it.
_QUESTION, _ROWS = "question.js", "rows.js"
_NAV = [
    ("index.html", "Start"),
    ("leaderboard.html", "Leaderboard"),
    ("heat.html", "Models × tasks"),
    ("pictures.html", "Pictures"),
    ("pairs.html", "Pairs"),
    ("coverage.html", "Coverage"),
    ("query.html", "Query"),
    ("downloads.html", "Downloads"),
]


@dataclass(frozen=True)
class BuiltSite:
    """A site in a folder of this machine."""

    folder: Path
    manifest: dict[str, Any]
    #: Lines for the reader: omissions, each with its reason.
    notes: tuple[str, ...]

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        return dict(self.manifest["files"])


def build_site(
    uri: str,
    folder: Path,
    *,
    include: str = "all",
    sql: bool = False,
    before: str | None = None,
    board_file: Path | None = None,
    progress: Callable[[int], None] = lambda pages: None,
    draw: bool = True,
) -> BuiltSite:
    """Writes the site of the lake or version at `uri` into the empty `folder`.

    `include` is a key of schemas.views.INCLUDED; `sql` brings the query page's engine by npm; `before` is the URI of
    the version before (collectors.website.extra_pages), `board_file` a board.json; `progress` gets the number of
    written pages; `draw` is whether to make pictures. What this machine lacks the programs for is left out and named.
    Raises ConfigError for a lake without records.
    """
    lake = Lake(uri).open_for_reading()
    manifest = digest = None
    if lake.is_published():
        _, manifest = open_published(lake.uri)
        check_whole(lake, manifest)
        digest = hashlib.sha256(lake.read(PUBLISHED_MANIFEST)).hexdigest()
    changed, no_changes = changes(lake, manifest, before)
    version = str(manifest["version"]) if manifest else None
    extra = [page for page in (changed, board(board_file, version) if board_file else None) if page]
    writer = _Writer(folder)
    write_database(uri, folder / DATABASE, include)
    writer.sign(DATABASE)
    tables = Tables(folder / DATABASE)
    try:
        has_items = tables.row("SELECT count(*) AS n FROM matrix")["n"] <= MOST_ANSWERS
        notes = [*no_changes, *(writer.add_scripts(has_items) if sql else ())]
        if not has_items:
            why_not = no_answers(lake, manifest, include, has_reader=f"static/{_ROWS}" in writer.files)
            notes += notes_of_questions(lake, include, why_not)
            extra.append(question_page(why_not))
            for name, text in question_scripts(tables, lake, None if why_not else manifest, include):
                writer.write(name, text.encode())
        drawn, no_pictures = _draw(lake, include, tables, writer) if draw else ([], [])
        extra += [page for page in [foretold(tables)] if page]
        site = _site(manifest, digest, [page.address for page in extra], has_sql="static/query.js" in writer.files)
        pages = _pages(tables, manifest, writer.entry(DATABASE), has_items, site.has_sql, drawn)
        for number, page in enumerate(itertools.chain(extra, pages), 1):
            writer.write_page(site, page)
            progress(number)
    finally:
        tables.close()
    for name in _STATIC if has_items else (*_STATIC, _QUESTION):
        static = importlib.resources.files("collectors.website").joinpath("static").joinpath(name)
        writer.write(f"static/{name}", static.read_bytes())
    files = dict(sorted(writer.files.items()))
    value = {"kind": KIND, "version": site.version, "manifest_sha256": digest, "files": files}
    (folder / SITE_MANIFEST).write_bytes(json.dumps(value, indent=1, sort_keys=True).encode())
    return BuiltSite(folder, value, (*notes, *no_pictures))


def _draw(lake: Lake, include: str, tables: Tables, writer: _Writer) -> tuple[list[dict[str, str]], list[str]]:
    """The pictures, and why there are none."""
    tasks = [row["task"] for row in tables.rows("SELECT DISTINCT task FROM cells ORDER BY task")]
    size = tables.row("SELECT (SELECT count(*) FROM questions) * (SELECT count(*) FROM overall) AS elements")
    try:
        from collectors.website.drawings import draw_all  # 0.4 s, matplotlib

        return draw_all(lake, include, tasks, size["elements"], writer.write), []
    except ModuleNotFoundError as error:
        return [], [f"pictures are left out: {advice(error) or error}"]


def _site(manifest: Mapping[str, Any] | None, digest: str | None, extra: Sequence[str], *, has_sql: bool) -> Site:
    description = (manifest or {}).get("description", {})
    version = f"version {manifest['version']}" if manifest else OF_LAKE
    title = description.get("title") or "Router benchmark matrix"
    licence = description.get("licence")
    nav = [*_NAV[:-2], *(one for one in (FORETOLD, BOARD, CHANGES) if one[0] in extra), *_NAV[-2:]]
    return Site(visible(title), visible(version), licence and visible(licence), digest, nav, has_sql)


def _pages(
    tables: Tables,
    manifest: Mapping[str, Any] | None,
    database: tuple[int, str],
    has_items: bool,
    has_sql: bool,
    drawn: Sequence[dict[str, str]],
) -> Iterator[Page]:
    yield from single_pages(tables, manifest, database, has_sql, drawn)
    yield from task_pages(tables, has_items, drawn)
    yield from model_pages(tables)
    if has_items:
        yield from item_pages(tables)


class _Writer:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty: give a folder of its own for the site")
        folder.mkdir(parents=True, exist_ok=True)
        self.files: dict[str, dict[str, Any]] = {}
        self._made: set[Path] = set()

    def write_page(self, site: Site, page: Page) -> None:
        self.write(page.address, render(site, page))
        for table in page.tables:
            if table.has_more:
                self.write(f"data/{table.name}.js", table.script().encode())

    def _place(self, name: str) -> Path:
        path = self.folder / name
        if path.parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        return path

    def write(self, name: str, data: bytes) -> None:
        self._place(name).write_bytes(data)
        self.files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    def add_scripts(self, has_items: bool) -> Iterator[str]:
        """Adds the query page's engine, and what reads answers where they have no pages; yields why there is none."""
        try:
            found = scripts()
        except NoScriptsError as error:
            yield f"the query page cannot ask: {error}"
            return
        for name, path in found.items():
            if has_items and name == _ROWS:
                continue
            shutil.copyfile(path, self._place(f"static/{name}"))
            self.sign(f"static/{name}")

    def sign(self, name: str) -> None:
        sha256 = sha256_of(self.folder / name)
        self.files[name] = {"sha256": sha256, "bytes": os.stat(self.folder / name).st_size}

    def entry(self, name: str) -> tuple[int, str]:
        return self.files[name]["bytes"], self.files[name]["sha256"]
