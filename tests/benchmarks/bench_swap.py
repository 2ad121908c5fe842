"""Swapped weights: every allowed architecture against new engines, time against one, ten models against lm-eval's."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from collectors.engines import Engine, ModelRef, ScoreRequest, make_engine
from collectors.engines.swapping import canary_prompts
from tests.benchmarks.bench_collection import DEMO, DTYPE, ROOT, check, collect, specs, stock
from tests.benchmarks.bench_lake import Report
from tests.benchmarks.watched import Watched
from tests.helpers.parity import TOLERANCE
from tests.helpers.swap_models import VARIANTS, build
from tests.helpers.tiny_models import tiny_models

SMOL = ROOT / ".cache/models/SmolLM2-135M-Instruct"
#: Of the demo's data, what fits the tiny models' context.
TASKS = ["mmlu_world_religions_continuation", "mmlu_high_school_biology:5", "truthfulqa_mc2"]


def ref(folder: Path, dtype: str = "float32") -> ModelRef:
    return ModelRef(folder.name, str(folder), folder.name, str(folder), dtype, max_length=2048)


def logprobs(engine: Engine, model: ModelRef) -> list[float]:
    """Mean log-probability of a token of each prompt's second half."""
    prompts = canary_prompts(1000, 700)
    asked = [ScoreRequest(p[: len(p) // 2], p[len(p) // 2 :]) for p in prompts]
    scores = engine.score(engine.load(model), asked)[1]
    return [score.logprob / len(request.continuation) for request, score in zip(asked, scores, strict=True)]


def apart(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def bench_architectures(report: Report, folder: Path, dtype: str = "float32") -> None:
    """A, B and A again in one engine; B also in a new one, and A before any swap."""
    tokenizer = tiny_models(ROOT / ".cache")["random"]
    # All before vLLM replaces classes of transformers by its own.
    folders = {v: [build(v, seed, tokenizer, folder / f"{v}-{seed}") for seed in (0, 1)] for v in VARIANTS}
    for variant, two in folders.items():
        first, second = (ref(one, dtype) for one in two)
        plain = make_engine("vllm", {"swap_weights": False})
        new = logprobs(plain, second)
        plain.close()
        live = make_engine("vllm")
        before = logprobs(live, first)
        swapped = logprobs(live, second)
        good = live.swapped
        back = logprobs(live, first)
        live.close()
        value = max(apart(new, swapped), apart(before, back)) if good else float("nan")
        detail = f"two seeds differ by {apart(before, new):.2f}" if good else "was not swapped: the canary failed"
        report.row(f"{variant} {dtype}: largest |Δ logprob| to a new engine", value, TOLERANCE, detail)


def bench_time(report: Report, name: str, models: list[ModelRef], reach: float | None) -> None:
    """Loading two models in turn, swapped against opened anew, in one warm process."""

    def cpu_seconds(engine: Engine, times: int) -> tuple[float, float]:
        found = []
        for at in range(times):
            wall, cpu = time.perf_counter(), time.process_time()
            engine.load(models[at % 2])
            found.append((time.perf_counter() - wall, time.process_time() - cpu))
        return statistics.median(w for w, _ in found), statistics.median(c for _, c in found)

    plain = make_engine("vllm", {"swap_weights": False})
    plain.load(models[1])
    new = cpu_seconds(plain, 4)
    plain.close()
    live = make_engine("vllm")
    live.load(models[1])
    started = time.perf_counter()
    live.load(models[0])
    proving = time.perf_counter() - started
    live.load(models[1])
    swap = cpu_seconds(live, 8)
    assert live.swapped
    live.close()
    detail = f"CPU {swap[1] * 1000:.0f} ms ÷ {new[1]:.2f} s, wall {swap[0] * 1000:.0f} ms ÷ {new[0]:.2f} s; "
    report.row(f"swap ÷ new engine, {name}", swap[1] / new[1], reach, f"{detail}second model {proving:.1f} s")


def bench_pipeline(report: Report, scratch: Path, count: int, limit: int) -> None:
    """collect.py with one engine and an empty cache for all models, against stock lm-eval started for each."""
    tokenizer = tiny_models(ROOT / ".cache")["random"]
    models = [build("llama-tied", seed, tokenizer, scratch / f"tiny-{seed}") for seed in range(count)]
    settings = {"datasets": str(DEMO), "max_length": 2048, "dtype": DTYPE, "limit": limit, "fleet": {"workers": 1}}
    ours, records = collect(scratch, "tiny", models=[str(m) for m in models], tasks=specs(TASKS), **settings)
    data = shutil.copytree(DEMO, scratch / "datasets")
    environment = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(data)}
    theirs, rows = Watched(), 0
    for model in models:
        arguments = ["vllm", str(model), DTYPE, str(limit), "OUT", *TASKS]
        took, samples, _ = stock(scratch, f"stock-{model.name}", arguments, **environment)
        theirs.seconds, theirs.cpu = theirs.seconds + took.seconds, theirs.cpu + took.cpu
        theirs.peak = max(theirs.peak, took.peak)
        rows += sum(check(records[model.name, task], found) for task, found in samples.items())
    shards = [pq.read_metadata(file).metadata[b"shard"] for file in scratch.glob("tiny-lake/shards/task=*/*.parquet")]
    swapped = sum(json.loads(shard)["swapped"] for shard in shards)
    detail = f"{ours} ÷ {theirs}; {rows:,} equal rows, {swapped} of {len(shards)} shards by swapped weights"
    name = f"pipeline ÷ lm_eval --model vllm per model, {count} tiny models"
    report.row(name, ours.seconds / theirs.seconds, 0.1, detail)
    report.row("  the same in CPU-seconds", ours.cpu / theirs.cpu, 0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["architectures", "time", "pipeline"], help="one part of it")
    parser.add_argument("--dtype", default="float32", help="of the architectures (default %(default)s)")
    parser.add_argument("--models", type=int, default=10, help="tiny models of the pipeline (default %(default)s)")
    parser.add_argument("--limit", type=int, default=25, help="items per task of the pipeline (default %(default)s)")
    args = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if args.only in (None, "architectures"):
            bench_architectures(report, folder, args.dtype)
        if args.only in (None, "time"):
            tokenizer = tiny_models(ROOT / ".cache")["random"]
            tiny = [ref(build("llama-tied", seed, tokenizer, folder / f"time-{seed}")) for seed in (0, 1)]
            bench_time(report, "tiny Llama, float32", tiny, 0.05)
            if SMOL.exists():
                shutil.copytree(SMOL, folder / "again")
                bench_time(
                    report, "SmolLM2-135M, bfloat16", [ref(f, "bfloat16") for f in (SMOL, folder / "again")], None
                )
        if args.only in (None, "pipeline"):
            bench_pipeline(report, folder, args.models, args.limit)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
