"""The command that imports the records of others."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from collectors.importers.formats import table
from collectors.importers.formats.table_settings import SETTINGS, VERDICT, check_settings
from pipelines import matrix
from pipelines.ingest import main
from tests.helpers.importing import write_json, write_lines
from tests.helpers.lm_eval_releases import TIME, write_release


def test_ingest_command_says_what_came_in_and_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_release(tmp_path / "runs", "0.4.9")
    assert main(["--format", "lm_eval", "runs", "--lake", "lake", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "3 files, 7 rows in: 7 records, 0 known already, 0 folded, 0 rejected" in said
    assert said.endswith("dry run: nothing was written\n")
    assert not Path("lake").exists()
    assert main(["--format", "lm_eval", "runs", "--lake", "lake", "--licence", "mit"]) == 0
    assert "--include imported --show" in capsys.readouterr().out.splitlines()[-1]
    assert matrix.main(["--lake", "lake", "--show"]) == 0
    said = capsys.readouterr().out
    assert "imported records are left out: --include imported shows them" in said
    assert "me/model" not in said
    assert matrix.main(["--lake", "lake", "--include", "imported", "--show"]) == 0
    assert "me/model" in capsys.readouterr().out
    assert main(["--format", "lm_eval", "runs", "--lake", "lake"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "3 files were imported before, such as results_2026-01-02T03-04-05.678901.json",
        "nothing new",
    ]


def test_ingest_command_with_rejects_exits_1_and_names_the_first_of_each_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_release(tmp_path / "runs", "0.4.9")
    with open(folder / f"samples_letters_{TIME}.jsonl", "a") as file:
        file.write("no JSON\n{\n")
    assert main(["--format", "lm_eval", str(folder), "--lake", str(tmp_path / "lake")]) == 1
    said = capsys.readouterr().out
    assert f"rejected, damaged: 2, first samples_letters_{TIME}.jsonl row 4: not JSON" in said


def test_ingest_command_reads_columns_and_aliases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "t.jsonl", [{"who": "a", "n": 1, "ok": True}])
    (tmp_path / "columns.yaml").write_text("model: who\ntask: {value: quiz}\nkey: n\nscore: ok\n")
    (tmp_path / "aliases.yaml").write_text("a: org/a\n")
    arguments = ["--format", "table", str(tmp_path / "t.jsonl"), "--columns", str(tmp_path / "columns.yaml")]
    arguments += ["--aliases", str(tmp_path / "aliases.yaml"), "--name", "mine", "--lake", str(tmp_path / "lake")]
    assert main(arguments) == 0
    assert "model a is org/a" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "lm_eval", "nowhere"], "no file at nowhere"),
        (["--format", "lm_eval", "empty"], "no file like *.json, *.jsonl in empty"),
        (["--format", "lm_eval", "nowhere/*.json"], "no file at nowhere/*.json"),
        (["--format", "table", "t.json"], "needs --columns"),
        (["--format", "lm_eval", "t.json", "--columns", "c.yaml"], "needs --columns"),
        (["--format", "table", "t.json", "--columns", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["--format", "table", "t.json", "--columns", "list.yaml"], "must hold a YAML mapping"),
        (["--format", "table", "t.json", "--columns", "wrong.yaml"], "have no colour"),
        (["--format", "table", "t.json", "--columns", "less.yaml"], "lack task, score"),
        (["--format", "table", "t.json", "--columns", "odd.yaml"], "setting key is [1]"),
        (["--format", "lm_eval", "t.json", "--name", "a#2"], "use printable text without"),
        (["--format", "lm_eval", "t.json", "--aliases", "list.yaml"], "must hold a YAML mapping"),
        (["--format", "lm_eval", "t.json", "--lake", "s3://user@bucket/x"], "holds a user"),
    ],
)
def test_ingest_command_wrong_input_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(Path("t.json"), [{"model": "a"}])
    Path("empty").mkdir()
    for name, text in {
        "list": "[a]",
        "wrong": "model: a\ntask: b\nscore: c\ncolour: d",
        "less": "model: a",
        "odd": "model: a\ntask: b\nscore: c\nkey: [1]",
    }.items():
        Path(f"{name}.yaml").write_text(text)
    before = sorted(Path().rglob("*"))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert sorted(Path().rglob("*")) == before


def test_ingest_help_of_tables_is_a_file_that_reads_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All settings that there are, with the columns that the help names as examples."""
    with pytest.raises(SystemExit) as ended:
        main(["--help-table"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    given = yaml.safe_load(said)
    assert list(given) == list(SETTINGS)
    assert {*table._VERDICT, "total_tokens"} == {"model", "task", *VERDICT}
    check_settings(given)
    milliseconds = given.pop("latency_ms")
    (tmp_path / "columns.yaml").write_text(said.replace(f"latency_ms: {milliseconds}", ""))
    row = {column: "1" for column in given.values() if isinstance(column, str)}
    write_lines(tmp_path / "t.jsonl", [row | {"correct": True, "options": ["a", "b"], "trial": 0}])
    words = ["--format", "table", str(tmp_path / "t.jsonl"), "--columns", str(tmp_path / "columns.yaml")]
    assert main([*words, "--lake", str(tmp_path / "lake")]) == 0
    assert "1 records, 0 known already, 0 folded, 0 rejected" in capsys.readouterr().out


def test_ingest_of_a_score_that_is_the_same_in_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(tmp_path / "t.jsonl", [{"who": "a", "n": 1}, {"who": "a", "n": 2}])
    (tmp_path / "columns.yaml").write_text("model: who\ntask: {value: quiz}\nkey: n\nscore: {value: 1}\n")
    words = ["--format", "table", str(tmp_path / "t.jsonl"), "--columns", str(tmp_path / "columns.yaml")]
    assert main([*words, "--lake", str(tmp_path / "lake")]) == 0
    assert "2 records" in capsys.readouterr().out
