"""What a run may spend: dollars, hours, cells; asked before each shard is handed out.

Owns what counts as spent, and the words for it. Knows nothing of Ray, workers or the order of work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from collectors.cell import ShardReport
from collectors.config import BudgetSpec
from collectors.lake import Lake
from collectors.prices import gpu_rates, how_to_price
from schemas.failures import ConfigError


@dataclass(frozen=True)
class GpuPrices:
    """USD for an hour of one GPU."""

    #: By each name that the lake prices, in lower case (collectors.prices.gpu_rates).
    rates: Mapping[str, float] = field(default_factory=dict)
    #: Of the dearest that the run may get.
    dearest: float = 0.0

    def of(self, *names: str | None) -> float:
        """By the first of these names that has a price, as collection_costs goes; by none of them, the dearest."""
        own = (self.rates.get(name.lower()) for name in names if name)
        return next((usd for usd in own if usd is not None), self.dearest)


class Budget:
    """Counts from when it is made."""

    def __init__(self, spec: BudgetSpec, prices: GpuPrices, clock: Callable[[], float] = time.monotonic) -> None:
        self._spec, self._prices, self._clock = spec, prices, clock
        self._started = clock()
        self.usd = 0.0
        self.cells = 0

    @property
    def hours(self) -> float:
        return (self._clock() - self._started) / 3600

    def spent(self, report: ShardReport, *, finished: bool = False) -> None:
        """Counts a shard in, as collection_costs does, and with `finished` its cell. A GPU is paid for while it loads
        and while it works."""
        gpus = 1.0 if report.gpus is None else report.gpus
        seconds = report.engine_seconds + report.load_seconds
        self.usd += seconds * gpus * self._prices.of(report.gpu, report.gpu_class) / 3600
        self.cells += finished

    def lost(self, seconds: float, gpus: float, gpu_class: str | None) -> None:
        """Counts the seconds of an engine that died, or failed at what it was given: so many GPUs were paid for."""
        self.usd += seconds * gpus * self._prices.of(gpu_class) / 3600

    def reached(self) -> str | None:
        """Which budget is spent, in words; None while there is more of each."""
        spec = self._spec
        if spec.usd is not None and self.usd >= spec.usd:
            return f"budget.usd: {self.usd:.4g} of {spec.usd:g} USD are spent"
        if spec.hours is not None and self.hours >= spec.hours:
            return f"budget.hours: {self.hours:.4g} of {spec.hours:g} hours have passed"
        if spec.cells is not None and self.cells >= spec.cells:
            return f"budget.cells: {self.cells} of {spec.cells} cells are finished"
        return None


def gpu_prices_for(spec: BudgetSpec, lake: Lake, gpus: Collection[str]) -> GpuPrices:
    """What GPUs cost, where a budget of dollars asks for it; `gpus`: the classes that the run may get.

    Raises ConfigError where a class has no price, or engines run on no GPUs: such a budget would never be reached.
    """
    if spec.usd is None:
        return GpuPrices()
    if not gpus:
        raise ConfigError(
            "budget.usd: the run has no GPUs of a class that Ray names, and nothing else has a price; use budget.hours"
        )
    rates = gpu_rates(lake)
    if missing := sorted(gpu for gpu in gpus if gpu.lower() not in rates):
        raise ConfigError(
            f"budget.usd: {', '.join(missing)} has no price in the lake: use budget.hours, or add it by "
            f"{how_to_price(lake, missing)}"
        )
    return GpuPrices(rates, max(rates[gpu.lower()] for gpu in gpus))
