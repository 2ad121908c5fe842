"""One router on one fold: fitted on the training questions, asked for the test questions, in a process that may be
killed.

Owns the files between the board and that process. Arrays are mapped, not copied, and read-only: a router cannot change
the data of others. Knows no processes (collectors.routers.process).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.atomic import replacing
from collectors.file_digests import sha256_of
from collectors.routers.contract import (
    ABSTAIN,
    OBSERVED,
    Answers,
    Asking,
    BadChoice,
    Columns,
    Estimates,
    Floats,
    Mask,
    Queries,
    checked,
    columns_of,
    means_of,
)
from collectors.routers.registry import RouterSpec, make

#: Shares of the score against the cost that a curve of choices is drawn for.
ALPHAS = tuple(round(0.05 * step, 2) for step in range(21))
#: Elements of the estimates that are there at once.
_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Data:
    """Questions × candidates, in files."""

    folder: Path
    ids: list[str]
    tasks: list[str]
    texts: list[str]
    candidates: list[str]
    #: Names that are left out of the pool.
    left_out: list[str]
    metadata: dict[str, list[Any]]

    def array(self, name: str, rows: Columns) -> Floats:
        """(rows, candidates), or NaN everywhere where the pool has no such number, which then takes no memory."""
        path = self.folder / f"{name}.npy"
        if path.exists():
            found: Floats = np.load(path, mmap_mode="r", allow_pickle=False)[rows]
            return found
        return np.broadcast_to(np.float64(np.nan), (len(rows), len(self.candidates)))


def write_data(data: Data, arrays: Mapping[str, Floats]) -> None:
    """Writes `arrays` (scores and those of OBSERVED) and the texts into the folder of `data`."""
    data.folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        np.save(data.folder / f"{name}.npy", values)
    kept = {name: value for name, value in asdict(data).items() if name != "folder"}
    (data.folder / "questions.json").write_text(json.dumps(kept), encoding="utf-8")


class Written:
    """The files that a board wrote for its trials, which no router may change."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        self._seen, self.digests = self._looks(), self._digests()

    def _looks(self) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for path in self._paths:
            with contextlib.suppress(OSError):
                one = os.stat(path, follow_symlinks=False)
                found.append((one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns))
        return found

    def _digests(self) -> dict[str, str]:
        return {path.name: sha256_of(path) for path in self._paths}

    def is_changed(self, *, whole: bool = False) -> bool:
        """Whether a file is another now. `whole`: its content is read, too, as one that is mapped may look the same."""
        return self._looks() != self._seen or (whole and self._digests() != self.digests)


