"""IFEval and MATH, whose judges are libraries of their own: our records equal lm-eval's own process_results.

The documents have the shape of google/IFEval and of MATH and are written here; the data sets are on the hub only.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import pytest
import yaml

from collectors.engines import GenerateRequest, Generation, ModelRef, make_engine
from collectors.harness.judge import judge_here, record_table
from collectors.harness.loading import load_tasks
from collectors.harness.needs import PUNKT
from collectors.harness.requests import Requester
from collectors.harness.tasks import BoundTask
from collectors.judging import guard
from collectors.specs import TaskSpec
from schemas.failures import TaskError

ROOT = Path(__file__).parents[3]
TASKS = Path(lm_eval.__file__).parent / "tasks"
Docs = list[dict[str, Any]]


def instructions(*pairs: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    names, kwargs = zip(*pairs, strict=True)
    prompt = f"Write about boats. Follow {', '.join(names)}."
    return {"key": len(prompt), "prompt": prompt, "instruction_id_list": list(names), "kwargs": list(kwargs)}


SENTENCES = ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"})
CAPITALS = ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"})
NO_COMMA: tuple[str, dict[str, Any]] = ("punctuation:no_comma", {})
QUOTED: tuple[str, dict[str, Any]] = ("startend:quotation", {})
ENGLISH = ("language:response_language", {"language": "en"})
KEYWORDS = ("keywords:existence", {"keywords": ["boat", "sea"]})
JSON_ONLY: tuple[str, dict[str, Any]] = ("detectable_format:json_format", {})

#: Document, the model's answer, and prompt_level_strict_acc and prompt_level_loose_acc by reading the instruction.
IFEVAL: list[tuple[dict[str, Any], str, bool, bool]] = [
    (instructions(SENTENCES), "Boats float. They sail. They sink.", True, True),
    (instructions(SENTENCES), "Boats float, sail and sink.", False, False),
    (instructions(CAPITALS), "The SEA and a BOAT.", True, True),
    (instructions(CAPITALS, NO_COMMA), "The SEA, and a BOAT.", False, False),
    (instructions(NO_COMMA), "Sure, here it is:\nBoats float.", False, True),  # loose: without the first line
    (instructions(QUOTED, KEYWORDS), '"A boat is on the sea."', True, True),
    (instructions(QUOTED, KEYWORDS), '"A boat is on the lake."', False, False),
    (instructions(ENGLISH), "The weather was fine when the old boat left the harbour.", True, True),
    (instructions(ENGLISH), "Das Wetter war schön, als das alte Boot den Hafen verließ.", False, False),
    (instructions(JSON_ONLY), '```json\n{"boat": 1}\n```', True, True),
    (instructions(JSON_ONLY), "boat: 1", False, False),
]


def maths(problem: str, solution: str, level: int = 5) -> dict[str, Any]:
    return {"problem": problem, "solution": solution, "level": f"Level {level}", "type": "Algebra"}


HALF = maths("What is $3/6$ in lowest terms?", "It is $\\boxed{\\frac{1}{2}}$.")
ROOT_TWO = maths("Simplify $\\sqrt{8}$.", "$\\sqrt{8}=\\sqrt{4\\cdot 2}=\\boxed{2\\sqrt{2}}$.")
RANGE = maths("Where is $x^2<4$?", "For $x$ in $\\boxed{(-2,2)}$.")
FINAL = "Final Answer: The final answer is {}. I hope it is correct."

#: Document, the model's answer, exact_match and exact_match_original of the leaderboard's task.
MATH: list[tuple[dict[str, Any], str, int, int]] = [
    (HALF, FINAL.format("$\\frac{1}{2}$"), 1, 1),
    (HALF, "So we get $\\boxed{0.5}$.", 1, 0),  # the original judge reads "The final answer is" alone
    (HALF, FINAL.format("$\\frac{2}{4}$"), 1, 1),  # equal by sympy, through antlr's grammar
    (HALF, FINAL.format("$\\frac{1}{3}$"), 0, 0),
    (ROOT_TWO, FINAL.format("$\\sqrt{8}$"), 1, 1),
    (ROOT_TWO, FINAL.format("$4\\sqrt{2}$"), 0, 0),
    (RANGE, FINAL.format("$(-2,2)$"), 1, 1),
    (RANGE, "I do not know.", 0, 0),
]


class Scripted:
    """The stub engine with answers of ours, in the order of its requests."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.engine = make_engine("stub")
        self.engine.load(ModelRef("m", "m", "revision-1", None))
        self.texts = iter(texts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def generate(self, key: str, requests: Sequence[GenerateRequest]) -> tuple[str, list[Generation]]:
        who, made = self.engine.generate(key, requests)
        return who, [dataclasses.replace(one, text=next(self.texts)) for one in made]


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(ROOT / ".cache" / "routerlake"))


@pytest.fixture
def punkt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nltk's sentence model for English, trained on two sentences, where nltk looks for data."""
    import nltk  # two seconds, which who only collects the tests is spared
    from nltk.tokenize.punkt import PunktTrainer, save_punkt_params

    folder = tmp_path / "nltk_data"
    monkeypatch.setattr(nltk.data, "path", [str(folder)])
    english = folder / PUNKT / "english"
    english.parent.mkdir(parents=True)
    save_punkt_params(PunktTrainer("Boats float. They sail.").get_params(), dir=str(english))
    return folder


