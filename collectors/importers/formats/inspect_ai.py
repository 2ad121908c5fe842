"""Logs of Inspect (UKGovernmentBEIS/inspect_ai, log/_log.py), as JSON or as .eval archives."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from collectors.importers.files import BadFile, zip_members
from collectors.importers.formats.inspect_usage import usage_of
from collectors.importers.json_values import decoded, document_of_rows
from collectors.importers.sources import CellDescription, ImportSource, Sink, as_json
from collectors.importers.values import content_of, number_of, texts, verdict, whole
from schemas.failures import NOT_JUDGED

PATTERNS = ("*.json", "*.eval")
#: Values of scores, as inspect_ai.scorer.value_to_float reads them.
_VALUES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


def read(staging: Sink, number: int, source: ImportSource) -> None:
    """A log of one task and model, as JSON or as the zip archive that ends in .eval; an epoch is a repeat."""
    header, samples = _log(staging, number)
    about = header.get("eval") or {}
    model, task = source.model or about.get("model"), about.get("task")
    if not model or not task:
        raise BadFile("unknown_layout", "not a log of Inspect: it names no task and model")
    log = _Log(staging, number, header, str(model), str(task), _run(about, staging.files[number].sha256))
    for sample in samples:
        with staging.one_row(number, log.row + 1):
            log.row += 1
            if isinstance(sample, BadFile):
                raise sample
            if not isinstance(sample, dict) or sample.get("id") is None:
                staging.reject(number, log.row, "no_key", "no id", model=model, task=task)
                continue
            log.take(sample)
    if log.is_repeated and log.primary:
        log.take_reductions()
    log.describe()
    log.state()


def _run(about: Mapping[str, Any], sha256: str) -> str:
    """A name of the run that sorts by its time. A log that is retried gets a new one, with the old one's samples."""
    created = str(about.get("created") or "")
    with contextlib.suppress(ValueError):
        created = dt.datetime.fromisoformat(created).astimezone(dt.UTC).isoformat()
    ids = [str(about[name]) for name in ("run_id", "task_id", "eval_id") if about.get(name)]
    return " ".join([created, *(ids or [sha256])])


@dataclass(frozen=True)
class _Metric:
    """A scorer, and the name of one of its values where it gives several."""

    scorer: str
    key: str | None = None

    @property
    def name(self) -> str:
        return self.scorer if self.key is None else f"{self.scorer}.{self.key}"

    def value_in(self, values: Mapping[str, Any]) -> Any:
        value = values.get(self.scorer)
        return value.get(self.key) if self.key is not None and isinstance(value, Mapping) else value


