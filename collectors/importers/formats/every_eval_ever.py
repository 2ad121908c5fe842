"""Samples of Every Eval Ever, by its JSON schema 0.3.0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from collectors.importers.files import BadFile, SourceFile
from collectors.importers.json_values import document
from collectors.importers.sources import CellDescription, ImportSource, Sink, as_json
from collectors.importers.usage import Usage
from collectors.importers.values import content_of, number_of, objects, text_of, texts, verdict, whole
from schemas.failures import NOT_JUDGED

PATTERNS = ("*_samples.jsonl",)

#: An answer: its item, and its epoch, 0 where rows have none.
_Answer = tuple[str, int]


def read(staging: Sink, number: int, source: ImportSource) -> None:
    """<uuid>_samples.jsonl: a row per item and metric, and with Inspect's epochs per epoch."""
    groups: dict[tuple[str, str, str], _Group] = {}
    for row, value in objects(_Silent([staging.files[number]]), 0):
        group = groups.setdefault(_place(value), _Group())
        group.count(row, _answer(value), _metric(value), _score(value))
    described = _results_beside(staging.files[number])
    for row, value in objects(staging, number):
        with staging.one_row(number, row):
            group = groups[_place(value)]
            if group.is_of_answer(_answer(value), _metric(value)):
                _take(staging, number, row, value, group)
            else:  # another metric of an answer that its primary metric's row stands for
                staging.fold(number)
    for (run, model, task), group in groups.items():
        for key, (row, score) in group.agreed().items():
            verdict(staging, number, row, task, key, model, score, run=run, repeat=0)
        staging.descriptions[run, model, task] = group.description(described, task)
        if not group.is_repeated and (result := group.result(described, task)):
            mean = (result.get("score_details") or {}).get("score")
            staging.state(file=number, run=run, model=model, task=task, answers=None, mean=mean)


class _Silent(Sink):
    """Reads a file whose bad rows are rejected when it is read again."""

    def put(self, name: str, table: Any) -> None:
        """Stores nothing."""


def _place(value: Mapping[str, Any]) -> tuple[str, str, str]:
    """Run, model and task of a row."""
    names = ("evaluation_id", "model_id", "evaluation_name")
    run, model, task = (str(value.get(name) or "") for name in names)
    return run, model, task


def _answer(value: Mapping[str, Any]) -> _Answer:
    metadata = value.get("metadata")
    epoch = metadata.get("epoch") if isinstance(metadata, dict) else None
    number = int(epoch) if isinstance(epoch, str) and epoch.isdecimal() and len(epoch) < 5 else whole(epoch)
    return str(value.get("sample_id") or ""), number or 0


def _metric(value: Mapping[str, Any]) -> str:
    return str(value.get("evaluation_result_id") or "")


def _score(value: Mapping[str, Any]) -> Any:
    judged, metadata = value.get("evaluation"), value.get("metadata")
    if not isinstance(judged, dict):
        return None
    if isinstance(metadata, dict) and "lm_eval_metrics" in metadata and not _metric(value):
        return None  # the converter writes 0 for metrics of lm-eval that are not numbers
    return judged.get("score") if judged.get("score") is not None else judged.get("is_correct")


