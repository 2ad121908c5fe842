"""The dataset card of a published version, and what all its descriptions are made of.

Owns the card's text. Title, introduction and licence are the publisher's own words and may be Markdown; names and
licences of others are shown as code. Its front matter follows the Hugging Face hub's metadata for data sets, so that
`datasets.load_dataset` finds each table, and the matrix of each task.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

from collectors.lake.layout import MATRIX_FILES, pool_name, published_files, task_name_of
from collectors.publish.matrix_table import matrix_schema
from schemas.records import (
    AGGREGATE,
    FOLDED_RECORD,
    FOLDED_RESPONSE,
    FORECAST,
    FORECAST_FIT,
    ITEM,
    JUDGE,
    MODEL,
    RUN_CELL,
    SPLIT,
    VERDICT,
)


@dataclass(frozen=True)
class Description:
    """The part of a description that only a person can give."""

    title: str = "Router benchmark matrix"
    text: str = ""
    #: Licence of the records, as an SPDX identifier in lower case or the hub's name for it; None if not stated.
    licence: str | None = None
    #: Source of prompts or answers -> its licence.
    sources: Mapping[str, str] | None = None
    #: Who made the data set, each as "Family, Given" or the name of an organisation.
    creators: tuple[str, ...] = ()
    #: Web address of the folder above the version; None if it has none.
    url: str | None = None

    def stated(self) -> dict[str, Any]:
        """The values for the manifest. What releases before did not ask for is left out unless it is given."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value or name not in ("creators", "url")}


@dataclass(frozen=True)
class Predecessor:
    """The version that a version replaces."""

    version: str
    manifest_sha256: str
    #: Start of its newest run, in ISO 8601; empty where the publisher names the version.
    created: str = ""
    #: Digest of its files without their descriptions; empty where the publisher names the version.
    content: str = ""
    #: The version that it replaced.
    previous: Predecessor | None = None

    def stated(self) -> dict[str, str]:
        """The values for the manifest."""
        return {"version": self.version, "manifest_sha256": self.manifest_sha256}


@dataclass(frozen=True)
class KeptPool:
    """A pool that the version keeps under a name."""

    name: str
    digest: str
    #: What it holds, as collectors.matrix.described.head puts it.
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """The part of a description that comes from the version's files."""

    version: str
    counts: Mapping[str, int]
    provenance: Mapping[str, Any]
    #: Name of a file -> its sha256 and bytes.
    files: Mapping[str, Mapping[str, Any]]
    pools: tuple[KeptPool, ...] = ()
    previous: Predecessor | None = None

    def names(self, pattern: str) -> list[str]:
        """The version's files with rows that match a pattern of TABLES."""
        return sorted(name for name in self.files if fnmatch.fnmatchcase(name, pattern) and "/schema" not in name)


#: Table -> its files, its schema and the meaning of a row. load_dataset loads the first one by default.
TABLES: dict[str, tuple[str, pa.Schema, str]] = {
    "matrix": (
        MATRIX_FILES,
        matrix_schema(),
        "one row for each question and candidate (a model that a router can choose): what routers are trained on",
    ),
    "records": (
        published_files("compact/records"),
        FOLDED_RECORD,
        "one row for each item, filter and repeat of a cell; `is_primary` marks the row of the task's own filter over "
        "all repeats, the only one that counts in the matrix: keep these alone before you average",
    ),
    "responses": (published_files("compact/responses"), FOLDED_RESPONSE, "the model's answer, for each record"),
    "items": (published_files("items"), ITEM, "one row for each document of a task"),
    "models": (published_files("models"), MODEL, "metadata of a model at one revision, in one row or several"),
    "cells": (published_files("runs"), RUN_CELL, "one row for each model, task and setup that a run planned"),
    "aggregates": (
        published_files("aggregates"),
        AGGREGATE,
        "one row for each metric over all items of a cell or a group of tasks",
    ),
    "verdicts": (published_files("verdicts"), VERDICT, "the verdict of a judge on an answer that was judged again"),
    "judges": (published_files("judges"), JUDGE, "a judge of the answers to one task, with its version and code"),
    "splits": (published_files("splits"), SPLIT, "one row for each question or candidate of a division for routers"),
    "forecasts": (
        published_files("forecasts"),
        FORECAST,
        "the expected score of a model on a task, or on an item that it was not asked: no measurement",
    ),
    "forecast_fits": (
        published_files("forecast_fits"),
        FORECAST_FIT,
        "what a forecast learned of a task, and how its bands did on models that were held out",
    ),
}

#: Upper bounds of the hub's size categories.
_SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
_SIZES += [(10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**12, "1B<n<10B")]


TEXT = "Answers of language models, item by item, with token counts, for training and evaluating LLM routers."


