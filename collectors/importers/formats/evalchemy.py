"""Results of evalchemy (mlfoundations/evalchemy): results files of lm-eval whose tasks hold their examples.

Owns these examples. A task's examples are the questions with the model's outputs and answers, one for each repetition;
its verdicts are stated for each repetition as a whole, and only for code for each example.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from collectors.harness.mathematics import is_same_answer
from collectors.importers.formats.lm_eval_results import About
from collectors.importers.sources import Sink, as_json
from collectors.importers.suspicions import ODD_ACCURACY
from collectors.importers.values import content_of, text_of, texts, verdict, whole
from schemas.failures import NOT_JUDGED

METRIC = "accuracy"

_QUESTIONS = ("problem", "Question", "question", "prompt")
_GOLDS = ("expected_answer", "answer", "target")


def tasks_with_examples(results: Mapping[str, Any]) -> list[str]:
    """The tasks of a results file that hold examples."""
    tasks = results.get("results")
    return [task for task, one in tasks.items() if _examples(one)] if isinstance(tasks, dict) else []


def _examples(task: Any) -> list[Any]:
    examples = task.get("examples") if isinstance(task, dict) else None
    return examples if isinstance(examples, list) else []


def read(staging: Sink, number: int, about: About) -> None:
    """Reads the examples of all tasks of one results file, numbered through; an example is the item of its place."""
    row = 0
    for task in tasks_with_examples(about.results):
        of_task = _Task(staging, number, about, task)
        for position, example in enumerate(_examples(about.results["results"][task])):
            row += 1
            with staging.one_row(number, row, model=about.model, task=task):
                of_task.take(row, position, example)


class _Task:
    def __init__(self, staging: Sink, number: int, about: About, task: str) -> None:
        self.staging, self.number, self.about, self.task = staging, number, about, task
        self.model = str(about.model)
        results = about.results["results"][task]
        self.verdicts = _verdicts(results, _examples(results))
        description = replace(about.description_of(task, METRIC, "none"), threshold=0.5, low=0.0, high=1.0)
        staging.descriptions[about.run, self.model, task] = description

    def take(self, row: int, position: int, example: Mapping[str, Any]) -> None:
        question = next((example[name] for name in _QUESTIONS if text_of(example.get(name))), None)
        gold = next((example[name] for name in _GOLDS if example.get(name) is not None), None)
        self.staging.item(
            run=self.about.run,
            task=self.task,
            key=str(position),
            position=position,
            prompt=question,
            target=as_json(gold) if gold is not None else None,
            content_hash=content_of(question),
        )
        outputs = texts(example.get("model_outputs") or example.get("model_output"))
        if isinstance(example.get("correctness"), bool):
            # Of several repetitions the file holds the last one's examples alone: it is the one that was kept.
            self._verdict(row, position, float(example["correctness"]), responses=outputs)
            return
        if self.verdicts is None:
            self.staging.suspect(
                file=self.number, run=self.about.run, model=self.model, task=self.task, kind=ODD_ACCURACY
            )
            self._verdict(row, position, None, failure=NOT_JUDGED, responses=outputs)
            return
        scores = self.verdicts[position]
        self._verdict(row, position, sum(scores) / len(scores), responses=outputs)
        for repeat, score in enumerate(scores, 1) if len(scores) > 1 else ():
            self._verdict(row, position, score, repeat=repeat)

    def _verdict(self, row: int, position: int, score: float | None, **columns: Any) -> None:
        run, key = self.about.run, str(position)
        verdict(self.staging, self.number, row, self.task, key, self.model, score, run=run, **columns)


def _verdicts(results: Mapping[str, Any], examples: list[Any]) -> list[list[float]] | None:
    """Scores by example and repetition; None where no rule gives as many right answers as the task states."""
    stats = results.get("run_stats")
    runs = stats if isinstance(stats, list) else [results]
    solved = [whole(one.get("num_solved")) if isinstance(one, dict) else None for one in runs]
    answers = list(_answers(examples))
    if len(answers) != len(examples) or any(len(given) != len(solved) for _, given in answers):
        return None
    for rule in _rules():
        scores = [[float(rule(gold, answer)) for answer in given] for gold, given in answers]
        if [sum(of_run) for of_run in zip(*scores, strict=True)] == solved:
            return scores
    return None


def _answers(examples: list[Any]) -> Iterator[tuple[str, list[str]]]:
    """Yields the right answer of each example, and the answers of its repetitions."""
    for example in examples:
        if isinstance(example, dict):
            gold = next((example[name] for name in _GOLDS if example.get(name) is not None), None)
            answers = example.get("model_answers", [example.get("model_answer")])
            if gold is not None and isinstance(answers, list):
                yield str(gold), [str(answer) for answer in answers]


def _rules() -> Iterator[Any]:
    """The rules by which evalchemy's tasks compare answers: equal texts, or Hendrycks' rule for mathematics.

    Equal texts are equal by both, so that the first rule with the number of right answers that is stated is right.
    """
    yield lambda gold, answer: gold == answer
    with contextlib.suppress(ImportError):  # lm-eval comes with the extra `collect`
        is_same_answer("", "")
        yield is_same_answer
