"""The headline figures and their numbers as one HTML file, which needs no other file and no network.

Owns the contents of the page; page.html is its template. Figures are SVG and numbers are JSON within the page. Its
script turns the numbers into the files that a reader saves and into the names beside the pointer.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from collectors.pictures.draw import UNITS, Drawing
from collectors.pictures.headline import Headline

#: Most rows in a table of models. The saved file of a task has all models.
MOST_MODELS = 100


def page(title: str, tasks: Sequence[tuple[Headline, Sequence[Drawing]]], notes: Sequence[str] = ()) -> str:
    """The page as HTML: a section for each headline with its drawings, below the lines of `notes`."""
    records = [headline.record() for headline, _ in tasks]
    import jinja2  # 35 ms

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = importlib.resources.files("collectors.pictures").joinpath("page.html").read_text(encoding="utf-8")
    # The page holds each model's name once; the numbers of a task refer to it by its position.
    names = list(dict.fromkeys(name for headline, _ in tasks for name in headline.models))
    place = {name: number for number, name in enumerate(names)}
    numbers = {
        "title": title,
        "names": names,
        "tasks": [
            {**_numbered(record, place), "drawings": [_frame(drawing) for drawing in drawings]}
            for record, (_, drawings) in zip(records, tasks, strict=True)
        ],
    }
    return environment.from_string(template).render(
        title=title,
        notes=notes,
        tasks=[
            {"headline": headline, "svgs": [drawing.svg for drawing in drawings], **_tables(headline, record)}
            for record, (headline, drawings) in zip(records, tasks, strict=True)
        ],
        numbers=script_json(numbers),
    )


def script_json(value: Any) -> str:
    """JSON that is safe inside a <script> element: no name of a model or task can close the element."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _numbered(record: dict[str, Any], place: Mapping[str, int]) -> dict[str, Any]:
    """The record with positions in place of the models' names."""

    def numbered(models: dict[str, Any]) -> dict[str, Any]:
        return {**models, "model": [place[name] for name in models["model"]]}

    cost = record["cost"]
    return {
        **record,
        "models": numbered(record["models"]),
        "cost": cost and {**cost, "models": numbered(cost["models"])},
    }


def _frame(drawing: Drawing) -> dict[str, Any]:
    return {"box": drawing.box, "x": drawing.x, "y": drawing.y, "log": drawing.x_is_log}


def _tables(headline: Headline, record: dict[str, Any]) -> dict[str, Any]:
    """Headers and rows of the tables, as text."""
    curves = record["curves"]
    cost = record["cost"]
    models: dict[str, list[Any]] = {"model": headline.models, "score": record["models"]["score"]}
    unit = ""
    if cost:
        models, unit = cost["models"], UNITS[cost["kind"]]
    order = sorted(range(len(models["score"])), key=lambda row: -models["score"][row])
    return {
        "curve_heads": list(curves),
        "curve_rows": [[_text(value) for value in row] for row in zip(*curves.values(), strict=True)],
        "model_heads": [unit if name.endswith("_per_1000") else name for name in models],
        "model_rows": [[_text(values[row]) for values in models.values()] for row in order[:MOST_MODELS]],
        "models": len(order),
        "unit": unit,
        "points": _points(cost) if cost else [],
        "hull": [list(map(_text, row)) for row in zip(*cost["hull"].values(), strict=True)] if cost else [],
    }


def _points(cost: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the oracle, of chance and of routers: name, cost, score."""
    rows = [(name, *map(_text, cost[name].values())) for name in ("oracle", "random")]
    for router, *values, items in zip(*cost["routers"].values(), strict=True):
        part = "" if items == cost["items"] else f" ({items:,} items)"
        rows.append((f"router {router}{part}", *map(_text, values)))
    return rows


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
