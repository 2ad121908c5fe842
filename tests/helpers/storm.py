"""A storm over a cluster: workers, nodes and the driver of a run are killed at random, until all is collected.

Owns the kills and their moments, which are drawn from the items of the run, so that a number of kills fits a run of any
length. Knows nothing of the right results.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers import runs
from tests.helpers.raylets import Raylets, workers_of
from tests.helpers.slow_runs import committed

#: How often each is killed, of ten.
WEIGHTS = {"worker": 6, "node": 2, "driver": 2}
NODES = 3
#: A run without a commit for so many seconds hangs.
HANGS = 240.0


def configured(folder: Path, address: str, models: int, latency: float = 0.02) -> Path:
    """A run on all nodes of a cluster, in shards of about ten requests of `latency` seconds each.

    Each answered request is a byte in `folder`/asked.
    """
    options = {"latency_s": latency, "count_in": str(folder / "asked")}
    fleet = {"address": address, "first_shard_items": 4, "shard_seconds": 10 * latency, "gpus_per_worker": 0}
    names = [f"stub/storm-{at}" for at in range(models)]
    return runs.config(folder, models=names, engine={"name": "stub", "options": options}, fleet=fleet)


def asked(folder: Path) -> int:
    """Requests that engines answered for a `configured` run, whether or not anything came of it."""
    return (folder / "asked").stat().st_size


@dataclass
class Storm:
    """A run at `path` into `lake` that is disturbed `kills` times; `run` returns once it is done."""

    path: Path
    lake: Path
    cluster: Raylets
    items: int
    kills: int
    seed: int
    killed: Counter[str] = field(default_factory=Counter)
    drivers: int = 0
    seconds: float = 0.0

    def run(self) -> None:
        """Raises AssertionError where nothing goes on, or a driver ends otherwise than done or with failures."""
        started, draw = time.monotonic(), random.Random(self.seed)
        moments = sorted(draw.sample(range(1, int(self.items * 0.97)), self.kills))
        kinds = draw.choices([*WEIGHTS], [*WEIGHTS.values()], k=self.kills)
        driver = self._start()
        try:
            for moment, kind in zip(moments, kinds, strict=True):
                driver = self._wait(driver, moment)
                driver = self._kill(kind, driver, draw)
                self.killed[kind] += 1
            while self._finish(driver) != 0:
                driver = self._start()
        finally:
            driver.kill()
            self.seconds = time.monotonic() - started

    def _start(self) -> subprocess.Popen[bytes]:
        self.drivers += 1
        with open(self._log(), "wb") as log:
            command = [*runs.COLLECT, "--config", str(self.path), "--retry-failed"]
            return subprocess.Popen(command, cwd=runs.ROOT, stdout=log, stderr=log)

    def _log(self) -> Path:
        return self.path.with_name(f"driver-{self.drivers}.log")

    def _wait(self, driver: subprocess.Popen[bytes], items: int) -> subprocess.Popen[bytes]:
        """Until so many items are in the lake; a driver that gave up a model too early is started again."""
        held, since = committed(self.lake), time.monotonic()
        while held < items:
            if driver.poll() is not None:
                self._finish(driver)
                driver = self._start()
            time.sleep(0.02)  # between two looks
            if (now := committed(self.lake)) > held:
                held, since = now, time.monotonic()
            assert time.monotonic() - since < HANGS, f"nothing goes on: {self._log().read_text()[-3000:]}"
        return driver

    def _finish(self, driver: subprocess.Popen[bytes]) -> int:
        code = driver.wait(HANGS)
        assert code in (0, 1), f"exit code {code}: {self._log().read_text()[-3000:]}"
        return code

    def _kill(self, kind: str, driver: subprocess.Popen[bytes], draw: random.Random) -> subprocess.Popen[bytes]:
        if kind == "driver":
            driver.kill()
            driver.wait()
            return self._start()
        if kind == "node":
            self.cluster.take(draw.choice(self.cluster.nodes))
            self.cluster.add()
            return driver
        found: list[Any] = []
        until = time.monotonic() + HANGS
        while not found and driver.poll() is None:
            assert time.monotonic() < until, "no worker"
            found = [worker for node in self.cluster.nodes for worker in workers_of(node)]
        if found:
            runs.kill(draw.choice(found))
        return driver
