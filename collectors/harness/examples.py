"""Few-shot examples: an item is never its own, and there are enough of them.

Owns the rule and the search for items that would break it. lm-eval draws the examples; where it draws the item itself,
another takes its place, so that all other prompts stay lm-eval's. Knows nothing of models.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.samplers import FirstNSampler

from schemas.content import document_question
from schemas.failures import TaskError

#: TaskSettings.examples of a task with items that lm-eval would show as their own examples.
OTHERS_ONLY = "others only"


class _Keys:
    """Finds out whether two documents are one item: their documents are equal, or all that a prompt shows of them."""

    def __init__(self, task: Any, pool: Sequence[Any], docs: Sequence[Any], hash_of: Callable[[Any], str]) -> None:
        self._task, self._hash_of = task, hash_of
        #: Questions that are in both. Few are, so that few documents have to be rendered.
        self._both = (set(map(_question, pool)) & set(map(_question, docs))) - {None}
        self._of = {id(doc): self._keys(doc) for doc in pool}

    def __call__(self, doc: Any) -> frozenset[str]:
        """The keys of a document. Two documents with a common key are one item."""
        return self._of.get(id(doc)) or self._keys(doc)

    def _keys(self, doc: Any) -> frozenset[str]:
        whole = self._hash_of(doc)
        return frozenset([whole, self._shown(doc)]) if _question(doc) in self._both else frozenset([whole])

    def _shown(self, doc: Any) -> str:
        task = self._task
        try:
            text, target = task.doc_to_text(doc), task.doc_to_target(doc)
            choices = task.doc_to_choice(doc) if task.config.doc_to_choice else None
        except Exception:  # building the item's request will name the fault
            return self._hash_of(doc)
        return self._hash_of([text, target, choices])


def _question(doc: Any) -> str | None:
    """A document's question without white space."""
    text = document_question(doc)
    return None if text is None else "".join(text.split())


class Guard:
    """Stands in for a task's sampler, and keeps the item that is asked out of its own examples.

    lm-eval leaves it out only where the examples are of the test split by name. It may also be among them because the
    task has no other split, because its items are of the validation split, or because two splits share documents.
    """

    def __init__(self, sampler: Any, keys: _Keys) -> None:
        self._sampler, self._keys = sampler, keys
        self._own: frozenset[str] = frozenset()
        #: How often an item was drawn as its own example.
        self.replaced = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)

    def asking(self, item: Any) -> None:
        """Sets the item whose examples are drawn next."""
        self._own = self._keys(item)

    def sample(self, n: int, *args: Any, **kwargs: Any) -> Sequence[Any]:
        drawn: Sequence[Any] = self._sampler.sample(n, *args, **kwargs)
        others = [doc for doc in drawn if not self._own & self._keys(doc)]
        if len(others) == len(drawn):
            return drawn
        self.replaced += 1
        taken = {id(doc) for doc in others}
        free = [doc for doc in self._sampler.df if id(doc) not in taken and not self._own & self._keys(doc)]
        missing = len(drawn) - len(others)
        if isinstance(self._sampler, FirstNSampler):
            return others + free[:missing]
        # A generator of its own, so that lm-eval's goes on for the next items as without this.
        return others + random.Random(min(self._own)).sample(free, missing)


def guard(task: Any, docs: Sequence[Any], seed: int, hash_of: Callable[[Any], str]) -> str | None:
    """Keeps items out of their own examples. Returns OTHERS_ONLY if that changes any prompt; None if it changes none.

    Call it once for each task, after num_fewshot is set. Raises TaskError of kind no_examples when there are too few.
    """
    shots = task.config.num_fewshot or 0
    if not shots or not hasattr(task, "sampler"):
        return None
    pool = task.sampler.df = list(task.sampler.df)
    keys = _Keys(task, pool, docs, hash_of)
    copies = Counter(key for doc in pool for key in keys(doc))
    most = max(copies[key] for doc in docs for key in keys(doc))
    if shots > len(pool) - most:
        others = f", of which {len(pool) - most} are others than the item that is asked" if most else ""
        raise TaskError(f"task {task.task_name} wants {shots} examples and has {len(pool)}{others}", "no_examples")
    if not most:
        return None
    task.sampler = guarded = Guard(task.sampler, keys)
    build = task.fewshot_context

    def fewshot_context(doc: Any, *args: Any, **kwargs: Any) -> Any:
        guarded.asking(doc)
        return build(doc, *args, **kwargs)

    task.fewshot_context = fewshot_context
    return OTHERS_ONLY if _replaces(task, guarded, docs, seed) else None


def _replaces(task: Any, guarded: Guard, docs: Sequence[Any], seed: int) -> bool:
    """Draws the examples of every item as lm-eval will, and returns whether any item is among its own."""
    excluding = task.fewshot_cfg.split == task.config.test_split  # as in lm-eval's fewshot_context
    task.set_fewshot_seed(seed=seed)
    for doc in docs:
        guarded.asking(doc)
        guarded.sample(task.config.num_fewshot, eval_doc=doc if excluding else None)
    return guarded.replaced > 0


def is_fallback(task: Any) -> bool:
    """Whether the examples are the task's own items, because it has no other split for them."""
    config = task.fewshot_cfg
    given = config.split is not None or config.samples is not None
    return not (given or task.has_training_docs() or task.has_validation_docs())
