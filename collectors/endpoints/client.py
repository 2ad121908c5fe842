"""Sends requests to one endpoint, many at once, until each is answered or the endpoint is given up.

Owns retries, and the words for each fault. The library `openai` sends, without retries of its own. The key stands in no
message. Knows nothing of models' answers: `read` says whether a reply is one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from collectors.endpoints.bodies import bound
from collectors.endpoints.limits import Gate, Rates, backoff, retry_after
from collectors.endpoints.replies import BadReplyError, Bounds
from schemas.failures import (
    CONTENT_FILTER,
    ENDPOINT_DOWN,
    ENDPOINT_FAILED,
    OVER_BUDGET,
    PROMPT_TOO_LONG,
    REQUEST_REFUSED,
    EngineError,
    ModelError,
    UnreachableError,
    one_line,
)

if TYPE_CHECKING:
    from collectors.specs import EndpointSpec

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Tries of a request that fails by itself, such as one whose replies have no choices.
OWN_TRIES = 3
#: Faults after which a host may bill: it had the request.
_MAYBE_PAID = ("timeout", "cut", "bad_reply")
#: Time for all pieces of a streamed reply, times that for one.
_STREAMED = 10
#: Words in a refusal (400) of a request that is too long, or that a filter withholds.
_TOO_LONG = ("context_length", "maximum context", "context length", "too long", "max_model_len", "maximum input")
_FILTERED = ("content_filter", "content_policy", "content management policy", "moderation", "responsibleai")


@dataclass
class Request:
    """One request and its outcome."""

    path: str
    body: dict[str, Any]
    #: What it may cost at most, USD, and about how many tokens it takes.
    most_usd: float = 0.0
    tokens: int = 0
    #: The most tokens that a usage may state for it; None: any.
    bounds: Bounds | None = None
    #: What `read` made of the reply; None: see failure.
    reply: Any = None
    #: Failure kind of an item whose request has no answer.
    failure: str | None = None
    message: str = ""
    #: Monotonic clock: sent, for the last time; first piece of the reply, where it is streamed; whole.
    sent: float | None = None
    first: float | None = None
    finished: float | None = None


@dataclass
class Allowance:
    """Dollars that may be spent. Each request is reserved at its most before it is sent."""

    #: None: no limit.
    usd: float | None = None
    spent: float = 0.0
    reserved: float = 0.0

    def reserve(self, usd: float) -> bool:
        """Whether there is room."""
        if self.usd is not None and self.spent + self.reserved + usd > self.usd:
            return False
        self.reserved += usd
        return True

    def settle(self, reserved: float, spent: float) -> None:
        self.reserved -= reserved
        self.spent += spent


@dataclass
class Seen:
    """What happened since the last look."""

    counts: Counter[str] = field(default_factory=Counter)
    #: Messages of faults, the first of each kind.
    faults: dict[str, str] = field(default_factory=dict)

    def fault(self, kind: str, message: str) -> None:
        self.counts[kind] += 1
        self.faults.setdefault(kind, message)


class Client:
    """Use it from any thread; it sends in one of its own."""

    def __init__(self, spec: EndpointSpec, url: str, key: str | None) -> None:
        import openai

        for name in ("httpx", "httpx2", "httpcore", "httpcore2", openai.__name__):
            logging.getLogger(name).setLevel(logging.WARNING)  # they log each request
        self.spec, self._key = spec, key
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=key or "none",
            max_retries=0,
            timeout=spec.timeout_seconds,
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False,
                # A few packed bytes may be gigabytes of text.
                headers={"Accept-Encoding": "identity"},
                event_hooks={"response": [bound]},
            ),
        )
        self.gate = self._run(self._gate())
        self._rates = Rates(spec.requests_per_minute, spec.tokens_per_minute)
        self.allowance = Allowance()
        self.seen = Seen()
        #: Whether the endpoint has ever answered.
        self._has_answered = False
        self._down: Exception | None = None

    async def _gate(self) -> Gate:
        return Gate(self.spec.max_concurrency)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        if not self._loop.is_closed():
            self._run(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self) -> None:
        await self._client.close()
        await self._loop.shutdown_asyncgens()
        await asyncio.sleep(0.01)  # transports close in the loop's next rounds

    def get(self, path: str) -> Any:
        """The reply to one GET; None where it fails."""
        import openai

        async def ask() -> Any:
            return await self._client.get(path, cast_to=object)

        try:
            return self._run(ask())
        except (openai.APIError, ValueError):
            return None

    def ask(self, requests: Sequence[Request], read: Callable[[Request, Any], tuple[Any, float | None]]) -> None:
        """Sends all requests. `read` gets each reply, and returns what to keep and its cost in USD (None: unknown).

        Raises ModelError where the endpoint refuses the key, the model or every request, UnreachableError where it does
        not answer, and EngineError where the allowance is spent. What was answered by then has been read.
        """
        self._down = None
        self._run(self._ask_all(requests, read))
        if self._down:
            raise self._down
        refused = [one for one in requests if one.failure == REQUEST_REFUSED]
        if refused and len(refused) == len(requests) and not self._has_answered:
            raise ModelError(f"{self.spec.url} refuses every request: {refused[0].message}")

    async def _ask_all(self, requests: Sequence[Request], read: Any) -> None:
        waiting = iter(requests)

        async def work() -> None:
            for request in waiting:
                if self._down:
                    return
                await self._answer(request, read)

        await asyncio.gather(*(work() for _ in range(min(len(requests), self.spec.max_concurrency))))

    async def _answer(self, request: Request, read: Any) -> None:
        """Sends a request until it has an answer or a failure, or the endpoint is down. Each try is paid for itself."""
        tries = own_tries = 0
        while not self._down:
            if not self.allowance.reserve(request.most_usd):
                self._give_up(EngineError("the budget is spent: a request might cost more than is left", OVER_BUDGET))
                return
            spent, fault, pause = await self._try(request, read)
            self.allowance.settle(request.most_usd, spent)
            if fault is None or fault == "refused":
                return
            if fault == "bad_reply":
                own_tries += 1
                if own_tries >= OWN_TRIES:
                    request.failure = ENDPOINT_FAILED
                    return
            tries += 1
            if tries >= self.spec.tries:
                self._give_up(UnreachableError(f"{self.spec.url} does not answer: {request.message}", ENDPOINT_DOWN))
                return
            await asyncio.sleep(pause if pause is not None else backoff(tries))

    async def _try(self, request: Request, read: Any) -> tuple[float, str | None, float | None]:
        """Sends a request once. Returns its possible cost, the kind of the fault, and the pause to take."""
        async with self.gate.passing():
            if self._down:
                return 0.0, None, None
            await self._rates.wait(request.tokens)
            request.sent = time.monotonic()
            self.seen.counts["sent"] += 1
            fault, pause = await self._send(request)
            if fault is not None:
                return request.most_usd if fault in _MAYBE_PAID else 0.0, fault, pause
            request.finished = time.monotonic()
            try:
                request.reply, usd = read(request, request.reply)
            except BadReplyError as error:
                request.message = str(error)
                self.seen.fault("bad_reply", request.message)
                return request.most_usd, "bad_reply", None
            except EngineError as error:  # another model answered
                self._give_up(error)
                return request.most_usd, None, None
            self._has_answered = True
            self.seen.counts["answered"] += 1
            self.gate.answered()
            return request.most_usd if usd is None else usd, None, None

    def _give_up(self, error: Exception) -> None:
        self._down = self._down or error

    # ---- one try

    async def _send(self, request: Request) -> tuple[str | None, float | None]:
        """Sends a request once. Returns the kind of the fault, None for a reply, and the pause that was asked for."""
        import openai

        sent = request.sent or 0.0
        seconds = self.spec.timeout_seconds * (_STREAMED if self.spec.stream else 1)
        try:
            work = self._streamed(request) if self.spec.stream else self._whole(request)
            # A server that sends a byte now and then meets no timeout of a single read.
            request.reply = await asyncio.wait_for(work, seconds)
            return None, None
        except (openai.APITimeoutError, TimeoutError) as error:
            kind = "connection" if "Connect" in type(error.__cause__).__name__ else "timeout"
            waited = seconds if isinstance(error, TimeoutError) else self.spec.timeout_seconds
            return self._fault(request, kind, f"no whole answer within {waited:g} s", sent), None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            if isinstance(cause, BadReplyError):
                return self._fault(request, "bad_reply", self._without_key(cause), None), None
            kind = "connection" if "Connect" in type(cause).__name__ else "cut"
            return self._fault(request, kind, self._without_key(cause), sent), None
        except openai.APIStatusError as error:
            return self._status(request, error, sent)
        except (openai.APIError, ValueError) as error:  # a body that is cut, or no JSON
            return self._fault(request, "bad_reply", self._without_key(error), None), None
        except Exception as error:  # httpx and its like, while the body comes
            return self._fault(request, "cut", self._without_key(error), sent), None

    async def _whole(self, request: Request) -> Any:
        return await self._client.post(request.path, cast_to=object, body=request.body)

    async def _streamed(self, request: Request) -> Any:
        """Joins the pieces of a stream into the reply that would have come without it."""
        import openai

        body = {**request.body, "stream": True, "stream_options": {"include_usage": True}}
        stream: Any = await self._client.post(
            request.path, cast_to=object, body=body, stream=True, stream_cls=openai.AsyncStream[object]
        )
        joined: dict[str, Any] = {}
        choice: dict[str, Any] = {}
        async with stream:
            async for piece in stream:
                if isinstance(piece, dict):
                    request.first = request.first or time.monotonic()
                    _join(joined, choice, piece)
        if choice:
            joined["choices"] = [choice]
        return joined

    def _status(self, request: Request, error: Any, sent: float) -> tuple[str, float | None]:
        status, text = error.status_code, self._without_key(error)
        if status in (408, 409, 429) or status >= 500:
            pause = retry_after(error.response.headers)
            if status == 429 and "insufficient_quota" in text:
                self._give_up(ModelError(f"{self.spec.url}: the account's quota is spent: {text}", "gated"))
            kind = "too_many" if status == 429 else "overloaded" if status == 503 else "server_error"
            return self._fault(request, kind, f"status {status}: {text}", sent, pause), pause
        if 300 <= status < 400:  # a redirect: another server would get the prompts, and its answers would count
            self._give_up(ModelError(f"{self.spec.url} sends to another address (status {status}): state that one"))
        elif status in (401, 403):
            self._give_up(ModelError(f"{self.spec.url} refuses the key: {text}", "gated"))
        elif status == 404:
            self._give_up(ModelError(f"{self.spec.url} has no such model or path: {text}", "not_found"))
        else:
            lower = text.lower()
            request.failure = REQUEST_REFUSED
            if any(word in lower for word in _FILTERED):
                request.failure = CONTENT_FILTER
            elif any(word in lower for word in _TOO_LONG) or status == 413:
                request.failure = PROMPT_TOO_LONG
            self._has_answered = self._has_answered or request.failure != REQUEST_REFUSED
        request.message = f"status {status}: {text}"
        self.seen.fault("refused", request.message)
        return "refused", None

    def _fault(self, request: Request, kind: str, message: str, sent: float | None, pause: float | None = None) -> str:
        request.message = message
        self.seen.fault(kind, message)
        if sent is not None and kind in ("too_many", "overloaded", "timeout"):
            self.gate.refused(sent, pause)
        return kind

    def _without_key(self, error: BaseException) -> str:
        # The whole text, before it is cut: half of a key would not be seen.
        kept = type(error).__name__ + ": " + (str(error).replace(self._key, "…") if self._key else str(error))
        return one_line(EngineError(kept), 300)


def _join(joined: dict[str, Any], choice: dict[str, Any], piece: dict[str, Any]) -> None:
    """Raises ValueError where the pieces are of two models."""
    if piece.get("model") and joined.get("model", piece["model"]) != piece["model"]:
        raise ValueError(f"pieces of one reply are of {joined['model']!r} and {piece['model']!r}"[:200])
    for name in ("model", "system_fingerprint", "provider", "usage"):
        if piece.get(name) is not None:
            joined[name] = piece[name]
    for part in piece.get("choices") or ():
        if part.get("index", 0) != 0:  # nobody asked for a second answer
            continue
        if part.get("finish_reason") is not None:
            choice["finish_reason"] = part["finish_reason"]
        if isinstance(part.get("text"), str):
            choice["text"] = choice.get("text", "") + part["text"]
        if part.get("token_ids"):
            choice["token_ids"] = [*choice.get("token_ids", []), *part["token_ids"]]
        for name, value in (part.get("delta") or {}).items():
            message = choice.setdefault("message", {})
            if isinstance(value, str) and name != "role":
                message[name] = message.get(name, "") + value


def body_bytes(body: dict[str, Any]) -> int:
    """An upper bound of a prompt's tokens: a token is at least a byte of text, or an id."""
    prompt = body.get("prompt")
    if isinstance(prompt, list):
        return len(prompt[0]) if prompt and isinstance(prompt[0], list) else len(prompt)
    return len(json.dumps(body.get("messages") or prompt or "", ensure_ascii=False).encode()) + 64
