"""Judging: reference solutions and hostile answers in the sandbox, checks of a lake, answers judged again per second.

python -m tests.benchmarks.bench_judge --answers 1000000 --data ../shared/data/hf_datasets --lake demo-lake
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.harness.documents import plain
from collectors.harness.judge import judge_here
from collectors.harness.loading import load_tasks, use_datasets
from collectors.judging.judges import Judges
from collectors.lake import layout
from collectors.lake.store import Lake
from collectors.sandbox.bubblewrap import Limits, Sandboxes, refusal
from collectors.specs import TaskSpec
from collectors.verdicts.answers import Source
from collectors.verdicts.checking import Checked, check
from collectors.verdicts.judging import Choice, Tasks
from collectors.verdicts.spreading import in_processes, parts_of
from schemas.identity import ShardName
from schemas.records import RECORD
from tests.helpers.hostile_answers import ESCAPES, SPENDERS
from tests.helpers.judged_lakes import collected_lake, rewrite, shards_of
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.runs import DATA as DEMO
from tests.helpers.runs import TEXT

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "hf_datasets"
#: What is measured, and what of it needs a sandbox.
_SANDBOXED = ("hostile", "starts", "solutions")
ROWS = (*_SANDBOXED, "checks", "own_process", "again")
#: Items of the made-up task, each answered by as many models as make the number of answers.
ITEMS = 1000


class Table:
    """What was measured, beside what is to be reached."""

    def __init__(self) -> None:
        self.short = 0

    def row(self, what: str, reach: str, measured: str, *, ok: bool | None = None) -> None:
        self.short += ok is False
        mark = "" if ok is None else "ok" if ok else "SHORT"
        print(f"{what:<64} {reach:<22} {measured:<34} {mark}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="what to measure (default: all)")
    parser.add_argument("--data", type=Path, default=DATA, help="a datasets cache with HumanEval and MBPP")
    parser.add_argument("--lake", type=Path, help="a lake to check beside the stub's, such as demo-lake")
    args = parser.parse_args()
    table = Table()
    if why := refusal():
        table.row("sandbox", "", f"skipped: {why}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows: dict[str, Callable[[], None]] = {
            "hostile": lambda: hostile(table),
            "starts": lambda: starts(table),
            "solutions": lambda: solutions(table, args.data),
            "checks": lambda: checks(table, folder, args.lake),
            "own_process": lambda: own_process(table),
            "again": lambda: again(table, folder, args.answers),
        }
        for row, measure in rows.items():
            if row in args.rows and not (why and row in _SANDBOXED):
                measure()
    return 1 if table.short else 0


def hostile(table: Table) -> None:
    escapes, harmed, started = [], 0, time.monotonic()
    limits = Limits(cpu_seconds=1, wall_seconds=4)
    sandboxes, slowest = Sandboxes(limits), 0.0
    with tempfile.TemporaryDirectory() as outside:
        os.chmod(outside, 0o777)
        Path(outside, "secret").write_text("a secret")
        words = {"PLACE": outside, "PID": str(os.getpid()), "PORT": "9"}
        for name, code in (ESCAPES | SPENDERS).items():
            for word, value in words.items():
                code = code.replace(word, value)
            before = time.monotonic()
            if sandboxes.run(code).passed:
                escapes.append(name)
            slowest = max(slowest, time.monotonic() - before)
            harmed += not sandboxes.run("assert 1 + 1 == 2").passed
        if sorted(os.listdir(outside)) != ["secret"]:
            escapes.append("a file outside")
    sandboxes.close()
    count = len(ESCAPES | SPENDERS)
    seconds = time.monotonic() - started
    table.row(
        f"hostile answers ({count} kinds, {seconds:.0f} s)",
        "0 escapes",
        f"{len(escapes)} {escapes or ''}",
        ok=not escapes,
    )
    table.row("the answer after a hostile one", "unharmed", f"{harmed} harmed", ok=not harmed)
    table.row("slowest hostile answer, limit 4 s", "within its limits", f"{slowest:.1f} s", ok=slowest < 9)


def starts(table: Table) -> None:
    """Without the sandbox that waits: what one costs from its start to its end."""
    times = []
    for _ in range(20):
        before = time.monotonic()
        sandboxes = Sandboxes()
        process = sandboxes._start()
        sandboxes._run(process, "x = 1")
        times.append(time.monotonic() - before)
        process.kill()
        process.wait()
    middle = 1000 * statistics.median(times)
    table.row("sandbox, start to end (median of 20)", "<= 30 ms", f"{middle:.0f} ms", ok=middle <= 30)


def solutions(table: Table, data: Path) -> None:
    if not data.is_dir():
        table.row("reference solutions", "all", f"skipped: no {data}")
        return
    use_datasets(str(data))
    for name, key in (("humaneval", "canonical_solution"), ("mbpp", "code")):
        (task,), _ = load_tasks(TaskSpec(task=name, code="sandbox"), [])
        judges = Judges([])
        judges.plan(task, name)
        judges.judge(task, {0: [["x"]]})  # the process has started
        answers = {item: [[doc[key]]] for item, doc in enumerate(task.docs)}
        before = time.monotonic()
        judged = judges.judge(task, answers)
        seconds = time.monotonic() - before
        judges.close()
        passed = sum(v is not None and v.score == 1 for of in judged.verdicts.values() for v in of.values())
        # lm-eval's mbpp leaves out the set-up of one item's tests, so nothing can pass them.
        reach = len(answers) - sum(bool(doc.get("test_setup_code")) for doc in task.docs)
        table.row(f"reference solutions of {name}", f"{reach} of {len(answers)}", f"{passed}", ok=passed == reach)
        table.row(f"answers judged per second, {name}", "report", f"{len(answers) / seconds:.1f}")


def checks(table: Table, folder: Path, given: Path | None) -> None:
    own = collected_lake(folder / "lake")
    with Tasks() as tasks:

        def checked(of: Lake) -> Checked:
            source = Source(of)
            return check(source, source.batches(), tasks)

        for what, lake in {"the stub's lake": own, **({str(given): Lake(str(given))} if given else {})}.items():
            found = checked(lake)
            measured = f"{found.differing} of {found.rows:,} differ, {len(found.failed)} tasks failed"
            table.row(f"judge --check of {what}", "100 % equal", measured, ok=found.is_equal)
        copy = folder / "tampered"
        for what, tamper in _TAMPERING.items():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(own.root, copy)
            tamper(Lake(str(copy)))
            named = checked(Lake(str(copy)))
            table.row(
                f"one tampered {what}",
                "found",
                f"{named.differing} named, {len(named.failed)} tasks",
                ok=not named.is_equal,
            )


def _answer(lake: Lake) -> None:
    rewrite(lake, shards_of(lake, TEXT)[0], responses=["It is 7.\n#### 7"])


def _score(lake: Lake) -> None:
    name = shards_of(lake, TEXT)[0]
    rewrite(lake, name, score=1 - pq.read_table(Path(lake.root, name))["score"][0].as_py())


def _task(lake: Lake) -> None:
    [name] = [name for name in lake.names("items") if f"task={TEXT}/" in name]
    doc = json.loads(pq.read_table(Path(lake.root, name))["doc"][0].as_py())
    rewrite(lake, name, doc=json.dumps({**doc, "answer": "#### 8"}))


_TAMPERING: dict[str, Callable[[Lake], None]] = {"answer": _answer, "score": _score, "task": _task}


def own_process(table: Table) -> None:
    """gsm8k's answers in the judging process against the same in this process."""
    use_datasets(str(DEMO))
    (task,), _ = load_tasks(TaskSpec(task=TEXT), [])
    docs = task.docs
    # No two answers are alike, so that none is judged by memory.
    numbered = {number: [[f"So {number}.\n#### {number}"]] for number in range(5000)}
    items = {number: number % len(docs) for number in numbered}
    judges = Judges([])
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(plain(doc)) + "\n" for doc in task.docs)
        file.flush()
        judges.plan_stored(task, file.name)
        judges.judge(task, {0: [["x"]]}, {0: 0})
        rates = {"own": [], "here": []}  # type: dict[str, list[float]]
        for _ in range(3):
            for name, judge in (("own", judges.judge), ("here", judge_here)):
                before = time.monotonic()
                judge(task, numbered, items)
                rates[name].append(len(numbered) / (time.monotonic() - before))
    judges.close()
    own, here = max(rates["own"]), max(rates["here"])
    measured = f"{own / here:.2f} ({own:,.0f} against {here:,.0f} a second)"
    table.row("judge in its own process / in-process, gsm8k", ">= 0.8", measured, ok=own / here >= 0.8)


