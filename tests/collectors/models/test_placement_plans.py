"""Plans place each model on GPUs; classes of GPUs are checked."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from collectors.engines.gpus import class_of, gpu_classes, is_device
from collectors.lake.store import Lake
from collectors.models.model_files import model_row
from collectors.models.placement import ModelSize, need_of, place
from collectors.runs.config import FleetSpec, RunConfig
from collectors.runs.planning import make_plan, place_on
from collectors.specs import GpuSpec
from schemas.failures import ConfigError
from schemas.records import MODEL
from tests.helpers.mini_tasks import write_tasks
from tests.helpers.model_shapes import CONFIGS, EIGHT, LLAMA_8B, PARAMETERS, facts, model

# ---- classes


def test_gpu_class_of_unknown_memory_is_refused_and_a_stated_one_counts() -> None:
    with pytest.raises(ConfigError, match="the memory of a B900 is not known: give memory_gib"):
        gpu_classes([GpuSpec(name="B900")])
    [gpu] = gpu_classes([GpuSpec(name="A100", memory_gib=79)])
    assert (gpu.memory_gib, gpu.tflops) == (79, 312)
    assert gpu_classes([GpuSpec(name="A100 80GB")])[0].memory_gib > 79


def test_device_names_of_engines_are_told_apart() -> None:
    devices = ["NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-40GB", "NVIDIA L4", "NVIDIA L40S", "NVIDIA H100 80GB HBM3"]
    named = ["A100-80G", "A100-40G", "L4", "L40S", "H100"]
    assert [[name for name in named if is_device(name, device)] for device in devices] == [[name] for name in named]
    assert not is_device("L4", None)
    assert [class_of(device) for device in [*devices, "NVIDIA Thing", None]] == [*named, None, None]


@pytest.mark.parametrize("gpus", [["L4", "L4"], [{"name": "L4"}, "L4"]])
def test_fleet_gpus_twice_or_beside_gpus_per_worker_are_refused(gpus: list[Any]) -> None:
    with pytest.raises(ValueError, match="L4 is given twice"):
        FleetSpec.model_validate({"gpus": gpus})
    with pytest.raises(ValueError, match="give one"):
        FleetSpec.model_validate({"gpus": gpus[:1], "gpus_per_worker": 0.5})


# ---- plans


def catalog(folder: Path) -> Lake:
    lake = Lake(str(folder)).open_for_writing()
    said = {"listed_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "files_hash": "f", "weights": "safetensors"}
    rows = [
        {"model": f"org/{name}", "parameters": PARAMETERS[name], "weight_bytes": 2 * PARAMETERS[name]}
        for name in CONFIGS
    ]
    rows.append({"model": "org/odd"})
    for row in rows:
        config = CONFIGS.get(str(row["model"]).removeprefix("org/"), LLAMA_8B)
        row |= {"source": row["model"], "revision": "c" * 40, "config": json.dumps(config), **said}
    lake.create_table("models/read.parquet", pa.Table.from_pylist(rows, schema=MODEL))
    return lake


def run(folder: Path, tasks: Path, **fleet: Any) -> tuple[RunConfig, Lake]:
    lake = catalog(folder)
    keys = {
        "models": [{"catalog": "true"}],
        "tasks": ["mini_choice"],
        "include_tasks": [str(tasks)],
        "engine": {"name": "hf"},
        "lake": lake.uri,
        "fleet": fleet,
    }
    return RunConfig.model_validate(keys), lake


@pytest.mark.slow
def test_plan_puts_each_model_on_its_gpus_and_names_those_that_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("collectors.models.sizes.PATIENCE", 0.0)
    config, lake = run(tmp_path / "lake", write_tasks(tmp_path / "tasks"), gpus=["L4", {"name": "H100", "per_node": 8}])
    plan = make_plan(config, lake)
    found = {cell.cell.model.name: str(cell.cell.model.placement) for cell in plan.cells}
    assert found == {"org/smol": "1/4 × L4", "org/8b": "1/2 × H100", "org/70b": "4 × H100"}
    assert {row["model"]: row["kind"] for row in plan.failures} == {
        "org/405b": "no_gpu_fits",
        "org/odd": "unknown_memory",
    }
    ids = [cell.cell.cell_id for cell in plan.cells]
    config = config.model_copy(update={"fleet": FleetSpec()})
    anywhere = make_plan(config, lake)
    assert len(anywhere.cells) == 5  # without classes nothing is asked of models
    assert set(ids) < {cell.cell.cell_id for cell in anywhere.cells}  # and their place is not part of their identity
    failures = place_on(anywhere, lake, gpu_classes([GpuSpec(name="L4"), GpuSpec(name="H100", per_node=8)]))
    assert [str(cell.cell.model.placement) for cell in anywhere.cells] == [
        str(cell.cell.model.placement) for cell in plan.cells
    ]
    assert {row["model"] for row in failures} == {"org/405b", "org/odd"} == {row["model"] for row in anywhere.failures}


def test_plan_of_a_folder_takes_its_files_for_facts(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    folder = next(iter(tiny_models.values()))
    keys = {"models": [str(folder)], "tasks": ["mini_choice"], "include_tasks": [str(write_tasks(tmp_path / "t"))]}
    config = RunConfig.model_validate({**keys, "engine": "hf", "fleet": {"gpus": ["T4"]}, "dtype": "float32"})
    plan = make_plan(config, Lake(str(tmp_path / "lake")))
    [cell] = plan.cells
    assert str(cell.cell.model.placement) == "1/4 × T4"
    said = model_row(cell.cell.model)
    assert plan.sizes[cell.cell.model] == ModelSize(said["parameters"], said["weight_bytes"])


@pytest.mark.slow
def test_vllm_engine_gets_the_options_of_its_placement_beneath_those_of_the_config() -> None:
    from collectors.engines.vllm import VllmEngine

    placed = place(model("70b"), need_of(model("70b"), facts("70b")), gpu_classes(EIGHT), {})
    assert VllmEngine()._options_of(placed).tensor_parallel_size == 4
    assert VllmEngine(tensor_parallel_size=8)._options_of(placed).tensor_parallel_size == 8
    assert VllmEngine().group(placed) is None
