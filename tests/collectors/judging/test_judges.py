"""A judge in a process of its own costs one item at most, reaches nothing, and judges as it does in this process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from collectors.harness.judge import Judged, Verdict, judge_here
from collectors.harness.tasks import BoundTask
from collectors.judging import process
from collectors.judging.judges import Judges
from collectors.judging.process import JudgingProcess
from schemas.failures import JUDGE_DIED, JUDGE_TIMEOUT, TaskError
from tests.helpers.asked import bind
from tests.helpers.judged_tasks import ITEMS, bound, write_task
from tests.helpers.mini_tasks import TASKS as MINI
from tests.helpers.odd_tasks import write_odd_tasks
from tests.helpers.thorough import long_only

ANSWERS = {item: [[f"answer {item}"]] for item in range(ITEMS)}
RIGHT = "    return {'exact_match': 1.0}\n"


def judged(task: BoundTask, folder: Path, seconds: int = 2, wall: float = 60.0) -> dict[str, object]:
    """The reply of a judging process that runs here, so that its limits can be short."""
    judges = Judges([str(folder)])
    judges.plan(task, task.name)
    request = {"task": judges._planned[task.settings.prompting], "responses": ANSWERS}
    return answered(JudgingProcess(seconds, wall), request)


def answered(process: JudgingProcess, request: dict[str, object]) -> dict[str, object]:
    """Verdicts and end of the reply together."""
    found: dict[int, bytes] = {}
    reply = process.answer(request, found.update)
    return {"verdicts": [(item, json.loads(rows)) for item, rows in found.items()], **reply}


def scores(reply: dict[str, object]) -> dict[int, float | None]:
    return {item: rows[0][2] and rows[0][2][0] for item, rows in reply["verdicts"]}  # type: ignore[attr-defined]


def code_of(item_two: str, rest: str = RIGHT) -> str:
    return f"def process_results(doc, results):\n    if doc['n'] == 2:\n        {item_two}\n{rest}"


@pytest.fixture
def judges(tmp_path: Path) -> Iterator[Judges]:
    made = Judges([str(tmp_path)])
    yield made
    made.close()


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("item_two", "kind"),
    [
        ("9 ** 9 ** 9 ** 2", JUDGE_TIMEOUT),  # one step of the interpreter, which hears no signal
        ("re.match('(a+)+b', 'a' * 40)", JUDGE_TIMEOUT),
        ("os._exit(3)", JUDGE_DIED),
        ("os.kill(os.getpid(), signal.SIGSEGV)", JUDGE_DIED),
    ],
)
def test_judge_that_does_not_come_back_costs_one_item(tmp_path: Path, item_two: str, kind: str) -> None:
    task = bound(write_task(tmp_path, code_of(item_two)))
    # What dies needs no short limit, and a crash may take seconds of a busy machine.
    reply = judged(task, tmp_path, seconds=1 if kind == JUDGE_TIMEOUT else 30)
    assert reply["failures"] == [(2, kind)]
    assert scores(reply) == {0: 1.0, 1: 1.0, 3: 1.0}


def test_judge_that_waits_for_ever_costs_one_item(tmp_path: Path) -> None:
    reply = judged(bound(write_task(tmp_path, code_of("time.sleep(3600)"))), tmp_path, wall=1.0)
    assert reply["failures"] == [(2, JUDGE_TIMEOUT)]
    assert scores(reply) == {0: 1.0, 1: 1.0, 3: 1.0}


@long_only
def test_filter_that_hangs_costs_the_item_that_it_hangs_at(tmp_path: Path) -> None:
    code = """
def slow(resps, docs):
    if any(doc["n"] == 2 for doc in docs):
        9 ** 9 ** 9 ** 2
    return resps
