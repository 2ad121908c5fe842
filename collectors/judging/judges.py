"""Judges the answers of a shard, in the judging process where a task's own code or a model's text takes part.

Owns the judging process of a worker: its start, its environment and its end. Knows nothing of engines and of the lake.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets

from collectors.harness.aggregations import Aggregate, Values, aggregate, has_formula, metrics_of
from collectors.harness.judge import Items, Judged, Responses, Verdict, Verdicts, is_judged_by_lm_eval_alone, judge_here
from collectors.harness.tasks import BoundTask
from collectors.judging.process import read_frame, write_frame
from schemas.failures import JUDGE_DIED, EngineError, TaskError

logger = logging.getLogger(__name__)

#: Variables that hold secrets or lead to a cluster. Gated data sets need the hub's token, which children do not get.
_KEPT_BACK = re.compile(r"(?i)^(?!HF_TOKEN$).*(token|secret|passw|credential|_key|apikey)|^(ray|aws|azure|google|gcs)_")


class Judges:
    """The judge of one worker, with at most one process. Use it in one thread."""

    def __init__(self, include: list[str]) -> None:
        self.include = include
        #: Prompting -> the spec and group that load its task.
        self._planned: dict[str, dict[str, Any]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        #: Number of replies that the process still owes, to requests that load a task.
        self._owed = 0

    def plan(self, task: BoundTask, group: str, *, start: bool = True) -> None:
        """Names the group that a task was loaded by, which the judging process loads it by, too: with `start` now."""
        prompting = task.settings.prompting
        spec = task.spec.model_dump_json()
        self._planned[prompting] = {"spec": spec, "group": group, "prompting": prompting, "include": self.include}
        if start and not is_judged_by_lm_eval_alone(task):
            with contextlib.suppress(OSError):  # `judge` starts another
                self._send({"task": self._planned[prompting], "responses": {}})
                self._owed += 1

    def plan_stored(self, task: BoundTask, docs: str) -> None:
        """Names a task whose documents are in the file `docs`, a line of JSON each (collectors.harness.stored)."""
        self._planned[task.settings.prompting] = {
            "spec": task.spec.model_dump_json(),
            "include": self.include,
            "docs": docs,
        }

    def judge(self, task: BoundTask, responses: Responses, items: Items | None = None) -> Judged:
        """Returns verdicts of the items, or with `items` of numbered answers. `plan` has named the task before.

        Raises TaskError if the task cannot be loaded there or its judging goes out of bounds, EngineError if the
        judging process ends twice.
        """
        if is_judged_by_lm_eval_alone(task) or not responses:
            return judge_here(task, responses, items)
        question = {"responses": responses} if items is None else {"responses": responses, "items": items}
        reply, verdicts = self._replied(task, question)
        return Judged(verdicts, dict(map(tuple, reply["failures"])))

    def aggregate(self, task: BoundTask, values: Values, bootstraps: int) -> list[Aggregate]:
        """Returns the value of every metric and filter over all items (collectors.harness.aggregations.aggregate).

        Raises as `judge` does.
        """
        pairs = metrics_of(values)
        if all(has_formula(task.task, metric) for metric, _ in pairs):
            return [aggregate(task.task, values, *pair, bootstraps) for pair in pairs]
        reply, _ = self._replied(task, {"values": values, "bootstraps": bootstraps})
        return [Aggregate(*row) for row in reply["aggregates"]]

    def _replied(self, task: BoundTask, question: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[int, Verdicts]]:
        """Returns the end of the reply and the verdicts before it. Those of a process that ended count for nothing."""
        request = {"task": self._planned[task.settings.prompting], **question}
        for is_last in (False, True):
            try:
                reply, verdicts = self._ask(request)
                return _checked(reply), verdicts
            except (OSError, EOFError, json.JSONDecodeError) as error:
                self.close()
                logger.warning("task %s: the judging process ended: %r", task.name, error)
                if is_last:
                    raise EngineError(f"task {task.name}: the judging process ended twice", JUDGE_DIED) from error
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Ends the process. The next shard starts another."""
        process, self._process, self._owed = self._process, None, 0
        if process:
            _end(process)

    def _ask(self, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[int, Verdicts]]:
        output = self._send(request)
        while self._owed:
            read_frame(output)  # a task that cannot be loaded is named in the reply to its answers
            self._owed -= 1
        verdicts: dict[int, Verdicts] = {}
        while "verdicts" in (reply := read_frame(output)):
            for item, found in reply["verdicts"]:
                verdicts[item] = {(name, repeat): Verdict(*one) if one else None for name, repeat, one in found}
        return reply, verdicts

    def _send(self, request: Mapping[str, Any]) -> Any:
        """Sends a request to the process, which it starts if there is none. Returns the file of replies."""
        if self._process is None:
            self._process = _start()
            weakref.finalize(self, _end, self._process)
        write_frame(self._process.stdin, request)  # type: ignore[arg-type]
        return self._process.stdout


def _start() -> subprocess.Popen[bytes]:
    """Starts the process in an environment without secrets. `datasets` reads there as it does here."""
    environment = {name: value for name, value in os.environ.items() if not _KEPT_BACK.match(name)}
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment["HF_DATASETS_CACHE"] = str(datasets.config.HF_DATASETS_CACHE)
    if datasets.config.HF_DATASETS_OFFLINE:
        environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-P", "-m", "collectors.judging.process"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=Path.cwd(), start_new_session=True
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    for file in (process.stdin, process.stdout):
        if file:
            with contextlib.suppress(OSError):
                file.close()
    process.kill()
    process.wait()


def _checked(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, level, message in reply.get("log", ()):
        logging.getLogger(name).log(level, "%s", message)
    if "error" in reply:
        kind, message = reply["error"]
        raise TaskError(message, kind)
    return reply
