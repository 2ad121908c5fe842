"""The client against servers that lie about who and when they are."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web

from collectors.endpoints.client import Client, Request
from collectors.endpoints.replies import parse
from collectors.specs import EndpointSpec
from schemas.failures import ENDPOINT_FAILED, OVER_BUDGET, EngineError, ModelError, UnreachableError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
REPLY = {"model": "m", "choices": [{"index": 0, "message": {"content": "7"}, "finish_reason": "stop"}]}


@contextmanager
def served(handler: Handler) -> Iterator[str]:
    loop, ready, place = asyncio.new_event_loop(), threading.Event(), []

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        place.append(runner.addresses[0][1])
        ready.set()
        return runner

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield f"http://127.0.0.1:{place[0]}/v1"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def ask(
    url: str, *, usd: float | None = None, most_usd: float = 0.0, key: str | None = None, **spec: Any
) -> tuple[Client, Request]:
    """Asks once, and closes the client. What was raised is raised."""
    settings = {"url": url, "timeout_seconds": 0.5, "tries": 4, **spec}
    client = Client(EndpointSpec.model_validate(settings), url, key)
    client.allowance.usd = usd
    sent = Request("/chat/completions", {"model": "m", "messages": []}, most_usd)
    try:
        client.ask([sent], lambda request, reply: (parse(reply, chat=True), 0.0))
    finally:
        client.close()
    return client, sent


def test_redirect_to_another_address_is_not_followed() -> None:
    asked = []

    async def other(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.json_response(REPLY)

    with served(other) as stolen:

        async def redirect(_: web.Request) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(f"{stolen}/chat/completions")

        with served(redirect) as url, pytest.raises(ModelError, match=r"sends to another address \(status 307\)"):
            ask(url)
    assert asked == []


def test_reply_that_drips_is_given_up() -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" ")
            await asyncio.sleep(0.1)
        return response

    with served(drip) as url, pytest.raises(UnreachableError, match=r"no whole answer within 0\.3 s"):
        ask(url, timeout_seconds=0.3, tries=1)


def test_stream_of_two_models_is_no_answer_and_other_choices_are_left_out() -> None:
    pieces = [
        b'data: {"model": "m", "choices": [{"index": 0, "delta": {"content": "A"}}]}\n\n',
        b'data: {"model": "%s", "choices": [{"index": 1, "delta": {"content": "B"}}]}\n\n',
        b'data: {"model": "m", "choices": [{"index": 0, "delta": {"content": "C"}, "finish_reason": "stop"}]}\n\n',
        b"data: [DONE]\n\n",
    ]

    def of(model: bytes) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for piece in pieces:
                await response.write(piece.replace(b"%s", model))
            return response

        return handler

    with served(of(b"m")) as url:
        assert ask(url, stream=True)[1].reply.text == "AC"
    with served(of(b"evil")) as url:
        client, sent = ask(url, stream=True)
    assert sent.failure == ENDPOINT_FAILED
    assert "pieces of one reply are of 'm' and 'evil'" in client.seen.faults["bad_reply"]


@pytest.mark.parametrize("padding", [0, 225, 240, 260])
def test_key_in_a_refusal_is_cut_out_wherever_it_stands(padding: int) -> None:
    key = "Zq7VERYLONGKEYx0123456789abcdefghijklmnop"

    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": f"{'x' * padding} key {key}"}}, status=401)

    with served(refuse) as url, pytest.raises(ModelError, match="refuses the key") as error:
        ask(url, key=key)
    assert not any(key[:size] in str(error.value) for size in range(4, len(key)))


async def _empty(_: web.Request) -> web.StreamResponse:
    return web.json_response({"model": "m", "choices": []})


def test_third_bad_reply_fails_the_request_alone_though_the_budget_is_spent_to_the_cent() -> None:
    with served(_empty) as url:
        client, sent = ask(url, usd=3.0, most_usd=1.0)
    assert sent.failure == ENDPOINT_FAILED
    assert (client.allowance.spent, client.allowance.reserved) == (3.0, 0.0)


def test_bad_replies_that_spend_the_budget_end_the_asking() -> None:
    with served(_empty) as url, pytest.raises(EngineError, match="the budget is spent") as error:
        ask(url, usd=2.0, most_usd=1.0)
    assert error.value.kind == OVER_BUDGET


@pytest.mark.parametrize(("fault", "spent"), [("cut", 1.0), ("refused", 0.0), ("busy", 0.0), ("slow", 1.0)])
def test_fault_after_which_a_host_may_bill_is_paid_for(fault: str, spent: float) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if fault == "busy":
            return web.json_response({"error": {"message": "busy"}}, status=503)
        if fault == "slow":
            await asyncio.sleep(5)
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"choices": [')
        assert request.transport is not None
        request.transport.close()
        return response

    seconds = 0.3 if fault == "slow" else 60
    settings = {"url": "http://127.0.0.1:9/v1", "timeout_seconds": seconds, "tries": 1}
    with served(handler) as url:
        place = "http://127.0.0.1:9/v1" if fault == "refused" else url
        client = Client(EndpointSpec.model_validate(settings), place, None)
        client.allowance.usd = 5.0
        with pytest.raises(UnreachableError):
            client.ask([Request("/chat/completions", {}, 1.0)], lambda request, reply: (reply, 0.0))
        client.close()
    assert client.allowance.spent == spent


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_without_end_is_refused_before_it_fills_the_memory(
    is_packed: bool, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.endpoints.bodies.MOST_BYTES", 2**20)
    bomb = gzip.compress(b"data: " + b" " * 2**24)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Encoding": "gzip"} if is_packed else {})
        await response.prepare(request)
        for _ in range(64):
            await response.write(bomb if is_packed else b"data: " + b" " * 2**17)
        return response

    with served(endless) as url:
        _, request = ask(url, stream=stream, timeout_seconds=5)
    assert request.failure == ENDPOINT_FAILED
    assert ("packed by 'gzip'" if is_packed else "more than 1,048,576 bytes") in request.message
