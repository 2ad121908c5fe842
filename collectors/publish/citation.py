"""How to cite a published version: BibTeX, CITATION.cff and the metadata that Zenodo reads.

Owns the three forms. A value that the publisher did not state is left out, or named as not stated where a format
demands it. CITATION.cff follows the Citation File Format 1.2.0, `.zenodo.json` the metadata of Zenodo's deposits.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any
from urllib.parse import quote

import yaml

from collectors.publish.card import TEXT, Contents, Description

CITATION = "CITATION.cff"
ZENODO = ".zenodo.json"

_KEYWORDS = ["LLM routing", "evaluation", "language models"]


def address(description: Description, contents: Contents) -> str | None:
    """The web address of the version's folder, with a slash at its end; None if the publisher stated none."""
    return f"{description.url.rstrip('/')}/{quote(contents.version)}/" if description.url else None


def bibtex(description: Description, contents: Contents) -> str:
    """An entry for the version."""
    created = contents.provenance["created"]
    fields = {
        "author": " and ".join(map(_named, description.creators)),
        "title": f"{{{_plain(description.title)}}}",
        "year": created[:4],
        "version": _plain(contents.version),
        "url": address(description, contents) or "",
        "note": "routerlake published version",
    }
    key = re.sub(r"[^a-z0-9]+", "-", f"{description.title}-{contents.version}".lower()).strip("-")
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items() if value)
    return f"@misc{{{key},\n{lines}}}"


def _named(name: str) -> str:
    """An author: braces keep an organisation, and a name with an " and " in it, from being taken apart."""
    is_person = "given-names" in author(name) and name.count(",") <= 2 and not re.search(r"\sand\s", name, re.I)
    return _plain(name) if is_person else f"{{{_plain(name)}}}"


def _plain(text: str) -> str:
    """The text without what BibTeX reads as markup."""
    return re.sub(r"([#$%&_])", r"\\\1", re.sub(r"[{}\\~^]", " ", text))


def citation(description: Description, contents: Contents) -> bytes:
    """CITATION.cff."""
    value: dict[str, Any] = {
        "cff-version": "1.2.0",
        "message": "If you use this data set, please cite it with its version.",
        "type": "dataset",
        "title": description.title,
        "abstract": description.text or TEXT,
        "authors": [author(name) for name in description.creators] or [{"name": "not stated"}],
        "version": contents.version,
        "date-released": contents.provenance["created"][:10],
        "keywords": _KEYWORDS,
    }
    if spdx := _SPDX.get((description.licence or "").lower()):
        value["license"] = spdx
    if base := address(description, contents):
        value["url"] = base
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()


def author(name: str) -> dict[str, str]:
    """A person where the name has a comma, else an organisation."""
    family, comma, given = (part.strip() for part in name.partition(","))
    return {"family-names": family, "given-names": given} if comma and given else {"name": name}


def zenodo(description: Description, contents: Contents) -> bytes:
    """.zenodo.json. Its description is HTML there, so each text is escaped."""
    value: dict[str, Any] = {
        "title": description.title,
        "upload_type": "dataset",
        "description": f"<p>{html.escape(description.text or TEXT)}</p>",
        "version": contents.version,
        "publication_date": contents.provenance["created"][:10],
        "keywords": _KEYWORDS,
        "notes": f"<p>{html.escape(_licences(description))}</p>",
    }
    if description.creators:
        value["creators"] = [{"name": name} for name in description.creators]
    if spdx := _SPDX.get((description.licence or "").lower()):
        value["license"] = spdx.lower()
    if description.url and contents.previous:
        before = f"{description.url.rstrip('/')}/{quote(contents.previous.version)}/"
        value["related_identifiers"] = [{"identifier": before, "relation": "isNewVersionOf", "scheme": "url"}]
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _licences(description: Description) -> str:
    sources = "; ".join(f"{name}: {licence}" for name, licence in (description.sources or {}).items())
    return f"Licence of the records: {description.licence or 'not stated'}. Sources: {sources or 'not stated'}."


#: A licence as the hub names it -> its SPDX identifier. Any other text stands in the notes alone.
_SPDX = {
    name.lower(): name
    for name in (
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC-BY-2.0",
        "CC-BY-2.5",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-NC-2.0",
        "CC-BY-NC-3.0",
        "CC-BY-NC-4.0",
        "CC-BY-NC-ND-4.0",
        "CC-BY-NC-SA-3.0",
        "CC-BY-NC-SA-4.0",
        "CC-BY-ND-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "CC0-1.0",
        "CDLA-Permissive-1.0",
        "CDLA-Permissive-2.0",
        "CDLA-Sharing-1.0",
        "GPL-3.0-only",
        "MIT",
        "MPL-2.0",
        "ODbL-1.0",
        "PDDL-1.0",
        "Unlicense",
    )
}
