"""Plans of small tasks for a folder that looks like a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.lake.store import Lake
from collectors.runs.config import RunConfig
from collectors.runs.plan import Plan
from collectors.runs.planning import make_plan
from tests.helpers.mini_tasks import write_tasks

TASK = "mini_generate"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def write_model(folder: Path, weights: bytes = b"weights") -> Path:
    """A folder that identity can be read from; no engine could load it."""
    folder.mkdir(parents=True)
    config = {"model_type": "llama", "dtype": "float32", "max_position_embeddings": 2048}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = write_model(tmp_path_factory.mktemp("models") / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY_MODEL", str(folder))
        yield folder


def configured(folder: Path, model: Path | str, /, **changes: Any) -> RunConfig:
    keys: dict[str, Any] = {
        "models": [str(model)],
        "tasks": [TASK],
        "include_tasks": [str(folder)],
        "allow_code": True,
        "engine": {"name": "hf"},
    }
    return RunConfig.model_validate({**keys, **changes})


def planned(config: RunConfig, lake: Path | str = "/nowhere/lake", **flags: Any) -> Plan:
    return make_plan(config, Lake(str(lake)), **flags)


def ids(plan: Plan) -> list[str]:
    return [cell.cell.cell_id for cell in plan.cells]


@pytest.fixture(scope="module")
def base(tasks: Path, model: Path) -> str:
    """The cell that the changes below are compared with."""
    (cell_id,) = ids(planned(configured(tasks, model)))
    return cell_id
