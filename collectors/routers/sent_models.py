"""Whether the records of a model fit a published version, and what about them is suspicious.

Owns the scores that a task can have, the cost of each answer, and the kinds of suspicions. What keeps records off a
board is a fault; a suspicion is shown beside them and keeps nothing off. Knows no ranks (collectors.routers.ranking).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt

from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.pool_arrays import Pool
from collectors.matrix.pool_files import ChosenPool
from collectors.matrix.pools import load_pools
from collectors.matrix.sent_records import VIEWS, SentRecords, counted, first_places, read_records
from collectors.metrics.likeness import LEAST, copied
from collectors.metrics.resampling import LEVEL, resample
from collectors.routers.outcomes import oracle_scores
from schemas.views import PoolChoice, view_files

if TYPE_CHECKING:
    from collectors.routers.checking import Basis
    from collectors.routers.submissions import Submission

Values = npt.NDArray[np.float64]

#: Views that the price of a model is read from, and the view whose rule chooses it.
_PRICES, _RULE = ("prices", "price_names", "_serving_usd"), "model_prices"
#: Questions, tasks and candidates that a line names.
_MOST = 3


class Suspicion(NamedTuple):
    """What looks wrong about records and may be right."""

    #: copy, constant or above the oracle.
    kind: str
    line: str


@dataclass(frozen=True)
class Everyone:
    """All models of a version, on the questions of a basis."""

    candidates: list[str]
    #: (candidates,): the names of their models.
    models: list[str]
    #: (questions, candidates): NaN where unknown.
    scores: npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class SentModel:
    """The records of a model on the questions of a basis."""

    records: SentRecords
    #: (questions,): USD of each answer, NaN where unknown.
    usd: Values
    #: Candidates of the version that have the same model's name, with what they have in common.
    namesakes: list[str]
    suspicions: list[Suspicion]
    #: Lines on the records, on what is missing and on their cost.
    lines: list[str]

    @property
    def scores(self) -> Values:
        return self.records.scores


def examine_records(
    lake: Lake, submission: Submission, basis: Basis, chosen: ChosenPool, known: Everyone
) -> tuple[SentModel, list[str]]:
    """What the records of a submission come to, and its faults. Raises ConfigError for a file that is no such table."""
    pool, test = basis.questions.pool, basis.fold.test
    model = submission.model or submission.name

    def read(con: duckdb.DuckDBPyConnection, _: Any) -> tuple[SentRecords, Values, str]:
        records = read_records(con, submission.path, pool)
        return records, *_costs(con, model, records)

    only = (*VIEWS, *_PRICES)
    records, usd, cost = ask(lake, read, only=only, include=chosen.include, choice=chosen.choice)
    faults = [*records.wrong, *_impossible(pool, basis.questions.tasks, records)]
    has = ~np.isnan(records.scores)
    if not has[test].any():
        faults.append(f"it has no score for any of the {len(test):,} test questions")
    same = np.array([name.casefold() == model.casefold() for name in known.models], np.bool_)
    sent = SentModel(
        records,
        usd,
        [_agreement(known, records.scores, column) for column in np.flatnonzero(same)],
        [] if faults else list(_suspicions(basis, records, known, same)),
        [*_answered(basis, records), cost],
    )
    return sent, faults


# ---- scores that a task can have


def _impossible(pool: Pool, tasks: Sequence[str], records: SentRecords) -> Iterator[str]:
    """A line for each task whose scores are of another kind than those that are sent, or beyond its metric's range."""
    names, of = np.unique(np.array(tasks, object).astype(str), return_inverse=True)
    cells = pool.cells.select(["task", "has_score_range", "score_low", "score_high", "correct_threshold"]).to_pylist()
    for place, task in enumerate(names.tolist()):
        rows = np.flatnonzero((of == place) & ~np.isnan(records.scores))
        stored, sent = pool.scores[of == place], records.scores[rows]
        stored = stored[~np.isnan(stored)]
        low, high = _range([cell for cell in cells if cell["task"] == task], stored)
        beyond = rows[(sent < low) | (sent > high)]
        if len(beyond):
            what = f"beyond {low:g} to {high:g}"
        elif np.isin(stored, (0.0, 1.0)).all():
            beyond, what = rows[~np.isin(sent, (0.0, 1.0))], "neither 0 nor 1, as all scores of the version are"
        if len(beyond):
            yield f"task {task}: {counted(len(beyond), 'score')} {what}: {first_places(records, beyond)}"


