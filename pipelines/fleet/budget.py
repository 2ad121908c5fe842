"""The budget of a run: dollars, hours and cells, its own and those of earlier runs under the same name.

Owns the rules of spending and the words for a spent budget. A GPU costs money from the start of its engine's process to
its end, whatever the engine does. Knows nothing of Ray or the order of work.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from collectors.engines import ModelRef
from collectors.lake.spend import Accounts, Spent
from collectors.lake.store import Lake
from collectors.prices.tables import gpu_rates, how_to_price, token_prices
from collectors.runs.config import BudgetSpec
from schemas.failures import ConfigError, StorageError, one_line

logger = logging.getLogger(__name__)

#: Seconds between two accounts in the lake, and the least pause as a multiple of the time that one takes.
ACCOUNT_SECONDS, ACCOUNT_SHARE = 60.0, 20.0
#: Share of a limit at which a warning is logged.
WARNED_AT = 0.8


@dataclass(frozen=True)
class GpuPrices:
    """USD for an hour of one GPU."""

    #: GPU name in lower case -> USD per hour, for every name with a price in the lake
    #: (collectors.prices.tables.gpu_rates).
    rates: Mapping[str, float] = field(default_factory=dict)
    #: USD per hour of the dearest class that the run may get; None: without a price GPU-hours are counted alone.
    dearest: float | None = None

    def of(self, *names: str | None) -> float | None:
        """USD per hour, by the first of `names` that has a price. Without one it is the dearest class's price.

        The view collection_costs looks a price up in the same order.
        """
        prices = (self.rates.get(name.lower()) for name in names if name)
        return next((usd for usd in prices if usd is not None), self.dearest)


@dataclass
class _Held:
    """GPUs that one engine has."""

    since: float
    gpus: float
    rate: float | None
    #: Key of the model that the engine loads or asks.
    model: str | None = None


@dataclass(frozen=True)
class _Limit:
    """One limit, the spent part of it, and both in words."""

    key: str
    spent: float
    most: float
    words: str


class Budget:
    """The spending of a run since this object was made, and of other runs under the budget's name."""

    def __init__(
        self,
        spec: BudgetSpec,
        prices: GpuPrices,
        accounts: Accounts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises StorageError if there is a limit and the accounts of earlier runs cannot be read."""
        self._spec, self._prices, self._accounts, self._clock = spec, prices, accounts, clock
        self._started = clock()
        self._next_account = self._started + ACCOUNT_SECONDS
        self._own = Spent()
        self._others = self._others_at_start()
        self._held: dict[Hashable, _Held] = {}
        #: Model key -> dollars and hours of engines.
        self._usd_of: defaultdict[str, float] = defaultdict(float)
        self._hours_of: defaultdict[str, float] = defaultdict(float)
        self._warned: set[str] = set()

    # ---- spending

    def hold(self, engine: Hashable, gpus: float, gpu_class: str | None) -> None:
        """An engine's process has started and holds `gpus` GPUs."""
        self._held[engine] = _Held(self._clock(), gpus, self._prices.of(gpu_class))

    def works(self, engine: Hashable, model: str) -> None:
        """The engine turns to a model."""
        self._charge(self._held[engine])
        self._held[engine].model = model

    def named(self, engine: Hashable, *names: str | None) -> None:
        """The engine's GPU has these names; the first with a price counts, for time not charged yet, too."""
        if any(name and name.lower() in self._prices.rates for name in names):
            self._held[engine].rate = self._prices.of(*names)

    def free(self, engine: Hashable) -> None:
        """The engine's process has ended."""
        if held := self._held.pop(engine, None):
            self._charge(held)

    def paid(self, model: str, usd: float) -> None:
        """A model's endpoint was paid."""
        self._own += Spent(usd=usd)
        self._usd_of[model] += usd

    @property
    def left(self) -> float | None:
        """Dollars that may still be spent; None: no limit."""
        return None if self._spec.usd is None else max(0.0, self._spec.usd - self.total.usd)

    def finished(self, cells: int = 1) -> None:
        self._own += Spent(cells=cells)

    def _charge(self, held: _Held) -> None:
        now = self._clock()
        hours = (now - held.since) / 3600
        held.since = now
        usd = hours * held.gpus * held.rate if held.rate is not None else 0.0
        self._own += Spent(usd=usd, unpriced=hours * held.gpus if held.rate is None else 0.0)
        if held.model:
            self._usd_of[held.model] += usd
            self._hours_of[held.model] += hours

    @property
    def usd(self) -> dict[str, float]:
        """Dollars of this run, of all runs of the budget, and the limit if there is one."""
        limit = {} if self._spec.usd is None else {"limit": self._spec.usd}
        return {"run": self.own.usd, "budget": self.total.usd, **limit}

    # ---- accounts

    @property
    def own(self) -> Spent:
        """What this run has spent by now."""
        for held in self._held.values():
            self._charge(held)
        return self._own + Spent(hours=(self._clock() - self._started) / 3600)

    @property
    def total(self) -> Spent:
        """What all runs of this name have spent. GPU-hours of others without a price count as the dearest class's."""
        both = self.own + self._others
        return both + Spent(usd=self._others.unpriced * (self._prices.dearest or 0.0))

    def tick(self) -> None:
        """Writes the account, reads those of others, and warns of limits that are near. Call it often."""
        if self._clock() >= self._next_account:
            self.account()
        for limit in self._limits():
            if limit.spent >= WARNED_AT * limit.most and limit.key not in self._warned:
                self._warned.add(limit.key)
                logger.warning("budget.%s: %s, %.0f %%", limit.key, limit.words, 100 * limit.spent / limit.most)

    def account(self) -> None:
        """Writes the account and reads those of others. Where the store does not answer, the next one does."""
        began = self._clock()
        try:
            if self._accounts:
                self._accounts.write(self.own)
            self._others = self._sum_of_others()
        except StorageError as error:
            logger.warning("the budget's account waits for the store: %s", one_line(error))
        now = self._clock()
        self._next_account = now + max(ACCOUNT_SECONDS, ACCOUNT_SHARE * (now - began))

    def close(self) -> None:
        """Writes the last account of a run."""
        for engine in list(self._held):
            self.free(engine)
        self.account()

    def _others_at_start(self) -> Spent:
        try:
            return self._sum_of_others()
        except StorageError as error:
            if {self._spec.usd, self._spec.hours, self._spec.cells} != {None}:
                raise
            logger.warning("what earlier runs spent is left out: %s", one_line(error))
            return Spent()

    def _sum_of_others(self) -> Spent:
        return sum(self._accounts.others().values(), Spent()) if self._accounts else Spent()

    # ---- limits

    def _limits(self) -> Iterator[_Limit]:
        spec, total, earlier = self._spec, self.total, ""
        if self._others != Spent():
            earlier = f" by all runs under the name {spec.name!r}"
        if spec.usd is not None:
            yield _Limit("usd", total.usd, spec.usd, f"{total.usd:.4g} of {spec.usd:g} USD are spent{earlier}")
        if spec.hours is not None:
            hours = f"{total.hours:.4g} of {spec.hours:g} hours have passed{earlier and ' in'}{earlier[3:]}"
            yield _Limit("hours", total.hours, spec.hours, hours)
        if spec.cells is not None:
            words = f"{total.cells} of {spec.cells} cells are finished{earlier}"
            yield _Limit("cells", total.cells, spec.cells, words)

    def reached(self) -> str | None:
        """A sentence about the budget that is spent; None while every budget has something left."""
        return next((f"budget.{one.key}: {one.words}" for one in self._limits() if one.spent >= one.most), None)

    def over_cap(self, model: str) -> str | None:
        """A sentence about a model, by its key, that has spent what one model may; None if it has not."""
        spec = self._spec
        if spec.model_usd is None and spec.model_hours is None:
            return None
        for held in self._held.values():
            self._charge(held)
        usd, hours = self._usd_of[model], self._hours_of[model]
        if spec.model_usd is not None and usd >= spec.model_usd:
            return f"budget.model_usd: the model has spent {usd:.4g} of {spec.model_usd:g} USD"
        if spec.model_hours is not None and hours >= spec.model_hours:
            return f"budget.model_hours: engines had the model for {hours:.4g} of {spec.model_hours:g} hours"
        return None


def host_prices_for(spec: BudgetSpec, lake: Lake, models: Collection[ModelRef]) -> dict[str, dict[str, float | None]]:
    """Model key -> the prices of its endpoint's tokens; empty: unpriced. A limit in dollars needs a price for each.

    Raises ConfigError if one has none.
    """
    hosted = [model for model in models if model.endpoint]
    prices = {model.key: token_prices(lake, (model.name, model.source)) for model in hosted}
    missing = sorted({model.name for model in hosted if not prices[model.key]})
    if missing and (spec.usd is not None or spec.model_usd is not None):
        raise ConfigError(
            f"budget.usd: the lake has no price for {', '.join(missing)}: add a table with columns model, provider, "
            "usd_per_million_prompt, usd_per_million_completion, valid_from and source by prices.py"
        )
    return prices


def gpu_prices_for(spec: BudgetSpec, lake: Lake, gpus: Collection[str], *, hosted: bool = False) -> GpuPrices:
    """The prices of `gpus`, the classes that the run may get. A limit in dollars needs a price for each.

    Raises ConfigError if a class has no price or engines run without GPUs: such a limit would never be reached, unless
    endpoints (`hosted`) are paid.
    """
    is_limited = spec.usd is not None or spec.model_usd is not None
    if not is_limited:
        return GpuPrices(gpu_rates(lake) if gpus else {})
    if not gpus and hosted:
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
