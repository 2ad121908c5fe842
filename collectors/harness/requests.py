"""Asks an engine the requests of a task's items, and records the usage of each answer.

Owns the step from lm-eval's Instances and their token ids to engine requests, and from the engine's replies to answers.
Knows nothing of judging or storage.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from collectors.engines import (
    ChoiceRequest,
    ChoiceScores,
    Engine,
    GenerateRequest,
    Generation,
    Score,
    ScoreRequest,
    Usage,
)
from collectors.harness.efforts import NO_EFFORT, Effort
from collectors.harness.encoding import Encoded, Encoder
from collectors.harness.sampling import own_seed_of, sampled_temperature
from collectors.harness.tasks import DEFAULT_MAX_GEN_TOKENS
from collectors.harness.thinking import Thinker, Thought
from collectors.harness.thoughts import Markers, markers_of, split
from schemas.failures import (
    EMPTY_ANSWER,
    ENDPOINT_FAILED,
    NAN_LOGPROBS,
    NOT_JUDGED,
    PROMPT_TOO_LONG,
    REQUEST_REFUSED,
    UNFINISHED_THOUGHT,
    UNKNOWN_TOKEN,
    EngineError,
    TaskError,
    one_line,
)

R = TypeVar("R", ScoreRequest, ChoiceRequest, GenerateRequest)


@dataclasses.dataclass
class Answer:
    """The answer to one repeat of an Instance, and its usage."""

    #: lm-eval's response for the request's kind: (log-likelihood, is greedy), a log-likelihood, or a text. None: no
    #: answer.
    response: Any
    #: One for each request that the engine answered for the Instance. A request that answers several Instances of an
    #: item (choices of one token) is listed at the first of them, so that a sum counts it once.
    usages: list[Usage]
    #: Tokens of the question and of the answer; tokens that the engine computed in vain are in `usages` only.
    prompt_tokens: int | None
    completion_tokens: int | None
    failure: str | None = None
    loglikelihood: float | None = None
    greedy: bool | None = None
    #: Tokens of the context that were cut off so that it fits.
    cut_tokens: int = 0
    #: Whether the engine's first answer was unusable and it was asked again.
    asked_again: bool = False
    #: The generated text to store, with its thought; None: `response`.
    text: str | None = None
    #: The part of completion_tokens that is a thought; None: not counted.
    reasoning_tokens: int | None = None


@dataclasses.dataclass
class Asked:
    """One item: its Instances and, per Instance, its answers by repeat."""

    item: int
    instances: list[Instance]
    answers: list[list[Answer]]

    @property
    def failure(self) -> str | None:
        kinds = [a.failure for answers in self.answers for a in answers if a.failure]
        # The item is answered as long as one of its repeats is not empty.
        if kinds and all(k == EMPTY_ANSWER for k in kinds) and len(kinds) < sum(map(len, self.answers)):
            return None
        return next((k for k in kinds if k != EMPTY_ANSWER), kinds[0] if kinds else None)


class Requester(Encoder):
    """Asks one loaded engine. One per (engine, model)."""

    def __init__(self, engine: Engine, key: str) -> None:
        super().__init__(engine.tokenizer)
        self.engine = engine
        self.key = key
        #: Settings of decoding that the model adds to the task's.
        self._added: dict[str, Any] = {}
        #: Tokens of the engine's context that the cell may not use.
        self._unused = 0
        #: How the cell's model is asked to think.
        self._effort = NO_EFFORT
        #: Cell and generation, for an engine that keeps paid answers; "": no need.
        self._owner = ""
        #: The beginning of the answer (gen_prefix) that a document's prompt ends with.
        self.prefix_of: Callable[[Any], str | None] = lambda doc: None

    # ---- asking

    def ask(
        self,
        items: dict[int, list[Instance]],
        seed: str,
        encoded: dict[int, list[Encoded]] | None = None,
        generation_config: str | None = None,
        *,
        context: int | None = None,
        cut: bool = False,
        effort: Effort = NO_EFFORT,
        owner: str = "",
    ) -> list[Asked]:
        """Asks the engine every Instance of every item, `repeats` times, and returns items and answers in order.

        `seed` names the cell. A sampled answer's seed is the task's own, or drawn from (cell, item, request, repeat),
        so it does not depend on how the items were cut into shards. `encoded` holds the Instances' token ids, by item;
        if it is missing they are encoded here. `generation_config` and `context`, the longest in tokens, are
        the cell's; the engine may have a longer one for other tasks. With `cut` a context that does not fit loses its
        beginning, as in lm-eval's backends. Without, its item fails, and the limit of an answer shrinks to the room
        that is left. `effort` says how the model is asked to think, and `owner` names
        cell and generation for an engine that keeps paid answers.
        Raises EngineError when the engine breaks or another model answers, and TaskError for
        a wrong generation setting or a kind of request that is not supported.
        """
        self._added = json.loads(generation_config or "{}")
        self._unused = max(0, self.engine.max_length - context) if context else 0
        self._effort, self._owner = effort, owner
        encoded = encoded or {item: self.encode(instances) for item, instances in items.items()}
        jobs = [
            _Job(item, instance, repeat, tokens)
            for item, instances in items.items()
            for instance, tokens in zip(instances, encoded[item], strict=True)
            for repeat in range(instance.repeats or 1)
        ]
        if cut:
            jobs = [self._cut(job) for job in jobs]
        answers: list[Answer | None] = [None] * len(jobs)
        for kind, ask in (
            ("loglikelihood", self._ask_scores),
            ("loglikelihood_rolling", self._ask_rolling),
            ("generate_until", self._ask_texts),
        ):
            chosen = [i for i, job in enumerate(jobs) if job.instance.request_type == kind]
            if chosen:
                for i, answer in zip(chosen, ask([jobs[i] for i in chosen], seed), strict=True):
                    answers[i] = answer
        return _by_item(items, answers)

    def _cut(self, job: _Job) -> _Job:
        """Cuts the beginning of a context off, as far as it does not fit. lm-eval's backends keep the whole answer."""
        context, continuation = job.encoded
        kind = job.instance.request_type
        if kind == "loglikelihood":
            over = len(context) + len(continuation) - (self.engine.score_length - self._unused)
            if not 0 < over < len(context):  # without any context no token could be scored
                return job
        elif kind == "generate_until":
            most = self._generate_request(job, "").max_tokens + (self._effort.thinking_tokens or 0)
            over = len(context) - (self.engine.max_length - self._unused - most)
            if over <= 0:
                return job
            if over >= len(context):
                raise TaskError(
                    f"task {job.instance.task_name}: answers of up to {most:,} tokens leave no room for a prompt in "
                    f"the context of {self.engine.max_length:,}: set max_gen_toks in decoding, or max_length",
                    "not_answerable",
                )
        else:
            return job  # it is read in windows
        return job._replace(encoded=Encoded(context[over:], continuation), cut_tokens=over)

    def _ask_scores(self, jobs: list[_Job], seed: str) -> list[Answer]:
        """Asks for one-token choices of the same context in one request, and for each other choice alone."""
        answers: dict[int, Answer] = {}
        limit = self.engine.score_length - self._unused
        fitting = []
        for i, job in enumerate(jobs):
            context, continuation = job.encoded
            if kind := self._refusal(context + continuation, limit) if continuation else NOT_JUDGED:
                answers[i] = _unasked(kind, len(context), len(continuation))
            else:
                fitting.append(i)
        groups = _one_token_groups(jobs, fitting)
        answers |= self._ask_choices(jobs, groups)
        rest = [i for i in fitting if i not in answers]
        scores = self._score([ScoreRequest(*jobs[i].encoded) for i in rest])
        answers |= {i: _scored(score, jobs[i].encoded) for i, score in zip(rest, scores, strict=True)}
        return [_cut_by(jobs[i], answers[i]) for i in range(len(jobs))]

    def _ask_choices(self, jobs: list[_Job], groups: list[list[int]]) -> dict[int, Answer]:
        """Returns answers by position in `jobs`."""
        asked = [
            ChoiceRequest(jobs[group[0]].encoded.context, [jobs[i].encoded.continuation[0] for i in group])
            for group in groups
        ]
        answers = {}
        for group, scores in zip(groups, self._choose(asked), strict=True):
            for i, logprob, greedy in zip(group, scores.logprobs, scores.greedy, strict=True):
                usages = scores.usages if i == group[0] else []
                answers[i] = _answer(logprob, greedy, usages, jobs[i].encoded)
                answers[i].asked_again = scores.asked_again
        return answers

    def _refusal(self, tokens: Sequence[int], limit: float = math.inf) -> str | None:
        """Returns the failure kind of tokens that the model cannot be asked; None if it can."""
        if len(tokens) > limit:
            return PROMPT_TOO_LONG
        size = self.engine.vocab_size
        return UNKNOWN_TOKEN if size is not None and max(tokens, default=0) >= size else None

    def _ask_rolling(self, jobs: list[_Job], seed: str) -> list[Answer]:
        refusals = [self._refusal(job.encoded.continuation) for job in jobs]
        texts = [[] if refusal else job.encoded.continuation for job, refusal in zip(jobs, refusals, strict=True)]
        windows = [
            [
                ScoreRequest(*window)
                for window in map(
                    make_disjoint_window,
                    get_rolling_token_windows(
                        token_list=tokens,
                        prefix_token=self.prefix_token_id,
                        max_seq_len=self.engine.rolling_length - self._unused,
                        context_len=1,
                    ),
                )
            ]
            for tokens in texts
        ]
        scores = iter(self._score([w for ws in windows for w in ws]))
        answers = []
        for job, refusal, tokens, ws in zip(jobs, refusals, texts, windows, strict=True):
            if refusal:
                answers.append(_unasked(refusal, len(job.encoded.continuation), 0))
                continue
            parts = [next(scores) for _ in ws]
            total = sum(part.logprob for part in parts)
            failure = NAN_LOGPROBS if math.isnan(total) else None
            usages, again = [usage for part in parts for usage in _usages(part)], any(p.discarded for p in parts)
            answers.append(Answer(total, usages, len(tokens), 0, failure, total, asked_again=again))
        return answers

    def _ask_texts(self, jobs: list[_Job], seed: str) -> list[Answer]:
        requests = [self._generate_request(job, f"{seed}:{job.item}:{job.instance.idx}:{job.repeat}") for job in jobs]
        longest = self.engine.max_length - self._unused
        refusals = [self._refusal(request.prompt, longest - 1) for request in requests]
        asked = [request for request, refusal in zip(requests, refusals, strict=True) if not refusal]
        rooms = [longest - len(request.prompt) for request in asked]
        begun = [self.prefix_of(job.instance.doc) or "" for job, no in zip(jobs, refusals, strict=True) if not no]
        texts = iter(self._texts(asked, rooms, begun))
        answers = [
            _unasked(refusal, len(request.prompt), 0) if refusal else next(texts)
            for request, refusal in zip(requests, refusals, strict=True)
        ]
        return [_cut_by(job, answer) for job, answer in zip(jobs, answers, strict=True)]

    def _texts(self, requests: list[GenerateRequest], rooms: list[int], begun: list[str]) -> list[Answer]:
        """`rooms` are the tokens that the prompts leave free. As in lm-eval's maybe_truncate with shrink_gen_toks, an
        answer may be as long as there is room."""
        effort = self._effort
        if effort.thinking and not self.engine.thinks_by_itself:
            thinker = Thinker(effort.thinking, effort.thinking_tokens, self.tokenizer, self._generate)
            return [_thought(one) for one in thinker.ask(requests, rooms, begun)]
        asked = [
            dataclasses.replace(
                request,
                max_tokens=min(request.max_tokens + (effort.thinking_tokens or 0), room),
                thinking=effort.thinking,
                thinking_tokens=effort.thinking_tokens,
                reasoning_effort=effort.reasoning_effort,
            )
            for request, room in zip(requests, rooms, strict=True)
        ]
        markers = markers_of(effort.thinking)
        return [
            _generated(request, got, markers, counts=self.engine.counts_tokens)
            for request, got in zip(asked, self._generate(asked), strict=True)
        ]

    def _generate_request(self, job: _Job, seed: str) -> GenerateRequest:
        instance = job.instance
        settings = {**self._added, **instance.args[1]}
        eos = self.tokenizer.eos_token_id
        try:
            kwargs: dict[str, Any] = dict(normalize_gen_kwargs(settings, default_max_gen_toks=DEFAULT_MAX_GEN_TOKENS))
            stop = handle_stop_sequences(kwargs.pop("until", None), eos=None if eos is None else self._text(eos))
            if not all(isinstance(s, str) for s in stop):
                raise ValueError(f"until is {stop}")
            sampled, own_seed = kwargs.pop("do_sample"), own_seed_of(kwargs)
            temperature = sampled_temperature(kwargs) if sampled else 0.0
            max_tokens = int(kwargs.pop("max_gen_toks"))
            if max_tokens < 1:
                raise ValueError(f"max_gen_toks is {max_tokens}")
            for name in ("temperature", "seed"):
                kwargs.pop(name, None)
        except (TypeError, ValueError) as error:
            raise TaskError(f"task {instance.task_name} has a wrong generation setting: {one_line(error)}") from error
        return GenerateRequest(
            prompt=job.encoded.context,
            max_tokens=max_tokens,
            stop=[s for s in stop if s],
            temperature=temperature,
            seed=_drawn(seed, own_seed, job.repeat) if temperature else None,
            params=kwargs,
        )

    def _score(self, requests: list[ScoreRequest]) -> list[Score]:
        return self._checked(self.engine.score(self.key, self._owned(requests))) if requests else []

    def _choose(self, requests: list[ChoiceRequest]) -> list[ChoiceScores]:
        return self._checked(self.engine.choose(self.key, self._owned(requests))) if requests else []

    def _generate(self, requests: list[GenerateRequest]) -> list[Generation]:
        return self._checked(self.engine.generate(self.key, self._owned(requests))) if requests else []

    def _owned(self, requests: list[R]) -> list[R]:
        return [dataclasses.replace(one, owner=self._owner) for one in requests] if self._owner else requests

    def _checked(self, reply: tuple[str, list[Any]]) -> list[Any]:
        answered, answers = reply
        if answered != self.key:
            raise EngineError(f"asked {self.key}, {answered} answered", kind="wrong_model")
        return answers