def _range(cells: Sequence[dict[str, Any]], stored: npt.NDArray[np.floating[Any]]) -> tuple[float, float]:
    """The range of a task's scores: as its cells state it, or as the view leaderboard takes it."""
    if all(cell["has_score_range"] for cell in cells):
        lows, highs = ([cell[name] for cell in cells] for name in ("score_low", "score_high"))
        return (
            -np.inf if None in lows else min(lows),
            np.inf if None in highs else max(highs),
        )
    thresholds = [cell["correct_threshold"] for cell in cells]
    in_unit = all(one is not None and 0 < one <= 1 for one in thresholds)
    return (0.0, 1.0) if in_unit and stored.min() >= 0 and stored.max() <= 1 else (-np.inf, np.inf)


# ---- what is there


def _answered(basis: Basis, records: SentRecords) -> Iterator[str]:
    has, test = ~np.isnan(records.scores), basis.fold.test
    line = f"records: {int(has.sum()):,} of the pool's {len(has):,} questions"
    if len(test) < len(has):
        line += f", {int(has[test].sum()):,} of the {len(test):,} test questions"
    rest = [
        f"{counted(number, 'row')} {what}"
        for number, what in (
            (records.empty, "without a score"),
            (records.outside, "of questions that do not count in the pool"),
        )
        if number
    ]
    yield "; ".join([line, *rest, *([records.repeated] if records.repeated else [])])
    missing = test[~has[test]]
    if len(missing):
        questions = basis.questions
        items = basis.questions.pool.items
        some = [f"{questions.tasks[row]} item {items[row]} ({questions.ids[row]})" for row in missing[:_MOST].tolist()]
        yield (
            f"missing: {counted(len(missing), 'test question')}, and a model that lacks any has no rank: "
            f"{', '.join(some)}" + ", …" * (len(missing) > len(some))
        )


def _costs(con: duckdb.DuckDBPyConnection, model: str, records: SentRecords) -> tuple[Values, str]:
    """(questions,) USD of the answers as the view costs has them, and a line on where they are from.

    By the version's prices and its rule of a model's price, else as the sender states.
    """
    con.execute(
        "CREATE OR REPLACE TEMP TABLE _sized_cells AS "
        "SELECT $model AS model, $model AS source, NULL::BIGINT AS parameters",
        {"model": model},
    )
    con.execute(f"CREATE OR REPLACE TEMP TABLE price_of_model AS {view_files()[_RULE].query}")
    numbers = records.numbers
    con.register("given", {name: numbers[name] for name in ("prompt_tokens", "completion_tokens")})
    usd = (
        con.execute(
            """
        SELECT coalesce(_serving_usd(
            CASE WHEN NOT isnan(prompt_tokens) THEN prompt_tokens END, NULL, NULL,
            CASE WHEN NOT isnan(completion_tokens) THEN completion_tokens END, NULL, NULL,
            usd_per_million_prompt, NULL, NULL, usd_per_million_completion, NULL, usd_per_request
        ), 'nan'::DOUBLE) AS usd
        FROM given, price_of_model
        """
        )
        .to_arrow_table()["usd"]
        .to_numpy()
    )
    con.unregister("given")
    [(price, provider, basis)] = con.execute("SELECT price_model, provider, basis FROM price_of_model").fetchall()
    has = ~np.isnan(records.scores)
    by_price, stated = has & ~np.isnan(usd), has & np.isnan(usd) & ~np.isnan(numbers["usd"])
    known = f"the price of {price} by {provider} ({basis})" if basis else f"no price of {model} is in the version"
    parts = [
        f"{number:,} {what}"
        for number, what in (
            (int(by_price.sum()), "by tokens"),
            (int(stated.sum()), "as stated"),
            (int((has & ~by_price & ~stated).sum()), "unknown"),
        )
        if number
    ]
    line = f"cost: {known}; answers: {', '.join(parts) or 'none'}"
    return np.where(by_price, usd, np.where(stated, numbers["usd"], np.nan)), line


