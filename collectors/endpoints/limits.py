"""How fast an endpoint is asked: requests at once, requests and tokens a minute, and pauses that it asks for.

Owns these limits. Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

#: Seconds of a minute's allowance that may be used at once.
BURST = 6.0
#: Seconds of pause after a refusal, the first and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0


@dataclass
class Bucket:
    """An allowance that fills at an even rate."""

    per_minute: float
    left: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self._at = self._most, time.monotonic()

    @property
    def _most(self) -> float:
        return max(1.0, self.per_minute * BURST / 60)

    def seconds(self) -> float:
        """How long to wait until something is left."""
        now = time.monotonic()
        self.left = min(self._most, self.left + (now - self._at) * self.per_minute / 60)
        self._at = now
        return max(0.0, -self.left * 60 / self.per_minute) if self.left < 0 else 0.0

    def take(self, amount: float) -> None:
        """It may go below zero: then the next request waits."""
        self.left -= amount


class Gate:
    """Lets so many requests through at once: one more for each round of answers, half as many after a refusal."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.in_flight = 0
        self._halved = float("-inf")
        self._not_before = 0.0
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: self.in_flight < int(self.limit))
            self.in_flight += 1
        try:
            while (wait := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            yield
        finally:
            async with self._changed:
                self.in_flight -= 1
                self._changed.notify_all()

    def answered(self) -> None:
        self.limit = min(float(self.most), self.limit + 1 / self.limit)

    def refused(self, sent: float, pause: float | None = None) -> None:
        """A request that was sent at `sent` (monotonic clock) was refused. Refusals of one round halve once."""
        if sent > self._halved:
            self._halved = time.monotonic()
            self.limit = max(1.0, self.limit / 2)
        if pause:
            self._not_before = max(self._not_before, time.monotonic() + pause)


class Rates:
    """Requests and tokens a minute."""

    def __init__(self, requests: float | None, tokens: float | None) -> None:
        self._requests = Bucket(requests) if requests else None
        self._tokens = Bucket(tokens) if tokens else None
        self._turn = asyncio.Lock()

    async def wait(self, tokens: int) -> None:
        """Waits for the turn of a request of about so many tokens."""
        async with self._turn:
            for bucket, amount in ((self._requests, 1), (self._tokens, tokens)):
                if bucket:
                    while (seconds := bucket.seconds()) > 0:
                        await asyncio.sleep(seconds)
                    bucket.take(amount)

    def settle(self, assumed: int, used: int) -> None:
        """The request took `used` tokens in place of the assumed ones."""
        if self._tokens:
            self._tokens.take(used - assumed)


def backoff(tries: int) -> float:
    """Seconds to wait after so many failed tries. They are random, so that not all requests come back at once."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries, 10)) * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of the headers Retry-After and retry-after-ms; None without one that can be read."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return min(max(0.0, float(milliseconds) / 1000), LONGEST_PAUSE)
        if (text := headers.get("retry-after")) is not None:
            if text.strip().replace(".", "", 1).isdecimal():
                return min(float(text), 600.0)
            when = email.utils.parsedate_to_datetime(text).timestamp()
            return min(max(0.0, when - time.time()), 600.0)
    return None
