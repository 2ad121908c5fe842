"""What a run may spend: dollars, hours, cells; asked before each shard is handed out.

Owns what counts as spent, and the words for it. Knows nothing of Ray, workers or the order of work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from collectors.cell import ShardReport
from collectors.config import BudgetSpec
from collectors.gpus import is_device
from collectors.lake import Lake
from collectors.prices import usd_per_gpu_hour
from schemas.failures import ConfigError


class Budget:
    """Counts from when it is made. `prices`: USD for an hour of each class of GPUs that the run may get."""

    def __init__(
        self, spec: BudgetSpec, prices: Mapping[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._spec, self._prices, self._clock = spec, prices, clock
        self._started = clock()
        self.usd = 0.0
        self.cells = 0

    @property
    def hours(self) -> float:
        return (self._clock() - self._started) / 3600

    def spent(self, report: ShardReport, *, finished: bool = False) -> None:
        """Counts a shard in, and with `finished` its cell. A GPU is paid for while it loads and while it works."""
        self.usd += (report.engine_seconds + report.load_seconds) * self._usd_per_second(report)
        self.cells += finished

    def _usd_per_second(self, report: ShardReport) -> float:
        """Where a shard does not say its GPU, the dearest that the run may have got."""
        if not self._prices:
            return 0.0
        own = [usd for name, usd in self._prices.items() if is_device(name, report.gpu)]
        gpus = 1.0 if report.gpus is None else report.gpus
        return (max(own) if own else max(self._prices.values())) * gpus / 3600

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


def gpu_prices_for(spec: BudgetSpec, lake: Lake, gpus: Collection[str]) -> dict[str, float]:
    """USD for an hour of each class of GPUs, where a budget of dollars asks for it.

    Raises ConfigError where a class has no price, or engines run on no GPUs: such a budget would never be reached.
    """
    if spec.usd is None:
        return {}
    if not gpus:
        raise ConfigError(
            "budget.usd: the run has no GPUs of a class that Ray names, and nothing else has a price; use budget.hours"
        )
    prices = usd_per_gpu_hour(lake, gpus)
    if missing := sorted(set(gpus) - prices.keys()):
        raise ConfigError(
            f"budget.usd: {', '.join(missing)} has no price in the lake: add a table of GPU prices, or the GPU's other "
            "name (price_names), with prices.py, or use budget.hours"
        )
    return prices
