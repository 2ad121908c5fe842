"""A base for engines that can take the next model's weights without being opened anew.

Owns the order of checking, proving and swapping. When a step fails, the model gets a new engine. Subclasses open the
engine, ask it and replace its weights.
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

#: Log-probabilities that differ by no more than this count as equal, in any dtype. Measured differences are 0.0 for
#: every architecture of swapping.ALLOWED in float32 and bfloat16, and 0.016 where biases had kept float32's digits in a
#: bfloat16 engine.
CANARY_TOLERANCE = 1e-5


class LiveEngine(BaseEngine[O]):
    """Swaps in a model of the live engine's group once a canary has passed.

    Until then, and for good if the canary fails, every model of the group gets a new engine.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        #: Group of the live engine, and the digest of its tensors' names and shapes.
        self._group: str | None = None
        self._tensors = ""
        #: The model whose weights it holds, though it need not answer for it; None: random ones, or a swap broke off.
        self._held: ModelRef | None = None
        #: Whether the live engine was opened for swapping.
        self._swaps = False
        #: Groups whose canary passed in this process, and groups that are never swapped in it.
        self._proven: set[str] = set()
        self._distrusted: set[str] = set()
        #: Key of the last model whose weights were read ahead and are sound.
        self._ahead: str | None = None

    def _may_swap(self, options: O) -> bool:
        """Whether weights are swapped on this machine with these options."""
        raise NotImplementedError

    def _put(self, model: ModelRef, tensors: str) -> None:
        """Replaces all weights of the live engine, and drops everything that it computed with the old ones.

        May raise any error. Raises before it changes anything if the files' tensors have another digest than `tensors`.
        """
        raise NotImplementedError

    def _canary(self) -> list[float]:
        """Returns log-probabilities that depend on every weight, for the same prompts in every process."""
        raise NotImplementedError

    def group(self, model: ModelRef) -> str | None:
        """Returns the model's swapping.swap_key."""
        return swap_key(model)

    def prefetch(self, model: ModelRef) -> None:
        """Checks the weights of a model that may be swapped in. Reading them puts them into the page cache.

        May run beside score and generate. Raises ModelError as load would.
        """
        if self._group_of(model):
            check_weights(model)
            self._ahead = model.key

    def load(self, model: ModelRef) -> str:
        """As Engine.load. Raises ModelError also when a model of a group has NaN or infinite weights.

        After such a refusal the live engine stays open for the next model and answers for none until then.
        """
        if self.model and self.model.key == model.key:
            return model.key
        self.model, self.swapped = None, False  # a failed load must leave no model that answers
        self._options = self._options_of(model)
        group = self._group_of(model)
        if group and self._ahead != model.key:
            check_weights(model)
        trouble = None
        live = group is not None and group not in self._distrusted and (group == self._group or group in self._proven)
        if not live or (trouble := self._swap_in(model, str(group))):
            self.close()
            self._open_for(model, group, swaps=False)
        if group and trouble:  # here the new engine has opened, so the swap was at fault and not the model's files
            self._distrusted.add(group)
            logger.warning("model %s and its like get new engines instead of swapped weights: %s", model.name, trouble)
        self.model, self.swapped = model, self._swaps
        return model.key

    def close(self) -> None:
        super().close()
        self._group, self._held, self._swaps = None, None, False

    def _group_of(self, model: ModelRef) -> str | None:
        return self.group(model) if self._may_swap(self._options_of(model)) else None

    def _swap_in(self, model: ModelRef, group: str) -> str | None:
        """Puts `model` into an engine that can be swapped. Returns the error in a line, or None."""
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
        """Replaces the live engine by one that can be swapped. Raises EngineError if the canary fails.

        The new engine starts with random numbers in every tensor, so the canary sees each tensor that a swap leaves
        out; between two models of a family, a tensor that they share would hide the fault. The reference is the first
        model, loaded without a swap. The group's second model thus costs a new engine, and each later one a swap.
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
    """Raises EngineError unless the log-probabilities of two engines agree within CANARY_TOLERANCE."""
    differences = [abs(a - b) for a, b in zip(fresh, swapped, strict=True)]
    wrong = [difference for difference in differences if not difference <= CANARY_TOLERANCE]  # so that NaN counts
    if wrong:
        message = f"{len(wrong)} of {len(differences)} log-probabilities after a swap differ from a new engine's"
        raise EngineError(f"{message} (differences up to {max(wrong):.2g})", "swap_failed")
