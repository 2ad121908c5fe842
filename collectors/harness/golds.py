"""Checks that items have right answers before models are asked: without one lm-eval calls every answer wrong.

Owns lm-eval's reading of a right answer among choices. A text in place of a column's name is the commonest cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lm_eval.api.task import ConfigurableTask

from collectors.harness.own_code import refusal
from schemas.failures import TaskError, one_line

if TYPE_CHECKING:
    from collectors.harness.tasks import BoundTask

#: Items of a task that are looked at.
MOST = 50


def check_golds(task: BoundTask) -> list[str]:
    """Returns remarks for a person on right answers and prompts, one line each.

    Raises TaskError where no item has a right answer among its choices.
    """
    notes = [f"task {task.name}: {note}" for note in _fixed_texts(task.task)]
    if not _is_judged_by_choice(task.task):
        return notes
    docs = task.docs[:MOST]
    golds = [(doc, _gold(task, doc)) for doc in docs]
    lacking = [gold for doc, gold in golds if not _is_among(gold, task.choices(doc) or [])]
    if not lacking:
        return notes
    of = "its items" if len(docs) == len(task.docs) else f"its first {len(docs)} items"
    if len(lacking) == len(docs):
        raise TaskError(
            f"task {task.name}: none of {of} has a right answer among its choices (doc_to_target gives "
            f"{lacking[0]!r}), so that every answer would count as wrong"
        )
    return [
        *notes,
        f"task {task.name}: {len(lacking)} of {of} have no right answer among their choices (doc_to_target gives "
        f"{lacking[0]!r}): every answer to them counts as wrong, as in lm-eval",
    ]


def _fixed_texts(task: Any) -> Iterator[str]:
    """Remarks on keys of the task's file that hold one text for all items, where a column's name may be meant."""
    config, columns = task.config, getattr(task, "features", None) or []
    if getattr(task, "prompt", None) is not None or not columns:
        return
    target = "the right answer of every item" if _is_judged_by_lm_eval(task) else None
    for key, what in (("doc_to_text", "the question of every item"), ("doc_to_target", target)):
        text = getattr(config, key, None)
        is_text = isinstance(text, str) and text.strip() and "{" not in text and text not in columns
        if is_text and what and task.OUTPUT_TYPE in ("generate_until", "loglikelihood"):
            yield f"{what} is the text {text!r} ({key}); columns are {', '.join(columns)}"


def _is_judged_by_lm_eval(task: Any) -> bool:
    is_own = type(task).process_results is not ConfigurableTask.process_results
    return not is_own and not callable(task.config.process_results)


def _is_judged_by_choice(task: Any) -> bool:
    return task.OUTPUT_TYPE == "multiple_choice" and _is_judged_by_lm_eval(task)


def _gold(task: BoundTask, doc: Any) -> Any:
    """The right answer as lm-eval reads it. Raises TaskError if the task's code cannot read it."""
    try:
        return task.task.doc_to_text(doc) if task.task.multiple_input else task.task.doc_to_target(doc)
    except Exception as error:
        if reason := refusal(error):
            raise TaskError(f"task {task.name} {reason}", "unsafe_code") from error
        raise TaskError(f"task {task.name}: doc_to_target cannot be read: {one_line(error)}") from error


def _is_among(gold: Any, choices: list[str]) -> bool:
    """Whether an answer can be right: one of the places or texts that are named is a choice."""
    if isinstance(gold, list):
        return any(isinstance(one, int) and 0 <= one < len(choices) for one in gold)
    if isinstance(gold, int):
        return 0 <= gold < len(choices)
    return not isinstance(gold, str) or gold in choices
