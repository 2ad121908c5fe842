"""What question.html needs to show any question of a large version, as scripts: texts of questions, parts, cells.

Owns the form of these scripts, which static/question.js reads. Answers are not copied: the page reads them from the
version's own Parquet, by ranges. A page from file:// may load scripts, so it shows the question there, too.

| script | holds |
|---|---|
| `question-KEY.js` | one item table of a task: its parts, and where its texts lie |
| `question-KEY-N.js` | texts and counts of some of its questions |
| `cells-PART-N.js` | the cells at places 100 N to 100 N + 99 of a part |
| `names-PART.js` | model and prices of all cells of a part, by which answers are ordered and chosen |
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq

from collectors.lake.holdings import Holdings, Part, read_holdings
from collectors.lake.reading import connect, pass_over_damage
from collectors.lake.store import Lake
from collectors.website.database import MOST_ANSWERS
from collectors.website.many_pages import (
    JUDGED,
    LONGEST,
    RECORDS,
    cut,
    gold_text,
    questions_address,
    setting,
    told_apart,
)
from collectors.website.reading import Tables
from collectors.website.rendering import Page
from collectors.website.tables import (
    LONGEST_QUERY,
    filled,
    model_page,
    plain,
    question_key,
    script_json,
    shown,
    task_page,
)
from schemas.identity import digest
from schemas.texts import UNSEEN

PAGE = "question.html"
#: Characters of questions in a script, and cells in one.
_TEXTS, _CELLS = 60_000, 100
#: A letter beyond 16 bits in a pattern, which JavaScript writes in another way.
_WIDE = re.compile(r"\\U0*([0-9a-f]+)")
_PRICES = ("prompt", "cached", "cache_write", "completion", "reasoning")
#: The macro _serving_usd as terms, which question.js adds up: tokens × (price - less), for each answer to the item or
#: once. A term with `within` counts where its tokens and those `beside` it are at most as many. Where a term without
#: `less` lacks a number the cost is unknown; another is left out then.
CHARGES: tuple[dict[str, Any], ...] = (
    {"tokens": "prompt_tokens", "price": "prompt", "each": True},
    {"tokens": "cached_tokens", "price": "cached", "less": "prompt", "within": "prompt_tokens", "each": True},
    {
        "tokens": "cache_write_tokens",
        "price": "cache_write",
        "less": "prompt",
        "within": "prompt_tokens",
        "beside": "cached_tokens",
        "each": True,
    },
    {"tokens": "completion_tokens", "price": "completion"},
    {"tokens": "reasoning_tokens", "price": "reasoning", "less": "completion", "within": "completion_tokens"},
)

Script = tuple[str, Any]


@dataclass(frozen=True)
class _Placed:
    """A cell in a part."""

    cell_id: str
    part: str
    place: int
    #: USD per million tokens, and per request.
    prices: Mapping[str, float | None]
    #: Number of answers to each item, or item -> number where they differ; None: one.
    answers: Any


def no_answers(lake: Lake, manifest: Mapping[str, Any] | None, include: str, *, has_reader: bool) -> str | None:
    """Why the page shows questions without answers; None where it shows both."""
    if not manifest:
        return "a lake grows, and its answers with it: publish it (publish.py), and make the site of that version"
    if read_holdings(lake, include=include).has_other_scores:
        return "the version is of a release that stored no outcomes: publish the lake anew"
    return None if has_reader else "the site was built without npm, which brings the reader of Parquet"


def notes_of_questions(lake: Lake, include: str, why_not: str | None) -> Iterator[str]:
    """What `publish.py site` says of the page."""
    many = f"more than {MOST_ANSWERS:,} answers are too many for a page each question"
    if why_not:
        yield f"{many}: {PAGE} shows any question without its answers, because {why_not}"
        return
    yield f"{many}: {PAGE} shows any of them with its answers, from --serve or another server that knows ranges"
    names = [part.responses for part in read_holdings(lake, include=include).parts if part.responses]
    if names and not pq.read_metadata(lake.open_object(names[0])).row_group(0).column(0).has_offset_index:
        yield (
            "the version's answers have no index of pages, which a later release writes: a question fetches megabytes "
            "until the lake is published anew"
        )


def question_page(why_not: str | None) -> Page:
    """The page that shows any question; `why_not` is why it shows no answers."""
    more = {"why_not": why_not, "unseen": _WIDE.sub(r"\\u{\1}", UNSEEN), "charges": json.dumps(CHARGES)}
    return Page(PAGE, "Question", template="question.html", more=more)


def question_scripts(tables: Tables, lake: Lake, manifest: Mapping[str, Any] | None, include: str) -> Iterator[Script]:
    """Yields the name and the text of each script. Without a manifest, for a lake, they name no parts."""
    placed = _placed(lake, include) if manifest else []
    parts = {part.records: part for part in read_holdings(lake, include=include).parts} if manifest else {}
    item_tables = tables.rows("SELECT DISTINCT task, items_digest FROM questions ORDER BY ALL")
    told = {(row["task"], row["items_digest"]): told_apart(tables, row) for row in item_tables}
    cells = {row["cell_id"]: {**row, "times": tables.repeated.get(row["cell_id"])} for row in tables.rows(_CELLS_OF)}
    places: dict[tuple[str, str], dict[str, list[int]]] = {}
    for part, group in itertools.groupby(placed, key=lambda cell: cell.part):
        some = [cell for cell in group if cell.cell_id in cells]
        for cell in some:
            of_table = places.setdefault(_key(cells[cell.cell_id]), {})
            of_table.setdefault(part, []).append(cell.place)
        yield from _cells_scripts(part, some, cells, told)
        yield _names_script(part, some, cells, told)
    for row in item_tables:
        of_table = places.get(_key(row), {})
        stated = [_part(lake, manifest or {}, parts[name], places) for name, places in of_table.items()]
        yield from _table_scripts(tables, row, stated)


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["task"], row["items_digest"]


# ---- parts and cells

_CELLS_OF = """
SELECT cells.*, attempted FROM cells INNER JOIN coverage USING (cell_id, task) ORDER BY cell_id
"""
_PLACED = f"""
SELECT cell_id, part, place, {", ".join(f"usd_per_million_{name}" for name in _PRICES)}, usd_per_request
FROM (SELECT DISTINCT cell_id, part, place FROM _folded) INNER JOIN _cell_prices USING (cell_id)
ORDER BY part, place
"""
_ANSWERS = "SELECT cell_id, item, answers FROM _repeats ORDER BY cell_id, item"
_VIEWS = ("_folded", "_cell_prices", "_repeats", "cells")


def _placed(lake: Lake, include: str) -> list[_Placed]:
    """The cells of the version by part and place."""

    def attempt(holdings: Holdings) -> list[_Placed]:
        with contextlib.closing(connect(lake, holdings, only=_VIEWS)) as con:
            repeated = {
                cell_id: {item: answers for _, item, answers in rows}
                for cell_id, rows in itertools.groupby(con.execute(_ANSWERS).fetchall(), key=lambda row: row[0])
            }
            names = (*_PRICES, "request")
            return [
                _Placed(cell_id, part, place, dict(zip(names, prices, strict=True)), repeated.get(cell_id))
                for cell_id, part, place, *prices in con.execute(_PLACED).fetchall()
            ]

    return pass_over_damage(lake, lambda damaged: read_holdings(lake, damaged, include), attempt)


def _cells_scripts(
    part: str,
    placed: list[_Placed],
    cells: Mapping[str, Mapping[str, Any]],
    told: Mapping[tuple[str, str], list[str]],
) -> Iterator[Script]:
    """What is the same for several cells is stated once a script."""
    for number, group in itertools.groupby(placed, key=lambda cell: cell.place // _CELLS):
        kinds: list[dict[str, Any]] = []
        rows: list[Any] = [None] * _CELLS
        for cell in group:
            about = cells[cell.cell_id]
            kind = _kind(cell, about, told.get(_key(about), []))
            if kind not in kinds:
                kinds.append(kind)
            names = (shown(about["model"]), model_page(about["model"]), kinds.index(kind))
            rows[cell.place % _CELLS] = [cell.cell_id, *names]
        yield _script("siteCells", f"cells-{digest(part)}-{number}", {"kinds": kinds, "cells": rows})


def _names_script(
    part: str,
    placed: list[_Placed],
    cells: Mapping[str, Mapping[str, Any]],
    told: Mapping[tuple[str, str], list[str]],
) -> Script:
    """The name at each place as the number of letters that it shares with the one before, and the others."""
    kinds: list[dict[str, Any]] = []
    names: list[Any] = []
    runs: list[list[int]] = []
    before = ""
    for cell in placed:
        about = cells[cell.cell_id]
        if (kind := _kind(cell, about, told.get(_key(about), []))) not in kinds:
            kinds.append(kind)
        number, name = kinds.index(kind), shown(about["model"])
        if missing := cell.place - len(names) // 2:  # places of cells that the site does not show
            names += [0, ""] * missing
            before = ""
        same = _shared(before, name)
        names += [same, name[same:]]
        if missing or not runs or runs[-1][0] != number:
            runs.append([number, missing])
        runs[-1][1] += 1
        before = name
    return _script("siteNames", f"names-{digest(part)}", {"kinds": kinds, "names": names, "runs": runs})


def _shared(before: str, name: str) -> int:
    """How many letters both begin with, as JavaScript counts them: only those that are one unit each."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1] and pair[0] < "\ud800", zip(before, name, strict=False))
    return sum(1 for _ in pairs)


