"""Predictions and results of OpenCompass (open-compass/opencompass, tasks/openicl_infer.py and openicl_eval.py).

A run is one folder of work, `outputs/<name>/<time>/`. It has predictions/<model>/<dataset>.json, or for a large set
`<dataset>_0.json`, `<dataset>_1.json` …, and results/<model>/<dataset>.json, with verdicts where details were kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collectors.importers.files import BadFile
from collectors.importers.json_values import document, document_of_rows
from collectors.importers.runs import choose_runs
from collectors.importers.sources import ImportSource, Sink, as_json
from collectors.importers.staging import Staging
from collectors.importers.suspicions import ODD_ACCURACY
from collectors.importers.values import content_of, number_of, text_of, texts, verdict

PATTERNS = ("*.json", "tmp_*.jsonl")
#: Keys of a verdict, as BaseEvaluator.evaluate looks for them.
_VERDICTS = ("correct", "is_correct", "cascade_correct")
#: Keys of an answer as it was judged, and of the right one.
_ANSWERS, _GOLDS = ("predictions", "pred"), ("references", "refr", "answer")
#: Accuracies are percentages, some of them rounded to two digits.
_ROUNDED = 0.0051
_TIME = re.compile(r"\d{8}_\d{6}")

#: Folder of a run, model, and name of a file in it.
_Place = tuple[str, str, str]


@dataclass(frozen=True)
class _Results:
    """Verdicts of one results file: by item the scores of its replicas, None where it holds no verdict."""

    scores: Sequence[Sequence[float | bool | None]]
    #: Whether the file states an accuracy that no rule gives, and holds no verdicts.
    is_odd: bool = False
    #: The accuracy that it states of verdicts of its own.
    stated: float | None = None

    def of(self, position: int) -> tuple[Any, int | None]:
        """(score, repeat) of a prediction; the repeat is None where each item was asked once."""
        many = len(self.scores)
        replicas = max(map(len, self.scores), default=1)
        repeat, item = divmod(position, many) if many else (0, 0)
        scores = self.scores[item] if many and repeat < replicas else ()
        score = scores[repeat] if repeat < len(scores) else None
        return score, repeat + 1 if replicas > 1 else None


def read(staging: Staging, source: ImportSource) -> None:
    results: dict[_Place, _Results] = {}
    predictions: dict[_Place, int] = {}
    for number, file in enumerate(staging.files):
        *above, folder, model, name = ["", "", *file.path.split("/")]
        place = ("/".join(above), model, file.stem.rpartition(".")[0])
        if name.startswith("tmp_"):
            staging.reject(
                number, None, "left_out", "a temporary file of OpenCompass, of answers that are not all there"
            )
        elif folder == "results":
            staging.describing.add(number)
            with staging.one_file(number):
                results[place] = _results_of(document(file))
        elif folder == "predictions":
            predictions[place] = number
    runs = _run_names(staging, {folder for folder, _, _ in predictions})
    for place, numbers in _in_parts(staging, predictions, results).items():
        folder, model, task = place
        run = f"{runs[folder]} {model}" if runs[folder] else ""  # choose_runs asks for a name of this model's alone
        cell = _Cell(staging, run, source.model or model, task, results.get(place, _Results([])))
        position = 0
        for number in numbers:
            with staging.one_file(number):
                position = cell.read(number, position)
    choose_runs(staging)


def _run_names(staging: Sink, folders: Collection[str]) -> dict[str, str]:
    """Folder of a run -> its time; or the folder below the given path, or more of it, where that is not one run's."""
    shown = {file.path.rsplit("/", 3)[0]: file.name for file in staging.files}
    names: dict[str, list[str]] = {}
    for folder in folders:
        last, below = folder.rpartition("/")[2], shown.get(folder, "").rsplit("/", 3)
        name = below[0] if len(below) == 4 else ""
        names[folder] = [last if _TIME.fullmatch(last) else name, name, last, folder]
    many = Counter(name for of in names.values() for name in dict.fromkeys(of))
    return {folder: next((name for name in of if many[name] == 1), folder) for folder, of in names.items()}


def _in_parts(
    staging: Sink, predictions: Mapping[_Place, int], results: Mapping[_Place, _Results]
) -> dict[_Place, list[int]]:
    """Data set -> its files in order.

    As OpenCompass reads them: the whole file, or without one the parts from 0 on until one is missing. Names of data
    sets may end like those of parts, too: parts are several, and have no results of their own.
    """
    sets: dict[_Place, list[int]] = {}
    parts: dict[_Place, dict[int, int]] = {}
    for place, number in predictions.items():
        folder, model, name = place
        match = re.fullmatch(r"(.+)_(\d{1,6})", name)
        if match:
            parts.setdefault((folder, model, match[1]), {})[int(match[2])] = number
        else:
            sets[place] = [number]
    for whole, numbers in list(parts.items()):
        names = {part: (*whole[:2], f"{whole[2]}_{part}") for part in numbers}
        is_cut = (len(numbers) > 1 and 1 in numbers) or (whole in results and whole not in predictions)
        if not is_cut or any(name in results for name in names.values()):
            sets |= {names[part]: [number] for part, number in parts.pop(whole).items()}
    for whole, numbers in parts.items():
        is_whole = whole in predictions
        many = next(part for part in range(len(numbers) + 1) if part not in numbers)
        for part, number in sorted(numbers.items()):
            if is_whole:
                staging.reject(number, None, "left_out", f"a part of {whole[2]}, which is there as a whole")
            elif part >= many:
                staging.reject(number, None, "left_out", f"part {part} of {whole[2]}, without part {many}")
        if not is_whole and many:
            sets[whole] = [numbers[part] for part in range(many)]
    return dict(sorted(sets.items()))


