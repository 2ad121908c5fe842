"""Whether a submission fits a published version, and whether its choices know the answers.

Owns the version as submissions meet it, its pools and splits each loaded once, and the faults of a submission. Records
of a model are read by collectors.routers.sent_models. Figures are those of collectors.routers.standings and ranking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from collectors.lake.holdings import Holdings
from collectors.lake.reading import ask
from collectors.matrix.item_rows import VIEWS
from collectors.matrix.pool_files import ChosenPool, choose_pool, kept_pools
from collectors.matrix.routed import read_choices
from collectors.matrix.sent_records import most_rows
from collectors.metrics.gaps import NO_CHOICE
from collectors.metrics.leakage import LEAST, LIMIT, SUSPICIOUS, Leakage, leakage
from collectors.publish.manifests import open_published
from collectors.publish.whole import check_whole
from collectors.routers.encoders import vectors_of
from collectors.routers.questions import Questions, load_questions, stored_split
from collectors.routers.sent_models import Everyone, SentModel, everyone, examine_records
from collectors.routers.submissions import RECORDS, Submission
from collectors.routers.trial import Fold
from schemas.failures import ConfigError, one_line
from schemas.identity import digest

#: Most tasks that a line names.
_MOST_TASKS = 5


@dataclass(frozen=True)
class Basis:
    """The questions that submissions of one pool and split are compared on."""

    pool: str | None
    #: Which records its candidates have, a key of schemas.views.INCLUDED.
    include: str
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
    #: None where there are no choices.
    leakage: Leakage | None = None
    #: The records of a model; None for choices.
    sent: SentModel | None = None
    #: A line for each reason to keep it off the board.
    faults: list[str] = field(default_factory=list)


class PublishedBasis:
    """A published version, as submissions are checked against it."""

    def __init__(self, uri: str) -> None:
        """Raises ConfigError if there is no version at `uri`, or one of its files is not the manifest's."""
        self.lake, self.manifest = open_published(uri)
        check_whole(self.lake, self.manifest)
        self.version = str(self.manifest["version"])
        self._bases: dict[tuple[str | None, str | None, str | None], Basis] = {}
        #: As above, but by a basis's content: two kinds of records may make one pool.
        self._contents: dict[tuple[str | None, str | None, str], Basis] = {}
        #: By the id of a basis.
        self._everyone: dict[int, Everyone] = {}

    @cached_property
    def include(self) -> str:
        """The kind of records that the version holds, a key of schemas.views.INCLUDED."""

        def kinds(con: duckdb.DuckDBPyConnection, _: Holdings) -> list[tuple[bool]]:
            return con.execute("SELECT DISTINCT imported_from IS NOT NULL FROM cells").fetchall()

        there = ask(self.lake, kinds, only=["cells"], include="all")
        return "all" if len(there) == 2 else "imported" if there == [(True,)] else "collected"

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
            chosen = self._pool(submission)
            questions = load_questions(self.lake, chosen)
            fold = self._fold(submission, questions)
            basis = Basis(submission.pool, chosen.include, submission.split, questions, fold)
            content = (submission.pool, submission.split, _content(questions))
            self._bases[key] = self._contents.setdefault(content, basis)
        return self._bases[key]

    def _pool(self, submission: Submission) -> ChosenPool:
        if submission.pool is None:
            return choose_pool(self.lake, None, submission.include, {}, self.include)
        if submission.pool not in self._kept:
            raise ConfigError(f"pool: no {submission.pool!r} is in the version{self._advice()}")
        kept = choose_pool(self.lake, f"@{submission.pool}", None, {})
        if submission.include not in (None, kept.include):
            raise ConfigError(
                f"include: the pool {submission.pool} has {kept.include} records, not {submission.include}"
            )
        return kept

    @cached_property
    def _kept(self) -> list[str]:
        return kept_pools(self.lake)

    @cached_property
    def _splits(self) -> list[str]:
        query = "SELECT DISTINCT split FROM splits ORDER BY split"
        return [name for (name,) in ask(self.lake, lambda con, _: con.execute(query).fetchall(), only=["splits"])]

    def _advice(self) -> str:
        """What a sender, or the board's keeper, does about a pool that does not serve."""
        if self._kept:
            return f"; a submission's key pool names one that the version keeps: {', '.join(self._kept)}"
        return "; the version keeps no pool that a submission may name: its keeper adds them (publish.py --pools)"

    def _told(self, error: Exception, submission: Submission) -> str:
        """The message of an error without a place, which is another for everybody.

        An advice names options of other commands, which a sender lacks.
        """
        advice = ""
        if isinstance(error, ConfigError) and error.advice:
            error, advice = error.without_advice(), self._advice()
        text = one_line(error, 400).replace(str(submission.path), submission.path.name)
        return text.replace(f"version at {self.lake.uri}", "version") + advice

    def _fold(self, submission: Submission, questions: Questions) -> Fold:
        every = np.arange(len(questions.ids))
        if submission.split is None:
            return Fold(every, every, 0)
        if submission.split not in self._splits:
            known = ", ".join(self._splits) or "none"
            raise ConfigError(f"split: no {submission.split!r} is in the version; those it has: {known}")
        split = stored_split(self.lake, submission.split, questions)
        return Fold(np.flatnonzero(split.train), np.flatnonzero(split.test), split.seed)

    def examine(self, submission: Submission) -> Examined:
        """Checks a submission. What is wrong with it is a fault, never an error."""
        found = Examined(submission)
        try:
            self._examine(found)
        except (ConfigError, duckdb.Error) as error:
            found.faults.append(self._told(error, submission))
        return found

    def _examine(self, found: Examined) -> None:
        submission = found.submission
        if submission.version not in (None, self.version):
            found.faults.append(f"it is for version {submission.version}, and this is {self.version}")
        if submission.prices not in (None, self.prices[0]):
            found.faults.append(f"it was made with other prices ({submission.prices}) than these ({self.prices[0]})")
        basis = found.basis = self.basis(submission)
        chosen = self._pool(submission)
        if submission.kind == RECORDS:
            self._examine_records(found, basis, chosen)
            return
        choices = ask(
            self.lake,
            lambda con, _: read_choices(con, submission.path, most=most_rows(basis.questions.pool)),
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
        if found.leakage.knows_answers:
            found.faults.append(leak_line(found.leakage))

    def _examine_records(self, found: Examined, basis: Basis, chosen: ChosenPool) -> None:
        submission = found.submission
        if id(basis) not in self._everyone:
            self._everyone[id(basis)] = everyone(self.lake, basis, chosen)
        known = self._everyone[id(basis)]
        if alike(submission.name) in {alike(name) for name in (*known.candidates, *known.models)}:
            found.faults.append(f"the name {submission.name!r} is taken by a model of the version")
        found.sent, faults = examine_records(self.lake, submission, basis, chosen, known)
        found.faults += [self._told(ConfigError(fault), submission) for fault in faults]

    def _leakage(self, basis: Basis, columns: npt.NDArray[np.int64]) -> Leakage:
        scores = basis.questions.pool.scores
        asked = np.full(len(columns), NO_CHOICE, np.int64)
        asked[basis.fold.test] = columns[basis.fold.test]
        return leakage(scores, np.array(basis.questions.tasks), asked, basis.vectors)


def alike(name: str) -> str:
    """A name without characters that a reader does not see."""
    return " ".join(name.casefold().split())


def _content(questions: Questions) -> str:
    """A digest of the candidates, the questions and their numbers."""
    pool = questions.pool
    names = digest([pool.candidates, questions.tasks, questions.ids])
    arrays = (pool.scores, *(pool.numbers[name] for name in sorted(pool.numbers)))
    return hashlib.sha256(b"".join([names.encode(), *(values.tobytes() for values in arrays)])).hexdigest()


def leak_line(found: Leakage) -> str:
    """Why choices count as made with the answers."""
    needed = _needed(found, found.refused_tasks, LIMIT)
    return f"leakage: {_counted(found)}; {needed} choices count as made with the answers"


def _counted(found: Leakage) -> str:
    return (
        f"the chosen models are right on {found.right:,.0f} of {found.questions:,} questions where the choice matters, "
        f"and {found.expected:,.0f} were expected of these models without the answers"
    )


def _needed(found: Leakage, tasks: Sequence[str], limit: float) -> str:
    """The odds that all choices need, or those of single tasks."""
    if found.odds_ratio is not None and found.odds_ratio > limit:
        return f"that needs odds {found.odds_ratio:g} times as good, and above {limit:g}"
    named = ", ".join(tasks[:_MOST_TASKS]) + (f" and {len(tasks) - _MOST_TASKS:,} more" * (len(tasks) > _MOST_TASKS))
    return f"of {named} alone they need odds over {limit:g} times as good, and above that"


def verdict_on(found: Examined) -> str:
    """What a board has on leakage, in a word or two."""
    if found.leakage is None or found.leakage.odds_ratio is None:
        return "not checked"
    if found.leakage.knows_answers:
        return "refused"
    return "suspicious" if found.leakage.is_suspicious else "none is seen"


def lines_of(found: Examined, version: PublishedBasis) -> Sequence[str]:
    """What a person reads of a check: version, pool, split, prices, choices and leakage, or records and suspicions."""
    submission, basis = found.submission, found.basis
    name, rows, day = version.prices
    lines = [
        f"submission {submission.name}, SHA-256 {submission.sha256}",
        f"version {version.version} of {version.lake.uri}",
    ]
    if basis:
        pool, test = basis.questions.pool, basis.fold.test
        lines += [
            f"pool {submission.pool or '(all candidates)'}, {basis.include} records: {len(pool.candidates):,} "
            f"candidates, {len(basis.questions.ids):,} questions of {_tasks(basis.questions.tasks)}",
            f"split {submission.split}: {len(test):,} test questions, and {len(basis.fold.train):,} to learn from"
            if submission.split
            else "split: none; figures are on all questions, and nobody can tell which of them "
            f"the {'model' if submission.kind == RECORDS else 'router'} learned from",
            f"prices {name}: {rows:,} rows of a price table{f', the newest of {day}' if day else ''}; "
            f"{_priced(basis):,} of {len(pool.candidates):,} candidates have a cost, by it or stated by their source",
        ]
        if found.chosen is not None:
            lines.append(
                f"choices: {len(test) - found.missing:,} of {len(test):,}; {found.missing:,} are missing, and go to "
                "the best constant"
            )
    if found.sent:
        lines += [*found.sent.lines, *found.sent.namesakes]
        lines += [f"suspicious ({kind}): {line}" for kind, line in found.sent.suspicions]
    if found.leakage and not found.leakage.knows_answers:
        lines.append(_plausible(found.leakage))
    return lines


def _tasks(names: Sequence[str]) -> str:
    different = len(set(names))
    return f"the task {names[0]}" if different == 1 else f"{different:,} tasks"


def _priced(basis: Basis) -> int:
    usd = basis.questions.pool.numbers.get("usd")
    return 0 if usd is None else int((~np.isnan(usd)).any(axis=0).sum())


def _plausible(found: Leakage) -> str:
    if found.odds_ratio is None:
        return f"leakage: not checked: the choice matters on {found.questions} questions, and {LEAST} are needed"
    if found.is_suspicious:
        needed = _needed(found, found.suspicious_tasks, SUSPICIOUS)
        return f"leakage: suspicious: {_counted(found)}; {needed} compare with the router's choices on new questions"
    return (
        f"leakage: none is seen: right on {found.right:,.0f} of {found.questions:,} questions where the choice "
        f"matters, and {found.expected:,.0f} were expected; odds {found.odds_ratio:g} times as good explain it "
        f"(suspicious above {SUSPICIOUS:g}, refused above {LIMIT:g})"
    )
