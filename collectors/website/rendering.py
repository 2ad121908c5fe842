"""From templates to the bytes of a page.

Owns the environment of the templates. Everything is escaped; no template marks a text as safe.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collectors.website import tables
from collectors.website.tables import Table


@dataclass(frozen=True)
class Site:
    """What each page names of its site."""

    title: str
    version: str
    licence: str | None
    manifest_sha256: str | None
    #: Addresses and labels of the pages that every page links to.
    nav: Sequence[tuple[str, str]]
    #: Whether the query page can ask.
    has_sql: bool = True


@dataclass(frozen=True)
class Page:
    """A page and its tables; empty ones do not show."""

    address: str
    title: str
    lead: Sequence[str] = ()
    tables: Sequence[Table] = ()
    #: Links above the title.
    above: Sequence[tuple[str, str]] = ()
    numbers: Sequence[Mapping[str, Any]] = ()
    stated: Sequence[tuple[str, Any]] = ()
    links: Sequence[tuple[str, str]] = ()
    drawn: Sequence[Mapping[str, str]] = ()
    template: str = "page.html"
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return "../" * self.address.count("/")


def render(site: Site, page: Page) -> bytes:
    fields = {name: getattr(page, name) for name in _OF_PAGE}
    here = next((address for address, _ in site.nav if address == page.address), "")
    html: str = _template(page.template).render(site=site, root=page.root, here=here, **fields, **page.more)
    return html.encode("utf-8", "replace")


_OF_PAGE = ("title", "lead", "tables", "above", "numbers", "stated", "links", "drawn")


@functools.cache
def _template(name: str) -> Any:
    return _environment().get_template(name)


@functools.cache
def _environment() -> Any:
    import jinja2  # 35 ms

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("collectors.website"),
        autoescape=True,
        finalize=_seen,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {name: getattr(tables, name) for name in _FUNCTIONS} | {"unknown": tables.UNKNOWN}
    return environment


def _seen(value: Any) -> Any:
    """Each text that a template writes, before it is escaped: what would end it or turn it around is an escape."""
    return tables.plain(value) if type(value) is str else value


_FUNCTIONS = ("shown", "plain", "heat", "query_page", "filled", "fits", "LONGEST_QUERY")
