"""Endpoints and thoughts: verdicts of a served model, faults, kills, speed, budgets of thinking. A row a figure.

ITEMS is the number of items with each fault (10,000), MODELS names folders of models to serve; the tiny one otherwise.
A row is a function in ROWS: it gets the report and an empty folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collectors.engines import GenerateRequest, ModelRef, make_engine
from collectors.engines.endpoint import EndpointEngine
from collectors.harness.efforts import efforts_of
from collectors.specs import TaskSpec, Thinking
from schemas.failures import RouterlakeError
from tests.benchmarks.bench_lake import ROOT, Report
from tests.helpers.fake_endpoint import LASTING, MODEL, PASSING, Fake, Server, answer, tokens
from tests.helpers.mini_tasks import write_tasks
from tests.helpers.served_models import SERVED, WHOLE_TEXTS, differing, endpoint, rows_of, vllm_server
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


def hosted(url: str, source: str = MODEL, **settings: Any) -> tuple[EndpointEngine, str]:
    return endpoint(url, source, **{"max_concurrency": AT_ONCE, **settings})


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
            engine, key = hosted(url, SERVED, tokenizer=str(model), extra_body=WHOLE_TEXTS)
            theirs = {name: rows_of(engine, key, folder, name) for name in TASKS}
            engine.close()
        total = sum(map(len, ours.values()))
        unequal = sum(len(differing(ours[name], theirs[name])) for name in TASKS)
        what = f"rows of {model.name} served, equal to an engine's"
        report.row(what, 1 - unequal / total, 1, f"{total} rows", more=True)


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
    every = max(7, ITEMS // 200)  # a reply that hangs costs its time limit, and each fault halves the concurrency
    for fault in faults:
        os.environ["ROUTERLAKE_CACHE"] = str(folder / fault)
        started = time.perf_counter()
        with Server(Fake(fault, every=every)) as url:
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
        print(f"{fault}: {len(answers):,} answers in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    detail = f"{len(faults)} faults, {ITEMS:,} items each, one reply of {every} faulty"
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
    """lm-eval has no budgets: its run without thoughts is that of 0, and its other one that of a budget for all."""
    from tests.collectors.harness.test_thinking_parity import theirs, write

    model = thinking_model(CACHE)
    write(folder, "Question:")
    engine = make_engine("hf")
    key = engine.load(ModelRef("m", str(model), "r", str(model), "float32"))
    given = Thinking(thinking_tokens=[0, 64, 256])
    cells = {}
    for effort in efforts_of(given, TaskSpec(task="reason"), generates=True, has_template=True):
        cells[effort.thinking_tokens] = rows_of(engine, key, folder, "reason", effort, chat_template=True)
    engine.close()
    counted = all(
        row["reasoning_tokens"] is not None and row["reasoning_tokens"] < row["completion_tokens"]
        for rows in cells.values()
        for row in rows
    )
    scores = {budget: sum(row["score"] for row in rows) / len(rows) for budget, rows in cells.items()}
    detail = f"{scores}"
    report.row("budgets 0, 64, 256 of a model that thinks: cells counted", len(cells) * counted, 3, detail, more=True)
    samples = {thinks: theirs(model, folder, enable_thinking=thinks) for thinks in (False, True)}
    equal = total = 0
    for budget, rows in cells.items():
        for row, sample in zip(rows, samples[bool(budget)], strict=True):
            total += 1
            equal += (row["filtered"], row["score"]) == (json.dumps(sample["filtered_resps"]), sample["exact_match"])
    report.row("their rows equal lm-eval's", equal / total, 1, f"{total} rows", more=True)


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