@pytest.fixture(autouse=True)
def no_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both judges go on as long as they need, as in the judging process: a busy machine changes no verdict."""
    for name in ("alarm", "setitimer"):
        monkeypatch.setattr(signal, name, getattr(signal, name))  # to be put back
    guard.limit_by_cpu_time_alone()


def bind(folder: Path, own: str, docs: Docs) -> BoundTask:
    """lm-eval's task file `own` as it is, on our documents."""
    folder.mkdir(exist_ok=True)
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    split = yaml.load((TASKS / own).read_text(), yaml.BaseLoader).get("test_split", "test")
    files = {name: str(folder / "docs.jsonl") for name in {"train", split}}
    over = {"include": str(TASKS / own), "task": "ours", "dataset_path": "json", "dataset_name": None}
    (folder / "ours.yaml").write_text(yaml.safe_dump(over | {"dataset_kwargs": {"data_files": files}}))
    (task,), failed = load(folder)
    assert not failed
    return task


def load(folder: Path) -> tuple[list[BoundTask], dict[str, TaskError]]:
    return load_tasks(TaskSpec(task="ours"), [str(folder)])


def judged(task: BoundTask, answers: Sequence[str]) -> list[dict[str, Any]]:
    """Our records of `answers`, each checked against lm-eval's process_results."""
    requester = Requester(Scripted(answers), ModelRef("m", "m", "revision-1", None).key)
    asked = requester.ask(dict(enumerate(requester.build(task, len(answers)))), "cell")
    rows: list[dict[str, Any]] = record_table(task, asked, "cell", "m", judge_here).to_pylist()
    for row, answer in zip(rows, answers, strict=True):
        own = task.task.process_results(task.docs[row["item"]], [answer])
        assert json.loads(row["metrics"]) == json.loads(json.dumps(own))
        assert (row["responses"], row["failure"]) == ([answer], None)
        assert row["score"] == float(own[task.settings.metric])
        assert row["correct"] == bool(own[task.settings.metric])
    return rows


@pytest.mark.parametrize("own", ["leaderboard/ifeval/ifeval.yaml", "ifeval/ifeval.yaml"])
def test_ifeval_answers_are_judged_as_lm_eval_judges_them(own: str, tmp_path: Path, punkt: Path) -> None:
    task = bind(tmp_path / "tasks", own, [doc for doc, *_ in IFEVAL])
    rows = judged(task, [answer for _, answer, _, _ in IFEVAL])
    strict = [row["correct"] for row in rows]
    loose = [json.loads(row["metrics"])["prompt_level_loose_acc"] for row in rows]
    assert strict == [strict for *_, strict, _ in IFEVAL]
    assert loose == [loose for *_, loose in IFEVAL]


def test_ifeval_without_sentence_models_fails_as_a_task_and_says_how_to_get_them(tmp_path: Path, punkt: Path) -> None:
    folder = tmp_path / "tasks"
    bind(folder, "ifeval/ifeval.yaml", [doc for doc, *_ in IFEVAL])
    punkt.rename(tmp_path / "gone")
    tasks, failed = load(folder)
    assert (tasks, [type(error) for error in failed.values()]) == ([], [TaskError])
    assert failed["ours"].kind == "no_data"
    assert "python -m nltk.downloader punkt_tab" in str(failed["ours"])
    assert "NLTK_DATA" in str(failed["ours"])


def test_math_hard_answers_are_judged_as_lm_eval_judges_them(tmp_path: Path) -> None:
    easy = maths("What is $1+1$?", "$\\boxed{2}$", level=1)  # left out by the task
    docs = [easy, *(doc for doc, *_ in MATH)]
    task = bind(tmp_path / "tasks", "leaderboard/math/math_algebra.yaml", docs)
    assert len(task.docs) == len(MATH)
    rows = judged(task, [answer for _, answer, _, _ in MATH])
    metrics = [json.loads(row["metrics"]) for row in rows]
    assert [(m["exact_match"], m["exact_match_original"]) for m in metrics] == [(new, old) for *_, new, old in MATH]


@pytest.mark.parametrize("name", ["minerva_math", "hendrycks_math"])
def test_other_math_tasks_are_judged_as_lm_eval_judges_them(name: str, tmp_path: Path) -> None:
    task = bind(tmp_path / "tasks", f"{name}/{name}_algebra.yaml", [doc for doc, *_ in MATH])
    rows = judged(task, [answer for _, answer, _, _ in MATH])
    assert {row["correct"] for row in rows} <= {True, False}


def test_maths_are_parsed_by_the_grammar_that_sympy_was_built_with() -> None:
    """Another release of antlr parses nothing, and every answer that needs sympy would be wrong."""
    from sympy.parsing.latex import parse_latex

    assert parse_latex("\\frac{2}{4}").equals(0.5)
    assert "antlr4" in sys.modules
