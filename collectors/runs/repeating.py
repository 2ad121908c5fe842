"""Which tasks may be asked several times (`repeats` of a config), and which of their items are.

Owns the refusals and the choice of the part, which depends on the items alone: it is the same for every model and lake.
Knows nothing of models and storage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from collectors.harness.sampling import is_sampled
from schemas.failures import ConfigError, TaskError

if TYPE_CHECKING:
    from collectors.harness.tasks import BoundTask
    from collectors.specs import RepeatsSpec, TaskSpec

#: Most unknown ids that a message names.
MOST_NAMED = 3
#: In front of what an item's place in the order is drawn from.
_SEED = b"routerlake repeats 0 "


def items_of(spec: TaskSpec, task: BoundTask) -> int:
    """The number of a task's first items that a run may ask."""
    return min(spec.limit or task.settings.items, task.settings.items)


def with_repeats(loaded: Sequence[tuple[TaskSpec, BoundTask]]) -> Iterator[tuple[TaskSpec, BoundTask]]:
    """Yields each task as it is, and behind it once more as it is asked several times, where its `repeats` say so.

    Raises ConfigError for a task that cannot be asked several times, and for ids that no task of the config has.
    """
    for spec, task in loaded:
        if spec.repeats:
            _check(spec, task)
    _check_ids(loaded)
    for spec, task in loaded:
        yield spec, task
        if spec.repeats and part_of(task, items_of(spec, task), spec.repeats):
            yield spec, task.repeated(spec.repeats.times)


def _check(spec: TaskSpec, task: BoundTask) -> None:
    own = int(task.task.config.repeats or 1)
    if task.request_kind != "generate_until":
        reason = "asks for log-likelihoods, which are the same every time"
    elif own > 1:
        reason = f"asks each item {own} times by itself"
    elif not spec.generation_config and not is_sampled(task.task.config.generation_kwargs or {}):
        reason = (
            "decodes greedily, so every answer would be the same: set decoding: {do_sample: true, temperature: 0.7}"
        )
    else:
        return
    raise ConfigError(f"repeats: task {task.name} {reason}; with repeats: null at the task it is asked once")


def check_sampled(task: BoundTask, settings: dict[str, str]) -> None:
    """Raises TaskError for repeats with a model whose generation_config.json, among `settings`, samples nothing."""
    own = task.task.config.generation_kwargs or {}
    if task.spec.repeats and not is_sampled({**json.loads(settings.get("generation_config", "{}")), **own}):
        raise TaskError(
            f"task {task.name} is asked once: neither it nor the model's generation_config.json samples, and every "
            "answer would be the same",
            "not_answerable",
        )


def part_of(task: BoundTask, items: int, spec: RepeatsSpec) -> list[int]:
    """The items to ask several times among the first `items`, in ascending order. Of `ids` those that the task has.

    The items are put into an order by a hash of their content, and the first ones are taken. So a larger part holds a
    smaller one, and nothing else of the task matters.
    """
    if spec.ids is not None:
        wanted = set(spec.ids)
        return [item for item in range(items) if task.contents[item] in wanted]
    return sorted(sorted(range(items), key=lambda item: (_place(task, item), item))[: spec.size(items)])


def _place(task: BoundTask, item: int) -> bytes:
    content = task.contents[item] or task.hashes[item]
    return hashlib.blake2b(_SEED + content.encode(), digest_size=16).digest()


def _check_ids(loaded: Sequence[tuple[TaskSpec, BoundTask]]) -> None:
    """Ids may be of several tasks, such as a group's: those of one list are looked for in all tasks that have it."""
    of_lists: dict[tuple[str, ...], set[str]] = {}
    for spec, task in loaded:
        if spec.repeats and spec.repeats.ids:
            unknown = of_lists.setdefault(tuple(spec.repeats.ids), set(spec.repeats.ids))
            unknown.difference_update(filter(None, task.contents[: items_of(spec, task)]))
    for ids, unknown in of_lists.items():
        if unknown:
            named = [one for one in ids if one in unknown][:MOST_NAMED]
            more = f" and {len(unknown) - len(named):,} more" if len(unknown) > len(named) else ""
            raise ConfigError(
                f"repeats: ids: no item to ask has the content hash {', '.join(named)}{more}: they are content_hash in "
                "the view items"
            )
