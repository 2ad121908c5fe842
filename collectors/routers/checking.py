"""Whether a submission fits a published version, and whether its choices know the answers.

Owns the version as submissions meet it, its pools and splits each loaded once, and the faults of a submission. Figures
are those of collectors.routers.standings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from collectors.lake.holdings import Holdings
from collectors.lake.reading import ask
from collectors.matrix.pool_files import ChosenPool, choose_pool
from collectors.matrix.routed import VIEWS, read_choices
from collectors.metrics.gaps import NO_CHOICE
from collectors.metrics.leakage import LIMIT, Leakage, leakage
from collectors.publish.manifests import open_published
from collectors.routers.encoders import vectors_of
from collectors.routers.questions import Questions, load_questions, stored_split
from collectors.routers.submissions import Submission
from collectors.routers.trial import Fold
from schemas.failures import ConfigError, one_line
from schemas.identity import digest


@dataclass(frozen=True)
class Basis:
    """The questions that submissions of one pool and split are compared on."""

    pool: str | None
    split: str | None
    questions: Questions
    fold: Fold

    @cached_property
    def vectors(self) -> npt.NDArray[np.float64]:
        return np.asarray(vectors_of("tfidf", self.questions.texts), np.float64)


@dataclass
class Examined:
    """What checking a submission came to."""

    submission: Submission
    basis: Basis | None = None
    #: (test questions,): columns, or NO_CHOICE.
    chosen: npt.NDArray[np.int64] | None = None
    missing: int = 0
    leakage: Leakage | None = None
    #: A line for each reason to keep it off the board.
    faults: list[str] = field(default_factory=list)


class PublishedBasis:
    """A published version, as submissions are checked against it."""

    def __init__(self, uri: str) -> None:
        """Raises ConfigError if there is no version at `uri`."""
        self.lake, self.manifest = open_published(uri)
        self.version = str(self.manifest["version"])
        self._bases: dict[tuple[str | None, str, str | None], Basis] = {}

    @cached_property
    def prices(self) -> tuple[str, int, str | None]:
        """The digest of the price table, its number of rows, and its newest day."""

        def read(con: duckdb.DuckDBPyConnection, _: Holdings) -> list[tuple[Any, ...]]:
            return con.execute("SELECT COLUMNS(*)::VARCHAR FROM prices ORDER BY ALL").fetchall()

        def newest(con: duckdb.DuckDBPyConnection, _: Holdings) -> Any:
            return con.execute("SELECT max(valid_from)::VARCHAR FROM prices").fetchall()[0][0]

        rows = ask(self.lake, read, only=["prices"])
        return digest([list(row) for row in rows]), len(rows), ask(self.lake, newest, only=["prices"])

    def basis(self, submission: Submission) -> Basis:
        """Raises ConfigError for a pool or split that the version does not have."""
        key = (submission.pool, submission.include, submission.split)
        if key not in self._bases:
            questions = load_questions(self.lake, self._pool(submission))
            self._bases[key] = Basis(submission.pool, submission.split, questions, self._fold(submission, questions))
        return self._bases[key]

    def _pool(self, submission: Submission) -> ChosenPool:
        if submission.pool is None:
            return choose_pool(self.lake, None, submission.include, {})
        return choose_pool(self.lake, f"@{submission.pool}", None, {})

    def _fold(self, submission: Submission, questions: Questions) -> Fold:
        every = np.arange(len(questions.ids))
        if submission.split is None:
            return Fold(every, every, 0)
        split = stored_split(self.lake, submission.split, questions)
        return Fold(np.flatnonzero(split.train), np.flatnonzero(split.test), split.seed)

    def examine(self, submission: Submission) -> Examined:
        """Checks a submission. What is wrong with it is a fault, never an error."""
        found = Examined(submission)
        try:
            self._examine(found)
        except (ConfigError, duckdb.Error) as error:
            found.faults.append(one_line(error, 400))
        return found

    def _examine(self, found: Examined) -> None:
        submission = found.submission
        if submission.version not in (None, self.version):
            found.faults.append(f"it is for version {submission.version}, and this is {self.version}")
        if submission.prices not in (None, self.prices[0]):
            found.faults.append(f"it was made with other prices ({submission.prices}) than these ({self.prices[0]})")
        basis = found.basis = self.basis(submission)
        chosen = self._pool(submission)
        choices = ask(
            self.lake,
            lambda con, _: read_choices(con, submission.path),
            only=VIEWS,
            include=chosen.include,
            choice=chosen.choice,
        )
        if len(choices.routers) != 1:
            found.faults.append(f"it has choices of {len(choices.routers)} routers: send one submission for each")
            return
        [router] = choices.routers
        columns = choices.columns(basis.questions.pool, router)
        test = basis.fold.test
        found.chosen = columns[test]
        found.missing = int((found.chosen == NO_CHOICE).sum())
        if found.missing == len(test):
            found.faults.append(f"it has no choice for any of the {len(test):,} test questions")
            return
        found.leakage = self._leakage(basis, columns)
        if found.leakage and found.leakage.knows_answers:
            found.faults.append(leak_line(found.leakage))

    def _leakage(self, basis: Basis, columns: npt.NDArray[np.int64]) -> Leakage | None:
        """None where the metric has no bounds of 0 and 1."""
        scores = basis.questions.pool.scores
        if np.nanmin(scores) < 0 or np.nanmax(scores) > 1:
            return None
        asked = np.full(len(columns), NO_CHOICE, np.int64)
        asked[basis.fold.test] = columns[basis.fold.test]
        return leakage(scores, np.array(basis.questions.tasks), asked, basis.vectors)


def leak_line(found: Leakage) -> str:
    """Why choices count as made with the answers."""
    return (
        f"leakage: the chosen models are right on {found.right:,.0f} of {found.questions:,} questions where the choice "
        f"matters, and {found.expected:,.0f} were expected of these models without the answers; that needs odds "
        f"{found.odds_ratio:g} times as good, and above {LIMIT:g} choices count as made with the answers"
    )


def lines_of(found: Examined, version: PublishedBasis) -> Sequence[str]:
    """What a person reads of a check: version, pool, split, prices, choices and leakage."""
    submission, basis = found.submission, found.basis
    name, rows, day = version.prices
    lines = [
        f"submission {submission.name}, SHA-256 {submission.sha256}",
        f"version {version.version} of {version.lake.uri}",
    ]
    if basis:
        pool, test = basis.questions.pool, basis.fold.test
        lines += [
            f"pool {submission.pool or '(all candidates)'}: {len(pool.candidates):,} candidates, "
            f"{len(basis.questions.ids):,} questions, {len(set(basis.questions.tasks)):,} tasks",
            f"split {submission.split}: {len(test):,} test questions, and {len(basis.fold.train):,} to learn from"
            if submission.split
            else "split: none; figures are on all questions, and nobody can tell which of them the router learned from",
            f"prices {name}: {rows:,} rows{f', the newest of {day}' if day else ''}; {_priced(basis):,} of "
            f"{len(pool.candidates):,} candidates have a price",
        ]
        if found.chosen is not None:
            lines.append(
                f"choices: {len(test) - found.missing:,} of {len(test):,}; {found.missing:,} are missing, and go to "
                "the best constant"
            )
    if found.leakage and not found.leakage.knows_answers:
        lines.append(_plausible(found.leakage))
    return lines


def _priced(basis: Basis) -> int:
    usd = basis.questions.pool.numbers.get("usd")
    return 0 if usd is None else int((~np.isnan(usd)).any(axis=0).sum())


def _plausible(found: Leakage) -> str:
    if found.odds_ratio is None:
        return f"leakage: the choice matters on {found.questions} questions, too few to tell"
    return (
        f"leakage: none is seen: right on {found.right:,.0f} of {found.questions:,} questions where the choice "
        f"matters, and {found.expected:,.0f} were expected; odds {found.odds_ratio:g} times as good explain it (up to "
        f"{LIMIT:g})"
    )
