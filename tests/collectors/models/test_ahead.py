"""A model that was read ahead is used only while its files are those that were read, and no fault of it is lost."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest

from collectors.engines import ModelRef
from collectors.engines.stub import StubEngine
from collectors.models.ahead import Ahead
from collectors.models.pinning import fetch, fingerprint
from schemas.failures import ModelError


class Reader(StubEngine):
    """Keeps the names of the models to read; refuses those that end in x, waits while `free` is not set."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []
        self.free = threading.Event()
        self.free.set()

    def prefetch(self, model: ModelRef) -> None:
        assert self.free.wait(30)
        self.read.append(model.name)
        if model.name.endswith("x"):
            raise ModelError("bad weights")


@pytest.fixture
def engine() -> Reader:
    return Reader()


def model(folder: Path, name: str) -> ModelRef:
    path = folder / name
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(name.encode())
    return ModelRef(name, str(path), fingerprint(path), str(path))


def taken(ahead: Ahead, wanted: ModelRef) -> ModelRef | None:
    held = ahead.take(wanted)
    return held.model if held else None


def test_take_prepared_model_is_read_and_given_once(engine: Reader, tmp_path: Path) -> None:
    ahead, wanted = Ahead(engine), model(tmp_path, "a")
    ahead.start(wanted)
    assert taken(ahead, wanted) == wanted
    assert engine.read == ["a"]
    assert ahead.take(wanted) is None


def test_take_changed_files_or_another_model_gives_none(engine: Reader, tmp_path: Path) -> None:
    ahead, first, second = Ahead(engine), model(tmp_path, "a"), model(tmp_path, "b")
    ahead.start(first)
    assert ahead.take(second) is None
    assert ahead._future is not None
    ahead._future.result()
    (tmp_path / "a" / "model.safetensors").write_bytes(b"other")
    assert ahead.take(first) is None
    with pytest.raises(ModelError, match="changed"):
        fetch(first)


def test_take_refused_or_missing_model_is_left_to_the_load(engine: Reader, tmp_path: Path) -> None:
    ahead, bad = Ahead(engine), model(tmp_path, "x")
    for wanted in (bad, dataclasses.replace(bad, path=str(tmp_path / "gone"), revision="gone")):
        ahead.start(wanted)
        assert ahead.take(wanted) is None


def test_start_while_another_is_read_waits_for_no_one(engine: Reader, tmp_path: Path) -> None:
    ahead, first, second = Ahead(engine), model(tmp_path, "a"), model(tmp_path, "b")
    engine.free.clear()
    ahead.start(first)
    ahead.start(second)
    engine.free.set()
    assert ahead.take(second) is None
    assert taken(ahead, first) == first
    assert engine.read == ["a"]
