"""The numbers of the headline figures, against the metrics that they are made of."""

from __future__ import annotations

import json

import numpy as np
import pytest

from collectors.metrics.plane import aiq_code, aiq_paper, convex_hull
from collectors.metrics.scaling import scaling
from collectors.pictures.headline import cost_figure, headline

SCORES = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0], [np.nan, 1, 1]])
USD = np.array([[1, 2, 8], [1, 2, 8], [1, 2, 8], [1, 2, 8], [1, 2, 8]]) / 1000
MODELS = ["small", "middle", "large"]


def test_headline_has_the_curve_the_plane_and_what_was_left_out() -> None:
    found = headline("quiz", "acc", MODELS, SCORES, {"usd": USD}, reference=0.5, draws=7)
    assert found.scaling.oracle.tolist() == scaling(SCORES).oracle.tolist()
    assert (found.scaling.items, found.scaling.left_out) == (4, 1)
    assert found.scores.tolist() == [0.25, 0.25, 0.75]
    assert found.draws.oracle.shape == (7, 3)
    cost = found.cost
    assert cost is not None
    points = np.array([[0.001, 0.25], [0.002, 0.25], [0.008, 0.75]])
    np.testing.assert_allclose(cost.plane.points, points)
    assert (cost.plane.items, cost.plane.left_out, cost.frontier.tolist()) == (4, 1, [0, 2])
    np.testing.assert_allclose(cost.hull, convex_hull(points))
    assert (cost.aiq_paper, cost.aiq_code) == pytest.approx((aiq_paper(points), aiq_code(points)))
    # Right for 1, right for 2, right for 8, and where none is right the cheapest, 1.
    assert cost.oracle == pytest.approx((0.012 / 4, 0.75))
    assert cost.random == pytest.approx((0.011 / 3, 1.25 / 3))


def test_record_is_json_and_its_costs_are_per_1000_items() -> None:
    record = headline("quiz", "acc", MODELS, SCORES, {"usd": USD}, draws=7).record()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["cost"]["models"]["usd_per_1000"] == pytest.approx([1, 2, 8])
    assert record["cost"]["models"]["pareto"] == [True, False, True]
    assert record["cost"]["oracle"] == {"usd_per_1000": pytest.approx(3), "score": 0.75}
    assert record["curves"]["models"] == [1, 2, 3]
    assert record["curves"]["r_o(0)"] == pytest.approx([1.25 / 3] * 3)


def test_cost_figure_leaves_out_models_and_items_without_a_cost() -> None:
    usd = USD.copy()
    usd[:, 1] = np.nan
    usd[0, 2] = np.nan
    found = cost_figure("usd", MODELS, SCORES, usd, 0.7, {})
    assert found is not None
    assert (found.models, found.uncosted) == (["small", "large"], 1)
    # Without middle, no score of these two is missing but that of the last item, and large has no cost of the first.
    assert (found.plane.items, found.plane.left_out) == (3, 2)
    np.testing.assert_allclose(found.plane.points, [[0.001, 0], [0.008, 2 / 3]])
    only_small = cost_figure("usd", MODELS, SCORES, usd, 0.9, {})
    assert only_small is not None
    assert (only_small.models, only_small.aiq_paper) == (["small"], None)
    assert cost_figure("usd", MODELS, SCORES, np.full_like(USD, np.nan), 0.0, {}) is None


def test_headline_takes_latency_where_no_cost_is_known_and_else_says_so() -> None:
    unknown = np.full_like(USD, np.nan)
    found = headline("quiz", "acc", MODELS, SCORES, {"usd": unknown, "latency_s": USD}, draws=1)
    assert found.cost is not None
    assert (found.cost.kind, found.no_cost) == ("latency_s", "")
    neither = headline("quiz", "acc", MODELS, SCORES, {"usd": None, "latency_s": None}, draws=1)
    assert (neither.cost, neither.no_cost) == (None, "no cost and no latency is known")
    assert neither.record()["cost"] is None
    some = headline("quiz", "acc", MODELS, SCORES, {"usd": unknown}, draws=1)
    assert some.no_cost == "no cost is known for the answers to enough items"
