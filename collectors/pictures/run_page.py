"""A run's state as one HTML page, which needs no other file, no script and no network.

Owns the layout of the page and its chart; run_page.html is the template. Knows nothing of runs: its input is texts and
numbers, and every text is escaped.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.texts import without_keys

#: Size of the chart, and of its margins, in its own units.
WIDTH, HEIGHT, LEFT, BELOW, ABOVE = 1000, 220, 56, 22, 8
#: Most horizontal lines in the chart.
MARKS = 4


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    #: Numbers of the left-aligned columns; all others hold numbers.
    texts: frozenset[int] = frozenset({0})
    note: str = ""
    #: Length of a bar behind each row, in percent; empty for no bars.
    shares: Sequence[float] = ()


@dataclass(frozen=True)
class Share:
    """A bar of progress, with the percents that are done and that failed."""

    label: str
    done: float
    failed: float


@dataclass(frozen=True)
class Bars:
    """A bar chart over time."""

    values: Sequence[float]
    #: A tooltip for each value.
    texts: Sequence[str]
    #: The time that a bar covers, as text such as 5.2m.
    seconds: str
    #: Labels of the two ends of the time axis.
    first: str
    last: str


@dataclass(frozen=True)
class RunPage:
    """The contents of the page."""

    title: str
    lines: Sequence[str]
    #: A sentence at the top that needs attention; empty for none.
    alarm: str
    progress: Sequence[Share]
    bars: Bars | None
    tables: Sequence[Table] = field(default_factory=list)


def run_page(page: RunPage) -> str:
    """The page as HTML."""
    import jinja2  # 35 ms

    environment = jinja2.Environment(
        autoescape=True, finalize=_keyless, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    template = importlib.resources.files("collectors.pictures").joinpath("run_page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        title=page.title,
        lines=page.lines,
        alarm=page.alarm,
        progress=page.progress,
        chart=_chart(page.bars) if page.bars and page.bars.values else None,
        tables=page.tables,
    )


def _keyless(value: object) -> object:
    """A text that the template writes: a lake of an earlier release may hold keys."""
    return without_keys(value) if type(value) is str else value


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
