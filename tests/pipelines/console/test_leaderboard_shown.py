"""The names of cells in a leaderboard."""

from __future__ import annotations

from typing import Any

from pipelines.console.leaderboard_shown import names_apart


def cell(number: int, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(
        ("quantization", "imported_from", "effort", "revision", "endpoint", "max_length")
    )
    return {**row, "cell_id": f"c{number}", "model": "m", "dtype": "float32", **changes}


def test_cells_of_one_name_are_told_apart_by_what_differs_else_by_their_id() -> None:
    servers = [cell(number, endpoint=f"http://127.0.0.1:800{number}/v1") for number in (1, 2)]
    others = [cell(number, effort="high") for number in (3, 4)]
    assert names_apart([cell(0), *servers, *others]) == [
        "m",
        "m (http://127.0.0.1:8001/v1)",
        "m (http://127.0.0.1:8002/v1)",
        "m (effort high, cell c3)",
        "m (effort high, cell c4)",
    ]


def test_cells_that_the_table_tells_apart_have_their_models_name_alone() -> None:
    cells = [cell(0), cell(1, dtype="bfloat16"), cell(2, imported_from="x"), cell(3, model="n", effort="high")]
    assert names_apart(cells) == ["m", "m", "m", "n"]
