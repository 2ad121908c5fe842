"""Candidates that are left out for scarcity, beside the rule of the pool written out over plain sets."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Set
from fractions import Fraction
from pathlib import Path

import pytest

from collectors.matrix.described import head
from collectors.matrix.pools import load_pools
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.thorough import often

#: Candidate -> the questions that it has a score for.
Scored = dict[str, set[int]]


def left_out_by_rule(scored: Scored, sampled: Set[str] = frozenset()) -> list[tuple[list[str], int]]:
    """Those left out of one task, round by round, with the questions that each round gains.

    The base is the questions that at least half of the candidates have a score for, or half of the `sampled` ones. Only
    one that lacks more than a tenth of it can be left out. A round takes those that lack most questions alike, or if
    there are none the fewest of the scarcest: what they gain must be more than a tenth of the base, and for several
    candidates a larger share of it than theirs of the candidates.
    """
    members, asked = list(scored), set().union(*scored.values())
    judges = sampled or set(members)
    base = {q for q in asked if 2 * sum(q in scored[one] for one in judges) >= len(judges)}
    by_scores = sorted(members, key=lambda one: (len(scored[one]), one))
    sparse = [one for one in by_scores if 10 * len(base - scored[one]) > len(base)]
    out, rounds = set[str](), list[tuple[list[str], int]]()

    def still_lacking(question: int, gone: Set[str]) -> list[str]:
        return [one for one in by_scores if one not in gone and question not in scored[one]]

    def is_worth(number: int, gained: int) -> bool:
        exchange = number == 1 or Fraction(gained, len(base)) > Fraction(number, len(scored))
        return 10 * gained > len(base) and exchange and len(out) + number < len(scored)

    while True:
        lackers = Counter(tuple(still_lacking(q, out)) for q in base)
        alike = [(-n, len(who), [by_scores.index(one) for one in who], who) for who, n in lackers.items() if who]
        alike = [one for one in alike if set(one[3]) <= set(sparse) and is_worth(one[1], -one[0])]
        going = list(min(alike)[3]) if alike else []
        scarcest = sorted(set(sparse) - out, key=lambda one: (len(scored[one] & base), by_scores.index(one)))
        for number in range(1, len(scarcest) + 1) if not going else ():
            first = set(scarcest[:number])
            if is_worth(number, sum(bool(who) and set(who) <= first for who in lackers.elements())):
                going = sorted(first)
                break
        if not going:
            return rounds
        gained = sum(bool(who) and set(who) <= set(going) for who in lackers.elements())
        out |= set(going)
        rounds.append((going, gained))


def by_old_rule(scored: Scored) -> set[str]:
    """Those left out one at a time: the one that gains most, of equal ones the one with fewer scores."""
    asked = set().union(*scored.values())
    base = {q for q in asked if 2 * sum(q in has for has in scored.values()) >= len(scored)}
    members = dict(scored)
    while len(members) > 1:
        lackers = [[one for one, has in members.items() if q not in has] for q in base]
        alone = Counter(who[0] for who in lackers if len(who) == 1)
        first = min(members, key=lambda one: (-alone[one], len(scored[one]), one))
        if 10 * alone[first] <= len(base):
            break
        del members[first]
    return set(scored) - set(members)


def drawn(rng: random.Random, candidates: int, questions: int) -> list[set[int]]:
    """What candidates have scores for: all, a share, a beginning, or the same gaps as others."""
    all_of = set(range(questions))
    gap = set(rng.sample(range(questions), rng.randint(1, questions - 1)))
    other = set(rng.sample(range(questions), rng.randint(1, questions - 1)))
    kinds = [
        lambda: set(all_of),
        lambda: set(rng.sample(range(questions), rng.randint(1, questions))),
        lambda: set(range(rng.randint(1, questions))),
        lambda: all_of - gap,
        lambda: all_of - gap,
        lambda: all_of - other,
        lambda: all_of - {rng.randrange(questions)},
    ]
    return [rng.choice(kinds)() for _ in range(candidates)]


@pytest.mark.parametrize("seed", range(often(20, few=1)))
def test_candidates_left_out_are_those_of_the_rule(tmp_path: Path, seed: int) -> None:
    rng, lake = random.Random(seed), LakeBuilder(tmp_path)
    expected: set[tuple[str, str, int, int]] = set()
    cells: list[tuple[BuiltCell, list[float | None]]] = []
    together = 0
    for number in range(15):
        task, questions = f"t{number}", rng.choice([10, 10, 11, 20, 30])
        scored: Scored = {}
        for name, has in enumerate(drawn(rng, rng.randint(1, 9), questions)):
            cell = BuiltCell(model=f"m{name}", task=task, items=questions)
            cells.append((cell, [float(q % 2) if q in has else None for q in range(questions)]))
            scored[cell.cell_id] = has
        rounds = left_out_by_rule(scored)
        everybody = {one for going, _ in rounds for one in going}
        assert by_old_rule(scored) <= everybody or len(everybody) == len(scored) - 1
        together += sum(len(going) > 1 for going, _ in rounds)
        for at, (going, gained) in enumerate(rounds):
            expected |= {(task, one, at + 1, gained) for one in going}
    lake.run(*(cell for cell, _ in cells))
    for cell, scores in cells:
        lake.scores(cell, scores)
    assert together
    assert set(lake.rows("SELECT task, cell_id, round, gained FROM _left_out")) == expected
    assert {(row[0], row[1]) for row in lake.rows("SELECT task, cell_id FROM candidates WHERE left_out")} == {
        row[:2] for row in expected
    }


def test_candidates_that_lack_the_same_questions_are_left_out_together(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    cells = [BuiltCell(model=f"m{number:02d}", items=20) for number in range(15)]
    lake.run(*cells)
    for number, cell in enumerate(cells):
        lake.scores(cell, [1.0] * (3 if number in (4, 9) else 20))
    assert lake.rows("SELECT cell_id, round, gained FROM _left_out ORDER BY 1") == sorted(
        (cells[number].cell_id, 1, 17) for number in (4, 9)
    )
    pools = load_pools(lake.lake)
    assert pools.of_task("quiz").scores.shape == (20, 13)
    [line] = [line for line in head(pools) if "which lack" in line]
    assert line.startswith("left out: m04, m09 in quiz, which lack scores: without them 17 more questions count")
