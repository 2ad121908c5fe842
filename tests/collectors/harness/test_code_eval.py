"""Tasks that run answers run them in the sandbox alone, and only where the config says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.harness.code_eval import SandboxedCodeEval
from collectors.harness.loading import load_tasks, use_datasets
from collectors.judging.judges import Judges
from collectors.sandbox import bubblewrap
from collectors.specs import TaskSpec
from tests.helpers.judged_tasks import bound, load, write_task
from tests.helpers.thorough import LONG

pytestmark = pytest.mark.slow
DATA = Path(__file__).parents[4] / "shared" / "data" / "hf_datasets"
needs_sandbox = pytest.mark.skipif(bubblewrap.refusal() is not None, reason=f"no sandbox: {bubblewrap.refusal()}")

#: As lm-eval's mbpp: the metric is loaded when the file is.
CODE = """
import evaluate
metric = evaluate.load("code_eval")
def process_results(doc, results):
    tests = [f"assert answer() == {doc['n']}"]
    values, _ = metric.compute(references=tests, predictions=[results], k=[1])
    return {"exact_match": values["pass@1"]}
"""


@needs_sandbox
def test_task_that_runs_answers_judges_them_in_the_sandbox(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("1")
    folder = write_task(tmp_path, CODE, unsafe_code=True)
    (task,), failed = load_tasks(TaskSpec(task="judged", code="sandbox"), [str(folder)])
    assert not failed
    answers = [
        "def answer(): return 0",
        "def answer(): return 0",
        f"def answer(): return int(open({str(secret)!r}).read()) + 1",
        "import os\nos._exit(0)",
    ]
    judges = Judges([str(folder)])
    judges.plan(task, "judged")
    judged = judges.judge(task, {item: [[text]] for item, text in enumerate(answers)})
    judges.close()
    assert not judged.failures
    scores = [verdict.score for of in judged.verdicts.values() for verdict in of.values() if verdict]
    assert scores == [1.0, 0.0, 0.0, 0.0]


def test_task_that_runs_answers_is_refused_without_the_key(tmp_path: Path) -> None:
    tasks, failed = load(write_task(tmp_path, CODE, unsafe_code=True))
    assert (tasks, failed["judged"].kind) == ([], "unsafe_code")
    assert "code: sandbox" in str(failed["judged"])


@needs_sandbox
def test_task_that_runs_answers_by_its_own_code_is_refused_with_the_key_too(tmp_path: Path) -> None:
    code = "def process_results(doc, results):\n    exec(results[0])\n    return {'exact_match': 1.0}\n"
    for number, settings in enumerate(({}, {"unsafe_code": True})):
        folder = write_task(tmp_path / str(number), code, **settings)
        tasks, failed = load_tasks(TaskSpec(task="judged", code="sandbox"), [str(folder)])
        assert (tasks, failed["judged"].kind) == ([], "unsafe_code")


def test_task_is_refused_where_no_sandbox_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.harness.code_eval.refusal", lambda: "bubblewrap is not installed")
    folder = write_task(tmp_path, CODE, unsafe_code=True)
    with pytest.raises(Exception, match="code: sandbox: bubblewrap is not installed, so no answer is run"):
        load_tasks(TaskSpec(task="judged", code="sandbox"), [str(folder)])


def test_key_changes_nothing_of_a_task_that_runs_no_answer(tmp_path: Path) -> None:
    folder = write_task(tmp_path, "")
    prompting = bound(folder).settings.prompting
    (task,), _ = load_tasks(TaskSpec(task="judged", code="sandbox"), [str(folder)])
    assert task.settings.prompting == prompting


@needs_sandbox
def test_pass_at_k_is_that_of_the_paper() -> None:
    """Of 4 answers 2 pass: one chosen at random passes in 1/2, one of two in 1 - C(2, 2) / C(4, 2) = 5/6."""
    answers = ["x = 1", "x = 2", "x = 1", "x = 3"]
    values, results = SandboxedCodeEval().compute([answers], ["assert x == 1"], k=[1, 2, 5])
    assert values == pytest.approx({"pass@1": 0.5, "pass@2": 5 / 6})
    assert [found["passed"] for _, found in results[0]] == [True, False, True, False]


@needs_sandbox
@pytest.mark.needs_shared
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared")
@pytest.mark.parametrize(
    ("name", "solution", "items"), [("humaneval", "canonical_solution", 164), ("mbpp", "code", 500)]
)
def test_reference_solutions_pass(name: str, solution: str, items: int) -> None:
    use_datasets(str(DATA))
    (task,), failed = load_tasks(TaskSpec(task=name, code="sandbox"), [])
    assert (failed, len(task.docs), task.settings.correct_threshold) == ({}, items, 0.5)
    judges = Judges([])
    judges.plan(task, name)
    some = range(0, items, 1 if LONG else items // 8)
    judged = judges.judge(task, {item: [[task.docs[item][solution]]] for item in some})
    judges.close()
    verdicts = [verdict for of in judged.verdicts.values() for verdict in of.values()]
    assert [verdict and verdict.score for verdict in verdicts] == [1.0] * len(some)
