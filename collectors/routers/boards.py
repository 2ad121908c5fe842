"""Runs routers on folds, several at once, and keeps their choices: a killed board goes on where it was.

Owns the folder of a board's trials. A trial that fails costs its own router a row. Knows no figures
(collectors.routers.standings).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from collectors.atomic import write_whole
from collectors.routers import encoders
from collectors.routers.contract import Floats
from collectors.routers.process import LOST, Process
from collectors.routers.questions import NUMBERS, Questions
from collectors.routers.registry import SHIPPED, RouterSpec
from collectors.routers.trial import Data, Fold, write_data
from collectors.scratch import scratch
from schemas.identity import safe_name
from schemas.texts import without_key_values

#: Trials done and in all, and a line on the last one.
Progress = Callable[[int, int, str], None]
#: Failures that may have come from the machine, and are tried again by the next board.
_AGAIN = ("died", LOST)
#: Libraries beyond the extra that a shipped router's factory needs.
_NEEDS = {one.factory: one.needs for one in SHIPPED.values()}


@dataclass(frozen=True)
class Trial:
    """The result of one router on one fold."""

    router: str
    fold: int
    #: Arrays and numbers of collectors.routers.trial; empty if it failed.
    made: dict[str, Any]
    #: Why it failed: raised, choice, time, died or lost; and a line. None: it did not.
    failed: str | None = None
    message: str = ""
    is_kept: bool = False


@dataclass(frozen=True)
class Job:
    """A trial that is not there yet."""

    spec: RouterSpec
    fold: int
    #: The file to write.
    out: Path
    #: As collectors.routers.process.Process.run takes it.
    trial: dict[str, Any]


#: Runs the jobs with the files of a folder, and gives each at its end, with {} or why it failed.
Runner = Callable[[Sequence[Job], Path], Generator[tuple[Job, dict[str, Any]]]]


def run_trials(
    questions: Questions,
    routers: Sequence[RouterSpec],
    folds: Sequence[Fold],
    folder: Path,
    runner: Runner,
    *,
    path: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Trial]:
    """The trials of all routers on all folds, by router and fold; those that `folder` has are not run again.

    `path` are folders where modules of routers may lie. Raises ConfigError for an encoder that is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vectors = {name: encoders.vectors_of(name, questions.texts) for name in sorted({one.encoder for one in routers})}
    state = _digest_of(questions, vectors)
    jobs: list[Job] = []
    found: dict[tuple[str, int], Trial] = {}
    for number, fold in enumerate(folds):
        of_fold = _digest([fold.train, fold.test, fold.seed, fold.unseen, fold.probes])
        for spec in routers:
            out = folder / f"{safe_name(spec.name)}-{number}-{_digest([spec.digest, state, of_fold])}.npz"
            kept = _kept(spec.name, number, out)
            if kept is None:
                jobs.append(Job(spec, number, out.resolve(), _trial_of(spec, number, path)))
            else:
                found[spec.name, number] = kept
    total = len(routers) * len(folds)
    if progress and found:
        progress(len(found), total, f"{len(found)} kept from before")
    if jobs:
        with scratch("route-") as place:
            _write(questions, vectors, folds, place)
            with contextlib.closing(runner(jobs, place)) as ends:
                for job, ended in ends:
                    trial = found[job.spec.name, job.fold] = _ended(job, ended)
                    if progress:
                        progress(len(found), total, f"{job.spec.name}, fold {job.fold}{_why(trial)}")
    return [found[spec.name, number] for spec in routers for number in range(len(folds))]


def _trial_of(spec: RouterSpec, fold: int, path: Sequence[str]) -> dict[str, Any]:
    return {
        "router": asdict(spec),
        "fold": _fold(fold),
        "vectors": _vectors(spec.encoder),
        "path": list(path),
        "preload": _NEEDS.get(spec.factory),
    }