def readme(description: Description, contents: Contents) -> bytes:
    """The dataset card as Markdown with front matter."""
    front: dict[str, Any] = {
        "pretty_name": description.title,
        "tags": ["llm-routing", "evaluation", "routerlake"],
        "size_categories": [next(name for bound, name in _SIZES if contents.counts["records"] < bound)],
        "configs": list(_configs(contents)),
    }
    if description.licence:
        front["license"] = description.licence
    counts = "\n".join(f"| {name} | {count:,} |" for name, count in contents.counts.items())
    tables = "\n".join(f"| `{name}` | `{files}` | {row} |" for name, (files, _, row) in present(contents).items())
    sources = "\n".join(f"- {code(name)}: {code(licence)}" for name, licence in (description.sources or {}).items())
    others = "\n".join(f"- {line}" for line in imports(contents, code))
    imported = f"\n\nSome of the records, or all, were made by others and imported:\n\n{others}" if others else ""
    counted_by = " for imported records by their source," if others else ""
    created = contents.provenance["created"]
    pools = "\n".join(
        f"- [`{pool.name}`]({pool_name(pool.name)}) ({pool.digest}): {'; '.join(map(code, pool.lines))}"
        for pool in contents.pools
    )
    kept = (
        f"\n\n## Pools\n\nFor `--pool @NAME`; cite a pool with its digest and this version:\n\n{pools}" if pools else ""
    )
    foretold = _FORETOLD.format(**contents.counts) if contents.counts.get("forecasts") else ""
    judges = "\n".join(_judges(contents))
    judged = f"\n\n## Judged again\n\n{_JUDGED}\n\n{judges}" if judges else ""
    text = f"""\
# {description.title}

{description.text or TEXT}

Version `{contents.version}`, from runs up to {created}. A version never changes; `manifest.json` names
every file with its SHA-256, and the runs, library versions, model revisions and task digests behind the numbers.
{replaces(contents)} `DATASHEET.md` describes how the data came about and what it is not fit for, and
`CITATION.cff` how to cite it.

| what | how many |
|---|---|
{counts}

Each item has an `outcome`. A missing answer, or one that could not be judged, is neither wrong nor zero: its `score` is
null, with a reason in `failure`. So is that of a metric over a whole set, such as a perplexity: see `aggregates`. An
empty, cut off or overlong answer is the model's own and counts in its score; so `leaderboard` also has
`score_answered`, the mean over the items with outcome `ok`. Tokens are counted by the engine that answered,{counted_by}
and are null if nobody counted them.

## Use it

| table | files | a row is |
|---|---|---|
{tables}

```python
from datasets import load_dataset

matrix = load_dataset("path/or/repo")  # a row a question and candidate
items = load_dataset("path/or/repo", "items")  # so are the other tables, and "matrix-TASK" is the matrix of one task
```

In DuckDB, from any folder, because the database holds the rows itself:

```
duckdb -readonly path/to/snapshot.duckdb "FROM leaderboard"
```

Its views are matrix, pool, records, items, models, cells, coverage, leaderboard, oracle and more, each with comments.
Answers (`responses`) and replaced rows alone stay in the Parquet files: read them from this folder, or after
`SET VARIABLE snapshot = 'path/or/s3://bucket/version';`. `views.sql` makes the same views over the files. The folder
is also a routerlake lake: give it to `matrix.py --lake` or, in Python, `routerlake.open`, which reads the whole matrix
from `packed/` at once.{kept}{judged}{foretold}

## Licences

The records: {description.licence or "not stated"}, as far as they are the publisher's own. Prompts and answers come
from their sources, under their licences:

{sources or "- not stated by the publisher"}{imported}
"""
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n{text}".encode()


def replaces(contents: Contents) -> str:
    """A sentence about the version before."""
    if contents.previous is None:
        return "No earlier version is named."
    return (
        f"It replaces version `{contents.previous.version}` (SHA-256 of its manifest: "
        f"{contents.previous.manifest_sha256}); `publish.py diff` counts what changed."
    )


_FORETOLD = """

## Measured and foretold

{records:,} records are measured. {forecasts:,} values are foretold: they stand in `forecasts` alone, means of tasks
with a band, and are in no record, matrix, pool or leaderboard. `forecast_leaderboard` and `forecast_matrix` show both,
with `is_measured` in each row. `forecast_fits` has for each task how the bands did on models that were held out."""

_NO_LICENCE = "licence not stated"
_JUDGED = "The matrix shows the verdicts as collected, in the records. `--judge NAME` shows those of another judge:"


def _judges(contents: Contents) -> list[str]:
    return [
        f"- {code(row['judge'])} ({row['judge_id']}) of {code(row['task'])}: {row['kind']}, version {row['version']}, "
        f"metric {code(row['metric'])}, filter {code(row['filter'])}"
        + (f", model {code(row['model'])}" if row["model"] else "")
        + (f", answers run in {row['sandbox']}" if row["sandbox"] else "")
        for row in contents.provenance.get("judges", ())
    ]


def _configs(contents: Contents) -> Iterator[dict[str, Any]]:
    """The configurations of load_dataset: one for each table, then the matrix of each task."""
    for table, (files, *_) in present(contents).items():
        yield {"config_name": table, "data_files": files, **({"default": True} if table == "matrix" else {})}
    for name in contents.names(MATRIX_FILES):
        yield {"config_name": f"matrix-{task_name_of(name)}", "data_files": name}


def imports(contents: Contents, form: Callable[[str], str] = str) -> list[str]:
    """A text for each source of imported records, with its licence if the import stated one.

    `form` is how the words of others are shown.
    """
    return [
        f"{form(one['imported_from'])} ({one['format']}): {form(one['licence']) if one['licence'] else _NO_LICENCE}"
        for one in contents.provenance["imports"]
    ]


def code(text: str) -> str:
    """A text of others, shown as it is: nothing in it is markup."""
    text = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    edge = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{edge}{text}{edge}{fence}"


def present(contents: Contents) -> dict[str, tuple[str, pa.Schema, str]]:
    """The tables of TABLES that have files in the version."""
    return {table: row for table, row in TABLES.items() if contents.names(row[0])}
