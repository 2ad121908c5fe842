"""Bounds the bytes that a server may send for one request, before anything of them is parsed or kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from collectors.endpoints.replies import BadReplyError

#: Bytes of one reply. The log-probabilities of a prompt of 131,072 tokens are about 20 MB of JSON.
MOST_BYTES = 64 * 2**20


async def bound(response: Any) -> None:
    """A hook of httpx2: reading the response raises BadReplyError once it is larger, or comes packed."""
    import httpx2

    class Bounded(httpx2.AsyncByteStream):
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for piece in self._stream:
                size += len(piece)
                if size > MOST_BYTES:
                    raise BadReplyError(f"its reply has more than {MOST_BYTES:,} bytes")
                yield piece

        async def aclose(self) -> None:
            await self._stream.aclose()

    packed = response.headers.get("content-encoding", "identity")
    if packed != "identity":
        raise BadReplyError(f"its reply is packed by {packed[:40]!r}, and nobody asked for that")
    response.stream = Bounded(response.stream)
