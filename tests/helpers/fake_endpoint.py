"""A server of OpenAI's protocol on 127.0.0.1 that answers by rule, and fails on request.

Owns the right answers and counts, which depend on the prompt alone, and the faults. It counts what it was paid for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

MODEL = "fake-1"
#: Faults of single requests: the first try of one in `every` requests meets them, the next one is answered.
PASSING = ("429", "429_after", "500", "503", "cut", "hang", "empty_choices", "not_json", "half_stream")
#: Faults of all replies.
LASTING = (
    *("no_usage", "zero_usage", "constant_usage", "impossible_usage", "another_model", "changing_model"),
    *("changing_fingerprint", "echo_ignored", "filtered", "refused", "key"),
)


def number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def answer(prompt: str) -> str:
    """The right answer of the model: thought and answer for a chat, as one text."""
    return f" The answer is {number(prompt) % 13}.\n#### {number(prompt) % 13}"


def tokens(text: str) -> int:
    return max(1, len(text) // 4)


@dataclass
class Fake:
    """What the server does, and what it has seen. Threads may read it."""

    fault: str | None = None
    every: int = 3
    latency_s: float = 0.0
    key: str | None = None
    thought: str | None = None
    #: Key of a request -> answers that were sent whole.
    paid: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    most_at_once: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    #: When it was asked and had answered, for its idle time.
    spans: list[tuple[float, float]] = field(default_factory=list)
    _now: int = 0
    _met: set[str] = field(default_factory=set)

    def meets(self, digest: str) -> bool:
        """Whether the request meets a passing fault now: once, and one in `every` does."""
        if digest in self._met or int(digest[:8], 16) % self.every:
            return False
        self._met.add(digest)
        return True

    async def handle(self, request: web.Request) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.requests += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await self._handle(request)
        finally:
            self._now -= 1
            self.spans.append((began, loop.time()))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            got = request.headers.get("Authorization")
            return web.json_response({"error": {"message": f"Incorrect API key provided: {got}"}}, status=401)
        body = await request.json()
        self.bodies.append(body)
        chat = request.path.endswith("/chat/completions")
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if self.fault in PASSING and self.meets(digest):
            return await self._passing(request, body, chat)
        prompt = json.dumps(body["messages"], sort_keys=True) if chat else body["prompt"]
        if self.fault == "filtered" and number(str(prompt)) % self.every == 0:
            reply = self._reply(body, chat, str(prompt), digest)
            reply["choices"][0]["finish_reason"] = "content_filter"
            reply["choices"][0].setdefault("message", {})["content"] = ""
            reply["choices"][0]["text"] = ""
            return web.json_response(reply)
        if self.fault == "refused" and number(str(prompt)) % self.every == 0:
            return web.json_response({"error": {"message": "this request is not possible"}}, status=400)
        self.paid[digest] += 1
        if body.get("stream"):
            return await self._stream(request, self._reply(body, chat, str(prompt), digest), chat, whole=True)
        return web.json_response(self._reply(body, chat, str(prompt), digest))

    async def _passing(self, request: web.Request, body: dict[str, Any], chat: bool) -> web.StreamResponse:
        if self.fault in ("429", "429_after"):
            headers = {"Retry-After": "0.05"} if self.fault == "429_after" else {}
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers=headers)
        if self.fault in ("500", "503"):
            return web.Response(text="oh no", status=int(self.fault))
        if self.fault == "hang":
            await asyncio.sleep(3600)
        if self.fault == "empty_choices":
            return web.json_response(
                {"model": MODEL, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
            )
        if self.fault == "not_json":
            return web.Response(text="<html>hello</html>")
        if self.fault == "half_stream":
            return await self._stream(request, self._reply(body, chat, "half", "0"), chat, whole=False)
        response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"choices": [{"mess')
        assert request.transport is not None
        request.transport.close()
        return response

    def _reply(self, body: dict[str, Any], chat: bool, prompt: str, digest: str) -> dict[str, Any]:
        ids = body.get("prompt")
        if not chat and isinstance(ids, list):
            prompt = json.dumps(ids)
        text = answer(prompt)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        thought = self.thought if chat else None
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
            if thought:
                choice["message"]["reasoning_content"] = thought
        else:
            choice["text"] = text
        count = len(ids[0]) if not chat and isinstance(ids, list) else tokens(prompt)
        made = tokens(text) + (tokens(thought) if thought else 0)
        usage: dict[str, Any] = {"prompt_tokens": count, "completion_tokens": made, "total_tokens": count + made}
        usage["prompt_tokens_details"] = {"cached_tokens": count // 2}
        if thought:
            usage["completion_tokens_details"] = {"reasoning_tokens": tokens(thought)}
        if body.get("echo") and isinstance(ids, list):
            choice["logprobs"] = self._logprobs(ids[0])
        reply = {"id": digest[:8], "model": MODEL, "system_fingerprint": "fp_1", "choices": [choice], "usage": usage}
        return self._spoilt(reply, digest)

    def _logprobs(self, ids: list[int]) -> dict[str, Any]:
        if self.fault == "echo_ignored":
            return {"tokens": ["x"], "token_logprobs": [-0.1], "top_logprobs": [{"x": -0.1}]}
        values: list[float | None] = [None]
        tops: list[dict[str, float] | None] = [None]
        for at in range(1, len(ids)):
            value = -(number(json.dumps(ids[: at + 1])) % 1000) / 100 - 0.01
            values.append(value)
            tops.append({"best": value if at % 3 == 0 else -0.001, "own": value})
        return {"tokens": list(map(str, ids)), "token_logprobs": [*values, -0.5], "top_logprobs": [*tops, {"x": -0.5}]}

    def _spoilt(self, reply: dict[str, Any], digest: str) -> dict[str, Any]:
        usage = reply["usage"]
        if self.fault == "no_usage":
            del reply["usage"]
        elif self.fault == "zero_usage":
            reply["usage"] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        elif self.fault == "constant_usage":
            reply["usage"] = {"prompt_tokens": 17, "completion_tokens": 4, "total_tokens": 21}
        elif self.fault == "impossible_usage":
            usage["prompt_tokens_details"] = {"cached_tokens": usage["prompt_tokens"] + 1}
        elif self.fault == "another_model":
            reply["model"] = "cheap-1"
        elif self.fault == "changing_model" and len(self.paid) > 20:
            reply["model"] = f"{MODEL}-20260101"
        elif self.fault == "changing_fingerprint":
            reply["system_fingerprint"] = f"fp_{1 + int(digest[:4], 16) % 2}"
        return reply

    async def _stream(
        self, request: web.Request, reply: dict[str, Any], chat: bool, *, whole: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        choice = reply["choices"][0]
        text = choice["message"]["content"] if chat else choice["text"]
        half = len(text) // 2
        for part in (text[:half], text[half:]) if whole else (text[:half],):
            piece = {"delta": {"content": part}} if chat else {"text": part}
            await response.write(_event({**reply, "usage": None, "choices": [{"index": 0, **piece}]}))
        if whole:
            await response.write(_event({**reply, "usage": None, "choices": [{"index": 0, "finish_reason": "stop"}]}))
            await response.write(_event({**reply, "choices": []}))
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


class Server:
    """The server in a thread. `with Server(Fake()) as url:`"""

    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> str:
        self._thread.start()
        port: int = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return f"http://127.0.0.1:{port}/v1"

    def __exit__(self, *_: object) -> None:
        assert self._runner is not None
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> int:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/completions", self.fake.handle)
        app.router.add_post("/v1/chat/completions", self.fake.handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return int(self._runner.addresses[0][1])
