"""A fitted router in a folder, and its choices for questions of a lake.

Owns the folder: router.json describes the router, router.pkl holds it and its encoder. Loading them runs code of
whoever wrote them, so a folder that this machine did not write is taken only where the user allows it: the machine's
cache keeps the digest of each that it wrote.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from collectors.atomic import replacing
from collectors.cache import cache_dir
from collectors.metrics.splits import OwnSplit
from collectors.routers import encoders
from collectors.routers.contract import (
    ABSTAIN,
    Answers,
    Asking,
    BadChoice,
    Columns,
    Floats,
    Queries,
    RouterFailed,
    columns_of,
    why,
)
from collectors.routers.questions import NUMBERS, Questions
from collectors.routers.registry import RouterSpec, make
from collectors.routers.sources import Sources, loaded_since
from schemas.failures import ConfigError, RouterlakeError

_ABOUT, _PICKLE = "router.json", "router.pkl"


def fit_and_keep(
    questions: Questions,
    spec: RouterSpec,
    split: OwnSplit | None,
    folder: Path,
    *,
    seed: int = 0,
    path: Sequence[str] = (),
) -> list[str]:
    """Fits a router on the split's training questions, or all, into a new folder. Returns lines for the user.

    Raises ConfigError if the folder is there and for a router that cannot be made, and RouterFailed for whatever the
    router raises when it is fitted.
    """
    if folder.exists():
        raise ConfigError(f"--out {folder} is there already: name a new folder")
    _find(spec, path)
    rows = np.arange(len(questions.ids)) if split is None else np.flatnonzero(split.train)
    encoder = encoders.fitted(spec.encoder, questions.texts)
    scores = questions.pool.scores[rows].astype(np.float64)
    vectors = encoder(_of(questions.texts, rows))
    before, began = set(sys.modules), time.time()
    with _named(spec, ConfigError):
        router = make(spec, seed)
        if getattr(router, "PEEKS", False):
            raise BadChoice("it is a bound: it sees the answers, and chooses nothing without them")
    with _named(spec, RouterFailed):
        router.fit(_queries(questions, rows, vectors), scores, questions.pool.number("usd")[rows], ~np.isnan(scores))
        data = pickle.dumps((router, encoder))
    about = {
        **asdict(spec),
        "seed": seed,
        "candidates": questions.pool.candidates,
        "questions": len(rows),
        "trained": _of(questions.ids, rows),
        "sources": loaded_since(before, spec.factory, began),
    }
    with replacing(folder) as new:
        new.mkdir()
        (new / _ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
        (new / _PICKLE).write_bytes(data)
        _digest_file(*_files(new)).touch()
    return [
        f"{spec.name}: fitted on {len(rows):,} questions × {len(questions.pool.candidates):,} candidates",
        f"→ {folder}",
    ]


def choose_by(
    folder: Path, questions: Questions, split: OwnSplit | None, *, path: Sequence[str] = (), allow_code: bool = False
) -> tuple[list[dict[str, str]], list[str]]:
    """The choices of a kept router for the split's test questions, or all: rows for a file of choices, and lines.

    A question that it abstains on has no row. Raises ConfigError if the pool lacks a candidate that it was fitted on,
    and for a folder that this machine did not write unless `allow_code`; RouterFailed for whatever the router raises.
    """
    try:
        described, pickled = _files(folder)
        if not allow_code and not _digest_file(described, pickled).exists():
            raise ConfigError(
                f"--kept {folder}: this machine did not fit that router, and to load it may run any code: "
                "--allow-code loads it, if you trust who made it"
            )
        about = json.loads(described)
        spec = RouterSpec(**{name: about[name] for name in RouterSpec.__dataclass_fields__})
        _find(spec, path)
        router, encoder = pickle.loads(pickled)
        fitted_on = [str(name) for name in about["candidates"]]
        sources = about.get("sources") or {}
        other = Sources([*filter(None, (spec.folder, *path))]).other(sources)
    except RouterlakeError:
        raise
    except Exception as error:  # a pickle may raise anything
        raise ConfigError(f"--kept {folder}: {why(error)}") from error
    place = {name: column for column, name in enumerate(questions.pool.candidates)}
    if lost := [name for name in fitted_on if name not in place]:
        raise ConfigError(f"--kept {folder}: the pool lacks {lost[0]!r}, which the router was fitted on: see --pool")
    columns = np.array([place[name] for name in fitted_on], np.int64)
    rows = np.arange(len(questions.ids)) if split is None else np.flatnonzero(split.test)
    with _named(spec, RouterFailed):
        marks = {name: questions.pool.number(name)[np.ix_(rows, columns)] for name in NUMBERS}
        asking = Asking(marks)
        queries = _queries(questions, rows, encoder(_of(questions.texts, rows)), columns, asking.answers())
        chosen = columns_of(router.route(queries, list(fitted_on)), fitted_on, len(rows))
    made = [
        {"router": spec.name, "task": task, "question": question, "model": fitted_on[column]}
        for task, question, column in zip(
            _of(questions.tasks, rows), _of(questions.ids, rows), chosen.tolist(), strict=True
        )
        if column != ABSTAIN
    ]
    lines = [f"{spec.name}: {len(made):,} choices, {len(rows) - len(made):,} abstained"]
    if seen := len({*map(str, about.get("trained") or ())} & {*_of(questions.ids, rows)}):
        lines.append(
            f"it was fitted on {seen:,} of these questions, whose scores flatter it: --stored SPLIT, for fit and "
            "choose, keeps them apart"
        )
    if asking.thrown_away(chosen).any():
        dollars = np.mean(asking.paid("usd", chosen))
        cost = "an unknown sum" if np.isnan(dollars) else f"{dollars:.4g} USD a question"
        lines.append(
            f"it asked {asking.thrown_away(chosen).sum():,} answers that it threw away, for {cost}: route.py board "
            "counts them, and matrix.py score, which sees the choices alone, does not"
        )
    if other:
        lines.append(f"its code is not what it was fitted with: {other} is another now, or is not found")
    if more := len(questions.pool.candidates) - len(columns):
        lines.append(f"{more:,} candidates of the pool are new to it, and are not chosen")
    return made, lines


def _files(folder: Path) -> tuple[bytes, bytes]:
    return (folder / _ABOUT).read_bytes(), (folder / _PICKLE).read_bytes()


def _digest_file(*files: bytes) -> Path:
    """The empty file in the cache that stands for a folder of this machine's own."""
    digests = b"".join(hashlib.sha256(data).digest() for data in files)
    return cache_dir("routers") / f"{hashlib.sha256(digests).hexdigest()}.fitted"


