"""When a live engine is swapped, replaced or refused, shown on an engine whose answers are sums of its tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from collectors.engines import ModelRef
from collectors.engines.base import EngineOptions
from collectors.engines.live import LiveEngine
from schemas.failures import ModelError

NAMES = ("model.embed_tokens.weight", "model.norm.weight")


class SumsOptions(EngineOptions):
    swap: bool = True
    #: Tensors that a swap leaves in place.
    forgets: tuple[str, ...] = ()
    #: Models on whose swap it breaks after the first tensor.
    breaks_on: tuple[str, ...] = ()


class SumsEngine(LiveEngine[SumsOptions]):
    NAME = "sums"
    OPTIONS = SumsOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.opened: list[str] = []
        self.tensors: dict[str, Any] = {}

    def _may_swap(self, options: SumsOptions) -> bool:
        return options.swap

    def _open(self, model: ModelRef) -> None:
        self.opened.append(f"{model.name}{' to swap' if self._swaps else ''}")
        self.tensors = {name: value * 0 for name, value in stored(model).items()} if self._swaps else stored(model)

    def _put(self, model: ModelRef, tensors: str) -> None:
        for name, tensor in stored(model).items():
            if name not in self._options.forgets:
                self.tensors[name] = tensor
            if model.name in self._options.breaks_on:
                raise OSError("broken off")

    def _canary(self) -> list[float]:
        return [float(self.tensors[name].sum()) for name in NAMES]

    def answer(self) -> list[float]:
        assert self.model is not None
        return self._canary()


def stored(model: ModelRef) -> dict[str, Any]:
    return dict(load_file(Path(model.path or "") / "model.safetensors"))


@pytest.fixture
def models(tmp_path: Path) -> dict[str, ModelRef]:
    """Four models of one group, a to d, with a NaN in d; and e of another group."""
    made = {}
    for at, name in enumerate("abcde"):
        folder = tmp_path / name
        folder.mkdir()
        config = {"architectures": ["LlamaForCausalLM"], "layers": 1 + (name == "e")}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer.json").write_text("{}")
        values = np.full((2, 3), np.nan if name == "d" else at + 1, np.float32)
        save_file(dict.fromkeys(NAMES, values), folder / "model.safetensors")
        made[name] = ModelRef(name, str(folder), name, str(folder), "float32")
    return made


def loaded(engine: SumsEngine, models: dict[str, ModelRef], names: str) -> list[list[float]]:
    answers = []
    for name in names:
        engine.load(models[name])
        answers.append(engine.answer())
    return answers


def own(models: dict[str, ModelRef], names: str) -> list[list[float]]:
    return [[float(stored(models[name])[key].sum()) for key in NAMES] for name in names]


def test_load_models_of_one_group_opens_two_engines_for_all(models: dict[str, ModelRef]) -> None:
    engine = SumsEngine()
    assert loaded(engine, models, "abcab") == own(models, "abcab")
    assert engine.opened == ["a", "a to swap"]
    assert engine.swapped


def test_load_another_group_is_opened_anew_and_a_proven_one_to_be_swapped(models: dict[str, ModelRef]) -> None:
    engine = SumsEngine()
    assert loaded(engine, models, "abeca") == own(models, "abeca")
    assert engine.opened == ["a", "a to swap", "e", "c to swap"]


def test_load_failed_canary_opens_each_model_and_swaps_no_more(
    models: dict[str, ModelRef], caplog: pytest.LogCaptureFixture
) -> None:
    engine = SumsEngine(forgets=[NAMES[1]])
    assert loaded(engine, models, "abca") == own(models, "abca")
    assert engine.opened == ["a", "a to swap", "b", "c", "a"]
    assert "1 of 2 log-probabilities" in caplog.text
    assert not engine.swapped


def test_load_swap_that_breaks_off_leaves_no_mixture_and_swaps_no_more(models: dict[str, ModelRef]) -> None:
    engine = SumsEngine(breaks_on=["c"])
    assert loaded(engine, models, "abcb") == own(models, "abcb")
    assert engine.opened == ["a", "a to swap", "c", "b"]


def test_load_nan_is_refused_and_the_live_engine_serves_the_next(models: dict[str, ModelRef]) -> None:
    engine = SumsEngine()
    loaded(engine, models, "ab")
    with pytest.raises(ModelError, match=r"'d': model\.embed_tokens\.weight holds NaN"):
        engine.load(models["d"])
    assert engine.model is None
    assert loaded(engine, models, "bc") == own(models, "bc")
    assert engine.opened == ["a", "a to swap"]


def test_load_nan_first_is_refused_as_well(models: dict[str, ModelRef]) -> None:
    """Whether a model is refused must not depend on the model before it."""
    with pytest.raises(ModelError, match="NaN"):
        SumsEngine().load(models["d"])


def test_load_swapping_turned_off_opens_each(models: dict[str, ModelRef]) -> None:
    engine = SumsEngine(swap=False)
    assert loaded(engine, models, "aba") == own(models, "aba")
    assert engine.opened == ["a", "b", "a"]


def test_load_reference_that_is_gone_before_the_canary_opens_anew(models: dict[str, ModelRef]) -> None:
    engine = SumsEngine()
    engine.load(models["a"])
    (Path(models["a"].path or "") / "model.safetensors").unlink()
    assert loaded(engine, models, "bc") == own(models, "bc")
    assert engine.opened[-2:] == ["b", "c"]


def test_load_after_an_engine_error_starts_afresh(models: dict[str, ModelRef]) -> None:
    engine = SumsEngine()
    loaded(engine, models, "ab")
    engine.close()
    with pytest.raises(AssertionError):
        engine.answer()
    assert loaded(engine, models, "b") == own(models, "b")
    assert engine.opened[-1] == "b to swap"


def test_prefetch_bad_weights_raise_what_the_load_would(models: dict[str, ModelRef]) -> None:
    engine = SumsEngine()
    engine.load(models["a"])
    with pytest.raises(ModelError, match="NaN"):
        engine.prefetch(models["d"])
    engine.prefetch(models["b"])
    assert engine.answer() == own(models, "a")[0]
    assert loaded(engine, models, "b") == own(models, "b")
