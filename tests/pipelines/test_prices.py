"""prices.py as a person runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.prices import main
from tests.helpers.lake_builder import BuiltCell, LakeBuilder


@pytest.fixture
def lake(tmp_path: Path) -> str:
    builder = LakeBuilder(tmp_path / "lake")
    builder.planned(BuiltCell(model="Qwen/Qwen3-14B"), [1.0])
    builder.planned(BuiltCell(model="me/unheard-of"), [1.0])
    return builder.lake.uri


def test_prices_of_the_package_say_what_each_model_is_charged_by(lake: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lake", lake, "--shipped", "open_models", "price_names", "gpus"]) == 0
    said = capsys.readouterr().out
    assert "rows put into prices" in said
    assert "1 equal, 1 unpriced" in said
    assert main(["--lake", lake, "--shipped", "open_models"]) == 0
    assert "rows were already in prices" in capsys.readouterr().out


def test_prices_with_a_wrong_file_write_nothing(lake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    header = "model,provider,usd_per_million_prompt,usd_per_million_completion,valid_from,source\n"
    good.write_text(header + "me/unheard-of,me,1,1,2026-01-01,mine\n")
    bad.write_text(header + "me/unheard-of,me,one,1,2026-01-01,mine\n")
    assert main([str(good), str(bad), "--lake", lake]) == 2
    assert "bad.csv line 2" in capsys.readouterr().err
    assert main(["--lake", lake]) == 0
    assert "2 unpriced" in capsys.readouterr().out
    assert main([str(good), "--lake", lake]) == 0
    assert "1 equal, 1 unpriced" in capsys.readouterr().out


def test_prices_without_a_lake_make_one_for_tables_and_are_one_line_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = str(tmp_path / "none")
    assert main(["--lake", lake]) == 2
    assert capsys.readouterr().err.startswith("prices: no lake at")
    assert main(["--lake", lake, "--shipped", "gpus"]) == 0
    assert "rows put into gpu_prices" in capsys.readouterr().out


def test_prices_of_a_model_that_the_lake_lacks_name_it_and_the_nearest(
    lake: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text(
        "model,provider,usd_per_million_prompt,usd_per_million_completion,valid_from,source\n"
        "me/unheard_of,me,1,1,2026-01-01,mine\nqwen3-14b,me,1,1,2026-01-01,mine\n"
    )
    assert main([str(mine), "--lake", lake]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "mine.csv: no model of this lake is named me/unheard_of (did you mean me/unheard-of?)" in said
