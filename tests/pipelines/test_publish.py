"""The command that publishes, verifies and compares versions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.console.site_command import building
from pipelines.publish import main
from tests.helpers.filled_lakes import add, filled, plain_lake


def test_publish_command_publishes_verifies_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    builder = filled(tmp_path / "lake")
    publish_it = ["--lake", builder.lake.uri, "--to", str(tmp_path / "out"), "--source", "gsm8k=mit"]
    assert main(publish_it) == 0
    *_, digest, following = capsys.readouterr().out.splitlines()
    uri = following.rsplit(" ", 1)[-1]
    assert digest.startswith("SHA-256 of manifest.json: ")
    assert main(["verify", uri]) == 0
    whole, same_digest = capsys.readouterr().out.splitlines()
    assert "whole" in whole
    assert same_digest.startswith(f"{digest}: compare")
    assert main(publish_it) == 0, "the same lake is the same version"
    assert "published before and whole" in capsys.readouterr().out
    assert main(["--lake", builder.lake.uri, "--to", uri]) == 2, "a version is no place for another"
    assert "itself a published version" in capsys.readouterr().err
    assert len(list((tmp_path / "out").iterdir())) == 1
    add(builder, "c", "t", 0, 0, 2)
    assert main([*publish_it, "--version", "2.0.0"]) == 0
    capsys.readouterr()
    assert main(["diff", uri, str(tmp_path / "out" / "2.0.0")]) == 1
    assert "t, c" in capsys.readouterr().out
    assert main(["diff", uri, uri]) == 0
    (Path(uri) / "README.md").write_text("x")
    assert main(["verify", uri]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["verifi", "nowhere"],
        ["--to", "x", "--lake", "file"],
        ["verify", "nowhere"],
        ["diff", "nowhere", "."],
        ["--lake", "nowhere", "--to", "x"],
        ["verify", "a@b://"],
    ],
)
def test_publish_command_wrong_input_is_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_publish_command_place_below_a_file_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = plain_lake(str(tmp_path / "lake")).lake
    (tmp_path / "file").touch()
    assert main(["--lake", lake.uri, "--to", str(tmp_path / "file" / "below")]) == 2
    assert f"{tmp_path / 'file'} is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["", "../x", "a/b", "-v", ".", "x" * 80, "a..b", "v.lock"])
def test_publish_command_versions_that_are_no_names_are_refused(version: str) -> None:
    with pytest.raises(SystemExit):
        main(["--to", "x", f"--version={version}"])


@pytest.mark.parametrize("option", ["--title", "--licence", "--source"])
def test_publish_command_what_goes_into_a_line_of_the_card_is_one(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--to", "x", option, "a=b\nlicense: mit"])
    assert "must be one line of printable text" in capsys.readouterr().err


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_publish_command_writes_a_site_and_replaces_no_other_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, out = plain_lake(str(tmp_path / "lake")).lake.uri, tmp_path / "site"
    with building(out) as folder:
        left = folder.parent
        (folder / "a.html").write_text("of a killed process")
        shutil.copytree(left, tmp_path / "copy")
    (tmp_path / "copy").rename(left)
    for name in (".site.tmp", ".site.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("a user's own")
    assert main(["site", lake, str(out), "--no-sql"]) == 0
    assert not left.exists()
    assert (out / "index.html").is_file()
    assert f"open {out / 'index.html'}" in capsys.readouterr().out.splitlines()[-1]
    assert main(["verify", str(out)]) == 0
    assert "SHA-256 of site.json: " in capsys.readouterr().out
    with building(out) as folder:
        assert main(["site", lake, str(out), "--no-sql"]) == 2
        assert f"another process writes {out}" in one_line(capsys)
        assert folder.is_dir()
    left.mkdir()
    (left / "thesis").write_text("x")
    assert main(["site", lake, str(out), "--no-sql"]) == 2, "a folder of that name without our mark"
    assert f"{left} is in the way" in one_line(capsys)
    assert (left / "thesis").read_text() == "x"
    for stray in (out / "notes.txt", out / "static" / "notes.txt", out / "version" / "notes.txt"):
        stray.parent.mkdir(exist_ok=True)
        stray.write_text("x")
        assert main(["site", lake, str(out), "--no-sql"]) == 2
        assert "move it away first" in one_line(capsys)
        stray.unlink()
    (out / "version").rmdir()
    (left / "thesis").unlink()
    assert main(["site", lake, str(out), "--no-sql"]) == 0, "a site and an empty folder"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".site.old", ".site.tmp", "lake", "site"]


@pytest.mark.parametrize("place", ["mine", "other", "lake/site", "no/where", "", ".", "..", "x" * 300, "/proc/site"])
def test_publish_command_site_at_a_place_of_others_is_refused_in_one_line(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plain_lake("lake")
    for folder, name in (("mine", "site.txt"), ("other", "site.json")):
        Path(folder).mkdir()
        (Path(folder) / name).write_text("{}")
        (Path(folder) / "thesis").write_text("x")
    assert main(["site", "lake", place, "--no-sql"]) == 2
    assert one_line(capsys).startswith("publish: ")
    assert Path("mine/thesis").is_file()
    assert Path("other/thesis").is_file()