def _drawn(cell_and_request: str, own_seed: int | None, repeat: int) -> int:
    """The seed of one sampled answer: the task's own, plus the repeat so that repeats differ, else a drawn one.

    lm-eval's vLLM backend gives every repeat the task's own seed, and so asks for the same answer several times.
    """
    if own_seed is not None:
        return own_seed + repeat
    return int.from_bytes(hashlib.sha256(cell_and_request.encode()).digest()[:4], "big")


class _Job(NamedTuple):
    """One repeat of one Instance."""

    item: int
    instance: Instance
    repeat: int
    encoded: Encoded
    cut_tokens: int = 0


def _one_token_groups(jobs: list[_Job], chosen: list[int]) -> list[list[int]]:
    """Groups positions in `jobs` that one request can answer: of one item and context, each one token long."""
    by_item: dict[tuple[int, int], list[list[int]]] = {}
    for i in chosen:
        item, _, repeat, (context, _), _ = jobs[i]
        groups = by_item.setdefault((item, repeat), [])
        group = next((g for g in groups if jobs[g[0]].encoded.context == context), None)
        if group is None:
            groups.append(group := [])
        group.append(i)
    everything = [group for groups in by_item.values() for group in groups]
    return [group for group in everything if all(len(jobs[i].encoded.continuation) == 1 for i in group)]


