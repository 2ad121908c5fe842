"""Collecting against stock lm-eval: same engine, models, items and verdicts; requests, tokens, seconds."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import yaml

from tests.benchmarks import choice_tasks
from tests.benchmarks.bench_lake import Report
from tests.benchmarks.watched import Watched, watch
from tests.helpers.parity import close, compare

ROOT = Path(__file__).parents[2]
MODEL = ROOT / ".cache/models/SmolLM2-135M-Instruct"
DEMO = ROOT / "pipelines/configs/demo_data"
#: The demo's tasks: 0-shot and 5-shot, letters, texts and generated answers.
DEMO_TASKS = ["mmlu_world_religions_continuation", "mmlu_high_school_biology:5", "truthfulqa_mc2", "gsm8k"]
DTYPE = "float32"
#: Items of the task whose requests are built: of fewer the first request's share is most.
BUILT = 2000
SHARDS = "shards/task=*/*.parquet"

STOCK_BUILD = """
import hashlib, json, sys, time
from lm_eval.tasks import TaskManager
(task,) = TaskManager(include_path=sys.argv[1], include_defaults=False).load([sys.argv[2]])["tasks"].values()
began = time.process_time()
task.set_fewshot_seed(seed=1234)
task.build_all_requests()
seconds = time.process_time() - began
hashes = [hashlib.sha256(repr(instance.args).encode()).hexdigest() for instance in task.instances]
print(json.dumps({"seconds": seconds, "hashes": hashes}))
"""
OUR_BUILD = """
import hashlib, json, sys, time
from collectors.specs import TaskSpec
from collectors.engines.stub import ByteTokenizer
from collectors.harness.encoding import Encoder
from collectors.harness.prepared import RequestStore, code_fingerprint
from collectors.harness.loading import load_tasks
(task,), _ = load_tasks(TaskSpec(task=sys.argv[2]), [sys.argv[1]])
if sys.argv[3] == "index":  # of lm-eval's tasks, once per machine
    sys.exit(print("{}"))
encoder, items = Encoder(ByteTokenizer()), len(task.docs)
tokenizer = code_fingerprint(encoder.tokenizer)
began, first = time.process_time(), 0.0
if sys.argv[3] == "first":
    built = encoder.build(task, items)
    first = time.process_time() - began
store = RequestStore()
began = time.process_time()
instances, encoded = store.get(task, encoder, tokenizer, items).items(range(items))
seconds = time.process_time() - began
hashes = [hashlib.sha256(repr(i.args).encode()).hexdigest() for group in instances.values() for i in group]
print(json.dumps({"seconds": first or seconds, "hashes": hashes, "built": store.built}))
"""


def script(text: str, *arguments: str, cache: Path) -> Any:
    """What a Python script prints last, as JSON; run in a process of its own."""
    command = [sys.executable, "-c", text, *arguments]
    environment = {"ROUTERLAKE_CACHE": str(cache), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def bench_building(report: Report, scratch: Path, items: int) -> None:
    """CPU of 5-shot multiple-choice requests: rendered for the first time, and read by every later model and worker."""
    folder, task = choice_tasks.write_tasks(scratch / "building", items), "bench_letters_shots"
    stock = script(STOCK_BUILD, str(folder), task, cache=scratch)
    script(OUR_BUILD, str(folder), task, "index", cache=scratch)
    first = script(OUR_BUILD, str(folder), task, "first", cache=scratch)
    kept = script(OUR_BUILD, str(folder), task, "again", cache=scratch)
    assert stock["hashes"] == first["hashes"] == kept["hashes"], "other arguments than lm-eval's"
    assert (first["built"], kept["built"]) == (1, 0)
    for name, ours in (("rendered once", first), ("kept, with token ids", kept)):
        detail = f"{ours['seconds'] / items * 1e6:.0f} ÷ {stock['seconds'] / items * 1e6:.0f} µs an item"
        report.row(f"building 5-shot choices ÷ stock: {name}", ours["seconds"] / stock["seconds"], 1 / 40, detail)


def collect(work: Path, name: str, **settings: Any) -> tuple[Watched, dict[tuple[str, str], pa.Table]]:
    """Our pipeline as a person runs it; records by model and task."""
    lake, config = work / f"{name}-lake", work / f"{name}.yaml"
    config.write_text(yaml.safe_dump({"lake": str(lake), **settings}), encoding="utf-8")
    command = [sys.executable, str(ROOT / "pipelines/collect.py"), "--config", str(config)]
    took = watch(command, work / f"{name}.log", ROUTERLAKE_CACHE=str(work / "cache"), PYTHONPATH=str(ROOT))
    table = pa.concat_tables(pq.ParquetFile(f).read() for f in sorted(lake.glob(SHARDS)))
    keys = {(row["model"], row["task"]) for row in table.select(["model", "task"]).to_pylist()}
    fields = pa.compute.field("model"), pa.compute.field("task")
    return took, {key: table.filter((fields[0] == key[0]) & (fields[1] == key[1])) for key in keys}


def stock(work: Path, name: str, arguments: list[str], **environment: str) -> tuple[Watched, Any, Any]:
    """What it took, the rows by task, and its own facts; `arguments` of stock.py with OUT for the file to write."""
    out = work / f"{name}.json"
    given = [str(out) if argument == "OUT" else argument for argument in arguments]
    command = [sys.executable, str(ROOT / "tests/benchmarks/stock.py"), *given]
    took = watch(command, work / f"{name}.log", PYTHONPATH=str(ROOT), **environment)
    return took, json.loads(out.read_text()), json.loads(Path(f"{out}.facts").read_text())


def check(records: pa.Table, samples: list[dict[str, Any]]) -> int:
    """Rows compared. Raises AssertionError unless every verdict, metric and greedy flag is lm-eval's."""
    counts, faults = compare(records, samples)
    assert not faults, "\n".join(faults[:5])
    return counts["rows"]


