"""What runs spent, by the name of a budget: each run writes its account anew every minute, and later runs add them up.

Owns the objects of spend/. Knows nothing of prices and limits. An account also shows that its run is alive.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from dataclasses import dataclass, field

from collectors.lake import layout
from collectors.lake.store import Lake
from schemas.failures import StorageError, one_line

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spent:
    """An amount that one run, or several, spent."""

    #: Dollars for GPU-hours that have a price.
    usd: float = 0.0
    #: GPU-hours without a price.
    unpriced: float = 0.0
    #: Hours of runs.
    hours: float = 0.0
    #: Finished cells.
    cells: int = 0

    def __add__(self, other: Spent) -> Spent:
        mine, more = dataclasses.astuple(self), dataclasses.astuple(other)
        return Spent(*(a + b for a, b in zip(mine, more, strict=True)))


@dataclass
class Accounts:
    """The accounts under one budget's name. Methods raise StorageError if the store does not answer."""

    lake: Lake
    budget: str
    run_id: str
    _number: int = 0
    _mine: list[str] = field(default_factory=list)
    _may_remove: bool = True
    #: Object of another run -> its content. None: damaged.
    _read: dict[str, Spent | None] = field(default_factory=dict)

    def others(self) -> dict[str, Spent]:
        """Returns each other run of this name and its newest account.

        Raises StorageError if that is damaged: the run's spending is not known then, and nothing is less than that.
        """
        numbered = []
        for name in self.lake.names(layout.budget_folder(self.budget), depth=1):
            parsed = layout.parse_spend(name)
            if parsed and parsed[0] != self.run_id:
                numbered.append((*parsed, name))
        newest: dict[str, Spent] = {}
        for run_id, _, name in sorted(numbered, reverse=True):
            if run_id in newest:
                continue
            if spent := self._content(name):
                newest[run_id] = spent
            elif name in self._read:
                raise StorageError(
                    f"{name} in {self.lake.uri} is damaged, so nobody knows what run {run_id} spent of the budget "
                    f"{self.budget!r}: choose another budget.name with what is left, or remove the object to count 0"
                )
        return newest

    def write(self, spent: Spent) -> None:
        """Writes this run's account, and removes those that it replaces where this run may remove objects."""
        name = layout.spend_name(self.budget, self.run_id, self._number)
        self._number += 1
        self.lake.create(name, json.dumps({"run": self.run_id, **dataclasses.asdict(spent)}).encode())
        if self._mine and self._may_remove:
            try:
                self.lake.remove(self._mine)
            except StorageError as error:
                self._may_remove = False
                logger.debug("older accounts stay: %s", one_line(error))
        self._mine = [name]

    def _content(self, name: str) -> Spent | None:
        if name not in self._read:
            try:
                value = json.loads(self.lake.read(name))
                spent = Spent(*(value[field.name] for field in dataclasses.fields(Spent)))
                if not all(0 <= amount < math.inf for amount in dataclasses.astuple(spent)):
                    raise ValueError("an amount is below 0")
                self._read[name] = spent
            except FileNotFoundError:  # replaced meanwhile
                return None
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                logger.warning("%s in %s is damaged: %s", name, self.lake.uri, one_line(error))
                self._read[name] = None
        return self._read[name]


def last_heard(lake: Lake, run_id: str) -> float | None:
    """When a run last wrote its account, by the store's clock in seconds since the epoch; None if it never did."""
    listed = lake.listing(layout.SPEND, depth=2)
    times = [made for name, made in listed.items() if made and (layout.parse_spend(name) or ("",))[0] == run_id]
    return max(times, default=None)
