"""Routers that do what a router must not."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


class _Quiet:
    def fit(self, *_: Any) -> None:
        pass


class Raises(_Quiet):
    def route(self, *_: Any) -> Any:
        raise RuntimeError("no idea\nat all")


class Exits(_Quiet):
    def route(self, *_: Any) -> Any:
        raise SystemExit(0)


class Unknown(_Quiet):
    def route(self, queries: Any, candidates: Any) -> Any:
        return ["nobody"] * len(queries)


class LeftOut(_Quiet):
    def route(self, queries: Any, candidates: Any) -> Any:
        return ["left-out"] * len(queries)


class NotANumber(_Quiet):
    def route(self, queries: Any, candidates: Any) -> Any:
        return [float("nan")] * len(queries)


class FewChoices(_Quiet):
    def route(self, queries: Any, candidates: Any) -> Any:
        return [0]


class Beyond(_Quiet):
    def route(self, queries: Any, candidates: Any) -> Any:
        return [len(candidates)] * len(queries)


class Sleeps(_Quiet):
    def route(self, queries: Any, candidates: Any) -> Any:
        if not os.fork():
            time.sleep(600)
        time.sleep(600)


class Dies(_Quiet):
    def route(self, queries: Any, candidates: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


class WritesCosts(_Quiet):
    """Arrays are the board's own: they cannot be written."""

    def route(self, queries: Any, candidates: Any) -> Any:
        queries.answers.observed["usd"][:] = 0
        return [0] * len(queries)


class Abstains(_Quiet):
    """On every second question."""

    def route(self, queries: Any, candidates: Any) -> Any:
        return [None if place % 2 else candidates[0] for place in range(len(queries))]


class Peeks(_Quiet):
    def route(self, queries: Any, candidates: Any) -> Any:
        return [0 if queries.answers.truth is None else 1] * len(queries)
