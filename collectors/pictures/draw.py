"""Draws a headline's two figures with matplotlib, which is imported for the first drawing.

Owns their looks. Knows nothing of the origin of the numbers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from collectors.metrics.plane import Points
from collectors.pictures.headline import ORACLES, CostFigure, Headline

#: Okabe and Ito's colours, which colour-blind readers can distinguish.
_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"
#: Colours of routers, and most of them in the legend.
_OF_ROUTERS, _MOST_ROUTERS = ("#CC79A7", "#56B4E9", "#000000", "#8B6D00"), 8
_ROUTERS = {
    1.0: (_BLUE, "oracle, r_o(1)"),
    0.5: (_GREEN, "r_o(0.5): half oracle, half chance"),
    0.0: (_GREY, "random, r_o(0)"),
}
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "routerlake",
    "text.parse_math": False,
}
_SIZE = (7.6, 5.0)
#: An SVG with more points than this holds them as one bitmap: 8,500 shapes take 0.6 MB.
_MOST_SHAPES = 1000
#: Letters of the line under a title that fit at its size; a longer line gets smaller letters.
_MOST_UNDER = 104
#: The axis of costs is logarithmic if the costs span more than this factor.
_LOG_SPAN = 12.0
#: Curves with at most so many sizes mark each of them.
_MARKED_SIZES = 15
#: All models are named if they are at most _ALL_NAMED, else at most _MOST_NAMED of the frontier. Longer names are cut.
_ALL_NAMED, _MOST_NAMED, _LONGEST_NAME = 15, 15, 30
UNITS = {"usd": "USD per 1,000 items", "latency_s": "seconds of latency per 1,000 items"}


@dataclass(frozen=True)
class Drawing:
    """One figure in both formats."""

    png: bytes
    #: One <svg> element without a width and height.
    svg: str
    #: The frame of the axes in the SVG's coordinates: (left, top, right, bottom).
    box: tuple[float, float, float, float]
    #: The limits of the two axes in their own units.
    x: tuple[float, float]
    y: tuple[float, float]
    x_is_log: bool


def draw_scaling(headline: Headline) -> Drawing:
    """The bounds of the pool against its size."""
    with new_axes() as (figure, axes):
        curves = headline.scaling
        marker = "o" if len(curves.sizes) <= _MARKED_SIZES else ""
        for p in ORACLES:
            colour, label = _ROUTERS[p]
            axes.fill_between(curves.sizes, *headline.draws.band(p), color=colour, alpha=0.18, linewidth=0)
            axes.plot(curves.sizes, curves.r_o(p), color=colour, linewidth=2, label=label, marker=marker, markersize=4)
        axes.plot(curves.sizes, curves.best_single, "--", color=_ORANGE, linewidth=1.6, label="best single model in it")
        if headline.reference is not None:
            axes.axhline(headline.reference, color=_RED, linewidth=1.2, linestyle=":")
            label = f"reference accuracy {headline.reference:g}"
            axes.plot([], [], color=_RED, linewidth=1.2, linestyle=":", label=label)
        axes.set_xscale("log")
        _plain_log_ticks(axes, 1, len(headline.models))
        axes.set_xlim(1, max(len(headline.models), 2))
        axes.set_ylim(*_margin([*axes.dataLim.intervaly, headline.reference or curves.random]))
        axes.set_xlabel("models in the pool (log scale)")
        axes.set_ylabel(f"mean {headline.metric}")
        titled(
            figure,
            f"{headline.task}: score by pool size",
            f"{len(headline.models):,} models, {curves.items:,} items; lines: exact means over all pools of a size, "
            f"bands: 5 to 95 % of {len(headline.draws.oracle):,} random pools",
        )
        _legend(figure, axes)
        return drawn(figure, axes)


def draw_cost(headline: Headline) -> Drawing:
    """Cost against quality. Raises ValueError if the headline has no cost."""
    if headline.cost is None:
        raise ValueError(headline.no_cost)
    with new_axes() as (figure, axes):
        cost, points = headline.cost, headline.cost.plane.points * (1000, 1)
        marks = np.array([cost.oracle, cost.random]) * (1000, 1)
        routed = [curve.points * (1000, 1) for curve in cost.curves]
        every = np.concatenate([points, marks, *routed])
        is_log = every[:, 0].min() > 0 and every[:, 0].max() > _LOG_SPAN * every[:, 0].min()
        right = every[:, 0].max() * 1.6
        lines = _draw_points(axes, cost, points, right, is_log)
        for (x, y), symbol, colour, name in zip(marks, "*D", (_RED, _GREY), ("oracle", "random"), strict=True):
            axes.plot(
                x, y, symbol, color=colour, markersize={"*": 15, "D": 7}[symbol], label=f"{name} {y:.3f}", zorder=5
            )
        _draw_routers(axes, cost, points, routed)
        if is_log:
            axes.set_xscale("log")
            _plain_log_ticks(axes, every[:, 0].min() / 1.6, right)
            axes.set_xlim(every[:, 0].min() / 1.6, right)
        else:
            space = 0.06 * np.ptp(every[:, 0]) or 0.5 * right or 1
            axes.set_xlim(every[:, 0].min() - space, every[:, 0].max() + space)
        axes.set_ylim(*_margin(every[:, 1]))
        axes.set_xlabel(UNITS[cost.kind] + (" (log scale)" if is_log else ""))
        axes.set_ylabel(f"mean {headline.metric}")
        titled(figure, f"{headline.task}: cost and quality", _summary(cost))
        _legend(figure, axes)
        _name_points(figure, axes, cost, points, [*marks, *lines, *points[:: 1 + len(points) // 500]])
        return drawn(figure, axes)


def _draw_points(axes: Any, cost: CostFigure, points: Points, right: float, is_log: bool) -> list[Any]:
    """Draws the points, the hull and the frontier; returns points along the two lines."""
    hull = cost.hull * (1000, 1)
    # The hull is straight in cost, so it bends on a logarithmic axis; beyond the last corner it is level.
    costs = (np.geomspace if is_log else np.linspace)(hull[0, 0], right, 400)
    aiq = "" if cost.aiq_paper is None else f", AIQ {cost.aiq_paper:.3f}"
    mixed = np.stack([costs, np.interp(costs, *hull.T)], axis=1)
    axes.plot(*mixed.T, color=_BLUE, linewidth=1.8, label=f"convex hull{aiq}", zorder=2)
    front = points[cost.frontier]
    steps = np.concatenate([front, [[right, front[-1, 1]]]])
    axes.plot(*steps.T, color=_ORANGE, linewidth=1.3, drawstyle="steps-post", label="Pareto frontier", zorder=2)
    many = len(points) > 300
    others = np.setdiff1d(np.arange(len(points)), cost.frontier)
    size, alpha = (8, 0.35) if many else (30, 0.8)
    if len(others):
        dots = axes.scatter(*points[others].T, s=size, color=_GREY, alpha=alpha, linewidths=0, label="models", zorder=3)
        dots.set_rasterized(len(others) > _MOST_SHAPES)
    axes.scatter(*front.T, s=34, color=_ORANGE, edgecolors="white", linewidths=0.8, label="models on it", zorder=4)
    flat = np.stack([costs, front[np.searchsorted(front[:, 0], costs, "right") - 1, 1]], axis=1)
    return [*mixed[::4], *flat[::4]]


def _draw_routers(axes: Any, cost: CostFigure, points: Points, routed: Sequence[Points]) -> None:
    """Draws the routers, several of one name as a curve, and a ring around the best single model."""
    if not routed:
        return
    best = points[np.lexsort((points[:, 0], -points[:, 1]))[0]]
    axes.plot(
        *best, "o", markersize=11, fillstyle="none", color=_RED, label=f"best single model {best[1]:.3f}", zorder=4
    )
    for number, (curve, places) in enumerate(zip(cost.curves, routed, strict=True)):
        score = f" {places[:, 1].max():.3f}" if len(places) == 1 else f" up to {places[:, 1].max():.3f}"
        label = short(curve.name) + score if number < _MOST_ROUTERS else None
        colour, marker = _OF_ROUTERS[number % len(_OF_ROUTERS)], "sv^P"[number // len(_OF_ROUTERS) % 4]
        axes.plot(*places.T, color=colour, marker=marker, markersize=6, linewidth=1.4, label=label, zorder=5)


def _summary(cost: CostFigure) -> str:
    text = f"{len(cost.models):,} models, {cost.plane.items:,} items"
    if cost.uncosted:
        text += f"; {cost.uncosted:,} models without a known cost are left out"
    if cost.aiq_paper is not None:
        text += f"; AIQ {cost.aiq_paper:.4f} as in RouterBench's paper"
    if cost.aiq_code is not None:
        text += f", {cost.aiq_code:.4f} as in its code"
    return text


# ---- names beside points


def _name_points(figure: Any, axes: Any, cost: CostFigure, points: Points, others: list[Any]) -> None:
    """Writes the names of models that cover no other name and no named point; the tables have all names.

    `others` are points that a name covers only if every place covers one.
    """
    figure.canvas.draw()
    named = np.arange(len(points)) if len(points) <= _ALL_NAMED else cost.frontier
    named = named[np.argsort(-points[named, 1], kind="stable")]
    named = named[np.unique(np.linspace(0, len(named) - 1, _MOST_NAMED).astype(int))]  # spread along the frontier
    places = axes.transData.transform(points)
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places[named]]
    spared = [(x - 2, y - 2, x + 2, y + 2) for x, y in axes.transData.transform(others)]
    frame = axes.get_window_extent()
    per_pixel = 72 / figure.dpi
    for model in named:
        text = axes.annotate(
            short(cost.models[model]), points[model], xytext=(0, 0), textcoords="offset points", fontsize=7.5, zorder=6
        )
        size = text.get_window_extent()
        offsets = list(_beside(size.width, size.height))
        boxes = [_box(places[model] + offset, size.width, size.height) for offset in offsets]
        free = [
            place
            for place, box in enumerate(boxes)
            if _inside(box, frame.extents) and not any(_overlap(box, other) for other in taken)
        ]
        best = [place for place in free if not any(_overlap(boxes[place], other) for other in spared)]
        if not free:
            text.remove()
            continue
        place = (best or free)[0]
        text.set_position(tuple(per_pixel * shift for shift in offsets[place]))
        taken.append(boxes[place])


def _beside(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Offsets of a name's lower left corner from its point, in pixels: right, left, above, below, then further away."""
    for gap in (8, 14, 22):
        for dx in (gap, -width - gap):
            for dy in (-height / 2, gap / 2, -height - gap / 2):
                yield dx, dy
        for dy in (gap, -height - gap):
            yield -width / 2, dy