def _kind(cell: _Placed, about: Mapping[str, Any], told: list[str]) -> dict[str, Any]:
    counts = set((cell.answers or {}).values())
    is_same = len(counts) == 1 and len(cell.answers) == about["attempted"]
    return {
        "filter": about["filter"],
        "setting": (text := setting(about, told)) and shown(text),
        "prices": {name: price for name, price in cell.prices.items() if price is not None},
        "answers": counts.pop() if is_same else cell.answers,
    }


def _part(lake: Lake, manifest: Mapping[str, Any], part: Part, places: list[int]) -> dict[str, Any]:
    """The files of a part with their bytes and those of their footers; `places` are None if all cells are meant."""
    return {
        "key": digest(part.records),
        "records": _file(lake, manifest, part.records),
        "responses": part.responses and _file(lake, manifest, part.responses),
        "items": [part.first_item, part.last_item],
        "places": None if len(places) == part.cells else places,
    }


def _file(lake: Lake, manifest: Mapping[str, Any], name: str) -> list[Any]:
    size = manifest["files"][name]["bytes"]  # KeyError would be a fault of the version, which names its files
    footer = pq.read_metadata(lake.open_object(name)).serialized_size + 8
    return [quote(f"version/{name}", safe="/="), size, footer]


# ---- texts

