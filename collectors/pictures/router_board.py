"""Draws a board of routers: how far each is from the best constant, cost against score, and scaling with the pool.

Owns their looks. Knows nothing of how routers are trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from collectors.pictures.draw import drawn, new_axes, short, titled

_COLOURS = {"better": "#009E73", "tie": "#777777", "worse": "#D55E00"}
_BOUND = "#0072B2"
_CYCLE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#777777")
#: Rows that fit a picture, and curves that an eye can separate.
_MOST_ROWS, _MOST_CURVES = 40, 8


def draw_board(rows: Sequence[Mapping[str, Any]], title: str, under: str) -> bytes:
    """A PNG: for each router the difference to the best constant with its interval, the best at the top."""
    shown = [row for row in rows if row["vs_best_constant"] is not None and not row["bound"]][:_MOST_ROWS]
    with new_axes() as (figure, axes):
        for place, row in enumerate(shown):
            found = row["vs_best_constant"]
            colour = _COLOURS[found["verdict"]]
            axes.plot([found["low"], found["high"]], [place, place], color=colour, linewidth=2)
            axes.plot(found["difference"], place, "o", color=colour, markersize=5)
        axes.axvline(0, color="#333333", linewidth=0.8)
        axes.set_yticks(range(len(shown)), [f"{row['rank']}  {short(row['router'])}" for row in shown], fontsize=7)
        axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)
        axes.set_xlabel("score minus that of the best constant, on the same questions (95 % interval)")
        axes.set_position((0.26, 0.16, 0.71, 0.72))
        for verdict, colour in _COLOURS.items():
            axes.plot([], [], "o-", color=colour, label=verdict)
        figure.legend(loc="lower center", ncols=3, bbox_to_anchor=(0.53, 0.0))
        titled(figure, title, under)
        return drawn(figure, axes).png


def draw_curves(rows: Sequence[Mapping[str, Any]], title: str, under: str) -> bytes | None:
    """A PNG of mean USD against score:

    a curve for each router with estimates, points for the others; None without USD.
    """
    priced = [row for row in rows if row.get("usd") is not None]
    if not priced:
        return None
    curves = [row for row in priced if row["curve"] is not None and not row["bound"]][:_MOST_CURVES]
    with new_axes() as (figure, axes):
        for row, colour in zip(curves, _CYCLE, strict=False):
            points = np.array(row["curve"]) * (1000, 1)
            points = points[np.argsort(points[:, 0], kind="stable")]
            axes.plot(*points.T, color=colour, linewidth=1.6, marker=".", markersize=4, label=short(row["router"]))
        named = {row["router"] for row in curves}
        for row in priced:
            if row["router"] not in named:
                mark, colour = ("*", _BOUND) if row["bound"] else ("o", "#777777")
                axes.plot(1000 * row["usd"], row["score"], mark, color=colour, markersize=9 if row["bound"] else 4)
                axes.annotate(
                    short(row["router"]),
                    (1000 * row["usd"], row["score"]),
                    xytext=(4, 3),
                    textcoords="offset points",
                    fontsize=6.5,
                )
        axes.set_xlabel("USD per 1,000 questions, with answers thrown away and the router's own")
        axes.set_ylabel("mean score")
        titled(figure, title, under)
        if curves:
            figure.legend(loc="lower center", ncols=4, bbox_to_anchor=(0.53, 0.0))
        return drawn(figure, axes).png


def draw_scaling_of_routers(points: Mapping[str, Mapping[int, Sequence[float]]], title: str, under: str) -> bytes:
    """A PNG of the mean score by pool size: name -> size -> scores of random pools; bands span the pools."""
    with new_axes() as (figure, axes):
        for (name, of), colour in zip(points.items(), _CYCLE * 4, strict=False):
            sizes = sorted(of)
            means = [float(np.mean(of[size])) for size in sizes]
            style = "--" if name in ("oracle", "best-constant") else "-"
            axes.plot(sizes, means, style, color=colour, marker="o", markersize=4, linewidth=1.8, label=short(name))
            low, high = ([float(pick(of[size])) for size in sizes] for pick in (min, max))
            axes.fill_between(sizes, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set_xscale("log")
        sizes = sorted({size for of in points.values() for size in of})
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("candidates in the pool (log scale)")
        axes.set_ylabel("mean score")
        titled(figure, title, under)
        figure.legend(loc="lower center", ncols=4, bbox_to_anchor=(0.53, 0.0))
        return drawn(figure, axes).png
