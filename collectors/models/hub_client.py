"""A client of the Hugging Face Hub that all threads share, and that waits when the Hub asks for it.

Owns the requests that a catalog needs (pages of a listing, a repo's info, small files, ranges of large ones), their
retries, and the meaning of their failures. huggingface_hub looks up the token (HF_TOKEN); it goes to the Hub alone and
into no message. Knows nothing of catalogs or lakes.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from huggingface_hub import constants, get_session, get_token
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

from collectors.models.hub_errors import TRANSPORT_ERROR, refusal
from schemas.failures import ConfigError, ModelError, RouterlakeError, one_line

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: Seconds to wait for the next part of a response.
TIMEOUT = 30.0
#: Statuses that may go away by themselves.
_LATER = frozenset([408, 425, 429, 500, 502, 503, 504])
#: Tries of one request. After the last one the fault is the repo's, if the Hub answers another request.
_TRIES = 6
#: Seconds.
_LONGEST_PAUSE = 60.0
_UNCOMPRESSED = {"Accept-Encoding": "identity"}  # a range of a compressed file would hold other bytes


class HubDownError(RouterlakeError):
    """The Hub did not answer for longer than `patience`."""

    kind = "hub_down"


class _Damaged(Exception):
    """The answer does not fit its status, like a proxy's page or a body that was cut off."""


class Hub:
    """The Hub at HF_ENDPOINT. `patience` is the time in seconds to wait for a Hub that answers nothing.

    Safe for many threads. After a status of 429 or 5xx all of them wait, as long as Retry-After asks for or with
    growing pauses. Raises HubDownError when patience ends or `stop` is called, ConfigError for a token that the Hub
    refuses, and ModelError of kind not_found, gated, hub_down or bad_model when the fault concerns one repo.
    """

    def __init__(self, patience: float = 900.0) -> None:
        self.endpoint = constants.ENDPOINT.rstrip("/")
        self.patience = patience
        self.requests = 0
        token = get_token()
        self._headers = {"User-Agent": "routerlake", **({"Authorization": f"Bearer {token}"} if token else {})}
        self._stopped = threading.Event()
        self._why = "stopped"
        self._lock = threading.Lock()
        self._resume_at = self._last_good = time.monotonic()
        self._pauses = 0

    def stop(self) -> None:
        """Ends all waiting and asking, in every thread."""
        self._stopped.set()

    # ---- requests

    def pages(self, path: str, params: Mapping[str, Any]) -> Iterator[list[Any]]:
        """Yields the pages of a listing, following Link headers. Asks again for a damaged page."""
        page, following = self._page(f"{self.endpoint}{path}", params)
        yield page
        while following:
            page, following = self._page(following, None)  # the link has the parameters
            yield page

    def _page(self, url: str, params: Mapping[str, Any] | None) -> tuple[list[Any], str | None]:
        def ask() -> tuple[list[Any], Any]:
            response = self._get(url, params=params)
            page = _json(response)
            if not isinstance(page, list):
                raise _Damaged("the listing is not a list")
            return page, response

        page, response = self._patiently(ask, "the listing")
        following = response.links.get("next", {}).get("url")
        following = urljoin(url, following) if following else None
        if following and urlsplit(following).netloc != urlsplit(self.endpoint).netloc:  # the token would go there
            raise ConfigError(f"the hub at {self.endpoint} continues its listing elsewhere: set HF_ENDPOINT to that")
        return page, following

    def info(self, repo: str, revision: str | None = None) -> dict[str, Any]:
        """Returns the Hub's info on a repo at a revision, with size and hash of each file. Follows renamed repos."""
        url = f"{self.endpoint}/api/models/{repo}" + (f"/revision/{quote(revision, safe='')}" if revision else "")

        def ask() -> dict[str, Any]:
            info = _json(self._get(url, params={"blobs": True}))
            if not isinstance(info, dict) or not isinstance(info.get("sha"), str):
                raise _Damaged("the answer names no commit")
            return info

        return self._patiently(ask, repo)

    def file(self, repo: str, revision: str, name: str, most: int) -> bytes:
        """Returns a small file. Raises ModelError of kind bad_model if it has more than `most` bytes."""
        url = self._place(repo, revision, name)
        return self._patiently(lambda: self._read(url, repo, name, None, most), repo)

    def range(self, repo: str, revision: str, name: str, first: int, last: int) -> bytes:
        """Returns the bytes `first` to `last` of a file (both included), fewer if it ends before.

        Raises ConfigError for a hub that ignores ranges, because it would send gigabytes of weights.
        """
        url = self._place(repo, revision, name)
        return self._patiently(lambda: self._read(url, repo, name, (first, last), last - first + 1), repo)

    def _place(self, repo: str, revision: str, name: str) -> str:
        return f"{self.endpoint}/{repo}/resolve/{quote(revision, safe='')}/{quote(name)}"

    # ---- sending and retrying

    def _get(self, url: str, params: Mapping[str, Any] | None = None) -> Any:
        self._count()
        response = get_session().get(url, params=params, headers=self._headers, timeout=TIMEOUT)
        hf_raise_for_status(response)
        return response

    def _read(self, url: str, repo: str, name: str, wanted: tuple[int, int] | None, most: int) -> bytes:
        self._count()
        asked = {"Range": f"bytes={wanted[0]}-{wanted[1]}", **_UNCOMPRESSED} if wanted else {}
        with get_session().stream("GET", url, headers={**self._headers, **asked}, timeout=TIMEOUT) as response:
            if response.status_code >= 400:
                response.read()
            hf_raise_for_status(response)
            if wanted and response.status_code != 206:
                raise ConfigError(
                    f"the hub at {self.endpoint} ignores byte ranges (of {repo} {name}) and would send whole weights; "
                    "set HF_ENDPOINT to one that does not"
                )
            data = bytearray()
            for part in response.iter_bytes():
                data += part
                if len(data) > most:
                    raise ModelError(f"{repo}: {name} has more than {most:,} bytes")
        return bytes(data)

    def _patiently(self, ask: Callable[[], Answer], what: str) -> Answer:
        tries = 0
        while True:
            self._wait_for_turn()
            try:
                answer = ask()
            except (TRANSPORT_ERROR, _Damaged, OSError) as error:
                response = getattr(error, "response", None)
                status = getattr(response, "status_code", None)
                if status is not None and status not in _LATER:
                    self._answered()
                    raise _meaning(error, what, status, getattr(response, "headers", {})) from error
                tries += status != 429
                self._pause(error, status, getattr(response, "headers", None) or {})
                if tries >= _TRIES and self._answers_anything():
                    message = f"{what}: the hub answers other requests, but not this one: {_brief(error)}"
                    raise ModelError(message, "hub_down") from error
            else:
                self._answered()
                return answer

    def _count(self) -> None:
        with self._lock:
            self.requests += 1

    def _answered(self) -> None:
        with self._lock:
            self._last_good, self._pauses = time.monotonic(), 0

    def _answers_anything(self) -> bool:
        try:
            self._get(f"{self.endpoint}/api/models", params={"limit": 1})
        except (TRANSPORT_ERROR, OSError):
            return False
        self._answered()
        return True

    def _wait_for_turn(self) -> None:
        while (left := self._resume_at - time.monotonic()) > 0 and not self._stopped.is_set():
            self._stopped.wait(left + random.uniform(0, min(left, 1.0)))  # not all threads at the same moment
        if self._stopped.is_set():
            raise HubDownError(self._why)

    def _pause(self, error: Exception, status: int | None, headers: Mapping[str, str]) -> None:
        """Makes every thread wait. Raises HubDownError if the Hub's silence would then exceed `patience`."""
        asked = _retry_after(headers)
        with self._lock:
            now = time.monotonic()
            if asked is None and self._resume_at > now:
                return  # another thread has paused for the same outage
            seconds = min(2.0**self._pauses, _LONGEST_PAUSE) if asked is None else asked
            if now + seconds - self._last_good > self.patience:
                self._why = (
                    f"the hub at {self.endpoint} has not answered for {now - self._last_good:.0f} s ({_brief(error)}), "
                    f"and the next pause would take {seconds:.0f} s more: given up (--patience {self.patience:.0f})"
                )
                self._stopped.set()
                raise HubDownError(self._why) from error
            is_news = now + seconds > self._resume_at
            self._pauses += 1
            self._resume_at = max(self._resume_at, now + seconds)
        if is_news and seconds >= 1:
            reason = "asks for a pause" if status == 429 else f"does not answer ({_brief(error)})"
            logger.warning("the hub %s: waiting %.0f s", reason, seconds)