def again(table: Table, folder: Path, answers: int) -> None:
    lake, include = _made_up(folder, answers)
    choice = Choice("again", include=(str(include),))
    before, used = time.monotonic(), _cpu_seconds()
    report = in_processes(parts_of(lake, "collected", None, choice), 2)
    seconds, used = time.monotonic() - before, _cpu_seconds() - used
    measured = f"{seconds:.0f} s ({report.judged / seconds:,.0f} a second), {used:.0f} of CPU"
    reach = f"<= {120 * answers / 1e6:.0f} s on 2 cores"
    is_whole = report.judged == answers // ITEMS * ITEMS and not report.unjudged
    table.row(
        f"{answers:,} answers of exact match judged again",
        reach,
        measured,
        ok=is_whole and seconds <= 120 * answers / 1e6,
    )
    before = time.monotonic()
    report = in_processes(parts_of(lake, "collected", None, choice), 2)
    table.row(
        "the same once more", "0 judged", f"{report.judged} in {time.monotonic() - before:.0f} s", ok=not report.judged
    )


def _cpu_seconds() -> float:
    """Of this process and of those that it has waited for: what a run would take on a core of its own."""
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in times)


def _made_up(folder: Path, answers: int) -> tuple[Lake, Path]:
    """A lake of made-up answers to a task with gsm8k's filter, half of them right."""
    include = folder / "tasks"
    include.mkdir()
    docs = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(ITEMS)]
    (include / "sums.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    (include / "sums.yaml").write_text(_SUMS.replace("HERE", str(include)))
    (task,), failed = load_tasks(TaskSpec(task="sums"), [str(include)])
    assert not failed
    builder = LakeBuilder(folder / "made")
    digest = task.settings.items_digest
    cells = [
        BuiltCell(f"m{number}", "sums", items_digest=digest, metric="exact_match", filter="number", items=ITEMS)
        for number in range(answers // ITEMS)
    ]
    builder.run(*cells)
    builder.lake.create_table(layout.items_name("sums", digest), task.item_table())
    for number, cell in enumerate(cells):
        rows = list(_rows(cell, task.hashes, number))
        table = pa.Table.from_pylist(rows, schema=RECORD)
        builder.lake.create_table(layout.shard_name("sums", ShardName(cell.cell_id, 0, 0, ITEMS - 1)), table)
    return builder.lake, include


def _rows(cell: BuiltCell, hashes: list[str], number: int) -> Iterator[dict[str, Any]]:
    for item in range(ITEMS):
        is_right = (item + number) % 2
        text = f"Twice {item}, so we get\n#### {2 * item if is_right else 7 * item + number + 1}"
        yield {**cell.record(item, score=float(is_right)), "item_hash": hashes[item], "responses": [text]}


_SUMS = r"""
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: HERE/sums.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["Q:"]}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}]
filter_list:
- name: number
  filter:
  - {function: regex, regex_pattern: "#### (\\-?[0-9\\.\\,]+)"}
  - {function: take_first}
"""

if __name__ == "__main__":
    sys.exit(main())
