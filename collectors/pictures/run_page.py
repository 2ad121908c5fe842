"""A run's progress as one HTML page, which needs no other file, no script and no network.

Owns how the page is laid out and its chart; run_page.html is the template. Knows nothing of runs: it is given texts and
numbers, and whatever a model is called stays text.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import jinja2

#: Size of the chart, and of its margins, in its own units.
WIDTH, HEIGHT, LEFT, BELOW, ABOVE = 1000, 220, 56, 22, 8
#: Lines across the chart, at most.
MARKS = 4


@dataclass(frozen=True)
class Table:
    """Texts in rows; `texts` are the columns that are no numbers. `shares`: a bar behind each row, in percent."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: frozenset[int] = frozenset({0})
    note: str = ""
    shares: Sequence[float] = ()


@dataclass(frozen=True)
class Share:
    """A bar of progress: percents that are done and that failed."""

    label: str
    done: float
    failed: float


@dataclass(frozen=True)
class Bars:
    """Numbers over time, each with what is said of it; `seconds`: the length of a bar, in words."""

    values: Sequence[float]
    texts: Sequence[str]
    seconds: str
    first: str
    last: str


@dataclass(frozen=True)
class RunPage:
    """What stands on the page."""

    title: str
    lines: Sequence[str]
    alarm: str
    progress: Sequence[Share]
    bars: Bars | None
    tables: Sequence[Table] = field(default_factory=list)


def run_page(page: RunPage) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = importlib.resources.files("collectors.pictures").joinpath("run_page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        title=page.title,
        lines=page.lines,
        alarm=page.alarm,
        progress=page.progress,
        chart=_chart(page.bars) if page.bars and page.bars.values else None,
        tables=page.tables,
    )


def _chart(bars: Bars) -> dict[str, object]:
    top = max(bars.values) or 1.0
    bottom, width = HEIGHT - BELOW, (WIDTH - LEFT) / len(bars.values)
    high = bottom - ABOVE
    drawn = [
        {
            "x": round(LEFT + place * width, 2),
            "y": round(bottom - high * value / top, 2),
            "width": round(max(0.5, width - 1), 2),
            "height": round(high * value / top, 2),
            "text": text,
        }
        for place, (value, text) in enumerate(zip(bars.values, bars.texts, strict=True))
    ]
    step = _round_step(top / MARKS)
    marks = [
        {"y": round(bottom - high * number * step / top, 2), "text": f"{number * step:g}"}
        for number in range(int(top / step) + 1)
    ]
    size = {"width": WIDTH, "height": HEIGHT, "left": LEFT}
    return {**size, "bars": drawn, "marks": marks, "seconds": bars.seconds, "first": bars.first, "last": bars.last}


def _round_step(least: float) -> float:
    """The first of 1, 2, 5, 10, … times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
