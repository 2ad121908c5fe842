"""Which models are of one family: made from one another, or nearly the same answers.

Owns the likeness that keeps a model's relatives off the other side of a check. Knows no lake and no forecast.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from collectors.forecasts.factors import Answers, Places, complete_models

#: Models that agree on at least this share of what both answered are near-copies. Of 1,001 models with 1,075 answers
#: the median model agrees to .89 with its nearest.
LIKENESS = 0.9
#: They also disagree on at most this share of what chance would make of their numbers of right answers: two models that
#: are right on 97 % each agree on 94 % without being related.
OF_CHANCE = 0.4
#: Answers that two models must share before their agreement counts.
FEWEST_SHARED = 50
#: Items that are compared at most, evenly over all: 2,000 separate copies from others as well as 23,529.
MOST_COMPARED = 2_000
#: Models compared at a time: 1,024 × 8,500 agreements are 35 MB.
BLOCK = 1024

_SIZE_OR_FORM = re.compile(
    r"^(v?\d+([._]\d+)*[bmk]?|x?\d+x\d+[bm]?|a\d+b|instruct|chat|base|it|hf|gguf|gptq|awq|int[48]|fp\d+|bf16|dpo|sft|orpo)$"
)


def families(answers: Answers, names: Sequence[str] | None = None, bases: Sequence[str | None] | None = None) -> Places:
    """(models,): a number for each model's family, the position of its first member.

    Joined are models that agree on LIKENESS of their answers, those whose names differ in sizes, versions and forms
    alone, and those that are made from the same `bases` (or are one). Relatives of relatives are relatives; but a model
    that lacks answers joins one family alone by what it answered: of 3,230 models, chains of such joined hundreds.
    """
    roots, is_whole, pairs = np.arange(len(answers)), complete_models(answers), near_copies(answers)
    for first, second in pairs[is_whole[pairs].all(axis=1)]:
        _join(roots, first, second)
    keys: dict[str, int] = {}
    for model, name in enumerate(names or ()):
        _join(roots, model, keys.setdefault(f"stem {stem(name)}", model))
    for model, base in enumerate(bases or ()):
        if base is not None:
            _join(roots, model, keys.setdefault(f"model {base.lower()}", model))
    for model, name in enumerate(names or ()):
        if (of := keys.get(f"model {name.lower()}")) is not None:
            _join(roots, model, of)
    joined = {_root(roots, model) for model in np.flatnonzero(is_whole)}
    for first, second in pairs[is_whole[pairs].sum(axis=1) == 1]:
        other, whole = (first, second) if is_whole[second] else (second, first)
        if _root(roots, other) not in joined:
            joined.discard(_root(roots, whole))
            _join(roots, other, whole)
            joined.add(_root(roots, whole))
    return np.array([_root(roots, model) for model in range(len(roots))], np.int64)


def stem(name: str) -> str:
    """A model's name without the parts by which sizes, versions and forms of one series differ."""
    owner, _, model = name.lower().rpartition("/")
    words = [word for word in re.split(r"[-_\s]+", model) if word]
    kept = [word for word in words if not _SIZE_OR_FORM.match(word)]
    return f"{owner}/{'-'.join(kept or words)}"


def folds(groups: Places, parts: int, seed: int = 0) -> Places:
    """(models,): the part, from 0, that each model's whole family is put into, so that parts are of similar size."""
    names, of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled = np.zeros(parts, np.int64)
    part_of = np.zeros(len(names), np.int64)
    for family in order.tolist():
        part_of[family] = filled.argmin()
        filled[part_of[family]] += sizes[family]
    part: Places = part_of[of]
    return part


def near_copies(answers: Answers) -> npt.NDArray[np.int64]:
    """(pairs, 2) of models that nearly repeat each other."""
    if answers.shape[1] > MOST_COMPARED:
        answers = answers[:, np.linspace(0, answers.shape[1] - 1, MOST_COMPARED).astype(int)]
    seen = ~np.isnan(answers)
    right = np.where(seen, answers, 0).astype(np.float32)
    pairs = []
    for start in range(0, len(right), BLOCK):
        rows, others = slice(start, start + BLOCK), slice(start, None)
        shared, apart, mine, theirs = _compared(right[rows], seen[rows], right[others], seen[others])
        with np.errstate(divide="ignore", invalid="ignore"):
            chance = OF_CHANCE * (mine + theirs - 2 * mine * theirs / shared)
        alike = (shared >= FEWEST_SHARED) & (apart <= np.minimum((1 - LIKENESS) * shared, np.maximum(chance, 0.5)))
        pairs.append(np.argwhere(alike) + start)
    every = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
    return np.asarray(every[every[:, 0] < every[:, 1]], np.int64)


def _compared(a: Answers, asked_a: Answers, b: Answers, asked_b: Answers) -> tuple[Answers, Answers, Answers, Answers]:
    """For (models of a, models of b), 0 for what was not asked: items that both answered, the sum of squared
    differences over these, and the sums of each one's scores over these."""
    # (a − b)² = a² + b² − 2ab over what both answered; of right and wrong it counts the disagreements.
    both = a @ b.T
    if asked_a.all() and asked_b.all():
        ones_a, ones_b = np.ones((len(a), 1), np.float32), np.ones((1, len(b)), np.float32)
        squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)
        shared = np.float32(a.shape[1]) * ones_a * ones_b
        return shared, squares - 2 * both, a.sum(axis=1)[:, None] * ones_b, ones_a * b.sum(axis=1)
    asked_a, asked_b = asked_a.astype(np.float32), asked_b.astype(np.float32)
    apart = np.square(a) @ asked_b.T + asked_a @ np.square(b).T - 2 * both
    return asked_a @ asked_b.T, apart, a @ asked_b.T, asked_a @ b.T


def _root(roots: Places, model: int) -> int:
    while roots[model] != model:
        roots[model] = roots[roots[model]]
        model = int(roots[model])
    return model


def _join(roots: Places, first: int, second: int) -> None:
    a, b = _root(roots, first), _root(roots, second)
    roots[max(a, b)] = min(a, b)
