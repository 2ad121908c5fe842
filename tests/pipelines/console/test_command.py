"""The command routerlake: what its help teaches, and that it runs the scripts as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.console import command
from pipelines.console.script import Parser, as_called
from pipelines.console.script import command as shell_command

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])


def test_commands_are_the_scripts() -> None:
    scripts = {path.stem for path in (ROOT / "pipelines").glob("*.py")} - {"__init__"}
    assert set(command.COMMANDS) == scripts


def test_help_has_a_line_for_each_command_and_three_to_begin_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run([]) == 0
    text = capsys.readouterr().out
    assert [name for name in command.COMMANDS if f"\n  {name} " not in text] == []
    begin = text.partition("begin with:")[2].partition("commands:")[0]
    assert begin.count("routerlake ") == 3
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(("name", "hint"), [("matrx", "did you mean matrix?"), ("xyz", "there are collect, ")])
def test_command_unknown_is_one_line(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run([name]) == 2
    assert capsys.readouterr().err.startswith(f"routerlake: no command '{name}'; {hint}")


@pytest.mark.parametrize(
    ("called", "script", "parts", "name"),
    [
        ("pipelines/matrix.py", "pipelines/matrix.py", (), "matrix.py"),
        ("pipelines/matrix.py", "pipelines/matrix.py", ("score",), "matrix.py score"),
        ("routerlake matrix", "pipelines/matrix.py", (), "routerlake matrix"),
        ("routerlake matrix", "pipelines/matrix.py", ("score",), "routerlake matrix score"),
        ("routerlake score", "pipelines/matrix.py", ("score",), "routerlake score"),
        ("routerlake publish", "pipelines/publish.py", ("verify",), "routerlake publish verify"),
    ],
)
def test_help_names_the_command_as_it_was_called(
    called: str, script: str, parts: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert Parser(script, *parts, description="").prog == name


def test_texts_name_scripts_as_they_were_called(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "python pipelines/matrix.py --lake x; prices.py; mine.py; ray job submit -- python pipelines/collect.py"
    assert as_called(text) == text
    monkeypatch.setattr(sys, "argv", ["routerlake matrix"])
    called = "routerlake matrix --lake x; routerlake prices; mine.py; ray job submit -- python pipelines/collect.py"
    assert as_called(text) == called
    assert shell_command("pipelines/publish.py", "verify", "a b") == "routerlake publish verify 'a b'"


def test_command_runs_and_imports_its_own_script_alone() -> None:
    code = (
        "import sys\nfrom pipelines.console import command\n"
        "try: command.run(['score', '--help'])\nexcept SystemExit: pass\n"
        "names = [name for name in sys.modules if name.startswith('pipelines.') and 'console' not in name]\n"
        "print('loaded', sorted(names))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: routerlake score ")
    assert "python pipelines/" not in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded ['pipelines.score']"
