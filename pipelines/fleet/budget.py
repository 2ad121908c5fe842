"""The budget of a run: dollars, hours and cells. The fleet checks it before it hands out a shard.

Owns the rules of spending and the words for a spent budget. Knows nothing of Ray, workers or the order of work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from collectors.lake.store import Lake
from collectors.prices.tables import gpu_rates, how_to_price
from collectors.runs.config import BudgetSpec
from collectors.runs.work import ShardReport
from schemas.failures import ConfigError


@dataclass(frozen=True)
class GpuPrices:
    """USD for an hour of one GPU."""

    #: GPU name in lower case -> USD per hour, for every name with a price in the lake
    #: (collectors.prices.tables.gpu_rates).
    rates: Mapping[str, float] = field(default_factory=dict)
    #: USD per hour of the dearest class that the run may get.
    dearest: float = 0.0

    def of(self, *names: str | None) -> float:
        """USD per hour, by the first of `names` that has a price. Without one it is the dearest class's price.

        The view collection_costs looks a price up in the same order.
        """
        prices = (self.rates.get(name.lower()) for name in names if name)
        return next((usd for usd in prices if usd is not None), self.dearest)


class Budget:
    """The spending of a run since this object was made."""

    def __init__(self, spec: BudgetSpec, prices: GpuPrices, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec, self._prices, self._clock = spec, prices, clock
        self._started = clock()
        self.usd = 0.0
        self.cells = 0

    @property
    def hours(self) -> float:
        """Hours since this object was made."""
        return (self._clock() - self._started) / 3600

    def spent(self, report: ShardReport, *, finished: bool = False) -> None:
        """Adds a shard's cost by the formula of the view collection_costs; `finished` adds its cell, too.

        A GPU costs money while it loads a model and while it works.
        """
        gpus = 1.0 if report.gpus is None else report.gpus
        seconds = report.engine_seconds + report.load_seconds
        self.usd += seconds * gpus * self._prices.of(report.gpu, report.gpu_class) / 3600
        self.cells += finished

    def lost(self, seconds: float, gpus: float, gpu_class: str | None) -> None:
        """Adds the cost of an engine that died or failed: it held `gpus` GPUs for `seconds`."""
        self.usd += seconds * gpus * self._prices.of(gpu_class) / 3600

    def reached(self) -> str | None:
        """A sentence about the budget that is spent; None while every budget has something left."""
        spec = self._spec
        if spec.usd is not None and self.usd >= spec.usd:
            return f"budget.usd: {self.usd:.4g} of {spec.usd:g} USD are spent"
        if spec.hours is not None and self.hours >= spec.hours:
            return f"budget.hours: {self.hours:.4g} of {spec.hours:g} hours have passed"
        if spec.cells is not None and self.cells >= spec.cells:
            return f"budget.cells: {self.cells} of {spec.cells} cells are finished"
        return None


def gpu_prices_for(spec: BudgetSpec, lake: Lake, gpus: Collection[str]) -> GpuPrices:
    """The prices of `gpus`, the classes that the run may get. Empty without a budget in dollars, which needs them.

    Raises ConfigError if a class has no price or engines run without GPUs: such a budget would never be reached.
    """
    if spec.usd is None:
        return GpuPrices()
    if not gpus:
        raise ConfigError(
            "budget.usd: only GPUs have a price, and Ray reports no GPU class for this run; use budget.hours"
        )
    rates = gpu_rates(lake)
    if missing := sorted(gpu for gpu in gpus if gpu.lower() not in rates):
        raise ConfigError(
            f"budget.usd: the lake has no price for {', '.join(missing)}: use budget.hours, or add one: "
            f"{how_to_price(lake, missing)}"
        )
    return GpuPrices(rates, max(rates[gpu.lower()] for gpu in gpus))
