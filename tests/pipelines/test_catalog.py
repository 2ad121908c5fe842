"""catalog.py as a person runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.catalog import main
from tests.helpers.model_hub import ModelHub, llama, model_hub

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    with model_hub() as store:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", store.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", os.devnull)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("pipelines.catalog.installed_vllm", lambda: None)  # asking it takes half a minute
        yield store


def test_catalog_lists_reads_and_shows(served: ModelHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    served.add(llama("org/a"), llama("org/rare", downloads=3), llama("me/copy", seed="org/a", created="2025-01-01"))
    lake, names = tmp_path / "lake", tmp_path / "names.txt"
    names.write_text("org/rare\norg/never\n")
    query = ["--lake", str(lake), "--min-downloads", "1000"]
    assert main([*query, "--dry-run"]) == 0
    assert "2 models listed, 0 named; 2 to read" in capsys.readouterr().out
    assert not lake.exists()
    assert main([*query, "--names", str(names)]) == 1
    said = capsys.readouterr().out
    assert "3 models read" in said
    assert "failed: org/never: the hub has no org/never" in said
    assert "the same weights as org/a" in said
    assert "the support by vLLM is unknown" in said
    assert main(query) == 0
    assert "0 models read by 1 requests" in capsys.readouterr().out
    assert main(["--lake", str(lake)]) == 0
    assert "the same weights as org/a" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no lake at"),
        (["--names", "none.txt"], "cannot read none.txt"),
        (["--search", "x"], "refuses the token"),
    ],
)
def test_catalog_wrong_input_is_one_line_and_writes_nothing(
    served: ModelHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    served.token = "hf_other"
    assert main(["--lake", str(tmp_path / "lake"), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("argument", ["--max-parameters=many", "--most=0", "--jobs=-1", "--min-downloads=1e3"])
def test_catalog_argument_that_is_no_number_is_refused(argument: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([argument])
    assert caught.value.code == 2


def test_catalog_down_hub_is_one_line(served: ModelHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    served.down = True
    assert main(["--lake", str(tmp_path / "lake"), "--search", "x", "--patience", "1"]) == 1
    error = capsys.readouterr().err
    assert f"catalog: the hub at {served.endpoint} has not answered" in error
    assert "Traceback" not in error


def test_catalog_killed_at_any_moment_goes_on(served: ModelHub, tmp_path: Path) -> None:
    served.add(*(llama(f"org/{n:03d}") for n in range(40)))
    environment = {**os.environ, "HF_ENDPOINT": served.endpoint, "PYTHONPATH": str(ROOT)}
    code = (
        "from collectors.models import hub_catalog; hub_catalog.BATCH = 5; hub_catalog.installed_vllm = lambda: None\n"
        "import pipelines.catalog as c; c.installed_vllm = lambda: None; import sys; sys.exit(c.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--lake", str(tmp_path / "lake"), "--search", "org", "--jobs", "2"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        while served.calls()["info"] < 25:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    again = served.calls()["info"] - 40
    assert 0 < again <= 5 + 2 * 4 + 2  # the batch at work, the rows that waited to join it, and those being read
    served.asked.clear()
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert served.calls() == {"list": 1}
