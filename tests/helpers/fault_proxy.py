"""A proxy in front of an object store that does to requests what networks and busy stores do, at random.

Owns the faults and how often each happens. Knows nothing of S3: requests pass as they are, signature and all.
"""

from __future__ import annotations

import asyncio
import io
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from yarl import URL

BUSY = "<Error><Code>{code}</Code><Message>fault of the test</Message></Error>"


@dataclass
class Faults:
    """Chances of what may happen to one request; what did happen is counted in `seen`."""

    #: Answered 503, 500 or 429 instead of being passed on.
    refused: float = 0.1
    #: The connection is cut before the store hears of it, or after the store has done it and before its answer.
    cut_before: float = 0.05
    cut_after: float = 0.05
    #: Passed on after half a second.
    late: float = 0.05
    #: While it is set, every connection is cut: the store is away.
    away: bool = False
    seed: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def hear(self, request: web.Request, body: bytes) -> None:
        """Called with every request, before anything happens to it; a subclass may record requests."""

    def draw(self) -> str:
        chances = {"refused": self.refused, "before": self.cut_before, "after": self.cut_after, "late": self.late}
        [kind] = self._random.choices([*chances, "none"], [*chances.values(), 1 - sum(chances.values())])
        kind = "before" if self.away else kind
        self.seen[kind] += 1
        return kind

    def refusal(self) -> web.Response:
        status, code = self._random.choice([(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")])
        return web.Response(status=status, text=BUSY.format(code=code), content_type="application/xml")


@contextmanager
def faulty(endpoint: str, faults: Faults) -> Iterator[str]:
    """The endpoint of a proxy to `endpoint`, in a thread of its own."""
    loop = asyncio.new_event_loop()
    runner, port = loop.run_until_complete(_start(endpoint, faults))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(endpoint: str, faults: Faults) -> tuple[web.AppRunner, int]:
    async def pass_on(request: web.Request) -> web.StreamResponse:
        body, kind = await request.read(), faults.draw()
        faults.hear(request, body)
        if kind == "refused":
            return faults.refusal()
        if kind == "late":
            await asyncio.sleep(0.5)
        if kind != "before":
            reply = await _ask(request, body)
            if kind != "after":
                return reply
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _ask(request: web.Request, body: bytes) -> web.Response:
        url = f"{endpoint}{request.raw_path}"
        headers = {name: value for name, value in request.headers.items() if name.lower() != "expect"}
        data = io.BytesIO(body) if len(body) > 2**20 else body  # aiohttp warns of large ones in one piece
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, URL(url, encoded=True), headers=headers, data=data) as got,
        ):
            kept = {k: v for k, v in got.headers.items() if k.lower() not in ("transfer-encoding", "connection")}
            return web.Response(status=got.status, body=await got.read(), headers=kept)

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{any:.*}", pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server = site._server
    assert isinstance(server, asyncio.Server)
    return runner, server.sockets[0].getsockname()[1]
