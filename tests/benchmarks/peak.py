"""What a process took, told by itself at its end: CPU-seconds and peak memory."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path


def peak_memory() -> int:
    """Bytes, of this process. Not ru_maxrss, which begins with what the process had that started this one."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def tell() -> None:
    """Writes for `told`, to stderr, what this process took so far."""
    print(f"measured {time.process_time()} {peak_memory()}", file=sys.stderr)


def told(stderr: str) -> tuple[float, int]:
    """CPU-seconds and bytes that a process told last."""
    cpu, peak = re.findall(r"measured (\S+) (\d+)", stderr)[-1]
    return float(cpu), int(peak)
