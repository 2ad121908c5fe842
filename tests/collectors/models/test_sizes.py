"""Sizes of models: the same from the hub, a store, a folder and the lake, and which of them are asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from collectors.engines import ModelRef
from collectors.lake.store import Lake
from collectors.models.model_files import model_row
from collectors.models.placement import ModelSize
from collectors.models.sizes import sizes_of
from schemas.failures import ModelError
from schemas.records import MODEL
from tests.helpers.model_hub import ModelHub, llama, model_hub, safetensors


def ref(source: str, revision: str, path: Path | None = None) -> ModelRef:
    return ModelRef("m", source, revision, str(path) if path else None, "bfloat16")


def only(lake: Lake, model: ModelRef, *, far: bool = True) -> ModelSize | ModelError:
    [(same, found)] = sizes_of(lake, [model], far=far)
    assert same is model
    return found


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> object:
    with model_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        yield hub


def test_sizes_of_hub_and_store_and_folder_are_the_same(served: ModelHub, tmp_path: Path) -> None:
    header, size, _ = safetensors({"model.embed_tokens.weight": [100, 64]})
    repo = llama("org/a", weights={"model.safetensors": (header, size, "0" * 64)})
    served.add(repo)
    folder = tmp_path / "a"
    folder.mkdir()
    for name, data in repo.files.items():
        (folder / name).write_bytes(data)
    (folder / "model.safetensors").write_bytes(header + bytes(size - len(header)))
    lake = Lake(str(tmp_path / "lake"))
    by_hub = only(lake, ref("org/a", repo.sha))
    by_folder = only(lake, ref(str(folder), "files-x", folder))
    by_store = only(lake, ref(f"file://{folder}", "listing-x"))
    assert isinstance(by_hub, ModelSize)
    assert (by_hub.parameters, by_hub.weight_bytes) == (6400, size)
    assert by_hub == by_folder
    assert by_store == ModelSize(None, size, by_hub.config)  # headers in a store are not read

    lake.open_for_writing()
    row = {**model_row(ref(str(folder), "x", folder)), "source": "org/a", "revision": repo.sha}
    lake.create_table("models/a.parquet", pa.Table.from_pylist([row], schema=MODEL))
    served.asked.clear()
    assert only(lake, ref("org/a", repo.sha)) == by_hub == only(lake, replace(ref("org/a", "any"), has_files=False))
    assert served.asked == []


def test_sizes_that_nobody_near_knows_are_asked_for_only_where_they_are_needed(
    served: ModelHub, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    assert only(lake, ref("org/none", "a" * 40), far=False) == ModelSize()
    assert only(lake, replace(ref("org/none", "any"), has_files=False)) == ModelSize()
    assert served.asked == []
    missing = only(lake, ref("org/none", "a" * 40))
    assert isinstance(missing, ModelError)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps({}))
    (broken / "model.safetensors").write_bytes(b"no header")
    assert isinstance(only(lake, ref(str(broken), "files-x", broken)), ModelError)