"""
    folder = write_task(tmp_path, code)
    text = (folder / "judged.yaml").read_text()
    steps = "[{function: custom, filter_fn: !function judged_code.slow}, {function: take_first}]"
    (folder / "judged.yaml").write_text(text + f"filter_list: [{{name: none, filter: {steps}}}]\n")
    reply = judged(bound(folder), tmp_path, seconds=1)
    assert reply["failures"] == [(2, JUDGE_TIMEOUT)]
    assert set(scores(reply)) == {0, 1, 3}


@long_only
def test_verdict_does_not_depend_on_how_busy_the_machine_is(tmp_path: Path) -> None:
    """lm-eval's judges of maths set an alarm of the wall clock, and take an answer for wrong when it rings."""
    code = """
def ring(*_):
    raise TimeoutError
def process_results(doc, results):
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(1)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        time.sleep(1.2)
        return {"exact_match": 1.0}
    except TimeoutError:
        return {"exact_match": 0.0}
    finally:
        signal.alarm(0)
"""
    folder = write_task(tmp_path, code)
    task = bound(folder)
    judges = Judges([str(folder)])
    judges.plan(task, task.name)
    try:
        found = judges.judge(task, {0: [["x"]]})
    finally:
        judges.close()
    assert found.verdicts[0]["none", 0].score == 1.0  # type: ignore[union-attr]


@pytest.mark.fast
@pytest.mark.parametrize(
    "step",
    [
        "__import__('subp' + 'rocess').run(['true'])",
        "getattr(__import__('o' + 's'), 'sys' + 'tem')('true')",
        "open('MARK', 'w')",
        "os.remove('KEPT')",
        "__import__('sympy').simplify('open(\"MARK\", \"w\")')",
    ],
)
def test_judging_that_goes_out_of_bounds_refuses_the_task(tmp_path: Path, step: str) -> None:
    kept, mark = tmp_path / "kept", tmp_path / "mark"
    kept.touch()
    # The search of the task's code cannot see what a document names.
    code = f"def process_results(doc, results):\n    vars(builtins)[doc['name']](doc['step'])\n{RIGHT}"
    folder = write_task(tmp_path, code)
    step = step.replace("MARK", str(mark)).replace("KEPT", str(kept))
    task = bound(folder)
    task.docs[0] |= {"name": "eval", "step": step}
    running = JudgingProcess(5)
    running.tasks = {"{}": task}
    reply = running.answer({"task": {}, "responses": {0: [["x"]]}})
    kind, message = reply["error"]
    assert kind == "unsafe_code"
    assert "out of bounds" in message
    assert (kept.exists(), mark.exists()) == (True, False)


@pytest.mark.fast
def test_metric_that_goes_out_of_bounds_costs_its_own_value_alone(tmp_path: Path) -> None:
    code = f"def process_results(doc, results):\n{RIGHT}\ndef opened(values):\n    open('{tmp_path}/mark', 'w')\n"
    other = {"metric": "other", "aggregation": "!function judged_code.opened"}
    folder = write_task(tmp_path, code, metric_list=[{"metric": "exact_match"}, other])
    running = JudgingProcess(5)
    running.tasks = {"{}": bound(folder)}
    values = {"none": ['{"exact_match": 1.0, "other": 1.0}', '{"exact_match": 0.0, "other": 1.0}']}
    right, wrong = running.answer({"task": {}, "values": values, "bootstraps": 10})["aggregates"]
    assert right[0] == "exact_match"
    assert 0.5 in right
    assert wrong[0] == "other"
    assert "out of bounds" in wrong[-1]
    assert not (tmp_path / "mark").exists()


def test_judge_sees_no_secret_no_network_and_no_other_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judges: Judges
) -> None:
    code = """
def process_results(doc, results):
    try:
        socket.create_connection(("127.0.0.1", 9), 1)
    except OSError as error:
        reached = "no network" in str(error)
    with open("scratch", "w") as file:
        file.write("x")
    names = sorted(name for name in os.environ if name not in ("PATH", "TMPDIR", "HOME", "LC_CTYPE"))
    return {"exact_match": float(reached and names == []), "names": str(names), "folder": os.getcwd()}
"""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    task = bound(write_task(tmp_path, code))
    judges.plan(task, task.name)
    found = judges.judge(task, ANSWERS)
    assert [found.verdicts[item]["none", 0].score for item in ANSWERS] == [1.0] * ITEMS, found  # type: ignore[union-attr]
    assert judges._process
    environment = psutil.Process(judges._process.pid).environ()
    assert "AWS_SECRET_ACCESS_KEY" not in environment
    assert not Path(found.verdicts[0]["none", 0].metrics.partition('"folder": "')[2].rstrip('"}')).exists()  # type: ignore[union-attr]