def _box(corner: Any, width: float, height: float) -> tuple[float, float, float, float]:
    x, y = map(float, corner)
    return x, y, x + width, y + height


def _inside(box: Sequence[float], frame: Sequence[float]) -> bool:
    return frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def short(name: str) -> str:
    """A model's name without its owner, cut to _LONGEST_NAME characters."""
    name = name.rpartition("/")[2] or name
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


# ---- shared by all figures


@contextmanager
def new_axes() -> Iterator[tuple[Any, Any]]:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, dpi=150)
        FigureCanvasAgg(figure)
        yield figure, figure.add_axes((0.09, 0.235, 0.88, 0.645))


def drawn(figure: Any, axes: Any) -> Drawing:
    png, svg = io.BytesIO(), io.StringIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(svg, format="svg", metadata=nothing)
    text = svg.getvalue()
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text[text.index("<svg") :], count=1)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
    at = axes.get_position()
    width, height = _SIZE[0] * 72, _SIZE[1] * 72
    return Drawing(
        png=png.getvalue(),
        svg=text,
        box=(at.x0 * width, (1 - at.y1) * height, at.x1 * width, (1 - at.y0) * height),
        x=_two(axes.get_xlim()),
        y=_two(axes.get_ylim()),
        x_is_log=axes.get_xscale() == "log",
    )


def _two(limits: Any) -> tuple[float, float]:
    low, high = map(float, limits)
    return low, high


def titled(figure: Any, text: str, under: str) -> None:
    figure.text(0.09, 0.945, text, fontsize=12, fontweight="bold")
    size = min(8.5, 8.5 * _MOST_UNDER / max(len(under), 1))
    figure.text(0.09, 0.905, under, fontsize=size, color="#555555")


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, bbox_to_anchor=(0.53, 0.0))


def _margin(values: Sequence[float] | np.ndarray[Any, Any]) -> tuple[float, float]:
    low, high = float(np.min(values)), float(np.max(values))
    space = 0.06 * (high - low) or 0.05
    return low - space, high + space


def _plain_log_ticks(axes: Any, low: float, high: float) -> None:
    """Labels 1, 2, 5, 10, … as plain digits; over many decades only the powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    decades = np.log10(high / low) if high > low else 1
    subs = (1.0, 2.0, 5.0) if decades < 3.5 else (1.0, 3.0) if decades < 4.5 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=30))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