@dataclass
class _Group:
    """The rows of one model and task of a file: which metrics they are of, and whether they come once an epoch."""

    #: Answer -> metric -> its score.
    scores: dict[_Answer, dict[str, Any]] = field(default_factory=dict)
    rows: dict[_Answer, int] = field(default_factory=dict)
    metrics: dict[str, None] = field(default_factory=dict)
    epochs: set[int] = field(default_factory=set)
    #: Whether a threshold of 0.5 on scores of 0 to 1 gives each verdict that the file states.
    is_unit: bool = True

    def count(self, row: int, answer: _Answer, metric: str, score: Any) -> None:
        self.metrics.setdefault(metric)
        self.epochs.add(answer[1])
        self.scores.setdefault(answer, {}).setdefault(metric, score)
        self.rows.setdefault(answer, row)

    @property
    def primary(self) -> str:
        """The first that a result of the whole evaluation is of."""
        return next(filter(None, self.metrics), "")

    @property
    def is_repeated(self) -> bool:
        return len(self.epochs) > 1

    def is_of_answer(self, answer: _Answer, metric: str) -> bool:
        """Whether an answer's record is made of its row of this metric: the primary one's, or its first."""
        there = self.scores[answer]
        return metric == (self.primary if self.primary in there else next(iter(there)))

    def agreed(self) -> dict[str, tuple[int, Any]]:
        """Item -> row and score, where all epochs have that score: files of epochs state what these reduce to."""
        if not self.is_repeated:
            return {}
        by_item: dict[str, dict[int, Any]] = {}
        for (key, epoch), scores in self.scores.items():
            by_item.setdefault(key, {})[epoch] = scores.get(self.primary)
        firsts = {key: next(iter(scores.items())) for key, scores in by_item.items()}
        return {
            key: (self.rows[key, epoch], score)
            for key, (epoch, score) in firsts.items()
            if score is not None and all(one == score for one in by_item[key].values())
        }

    def result(self, results: list[Any], task: str) -> dict[str, Any] | None:
        """The result of the whole evaluation that is of the primary metric; None where none or several may be."""
        named = [r for r in results if isinstance(r, dict) and r.get("evaluation_result_id") == self.primary]
        named = named or [r for r in results if isinstance(r, dict) and r.get("evaluation_name") == task]
        return named[0] if len(named) == 1 else None

    def description(self, results: list[Any], task: str) -> CellDescription:
        config = (self.result(results, task) or {}).get("metric_config")
        return CellDescription(
            metric=self.primary or "score" if len(self.metrics) > 1 else "score",
            low=None,
            high=None,
            threshold=0.5 if self.is_unit else None,
            higher_is_better=not (isinstance(config, dict) and config.get("lower_is_better") is True),
        )


def _results_beside(file: SourceFile) -> list[Any]:
    """The results of the whole evaluation, of <uuid>.json beside the samples; none without such a file."""
    path = file.path.removesuffix("_samples.jsonl") + ".json"
    try:
        value = document(SourceFile(path, path, file.size))
    except BadFile:
        return []
    results = value.get("evaluation_results") if isinstance(value, dict) else None
    return results if isinstance(results, list) else []


def _take(staging: Sink, number: int, row: int, value: dict[str, Any], group: _Group) -> None:
    given, judged, (run, model, task) = value.get("input") or {}, value.get("evaluation") or {}, _place(value)
    answer = key, epoch = _answer(value)
    choices, question = texts(given.get("choices")), text_of(given.get("raw"))
    staging.item(
        run=run,
        task=task,
        key=key,
        prompt=question,
        choices=choices,
        target=as_json(given["reference"]) if given.get("reference") is not None else None,
        content_hash=content_of(question, choices),
    )
    usage, speed = Usage.of(value.get("token_usage")), value.get("performance") or {}
    usage.suspect(staging, number, run, model, task)
    scores = group.scores[answer]
    score = _score(value) if _metric(value) == group.primary else None
    correct = judged.get("is_correct") if isinstance(judged.get("is_correct"), bool) and score is not None else None
    failure = "failed_call" if value.get("error") else NOT_JUDGED if scores and score is None else None
    if failure is None and isinstance(score, int | float):
        group.is_unit &= 0 <= score <= 1 and correct in (None, score >= 0.5)
    verdict(
        staging,
        number,
        row,
        task,
        key,
        model,
        score,
        run=run,
        correct=correct,
        repeat=epoch if group.is_repeated else 0,
        metrics=as_json(scores) if len(group.metrics) > 1 else None,
        failure=failure,
        latency_s=_latency(speed),
        responses=texts((value.get("output") or {}).get("raw")),
        **usage.columns(),
    )


def _latency(speed: Mapping[str, Any]) -> float | None:
    """Seconds of the whole call. The converter of Inspect's logs writes the time of waiting alone in its place."""
    whole_ms, generating_ms = number_of(speed.get("latency_ms")), number_of(speed.get("generation_time_ms"))
    if whole_ms is None or (generating_ms is not None and whole_ms < generating_ms):
        return None
    return whole_ms / 1000
