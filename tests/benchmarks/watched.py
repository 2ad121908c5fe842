"""Runs a command and measures seconds, CPU-seconds and peak memory of all its processes."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil


@dataclass
class Watched:
    seconds: float = 0.0
    #: Of all its processes, as far as a look every 0.2 s sees them.
    cpu: float = 0.0
    #: Bytes, resident, of all its processes together at the worst moment.
    peak: int = 0
    _cpu_by_process: dict[tuple[int, float], float] = field(default_factory=dict)

    def look(self, root: psutil.Process) -> None:
        resident = 0
        for process in [root, *root.children(recursive=True)]:
            try:
                times, born = process.cpu_times(), process.create_time()
                resident += process.memory_info().rss
            except psutil.Error:
                continue
            self._cpu_by_process[process.pid, born] = times.user + times.system
        self.cpu, self.peak = sum(self._cpu_by_process.values()), max(self.peak, resident)

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s, {self.cpu:.0f} s CPU, {self.peak / 2**30:.1f} GiB"


def watch(command: list[str], log: Path, **environment: str) -> Watched:
    """Runs `command` to its end. Raises SystemExit with the end of its log when it fails."""
    watched, started = Watched(), time.monotonic()
    with open(log, "w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=os.environ | environment)
        root = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                watched.look(root)
            except psutil.Error:
                break
            time.sleep(0.2)
        code = process.wait()
    watched.seconds = time.monotonic() - started
    if code:
        raise SystemExit(f"{' '.join(command[:3])} failed ({code}):\n{log.read_text(encoding='utf-8')[-3000:]}")
    return watched
