"""Simulated answers of models in families, for forecasts: abilities, items that go together, and copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class World:
    #: (models, items): 0 or 1.
    answers: npt.NDArray[np.float32]
    #: (items,): labels of tasks.
    tasks: npt.NDArray[np.str_]
    #: (models,): owner/name, with the family in the name.
    names: list[str]
    #: (models,)
    families: npt.NDArray[np.int64]


def world(*, models: int, items: tuple[int, ...], seed: int, members: int = 4, likeness: float = 0.6) -> World:
    """Multidimensional item response; `members` of a family share this part of their abilities and of their luck."""
    random = np.random.default_rng(seed)
    of_task = np.repeat(np.arange(len(items)), items)
    family = np.arange(models) // members
    abilities = np.sqrt(likeness) * random.standard_normal((models, 6))[family]
    abilities += np.sqrt(1 - likeness) * random.standard_normal((models, 6))
    loadings = 0.5 * random.standard_normal((len(of_task), 6))
    loadings[:, 0] = 1 + 0.5 * random.random(len(of_task))
    loadings[:, 1] += 0.7 * (of_task - of_task.mean())
    logits = abilities @ loadings.T + 1.2 * random.standard_normal(len(of_task))
    luck = random.random((models, len(of_task)))
    shared = random.random(luck.shape) < likeness
    luck = np.where(shared, luck[family * members], luck)
    answers = (luck < 1 / (1 + np.exp(-logits))).astype(np.float32)
    tasks = np.array([f"task{number}" for number in of_task])
    return World(answers, tasks, [f"lab{one}/kin{one}-{n}b" for n, one in enumerate(family)], family)