def _write(questions: Questions, vectors: dict[str, Floats], folds: Sequence[Fold], place: Path) -> None:
    pool = questions.pool
    data = Data(
        place,
        questions.ids,
        questions.tasks,
        questions.texts,
        pool.candidates,
        questions.left_out,
        {"subject": list(questions.subjects)},
    )
    write_data(data, {"scores": pool.scores, **{name: pool.numbers[name] for name in NUMBERS if name in pool.numbers}})
    for name, values in vectors.items():
        np.save(place / _vectors(name), values)
    for number, fold in enumerate(folds):
        fold.save(place / _fold(number))


def _fold(number: int) -> str:
    return f"fold-{number}.npz"


def _vectors(encoder: str) -> str:
    return f"vectors-{safe_name(encoder)}.npy"


def in_processes(count: int) -> Runner:
    """Runs trials on this machine, `count` at once."""

    def run(jobs: Sequence[Job], place: Path) -> Generator[tuple[Job, dict[str, Any]]]:
        work: queue.Queue[Job] = queue.Queue()
        for job in jobs:
            work.put(job)
        ends: queue.Queue[tuple[Job, dict[str, Any]] | BaseException] = queue.Queue()
        stop = threading.Event()
        servers = [
            threading.Thread(target=_serve, args=(work, ends, stop, place), daemon=True)
            for _ in range(min(count, len(jobs)))
        ]
        try:
            for server in servers:
                server.start()
            for _ in jobs:
                end = ends.get()
                if isinstance(end, BaseException):
                    raise end
                yield end
            for server in servers:
                server.join()  # their processes have ended then
        finally:
            stop.set()

    return run


def _serve(
    work: queue.Queue[Job],
    ends: queue.Queue[tuple[Job, dict[str, Any]] | BaseException],
    stop: threading.Event,
    place: Path,
) -> None:
    process = Process()
    try:
        while not stop.is_set():
            try:
                job = work.get_nowait()
            except queue.Empty:
                return
            ended = process.run(job.trial, place, job.out)
            if ended.get("failed") == LOST:
                process.close()
                process = Process()
            ends.put((job, ended))
    except BaseException as error:
        ends.put(error)
    finally:
        process.close()


def _why(trial: Trial) -> str:
    return f": {trial.failed}: {trial.message}" if trial.failed else ""


def _ended(job: Job, ended: dict[str, Any]) -> Trial:
    ended = without_key_values(ended)  # an error of the router's own may hold its key
    if ended:
        write_whole(_failure(job.out), json.dumps(ended).encode())
        return Trial(job.spec.name, job.fold, {}, ended["failed"], ended["message"])
    return Trial(job.spec.name, job.fold, _read(job.out))


def _kept(router: str, fold: int, out: Path) -> Trial | None:
    try:
        if out.exists():
            return Trial(router, fold, _read(out), is_kept=True)
        ended = json.loads(_failure(out).read_text(encoding="utf-8"))
        if ended["failed"] in _AGAIN:
            return None
        return Trial(router, fold, {}, str(ended["failed"]), str(ended["message"]), is_kept=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _failure(out: Path) -> Path:
    return out.with_suffix(".failed.json")


def _read(out: Path) -> dict[str, Any]:
    with np.load(out, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _digest_of(questions: Questions, vectors: dict[str, Floats]) -> str:
    import sklearn

    pool = questions.pool
    numbers = [pool.numbers.get(name) for name in NUMBERS]
    parts = [sklearn.__version__, np.__version__, pool.candidates, questions.ids, questions.tasks, questions.texts]
    return _digest([*parts, pool.scores, *numbers, *(vectors[name] for name in sorted(vectors))])


def _digest(parts: Sequence[Any]) -> str:
    made = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, np.ndarray):
            made.update(str((part.dtype, part.shape)).encode())
            for row in range(0, len(part), 4096):
                made.update(np.ascontiguousarray(part[row : row + 4096]).tobytes())
        else:
            made.update(json.dumps(part).encode())
    return made.hexdigest()
