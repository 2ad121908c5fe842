"""A board whose trials run on a Ray cluster, killed half-way."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pipelines.route import main
from tests.e2e.conftest import Cluster
from tests.helpers.routed_worlds import routed_lake
from tests.helpers.runs import ROOT, alive, command_line, start, tree, wait_until

ROUTERS = """
routers:
  - ridge
  - random
  - {name: bad, router: "mine:Raising"}
  - {name: slow, router: "mine:Slow"}
"""
MINE = """
import time

class Slow:
    def fit(self, queries, scores, costs, valid):
        time.sleep(1.5)

    def route(self, queries, candidates):
        return [candidates[len(text) % 3] for text in queries.texts]


class Raising(Slow):
    def fit(self, queries, scores, costs, valid):
        raise ArithmeticError("no fit")
"""


@pytest.mark.slow
def test_board_on_a_cluster_goes_on_after_a_kill_with_the_digits_of_one_machine(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = routed_lake(tmp_path)
    (tmp_path / "routers.yaml").write_text(ROUTERS)
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    argv = ["board", "--lake", str(lake), "--include", "all", "--routers", "routers.yaml", "--seeds", "2"]
    spread = [*argv, "--out", "spread", "--address", cluster.address]

    killed = start([sys.executable, str(ROOT / "pipelines" / "route.py"), *spread], cwd=tmp_path)
    trials = tmp_path / "spread" / "trials"
    wait_until("a trial is kept", lambda: list(trials.glob("[!.]*.npz")) or killed.poll() is not None)
    assert killed.poll() is None, killed.texts()
    started = [one for one in tree(cluster.pid) if "collectors.routers.process" in " ".join(command_line(one))]
    assert started
    killed.kill()
    killed.wait()
    killed.texts()
    wait_until("what it started is gone", lambda: not any(map(alive, started)))

    assert main(spread) == 1
    kept = re.search(r"(\d) kept from before", capsys.readouterr().err)
    assert kept
    assert 1 <= int(kept[1]) < 8
    assert main([*argv, "--out", "here", "--processes", "1"]) == 1
    boards = [(tmp_path / out / "board.json").read_bytes() for out in ("spread", "here")]
    assert boards[0] == boards[1]
