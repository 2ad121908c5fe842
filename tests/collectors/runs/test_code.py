"""The code that a shard names: an image's digest, a checkout's commit, or the release."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.runs import code
from collectors.runs.code import code_version


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(code.CODE, raising=False)
    code_version.cache_clear()
    yield
    code_version.cache_clear()


def test_code_is_what_the_image_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(code.CODE, "sha256:0123")
    assert code_version() == "sha256:0123"


def test_code_of_a_checkout_is_its_commit_with_a_mark_if_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        settings = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *settings, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    monkeypatch.setattr(code, "_ROOT", tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", code_version())
    (tmp_path / "file").write_text("two")
    code_version.cache_clear()
    assert re.fullmatch(r"[0-9a-f]{40}\+", code_version())


def test_code_without_a_checkout_is_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_ROOT", tmp_path)
    assert code_version().startswith("routerlake ")
