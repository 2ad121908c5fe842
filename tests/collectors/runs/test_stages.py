"""Stages of a shard: their seconds, the union of prefills, and the trace file."""

from __future__ import annotations

import json

import pytest

from collectors.engines import Usage
from collectors.runs.stages import STAGES, Span, Stages, Trace, in_prefill, summary


def usage(scheduled: float | None, first_token: float | None) -> Usage:
    return Usage(1, 1, scheduled=scheduled, first_token=first_token, finished=99.0)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([(0.0, 2.0), (1.0, 3.0)], 3.0),  # they overlap
        ([(5.0, 6.0), (0.0, 2.0)], 3.0),  # a gap, out of order
        ([(0.0, 9.0), (1.0, 2.0), (8.0, 10.0)], 10.0),  # one within another
        ([(0.0, 1.0), (None, None)], 1.0),  # an engine that measures some of them
        ([(None, 3.0)], None),
        ([], None),
    ],
)
def test_prefill_is_the_time_in_which_any_request_was_read(
    times: list[tuple[float | None, float | None]], expected: float | None
) -> None:
    assert in_prefill(usage(*one) for one in times) == expected


def test_stages_add_up_and_a_rest_before_the_shard_is_no_part_of_its_time() -> None:
    stages = Stages()
    stages.add("idle", 1.0, 9.0)
    stages.add("engine", 10.0, 12.0)
    stages.add("judge", 12.0, 12.5)
    stages.add("engine", 13.0, 14.0)
    assert stages.seconds == {"idle": 8.0, "engine": 3.0, "judge": 0.5}
    assert stages.wall() == pytest.approx(4.0)
    assert summary(stages.seconds | {"prefill": 2.0}) == "idle 8.0 s, engine 3.0 s (2.0 of it prefill), judge 0.5 s"


def test_stage_that_raises_is_counted() -> None:
    stages = Stages()
    with pytest.raises(ValueError, match="no"), stages.of("build"):
        raise ValueError("no")
    assert list(stages.seconds) == ["build"]


def test_trace_has_complete_events_in_lanes_of_their_worker() -> None:
    trace = Trace()
    trace.add("node 1", [Span("engine", 100.0, 101.5), Span("judge", 101.5, 102.0)], task="gsm8k", items="0-3")
    trace.add("node 2", [Span("write", 100.5, 100.6)], task="gsm8k", items="4-7")
    events = json.loads(trace.to_json())["traceEvents"]
    assert {e["name"]: (e["pid"], e["tid"], e["ts"], round(e["dur"])) for e in events if e["ph"] == "X"} == {
        "engine": (1, 1, 100e6, 1_500_000),
        "judge": (1, 2, 101.5e6, 500_000),
        "write": (2, 2, 100.5e6, 100_000),
    }
    named = {(e["pid"], e["tid"], e["name"]): e["args"]["name"] for e in events if e["ph"] == "M"}
    assert named[1, 0, "process_name"] == "node 1"
    assert named[2, 1, "thread_name"] == "engine"
    assert {e["name"] for e in events if e["ph"] == "X"} <= STAGES.keys()
