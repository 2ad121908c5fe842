"""Asking an engine what a task wants to know: rendering, tokenising, asking, and the usage of each answer.

Owns the step from lm-eval's Instances to token requests and back. Tokenisation is lm-eval's own (TemplateLM), with the
special tokens handled as its vLLM backend does. Knows nothing of judging or storage.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
from collections.abc import Iterable
from typing import Any

import jinja2
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from collectors.engines import Engine, GenerateRequest, Generation, Score, ScoreRequest, Usage
from collectors.harness.tasks import BoundTask
from schemas.failures import EMPTY_ANSWER, NAN_LOGPROBS, NOT_JUDGED, PROMPT_TOO_LONG, EngineError, TaskError, one_line

#: lm-eval's default when a task sets no limit on generated tokens.
DEFAULT_MAX_GEN_TOKENS = 256


@dataclasses.dataclass
class Answer:
    """One Instance's answer, once per repeat: what lm-eval's task gets, and what it took."""

    #: (log-likelihood, is greedy), a log-likelihood, or text: lm-eval's response for the request's kind.
    response: Any
    usages: list[Usage]
    prompt_tokens: int
    completion_tokens: int
    failure: str | None = None
    loglikelihood: float | None = None
    greedy: bool | None = None


@dataclasses.dataclass
class Asked:
    """One item: its Instances and, per Instance, its answers by repeat."""

    item: int
    instances: list[Instance]
    answers: list[list[Answer]]

    @property
    def failure(self) -> str | None:
        kinds = [a.failure for answers in self.answers for a in answers if a.failure]
        # An empty repeat among others that answered is still an answered item.
        if kinds and all(k == EMPTY_ANSWER for k in kinds) and len(kinds) < sum(map(len, self.answers)):
            return None
        return next((k for k in kinds if k != EMPTY_ANSWER), kinds[0] if kinds else None)


class Requester(TemplateLM):
    """lm-eval's tokenisation over one loaded engine. One per (engine, model)."""

    def __init__(self, engine: Engine, key: str) -> None:
        super().__init__()
        self.engine = engine
        self.key = key
        self.tokenizer: Any = engine.tokenizer
        bos, eos = engine.tokenizer.bos_token_id, engine.tokenizer.eos_token_id
        if bos is None and eos is None:
            raise EngineError("the tokenizer has neither a begin nor an end token", kind="bad_model")
        self._prefix = int(bos if bos is not None else eos)  # type: ignore[arg-type]
        self._prefix_text = self._text(self._prefix)
        self._encoded: list[tuple[list[int], list[int]]] = []

    # ---- what lm-eval's TemplateLM asks for

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return self._prefix

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        if not string:
            return []
        if has_bos_prefix(string, self._prefix_text):  # a chat template has put it there: never twice
            add_special_tokens = False
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **special, **kwargs))

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """lm-eval's, but for a context of spaces only: it moves them to the continuation and leaves no context."""
        before, after = super()._encode_pair(context, continuation)
        if before:
            return before, after
        return [self._prefix], after[1:] if after[:1] == [self._prefix] else after

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        self._encoded = [(context, continuation) for _, context, continuation in requests]
        return [(0.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError("asked through ask()")

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError("asked through ask()")

    def render_chat(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The conversation as the model's own template writes it; without the system role where it refuses that."""
        settings = {
            "tokenize": False,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        try:
            return str(self.tokenizer.apply_chat_template(chat_history, **settings))
        except jinja2.exceptions.TemplateError:
            history = [message for message in chat_history if message["role"] != "system"]
            return str(self.tokenizer.apply_chat_template(history, **settings))

    # ---- building

    def build(self, task: BoundTask, upto: int) -> list[list[Instance]]:
        """The Instances of items 0..upto-1, a list per item. Few-shot draws are sequential, so it starts at item 0.

        Raises TaskError when the task or the chat template cannot render.
        """
        chat = task.spec.chat_template
        if chat and not self.tokenizer.chat_template:
            raise TaskError(f"task {task.name} wants a chat template and the model has none", kind="no_chat_template")
        try:
            template = self.chat_template(chat) if chat else None
            task.task.set_fewshot_seed(seed=task.spec.fewshot_seed)
            task.task.build_all_requests(
                limit=upto,
                system_instruction=task.spec.system_prompt,
                apply_chat_template=bool(chat),
                fewshot_as_multiturn=bool(chat) and task.spec.fewshot_as_multiturn,
                chat_template=_named(self, template) if template else None,
            )
        except (Exception, SystemExit) as error:  # templates and task functions are code of others
            raise TaskError(f"task {task.name} cannot build its requests: {one_line(error)}") from error
        items: list[list[Instance]] = [[] for _ in range(upto)]
        for instance in task.task.instances:
            items[instance.doc_id].append(instance)
        return items

    # ---- asking

    def ask(self, items: dict[int, list[Instance]], seed: str) -> list[Asked]:
        """Asks the engine every Instance of every item, `repeats` times; items and answers in order.

        `seed` names the cell: a sampled answer's seed is drawn from (cell, item, request, repeat), so that it does not
        depend on how the items were cut into shards. Raises EngineError.
        """
        jobs = [(item, inst, r) for item, insts in items.items() for inst in insts for r in range(inst.repeats or 1)]
        answers: list[Answer | None] = [None] * len(jobs)
        for kind, ask in (
            ("loglikelihood", self._ask_scores),
            ("loglikelihood_rolling", self._ask_rolling),
            ("generate_until", self._ask_texts),
        ):
            chosen = [i for i, (_, inst, _) in enumerate(jobs) if inst.request_type == kind]
            if chosen:
                for i, answer in zip(chosen, ask([jobs[i] for i in chosen], seed), strict=True):
                    answers[i] = answer
        return _by_item(items, answers)

    def _ask_scores(self, jobs: list[Any], seed: str) -> list[Answer]:
        pairs = self._encode_scores([inst for _, inst, _ in jobs])
        limit = self.engine.max_length - 1  # vLLM always generates one token
        fits = [bool(c) and len(p) + len(c) <= limit for p, c in pairs]
        scores = iter(self._score([ScoreRequest(p, c) for (p, c), fit in zip(pairs, fits, strict=True) if fit]))
        return [
            _scored(next(scores), p, c) if fit else _unasked(PROMPT_TOO_LONG if c else NOT_JUDGED, len(p), len(c))
            for (p, c), fit in zip(pairs, fits, strict=True)
        ]

    def _encode_scores(self, instances: list[Instance]) -> list[tuple[list[int], list[int]]]:
        """Context and continuation of each by lm-eval's rules, which have none for an empty answer to no question."""
        empty = [not any(inst.args[:2]) for inst in instances]
        self.loglikelihood([inst for inst, skip in zip(instances, empty, strict=True) if not skip], disable_tqdm=True)
        encoded, self._encoded = iter(self._encoded), []
        return [([self._prefix], []) if skip else next(encoded) for skip in empty]

    def _ask_rolling(self, jobs: list[Any], seed: str) -> list[Answer]:
        texts = [self.tok_encode(inst.args[0]) for _, inst, _ in jobs]
        windows = [
            [
                ScoreRequest(*window)
                for window in map(
                    make_disjoint_window,
                    get_rolling_token_windows(
                        token_list=tokens,
                        prefix_token=self.prefix_token_id,
                        max_seq_len=self.engine.rolling_length,
                        context_len=1,
                    ),
                )
            ]
            for tokens in texts
        ]
        scores = iter(self._score([w for ws in windows for w in ws]))
        answers = []
        for tokens, ws in zip(texts, windows, strict=True):
            parts = [next(scores) for _ in ws]
            total = sum(part.logprob for part in parts)
            failure = NAN_LOGPROBS if math.isnan(total) else None
            answers.append(Answer(total, [p.usage for p in parts], len(tokens), 0, failure, total))
        return answers

    def _ask_texts(self, jobs: list[Any], seed: str) -> list[Answer]:
        requests = [self._generate_request(inst, f"{seed}:{item}:{inst.idx}:{r}") for item, inst, r in jobs]
        fits = [len(request.prompt) + request.max_tokens <= self.engine.max_length for request in requests]
        asked = [request for request, fit in zip(requests, fits, strict=True) if fit]
        texts = iter(self._generate(asked))
        answers = []
        for request, fit in zip(requests, fits, strict=True):
            if not fit:
                answers.append(_unasked(PROMPT_TOO_LONG, len(request.prompt), 0))
                continue
            got = next(texts)
            text = postprocess_generated_text(got.text, request.stop, None)
            failure = None if text.strip() else EMPTY_ANSWER
            answers.append(Answer(text, [got.usage], len(request.prompt), got.usage.generated_tokens, failure))
        return answers

    def _generate_request(self, instance: Instance, seed: str) -> GenerateRequest:
        context, settings = instance.args
        eos = self.tokenizer.eos_token_id
        try:
            kwargs: dict[str, Any] = dict(normalize_gen_kwargs(settings, default_max_gen_toks=DEFAULT_MAX_GEN_TOKENS))
            stop = handle_stop_sequences(kwargs.pop("until", None), eos=None if eos is None else self._text(eos))
            if not all(isinstance(s, str) for s in stop):
                raise ValueError(f"until is {stop}")
            sampled = kwargs.pop("do_sample")
            temperature = float(kwargs.pop("temperature", 0.0)) if sampled else 0.0
            max_tokens = int(kwargs.pop("max_gen_toks"))
            if max_tokens < 1:
                raise ValueError(f"max_gen_toks is {max_tokens}")
        except (TypeError, ValueError) as error:
            raise TaskError(f"task {instance.task_name} has a wrong generation setting: {one_line(error)}") from error
        return GenerateRequest(
            prompt=self.tok_encode(context) or [self._prefix],
            max_tokens=max_tokens,
            stop=[s for s in stop if s],
            temperature=temperature,
            seed=int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big") if temperature else None,
            params=kwargs,
        )

    def _text(self, token: int) -> str:
        return str(self.tokenizer.decode(token))

    def _score(self, requests: list[ScoreRequest]) -> list[Score]:
        return self._checked(self.engine.score(self.key, requests)) if requests else []

    def _generate(self, requests: list[GenerateRequest]) -> list[Generation]:
        return self._checked(self.engine.generate(self.key, requests)) if requests else []

    def _checked(self, reply: tuple[str, list[Any]]) -> list[Any]:
        answered, answers = reply
        if answered != self.key:
            raise EngineError(f"asked {self.key}, {answered} answered", kind="wrong_model")
        return answers


def _named(requester: Requester, template: str) -> Any:
    """render_chat with the chosen one of several templates."""
    if isinstance(requester.tokenizer.chat_template, dict):
        requester = copy.copy(requester)
        requester.tokenizer = copy.copy(requester.tokenizer)
        requester.tokenizer.chat_template = template
    return requester.render_chat


def _scored(score: Score, context: list[int], continuation: list[int]) -> Answer:
    failure = NAN_LOGPROBS if math.isnan(score.logprob) else None
    response = (score.logprob, score.greedy)
    return Answer(response, [score.usage], len(context), len(continuation), failure, score.logprob, score.greedy)


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