_ITEMS = """
SELECT item, solved, judged, answers, questions.subject, items.prompt, choices, gold
FROM questions
LEFT JOIN items USING (task, items_digest, item)
LEFT JOIN (
    SELECT item, count(*) AS answers FROM matrix WHERE task = {task} AND items_digest = {items_digest} GROUP BY item
) USING (item)
WHERE task = {task} AND items_digest = {items_digest}
ORDER BY item
"""


def _table_scripts(tables: Tables, table: Mapping[str, Any], parts: list[dict[str, Any]]) -> Iterator[Script]:
    key = question_key(table["task"], table["items_digest"])
    firsts: list[int] = []
    for number, some in enumerate(_chunks(tables.rows(filled(_ITEMS, table)))):
        firsts.append(next(iter(some)))
        yield _script("siteTexts", f"question-{key}-{number}", some)
    sql, judged = (
        [plain(filled(before, table)), after]
        for before, after in (q.split("{item}") for q in (RECORDS, tables.once(JUDGED)))
    )
    value = {
        "task": shown(table["task"]),
        "above": [task_page(table["task"]), questions_address(table["task"])],
        "sql": sql if len(sql[0]) < LONGEST_QUERY else None,
        "judged": judged,
        "firsts": firsts,
        "parts": parts,
    }
    yield _script("siteQuestions", f"question-{key}", value)


def _chunks(rows: list[dict[str, Any]]) -> Iterator[dict[int, Any]]:
    some: dict[int, Any] = {}
    size = 0
    for row in rows:
        some[row["item"]] = _text(row)
        size += sum(len(text) for text in (row["prompt"], row["gold"], *(row["choices"] or ())) if text)
        if size > _TEXTS:
            yield some
            some, size = {}, 0
    if some:
        yield some


def _text(row: Mapping[str, Any]) -> dict[str, Any]:
    question = None if row["prompt"] is None else cut(row["prompt"], LONGEST)
    gold = gold_text(row["gold"], row["choices"])
    return {
        "question": question and {**question, "text": plain(question["text"]), "length": len(question["text"])},
        "choices": [plain(choice[:LONGEST]) for choice in row["choices"] or ()],
        "gold": None if gold is None else plain(gold),
        "subject": None if row["subject"] is None else shown(row["subject"], "prose"),
        **{name: row[name] for name in ("solved", "judged", "answers")},
    }


def _script(variable: str, name: str, value: Any) -> Script:
    return f"data/{name}.js", f"(window.{variable}??={{}})[{script_json(name)}]={script_json(value)};\n"
