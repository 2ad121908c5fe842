"""Tasks on an engine that keeps its requests, and the resulting records: for tests of the harness.

The fixture `tasks` is among it, to be imported by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from collectors.engines import Engine, ModelRef, ScoreRequest, Usage, make_engine
from collectors.harness.judge import judge_here, record_table
from collectors.harness.loading import load_tasks
from collectors.harness.requests import Requester
from collectors.harness.tasks import BoundTask
from collectors.specs import TaskSpec
from schemas.records import RECORD
from tests.helpers.mini_tasks import ITEMS
from tests.helpers.odd_tasks import write_odd_tasks

ROOT = Path(__file__).parents[2]
STUB = ModelRef("m", "m", "revision-1", None)
Rows = list[dict[str, Any]]

#: The engine's log then has the items one after the other, whatever is asked in one pass.
ONE_BY_ONE = [range(i, i + 1) for i in range(ITEMS)]
#: Items in the order of their requests.
CUTS: list[list[range]] = [
    [range(0, 5), range(5, ITEMS)],
    [range(7, ITEMS), range(0, 7)],
    ONE_BY_ONE,
]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_odd_tasks(tmp_path_factory.mktemp("tasks"))


class OneOf(NamedTuple):
    """A token's part of a ChoiceScores; `usage` on the first only, as one pass answers all of them."""

    logprob: float
    greedy: bool
    usage: Usage | None


class Recorded:
    """An engine that keeps its requests and answers; of choices, each token by itself."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.log: list[tuple[Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def score(self, key: str, requests: Any) -> Any:
        return self._kept(requests, self.engine.score(key, requests))

    def choose(self, key: str, requests: Any) -> Any:
        reply = self.engine.choose(key, requests)
        for request, scores in zip(requests, reply[1], strict=True):
            usages = [scores.usages[0], *[None] * (len(request.tokens) - 1)]
            parts = map(OneOf, scores.logprobs, scores.greedy, usages)
            self.log += [
                (ScoreRequest(request.context, [t]), part) for t, part in zip(request.tokens, parts, strict=True)
            ]
        return reply

    def generate(self, key: str, requests: Any) -> Any:
        return self._kept(requests, self.engine.generate(key, requests))

    def _kept(self, requests: Any, reply: Any) -> Any:
        self.log += zip(requests, reply[1], strict=True)
        return reply


def stub(**options: Any) -> Recorded:
    engine = make_engine("stub", options)
    engine.load(STUB)
    return Recorded(engine)


def bind(tasks: Path, name: str, **prompting: Any) -> BoundTask:
    (task,), failed = load_tasks(TaskSpec(task=name, **prompting), [str(tasks)])
    assert not failed
    return task


def collect(engine: Any, task: BoundTask, cuts: Iterable[range] = (range(ITEMS),), upto: int = ITEMS) -> Rows:
    """Record rows of `task`, asked cut by cut; sorted as one cut would give them."""
    requester = Requester(engine, engine.model.key)
    instances = requester.build(task, upto)
    tables = [
        record_table(task, requester.ask({i: instances[i] for i in cut}, "cell"), "cell", "m", judge_here)
        for cut in cuts
    ]
    assert all(table.schema.equals(RECORD) for table in tables)
    order = [f.name for f in task.task._filters]
    rows: Rows = pa.concat_tables(tables).to_pylist()
    return sorted(rows, key=lambda row: (row["item"], order.index(row["filter"]), row["repeat"]))


def untimed(rows: Rows) -> str:
    """Rows as text, without times; text, because NaN is not equal to itself."""
    return repr([{k: v for k, v in row.items() if k not in ("ttft_s", "latency_s")} for row in rows])


def primary(rows: Rows, name: str | None = None) -> Rows:
    """An item's rows: repeat 0, first filter unless named."""
    return [row for row in rows if row["repeat"] == 0 and row["filter"] == (name or rows[0]["filter"])]


def spent(log: list[tuple[Any, Any]]) -> int:
    """Tokens taken in, counted from the requests, and put out; the engine's own count of both has to agree."""
    total = 0
    for request, answer in log:
        if answer.usage is None:
            continue
        sent = request.prompt if hasattr(request, "prompt") else request.context + request.continuation
        if isinstance(answer, OneOf):
            sent = request.context
        assert answer.usage.prompt_tokens == len(sent)
        assert answer.usage.generated_tokens == len(getattr(answer, "token_ids", [0] * answer.usage.generated_tokens))
        total += len(sent) + answer.usage.generated_tokens
    return total
