"""Plans for thousands of models, against the figures to reach."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from collectors.harness.loading import use_datasets
from collectors.lake.layout import shard_name
from collectors.lake.store import Lake, parquet_bytes
from collectors.runs.config import load_config
from collectors.runs.planning import make_plan
from schemas.identity import ShardName, digest
from schemas.records import MODEL, RECORD
from tests.benchmarks.bench_lake import Report
from tests.benchmarks.peak import measured

ROOT = Path(__file__).parents[2]
#: Tasks of the demo, and how many examples each is asked with.
TASKS, SHOTS = ("mmlu_world_religions_continuation", "mmlu_high_school_biology", "gsm8k"), (0, 1, 3, 5)
#: Hidden size, layers, heads, key-value heads, parameters: Llama 3's and Qwen 2.5's.
SHAPES = (
    (896, 24, 14, 2, 494_032_768),
    (2048, 16, 32, 8, 1_235_814_400),
    (3072, 28, 24, 8, 3_212_749_824),
    (4096, 32, 32, 8, 8_030_261_248),
    (5120, 48, 40, 8, 14_770_033_664),
)
#: What the estimate reads of a shard.
FACTS = {"engine": "stub", "items": 50, "engine_tokens": 40_000, "engine_seconds": 2.0, "load_seconds": 30, "gpus": 0.5}
#: Links to one file; ext4 allows 65,000.
MOST_LINKS = 50_000
#: Runs the script and prints its CPU-seconds and memory.
CODE = """
import sys
from pipelines.collect import main
from tests.benchmarks.peak import tell
code = main(sys.argv[1:])
tell()
sys.exit(code)
"""


def bench_planning(report: Report, models: int, most_seconds: float, most_gb: float) -> None:
    """A dry run of the catalog's models × 12 tasks, with placements and estimate, half of the cells committed."""
    with tempfile.TemporaryDirectory() as folder:
        config = planned_half(Path(folder), models)
        command = [sys.executable, "-c", CODE, "--config", str(config), "--dry-run"]
        subprocess.run(command, env=environment(), check=True, capture_output=True)  # fills caches
        started = time.monotonic()
        done = subprocess.run(command, env=environment(), check=True, capture_output=True, text=True)
        seconds = time.monotonic() - started
    cpu, peak = measured(done.stderr)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("to collect")]
    print("\n".join(done.stdout.splitlines()[-20:]))
    what = f"planning {models:,} models × {len(TASKS) * len(SHOTS)} tasks, half committed"
    report.row(f"{what}: seconds", seconds, most_seconds, f"{cpu:.1f} s of CPU; {line}")
    report.row(f"{what}: GB", peak / 1e9, most_gb)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def planned_half(folder: Path, models: int) -> Path:
    """A config of the stub engine, and a lake with its catalog. Every second cell in the lake has its only shard."""
    path = folder / "config.yaml"
    keys: dict[str, Any] = {
        "models": [{"catalog": "parameters < 15e9 AND downloads >= 1000"}],
        "tasks": [{"task": task, "num_fewshot": shots} for task in TASKS for shots in SHOTS],
        "datasets": str(ROOT / "pipelines" / "configs" / "demo_data"),
        "lake": str(folder / "lake"),
        "engine": "stub",
        "max_length": 8192,
        "fleet": {"gpus": ["L4", {"name": "H100", "per_node": 8}]},
    }
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    config = load_config(str(path))
    lake = Lake(config.lake).open_for_writing()
    lake.create_table("models/catalog.parquet", catalog(models))
    use_datasets(config.datasets)
    plan = make_plan(config, lake)
    plan.write(lake)
    # One file, linked under the name of every shard: half of 102,000 cells are made within seconds.
    data = parquet_bytes(RECORD.empty_table(), {"shard": FACTS})
    halves = (cell for i, cell in enumerate(plan.cells) if (i + i // models) % 2)  # of each task and of each model
    for number, cell in enumerate(halves):
        shared = folder / f"shard-{number // MOST_LINKS}.parquet"
        if number % MOST_LINKS == 0:
            shared.write_bytes(data)
        name = shard_name(cell.cell.spec.task, ShardName(cell.cell.cell_id, 0, 0, cell.cell.items - 1))
        place = Path(lake.root, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(shared, place)
    return path


def catalog(models: int) -> pa.Table:
    rows = []
    for number in range(models):
        hidden, layers, heads, kv_heads, parameters = SHAPES[number % len(SHAPES)]
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"}
        sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers}
        sizes |= {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": 128_256 + number % 7}
        name = f"org{number % 97}/model-{number}"
        row = {"model": name, "source": name, "revision": digest(name, 40), "weights": "safetensors", "vllm": True}
        row |= {
            "parameters": parameters,
            "weight_bytes": 2 * parameters,
            "downloads": 1000 + number,
            "files_hash": name,
        }
        row |= {"listed_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "weights_hash": name}
        rows.append({**row, "config": json.dumps({**config, **sizes, "max_position_embeddings": 131_072})})
    return pa.Table.from_pylist(rows, schema=MODEL)


#: Models of the catalog -> most seconds and GB of their plan: 102,000 cells, and a million.
SIZES = {8_500: (30, 1), 83_584: (60, 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, choices=SIZES, nargs="*", default=list(SIZES), help="some of the sizes")
    args = parser.parse_args()
    report = Report()
    for models in args.models:
        bench_planning(report, models, *SIZES[models])
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
