"""Lets a process print its CPU-seconds and peak memory at its end."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path


def peak_memory() -> int:
    """Peak memory of this process in bytes. Not ru_maxrss, which begins with the memory of the parent process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def tell() -> None:
    """Writes CPU-seconds and memory of this process to stderr, for `measured`."""
    print(f"measured {time.process_time()} {peak_memory()}", file=sys.stderr)


def measured(stderr: str) -> tuple[float, int]:
    """The CPU-seconds and bytes that a process wrote last."""
    cpu, peak = re.findall(r"measured (\S+) (\d+)", stderr)[-1]
    return float(cpu), int(peak)
