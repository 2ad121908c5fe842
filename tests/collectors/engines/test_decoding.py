"""Settings of decoding: those of a request count for both real engines, those of the model's own file for none."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest

from collectors.engines import GenerateRequest, ModelRef, make_engine
from collectors.engines.hf import _sampling


@pytest.mark.slow
def test_generation_config_of_the_model_counts_for_no_engine_and_a_requests_settings_for_both(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    good, penalised = str(tiny_models["good"]), tmp_path / "penalised"
    shutil.copytree(good, penalised)
    file = penalised / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "repetition_penalty": 5.0, "do_sample": True}))
    texts = []
    for name in ("vllm", "hf"):
        engine = make_engine(name)
        for folder in (good, str(penalised)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # warnings from vllm's imports
                key = engine.load(ModelRef("m", folder, folder, folder, "float32"))
            prompt = engine.tokenizer.encode("Q: 2+3=\nA: 5\n\nQ: 4+9=\nA:")
            for params in ({}, {"repetition_penalty": 5.0}):
                texts.append(engine.generate(key, [GenerateRequest(prompt, 24, [], params=params)])[1][0].text)
        engine.close()
    assert texts == texts[:2] * 4
    assert texts[0] != texts[1]


@pytest.mark.parametrize(("asked", "used"), [({}, 0), ({"top_k": 0}, 0), ({"top_k": -1}, 0), ({"top_k": 20}, 20)])
def test_hf_samples_from_all_tokens_as_vllm_does_unless_a_request_says_otherwise(
    asked: dict[str, int], used: int
) -> None:
    """The default of transformers is the likeliest 50."""
    assert _sampling(GenerateRequest([1], 4, [], temperature=1.0, seed=1, params=asked))["top_k"] == used
    assert "top_k" not in _sampling(GenerateRequest([1], 4, []))
