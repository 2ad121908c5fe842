"""Lets a model judge stored answers, alone or in pairs: its requests, its texts' verdicts, and their cost.

A pair is judged in both orders, so that a judge that prefers a place gains nothing: the score is the mean of both, and
`agrees` in the metrics is whether the two name one winner. The judging model comes from a config, as models to
collect do: any engine serves. Knows nothing of how a lake is read.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from collectors.engines import Engine, GenerateRequest, Generation, ModelRef
from collectors.harness.stored import StoredItem, answer_digest, answer_text
from collectors.harness.thoughts import answer_of
from collectors.lake import layout
from collectors.lake.store import Lake
from collectors.verdicts.answers import Asked, Batch, Source
from collectors.verdicts.judging import Counted, Report, with_id, write_judge
from collectors.verdicts.prompts import PromptFile
from schemas.failures import NOT_JUDGED, RouterlakeError, one_line
from schemas.identity import ShardName
from schemas.records import VERDICT
from schemas.verdicts import JUDGE, MEAN, OK

logger = logging.getLogger(__name__)

#: The filter of a judging model's verdicts, and their metrics.
FILTER, METRIC, WINS = "judge", "judge_score", "judge_wins"
#: Requests that the engine gets at once.
_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class ModelJudge:
    """A model with a prompt. `engine` has loaded `model`."""

    name: str
    engine: Engine
    model: ModelRef
    file: PromptFile
    #: The model whose answers all others are compared with; None: answers stand alone.
    opponent: str | None = None
    #: JSON of the markers around the judge's thoughts, as in the column thinking of its cells.
    thinking: str | None = None

    def row(self, task: str) -> dict[str, Any]:
        """The row of JUDGE for the answers to `task`."""
        prompt = self.file.prompt
        settings = {
            "max_tokens": prompt.max_tokens,
            "temperature": 0,
            "dtype": self.model.dtype,
            "quantization": self.model.quantization,
            "overrides": self.model.overrides,
            "opponent": self.opponent,
            "thinking": self.thinking,
        }
        return with_id(
            {
                "judge": self.name,
                "kind": "model",
                "task": task,
                "version": prompt.version,
                "digest": self.file.digest,
                "sandbox": None,
                "metric": WINS if prompt.is_pair else METRIC,
                "filter": FILTER,
                "aggregation": MEAN,
                "higher_is_better": True,
                "correct_threshold": prompt.correct_threshold,
                "model": self.model.name,
                "revision": self.model.revision,
                "settings": json.dumps(settings, sort_keys=True),
                "prompt": self.file.text,
            }
        )

    def ask(self, requests: Sequence[str]) -> list[Generation]:
        """The judge's texts, decoded greedily."""
        limit = self.file.prompt.max_tokens
        asked = [GenerateRequest(self._tokens(text), limit, [], thinking=self.thinking) for text in requests]
        out: list[Generation] = []
        for start in range(0, len(asked), _AT_ONCE):
            out += self.engine.generate(self.model.key, asked[start : start + _AT_ONCE])[1]
        return out

    def _tokens(self, text: str) -> list[int]:
        prompt, tokenizer = self.file.prompt, self.engine.tokenizer
        if not (prompt.chat_template and tokenizer.chat_template):
            return tokenizer.encode("\n\n".join(filter(None, (prompt.system_prompt, text))))
        messages = [{"role": "system", "content": prompt.system_prompt}] if prompt.system_prompt else []
        messages.append({"role": "user", "content": text})
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tokenizer.encode(str(rendered), add_special_tokens=False)


def judge_by_model(
    lake: Lake,
    source: Source,
    batches: Sequence[Batch],
    judge: ModelJudge,
    progress: Callable[[int], None] = lambda records: None,
) -> Report:
    """Judges the answers of `batches` that the judge has not judged. A task that fails costs itself alone.

    `progress` gets the number of records that were done since its last call, judged or not.
    """
    done, report = set(lake.names(layout.VERDICTS)), Report()
    opponents = _opponents(batches, judge)
    for batch in batches:
        left = Counted(batch.rows, progress)
        try:
            report.add(_judge_batch(lake, source, batch, judge, done, opponents, left))
        except RouterlakeError as error:
            report.failed[batch.task] = one_line(error)
        left.end()
    return report


@dataclasses.dataclass
class _Opponents:
    """The answers that others are compared with, read once for each item table."""

    batches: dict[tuple[str, str], list[Batch]]
    read: dict[tuple[str, str], dict[int, tuple[str, StoredItem]]] = dataclasses.field(default_factory=dict)

    def of(self, source: Source, batch: Batch) -> Mapping[int, tuple[str, StoredItem]]:
        """Item -> the opponent's cell and its answer."""
        key = batch.task, batch.items_digest
        if key not in self.read:
            self.read[key] = {
                one.item: (asked.shard.cell_id, one)
                for other in self.batches.get(key, ())
                for asked in source.read(other)
                for one in asked.items
            }
        return self.read[key]


def _opponents(batches: Sequence[Batch], judge: ModelJudge) -> _Opponents:
    found: dict[tuple[str, str], list[Batch]] = {}
    for batch in batches:
        cells = {name: row for name, row in batch.cells.items() if row["model"] == judge.opponent}
        if cells:
            found.setdefault((batch.task, batch.items_digest), []).append(dataclasses.replace(batch, cells=cells))
    return _Opponents(found)


