"""The catalog of 8,500 models against a hub on this machine: seconds, memory and calls of two runs."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from collectors.lake.store import Lake
from collectors.models.catalog_query import choose
from collectors.specs import CatalogSpec
from tests.benchmarks.peak import measured
from tests.helpers.model_hub import ModelHub, llama, model_hub, safetensors

ROOT = Path(__file__).parent.parent.parent
#: Header of a shard of a 7B model: 150 tensors, 17 kB.
SHARD = {f"model.layers.{n}.self_attn.q_proj.weight": [4096, 4096] for n in range(150)}
#: Runs the script without vLLM, which needs another process and is not measured.
CODE = """
import sys
import pipelines.catalog as catalog
from tests.benchmarks.peak import tell
catalog.installed_vllm = lambda: None
code = catalog.main(sys.argv[1:])
tell()
sys.exit(code)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=8500, help="models of the hub (default %(default)s)")
    parser.add_argument("--shards", type=int, default=3, help="weight files of each (default %(default)s)")
    args = parser.parse_args()
    with model_hub() as hub, tempfile.TemporaryDirectory() as folder:
        fill(hub, args.models, args.shards)
        lake = f"{folder}/lake"
        for what in ("first", "second"):
            report(what, hub, lake, args.models)
        started = time.monotonic()
        chosen = choose(Lake(lake), CatalogSpec(catalog="parameters < 15e9 AND downloads >= 1000 AND NOT gated"))
        print(f"a config's choice of {len(chosen):,} models: {time.monotonic() - started:.1f} s, no call")
        size = sum(file.stat().st_size for file in Path(lake, "models").iterdir())
        print(f"models/: {len(list(Path(lake, 'models').iterdir()))} objects, {size / 2**20:.1f} MiB")
    return 0


def fill(hub: ModelHub, models: int, shards: int) -> None:
    weights = {f"model-{n:05d}-of-{shards:05d}.safetensors": safetensors(SHARD) for n in range(1, shards + 1)}
    for number in range(models):
        own = {name: (head, size, f"{number:064d}") for name, (head, size, _) in weights.items()}
        hub.add(llama(f"org{number % 97}/model-{number}", weights=own, downloads=1000 + number))


def report(what: str, hub: ModelHub, lake: str, models: int) -> None:
    hub.asked.clear()
    started, mine = time.monotonic(), _cpu()
    done = subprocess.run(
        [sys.executable, "-c", CODE, "--lake", lake, "--min-downloads", "1000"],
        env={**os.environ, "HF_ENDPOINT": hub.endpoint, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, calls = time.monotonic() - started, hub.calls()
    cpu, memory = measured(done.stderr)
    pages = calls.pop("list")
    print(
        f"{what} run: {seconds:.0f} s, {cpu:.0f} s of CPU (the hub's: {_cpu() - mine:.0f}), "
        f"{memory / 2**20:.0f} MiB; {pages} pages and {sum(calls.values()) / models:.2f} calls per model"
    )


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