# ---- suspicions


def everyone(lake: Lake, basis: Basis, chosen: ChosenPool) -> Everyone:
    """All models of the version, also those that the pool leaves out: of these records may be a copy, too."""
    pool, questions = basis.questions.pool, basis.questions
    if basis.pool is None and not questions.left_out:
        return Everyone(pool.candidates, _models_of(pool), pool.scores)
    choice = PoolChoice(questions="any", judge=chosen.choice.judge)
    every = load_pools(lake, choice=choice, include=chosen.include).every
    keys = zip(every.questions["task"].to_pylist(), every.questions["question"].to_pylist(), strict=True)
    row_of = {key: row for row, key in enumerate(keys)}
    rows = np.array([row_of.get(key, -1) for key in zip(questions.tasks, questions.ids, strict=True)])
    scores = every.scores[rows]
    scores[rows < 0] = np.nan
    return Everyone(every.candidates, _models_of(every), scores)


def _models_of(pool: Pool) -> list[str]:
    names = dict(zip(pool.cells["candidate"].to_pylist(), pool.cells["model"].to_pylist(), strict=True))
    return [names[candidate] for candidate in pool.candidates]


def _agreement(known: Everyone, scores: Values, column: int) -> str:
    both = ~np.isnan(scores) & ~np.isnan(known.scores[:, column])
    equal = int((np.round(scores[both], 6) == np.round(known.scores[both, column].astype(np.float64), 6)).sum())
    return (
        f"the version has this model as {known.candidates[column]}: {equal:,} of {int(both.sum()):,} verdicts are the "
        "stored ones"
    )


def _suspicions(
    basis: Basis, records: SentRecords, known: Everyone, same: npt.NDArray[np.bool_]
) -> Iterator[Suspicion]:
    scores = records.scores
    answered = scores[~np.isnan(scores)]
    if len(answered) >= LEAST and (answered == answered[0]).all():
        yield Suspicion("constant", f"all {len(answered):,} scores are {answered[0]:g}")
    if found := copied(scores, known.scores, np.array(basis.questions.tasks), same):
        line = f"its scores are those of {known.candidates[found.column]} on {found.common:,} questions"
        if found.different:
            line += f" but {found.different:,}"
        if found.next_column is not None:
            line += (
                f"; the next nearest, {known.candidates[found.next_column]}, differs from it on "
                f"{found.next_different:,} of {found.next_common:,}"
            )
        yield Suspicion("copy", line)
    best = oracle_scores(basis.questions.pool, [basis.fold])
    by = scores - best
    if not np.isnan(by).all() and np.nanmean(by) > 0:  # groups of near-duplicates take their time
        yield from _above(basis, scores, by)


def _above(basis: Basis, scores: Values, by: Values) -> Iterator[Suspicion]:
    """`by` (1, questions): how much better than the best candidate of each test question."""
    above = resample(by[np.newaxis], basis.questions.groups)
    if above.p_values()[0] < LEVEL:
        own = float(scores[~np.isnan(by[0])].mean())
        yield Suspicion(
            "above the oracle",
            f"it scores {own:.4f}, {above.figures[0]:.4f} more than the best of the "
            f"{len(basis.questions.pool.candidates):,} candidates on each question, which is beyond chance: it may "
            "know the answers",
        )
