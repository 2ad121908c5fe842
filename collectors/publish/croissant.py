"""The description of a published version for machines, in MLCommons' Croissant 1.1 with its responsible-AI terms.

Owns `croissant.json`. A version without a web address describes its files as sets of names beside croissant.json, which
readers find in a copy of the folder. With an address each file has a URL and its SHA-256, because mlcroissant 1.1.1
reads sets of files from folders and git alone: a table in one file is a record set of its name, and a table in several
files has one record set for each.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from collectors.lake.layout import task_name_of
from collectors.publish.card import TEXT, Contents, Description, imports, present
from collectors.publish.citation import address, author, bibtex
from collectors.publish.datasheet import responsible

_PARQUET = "application/x-parquet"


def croissant(description: Description, contents: Contents) -> bytes:
    """The tables of a version with their files and columns."""
    base = address(description, contents)
    files, sets = _served(contents, base) if base else _beside(contents)
    value = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": "".join(c if c.isascii() and c.isalnum() else "-" for c in description.title.lower()),
        "description": " ".join([description.text or TEXT, *(f"Imported {line}." for line in imports(contents))]),
        "version": contents.version,
        "datePublished": contents.provenance["created"],
        "url": base or ".",
        "license": description.licence or "not stated",
        "citeAs": bibtex(description, contents),
        "keywords": ["LLM routing", "evaluation", "language models"],
        "creator": [
            {"@type": "sc:Person" if "given-names" in author(name) else "sc:Organization", "name": name}
            for name in description.creators
        ],
        **({"isBasedOn": f"version {contents.previous.version}"} if contents.previous else {}),
        **responsible(contents),
        "distribution": list(files),
        "recordSet": list(sets),
    }
    return json.dumps({name: part for name, part in value.items() if part != []}, indent=1).encode()


def _beside(contents: Contents) -> tuple[Iterator[dict[str, Any]], Iterator[dict[str, Any]]]:
    """A file set and a record set for each table."""
    tables = present(contents)
    files = (
        {
            "@type": "cr:FileSet",
            "@id": f"{table}-files",
            "name": f"{table}-files",
            "includes": pattern,
            "encodingFormat": _PARQUET,
        }
        for table, (pattern, *_) in tables.items()
    )
    sets = (
        _record_set(table, schema, doc, {"fileSet": {"@id": f"{table}-files"}})
        for table, (_, schema, doc) in tables.items()
    )
    return files, sets


def _served(contents: Contents, base: str) -> tuple[Iterator[dict[str, Any]], Iterator[dict[str, Any]]]:
    """A file object and a record set for each file."""
    tables = {
        table: (contents.names(pattern), schema, doc) for table, (pattern, schema, doc) in present(contents).items()
    }
    files = (
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": base + quote(name, safe="/="),
            "contentSize": f"{contents.files[name]['bytes']} B",
            "encodingFormat": _PARQUET,
            "sha256": contents.files[name]["sha256"],
        }
        for name in itertools.chain.from_iterable(names for names, *_ in tables.values())
    )
    sets = (
        _record_set(table if len(names) == 1 else _part(table, name), schema, doc, {"fileObject": {"@id": name}})
        for table, (names, schema, doc) in tables.items()
        for name in names
    )
    return files, sets


def _part(table: str, name: str) -> str:
    """The record set of one of a table's files: its table, its task, and any other part of its name."""
    rest = name.rpartition("/")[2].removesuffix(".parquet").removeprefix(f"{table}-")
    return "/".join([table, task_name_of(name), *([] if rest == table else [rest])])


def _record_set(name: str, schema: pa.Schema, doc: str, source: dict[str, Any]) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{column.name}",
            "name": column.name,
            "description": (column.metadata or {}).get(b"doc", b"").decode(),
            "dataType": _data_type(column.type),
            "source": {**source, "extract": {"column": column.name}},
            **({"repeated": True} if pa.types.is_list(column.type) else {}),
        }
        for column in schema
    ]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": doc, "field": fields}


def _data_type(dtype: pa.DataType) -> str:
    if pa.types.is_list(dtype):
        dtype = dtype.value_type
    for is_of, name in (
        (pa.types.is_boolean, "sc:Boolean"),
        (pa.types.is_integer, "sc:Integer"),
        (pa.types.is_floating, "sc:Float"),
        (pa.types.is_timestamp, "sc:DateTime"),
    ):
        if is_of(dtype):
            return name
    return "sc:Text"


#: The JSON-LD context that Croissant 1.1 prescribes.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