# ---- results


def _results_of(value: Any) -> _Results:
    details = value.get("details") if isinstance(value, dict) else None
    if isinstance(details, dict):
        numbered = {int(key): one for key, one in details.items() if key.isdigit() and len(key) < 8}
        details = [numbered.get(item) for item in range(max(numbered, default=-1) + 1)] if numbered else []
    if not isinstance(details, list):
        return _Results([])
    scores: list[Sequence[Any]] = [_replicas(one, _VERDICTS) for one in details]
    stated = next(
        (number for name in ("accuracy", "score") if (number := number_of(value.get(name))) is not None), None
    )
    if any(score is not None for replicas in scores for score in replicas):
        return _Results(scores, stated=stated)
    equal = [_equal(one) for one in details]
    if not any(score is not None for replicas in equal for score in replicas):
        return _Results([])
    is_odd = _is_odd(equal, stated)
    return _Results([] if is_odd or stated is None else equal, is_odd)


def _replicas(one: Any, names: Sequence[str]) -> list[Any]:
    """The values of an item: one, or a list where BaseEvaluator.evaluate grouped the runs of each item."""
    if not isinstance(one, dict):
        return [None]
    value = next((one[name] for name in names if one.get(name) is not None), None)
    if "example_abbr" in one and isinstance(value, list):
        return value
    return [all(value) if isinstance(value, list) and value and names is _VERDICTS else value]


def _equal(one: Any) -> list[bool | None]:
    """Whether the answers of an item are the right one, as texts, like OpenICLEvalTask.format_details."""
    if not isinstance(one, dict) or not any(one.get(name) is not None for name in _ANSWERS):
        return [None]
    answers, golds = _replicas(one, _ANSWERS), _replicas(one, _GOLDS)
    if len(answers) != len(golds):
        return [None]
    return [None if gold is None else str(answer) == str(gold) for answer, gold in zip(answers, golds, strict=True)]


def _is_odd(scores: Sequence[Sequence[Any]], stated: float | None) -> bool:
    """Whether the mean of `scores` is not the accuracy that the file states, from 0 to 100 or from 0 to 1."""
    numbers = [number for replicas in scores for score in replicas if (number := number_of(score)) is not None]
    if stated is None or not numbers:
        return False
    mean = 100 * sum(numbers) / len(numbers)
    return abs(mean - stated) > _ROUNDED and abs(mean / 100 - stated) > _ROUNDED / 100


# ---- predictions


class _Cell:
    """One model on one data set."""

    def __init__(self, staging: Sink, run: str, model: str, task: str, results: _Results) -> None:
        self.staging, self.run, self.model, self.task, self.results = staging, run, model, task, results

    def read(self, number: int, first: int) -> int:
        """Takes a file whose answers begin at `first` of the data set. Returns where the next file begins."""
        value = document_of_rows(self.staging.files[number])
        if not isinstance(value, dict):
            raise BadFile("unknown_layout", "no answers by number")
        if self.results.is_odd and not first:
            place = {"run": self.run, "model": self.model, "task": self.task}
            self.staging.suspect(file=number, kind=ODD_ACCURACY, **place)
        if not first:
            answers = sum(map(len, self.results.scores))
            figures = {"answers": answers, "mean": self.results.stated}
            self.staging.state(file=number, run=self.run, model=self.model, task=self.task, **figures)
        for row, (key, one) in enumerate(value.items(), 1):
            with self.staging.one_row(number, row, model=self.model, task=self.task):
                if not isinstance(one, dict) or not key.isdigit() or len(key) > 7:
                    raise BadFile("no_key", "no answer under a number")
                self._take(number, row, first + int(key), one)
        return first + len(value)

    def _take(self, number: int, row: int, position: int, one: Mapping[str, Any]) -> None:
        score, repeat = self.results.of(position)
        item = position % len(self.results.scores) if repeat is not None else position
        prompt, gold = one.get("origin_prompt"), one.get("gold")
        if isinstance(prompt, list):
            turns = [turn.get("prompt") for turn in prompt if isinstance(turn, dict)]
            prompt = turns[0] if len(turns) == 1 else None
        self.staging.item(
            run=self.run,
            task=self.task,
            key=str(item),
            position=item,
            prompt=text_of(prompt),
            target=as_json(gold) if gold is not None else None,
            content_hash=content_of(prompt),
        )
        verdict(
            self.staging,
            number,
            row,
            self.task,
            str(item),
            self.model,
            score,
            run=self.run,
            repeat=repeat,
            responses=texts(one.get("prediction")),
        )
        if repeat == 1:  # OpenCompass shows the mean over an item's runs
            scores = [number_of(score) for score in self.results.scores[item]]
            mean = None if None in scores else sum(filter(None, scores)) / len(scores)
            verdict(self.staging, number, row, self.task, str(item), self.model, mean, run=self.run, repeat=0)
