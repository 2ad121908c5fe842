"""Lakes with routers' choices to score, and the figures of the command."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from collectors.prices.tables import add_prices, read_prices
from pipelines.matrix import main
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

SCORES: dict[str, list[float | None]] = {"a": [1, 0, 1, 1, 0, 1], "b": [0, 1, 1, 0, 0, 1], "c": [1, 1, None, 0, 0, 0]}


@pytest.fixture
def lake(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> LakeBuilder:
    return _built(tmp_path_factory.getbasetemp() / "routed").copied(tmp_path / "lake")


@functools.cache
def _built(folder: Path) -> LakeBuilder:
    """Made once: many tests begin with a copy."""
    builder = LakeBuilder(folder / "lake")
    for model, scores in SCORES.items():
        builder.planned(BuiltCell(model=model), scores)
    builder.items("quiz", "i0", 6)
    path = folder / "prices.csv"
    header = "model,provider,usd_per_million_prompt,usd_per_million_completion,valid_from,source\n"
    path.write_text(
        header + "".join(f"{model},host,{usd},0,2026-01-01,test\n" for model, usd in zip("abc", (5, 1, 2), strict=True))
    )
    add_prices(builder.lake, *read_prices(path))
    return builder


def scored(lake: LakeBuilder, choices: Path, capsys: pytest.CaptureFixture[str], *more: str) -> list[dict[str, Any]]:
    # c lacks one of six scores, and would be left out.
    options = ["--lake", lake.lake.uri, "--json", *([] if "--questions" in more else ["--questions", "any"]), *more]
    assert main(["score", "--choices", str(choices), *options]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def two_tasks(folder: Path) -> LakeBuilder:
    builder = LakeBuilder(folder)
    for task, of in (("x", {"a": [1, 0, 1], "b": [0, 1, 0]}), ("y", {"a": [0, 0], "b": [1, 1], "c": [1, 1]})):
        for model, scores in of.items():
            builder.planned(BuiltCell(model=model, task=task), scores)
        builder.items(task, "i0", len(of["a"]))
    return builder
