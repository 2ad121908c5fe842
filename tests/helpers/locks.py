"""What the lock files and pyproject.toml fix."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from tests.helpers.runs import ROOT


def pinned(lock: str, package: str) -> str:
    """The version of `package` in lock-cpu.txt or lock-gpu.txt ("cpu", "gpu"). Raises ValueError without one."""
    text = (ROOT / f"lock-{lock}.txt").read_text(encoding="utf-8")
    [version] = re.findall(rf"^{re.escape(package)}==([^\s;]+)", text, re.MULTILINE)
    return str(version)


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def project_version() -> str:
    return str(project()["version"])
