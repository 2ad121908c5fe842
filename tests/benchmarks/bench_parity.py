"""Our records of real models, and values over sets, against stock lm-eval: its hf and its vllm backend, in float32."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import yaml

from collectors.harness.aggregations import aggregate, metrics_of
from collectors.harness.judge import judge_here
from collectors.harness.loading import load_tasks
from collectors.runs.aggregates import as_lm_eval
from collectors.specs import TaskSpec
from tests.helpers.parity import compare
from tests.helpers.set_tasks import BOOTSTRAPS, GROUPS, evaluate, load, values_of, write_set_tasks
from tests.helpers.set_tasks import TASKS as SET_TASKS

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


def aggregates(folder: Path) -> bool:
    """Values of metrics over sets and groups against lm-eval's own results, from the same samples: equal to 1e-9."""
    write_set_tasks(folder)
    stock, loaded = evaluate(folder), load(folder)
    kinds: dict[str, list[bool]] = {"means of items": [], "values of sets": [], "standard errors": []}
    of_tasks: dict[str, list[Any]] = {}
    for name in SET_TASKS:
        task, values, results = loaded["tasks"][name], values_of(stock, name), stock["results"][name]
        of_tasks[name] = [aggregate(task, values, *pair, BOOTSTRAPS) for pair in metrics_of(values)]
        for one in of_tasks[name]:
            kind = "means of items" if one.aggregation == "mean" else "values of sets"
            kinds[kind].append(_equal(one.value, results[f"{one.metric},{one.filter}"]))
            kinds["standard errors"].append(_equal(one.stderr, results[f"{one.metric}_stderr,{one.filter}"]))
    kinds["groups of tasks, with errors"] = [
        _equal(mine, theirs) for group in GROUPS for mine, theirs in _of_group(folder, group)
    ]
    kinds["empty answers, scored as lm-eval judges them"] = _empty_answers(folder, stock)
    rows = [row(f"aggregates: {kind}", sum(equal), len(equal), "to 1e-9") for kind, equal in kinds.items()]
    return all(rows)


def _equal(mine: float | None, theirs: Any) -> bool:
    return theirs == "N/A" if mine is None else math.isclose(mine, float(theirs), rel_tol=1e-9, abs_tol=1e-9)


def _of_group(folder: Path, name: str) -> Iterator[tuple[float | None, Any]]:
    """Pairs of our value and lm-eval's, for the metrics and errors of a group."""
    stock, loaded = evaluate(folder, [name]), load(folder, [name])
    rows = {}
    for task in (task.task_name for task in loaded["groups"][name].get_all_tasks()):
        values = values_of(stock, task)
        found = [aggregate(loaded["tasks"][task], values, *pair, BOOTSTRAPS) for pair in metrics_of(values)]
        rows[task] = as_lm_eval(task, [one._asdict() for one in found])
    ours, results = loaded["groups"][name].aggregate(rows), stock["results"][name]
    for key in (key for key in results if "," in key):
        yield ours[key], results[key]


def _empty_answers(folder: Path, stock: dict[str, Any]) -> list[bool]:
    [task], _ = load_tasks(TaskSpec(task="mini_generate"), [str(folder)])
    samples = [sample for sample in stock["samples"]["mini_generate"] if not sample["resps"][0][0].strip()]
    judged = judge_here(task, {sample["doc_id"]: sample["resps"] for sample in samples}).verdicts
    scores = [judged[sample["doc_id"]][sample["filter"], 0] for sample in samples]
    return [one is not None and one.score == s["exact_match"] for one, s in zip(scores, samples, strict=True)]


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
        good &= aggregates(Path(scratch) / "set-tasks")
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
