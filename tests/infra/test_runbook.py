"""The runbook's commands exist, with the flags that it gives them, and it knows every kind of failure."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

import schemas.failures as failures
from collectors.lake.damage import DAMAGED
from tests.helpers.runs import ROOT

RUNBOOK = (ROOT / "infra" / "RUNBOOK.md").read_text(encoding="utf-8")
#: Programs that are not of this environment: their commands are only looked at for files that they name.
ELSEWHERE = {"aws", "docker", "kubectl", "openssl", "sky", "export", "scp", "ssh"}


def commands() -> list[list[str]]:
    """The words of every command in the runbook's blocks, programs behind a pipe apart."""
    blocks = re.findall(r"```bash\n(.*?)```", RUNBOOK, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(part) for line in lines for part in re.split(r" \| (?!base64|tr )", line)]


def of_program(*names: str) -> list[list[str]]:
    return [words for words in commands() if words[0] in names]


def test_runbook_programs_are_known() -> None:
    assert {words[0] for words in commands()} <= ELSEWHERE | {"python", "ray"}
    assert len(of_program("python", "ray")) >= 10


def module_words() -> list[list[str]]:
    """Words from `pipelines.X` on, of commands as they are and of those that `ray job submit` runs."""
    found = [words[words.index("-m") + 1 :] for words in of_program("python", "ray") if "-m" in words]
    assert len(found) >= 5
    return found


@pytest.mark.parametrize("words", module_words(), ids=" ".join)
def test_runbook_pipelines_take_their_flags(words: list[str]) -> None:
    module = importlib.import_module(words[0])
    parse = getattr(module, "parse_args", None) or module.parse
    assert parse(words[1:])


@pytest.mark.parametrize("words", of_program("ray"), ids=" ".join)
def test_runbook_ray_commands_take_their_flags(words: list[str]) -> None:
    """Ray's own parser reads them; nothing is run."""
    from ray.scripts.scripts import cli  # two seconds

    command: click.Command = cli
    rest = words[1 : words.index("--")] if "--" in words else words[1:]
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(click.Context(command), rest)
        assert found is not None
        command = found
    if "--" in words:
        rest += words[words.index("--") :]
    command.make_context(words[0], rest)


def test_runbook_names_files_that_are_there() -> None:
    named = set(re.findall(r"infra/[\w./-]+\.\w+", RUNBOOK)) | {
        f"infra/{name}" for name in re.findall(r"`((?:kuberay/)?[a-z-]+\.(?:yaml|json))`", RUNBOOK)
    }
    assert {path for path in named if not (ROOT / path).exists()} <= {"infra/my.yaml"}
    for path in (ROOT / "infra").rglob("*"):
        if path.suffix in (".yaml", ".json"):
            assert str(path.relative_to(ROOT)) in named, path


def kinds() -> set[str]:
    """Every kind in schemas.failures, and the kind of a damaged file."""
    source = Path(failures.__file__).read_text(encoding="utf-8")
    told = {kind for lines in re.findall(r'"""kinds: ([^"]*)"""', source) for kind in re.split(r",\s+", lines)}
    return told | set(re.findall(r'kind = "(\w+)"', source)) | failures.ITEM_FAILURES | {DAMAGED}


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_runbook_says_what_to_do_about_a_kind(kind: str) -> None:
    chapter = RUNBOOK.split("## What to do, by the kind")[1].split("\n## ")[0]
    assert f"`{kind}`" in chapter
