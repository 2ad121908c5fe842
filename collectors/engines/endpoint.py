"""The engine of endpoints: servers that speak OpenAI's protocol answer in its place.

Owns the step from token requests to the protocol's requests and back, the canary of log-likelihoods, and what really
answered. Without the model's tokenizer its tokens are the bytes of a text, and messages of a chat travel as JSON; then
counts come from usage alone. Knows nothing of tasks and items.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from collectors.endpoints import canary
from collectors.endpoints.client import Client, Request, body_bytes
from collectors.endpoints.journal import Journal, key_of
from collectors.endpoints.replies import FILTERED, Bounds, Counts, Parsed, counts_of, parse, prompt_logprobs
from collectors.endpoints.witness import Witness
from collectors.engines import (
    OF_ENDPOINTS,
    ChoiceRequest,
    ChoiceScores,
    GenerateRequest,
    Generation,
    ModelRef,
    Score,
    ScoreRequest,
    Tokenizer,
    Usage,
    check_key,
)
from collectors.engines.base import BaseEngine, EngineOptions
from collectors.engines.stub import ByteTokenizer
from schemas.failures import CONTENT_FILTER, ModelError, TaskError, one_line
from schemas.identity import digest

if TYPE_CHECKING:
    from collectors.specs import EndpointSpec, ModelSpec

logger = logging.getLogger(__name__)

#: Context of a model whose server states none, in the harness's tokens.
ANY_LENGTH = 2**31 - 1
#: Most stops that a request may have; the harness cuts an answer at the others.
MOST_STOPS = 4
_FINISH = {"stop": "stop", "length": "length", "eos": "stop", "end_turn": "stop", "max_tokens": "length"}


class MessageTokenizer(ByteTokenizer):
    """Writes a conversation as JSON, which the engine reads again."""

    chat_template: Any = "messages"

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        own = ("tokenize", "add_generation_prompt", "continue_final_message")
        args = {name: value for name, value in kwargs.items() if name not in own}
        chat = {"messages": conversation, "args": args, "goes_on": bool(kwargs.get("continue_final_message"))}
        return json.dumps(chat, ensure_ascii=False)


class EndpointOptions(EngineOptions):
    """None: an endpoint's settings stand in the model (collectors.specs.EndpointSpec)."""


