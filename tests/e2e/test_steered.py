"""What the runbook says of a run at work: it is paused and goes on, and loses a model on the way."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from pipelines import status
from tests.e2e.conftest import Cluster
from tests.helpers import runs
from tests.helpers.runs import ITEMS, collect_here
from tests.helpers.slow_runs import MODELS, committed, shards, slow_config
from tests.helpers.thorough import long_only


@long_only
@pytest.mark.slow
def test_run_is_paused_goes_on_and_its_next_leaves_a_model_out(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, log = tmp_path / "lake", tmp_path / "log"
    options = {"latency_s": 0.1}
    path = slow_config(tmp_path, cluster, options=options)
    driver = runs.start(["bash", "-c", f"exec {' '.join(runs.COLLECT)} --config {path} >{log} 2>&1"])

    def says(text: str) -> None:
        runs.wait_until(text, lambda: text in log.read_text() or driver.poll() is not None)
        assert text in log.read_text()

    runs.wait_until("work", lambda: committed(lake) > 0 or driver.poll() is not None)
    assert status.main(["--lake", str(lake), "--pause"]) == 0
    says("paused: engines end after the shards in hand")
    runs.wait_until("the shards in hand", lambda: not list((lake / "claims").glob("*-g0-*")))
    done = committed(lake)
    time.sleep(3)
    assert committed(lake) == done
    capsys.readouterr()
    assert status.main(["--lake", str(lake)]) == 0
    assert "paused, and " in capsys.readouterr().out
    assert status.main(["--lake", str(lake), "--resume"]) == 0
    says("resumed")
    runs.wait_until("more work", lambda: committed(lake) > done or driver.poll() is not None)
    driver.send_signal(signal.SIGTERM)
    assert runs.finish(driver).code == 143

    names = "SELECT cell_id FROM cells WHERE model IN ('stub/beta', 'stub/gamma')"
    cells = {row["cell_id"] for row in runs.query(lake, names)}
    done = sum(shard.last - shard.first + 1 for shard in shards(lake) if shard.cell_id in cells)
    rest = collect_here(capsys, slow_config(tmp_path, cluster, models=MODELS[1:]))
    assert rest.code == 0, rest.err
    [planned] = re.findall(r"to collect: (\d+) items", rest.out)
    assert int(planned) == 2 * 2 * ITEMS - done
    kept = runs.query(lake, "SELECT model, sum(attempted) AS items FROM coverage GROUP BY model ORDER BY model")
    assert [row["items"] for row in kept if row["model"] in MODELS[1:]] == [2 * ITEMS] * 2
