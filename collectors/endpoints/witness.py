"""Who answered for the cells of an endpoint's model, and what looks wrong in the replies.

Owns the rules of suspicion. Knows nothing of sending.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from collectors.endpoints.replies import answered_by, serves
from schemas.failures import EngineError

logger = logging.getLogger(__name__)

#: Counts that so many different prompts share are suspicious.
CONSTANT = 10


class Witness:
    """One per model. `url` is named in messages, `asked` is the model that should answer."""

    def __init__(self, url: str, asked: str) -> None:
        self._url, self._asked = url, asked
        #: (cell, who answered) -> requests, since the last look.
        self._answered: Counter[tuple[str, str]] = Counter()
        #: Cell -> who has answered.
        self._known: dict[str, set[str]] = {}
        self._suspicions: list[dict[str, str]] = []

    def saw(self, reply: dict[str, Any], cell: str) -> None:
        """Raises EngineError where another model answered than the one asked for, or two in one cell."""
        who = answered_by(reply)
        if not serves(self._asked, who.get("model")):
            raise EngineError(f"asked {self._url} for {self._asked}, {who['model']} answered", "wrong_model")
        text = json.dumps(who, sort_keys=True)
        self._answered[cell, text] += 1
        known = self._known.setdefault(cell, set())
        if text in known:
            return
        known.add(text)
        models = sorted({str(json.loads(one).get("model")) for one in known})
        if len(models) > 1:
            raise EngineError(f"{self._url} changed its model inside a cell: {', '.join(models)}", "wrong_model")
        if len(known) > 1:
            self.suspect("changed_endpoint", f"the cell was answered by {' and '.join(sorted(known))}", cell)

    def counted(self, cell: str, stated: Sequence[tuple[int, int | None, int | None]]) -> None:
        """Suspects counts that are the same for prompts of many lengths: (length, prompt and completion tokens)."""
        lengths, counts = {length for length, _, _ in stated}, {(prompt, made) for _, prompt, made in stated}
        if len(stated) >= CONSTANT and len(lengths) > CONSTANT // 2 and len(counts) == 1:
            [(prompt, made)] = counts
            if prompt is not None:
                message = f"{len(stated)} prompts of {len(lengths)} lengths all have {prompt} and {made} tokens"
                self.suspect("constant_usage", message, cell)

    def suspect(self, kind: str, message: str, cell: str) -> None:
        """Each kind is named once for a cell until the next look."""
        if all((one["kind"], one["cell"]) != (kind, cell) for one in self._suspicions):
            logger.warning("%s: %s", kind, message)
            self._suspicions.append({"kind": kind, "message": message, "cell": cell})

    def take(self, cell: str) -> dict[str, Any]:
        """Who answered for a cell, and its suspicions, since the last call."""
        mine = {who: count for (of, who), count in self._answered.items() if of == cell}
        suspicions = [
            {"kind": one["kind"], "message": one["message"]} for one in self._suspicions if one["cell"] == cell
        ]
        self._answered = Counter({key: count for key, count in self._answered.items() if key[0] != cell})
        self._suspicions = [one for one in self._suspicions if one["cell"] != cell]
        return {
            "answered": [{**json.loads(who), "requests": count} for who, count in sorted(mine.items())],
            "suspicions": suspicions,
        }
