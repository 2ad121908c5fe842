"""One download per model and node, whoever asks; old models go, one in use never does."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collectors.engines import ModelRef
from collectors.models.weights import DISK, GIB, Weights
from schemas.failures import ConfigError, ModelError, UnreachableError
from tests.helpers.model_folders import FILES
from tests.helpers.small_hub import Hub, served

__all__ = ["served"]  # a fixture


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path / "routerlake"))


def commit(served: Hub, name: str, size: int = 1000) -> ModelRef:
    sha = served.commit(name, {**FILES, "model.safetensors": name.encode().ljust(size, b".")}, "main")
    return ModelRef(name, name, sha, None)


def downloads(served: Hub) -> Counter[str]:
    return Counter(line.split("/resolve/")[0][5:] for line in served.asked if _is_download(line))


def _is_download(line: str) -> bool:
    return line.startswith("GET /") and line.endswith("/model.safetensors")


def on_disk(models: list[ModelRef], quota: Weights) -> list[str]:
    """Names of the models whose weights lie here, found without a hub."""
    found = []
    for model in models:
        record = next((p for p in _records() if f"-{model.revision}" in p.name), None)
        found += [model.name] if record else []
    return found


def _records() -> list[Path]:
    return list((Path(os.environ["ROUTERLAKE_CACHE"]) / "weights").glob("*.json"))


def age(model: ModelRef, seconds: float) -> None:
    [record] = [path for path in _records() if model.revision in path.name]
    os.utime(record, (record.stat().st_mtime - seconds,) * 2)


def test_second_take_asks_the_hub_nothing(served: Hub) -> None:
    model, weights = commit(served, "org/a"), Weights()
    first = weights.take(model)
    asked = len(served.asked)
    second = weights.take(model)
    assert second.model.path == first.model.path
    assert len(served.asked) == asked
    first.release()
    second.release()


@pytest.mark.slow
def test_two_processes_that_want_a_model_at_once_download_it_once(served: Hub, tmp_path: Path) -> None:
    model = commit(served, "org/a", 300_000)
    from huggingface_hub import constants

    code = (
        "import sys; from collectors.engines import ModelRef; from collectors.models.weights import Weights\n"
        f"held = Weights().take(ModelRef('org/a', 'org/a', {model.revision!r}, None))\n"
        "print(held.model.path)"
    )
    env = {**os.environ, "HF_ENDPOINT": constants.ENDPOINT, "HF_HUB_CACHE": str(tmp_path / "hub")}
    command = [sys.executable, "-c", code]
    runs = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {run.communicate(timeout=120)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert len(paths) == 1
    assert downloads(served) == {"org/a": 1}
    # Nor was the hub asked for another file twice; the list of files is asked for to choose, and by the hub's client.
    gets = Counter(line for line in served.asked if line.startswith("GET ") and "/api/" not in line)
    assert set(gets.values()) == {1}


def test_quota_is_a_share_of_the_disk_or_the_nodes_own_unless_the_config_has_one(
    served: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [commit(served, f"org/{name}", 100_000) for name in "abc"]
    for model in models[:2]:
        Weights().take(model).release()
    assert on_disk(models, Weights()) == ["org/a", "org/b"]  # four fifths of the disk hold more
    monkeypatch.setattr("collectors.models.weights.DISK_SHARE", 0.0)
    held = Weights().take(models[2])
    assert on_disk(models, Weights()) == ["org/c"]
    held.release()
    Weights(1).take(models[0]).release()
    assert on_disk(models, Weights()) == ["org/a", "org/c"]
    monkeypatch.setenv(DISK, str(250_000 / GIB))
    age(models[2], 100)
    Weights().take(models[1]).release()
    assert on_disk(models, Weights()) == ["org/a", "org/b"]
    monkeypatch.setenv(DISK, "much")
    with pytest.raises(ConfigError, match="ROUTERLAKE_DISK_GIB='much' is not a number of GiB"):
        Weights()


def test_full_disk_is_called_so_and_unused_models_make_room(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [commit(served, f"org/{name}", 100_000) for name in "ab"]
    Weights().take(models[0]).release()

    def full(model: ModelRef) -> ModelRef:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ModelError("cannot download org/b", "not_found") from error

    with monkeypatch.context() as patch:
        patch.setattr("collectors.models.pinning.fetch_hub", full)
        with pytest.raises(UnreachableError, match=r"cannot be fetched: the disk of .* is full: ") as error:
            Weights().take(models[1])
    assert error.value.kind == "disk_full"
    assert "org/a" not in on_disk(models, Weights())
    Weights().take(models[1]).release()


def test_models_beyond_the_quota_go_the_longest_unused_first_and_one_in_use_never(served: Hub) -> None:
    models = [commit(served, f"org/{name}", 100_000) for name in "abc"]
    quota = Weights(250_000 / GIB)
    a, b = quota.take(models[0]), quota.take(models[1])
    age(models[0], 100)
    age(models[1], 50)
    b.release()
    c = quota.take(models[2])  # a is older, but in use
    assert on_disk(models, quota) == ["org/a", "org/c"]
    assert Path(a.model.path or "", "model.safetensors").read_bytes().startswith(b"org/a")
    a.release()
    again = quota.take(models[1])
    assert on_disk(models, quota) == ["org/b", "org/c"]
    assert downloads(served) == {"org/a": 1, "org/b": 2, "org/c": 1}
    assert not Path(a.model.path or "").exists()
    c.release()
    again.release()


def test_model_used_by_a_process_that_was_killed_may_go(served: Hub) -> None:
    model, other = commit(served, "org/a", 100_000), commit(served, "org/b", 100_000)
    Weights().take(model).release()
    [record] = _records()
    code = (
        "import fcntl, os, sys\n"
        f"lock = os.open({str(record.with_suffix('.used'))!r}, os.O_RDWR); fcntl.flock(lock, fcntl.LOCK_SH)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as holder:  # type: ignore[call-overload]
        assert holder.stdout.readline() == b"held\n"
        held = Weights(0).take(other)
        assert len(_records()) == 2  # one used there, one here
        holder.kill()
        holder.wait()
    held.release()
    Weights(0).take(other).release()
    assert len(_records()) == 2  # nothing was downloaded, so nobody looked
    Weights(0).take(commit(served, "org/c")).release()
    assert on_disk([model, other], Weights()) == []


def test_model_that_lay_in_the_hub_cache_already_is_never_deleted(served: Hub) -> None:
    from huggingface_hub import snapshot_download

    model, other = commit(served, "org/a", 100_000), commit(served, "org/b", 100_000)
    folder = Path(snapshot_download("org/a", revision=model.revision))
    Weights().take(model).release()
    Weights(0).take(other).release()
    assert (folder / "model.safetensors").exists()


def test_model_of_two_names_is_one_to_delete_and_stays_while_either_uses_it(served: Hub) -> None:
    model, other = commit(served, "org/a", 100_000), commit(served, "org/b", 100_000)
    Weights().take(model).release()
    held = Weights().take(replace(model, name="renamed"))
    Weights(0).take(other).release()
    assert (Path(held.model.path or "") / "model.safetensors").exists()
    held.release()
    Weights(0).take(commit(served, "org/c")).release()
    assert not Path(held.model.path or "").exists()


def test_full_disk_at_the_record_is_waited_for(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    model = commit(served, "org/a")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(UnreachableError, match="No space left"):
            Weights().take(model)
    Weights().take(model).release()
    Weights(0).take(commit(served, "org/b")).release()
    assert on_disk([model], Weights()) == []  # it was ours all the same


def test_folder_is_held_without_a_lock_and_still_proven(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    from collectors.models.pinning import fingerprint

    model = ModelRef("m", str(folder), fingerprint(folder), str(folder))
    assert Weights(0).take(model).model == model
    with pytest.raises(ModelError, match="changed"):
        Weights(0).take(replace(model, revision="files-0"))


#: Damage that shows in the files alone.
PLAUSIBLE: list[Any] = [{"files": {"a\0b": 1}}, {"path": "/etc", "files": {"hostname/x": 1}}]


@pytest.mark.parametrize(
    "damage",
    [
        {"files": {}},
        {"files": {"model.safetensors": "1000"}},
        *PLAUSIBLE,
        {"path": 5},
        {"source": "org/another"},
        {"revision": None},
        [],
        b"\xff",
        b'{"files',
        b"[" * 100_000,
    ],
    ids=lambda damage: repr(damage)[:30],
)
def test_damaged_record_counts_as_not_fetched(
    served: Hub, caplog: pytest.LogCaptureFixture, damage: dict[str, Any] | list[Any] | bytes
) -> None:
    model = commit(served, "org/a", 1000)
    held = Weights().take(model)
    held.release()
    [record] = _records()
    facts = json.loads(record.read_bytes())
    changed = {**facts, **damage} if isinstance(damage, dict) else damage
    record.write_bytes(changed if isinstance(changed, bytes) else json.dumps(changed).encode())
    Weights(1).take(other := commit(served, "org/b")).release()  # who looks at the quota does not fall over it
    again = Weights(1).take(model)
    assert again.model.path == held.model.path
    assert json.loads(record.read_bytes()) == facts
    if damage not in PLAUSIBLE:
        assert f"{record} is damaged: its model will be fetched again" in caplog.text
    again.release()
    assert on_disk([model, other], Weights()) == ["org/a", "org/b"]


def test_damaged_copy_is_fetched_again(served: Hub) -> None:
    model = commit(served, "org/a", 1000)
    held = Weights().take(model)
    held.release()
    weights = Path(held.model.path or "") / "model.safetensors"
    weights.resolve().unlink()
    again = Weights().take(model)
    assert (Path(again.model.path or "") / "model.safetensors").stat().st_size == 1000
    again.release()