def _cut_by(job: _Job, answer: Answer) -> Answer:
    answer.cut_tokens = job.cut_tokens
    return answer


def _scored(score: Score, encoded: Encoded) -> Answer:
    if score.failure:
        return Answer(None, [score.usage], len(encoded.context), len(encoded.continuation), score.failure)
    answer = _answer(score.logprob, score.greedy, _usages(score), encoded)
    answer.asked_again = score.discarded is not None
    return answer


def _usages(score: Score) -> list[Usage]:
    return [score.usage] if score.discarded is None else [score.discarded, score.usage]


def _answer(logprob: float, greedy: bool, usages: list[Usage], encoded: Encoded) -> Answer:
    failure = NAN_LOGPROBS if math.isnan(logprob) else None
    sizes = len(encoded.context), len(encoded.continuation)
    return Answer((logprob, greedy), usages, *sizes, failure, logprob, greedy)


def _thought(one: Thought) -> Answer:
    failure = one.failure or (None if one.answer.strip() else EMPTY_ANSWER)
    response = None if failure == PROMPT_TOO_LONG else one.answer
    counts = one.prompt_tokens, one.completion_tokens
    return Answer(response, one.usages, *counts, failure, text=one.text, reasoning_tokens=one.reasoning_tokens)


def _generated(request: GenerateRequest, got: Generation, markers: Markers | None, *, counts: bool) -> Answer:
    """The answer to a request that the engine answered in one step, thought included."""
    parts = split(got.text, markers)
    text = postprocess_generated_text(parts.answer, request.stop, None)
    failure = UNFINISHED_THOUGHT if parts.is_open else None if text.strip() else EMPTY_ANSWER
    failure = got.failure or failure
    response = None if failure in (PROMPT_TOO_LONG, REQUEST_REFUSED, ENDPOINT_FAILED) else text
    usage = got.usage
    sizes = len(request.prompt) if counts else usage.prompt_tokens, usage.generated_tokens
    stored = got.text if markers else None
    return Answer(response, [usage], *sizes, failure, text=stored, reasoning_tokens=usage.reasoning_tokens)


def _unasked(failure: str, prompt_tokens: int, completion_tokens: int) -> Answer:
    return Answer(None, [], prompt_tokens, completion_tokens, failure)


def _by_item(items: dict[int, list[Instance]], answers: Iterable[Answer | None]) -> list[Asked]:
    queue = iter(answers)
    asked = []
    for item, instances in items.items():
        replies: list[list[Answer]] = []
        for instance in instances:
            got = [next(queue) for _ in range(instance.repeats or 1)]
            if any(answer is None for answer in got):
                raise TaskError(f"request kind {instance.request_type!r} is not supported")
            replies.append([answer for answer in got if answer is not None])
        asked.append(Asked(item, instances, replies))
    return asked