def specs(tasks: list[str]) -> list[dict[str, Any]]:
    named = (task.partition(":") for task in tasks)
    return [{"task": name, **({"num_fewshot": int(shots)} if shots else {})} for name, _, shots in named]


def bench_stub(report: Report, scratch: Path, items: int, models: int = 10) -> None:
    """The whole pipeline beside an engine that costs nothing: 10 models × 5 tasks, one lm_eval process a model."""
    names, tasks = [f"stub-model-{i}" for i in range(models)], list(choice_tasks.TASKS)
    folder = choice_tasks.write_tasks(scratch / "stub-tasks", items)
    ours, records = collect(
        scratch, "stub", models=names, tasks=tasks, include_tasks=[str(folder)], engine={"name": "stub"}
    )
    theirs, rows, evaluating = Watched(), 0, 0.0
    for name in names:
        arguments = ["--include", str(folder), "stub", name, "none", str(items), "OUT", *tasks]
        took, samples, facts = stock(scratch, name, arguments)
        theirs.seconds, theirs.cpu = theirs.seconds + took.seconds, theirs.cpu + took.cpu
        theirs.peak = max(theirs.peak, took.peak)
        evaluating += sum(fact["seconds"] for task, fact in facts.items() if task != "loading")
        rows += sum(check(records[name, task], samples[task]) for task in tasks)
    detail = f"{ours} ÷ {theirs}; {rows:,} equal rows"
    report.row("pipeline ÷ stock, stub engine, 10 models × 5 tasks", ours.seconds / theirs.seconds, 0.25, detail)
    report.row("  the same in CPU-seconds", ours.cpu / theirs.cpu, 0.25)
    report.row("  ours whole ÷ stock's evaluating alone", ours.seconds / evaluating, None, "no imports, no task index")


def tokens(records: pa.Table) -> tuple[int, int]:
    """Tokens of the engine, and of those the cached ones, of all items."""
    once = {row["item"]: row for row in records.to_pylist()}.values()
    return sum(row["engine_tokens"] for row in once), sum(row["cached_tokens"] for row in once)


def bench_tokens(report: Report, scratch: Path, limit: int) -> None:
    """Tokens that the real engine takes in for choices of one token; of few-shot ones, those that it computes."""
    folder = choice_tasks.write_tasks(scratch / "token-tasks", limit)
    tasks = ["bench_letters", "bench_ten", "bench_letters_shots"]
    shared = {"include_tasks": [str(folder)], "max_length": 2048, "dtype": DTYPE}
    _, records = collect(scratch, "tokens", models=[str(MODEL)], tasks=tasks, engine={"name": "vllm"}, **shared)
    arguments = ["--include", str(folder), "vllm", str(MODEL), DTYPE, str(limit), "OUT", *tasks]
    _, samples, facts = stock(scratch, "stock-tokens", arguments)
    for task, reach in zip(tasks, (0.30, 0.12, 0.10), strict=True):
        rows = check(records[MODEL.name, task], samples[task])
        engine, cached = tokens(records[MODEL.name, task])
        theirs = facts[task]["engine"] - facts[task]["cached"]
        detail = f"{engine:,} of which {cached:,} cached ÷ {theirs:,}; {rows} equal rows"
        spent = engine - cached if task.endswith("shots") else engine
        report.row(f"engine tokens ÷ stock's: {task}", spent / theirs, reach, detail)


