"""A board to which others add: made anew from a folder of submissions, the same bytes for the same folder.

Owns which submissions are on it, and its two files. Routers of one pool and split are compared with each other, and so
are models; one that is faulty is named with its reason, and no other is touched by it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from collectors.metrics.pool import oracle_of_known
from collectors.routers.boards import Trial
from collectors.routers.checking import Basis, Examined, PublishedBasis, alike, verdict_on
from collectors.routers.contract import ABSTAIN
from collectors.routers.outcomes import best_constant, cheapest_constant
from collectors.routers.ranking import Ranking, rank_models
from collectors.routers.registry import RouterSpec
from collectors.routers.standings import Board, stand
from collectors.routers.submissions import RECORDS, read_submission
from schemas.failures import ConfigError, one_line

#: Most submissions of a folder.
_MOST = 1000
#: Rows that every board has beside the submissions.
BASES = ("oracle", "best-constant", "cheapest")


@dataclass(frozen=True)
class OpenBoard:
    """Boards of routers and of models by pool and split, and the submissions that are on none."""

    boards: list[tuple[Basis, Board, dict[str, Examined]]]
    models: list[tuple[Basis, Ranking]]
    #: File of a submission -> why it is on no board.
    refused: dict[str, list[str]]


def build(folder: Path, version: PublishedBasis) -> OpenBoard:
    """Raises ConfigError for a folder that is missing or holds too many files."""
    folder = folder.absolute()  # so that no name within a line looks like a place in it
    refused: dict[str, list[str]] = {}
    routers: dict[int, tuple[Basis, dict[str, Examined]]] = {}
    models: dict[int, tuple[Basis, dict[str, Examined]]] = {}
    names, digests = set[str](), dict[tuple[int, str], str]()
    for path in _statements(folder):
        file = path.name.encode(errors="backslashreplace").decode()  # a name may be no text
        try:
            submission = read_submission(path)
        except ConfigError as error:
            refused[file] = [_without(folder, one_line(error, 400))]
            continue
        if is_taken(submission.name, names):
            refused[file] = [taken_line(submission.name)]
            continue
        found = version.examine(submission)
        if found.faults or found.basis is None:
            refused[file] = [_without(folder, fault) for fault in found.faults]
            continue
        content = (id(found.basis), _content(found))
        if content in digests:
            refused[file] = [f"its {submission.kind} are those of {digests[content]}, question by question"]
            continue
        names.add(alike(submission.name))
        digests[content] = submission.name
        by_basis = models if submission.kind == RECORDS else routers
        by_basis.setdefault(id(found.basis), (found.basis, {}))[1][submission.name] = found
    return OpenBoard(
        [(basis, _stand(basis, found), found) for basis, found in _in_order(routers)],
        [(basis, rank_models(basis, found)) for basis, found in _in_order(models)],
        refused,
    )


def _in_order(
    by_basis: Mapping[int, tuple[Basis, dict[str, Examined]]],
) -> list[tuple[Basis, dict[str, Examined]]]:
    return sorted(by_basis.values(), key=lambda one: (one[0].pool or "", one[0].split or "", one[0].include))


def _content(found: Examined) -> str:
    """A digest of the choices, or of the records, however they are written."""
    if found.sent is None:
        return hashlib.sha256(b"" if found.chosen is None else found.chosen.tobytes()).hexdigest()
    records = found.sent.records
    arrays = (records.scores, *(records.numbers[name] for name in sorted(records.numbers)))
    return hashlib.sha256(b"".join(values.tobytes() for values in arrays)).hexdigest()


def _without(folder: Path, line: str) -> str:
    """The line without the place of the folder, which is another for everybody."""
    return line.replace(f"{folder}/", "")


def _statements(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder of submissions")
    paths = sorted(folder.glob("*.json"))
    if len(paths) > _MOST:
        raise ConfigError(f"{folder} holds {len(paths):,} submissions: at most {_MOST:,}")
    return paths


def is_taken(name: str, names: Collection[str] = ()) -> bool:
    """Whether a row of every board has the name, or one of `names`, as alike has them."""
    return alike(name) in {*names, *BASES}


def taken_line(name: str) -> str:
    return f"the name {name!r} is taken"


def _stand(basis: Basis, found: dict[str, Examined]) -> Board:
    specs = [RouterSpec(name, "", usd_per_query=one.submission.usd_per_query) for name, one in found.items()]
    trials = [_trial(name, one.chosen, one.submission.usd_per_query) for name, one in found.items()]
    for name, chosen in _bases(basis):
        specs.append(RouterSpec(name, ""))
        trials.append(_trial(name, chosen, 0.0, peeks=name == "oracle"))
    pool, questions = basis.questions.pool, basis.questions
    return stand(pool, questions.tasks, questions.groups, specs, [basis.fold], trials)


def _trial(name: str, chosen: Any, usd: float, *, peeks: bool = False) -> Trial:
    paid = np.where(chosen == ABSTAIN, 0.0, usd)
    made = {"chosen": chosen, "more_usd": paid, "more_s": np.zeros(len(chosen)), "fit_s": 0.0, "route_s": 0.0}
    made["peeks"] = peeks
    return Trial(name, 0, made)


def _bases(basis: Basis) -> Iterator[tuple[str, Any]]:
    """Choices of the rows of BASES on the test questions."""
    pool, test = basis.questions.pool, basis.fold.test
    usd = pool.numbers.get("usd")
    yield "oracle", oracle_of_known(pool.scores[test], None if usd is None else usd[test])
    yield "best-constant", np.full(len(test), best_constant(pool, basis.fold))
    if (column := cheapest_constant(pool, basis.fold)) is not None:
        yield "cheapest", np.full(len(test), column)


# ---- files


def as_json(made: OpenBoard, version: PublishedBasis) -> bytes:
    """board.json."""
    value = {
        "version": version.version,
        "prices": version.prices[0],
        "boards": [
            {
                **_head(basis),
                "candidates": basis.questions.pool.candidates,
                **board.head,
                "rows": [_row(one.row(), found.get(one.router.name)) for one in board.standings],
                "notes": board.notes,
            }
            for basis, board, found in made.boards
        ],
        "models": [
            {**_head(basis), "test_questions": len(basis.fold.test), "rows": ranking.rows, "notes": ranking.notes}
            for basis, ranking in made.models
        ],
        "refused": [{"file": name, "why": why} for name, why in sorted(made.refused.items())],
    }
    return json.dumps(value, indent=1, allow_nan=False).encode()


def _head(basis: Basis) -> dict[str, Any]:
    return {
        "pool": basis.pool,
        "include": basis.include,
        "split": basis.split,
        "questions": len(basis.questions.ids),
    }


#: Keys of a board's row that are of routers trained here.
_TRAINED = ("factory", "parameters", "encoder", "curve", "aiq_paper", "aiq_code", "brier", "brier_of_means")


def _row(row: dict[str, Any], found: Examined | None) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if key not in _TRAINED}
    if found is None:
        return kept
    submission, leak = found.submission, found.leakage
    return {
        **kept,
        "by": submission.by,
        "url": submission.url,
        "sha256": submission.sha256,
        "missing": found.missing,
        "leakage": verdict_on(found),
        "odds_ratio": leak.odds_ratio if leak else None,
    }


#: Columns of the table for people: heading, key of a row, and digits.
COLUMNS = (
    ("score", "score", 4),
    ("gap closed", "gap_closed", 3),
    ("USD a question", "usd", 6),
    ("missing", "missing", 0),
)


def rows_for_people(board: Board, found: dict[str, Examined]) -> Sequence[dict[str, Any]]:
    """The rows of one board, with the columns that a person compares."""
    rows = []
    for one in board.standings:
        row = _row(one.row(), found.get(one.router.name))
        against = row["vs_best_constant"] or {}
        examined = found.get(one.router.name)
        shown = {heading: _short(row.get(key), digits) for heading, key, digits in COLUMNS}
        rows.append(
            {
                "rank": row["rank"],
                "router": row["router"],
                **shown,
                AGAINST: _against(against),
                "leakage": verdict_on(examined) if examined else None,
            }
        )
    return rows


def models_for_people(ranking: Ranking) -> Sequence[dict[str, Any]]:
    """The rows of a board of models, with the columns that a person compares."""
    return [
        {
            "rank": row["rank"],
            "name": row["name"],
            "sent by": (row["by"] or "somebody") if row["sent"] else None,
            "score": _short(row["score"], 4),
            "95 % interval": None if row["low"] is None else f"{row['low']:.4f} to {row['high']:.4f}",
            "answered": _short(row["answered"], 0),
            "USD a question": _short(row["usd"], 6),
            "completion tokens": _short(row["completion_tokens"], 1),
            "suspicious": ", ".join(one["kind"] for one in row.get("suspicions", ())) or None,
        }
        for row in ranking.rows
    ]


#: Heading of the comparison with the best constant.
AGAINST = "against the best constant"


def _against(comparison: Mapping[str, Any]) -> str | None:
    """The verdict with its interval."""
    if not comparison:
        return None
    return f"{comparison['verdict']} ({comparison['low']:.4f} to {comparison['high']:.4f})"


def _short(value: Any, digits: int) -> str | None:
    """With so many digits, and two that are not 0 of a smaller number; without an exponent."""
    if value is None:
        return None
    if 0 < abs(value) < 10 ** (1 - digits):
        digits = 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{digits}f}"