def _json(response: Any) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise _Damaged(f"the answer is not JSON: {one_line(error, 100)}") from error


def _brief(error: Exception) -> str:
    """The error in a few words, without the URL's parameters."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code}"
    return str(error) if isinstance(error, _Damaged) else one_line(error, 200)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the Hub asks to wait, in Retry-After (seconds or a date), or in RateLimit once a window is used up.

    Format: https://huggingface.co/docs/hub/rate-limits
    """
    text = (headers.get("retry-after") or "").strip()
    if text.isdigit():
        return float(text)
    with suppress(TypeError, ValueError):
        return max((email.utils.parsedate_to_datetime(text) - dt.datetime.now(dt.UTC)).total_seconds(), 0.0)
    used_up = re.search(r"\br=0\b.*?\bt=(\d+)", headers.get("ratelimit") or "")
    return float(used_up[1]) if used_up else None


def _meaning(error: Exception, what: str, status: int, headers: Mapping[str, str]) -> RouterlakeError:
    """Turns a refusal into an error with advice."""
    if status == 401 and "credentials" in (headers.get("x-error-message") or "").lower():
        return ConfigError("the hub refuses the token in HF_TOKEN (or that of `hf auth login`): renew it, or unset it")
    if refused := refusal(error, what):
        return refused
    if status in (401, 403):
        return ModelError(f"the hub does not give {what} to this token, or without one", "gated")
    if status in (404, 410):
        return ModelError(f"the hub has no {what}", "not_found")
    return ModelError(f"{what}: the hub refuses it: {_brief(error)}")