def bench_real(report: Report, scratch: Path, limit: int) -> None:
    """The demo's four tasks by a real model: our pipeline with an empty cache against `lm_eval --model vllm`."""
    data = scratch / "datasets"
    shutil.copytree(DEMO, data)
    shared = {"datasets": str(DEMO), "max_length": 2048, "dtype": DTYPE, "limit": limit}
    ours, records = collect(
        scratch, "real", models=[str(MODEL)], tasks=specs(DEMO_TASKS), engine={"name": "vllm"}, **shared
    )
    arguments = ["vllm", str(MODEL), DTYPE, str(limit), "OUT", *DEMO_TASKS]
    environment = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(data)}
    theirs, samples, facts = stock(scratch, "stock-real", arguments, **environment)
    rows = sum(check(records[MODEL.name, task], found) for task, found in samples.items())
    detail = f"{ours} ÷ {theirs}; {rows} equal rows"
    report.row("pipeline ÷ lm_eval --model vllm, SmolLM2-135M, 4 tasks", ours.seconds / theirs.seconds, 0.5, detail)
    report.row("  the same in CPU-seconds", ours.cpu / theirs.cpu, 0.5)
    facts_of = [json.loads(pq.read_metadata(f).metadata[b"shard"]) for f in (scratch / "real-lake").glob(SHARDS)]
    spent = {stage: sum(fact["stages"].get(stage, 0.0) for fact in facts_of) for stage in ("idle", "engine")}
    detail = f"{spent['idle']:.1f} s ÷ {sum(spent.values()):.1f} s in {len(facts_of)} shards"
    report.row("  engine idle ÷ run after start-up", spent["idle"] / sum(spent.values()), 0.05, detail)
    for name in DEMO_TASKS:
        task = name.partition(":")[0]
        engine, cached = tokens(records[MODEL.name, task])
        shards = [pq.read_metadata(f) for f in (scratch / "real-lake").glob(f"shards/task={task}/*.parquet")]
        seconds = sum(json.loads(shard.metadata[b"shard"])["engine_seconds"] for shard in shards)
        spent = facts[task]["engine"] - facts[task]["cached"]
        detail = f"{engine - cached:,} ÷ {spent:,} tokens; {seconds:.1f} ÷ {facts[task]['seconds']:.1f} s"
        report.row(f"  tokens computed ÷ stock's: {name}", (engine - cached) / spent, None, detail)


def bench_flips(report: Report, scratch: Path, limit: int) -> None:
    """In bfloat16: verdicts that differ from lm-eval's, and from our own with other batches and no prefix cache."""
    data = scratch / "flips-datasets"
    shutil.copytree(DEMO, data)
    shared = {"datasets": str(DEMO), "max_length": 2048, "dtype": "bfloat16", "limit": limit}
    ways: dict[str, dict[str, Any]] = {"ours": {}, "batches": {"max_num_seqs": 4, "enable_prefix_caching": False}}
    verdicts = {}
    for name, options in ways.items():
        engine = {"name": "vllm", "options": options}
        _, records = collect(
            scratch, f"flips-{name}", models=[str(MODEL)], tasks=specs(DEMO_TASKS), engine=engine, **shared
        )
        rows = pa.concat_tables(records.values()).to_pylist()
        verdicts[name] = {(r["task"], r["item"], r["filter"]): json.loads(r["metrics"] or "{}") for r in rows}
    arguments = ["vllm", str(MODEL), "bfloat16", str(limit), "OUT", *DEMO_TASKS]
    environment = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(data)}
    _, samples, _ = stock(scratch, "flips-stock", arguments, **environment)
    verdicts["lm-eval's"] = {
        (task, row["doc_id"], row["filter"]): {name: row[name] for name in row["metrics"]}
        for task, found in samples.items()
        for row in found
    }
    for name in ("lm-eval's", "batches"):
        assert verdicts[name].keys() == verdicts["ours"].keys()
        for task in samples:
            keys = [key for key in verdicts[name] if key[0] == task]
            # a probability (mc2) is not a verdict: it changes with every digit
            apart = [key for key in keys if _verdict(verdicts[name][key]) != _verdict(verdicts["ours"][key])]
            moved = [
                key
                for key in keys
                if not all(close(verdicts[name][key].get(m), v, 0.02) for m, v in verdicts["ours"][key].items())
            ]
            detail = f"{len(apart)} of {len(keys)} rows, {len(moved)} with a metric more than 0.02 apart"
            what = "other batches, no prefix cache" if name == "batches" else name
            report.row(f"bfloat16 flips, {what}: {task}", len(apart) / len(keys), None, detail)