def _judge_batch(
    lake: Lake,
    source: Source,
    batch: Batch,
    judge: ModelJudge,
    done: set[str],
    opponents: _Opponents,
    left: Counted,
) -> Report:
    row = judge.row(batch.task)
    judge_id = row["judge_id"]
    report = Report(judges={judge_id: row})
    cells = [name for name, cell in batch.cells.items() if cell["model"] != judge.opponent]
    of_batch = [shard for name in cells for shard in source.shards.get(name, ())]
    todo = {shard for shard in of_batch if layout.verdicts_name(judge_id, shard) not in done}
    report.known = sum(len(source.item_sets.items_of(shard)) for shard in of_batch if shard not in todo)
    if not todo:
        return report
    questions = source.questions(batch.task, batch.items_digest)
    write_judge(lake, row)
    against = opponents.of(source, batch) if judge.opponent else {}
    for asked in source.read(batch):
        if asked.shard in todo:
            rows = list(_verdicts(judge, asked, questions, against))
            _write(lake, judge_id, batch.task, asked.shard, rows)
            report.shards, report.judged = report.shards + 1, report.judged + len(rows)
            report.unjudged += sum(row["score"] is None for row in rows)
            left.add([asked])
    return report


def _verdicts(
    judge: ModelJudge,
    asked: Asked,
    questions: Mapping[int, tuple[str, str]],
    against: Mapping[int, tuple[str, StoredItem]],
) -> Iterator[dict[str, Any]]:
    """Yields the verdict on each answer of a shard, by one request or, of a pair, by two."""
    prompt = judge.file.prompt
    requests: list[str] = []
    todo: list[tuple[StoredItem, tuple[str, StoredItem] | None, int]] = []
    for one in asked.items:
        texts = dict(zip(("question", "reference"), questions[one.item], strict=True))
        answer, other = answer_text(one), against.get(one.item)
        before = len(requests)
        if answer is not None and not prompt.is_pair:
            requests.append(prompt.request(**texts, answer=answer))
        elif answer is not None and other and (second := answer_text(other[1])) is not None:
            requests.append(prompt.request(**texts, answer_a=answer, answer_b=second))
            requests.append(prompt.request(**texts, answer_a=second, answer_b=answer))
        todo.append((one, other, len(requests) - before))
    replies = iter(judge.ask(requests))
    for one, other, count in todo:
        yield _row(judge, one, other, [next(replies) for _ in range(count)])


def _row(
    judge: ModelJudge, one: StoredItem, other: tuple[str, StoredItem] | None, replies: list[Generation]
) -> dict[str, Any]:
    prompt = judge.file.prompt
    texts = [reply.text for reply in replies]
    scores = [None if r.failure else prompt.read(answer_of(r.text, judge.thinking)) for r in replies]
    score, metrics = _scored(scores, is_pair=prompt.is_pair)
    threshold = prompt.correct_threshold
    usages = [reply.usage for reply in replies]
    return {
        "item": one.item,
        "item_hash": next(iter(one.rows.values()))["item_hash"],
        "filter": FILTER,
        "repeat": 0,
        "against": other[0] if other and prompt.is_pair else None,
        "answer": answer_digest(one, other[1] if other and prompt.is_pair else None),
        "score": score,
        "correct": None if score is None or threshold is None else score >= threshold,
        "metrics": None if score is None else json.dumps(metrics),
        "filtered": json.dumps(scores) if replies else None,
        "failure": NOT_JUDGED if score is None else None,
        "outcome": JUDGE if score is None else OK,
        "judge_texts": texts or None,
        "judge_prompt_tokens": _sum([usage.prompt_tokens for usage in usages]),
        "judge_completion_tokens": _sum([usage.generated_tokens for usage in usages]),
        "judge_cached_tokens": _sum([usage.cached_tokens for usage in usages]),
        "judge_latency_s": _latency(replies),
    }


def _scored(scores: Sequence[float | None], *, is_pair: bool) -> tuple[float | None, dict[str, Any]]:
    """The score of an answer and its metrics. Of a pair the second order scores the opponent, who then stands first."""
    if not scores or any(score is None for score in scores):
        return None, {}
    if not is_pair:
        return scores[0], {METRIC: scores[0]}
    first, second = float(scores[0] or 0), 1 - float(scores[1] or 0)
    agrees = (first > 0.5) == (second > 0.5) and (first < 0.5) == (second < 0.5)
    return (first + second) / 2, {WINS: (first + second) / 2, "first": first, "second": second, "agrees": agrees}


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if counts and len(known) == len(counts) else None


def _latency(replies: Sequence[Generation]) -> float | None:
    spans = [(r.usage.scheduled, r.usage.finished) for r in replies]
    times = [end - start for start, end in spans if start is not None and end is not None]
    return sum(times) if spans and len(times) == len(spans) else None


def _write(lake: Lake, judge_id: str, task: str, shard: ShardName, rows: Sequence[dict[str, Any]]) -> None:
    shared = {"judge_id": judge_id, "cell_id": shard.cell_id, "generation": shard.generation, "task": task}
    table = pa.Table.from_pylist([{**shared, **row} for row in rows], schema=VERDICT)
    lake.create_table(layout.verdicts_name(judge_id, shard), table)
