"""The command that writes a lake as other people's files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from collectors.exporters.registry import FORMATS
from pipelines.export import main
from tests.helpers.exporting import build, exported, price
from tests.helpers.importing import imported

SCORES = {"org/a": [1, 0, 1], "b": [1, 1, 0]}


def test_export_command_says_what_it_wrote_and_what_it_could_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = price(build(tmp_path / "lake", SCORES, tasks=("arc", "quiz")))
    out = tmp_path / "out.csv"
    words = ["--format", "routerbench", "--lake", lake.lake.uri, "--out", str(out)]
    assert main([*words, "--task", "quiz", "--pool", "model = 'b'"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 1 tasks, 3 items × 1 models as routerbench",
        "  pool: 1 candidates × 3 questions of quiz",
        f"  not in this format: {FORMATS['routerbench'].cannot}",
    ]
    assert pd.read_csv(out)["b"].tolist() == [1, 1, 0]
    assert main(words) == 2
    assert capsys.readouterr().err == f"export: --out {out} is there already: name another, or remove it\n"


def test_export_command_mixes_imported_records_in_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = price(build(tmp_path / "lake", SCORES))
    exported(price(build(tmp_path / "other", SCORES, tasks=("else",))), "routerbench", tmp_path / "else.csv")
    imported("routerbench", tmp_path / "else.csv", tmp_path / "lake")
    for include, tasks in (("collected", {"quiz"}), ("imported", {"else"})):
        out = tmp_path / f"{include}.csv"
        words = ["--lake", lake.lake.uri, "--out", str(out), "--include", include]
        assert main(["--format", "routerbench", *words]) == 0
        assert set(pd.read_csv(out).eval_name) == tasks
    assert capsys.readouterr().err == ""


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "routerbench", "--out", "x.txt"], "whose name ends with .csv or .pkl"),
        (
            ["--format", "routerbench", "--out", "x.csv", "--task", "none"],
            "no collected cell with a score of task none",
        ),
        (["--format", "routerbench", "--out", "no/x.csv"], "there is no folder"),
        (["--format", "routerbench", "--out", "x.csv", "--lake", "elsewhere"], "no lake at"),
        (["--format", "routerbench", "--out", "x.csv", "--encoder", "x"], "--encoder belongs to --format routereval"),
        (["--format", "modelsat", "--out", "x"], "--format modelsat needs --keywords"),
        (["--format", "routerdc", "--out", "x", "--threshold", "0.5"], "--threshold belongs to --format embedllm or "),
        (
            ["--format", "embedllm", "--out", "x", "--accuracy-only"],
            "--accuracy-only belongs to --format llmrouterbench",
        ),
        (["--format", "routerarena", "--out", "x", "--choices", "none.csv"], "none.csv: no such file"),
        (["--format", "llmrouter", "--out", "x", "--tokens", "none"], "--tokens none: FileNotFoundError"),
        (["--format", "routerbench", "--out", "x.csv", "--include", "imported"], "no imported cell with a score"),
    ],
)
def test_export_command_of_wrong_input_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    price(build(tmp_path / "lake", SCORES))
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]


def test_export_command_help_names_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert [name for name, form in FORMATS.items() if f"  {name} " not in said or form.what not in said] == []
