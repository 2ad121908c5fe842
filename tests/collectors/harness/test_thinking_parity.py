"""A model that thinks: our rows against those of lm-eval's own hf backend with think_end_token, row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.utils import postprocess_generated_text

from collectors.engines import GenerateRequest, ModelRef, make_engine
from collectors.harness.efforts import DEFAULT_MARKERS, efforts_of
from collectors.harness.judge import judge_here, record_table
from collectors.harness.loading import load_tasks
from collectors.harness.requests import Requester
from collectors.harness.thoughts import answer_of
from collectors.specs import TaskSpec, Thinking
from schemas.failures import UNFINISHED_THOUGHT
from tests.helpers.mini_tasks import own_caches
from tests.helpers.thinking_models import thinking_model
from tests.helpers.thorough import long_only

__all__ = ["own_caches"]  # fixtures

pytestmark = [pytest.mark.slow, long_only]
ITEMS = [{"q": f"{a}+{b}=", "ans": str(a + b)} for a in range(5) for b in range(2)]
TASK = """
task: reason
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: '{{{{q}}}}'
doc_to_target: '{{{{ans}}}}'
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
filter_list: [{{name: first-number, filter: [{{function: regex, regex_pattern: (\\d+)}}, {{function: take_first}}]}}]
generation_kwargs: {{max_gen_toks: 60, do_sample: false, until: {until}}}
metadata: {{version: 1}}
"""


@pytest.fixture(scope="module")
def model() -> Path:
    return thinking_model(Path(__file__).parents[3] / ".cache")


def write(folder: Path, until: str) -> Path:
    (folder / "test.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in ITEMS))
    (folder / "reason.yaml").write_text(TASK.format(data=folder / "test.jsonl", until=json.dumps([until])))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The task with a stop that is in every thought: lm-eval's hf backend stops there, its vllm backend does not."""
    return write(tmp_path, "\n\n")


def ours(model: Path, folder: Path, given: Thinking, **decoding: Any) -> list[dict[str, Any]]:
    [task], _ = load_tasks(TaskSpec(task="reason", chat_template=True, decoding=decoding), [str(folder)])
    [effort] = efforts_of(given, task.spec, generates=True, has_template=True)
    engine = make_engine("hf")
    key = engine.load(ModelRef("thinks", str(model), "r", str(model), "float32"))
    requester = Requester(engine, key)
    requester.template_args = json.loads(effort.chat_template_args or "{}")
    asked = requester.ask(dict(enumerate(requester.build(task, len(ITEMS)))), "seed", effort=effort)
    engine.close()
    return record_table(task, asked, "c" * 16, "thinks", judge_here).to_pylist()


def theirs(model: Path, folder: Path, **arguments: Any) -> list[dict[str, Any]]:
    settings = {"pretrained": str(model), "dtype": "float32", "think_end_token": "</think>", **arguments}
    manager = lm_eval.tasks.TaskManager(include_path=str(folder))
    done = lm_eval.simple_evaluate(
        "hf", settings, ["reason"], task_manager=manager, apply_chat_template=True, log_samples=True, device="cpu"
    )
    return sorted(done["samples"]["reason"], key=lambda sample: sample["doc_id"])


@pytest.mark.parametrize("enable", [True, False])
def test_thinking_rows_equal_lm_evals(model: Path, tmp_path: Path, enable: bool) -> None:
    folder = write(tmp_path, "Question:")
    rows = ours(model, folder, Thinking(thinking=True, chat_template_args={"enable_thinking": enable}))
    samples = theirs(model, folder, enable_thinking=enable)
    assert [row["filtered"] for row in rows] == [json.dumps(sample["filtered_resps"]) for sample in samples]
    assert [row["score"] for row in rows] == [sample["exact_match"] for sample in samples]
    assert {row["outcome"] for row in rows} == {"ok"}
    assert all(bool(row["reasoning_tokens"]) == enable for row in rows)
    assert sum(row["score"] for row in rows) > 0


def test_thinking_answers_equal_the_rule_of_lm_evals_vllm_backend(model: Path, folder: Path) -> None:
    """It sends no stop of the task to the engine, and cuts the whole text by this function of its own."""
    [task], _ = load_tasks(TaskSpec(task="reason", chat_template=True), [str(folder)])
    engine = make_engine("hf")
    key = engine.load(ModelRef("thinks", str(model), "r", str(model), "float32"))
    requester = Requester(engine, key)
    prompts = [tokens.context for items in requester.build(task, len(ITEMS)) for tokens in requester.encode(items)]
    _, whole = engine.generate(key, [GenerateRequest(prompt, 60, []) for prompt in prompts])
    engine.close()
    answers = [postprocess_generated_text(one.text, ["\n\n"], "</think>") for one in whole]
    rows = ours(model, folder, Thinking(thinking=True))
    assert [answer_of(row["responses"][0], DEFAULT_MARKERS) for row in rows] == answers
    assert [row["completion_tokens"] for row in rows] == [one.usage.generated_tokens for one in whole]


def test_thinking_unfinished_thought_is_truncated_where_lm_eval_judges_it(model: Path, folder: Path) -> None:
    rows = ours(model, folder, Thinking(thinking=True), max_gen_toks=12)
    assert {(row["outcome"], row["failure"], row["score"]) for row in rows} == {("truncated", UNFINISHED_THOUGHT, 0.0)}
    assert all(row["responses"][0].startswith("<think>") for row in rows)


@pytest.mark.parametrize("tokens", [0, 8, 64])
def test_thinking_tokens_are_kept_and_counted(model: Path, folder: Path, tokens: int) -> None:
    rows = ours(model, folder, Thinking(thinking_tokens=tokens))
    closing = 8
    assert all(row["reasoning_tokens"] <= tokens + (closing if tokens == 8 else 0) for row in rows)
    assert all(row["reasoning_tokens"] < row["completion_tokens"] for row in rows)
    assert {row["outcome"] for row in rows} == {"ok"}