class EndpointEngine(BaseEngine[EndpointOptions]):
    """Needs no options."""

    NAME = OF_ENDPOINTS
    OPTIONS = EndpointOptions

    packages: ClassVar[tuple[str, ...]] = ("openai",)
    needs_files = False
    counts_tokens = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._client: Client | None = None
        self._journal: Journal | None = None
        self._spec: EndpointSpec | None = None
        self._usd: dict[str, float | None] = {}
        self._witness: Witness | None = None
        #: Of the statistics so far, of the allowance's dollars.
        self._usd_reported = 0.0
        #: Whether the canary of log-likelihoods has passed.
        self._is_proven = False

    @classmethod
    def pin(cls, spec: ModelSpec, dtype: str, max_length: int | None) -> ModelRef:
        """The revision is a digest of the address, the name there and the revision that the config states."""
        endpoint = spec.endpoint
        if endpoint is None:
            raise ModelError(f"model {spec.label!r} has no endpoint", "not_found")
        if endpoint.key and os.path.expandvars(endpoint.key) == endpoint.key:
            raise ModelError(f"its key is missing: the environment variable {endpoint.key} is not set", "gated")
        which = [endpoint.place, endpoint.api, spec.source, spec.revision, endpoint.tokenizer]
        return ModelRef(
            name=spec.label,
            source=spec.place,
            written=spec.source if "$" in spec.source else None,
            revision=f"endpoint-{digest(which)}",
            path=None,
            dtype=spec.dtype or "",
            quantization=spec.quantization,
            max_length=spec.max_length,
            has_files=False,
            engine=OF_ENDPOINTS,
            endpoint=endpoint,
        )

    @classmethod
    def refusal(cls, model: ModelRef, kind: str, *, templated: bool, thought: int | None) -> str | None:
        """Why the model's endpoint cannot be asked like this, in a few words; None: it can."""
        spec = model.endpoint
        assert spec is not None
        if kind != "generate_until":
            if spec.api == "chat":
                return "asks by log-likelihoods, which a chat does not give"
            if not spec.tokenizer:
                return "asks by log-likelihoods, which need endpoint.tokenizer"
            return None
        if spec.api == "chat":
            if not templated:
                return "sends a text, and a chat takes messages: set chat_template"
            if thought is not None and not spec.budget_field:
                return "has thinking_tokens, and endpoint.budget_field names no field for them"
            return None
        if not spec.tokenizer and (templated or thought is not None):
            return f"has {'a chat template' if templated else 'thinking_tokens'}, which needs endpoint.tokenizer"
        return None

    # ---- loading

    def _options_of(self, model: ModelRef) -> EndpointOptions:
        return self._options

    def _open(self, model: ModelRef) -> None:
        spec = model.endpoint
        assert spec is not None
        self._spec, self._is_proven = spec, False
        self._client = Client(spec, spec.place, os.path.expandvars(spec.key) if spec.key else None)
        self._usd_reported = 0.0  # of the new client's allowance
        self._journal = Journal()
        self._witness = Witness(spec.url, spec.answers_as or model.source)
        self.thinks_by_itself = spec.api == "chat"
        stated = self._stated_length(model)
        self.tokenizer, self.tokenizer_folder = MessageTokenizer() if spec.api == "chat" else ByteTokenizer(), None
        self.max_length = ANY_LENGTH
        if spec.tokenizer:
            self.tokenizer = _load_tokenizer(model, spec.tokenizer)
            self.tokenizer_folder = spec.tokenizer if os.path.isdir(spec.tokenizer) else None
            self.max_length = min(model.longest or stated or ANY_LENGTH, stated or ANY_LENGTH)
        # As in the engine that answers at most servers (vLLM): less one of context, and one that is always generated.
        self.score_length, self.rolling_length = self.max_length - 1, self.max_length - 2

    def _stated_length(self, model: ModelRef) -> int | None:
        """The context that a server states in its list of models, as vLLM does."""
        listed = self._opened.get("/models")
        entries = listed.get("data") if isinstance(listed, dict) else None
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("id") == model.source:
                length = entry.get("max_model_len")
                return length if type(length) is int and length > 0 else None
        return None

    @property
    def _opened(self) -> Client:
        assert self._client is not None
        return self._client

    def close(self) -> None:
        super().close()
        if self._client:
            self._client.close()
        if self._journal:
            self._journal.close()
        self._client = self._journal = None

    # ---- payment

    def may_spend(self, usd: float | None, prices: dict[str, float | None]) -> None:
        """Sets the dollars that the next requests may cost, and the prices per million tokens by their columns."""
        self._usd = prices
        self._opened.allowance.usd = None if usd is None else self._opened.allowance.spent + usd

    def _most_usd(self, body: dict[str, Any], limit: int) -> float:
        price = self._usd
        prompt, completion = price.get("usd_per_million_prompt") or 0.0, price.get("usd_per_million_completion") or 0.0
        dearest = max(completion, price.get("usd_per_million_reasoning") or 0.0)
        written = max(prompt, price.get("usd_per_million_cache_write") or 0.0)
        return (body_bytes(body) * written + limit * dearest) / 1e6 + (price.get("usd_per_request") or 0.0)

    def _cost(self, counts: Counts) -> float | None:
        """Reasoning tokens are a part of the completion's, and written ones of the prompt's, at their own prices."""
        if counts.prompt is None or counts.completion is None:
            return None
        price = self._usd
        prompt, completion = price.get("usd_per_million_prompt") or 0.0, price.get("usd_per_million_completion") or 0.0
        usd = counts.prompt * prompt + counts.completion * completion
        for tokens, name, usual in (
            (counts.reasoning, "usd_per_million_reasoning", completion),
            (counts.cache_write, "usd_per_million_cache_write", prompt),
        ):
            if (own := price.get(name)) is not None:
                usd += (tokens or 0) * (own - usual)
        return usd / 1e6 + (price.get("usd_per_request") or 0.0)

    # ---- asking

    def generate(self, key: str, requests: Sequence[GenerateRequest]) -> tuple[str, list[Generation]]:
        check_key(self, key)
        assert self._spec is not None
        chat = self._spec.api == "chat"
        path = "/chat/completions" if chat else "/completions"
        bodies = [self._chat(request) if chat else self._completion(request) for request in requests]
        limits = [request.max_tokens for request in requests]
        sent = self._ask(path, bodies, limits, [request.owner for request in requests])
        answers = [self._generation(request, one, chat) for request, one in zip(requests, sent, strict=True)]
        if self._witness and requests:
            sizes = ((len(r.prompt), a.usage) for r, a in zip(requests, answers, strict=True))
            stated = [(length, usage.prompt_tokens, usage.generated_tokens) for length, usage in sizes]
            self._witness.counted(requests[0].owner, stated)
        return key, answers

    def score(self, key: str, requests: Sequence[ScoreRequest]) -> tuple[str, list[Score]]:
        """Raises TaskError where the server does not return the log-probabilities of prompts."""
        check_key(self, key)
        self._prove()
        bodies = [self._echo(request.context + request.continuation) for request in requests]
        sent = self._ask("/completions", bodies, [1] * len(bodies), [request.owner for request in requests])
        return key, [_score(request, one) for request, one in zip(requests, sent, strict=True)]

    def choose(self, key: str, requests: Sequence[ChoiceRequest]) -> tuple[str, list[ChoiceScores]]:
        """Each token is asked for alone: the protocol gives the likeliest tokens, and others may be wanted."""
        alone = [ScoreRequest(r.context, [token], r.owner) for r in requests for token in r.tokens]
        scores = iter(self.score(key, alone)[1])
        answers = []
        for request in requests:
            parts = [next(scores) for _ in request.tokens]
            usages = [part.usage for part in parts]
            answers.append(ChoiceScores([part.logprob for part in parts], [part.greedy for part in parts], usages))
        return key, answers

    def _ask(self, path: str, bodies: list[dict[str, Any]], limits: list[int], owners: list[str]) -> list[Request]:
        """Answers each body from the journal, else by the endpoint. `owners` are the cells that ask."""
        assert self._journal is not None
        journal, numbers = self._journal, Counter[str]()
        requests, new = [], []
        for body, limit, owner in zip(bodies, limits, owners, strict=True):
            plain = key_of(body, 0)
            numbers[plain] += 1
            key = key_of(body, numbers[plain])
            size = body_bytes(body)
            request = Request(path, body, self._most_usd(body, limit), size // 4 + limit, Bounds.of(size, limit))
            if (kept := journal.of(owner, key)) is not None:
                if self._witness:
                    self._witness.saw(kept["reply"], owner)
                request.reply, (request.sent, request.first, request.finished) = kept["reply"], kept["times"]
            else:
                new.append((request, owner, key))
            requests.append(request)
        places = {id(request): (owner, key) for request, owner, key in new}

        def read(request: Request, reply: Any) -> tuple[Any, float | None]:
            self._check(path, request, reply)
            owner, key = places[id(request)]
            if self._witness:
                self._witness.saw(reply, owner)
            times = [request.sent, request.first, request.finished]
            journal.keep(owner, key, {"reply": reply, "times": times})
            return reply, self._cost(counts_of(reply.get("usage"), request.bounds, has_text=True))

        if new:
            self._opened.ask([request for request, _, _ in new], read)
        return requests

    def _check(self, path: str, request: Request, reply: Any) -> None:
        """Raises BadReplyError for a reply that is no answer: it is asked for again, and not kept."""
        if request.body.get("echo"):
            prompt_logprobs(reply, len(request.body["prompt"][0]))
        else:
            parse(reply, chat=path.startswith("/chat"))

    # ---- bodies

    def _chat(self, request: GenerateRequest) -> dict[str, Any]:
        assert self._spec is not None
        chat = json.loads(self.tokenizer.decode(request.prompt))
        body = self._base(request, self._spec.limit_field or "max_completion_tokens")
        body["messages"] = chat["messages"]
        if chat["args"]:
            body["chat_template_kwargs"] = chat["args"]
        if chat["goes_on"]:
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        if request.thinking is None and request.reasoning_effort is None:
            body |= self._stops(request)
        if request.reasoning_effort is not None:
            body["reasoning_effort"] = request.reasoning_effort
        if request.thinking_tokens is not None and self._spec.budget_field:
            _put(body, self._spec.budget_field, request.thinking_tokens)
        return self._finished(body)

    def _completion(self, request: GenerateRequest) -> dict[str, Any]:
        assert self._spec is not None
        body = self._base(request, self._spec.limit_field or "max_tokens") | self._stops(request)
        body["prompt"] = [request.prompt] if self._spec.tokenizer else self.tokenizer.decode(request.prompt)
        if request.needs_ids:
            body |= {"return_token_ids": True, "skip_special_tokens": False}
        return self._finished(body)

    def _base(self, request: GenerateRequest, limit: str) -> dict[str, Any]:
        assert self.model is not None
        body = {"model": self.model.source, **request.params, limit: request.max_tokens}
        body["temperature"] = request.temperature
        if request.temperature and request.seed is not None:
            body["seed"] = request.seed
        return body

    def _stops(self, request: GenerateRequest) -> dict[str, Any]:
        eos = self.tokenizer.eos_token_id
        own = None if eos is None else self.tokenizer.decode(eos)
        stops = [stop for stop in request.stop if stop and stop != own][:MOST_STOPS]
        return {"stop": stops} if stops else {}

    def _echo(self, tokens: list[int]) -> dict[str, Any]:
        assert self.model is not None
        body = {"model": self.model.source, "prompt": [tokens], "echo": True, "logprobs": 1}
        return self._finished({**body, "max_tokens": 1, "temperature": 0})

    def _finished(self, body: dict[str, Any]) -> dict[str, Any]:
        assert self._spec is not None
        omitted = set(self._spec.omit)
        return {name: value for name, value in {**body, **self._spec.extra_body}.items() if name not in omitted}

    # ---- replies

    def _generation(self, request: GenerateRequest, one: Request, chat: bool) -> Generation:
        if one.failure:
            return Generation("", [], Usage(None, None), one.failure)
        parsed = parse(one.reply, one.bounds, chat=chat)
        if parsed.counts.impossible and self._witness:
            self._witness.suspect("impossible_usage", parsed.counts.impossible, request.owner)
        text = _whole(parsed, request.thinking) if chat else parsed.text
        ids = parsed.token_ids
        if ids is None and request.needs_ids:
            raise TaskError("the endpoint returns no token ids, which limits of thoughts need", "not_answerable")
        failure = CONTENT_FILTER if parsed.finish == FILTERED else None
        reason = _FINISH.get(parsed.finish or "", parsed.finish)
        return Generation(text, ids or [], _usage(parsed, one, reason), failure)

    def take_statistics(self, owner: str) -> dict[str, Any]:
        """What the endpoint did for a cell since the last call: who answered, faults, suspicions, dollars."""
        seen, witness = self._opened.seen, self._witness
        statistics = {
            **(witness.take(owner) if witness else {}),
            "counts": dict(seen.counts),
            "faults": dict(seen.faults),
            "usd": self._opened.allowance.spent - self._usd_reported,
            "concurrency_limit": int(self._opened.gate.limit),
        }
        seen.counts.clear()
        seen.faults.clear()
        self._usd_reported = self._opened.allowance.spent
        return statistics

    def _prove(self) -> None:
        """Runs the canary once."""
        if self._is_proven:
            return
        pairs = canary.prompts(self.tokenizer)
        bodies = [self._echo(prompt) for pair in pairs for prompt in pair]
        requests = [Request("/completions", body, self._most_usd(body, 1), 10) for body in bodies]
        self._opened.ask(requests, lambda request, reply: (reply, None))
        for (prompt, _), one, other in zip(pairs, requests[::2], requests[1::2], strict=True):
            if fault := canary.fault(prompt, one, other):
                url = self._opened.spec.url
                raise TaskError(
                    f"{url} does not give the log-probabilities of prompts ({fault}), so tasks that score choices "
                    "cannot be asked",
                    "not_answerable",
                )
        self._is_proven = True


def _score(request: ScoreRequest, one: Request) -> Score:
    if one.failure:
        return Score(math.nan, False, Usage(None, None), failure=one.failure)
    tokens = len(request.context) + len(request.continuation)
    values = prompt_logprobs(one.reply, tokens)[len(request.context) :]
    counts = counts_of(one.reply.get("usage"), one.bounds, has_text=True)
    usage = Usage(
        counts.prompt,
        counts.completion,
        counts.cached,
        scheduled=one.sent,
        finished=one.finished,
        cache_write_tokens=counts.cache_write,
    )
    return Score(math.fsum(value or 0.0 for value, _ in values), all(top for _, top in values), usage)


def _usage(parsed: Parsed, one: Request, reason: str | None) -> Usage:
    counts = parsed.counts
    return Usage(
        prompt_tokens=counts.prompt,
        generated_tokens=counts.completion,
        cached_tokens=counts.cached,
        finish_reason=reason,
        scheduled=one.sent,
        first_token=one.first,
        finished=one.finished,
        reasoning_tokens=counts.reasoning,
        cache_write_tokens=counts.cache_write,
    )


def _whole(parsed: Parsed, thinking: str | None) -> str:
    """Thought and answer as they are stored: a thought that comes apart gets the cell's markers."""
    if parsed.thought is None or thinking is None:
        return parsed.text
    markers = json.loads(thinking)
    thought: str = markers["start"] + parsed.thought
    is_open = not parsed.text and parsed.finish == "length"
    return thought if is_open else thought + markers["end"] + parsed.text


def _put(body: dict[str, Any], path: str, value: Any) -> None:
    """Sets a field of a body by its path, such as thinking.budget_tokens."""
    *outer, last = path.split(".")
    for name in outer:
        body = body.setdefault(name, {})
    body[last] = value


def _load_tokenizer(model: ModelRef, source: str) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(os.path.expanduser(source))
    except Exception as error:
        raise ModelError(f"model {model.name!r}: no tokenizer in {source}: {one_line(error)}") from error
    return tokenizer
