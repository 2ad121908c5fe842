"""Candidates that are left out for scarcity, beside the rule of the pool written out over plain sets."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import pytest

from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.thorough import often

#: Candidate -> the questions that it has a score for.
Scored = dict[str, set[int]]


def left_out_by_rule(scored: Scored) -> list[tuple[str, int]]:
    """Those left out of one task, in order, with the questions that each gains.

    The base is the questions that at least half of the candidates have a score for. While leaving out one candidate
    gains more than a tenth of the base, the one that gains most is left out: of equal ones the one with fewer scores,
    then the first by cell_id.
    """
    asked = set().union(*scored.values())
    base = {q for q in asked if 2 * sum(q in has for has in scored.values()) >= len(scored)}

    def counted(members: Scored) -> int:
        return sum(all(q in has for has in members.values()) for q in base)

    members, out = dict(scored), []
    while len(members) > 1:
        now = counted(members)
        gains = {one: counted({k: v for k, v in members.items() if k != one}) - now for one in members}
        first = min(members, key=lambda one: (-gains[one], len(scored[one]), one))
        if gains[first] <= Fraction(len(base), 10):
            break
        out.append((first, gains[first]))
        del members[first]
    return out


def drawn(rng: random.Random, candidates: int, questions: int) -> list[set[int]]:
    """What candidates have scores for: all, a share, a beginning, or the same gaps as another."""
    all_of = set(range(questions))
    gap = set(rng.sample(range(questions), rng.randint(1, questions - 1)))
    kinds = [
        lambda: set(all_of),
        lambda: set(rng.sample(range(questions), rng.randint(1, questions))),
        lambda: set(range(rng.randint(1, questions))),
        lambda: all_of - gap,
        lambda: all_of - {rng.randrange(questions)},
    ]
    return [rng.choice(kinds)() for _ in range(candidates)]


@pytest.mark.parametrize("seed", range(often(20, few=1)))
def test_candidates_left_out_are_those_of_the_rule(tmp_path: Path, seed: int) -> None:
    rng, lake = random.Random(seed), LakeBuilder(tmp_path)
    expected: set[tuple[str, str, int]] = set()
    cells: list[tuple[BuiltCell, list[float | None]]] = []
    for number in range(15):
        task, questions = f"t{number}", rng.choice([10, 10, 11, 20, 30])
        scored: Scored = {}
        for name, has in enumerate(drawn(rng, rng.randint(1, 6), questions)):
            cell = BuiltCell(model=f"m{name}", task=task, items=questions)
            cells.append((cell, [float(q % 2) if q in has else None for q in range(questions)]))
            scored[cell.cell_id] = has
        expected |= {(task, one, gained) for one, gained in left_out_by_rule(scored)}
    lake.run(*(cell for cell, _ in cells))
    for cell, scores in cells:
        lake.scores(cell, scores)
    assert expected
    assert set(lake.rows("SELECT task, cell_id, gained FROM _left_out")) == expected
    assert {(row[0], row[1]) for row in lake.rows("SELECT task, cell_id FROM candidates WHERE left_out")} == {
        row[:2] for row in expected
    }
