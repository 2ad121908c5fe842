"""Runs routers on folds, several at once, and keeps their choices: a killed board goes on where it was.

Owns the folder of a board's trials. A trial that fails costs its own router a row. Knows no figures
(collectors.routers.standings).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from collectors.atomic import write_whole
from collectors.routers import encoders
from collectors.routers.contract import ABSTAIN, Floats, RouterFailed, why
from collectors.routers.process import LOST, Process, is_end
from collectors.routers.questions import NUMBERS, Questions
from collectors.routers.registry import SHIPPED, RouterSpec
from collectors.routers.sources import Note, Sources
from collectors.routers.trial import ALPHAS, Data, Fold, Written, write_data
from collectors.scratch import scratch
from schemas.identity import safe_name
from schemas.texts import without_key_values

#: Trials done and in all, and a line on the last one.
Progress = Callable[[int, int, str], None]
logger = logging.getLogger(__name__)
#: Failures that may have come from the machine, and are tried again by the next board.
_AGAIN = ("died", LOST)
#: Array of a trial -> kind of its type, and its shape by letters of Job.size. Whole numbers are columns.
_ARRAYS = {
    "chosen": ("i", "q"),
    "more_usd": ("f", "q"),
    "more_s": ("f", "q"),
    "peeks": ("b", ""),
    "fit_s": ("f", ""),
    "route_s": ("f", ""),
    "sources": ("U", ""),
}
_PERHAPS = {
    "squared_error": ("f", "q"),
    "squared_error_of_means": ("f", "q"),
    "curve": ("i", "aq"),
    "bits": ("f", "q"),
}
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
    #: How many questions, candidates and alphas it has, by their first letters.
    size: dict[str, int]


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

    `path` are folders where modules of routers may lie. A kept trial whose file is damaged, or whose router is of other
    code now, is run again. Raises ConfigError for an encoder that is not there, and RouterFailed where a router wrote
    into the data of the board.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vectors = {name: encoders.vectors_of(name, questions.texts) for name in sorted({one.encoder for one in routers})}
    state = _digest_of(questions, vectors)
    jobs: list[Job] = []
    found: dict[tuple[str, int], Trial] = {}
    sources = {spec.folder: Sources([*filter(None, [spec.folder]), *path]) for spec in routers}
    digests = {spec.name: [spec.digest, _version(_NEEDS.get(spec.factory))] for spec in routers}
    for number, fold in enumerate(folds):
        of_fold = _digest([fold.train, fold.test, fold.seed, fold.unseen, fold.probes])
        size = {"q": len(fold.test), "c": len(questions.pool.candidates), "a": len(ALPHAS)}
        for spec in routers:
            out = folder / f"{safe_name(spec.name)}-{number}-{_digest([digests[spec.name], state, of_fold])}.npz"
            job = Job(spec, number, out.resolve(), _trial_of(spec, number, path), size)
            kept = _kept(job, sources[spec.folder])
            if kept is None:
                _forget(job)  # a router that writes nothing must not get the choices of another code
                jobs.append(job)
            else:
                found[spec.name, number] = kept
    total = len(routers) * len(folds)
    if progress and found:
        progress(len(found), total, f"{len(found)} kept from before")
    if jobs:
        with scratch("route-") as place:
            _write(questions, vectors, folds, place)
            written = Written(place)
            jobs = [replace(job, trial=job.trial | {"files": written.digests}) for job in jobs]
            try:
                with contextlib.closing(runner(jobs, place)) as ends:
                    for job, ended in ends:
                        if written.is_changed():
                            raise _written_into(f"{job.spec.name}, or a router that ran beside it,")
                        trial = found[job.spec.name, job.fold] = _ended(job, ended, sources[job.spec.folder])
                        if progress:
                            progress(len(found), total, f"{job.spec.name}, fold {job.fold}{_why(trial)}")
                if written.is_changed(whole=True):
                    raise _written_into("a router")
            except RouterFailed:  # none of the trials runs on
                for job in jobs:
                    _forget(job)
                raise
    return [found[spec.name, number] for spec in routers for number in range(len(folds))]


def _written_into(who: str) -> RouterFailed:
    return RouterFailed(f"{who} wrote into the data of the board: what was made with them is thrown away")


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
    for path in place.glob("[!.]*"):  # without the lock
        path.chmod(0o444)


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
        processes = [Process() for _ in range(min(count, len(jobs)))]
        servers = [
            threading.Thread(target=_serve, args=(process, work, ends, stop, place), daemon=True)
            for process in processes
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
            while any(server.is_alive() for server in servers):
                for process in processes:
                    process.stop()
                time.sleep(0.05)

    return run


def _serve(
    process: Process,
    work: queue.Queue[Job],
    ends: queue.Queue[tuple[Job, dict[str, Any]] | BaseException],
    stop: threading.Event,
    place: Path,
) -> None:
    try:
        while not stop.is_set():
            try:
                job = work.get_nowait()
            except queue.Empty:
                return
            ends.put((job, process.run(job.trial, place, job.out)))
    except BaseException as error:
        ends.put(error)
    finally:
        process.close()


def _why(trial: Trial) -> str:
    return f": {trial.failed}: {trial.message}" if trial.failed else ""


def _ended(job: Job, ended: dict[str, Any], sources: Sources) -> Trial:
    note: Note | None = ended.get("sources")
    ended = without_key_values({key: one for key, one in ended.items() if key != "sources"})  # an error may hold a key
    made: dict[str, Any] = {}
    if not ended:
        try:
            made, note = _read(job)
        except Exception as error:  # the router wrote into it
            ended = {"failed": "died", "message": f"what it left is no trial: {why(error, 200)}"}
    if note and (other := sources.other(note)) and sources.has(other):
        message = f"{other} was changed while it ran, or is another on the machine that ran it"
        ended = {"failed": LOST, "message": message}
    if ended:
        _forget(job)
        write_whole(_failure(job.out), json.dumps({**ended, "sources": note}).encode())
        return Trial(job.spec.name, job.fold, {}, ended["failed"], ended["message"])
    return Trial(job.spec.name, job.fold, made)


def _kept(job: Job, sources: Sources) -> Trial | None:
    """The trial that is there, if its router is of the same code still."""
    name, out = job.spec.name, job.out
    at = out if out.exists() else _failure(out)
    try:
        if at == out:
            made, note = _read(job)
            return None if note is None or sources.other(note) else Trial(name, job.fold, made, is_kept=True)
        ended = json.loads(at.read_text(encoding="utf-8"))
        if not ended or not is_end(ended):
            raise ValueError("it is no failure")
        note = ended.get("sources")
        if note is None and not job.spec.is_shipped:  # it was ended before it could tell
            return None
        if ended["failed"] in _AGAIN or sources.other(note or {}):
            return None
        return Trial(name, job.fold, {}, ended["failed"], ended["message"], is_kept=True)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file may raise anything
        logger.warning("the kept trial %s is damaged, and runs again: %s", at.name, why(error, 200))
        return None


def _forget(job: Job) -> None:
    for path in (job.out, _failure(job.out)):
        with contextlib.suppress(OSError):
            path.unlink()


def _failure(out: Path) -> Path:
    return out.with_suffix(".failed.json")


def _read(job: Job) -> tuple[dict[str, Any], Note | None]:
    """The arrays and numbers in the file of a trial, and the note of its sources. Raises anything for a wrong file."""
    with open(job.out, "rb") as opened, np.load(opened, allow_pickle=False) as file:
        made = {name: file[name] for name in file.files}
    if lost := _ARRAYS.keys() - made.keys():
        raise ValueError(f"it lacks {min(lost)}")
    for name, values in made.items():
        kind, shape = {**_ARRAYS, **_PERHAPS}[name]
        if values.dtype.kind != kind or values.shape != tuple(job.size[letter] for letter in shape):
            raise ValueError(f"{name} is of another type or shape")
        if kind == "i" and values.size and not ABSTAIN <= values.min() <= values.max() < job.size["c"]:
            raise ValueError(f"{name} has columns that are none of the pool's")
    note = json.loads(str(made.pop("sources")))
    if note is not None and not (isinstance(note, dict) and all(isinstance(one, str) for one in note.values())):
        raise ValueError("sources is no note")
    return made, note


def _digest_of(questions: Questions, vectors: dict[str, Floats]) -> str:
    pool = questions.pool
    numbers = [pool.numbers.get(name) for name in NUMBERS]
    versions = [_version(name) for name in ("scikit-learn", "numpy", "scipy")]
    parts = [versions, pool.candidates, questions.ids, questions.tasks, questions.texts]
    return _digest([*parts, pool.scores, *numbers, *(vectors[name] for name in sorted(vectors))])


def _version(library: str | None) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(library) if library else None
    return None


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
