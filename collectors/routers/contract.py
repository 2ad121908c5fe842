"""The contract of a router: `fit` and `route`.

    class Longest:
        def fit(self, queries, scores, costs, valid):
            self.best = np.nanmean(scores, axis=0).argmax()

        def route(self, queries, candidates):
            return [candidates[self.best] if len(text) > 200 else candidates[0] for text in queries.texts]

`fit` gets arrays of training questions × candidates, in the order of `queries.candidates`: scores with NaN where
`valid` is false, and USD with NaN where unknown. A candidate that is new to the router has a few valid answers, or
none. `route` returns for each query a name of `candidates`, its column, or None to abstain. A router may also have

    estimate(queries, candidates) -> Estimates       expected scores and USD; the board draws its curve from them
    probabilities(queries, candidates) -> (n, c)     of its choice, for RouterEval's E_p
    usd_per_query                                    USD of one routing, such as a call of an encoder

and it may ask for answers before it chooses (`queries.answers.ask`), which are paid for. Its constructor gets the
parameters of the YAML, and `seed` if it takes one. Knows no lake and no metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from collectors.metrics.gaps import row_blocks
from schemas.failures import RouterlakeError, one_line

Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
Columns = npt.NDArray[np.int64]

#: A choice of none.
ABSTAIN = -1
#: Marks of an answer beside its text, before anybody judges it.
OBSERVED = ("usd", "latency_s", "completion_tokens")


class BadChoice(ValueError):
    """A router's choices do not fit the queries and candidates."""


class RouterFailed(RouterlakeError):
    """A router failed where nothing but it was asked for."""


def why(error: BaseException, limit: int = 300) -> str:
    """The message of whatever a router raised, on one line: an error's own text may raise, too."""
    try:
        return " ".join(str(error).split())[:limit] if type(error) is BadChoice else one_line(error, limit)
    except Exception:
        return type(error).__name__


#: Marks by their names.
Marks = dict[str, Floats]


@dataclass
class Answers:
    """The answers that a router may ask for while it routes."""

    #: Name in OBSERVED -> (queries, candidates), NaN where unknown. A router that routes has none of them before it
    #: asks; one that learns, and a bound, has all.
    observed: Marks
    #: (queries, candidates), for a router that is a bound and declares PEEKS; None for all others.
    truth: Floats | None = None
    #: Gives marks, and notes for the board that they were asked for. None: in training nobody pays.
    given: Callable[[npt.NDArray[np.integer[Any]], int], Marks] | None = None

    def ask(self, rows: npt.NDArray[np.integer[Any]], column: int) -> Marks:
        """The marks of one candidate's answers to these queries; each answer is paid for once."""
        return self.given(rows, column) if self.given else _marks(self.observed, rows, column)


class _Unasked(dict[str, Floats]):
    """The marks that a router has before it asks."""

    def __missing__(self, name: str) -> Floats:
        raise BadChoice(
            f"it reads {name!r} of answers that it did not ask for: answers.ask gives the marks of an answer"
        )


class Asking:
    """The board's own marks of all answers to some queries, and its own note of which were asked for."""

    def __init__(self, marks: Marks, truth: Floats | None = None) -> None:
        """`truth` is for a bound."""
        self._marks, self._truth = marks, truth
        self.asked = np.zeros(next(iter(marks.values())).shape, np.bool_)
        for values in marks.values():
            values.flags.writeable = False  # a bound gets them

    def answers(self) -> Answers:
        """What a router gets. Nothing that it writes there changes what the board counts."""
        marks, asked = self._marks, self.asked

        def given(rows: npt.NDArray[np.integer[Any]], column: int) -> Marks:
            asked[rows, column] = True
            return _marks(marks, rows, column)

        return Answers(_Unasked() if self._truth is None else dict(marks), self._truth, given)

    def thrown_away(self, chosen: Columns) -> Mask:
        """(queries, candidates): whether an answer was asked for and not chosen."""
        thrown_away = self.asked.copy()
        rows = np.flatnonzero(chosen != ABSTAIN)
        thrown_away[rows, chosen[rows]] = False
        return thrown_away

    def paid(self, name: str, chosen: Columns) -> Floats:
        """(queries,): the sum of a mark over answers that were asked for and not chosen."""
        thrown_away = self.thrown_away(chosen)
        if not thrown_away.any():
            return np.zeros(len(chosen))
        found: Floats = np.where(thrown_away, self._marks[name], 0).sum(axis=1)
        return found


