"""The stub engine: the same answers each time, and failures on demand."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.engines import GenerateRequest, ModelRef, ScoreRequest, make_engine
from collectors.engines.stub import ByteTokenizer
from schemas.failures import EngineError, ModelError

STUB_MODEL = ModelRef("m", "m", "revision-1", None)


def stub_answers(options: dict[str, object], model: ModelRef = STUB_MODEL, batch: int = 50) -> list[object]:
    """Logprobs, greedy flags and texts of 50 questions of each kind, asked `batch` at a time."""
    engine = make_engine("stub", options)
    key = engine.load(model)
    scores = [ScoreRequest([i, 7], [i]) for i in range(50)]
    texts = [GenerateRequest([i], 100, ["\n\n"]) for i in range(50)]
    answers: list[object] = []
    for at in range(0, 50, batch):
        answers += [(s.logprob, s.greedy) for s in engine.score(key, scores[at : at + batch])[1]]
    return answers + [g.text for g in engine.generate(key, texts)[1]]


def test_stub_rerun_in_other_batches_gives_equal_answers() -> None:
    assert stub_answers({}) == stub_answers({}, batch=7)


def test_stub_other_revision_gives_other_answers() -> None:
    other = stub_answers({}, ModelRef("m", "m", "revision-2", None))
    assert sum(a != b for a, b in zip(stub_answers({}), other, strict=True)) > 90


def test_stub_text_stops_at_the_stop_string_and_at_max_tokens() -> None:
    engine = make_engine("stub")
    key = engine.load(STUB_MODEL)
    stopped, cut, ended = engine.generate(
        key, [GenerateRequest([1], 999, ["\n\n"]), GenerateRequest([1], 5, ["\n\n"]), GenerateRequest([1], 999, [])]
    )[1]
    assert engine.tokenizer.decode(stopped.token_ids) == stopped.text + "\n\n"
    assert (stopped.usage.finish_reason, cut.usage.finish_reason) == ("stop", "length")
    assert (len(cut.token_ids), cut.usage.generated_tokens) == (5, 5)
    assert ended.token_ids[-1] == engine.tokenizer.eos_token_id


def test_stub_latency_and_rate_show_in_the_times() -> None:
    engine = make_engine("stub", {"latency_s": 0.01, "tokens_per_s": 1000})
    key = engine.load(STUB_MODEL)
    usage = engine.score(key, [ScoreRequest([1] * 15, [2] * 4)])[1][0].usage
    assert usage.scheduled is not None
    assert usage.first_token is not None
    assert usage.finished is not None
    assert usage.first_token - usage.scheduled >= 0.01
    assert usage.finished - usage.first_token >= 0.02


def test_stub_nan_every_spoils_some_scores_the_same_ones_each_time() -> None:
    spoiled = [math.isnan(answer[0]) for answer in stub_answers({"nan_every": 5}) if isinstance(answer, tuple)]
    assert 0 < sum(spoiled) < 25
    assert spoiled == [math.isnan(a[0]) for a in stub_answers({"nan_every": 5}, batch=3) if isinstance(a, tuple)]


def test_stub_empty_every_one_gives_only_empty_texts() -> None:
    assert stub_answers({"empty_every": 1})[50:] == [""] * 50


def test_stub_fail_load_raises_for_named_models_only() -> None:
    engine = make_engine("stub", {"fail_load": {"bad-*": "no_weights"}})
    with pytest.raises(ModelError) as caught:
        engine.load(ModelRef("bad-1", "bad-1", "r", None))
    assert caught.value.kind == "no_weights"
    assert engine.load(STUB_MODEL) == STUB_MODEL.key


def test_stub_fail_after_raises_once_with_a_marker_and_goes_on_after_a_load(tmp_path: Path) -> None:
    engine = make_engine("stub", {"fail_after": 3, "fault_once": str(tmp_path / "marker")})
    requests = [ScoreRequest([1], [2])] * 10
    key = engine.load(STUB_MODEL)
    with pytest.raises(EngineError, match="after 3 requests"):
        engine.score(key, requests)
    assert engine.model is None
    engine.load(STUB_MODEL)
    assert len(engine.score(key, requests)[1]) == 10


STUB_PROCESS = """
from collectors.engines import ModelRef, ScoreRequest, make_engine
engine = make_engine("stub", {options!r})
key = engine.load(ModelRef("m", "m", "r", None))
engine.score(key, [ScoreRequest([1], [2])] * 2)
print("answered", flush=True)
engine.score(key, [ScoreRequest([1], [2])])
print("survived", flush=True)
"""


def stub_process(options: dict[str, object]) -> subprocess.Popen[str]:
    source = STUB_PROCESS.format(options=options)
    return subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)


def test_stub_crash_after_kills_its_own_process() -> None:
    with stub_process({"crash_after": 2}) as process:
        assert process.communicate(timeout=60)[0] == "answered\n"
    assert process.returncode == -9


def test_stub_hang_after_never_answers() -> None:
    with stub_process({"hang_after": 2}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "answered\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.kill()


@given(st.text())
def test_byte_tokenizer_any_text_comes_back(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
