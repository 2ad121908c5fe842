"""RouterArena's score of accuracy and cost (RouteWorks/RouterArena, arXiv 2510.00202). Knows no items."""

from __future__ import annotations

import math

#: The cost score is 1 and 0 at these costs, in USD per 1,000 queries, and beyond them.
CHEAPEST, DEAREST = 0.0044, 200.0


def cost_score(usd_per_1000: float) -> float:
    """C, from 0 at 200 USD per 1,000 queries or more to 1 at 0.0044 or less, linear in the logarithm of the cost.

    Raises ValueError unless the cost is above 0: RouterArena's own code treats 0 as a cost that nobody recorded.
    Source: llm_evaluation/run.py compute_arena_score, C = (log2 200 − log2 c) / (log2 200 − log2 0.0044).
    """
    if not usd_per_1000 > 0:
        raise ValueError(f"a cost of {usd_per_1000} USD per 1,000 queries is unknown, not free")
    cost = min(max(usd_per_1000, CHEAPEST), DEAREST)
    return math.log2(DEAREST / cost) / math.log2(DEAREST / CHEAPEST)


def arena_score(accuracy: float, usd_per_1000: float, beta: float = 0.1) -> float:
    """S = (1 + β) · A · C / (β · A + C), the harmonic mean of accuracy A and `cost_score` C; a low β favours A.

    It is 0 if both are. Raises ValueError for an accuracy outside 0 to 1, and as `cost_score` does. Source: the same.
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy goes from 0 to 1, not {accuracy}")
    cost = cost_score(usd_per_1000)
    weight = beta * accuracy + cost
    return (1 + beta) * accuracy * cost / weight if weight else 0.0