def _verdict(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics that are right or wrong."""
    return {name: bool(value) for name, value in metrics.items() if value in (0, 1)}


def bench_reading(report: Report, length: int = 700) -> None:
    """CPU of turning what vLLM's engine core hands over into a choice's score: by stock's path and by ours."""
    import torch
    from vllm.v1.engine.logprobs import LogprobsProcessor
    from vllm.v1.outputs import LogprobsLists, LogprobsTensors

    from collectors.engines.vllm import _choosing, _chosen
    from tests.benchmarks.stock import version_of_vllm

    version_of_vllm()
    from lm_eval.models.vllm_causallms import VLLM
    from vllm import SamplingParams

    class Given:
        """As much of a request and of an output as the two paths look at."""

        def __init__(self, params: Any) -> None:
            self.sampling_params = params

    prompt, choices = list(range(length)), [7, 8, 9, 10]
    rows = length - 1
    whole = LogprobsTensors(
        torch.randint(0, 49152, (rows, 2), dtype=torch.int32),
        torch.randn(rows, 2),
        torch.ones(rows, dtype=torch.int32),
    )
    whole.logprob_token_ids[:, 0] = torch.tensor(prompt[1:])
    last = LogprobsLists(
        torch.tensor([[3, *choices]]).numpy(), torch.randn(1, 5).numpy(), torch.ones(1, dtype=torch.int32).numpy(), None
    )
    stock_params = SamplingParams(temperature=0, prompt_logprobs=1, max_tokens=1, detokenize=False)
    our_params = _choosing(choices)

    def by_stock() -> None:
        processor = LogprobsProcessor.from_new_request(None, Given(stock_params))  # type: ignore[arg-type]
        processor._update_prompt_logprobs(whole)
        VLLM._parse_logprobs(prompt, processor, length - 1)

    def by_us() -> None:
        processor = LogprobsProcessor.from_new_request(None, Given(our_params))  # type: ignore[arg-type]
        processor._update_sample_logprobs(last)
        _chosen([(choices, Answered(processor.logprobs))])

    theirs = min(timeit.repeat(by_stock, number=20, repeat=7)) / 20
    ours = min(timeit.repeat(by_us, number=2000, repeat=7)) / 2000 / len(choices)
    detail = f"{ours * 1e6:.2f} ÷ {theirs * 1e6:.0f} µs"
    report.row(f"reading a choice's score ÷ prompt logprobs, {length} tokens", ours / theirs, 1 / 100, detail)


class Answered:
    """A RequestOutput of one generated token."""

    def __init__(self, logprobs: Any) -> None:
        self.logprobs, self.outputs, self.token_ids = logprobs, [self], [3]
        self.prompt_token_ids, self.num_cached_tokens, self.metrics = [0], 0, self
        self.scheduled_ts = self.first_token_ts = self.last_token_ts = 1.0


BENCHES = ("building", "reading", "tokens", "stub", "real", "flips")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=BENCHES)
    parser.add_argument("--items", type=int, default=200, help="items of each task where no model answers (200)")
    parser.add_argument(
        "--limit", type=int, default=25, help="items of each task where one does (25; 10 where only tokens are counted)"
    )
    parser.add_argument("--work", type=Path, help="folder that keeps logs and lakes; must be new")
    args = parser.parse_args()
    report, started = Report(), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = args.work or Path(temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        if "building" in args.only:
            bench_building(report, scratch, BUILT)
        if "reading" in args.only:
            bench_reading(report)
        if "tokens" in args.only:
            bench_tokens(report, scratch, min(args.limit, 10))  # a ratio of counts: the same for more
        if "stub" in args.only:
            bench_stub(report, scratch, args.items)
        if "real" in args.only:
            bench_real(report, scratch, args.limit)
        if "flips" in args.only:
            bench_flips(report, scratch, args.limit)
    print(f"{time.monotonic() - started:.0f} s")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
