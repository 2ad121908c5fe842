"""The bill of materials names what is installed."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.helpers.locks import pinned
from tests.helpers.runs import ROOT


def test_sbom_names_every_package_of_the_lock_with_its_version() -> None:
    done = subprocess.run([sys.executable, ROOT / "infra/sbom.py"], capture_output=True, check=True)
    bill = json.loads(done.stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    versions = {one["name"]: one["version"] for one in bill["components"]}
    for name in ("duckdb", "pyarrow", "ray", "types-pyyaml"):
        assert versions[name] == pinned("cpu", name)
    assert len(versions) == len(bill["components"])
    assert {one["purl"] for one in bill["components"]} >= {f"pkg:pypi/duckdb@{versions['duckdb']}"}