@long_only
def test_judging_process_is_started_again_and_ends_with_its_worker(tmp_path: Path, judges: Judges) -> None:
    task = bound(write_task(tmp_path, code_of("pass")))
    judges.plan(task, task.name)
    assert judges.judge(task, ANSWERS).failures == {}
    assert judges._process
    first = judges._process.pid
    os.kill(first, signal.SIGKILL)
    assert len(judges.judge(task, ANSWERS).verdicts) == ITEMS
    second = psutil.Process(judges._process.pid)
    assert second.pid != first
    assert judges._process.stdin
    judges._process.stdin.close()  # what the death of a worker does
    deadline = time.monotonic() + 30
    while second.is_running() and second.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_verdict_of_a_process_that_ended_half_way_counts_for_nothing(
    tmp_path: Path, judges: Judges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two processes are shells that write frames: the first ends after two verdicts, the second fails an item."""

    def frames(name: str, *replies: dict[str, Any]) -> subprocess.Popen[bytes]:
        with open(tmp_path / name, "wb") as file:
            for reply in replies:
                process.write_frame(file, reply)
        command = ["sh", "-c", f"cat {name}; exec cat > /dev/null"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path)

    def row(item: int, score: float) -> list[Any]:
        return [item, [["none", 0, [score, "{}", "[]"]]]]

    ended = frames("ended", {"verdicts": [row(0, 1.0), row(1, 1.0)]})
    whole = frames("whole", {"verdicts": [row(0, 0.0)]}, {"failures": [[1, JUDGE_DIED]], "log": []})
    started = iter([ended, whole])
    monkeypatch.setattr("collectors.judging.judges._start", lambda: next(started))
    task = bound(write_task(tmp_path, code_of("pass")))
    judges.plan(task, task.name, start=False)
    assert judges.judge(task, {0: [["x"]], 1: [["x"]]}) == Judged(
        {0: {("none", 0): Verdict(0.0, "{}", "[]")}}, {1: JUDGE_DIED}
    )


@long_only
def test_task_that_the_process_cannot_load_is_the_tasks_failure(tmp_path: Path, judges: Judges) -> None:
    folder = write_task(tmp_path, code_of("pass"))
    task = bound(folder)
    judges.plan(task, task.name)
    (folder / "judged_code.py").write_text("raise RuntimeError('no such library')")
    with pytest.raises(TaskError):
        judges.judge(task, ANSWERS)


@pytest.mark.slow
def test_verdicts_of_the_process_are_those_of_this_one(tmp_path: Path) -> None:
    folder = write_odd_tasks(tmp_path)
    answering = JudgingProcess()
    count = 0
    for name in [*MINI, "fraction", "other", "nothing", "filter_raises", "filter_drops"]:
        try:
            task = bind(folder, name)
        except (TaskError, AssertionError):
            continue
        answer = (-1.5, True) if task.request_kind == "loglikelihood" else "answer 7"
        answer = -3.25 if task.request_kind == "loglikelihood_rolling" else answer
        requests = {"multiple_choice": 4}.get(task.settings.output_type, 1)
        responses = {item: [[answer]] * requests for item in range(ITEMS)}
        answering.tasks = {"{}": task}
        reply: dict[str, Any] = answered(answering, {"task": {}, "responses": as_sent(responses)})
        here = judge_here(task, as_sent(responses))
        assert reply["failures"] == []
        found = {item: {(f, r): one for f, r, one in rows} for item, rows in reply["verdicts"]}
        assert found == {i: {k: v and list(v) for k, v in by.items()} for i, by in here.verdicts.items()}, name
        count += 1
    assert count > 8


def as_sent(responses: dict[int, list[list[object]]]) -> dict[int, list[list[object]]]:
    """As they come through a frame: tuples as lists."""
    return {int(item): value for item, value in json.loads(json.dumps(responses)).items()}


@pytest.mark.fast
def test_frames_carry_any_text_and_number(tmp_path: Path) -> None:
    value = {"a": ["\ud800", "\u2028\x00", float("inf"), 1e300, -0.0, None]}
    with open(tmp_path / "frames", "wb") as file:
        process.write_frame(file, value)
        process.write_frame(file, {})
    with open(tmp_path / "frames", "rb") as file:
        assert process.read_frame(file) == value
        assert process.read_frame(file) == {}
        with pytest.raises(EOFError):
            process.read_frame(file)


def test_nothing_to_judge_is_judged_at_once(tmp_path: Path, judges: Judges) -> None:
    task = bound(write_task(tmp_path, code_of("pass")))
    judges.plan(task, task.name, start=False)
    assert judges.judge(task, {}) == Judged({}, {})