@contextlib.contextmanager
def _named(spec: RouterSpec, kind: type[RouterlakeError]) -> Iterator[None]:
    """Raises an error of `kind`, with the router's name, for whatever the router raises."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a router may raise anything, SystemExit as well
        raise kind(f"{spec.name}: {why(error)}") from error


def _queries(
    questions: Questions,
    rows: Columns,
    vectors: Floats,
    columns: Columns | None = None,
    answers: Answers | None = None,
) -> Queries:
    """`answers`: those that a router may ask for; None: it learns, and has all."""
    pool = questions.pool
    at = np.arange(len(pool.candidates)) if columns is None else columns
    return Queries(
        ids=_of(questions.ids, rows),
        tasks=_of(questions.tasks, rows),
        texts=_of(questions.texts, rows),
        candidates=[pool.candidates[column] for column in at],
        vectors=vectors,
        metadata={"subject": _of(questions.subjects, rows)},
        answers=answers or Answers({name: pool.number(name)[np.ix_(rows, at)] for name in NUMBERS}),
    )


def _of(values: Sequence[Any], rows: Columns) -> list[Any]:
    return [values[row] for row in rows]


def _find(spec: RouterSpec, path: Sequence[str]) -> None:
    """Lets the module of a router be imported from beside its file, and from `path`."""
    for folder in filter(None, (spec.folder, *path)):
        if folder not in sys.path:
            sys.path.append(folder)
