"""Our records of real models against the rows of stock lm-eval, its hf and its vllm backend, in float32."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import yaml

from tests.helpers.parity import compare

ROOT = Path(__file__).parents[2]
MODELS = ROOT / ".cache/models"
TASKS = ["mmlu_world_religions_continuation", "mmlu_high_school_biology:5", "truthfulqa_mc2", "gsm8k"]


def ours(models: list[Path], limit: int, lake: Path) -> pa.Table:
    """All records of our vLLM engine, collected by collect.py through Ray."""
    specs = [{"task": t.partition(":")[0], "num_fewshot": int(t.partition(":")[2] or 0) or None} for t in TASKS]
    config = {
        "models": [str(model) for model in models],
        "tasks": [{k: v for k, v in spec.items() if v is not None} for spec in specs],
        "limit": limit,
        "dtype": "float32",
        "datasets": str(ROOT / "pipelines/configs/demo_data"),
        "lake": str(lake),
        "engine": {"name": "vllm"},
        "max_length": 2048,
    }
    file = lake.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    subprocess.run([sys.executable, str(ROOT / "pipelines/collect.py"), "--config", str(file)], check=True)
    return pa.concat_tables(pq.ParquetFile(f).read() for f in sorted(lake.glob("shards/task=*/*.parquet")))


def theirs(backend: str, model: Path, limit: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Stock lm-eval's rows by task, from a process of its own."""
    out = folder / f"{backend}-{model.name}-{limit}.json"
    if out.exists():
        kept: dict[str, list[dict[str, Any]]] = json.loads(out.read_text(encoding="utf-8"))
        return kept
    data = folder / "datasets"
    if not data.exists():
        subprocess.run(["cp", "-r", str(ROOT / "pipelines/configs/demo_data"), str(data)], check=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(data)}
    command = [sys.executable, str(ROOT / "tests/benchmarks/stock.py"), backend, str(model), "float32", str(limit)]
    log = out.with_suffix(".log")
    with open(log, "w") as stream:
        done = subprocess.run([*command, str(out), *TASKS], env=environment, stdout=stream, stderr=stream, check=False)
    if done.returncode:
        raise SystemExit(f"stock lm-eval failed:\n{log.read_text()[-2000:]}")
    rows: dict[str, list[dict[str, Any]]] = json.loads(out.read_text(encoding="utf-8"))
    return rows


def row(name: str, equal: int, total: int, detail: str) -> bool:
    ratio = equal / total if total else 0.0
    print(f"{name:<62} {ratio:6.4f}  reach 1.0000  {'ok' if ratio == 1 else 'short'}   {detail}", flush=True)
    return ratio == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=25, help="items per task (default 25)")
    parser.add_argument("--backends", nargs="+", default=["hf", "vllm"], choices=["hf", "vllm"])
    parser.add_argument("--work", type=Path, help="folder that keeps what was made, to go on after a stop")
    args = parser.parse_args()
    models = sorted(path for path in MODELS.iterdir() if (path / "config.json").exists())
    good = True
    with contextlib.nullcontext(args.work) if args.work else tempfile.TemporaryDirectory() as scratch:
        Path(scratch).mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        records = ours(models, args.limit, Path(scratch) / "lake")
        print(f"ours: {records.num_rows} records in {time.monotonic() - started:.0f} s", flush=True)
        for model in models:
            for backend in args.backends:
                started = time.monotonic()
                samples = theirs(backend, model, args.limit, Path(scratch))
                print(f"lm-eval {backend} {model.name}: {time.monotonic() - started:.0f} s", flush=True)
                for task, rows in samples.items():
                    mine = records.filter(
                        (pa.compute.field("task") == task) & (pa.compute.field("model") == model.name)
                    )
                    counts, faults = compare(mine, rows)
                    wrong = len({fault.partition(":")[0] for fault in faults})
                    detail = f"{counts['rows']} rows, {counts['metrics']} metrics, {counts['responses']} responses"
                    good &= row(f"{backend} {model.name} {task}", counts["rows"] - wrong, counts["rows"], detail)
                    for fault in faults[:3]:
                        print(f"    {fault[:400]}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
