"""Judges stored answers again: lm-eval's task without its data set, and the rows of its verdicts.

Owns the task that judges documents of a lake, the digest of its judging, and the step from a stored record to today's
verdict. Knows nothing of storage. Importing this module changes how lm-eval's tasks get their data.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib.metadata
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval.api.task import ConfigurableTask
from lm_eval.models.utils import postprocess_generated_text

from collectors.harness.documents import plain
from collectors.harness.judge import Items, Judged, Responses, ruled
from collectors.harness.loading import building, load_tasks
from collectors.harness.tasks import BoundTask
from collectors.harness.thoughts import answer_of
from collectors.specs import TaskSpec
from schemas.failures import JUDGE_DIED, JUDGE_TIMEOUT, NOT_JUDGED, TaskError
from schemas.identity import digest
from schemas.verdicts import AT_LIMIT

Row = Mapping[str, Any]

#: Failures by a judge. Another judge begins without them.
_OF_JUDGES = (NOT_JUDGED, JUDGE_TIMEOUT, JUDGE_DIED)
#: Keys of a task's config that decide its verdicts on given documents.
_JUDGING = (
    *("output_type", "metric_list", "filter_list", "process_results", "doc_to_target", "doc_to_choice"),
    *("doc_to_text", "repeats", "unsafe_code", "class"),
)
#: Laid over a task's config: its documents are in the lake as the task had made them.
_WITHOUT_DATA = {"process_docs": None, "fewshot_split": None, "training_split": None, "custom_dataset": None}

_docs: contextvars.ContextVar[list[Any] | None] = contextvars.ContextVar("docs", default=None)


class _Documents(list[Any]):
    """Documents with what lm-eval asks of a split."""

    @property
    def features(self) -> dict[str, Any]:
        return dict.fromkeys(self[0] if self and isinstance(self[0], dict) else ())

    @property
    def column_names(self) -> list[str]:
        return list(self.features)

    def select(self, rows: Sequence[int]) -> _Documents:
        return _Documents(self[row] for row in rows)


class _Splits(dict[str, Any]):
    def __missing__(self, split: str) -> Any:
        return _Documents(_docs.get() or ())


def _without_data(download: Any) -> Any:
    def checked(self: Any, *args: Any, **keywords: Any) -> None:
        if _docs.get() is None:
            download(self, *args, **keywords)
        else:
            self.dataset = _Splits()

    return checked


ConfigurableTask.download = _without_data(ConfigurableTask.download)


@contextlib.contextmanager
def _given(docs: list[Any]) -> Iterator[None]:
    token = _docs.set(docs)
    try:
        with building(_WITHOUT_DATA):
            yield
    finally:
        _docs.reset(token)


def bind_stored(spec: TaskSpec, include: list[str], docs: list[Any]) -> BoundTask:
    """Returns the task that `spec` names, with `docs` of a lake in place of its data set.

    Raises TaskError if it cannot be loaded without the data, is refused, or makes other documents of these; ConfigError
    if it lacks the metric or filter of `spec`.
    """
    with _given(docs):
        bound, failed = load_tasks(spec.model_copy(update={"num_fewshot": 0}), include)
    if failed:
        raise failed[min(failed)]
    if len(bound) != 1:
        raise TaskError(f"{spec.task} is a group of tasks: name its tasks")
    if len(bound[0].docs) != len(docs):
        raise TaskError(f"task {spec.task} makes {len(bound[0].docs):,} documents of {len(docs):,}")
    return bound[0]


def judging_digest(task: BoundTask) -> str:
    """Digest of what decides the task's verdicts: settings, files of its code, and the version of lm-eval."""
    config = plain(task.task.config.to_dict(keep_callable=True))
    own = type(task.task)
    code = None if own is ConfigurableTask else Path(inspect.getfile(own)).read_text(encoding="utf-8")
    version = importlib.metadata.version("lm-eval")
    return digest([version, code, {key: config.get(key) for key in _JUDGING}])


# ---- verdicts


@dataclass(frozen=True)
class StoredItem:
    """What a lake holds of one item of a cell."""

    item: int
    #: (filter, repeat) -> its row of records, with the answers of responses on those of the first filter.
    rows: Mapping[tuple[str, int], Row]
    #: Column of the cell: JSON of the markers around thoughts.
    thinking: str | None = None


JudgeStored = Callable[[BoundTask, Responses, Items], Judged]