def read_data(folder: Path) -> Data:
    return Data(folder=folder, **json.loads((folder / "questions.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Fold:
    """Questions to learn from, and questions to route."""

    #: Rows of the questions.
    train: Columns
    test: Columns
    seed: int
    #: (candidates,), and rows of `train`: of unseen candidates a router has the answers to probes alone. None: all
    #: seen.
    unseen: Mask | None = None
    probes: Columns | None = None

    def save(self, path: Path) -> None:
        arrays: dict[str, Any] = {"train": self.train, "test": self.test, "seed": np.array(self.seed)}
        if self.unseen is not None and self.probes is not None:
            arrays |= {"unseen": self.unseen, "probes": self.probes}
        with replacing(path, ending=".npz") as new:
            np.savez(new, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Fold:
        with np.load(path, allow_pickle=False) as file:
            more = {name: file[name] for name in ("unseen", "probes") if name in file.files}
            return cls(file["train"], file["test"], int(file["seed"]), **more)


def training(data: Data, fold: Fold, vectors: Floats) -> tuple[Queries, Floats, Floats, Mask]:
    """The arguments of `fit`."""
    scores, usd = data.array("scores", fold.train), data.array("usd", fold.train)
    valid = ~np.isnan(scores)
    if fold.unseen is not None and fold.probes is not None:
        valid &= ~fold.unseen | np.isin(fold.train, fold.probes)[:, np.newaxis]
        scores, usd = np.where(valid, scores, np.nan), np.where(valid, usd, np.nan)
    observed = {name: usd if name == "usd" else data.array(name, fold.train) for name in OBSERVED}
    return _queries(data, fold.train, vectors, Answers(observed)), scores, usd, valid


def run_trial(data: Data, spec: RouterSpec, fold: Fold, vectors: Floats) -> dict[str, Any]:
    """Arrays and numbers of one router on one fold, for `np.savez`.

    Raises whatever the router raises, and BadChoice.
    """
    router = make(spec, fold.seed)
    queries, scores, costs, valid = training(data, fold, vectors)
    prices, means = means_of(costs), means_of(scores, valid)  # before the router may write into them
    scale = np.nan if np.isnan(prices).all() else np.nanmax(prices)
    began = time.perf_counter()
    router.fit(queries, scores, costs, valid)
    fitted = time.perf_counter()
    del queries, scores, costs, valid
    peeks = bool(getattr(router, "PEEKS", False))
    marks = {name: data.array(name, fold.test) for name in OBSERVED}
    asking = Asking(marks, data.array("scores", fold.test) if peeks else None)
    queries = _queries(data, fold.test, vectors, asking.answers())
    ready = time.perf_counter()
    chosen = columns_of(router.route(queries, list(data.candidates)), data.candidates, len(fold.test), data.left_out)
    routed = time.perf_counter()
    del queries  # the router may have written into them
    own = float(getattr(router, "usd_per_query", 0.0)) + spec.usd_per_query
    if not 0 <= own < np.inf:
        raise BadChoice(f"usd_per_query is {own}")
    return {
        "chosen": chosen,
        "more_usd": asking.paid("usd", chosen) + own,
        "more_s": asking.paid("latency_s", chosen),
        "peeks": peeks,
        **_estimated(router, data, fold, vectors, float(scale), means),
        **_probable(router, data, fold, vectors),
        "fit_s": fitted - began,
        "route_s": routed - ready,
    }


def _queries(data: Data, rows: Columns, vectors: Floats, answers: Answers | None = None) -> Queries:
    return Queries(
        ids=[data.ids[row] for row in rows],
        tasks=[data.tasks[row] for row in rows],
        texts=[data.texts[row] for row in rows],
        candidates=list(data.candidates),
        vectors=np.asarray(vectors[rows], np.float64),
        metadata={name: [values[row] for row in rows] for name, values in data.metadata.items()},
        answers=answers,
    )


def _estimated(router: Any, data: Data, fold: Fold, vectors: Floats, scale: float, means: Floats) -> dict[str, Any]:
    """The choices along ALPHAS, and squared errors of the estimates; empty for a router without estimates."""
    if not hasattr(router, "estimate"):
        return {}
    count = len(fold.test)
    curve = np.full((len(ALPHAS), count), ABSTAIN, np.int32)
    errors, of_means = np.zeros(count), np.zeros(count)
    base = np.where(np.isnan(means), np.nanmean(means), means)
    has_usd = True
    for rows in _blocks(count, len(data.candidates)):
        part = _queries(data, fold.test[rows], vectors)
        found = checked(router.estimate(part, list(data.candidates)), (len(rows), len(data.candidates)))
        has_usd &= found.usd is not None and not np.isnan(found.usd).all()
        if has_usd and found.usd is not None and scale > 0:
            curve[:, rows] = _along(found, scale)
        right = data.array("scores", fold.test[rows])
        with np.errstate(invalid="ignore"):
            errors[rows] = _mean_of_rows((found.scores - right) ** 2)
            of_means[rows] = _mean_of_rows((base - right) ** 2)
    made: dict[str, Any] = {"squared_error": errors, "squared_error_of_means": of_means}
    if has_usd and scale > 0:
        made["curve"] = curve
    return made


def _mean_of_rows(values: Floats) -> Floats:
    is_known = ~np.isnan(values)
    counts = is_known.sum(axis=1)
    sums = np.where(is_known, values, 0).sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _along(found: Estimates, scale: float) -> npt.NDArray[np.int32]:
    assert found.usd is not None
    chosen = np.empty((len(ALPHAS), len(found.scores)), np.int32)
    for place, alpha in enumerate(ALPHAS):
        value = alpha * found.scores - ((1 - alpha) * found.usd / scale if alpha < 1 else 0)
        chosen[place] = np.where(np.isnan(value), -np.inf, value).argmax(axis=1)
    return chosen


def _probable(router: Any, data: Data, fold: Fold, vectors: Floats) -> dict[str, Floats]:
    """(queries,): the entropy of the router's probabilities in bits, for RouterEval's E_p."""
    if not hasattr(router, "probabilities"):
        return {}
    bits = np.zeros(len(fold.test))
    for rows in _blocks(len(fold.test), len(data.candidates)):
        part = _queries(data, fold.test[rows], vectors)
        p = np.asarray(router.probabilities(part, list(data.candidates)), np.float64)
        if p.shape != (len(rows), len(data.candidates)) or not (np.isfinite(p).all() and (p >= 0).all()):
            raise BadChoice("its probabilities are of another shape, negative or NaN")
        sums = p.sum(axis=1, keepdims=True)
        if not (np.isfinite(sums).all() and (sums > 0).all()):
            raise BadChoice("its probabilities of a query are all 0, or their sum is infinite")
        p = p / sums
        bits[rows] = (p * -np.log2(np.where(p > 0, p, 1))).sum(axis=1)
    return {"bits": bits}


def _blocks(rows: int, columns: int) -> Sequence[Columns]:
    size = max(1, _ELEMENTS // max(1, columns))
    return [np.arange(first, min(first + size, rows)) for first in range(0, rows, size)]
