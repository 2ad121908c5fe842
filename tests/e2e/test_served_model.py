"""vLLM's own server with a real model: its rows are those of an engine that holds the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.engines import ModelRef, make_engine
from tests.helpers.mini_tasks import write_tasks
from tests.helpers.served_models import SERVED, WHOLE_TEXTS, differing, endpoint, rows_of, vllm_server
from tests.helpers.thorough import long_only

pytestmark = long_only
TASKS = ("mini_choice", "mini_letters", "mini_likelihood", "mini_generate")


@pytest.fixture(scope="module")
def served(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with vllm_server(tiny_models["good"], tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_served_models_rows_equal_an_engines(
    api: str, served: str, tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path / "cache"))
    model = str(tiny_models["good"])
    write_tasks(tmp_path)
    own = make_engine("hf")
    key = own.load(ModelRef("m", model, "r", model, "float32"))
    settings = {"api": api, "extra_body": WHOLE_TEXTS, **({"tokenizer": model} if api == "completions" else {})}
    engine, served_key = endpoint(served, SERVED, **settings)
    for name in TASKS if api == "completions" else ("mini_generate",):
        ours = rows_of(own, key, tmp_path, name, chat_template=api == "chat")
        theirs = rows_of(engine, served_key, tmp_path, name, chat_template=api == "chat")
        assert differing(ours, theirs) == []
        assert len(ours) >= 12
        for one, other in zip(ours, theirs, strict=True):
            assert (one["loglikelihoods"] or []) == pytest.approx(other["loglikelihoods"] or [], abs=1e-3)
    own.close()
    engine.close()