def _marks(values: Marks, rows: npt.NDArray[np.integer[Any]], column: int) -> Marks:
    return {name: np.array(of[rows, column]) for name, of in values.items()}


@dataclass(frozen=True)
class Queries:
    """Questions to route, or to learn from."""

    ids: list[str]
    tasks: list[str]
    texts: list[str]
    #: Names of the columns that `fit` and `answers` have.
    candidates: list[str]
    #: (queries, dimensions) float64 by the router's encoder; of shape (queries, 0) without one.
    vectors: Floats
    #: Column -> a value for each query, such as its subject.
    metadata: dict[str, list[Any]] = field(default_factory=dict)
    #: In training all answers are there.
    answers: Answers | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: npt.NDArray[Any]) -> Queries:
        """The queries of a mask or of positions, without answers."""
        at = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return replace(
            self,
            ids=[self.ids[row] for row in at],
            tasks=[self.tasks[row] for row in at],
            texts=[self.texts[row] for row in at],
            vectors=self.vectors[at],
            metadata={name: [values[row] for row in at] for name, values in self.metadata.items()},
            answers=None,
        )


@dataclass(frozen=True)
class Estimates:
    """A router's expectation of each candidate."""

    #: (queries, candidates)
    scores: Floats
    #: (queries, candidates) USD; NaN for a candidate whose cost is unknown. None: it estimates none.
    usd: Floats | None = None


class Router(Protocol):
    """See the module's docstring."""

    def fit(self, queries: Queries, scores: Floats, costs: Floats, valid: Mask) -> None: ...

    def route(self, queries: Queries, candidates: Sequence[str]) -> Sequence[Any] | npt.NDArray[Any]: ...


def columns_of(chosen: Any, candidates: Sequence[str], queries: int, left_out: Sequence[str] = ()) -> Columns:
    """(queries,): the columns of a router's choices, or ABSTAIN. Raises BadChoice, naming the first wrong one."""
    values = chosen.tolist() if isinstance(chosen, np.ndarray) else list(chosen)
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    if len(values) != queries:
        raise BadChoice(f"it returned {len(values):,} choices for {queries:,} queries")
    place = {name: column for column, name in enumerate(candidates)}
    columns = np.full(queries, ABSTAIN, np.int64)
    for row, value in enumerate(values):
        if value is None or value is ABSTAIN or (isinstance(value, int) and value == ABSTAIN):
            continue
        if isinstance(value, str):
            if value not in place:
                why = "is left out of the pool" if value in left_out else "is no candidate"
                raise BadChoice(f"query {row}: it chose {value!r}, which {why}")
            columns[row] = place[value]
        elif isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < len(candidates):
                raise BadChoice(f"query {row}: it chose column {value} of {len(candidates)}")
            columns[row] = value
        else:
            raise BadChoice(f"query {row}: it chose {value!r}, neither a name nor a column")
    if ((columns < ABSTAIN) | (columns >= len(candidates))).any():  # a number that says otherwise of itself
        raise BadChoice(f"it chose columns that are none of {len(candidates)}")
    return columns


def checked(estimates: Estimates, shape: tuple[int, int]) -> Estimates:
    """The estimates as float64. Raises BadChoice for another shape, and for a score that is NaN or infinite."""
    scores = np.asarray(estimates.scores, np.float64)
    usd = None if estimates.usd is None else np.asarray(estimates.usd, np.float64)
    for name, values in (("scores", scores), ("usd", usd)):
        if values is not None and values.shape != shape:
            raise BadChoice(f"its estimates of {name} have shape {values.shape} for {shape}")
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0].tolist()
        raise BadChoice(f"query {row}: it expects a score of {scores[row, column]} of column {column}")
    return Estimates(scores, usd)


def means_of(values: Floats, valid: Mask | None = None) -> npt.NDArray[np.float64]:
    """(columns,): the mean of the values that are there; NaN for a column without."""
    counts, sums = np.zeros(values.shape[1], np.int64), np.zeros(values.shape[1])
    for rows in row_blocks(values.shape):  # the arrays of a large pool are there once
        block = values[rows]
        is_known = ~np.isnan(block) if valid is None else valid[rows]
        counts += is_known.sum(axis=0)
        sums += np.where(is_known, block, 0).sum(axis=0, dtype=np.float64)
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def best_of(values: Floats) -> int:
    """The column of the largest value that is known, the first of equals; raises BadChoice without one."""
    if np.isnan(values).all():
        raise BadChoice("no candidate has a score in training")
    return int(np.nanargmax(values))
