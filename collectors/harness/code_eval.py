"""Stands in for the library evaluate's metric code_eval: the same verdicts, from programs that run in a sandbox.

lm-eval's humaneval, mbpp and their kinds load that metric by name when they are imported, and it would run the answers
in this process. Owns pass@k and the choice of who gets the stand-in. The first task in a sandbox changes evaluate.load.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from collectors.harness.evaluating import RUNNING_METRICS
from collectors.sandbox.bubblewrap import Sandboxes, refusal
from schemas.failures import TaskError

#: Whether the task that is being loaded allows its answers to run, in a sandbox alone.
_in_sandbox: contextvars.ContextVar[bool] = contextvars.ContextVar("in_sandbox", default=False)


@functools.cache
def _sandboxes(process: int) -> Sandboxes:
    """Those of one process: a fork has none of its parent's."""
    sandboxes = Sandboxes()
    atexit.register(sandboxes.close)
    return sandboxes


class SandboxedCodeEval:
    """The metric code_eval of the library evaluate, as far as tasks use it."""

    def compute(
        self,
        predictions: Sequence[Sequence[str]],
        references: Sequence[str],
        k: Sequence[int] = (1, 10, 100),
        num_workers: int = 4,
        timeout: float = 3.0,
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict[str, Any]]]]]:
        """Returns pass@k for each k, and the endings by question. The limits are the sandbox's, not `timeout`.

        Raises SandboxError if no sandbox starts: then there is no verdict.
        """
        results: dict[int, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        for question, (candidates, test) in enumerate(zip(predictions, references, strict=True)):
            for number, candidate in enumerate(candidates):
                ending = _sandboxes(os.getpid()).run(f"{candidate}\n{test}")
                found = {"task_id": question, "passed": ending.passed, "result": ending.what, "completion_id": number}
                results[question].append((number, found))
        counts = [(len(of), sum(one["passed"] for _, one in of)) for of in results.values()]
        values = {
            f"pass@{size}": math.fsum(_pass_at(n, passed, size) for n, passed in counts) / len(counts)
            for size in k
            if counts and all(n >= size for n, _ in counts)
        }
        return values, dict(results)


def _pass_at(answers: int, passed: int, k: int) -> float:
    """The chance that one of k answers passes, of which `passed` of `answers` do: M. Chen et al., arXiv 2107.03374."""
    if answers - passed < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / n for n in range(answers - passed + 1, answers + 1))


@contextlib.contextmanager
def in_sandbox(wanted: bool) -> Iterator[None]:
    """Gives tasks that are loaded inside the stand-in for code_eval. Raises TaskError where no sandbox can be made."""
    if wanted and (why := refusal()):
        raise TaskError(f"code: sandbox: {why}, so no answer is run", "unsafe_code")
    if wanted or "evaluate" in sys.modules:
        _stand_in()
    token = _in_sandbox.set(wanted)
    try:
        yield
    finally:
        _in_sandbox.reset(token)


def is_allowed() -> bool:
    """Whether the task that is being loaded may run answers in a sandbox."""
    return _in_sandbox.get()


@functools.cache
def _stand_in() -> None:
    """Changes evaluate.load, which takes 5 CPU-seconds to import, for tasks that are loaded inside `in_sandbox`."""
    import evaluate

    load = evaluate.load

    @functools.wraps(load)
    def checked(path: str, *args: Any, **keywords: Any) -> Any:
        if path in RUNNING_METRICS and _in_sandbox.get():
            return SandboxedCodeEval()
        return load(path, *args, **keywords)

    evaluate.load = checked
