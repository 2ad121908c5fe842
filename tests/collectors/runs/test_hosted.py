"""Models of endpoints: their dollars in a dry run, what they cannot be asked, and their words in status."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from collectors.lake.store import Lake
from collectors.runs.config import RunConfig
from collectors.runs.estimate import Estimator, estimate
from collectors.runs.planning import make_plan
from collectors.runs.shard_statistics import EndpointPace
from pipelines.console.run_shown import endpoint
from schemas.records import PRICE
from tests.helpers.mini_tasks import ITEMS, write_tasks

TEMPLATED = {"task": "mini_generate", "chat_template": True}
CHAT = {"url": "http://127.0.0.1:9/v1"}
TEXTS = {**CHAT, "api": "completions"}


def planned(folder: Path, lake: Lake, endpoint: dict[str, Any], task: Any, **model: Any) -> Any:
    keys = {"models": [{"source": "gpt-x", "endpoint": endpoint, **model}], "tasks": [task]}
    return make_plan(RunConfig.model_validate({**keys, "include_tasks": [str(folder)], "engine": "hf"}), lake)


def test_dry_run_prices_a_hosted_model_by_its_tokens_and_says_what_it_assumes(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    row = {"model": "gpt-x", "provider": "p", "usd_per_million_prompt": 10.0, "usd_per_million_completion": 1000.0}
    row |= {"usd_per_request": 0.5, "valid_from": dt.date(2026, 1, 1), "source": "s"}
    row["added_at"] = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    lake.create_table("prices/p.parquet", pa.Table.from_pylist([row], schema=PRICE))
    plan = planned(write_tasks(tmp_path), lake, TEXTS, "mini_generate")
    found = estimate(plan, lake)
    [hosted] = found.rows
    assert (hosted.tier, hosted.place, hosted.items, hosted.hours) == ("hosted", "gpt-x", ITEMS, None)
    generated = 12 * ITEMS  # the task's limit: no answer was measured
    prompt = hosted.tokens - generated
    assert prompt > 0
    assert hosted.usd == pytest.approx((prompt * 10 + generated * 1000) / 1e6 + ITEMS * 0.5)
    sampled = {"decoding": {"do_sample": True, "temperature": 1.0}, "repeats": {"times": 5, "share": 0.25}}
    more = Estimator(planned(tmp_path, lake, TEXTS, {"task": "mini_generate", **sampled}), lake).of_repeats()
    assert more is not None
    assert more.tokens == pytest.approx(hosted.tokens * 5 / 4)  # a prompt is paid for each answer
    assert more.usd == pytest.approx(hosted.usd * 5 / 4)
    [said] = [line for line in found.assumptions if line.startswith("USD of endpoints")]
    assert "every answer as long as assumed: gpt-x: 10 a million prompt tokens, 1000 completion tokens" in said


@pytest.mark.parametrize(
    ("endpoint", "task", "why"),
    [
        (CHAT, "mini_choice", "asks by log-likelihoods, which a chat does not give"),
        (TEXTS, "mini_choice", "asks by log-likelihoods, which need endpoint.tokenizer"),
        (CHAT, "mini_generate", "sends a text, and a chat takes messages: set chat_template"),
        (
            TEXTS,
            {"task": "mini_generate", "chat_template": True},
            "has a chat template, which needs endpoint.tokenizer",
        ),
    ],
)
def test_plan_refuses_what_an_endpoint_cannot_be_asked_by_name(
    endpoint: dict[str, str], task: Any, why: str, tmp_path: Path
) -> None:
    plan = planned(write_tasks(tmp_path), Lake(str(tmp_path / "lake")), endpoint, task)
    assert plan.cells == []
    [failure] = plan.failures
    assert why in failure["message"]
    assert "\n" not in failure["message"]
    assert (failure["model"], failure["task"]) == ("gpt-x", task if isinstance(task, str) else task["task"])


def test_status_says_an_endpoints_rate_dollars_and_refusals() -> None:
    pace = EndpointPace(Counter(sent=110, answered=100, too_many=7, timeout=3), 50.0, 1.25, {"constant_usage"})
    line = endpoint("gpt-x", pace)
    assert line.startswith("endpoint of gpt-x: 100 of 110 requests answered, 2/s, 1.25 USD; ")
    assert "7 times 429" in line
    assert line.endswith("suspicious: constant_usage")
