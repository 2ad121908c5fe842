"""Pairs of models, against counts item by item."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from collectors.metrics import complementarity as module
from collectors.metrics import gaps
from collectors.metrics.complementarity import complementarity

SCORES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7),
    elements=st.sampled_from([0.0, 0.5, 1.0, np.nan]),
)


@given(SCORES, st.sampled_from([0.5, 1.0]))
def test_complementarity_is_what_counting_item_by_item_finds(scores: npt.NDArray[Any], threshold: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaps, "BLOCK", 5)
        patch.setattr(module, "MODELS_AT_ONCE", 2)
        found = complementarity(scores, threshold)
    for a in range(scores.shape[1]):
        for b in range(scores.shape[1]):
            pairs = [(x >= threshold, y >= threshold) for x, y in scores[:, [a, b]] if x == x and y == y]
            assert found.both[a, b] == pairs.count((True, True))
            assert found.only_row[a, b] == found.only_column[b, a] == pairs.count((True, False))
            assert found.only_column[a, b] == pairs.count((False, True))
            assert found.neither[a, b] == pairs.count((False, False))
            assert found.left_out[a, b] == len(scores) - len(pairs)


def test_complementarity_of_many_items_needs_memory_for_blocks_and_pairs_only() -> None:
    items, models = 40_000, 200
    scores = (np.random.default_rng(0).random((items, models)) < 0.5).astype(np.float32)  # 32 MB
    tracemalloc.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaps, "BLOCK", 1 << 19)
        found = complementarity(scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # blocks of 4 MB or less, and counts of 0.5 MB; items × models × models would be 1.6 GB
    assert (found.both + found.only_row + found.only_column + found.neither == items).all()
    assert found.both.diagonal().tolist() == (scores == 1).sum(axis=0).tolist()


def test_complementarity_of_one_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        complementarity(np.ones(3))
