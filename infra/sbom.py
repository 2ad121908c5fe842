#!/usr/bin/env python3
"""Writes a bill of materials of this environment, as CycloneDX 1.6: every installed package with version and licence.

Run by `make sbom`, or inside an image: docker run --entrypoint python IMAGE - < infra/sbom.py > sbom.json
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from typing import Any


def component(one: importlib.metadata.Distribution) -> dict[str, Any]:
    name = re.sub(r"[-_.]+", "-", one.name).lower()
    found = {"type": "library", "name": name, "version": one.version, "purl": f"pkg:pypi/{name}@{one.version}"}
    licence = one.metadata.get("License-Expression") or one.metadata.get("License")
    if licence and len(licence) < 200:
        kind = "expression" if one.metadata.get("License-Expression") else "license"
        found["licenses"] = [{kind: licence} if kind == "expression" else {kind: {"name": licence}}]
    return found


def bill() -> dict[str, Any]:
    installed = {one.name: component(one) for one in importlib.metadata.distributions() if one.name}
    components = sorted(installed.values(), key=lambda one: one["name"])
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1)
