"""What a router may return: names, columns as any whole number, or nothing; all else is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from collectors.routers.contract import ABSTAIN, BadChoice, columns_of

NAMES = ["a", "b", "c"]


@pytest.mark.parametrize(
    "chosen",
    [
        ["b", None, "a"],
        [1, -1, 0],
        [np.int64(1), np.int32(-1), 0],
        np.array([1, -1, 0], np.int8),
        [np.str_("b"), None, np.argmax([1, 0])],
    ],
)
def test_columns_of_choices_in_any_form_are_the_same(chosen: Any) -> None:
    assert columns_of(chosen, NAMES, 3).tolist() == [1, ABSTAIN, 0]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("z", "query 1: it chose 'z', which is no candidate"),
        (3, "query 1: it chose column 3 of 3"),
        (-2, "column -2"),
        (True, "neither a name nor a column"),
        (np.bool_(True), "neither a name nor a column"),
        (1.0, "neither a name nor a column"),
        (float("nan"), "neither a name nor a column"),
        ([1], "neither a name nor a column"),
    ],
)
def test_columns_of_a_wrong_choice_name_its_query(value: Any, reason: str) -> None:
    with pytest.raises(BadChoice, match=reason):
        columns_of(["a", value, "b"], NAMES, 3)
