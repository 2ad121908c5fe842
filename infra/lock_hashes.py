#!/usr/bin/env python3
"""Writes into a lock the SHA-256 of every file of each release that fits Linux on x86_64 and the Pythons named.

After a change of versions:
    python3 infra/lock_hashes.py lock-cpu.txt 3.11 3.12 3.13
    python3 infra/lock_hashes.py lock-gpu.txt 3.11

uv asks the package index (UV_DEFAULT_INDEX, else PyPI). A source distribution counts where a release has no wheel that
fits. A release that the index lacks, as torch's builds for CPUs, keeps the hashes that stand in the lock.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)")


def asked(pins: list[str], python: str) -> dict[str, set[str]]:
    """Package to the hashes of its files, as the index states them."""
    with tempfile.TemporaryDirectory() as folder:
        asking, answer = Path(folder, "pins.in"), Path(folder, "pylock.toml")
        asking.write_text("\n".join(pins), encoding="utf-8")
        options = ["--no-deps", "--format", "pylock.toml", "--python-version", python, "--output-file", str(answer)]
        options += ["--python-platform", "x86_64-manylinux_2_40", "--quiet"]
        subprocess.run(["uv", "pip", "compile", str(asking), *options], check=True)
        packages = tomllib.loads(answer.read_text(encoding="utf-8"))["packages"]
    files = {one["name"]: one.get("wheels") or [one["sdist"]] for one in packages}
    return {name: {one["hashes"]["sha256"] for one in found} for name, found in files.items()}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def hashed(lines: list[str], pythons: list[str]) -> list[str]:
    """`lines` of a lock with their hashes, one line a package."""
    public = [found.group() for line in lines if (found := PIN.match(line)) and "+" not in found[2]]
    found = [asked(public, python) for python in pythons]
    out = []
    for line in lines:
        if (pin := PIN.match(line)) and "+" not in pin[2]:
            hashes = sorted(set().union(*(one.get(plain(pin[1]), set()) for one in found)))
            line = " ".join([pin.group(), *(f"--hash=sha256:{one}" for one in hashes)])
        out.append(line)
    return out


if __name__ == "__main__":
    lock = Path(sys.argv[1])
    lines = hashed(lock.read_text(encoding="utf-8").splitlines(), sys.argv[2:])
    lock.write_text("\n".join(lines) + "\n", encoding="utf-8")
