"""The rules for outcomes, scores and correct answers, which collected and imported records share.

Rows of schema 7 and later hold an outcome and a score by these rules. Rows without an outcome are of schema 6: the
views and compactions apply the same rules to them, as the macros of schemas/views, which a test holds equal to these
functions.
"""

from __future__ import annotations

from schemas.failures import (
    CONTENT_FILTER,
    EMPTY_ANSWER,
    JUDGE_DIED,
    JUDGE_TIMEOUT,
    NAN_LOGPROBS,
    NOT_JUDGED,
    PROMPT_TOO_LONG,
    REQUEST_REFUSED,
    UNFINISHED_THOUGHT,
    UNKNOWN_TOKEN,
)

#: How the names of metrics in [0, 1] begin: an answer is correct from 0.5 on (truthfulqa_mc2's acc is a fraction).
UNIT_METRICS = ("acc", "exact_match", "f1", "em", "pass@", "pass_at", "prompt_level", "mc1", "mc2")
CORRECT_THRESHOLD = 0.5

# ---- outcomes

OK = "ok"
EMPTY = "empty"
TRUNCATED = "truncated"
OVERLONG = "overlong"
NAN = "nan"
FILTERED = "filtered"
REFUSED = "refused"
ENGINE = "engine"
JUDGE = "judge"
STORE = "store"

#: Outcomes by the model: a router's user gets these answers, so they have a score.
OF_MODEL = (EMPTY, TRUNCATED, OVERLONG, NAN, FILTERED, REFUSED)
#: Outcomes by our fault: the item counts as missing, never as wrong.
OF_OURS = (ENGINE, JUDGE, STORE)
OUTCOMES = (OK, *OF_MODEL, *OF_OURS)

#: Failure kind of an item -> its outcome. A kind that is not here is our fault.
OUTCOME_OF_FAILURE = {
    EMPTY_ANSWER: EMPTY,
    PROMPT_TOO_LONG: OVERLONG,
    NAN_LOGPROBS: NAN,
    UNKNOWN_TOKEN: REFUSED,
    UNFINISHED_THOUGHT: TRUNCATED,
    CONTENT_FILTER: FILTERED,
    REQUEST_REFUSED: REFUSED,
    NOT_JUDGED: JUDGE,
    JUDGE_TIMEOUT: JUDGE,
    JUDGE_DIED: JUDGE,
}

#: The finish_reason of an answer that reached the limit of generated tokens.
AT_LIMIT = "length"


def outcome_of(failure: str | None, finish_reason: str | None, *, is_judged: bool) -> str:
    """The outcome of an item with this failure kind. `is_judged`: the task's judge gave a verdict."""
    if failure:
        return OUTCOME_OF_FAILURE.get(failure, ENGINE)
    if not is_judged:
        return JUDGE
    return TRUNCATED if finish_reason == AT_LIMIT else OK


def score_of(outcome: str, verdict: float | None, *, higher_is_better: bool) -> float | None:
    """The score of an item: the task's verdict, else 0 for an outcome of the model, null for one of ours.

    Null, too, if 0 is not the worst value: where lower is better.
    """
    if outcome in OF_OURS:
        return None
    if verdict is None and outcome in OF_MODEL:
        return 0.0 if higher_is_better else None
    return verdict


# ---- metrics that only a whole set has


#: The aggregation of a metric whose items have scores: their mean is the task's value.
MEAN = "mean"
#: lm-eval's metrics with a value over a whole set alone, or with item values in another unit or direction: a
#: perplexity's are log-likelihoods.
SET_LEVEL_METRICS = (
    *("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"),
    *("mcc", "bleu", "chrf", "chrf++", "ter", "bypass"),
)
#: Set-level in lm-eval's tasks with choices; tasks that generate text average their own.
SET_LEVEL_OF_CHOICES = ("f1",)
#: Those of imported cells: other metrics come with a value for each item by their source.
SET_LEVEL_OF_IMPORTS = ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "mcc")


def is_set_level(aggregation: str | None, metric: str, output_type: str | None, *, is_imported: bool = False) -> bool:
    """Whether a cell's metric has a value over a whole set alone, so that its items have no score.

    `aggregation` is the cell's column; without it the name of the metric decides.
    """
    if aggregation is not None:
        return aggregation != MEAN
    if is_imported:
        return metric in SET_LEVEL_OF_IMPORTS
    return metric in SET_LEVEL_METRICS or (metric in SET_LEVEL_OF_CHOICES and output_type == "multiple_choice")
