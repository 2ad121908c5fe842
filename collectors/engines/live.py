"""When a live engine takes the next model's weights instead of being closed and opened anew.

Owns the order of checking, proving and swapping, and what happens when any of it goes wrong: a new engine. Knows
nothing of how an engine is opened, asked or given other weights: its subclasses do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collectors.engines import ModelRef
from collectors.engines.base import BaseEngine, O
from collectors.engines.swapping import check_weights, swap_key, tensors_digest
from schemas.failures import EngineError, one_line

logger = logging.getLogger(__name__)

#: Largest difference of two log-probabilities that is none, in any dtype: measured is 0.0 for every architecture of
#: swapping.ALLOWED, in float32 and bfloat16, and 0.016 where biases had kept float32's digits in a bfloat16 engine.
CANARY_TOLERANCE = 1e-5


class LiveEngine(BaseEngine[O]):
    """A model of the live engine's group is swapped in once a canary has passed; until then, and where it fails, every
    model gets a new engine."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        #: Of the live engine: its group, the digest of its tensors' names and shapes, the model whose weights it holds,
        #: though it need not answer for it (None: no model's, or a swap broke off), and whether it can be swapped.
        self._group: str | None = None
        self._tensors = ""
        self._held: ModelRef | None = None
        self._swaps = False
        #: Groups whose canary passed in this process, and those that are never swapped in it.
        self._proven: set[str] = set()
        self._distrusted: set[str] = set()
        #: Key of the model whose weights were last read ahead and found whole.
        self._ahead: str | None = None

    def _may_swap(self, options: O) -> bool:
        """Whether weights are swapped on this machine with these options."""
        raise NotImplementedError

    def _put(self, model: ModelRef, tensors: str) -> None:
        """Replaces all weights of the live engine, which was opened with `_swaps`, and what it computed with them.

        Raises any error, before it changes anything where the files' tensors have another digest than `tensors`.
        """
        raise NotImplementedError

    def _canary(self) -> list[float]:
        """Log-probabilities that depend on every weight, for the same prompts in every process."""
        raise NotImplementedError

    def group(self, model: ModelRef) -> str | None:
        """See swapping.swap_key."""
        return swap_key(model)

    def prefetch(self, model: ModelRef) -> None:
        """Reads and checks the weights of a model that may be swapped in, so that its load finds them in memory.

        May run beside score and generate. Raises ModelError as load would.
        """
        if self._group_of(model):
            check_weights(model)
            self._ahead = model.key

    def load(self, model: ModelRef) -> str:
        """As every engine's. A model whose weights are refused leaves the live engine to the next, answering for none.

        Raises ModelError also for a model of a group whose weights hold NaN or infinite numbers.
        """
        if self.model and self.model.key == model.key:
            return model.key
        self.model, self.swapped = None, False  # nothing answers until all is done
        self._options = self._options_of(model)
        group = self._group_of(model)
        if group and self._ahead != model.key:
            check_weights(model)
        trouble = None
        live = group is not None and group not in self._distrusted and (group == self._group or group in self._proven)
        if not live or (trouble := self._swap_in(model, str(group))):
            self.close()
            self._open_for(model, group, swaps=False)
        if group and trouble:  # only now: a file that cannot be read fails a new engine too, and is no fault of swaps
            self._distrusted.add(group)
            logger.warning("model %s and its like get new engines, no swapped weights: %s", model.name, trouble)
        self.model, self.swapped = model, self._swaps
        return model.key

    def close(self) -> None:
        super().close()
        self._group, self._held, self._swaps = None, None, False

    def _group_of(self, model: ModelRef) -> str | None:
        return self.group(model) if self._may_swap(self._options_of(model)) else None

    def _swap_in(self, model: ModelRef, group: str) -> str | None:
        """Makes an engine that can be swapped hold `model`; returns what went wrong, if anything did."""
        if self._held and self._held.key == model.key:
            return None
        started = time.monotonic()
        try:
            if group != self._group:
                self.close()
                self._open_for(model, group, swaps=True)
            elif not self._swaps:
                self._prove(group)
            self._exchange(model)
        except Exception as error:
            return one_line(error)
        logger.info("model %s: swapped in within %.2f s", model.name, time.monotonic() - started)
        return None

    def _prove(self, group: str) -> None:
        """Replaces the live engine by one that can be swapped, once. Raises EngineError where the canary fails.

        The new one starts from random numbers in every tensor: whatever a swap leaves out is seen, where between two
        models of one family a tensor that they share would hide it. The reference is the first model as it was loaded,
        without a swap. So the group's second model costs what a new engine costs, the later ones a swap.
        """
        first = self._held
        assert first is not None
        fresh = self._canary()
        self.close()
        self._open_for(first, group, swaps=True)
        self._exchange(first)
        check_canary(fresh, self._canary())
        self._proven.add(group)

    def _open_for(self, model: ModelRef, group: str | None, *, swaps: bool) -> None:
        self._swaps = swaps
        self._open(model)
        self._group, self._held = group, None if swaps else model
        self._tensors = tensors_digest(Path(model.path or "")) if group else ""

    def _exchange(self, model: ModelRef) -> None:
        self._held = None
        self._put(model, self._tensors)
        self._held = model


def check_canary(fresh: Sequence[float], swapped: Sequence[float]) -> None:
    """Raises EngineError unless the log-probabilities of two engines are the same."""
    differences = [abs(a - b) for a, b in zip(fresh, swapped, strict=True)]
    wrong = [difference for difference in differences if not difference <= CANARY_TOLERANCE]  # NaN is no agreement
    if wrong:
        message = f"{len(wrong)} of {len(differences)} log-probabilities after a swap are not a new engine's"
        raise EngineError(f"{message} (differences up to {max(wrong):.2g})", "swap_failed")