class _Log:
    """The rows of one log."""

    def __init__(self, staging: Sink, number: int, header: dict[str, Any], model: str, task: str, run: str) -> None:
        self.staging, self.number, self.header = staging, number, header
        self.model, self.task, self.run = model, task, run
        self.about = header.get("eval") or {}
        self.is_repeated = (whole((self.about.get("config") or {}).get("epochs")) or 1) > 1
        self.primary: _Metric | None = None
        self.is_unit = True
        self.row = 0

    def take(self, sample: dict[str, Any]) -> None:
        key, question = str(sample["id"]), _question(sample.get("input"))
        given = sample.get("scores") or self._only_score(sample)
        values = {name: one.get("value") for name, one in given.items() if isinstance(one, dict)}
        self.primary = self.primary or self._primary(values)
        choices = texts(sample.get("choices"))
        self.staging.item(
            run=self.run,
            task=self.task,
            key=key,
            prompt=question,
            choices=choices,
            target=as_json(sample["target"]) if sample.get("target") is not None else None,
            content_hash=content_of(question, choices),
        )
        usage = usage_of(sample, self.about)
        usage.suspect(self.staging, self.number, self.run, self.model, self.task)
        output = sample.get("output") or {}
        self._verdict(
            key,
            values,
            repeat=(whole(sample.get("epoch")) or 1) if self.is_repeated else 0,
            is_failed=bool(sample.get("error")),
            columns={
                "latency_s": number_of(sample.get("total_time")),
                "responses": texts(output.get("completion")),
                **usage.columns(),
            },
        )

    def _only_score(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """The score of logs of the first months of 2024, which have one scorer, named in the results alone."""
        scorer = (self.header.get("results") or {}).get("scorer") or {}
        return {str(scorer.get("name") or "score"): sample["score"]} if sample.get("score") else {}

    def take_reductions(self) -> None:
        """Takes the scores of the reducer of Inspect's headline, else of its first, as repeat 0."""
        assert self.primary
        given = self.header.get("reductions") or (self.header.get("results") or {}).get("sample_reductions") or ()
        reductions = [one for one in given if isinstance(one, dict)]
        of_scorer = [one for one in reductions if one.get("scorer") == self.primary.scorer]
        headline = ((self.header.get("results") or {}).get("headline") or {}).get("reducer")
        chosen = next((one for one in of_scorer if one.get("reducer") == headline), of_scorer[0] if of_scorer else {})
        beside: dict[Any, dict[str, Any]] = {}
        for one in reductions:
            samples = one.get("samples") if one.get("reducer") == chosen.get("reducer") else None
            for sample in (sample for sample in samples or () if isinstance(sample, dict)):
                beside.setdefault(str(sample.get("sample_id")), {})[str(one.get("scorer"))] = sample.get("value")
        for sample in chosen.get("samples") or ():
            self.row += 1
            with self.staging.one_row(self.number, self.row, model=self.model, task=self.task):
                if sample.get("sample_id") is None:
                    raise BadFile("no_key", "a reduced score without the id of its sample")
                key = str(sample["sample_id"])
                values = {self.primary.scorer: sample.get("value"), **beside[key]}
                self._verdict(key, values, repeat=0, reducer={"reducer": chosen.get("reducer")})

    def _verdict(
        self,
        key: str,
        values: Mapping[str, Any],
        *,
        reducer: Mapping[str, Any] | None = None,
        is_failed: bool = False,
        repeat: int = 0,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        value = self.primary.value_in(values) if self.primary else None
        score = _score(value)
        if score is not None and not 0 <= score <= 1:
            self.is_unit = False
        is_alone = values.keys() <= {self.primary.scorer if self.primary else None}
        metrics = {**(reducer or {}), **(_metrics(values) if not is_alone or _has_parts(values) else {})}
        # A sample that failed has a score where the run was asked to judge such samples, too (score_on_error).
        failure = "failed_call" if is_failed and score is None else None
        if failure is None and score is None and any(one is not None for one in values.values()):
            failure = NOT_JUDGED
        verdict(
            self.staging,
            self.number,
            self.row,
            self.task,
            key,
            self.model,
            score,
            run=self.run,
            failure=failure,
            metrics=as_json(metrics) if metrics else None,
            repeat=repeat,
            **(columns or {}),
        )

    def _primary(self, values: Mapping[str, Any]) -> _Metric | None:
        """The metric of Inspect's headline, which is that of the first score without one."""
        results = self.header.get("results") or {}
        scores = [one for one in results.get("scores") or () if isinstance(one, dict)]
        if headline := results.get("headline"):
            chosen = [s for s in scores if s.get("scorer") == headline.get("scorer")]
            chosen = [s for s in chosen if headline.get("score") in (None, s.get("name"))] or chosen
            scores = chosen or scores
        for one in scores:
            names = (one.get("name"), one.get("scorer"))
            if scorer := next((name for name in names if name in values), None):
                return _metric(scorer, values[scorer], one.get("name"))
        return next((_metric(scorer, value, None) for scorer, value in values.items()), None)

    def describe(self) -> None:
        if self.primary:
            versions = {"inspect_ai": str((self.about.get("packages") or {}).get("inspect_ai", ""))}
            description = CellDescription(metric=self.primary.name, versions=versions)
            if not self.is_unit:
                description = replace(description, threshold=None, low=None, high=None)
            self.staging.descriptions[self.run, self.model, self.task] = description

    def state(self) -> None:
        """Takes note of the number of samples and the mean that the log states of its headline's score."""
        results = self.header.get("results")
        if not isinstance(results, dict) or not self.primary:
            return
        names = (self.primary.name, self.primary.key, self.primary.scorer)
        scores = [one for one in results.get("scores") or () if isinstance(one, dict) and one.get("name") in names]
        metrics = scores[0].get("metrics") if scores else None
        means = [metrics[name] for name in ("accuracy", "mean") if name in metrics] if isinstance(metrics, dict) else []
        mean = means[0].get("value") if means and isinstance(means[0], dict) else None
        place = {"file": self.number, "run": self.run, "model": self.model, "task": self.task}
        self.staging.state(**place, answers=results.get("total_samples"), mean=mean)


def _has_parts(values: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Mapping | list) for value in values.values())


def _metrics(values: Mapping[str, Any]) -> dict[str, Any]:
    """Scores as numbers where they are; those of several parts as they are."""
    return {name: value if (score := _score(value)) is None else score for name, value in values.items()}


def _metric(scorer: str, value: Any, wanted: Any) -> _Metric:
    if not isinstance(value, Mapping) or not value:
        return _Metric(scorer)
    return _Metric(scorer, str(wanted) if wanted in value else str(next(iter(value))))


def _question(asked: Any) -> str | None:
    if isinstance(asked, list):
        mine = [m.get("content") for m in asked if isinstance(m, dict) and m.get("role") == "user"]
        return mine[0] if len(mine) == 1 and isinstance(mine[0], str) else None
    return asked if isinstance(asked, str) else None


def _score(value: Any) -> float | None:
    """The number that Inspect's metrics take for a value; None for NaN, its mark of an answer without a score."""
    if isinstance(value, str):
        value = _VALUES.get(value, _WORDS.get(value.lower(), value))
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    number = number_of(value, keep_odd=True)
    return None if number is None or math.isnan(number) else number


def _log(staging: Sink, number: int) -> tuple[dict[str, Any], Iterator[Any]]:
    file = staging.files[number]
    if not file.stem.endswith(".eval"):
        value = document_of_rows(file)
        if not isinstance(value, dict):
            raise BadFile("unknown_layout", "not a log of Inspect")
        return value, iter(value.get("samples") or ())
    header: dict[str, Any] = {}
    samples: list[tuple[str, bytes | BadFile]] = []
    for name, data in zip_members(file):
        if name == "header.json":
            header |= _decoded(data)
        elif name == "_journal/start.json":  # of a log that was cut off
            header = {**_decoded(data), **header}
        elif name == "reductions.json":
            header["reductions"] = _decoded(data)
        elif name.startswith("samples/") and name.endswith(".json"):
            samples.append((name, data))
    return header, (_sample(data) for _, data in sorted(samples, key=operator.itemgetter(0)))


def _decoded(data: bytes | BadFile) -> Any:
    if isinstance(data, BadFile):
        raise data
    return decoded(data)


def _sample(data: bytes | BadFile) -> Any:
    """A sample, or the BadFile that it is: those behind it are read."""
    try:
        return _decoded(data)
    except BadFile as error:
        return error