def verdict_rows(task: BoundTask, stored: Sequence[StoredItem], judge: JudgeStored) -> list[list[dict[str, Any]]]:
    """Returns for each stored item the columns of schemas.records.VERDICT that today's verdicts on it have.

    There is a row for each filter of the task and each stored repeat.
    """
    stops = _until(task)
    responses = {}
    for number, one in enumerate(stored):
        if (answers := _responses(task, one, stops)) is not None:
            responses[number] = answers
    judged = judge(task, responses, {number: stored[number].item for number in responses})
    names = [one.name for one in task.task._filters]
    return [_rows(task, one, names, judged, number) for number, one in enumerate(stored)]


def _rows(task: BoundTask, one: StoredItem, names: list[str], judged: Judged, number: int) -> list[dict[str, Any]]:
    verdicts = judged.verdicts.get(number, {})
    key = {"item": one.item, "item_hash": next(iter(one.rows.values()))["item_hash"], "answer": _digest(one.rows)}
    out = []
    for name in names:
        for repeat in sorted({repeat for _, repeat in one.rows}):
            row = _row(one.rows, name, repeat)
            failure = judged.failures.get(number, None if row["failure"] in _OF_JUDGES else row["failure"])
            reason = _finish_reason(one.rows, row, repeat)
            columns = ruled(task, verdicts.get((name, repeat)), failure, reason, repeat)
            out.append({**key, "filter": name, "repeat": repeat, **columns})
    return out


def _row(rows: Mapping[tuple[str, int], Row], name: str, repeat: int) -> Row:
    """The stored row of a filter, or of any: the columns read here are the same for all."""
    return rows.get((name, repeat)) or next(row for (_, other), row in rows.items() if other == repeat)


def _finish_reason(rows: Mapping[tuple[str, int], Row], row: Row, repeat: int) -> str | None:
    """As at collecting: of all repeats AT_LIMIT if any answer reached the limit."""
    is_at_limit = repeat == 0 and any(one["finish_reason"] == AT_LIMIT for one in rows.values())
    return AT_LIMIT if is_at_limit else row["finish_reason"]


def _answered(rows: Mapping[tuple[str, int], Row]) -> Row | None:
    """The row with the item's answers, of all repeats."""
    return next((row for (_, repeat), row in rows.items() if repeat == 0 and _has_answer(row)), None)


def _responses(task: BoundTask, one: StoredItem, stops: list[str]) -> list[list[Any]] | None:
    """The responses of an item's requests, by repeat, as at collecting; None where one of them is missing."""
    row = _answered(one.rows)
    if row is None:
        return None
    if task.request_kind == "generate_until":
        texts = row["responses"]
        repeats = max(repeat for _, repeat in one.rows) or 1
        if not texts or len(texts) % repeats or any(text is None for text in texts):
            return None
        if one.thinking:
            texts = [postprocess_generated_text(answer_of(text, one.thinking), stops, None) for text in texts]
        return [texts[start : start + repeats] for start in range(0, len(texts), repeats)]
    values = row["loglikelihoods"]
    if not values or any(value is None or math.isnan(value) for value in values):
        return None
    if task.request_kind == "loglikelihood":
        greedy = row["is_greedy"] or [False] * len(values)
        return [[(value, is_greedy)] for value, is_greedy in zip(values, greedy, strict=True)]
    return [[value] for value in values]


def _has_answer(row: Row) -> bool:
    return row.get("responses") is not None or row.get("loglikelihoods") is not None


def _digest(rows: Mapping[tuple[str, int], Row]) -> str | None:
    """Digest of an item's answers, whatever judges them. Floats by their shortest text, which names each exactly."""
    row = _answered(rows)
    if row is None:
        return None
    return digest([row.get("responses"), list(map(repr, row.get("loglikelihoods") or ())), row.get("is_greedy")])


def answer_text(one: StoredItem) -> str | None:
    """The first stored text of an item, without its thought; None without one."""
    row = _answered(one.rows)
    texts = row["responses"] if row else None
    return answer_of(texts[0], one.thinking) if texts and texts[0] is not None else None


def answer_digest(one: StoredItem, other: StoredItem | None = None) -> str | None:
    """The digest of an item's answers, and of those that they are compared with."""
    own = _digest(one.rows)
    return own if other is None else digest([own, _digest(other.rows)])


def _until(task: BoundTask) -> list[str]:
    settings = {**(task.task.config.generation_kwargs or {}), **task.spec.decoding}
    stops = settings.get("until") or []
    return [stops] if isinstance(stops, str) else list(stops)
