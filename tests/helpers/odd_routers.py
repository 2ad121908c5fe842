"""Routers that do what a router must not."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from typing import Any

import numpy as np

from collectors.routers.contract import Estimates


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


class Lingers(_Quiet):
    """Leaves a process in a session of its own, and prints more than anybody reads."""

    def route(self, queries: Any, candidates: Any) -> Any:
        if not os.fork():
            os.setsid()
            if not os.fork():
                time.sleep(600)
            os._exit(0)
        print("\x1b]0;title\x07" + "so much\n" * 100_000)
        return [0] * len(queries)


class BadError(_Quiet):
    def route(self, queries: Any, candidates: Any) -> Any:
        class Silent(Exception):
            def __str__(self) -> str:
                raise ValueError

        raise Silent


class FillsGaps:
    """Writes into the arrays that it learns from. What the board knows of them stays."""

    def __init__(self, value: float | None = None) -> None:
        self.value = value

    def fit(self, queries: Any, scores: Any, costs: Any, valid: Any) -> None:
        if self.value is not None:
            scores[:], costs[:] = self.value, self.value
            queries.texts.clear()

    def route(self, queries: Any, candidates: Any) -> Any:
        return [0] * len(queries)

    def estimate(self, queries: Any, candidates: Any) -> Estimates:
        return Estimates(np.full((len(queries), len(candidates)), 0.5), np.full((len(queries), len(candidates)), 0.1))


class Asks(_Quiet):
    """Asks for the first answer to each question, and chooses the second; `then` does more between the two."""

    def __init__(self, then: str = "") -> None:
        self.then = then

    def route(self, queries: Any, candidates: Any) -> Any:
        answers, every = queries.answers, np.arange(len(queries))
        answers.ask(every, 0)
        if self.then == "marks":
            answers.observed["usd"] = np.full((len(queries), 3), -5.0)
        elif self.then == "note":
            answers.asked = np.zeros((len(queries), 3), np.bool_)
        elif self.then == "given":
            answers.ask(every, 0)["usd"][:] = -5.0
        elif self.then == "answers":
            object.__setattr__(queries, "answers", None)
        elif self.then == "queries":
            queries.ids.clear()
            queries.texts.clear()
            candidates.clear()
        return [1] * len(every)

    def estimate(self, queries: Any, candidates: Any) -> Estimates:
        shape = (len(queries), len(candidates))
        return Estimates(np.full(shape, 0.5), np.full(shape, 0.1))


class Sees(_Quiet):
    """Declares that it sees the answers, as a bound does."""

    PEEKS = True

    def route(self, queries: Any, candidates: Any) -> Any:
        return np.nan_to_num(queries.answers.truth, nan=-1).argmax(axis=1)


class Rewrites(_Quiet):
    """Finds the files of the board through the frames, and writes into them."""

    def route(self, queries: Any, candidates: Any) -> Any:
        folder = sys._getframe(1).f_locals["data"].folder
        np.save(folder / "scores.npy", 1 - np.load(folder / "scores.npy"))
        return [0] * len(queries)


class StopsParent(_Quiet):
    def route(self, queries: Any, candidates: Any) -> Any:
        os.kill(os.getppid(), signal.SIGSTOP)
        time.sleep(600)


class KillsParent(_Quiet):
    def route(self, queries: Any, candidates: Any) -> Any:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)


class Forges(_Quiet):
    """Writes ends of trials to all descriptors that it has, and to those of its parent."""

    def route(self, queries: Any, candidates: Any) -> Any:
        for at in [*range(3, 64), *(f"/proc/{os.getppid()}/fd/{number}" for number in range(64))]:
            try:
                pipe = os.open(at, os.O_WRONLY | os.O_NONBLOCK) if isinstance(at, str) else at
                if stat.S_ISFIFO(os.fstat(pipe).st_mode):
                    os.write(pipe, b'{"failed": "x", "message": "forged"}\n{}\n[')
            except OSError:
                continue
        return [0] * len(queries)
