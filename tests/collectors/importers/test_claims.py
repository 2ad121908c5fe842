"""One import of a source at a time, and whose claim may be taken over."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from collectors.importers.claims import claimed
from collectors.lake.store import Lake
from schemas.failures import ConfigError
from schemas.identity import digest
from tests.helpers.importing import COLUMNS, imported, table, verdicts


def test_ingest_of_two_who_find_a_dead_claim_lets_one_in(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = json.dumps({"source": "s", "host": socket.gethostname(), "process": process.pid}).encode()
    name = f"imports/claim-{digest('s')}.json"
    assert lake.create(name, dead)
    with claimed(lake, "s"):
        mine = lake.read(name)
        # The other one read the dead claim before, and would remove it now.
        lake.remove([name])
        lake.create(name, dead)
        with pytest.raises(ConfigError, match="began in this moment"), claimed(lake, "s"):
            pass
        lake.remove([name])
        lake.create(name, mine)
    with claimed(lake, "s"):
        pass


def test_ingest_beside_another_of_the_same_source_is_refused_and_a_dead_ones_claim_is_taken(tmp_path: Path) -> None:
    path, lake = table(tmp_path / "t.parquet", verdicts()), Lake(str(tmp_path / "lake")).open_for_writing()
    name = f"imports/claim-{digest('table')}.json"
    for process, host in ((os.getpid(), socket.gethostname()), (1, "another-host")):
        assert lake.create(name, json.dumps({"host": host, "process": process}).encode())
        with pytest.raises(ConfigError, match=r"is at work.*or if it is not, remove .*claim-"):
            imported("table", path, tmp_path / "lake", options=COLUMNS)
        lake.remove([name])
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    lake.create(name, json.dumps({"host": socket.gethostname(), "process": int(gone.stdout)}).encode())
    assert imported("table", path, tmp_path / "lake", options=COLUMNS).total.records == 6
    assert not lake.has(name)
