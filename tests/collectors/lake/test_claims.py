"""Claims on shards: exclusive, seen by other runs, void by the store's time, and never in the way for good."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from collectors.lake import layout
from collectors.lake.claims import CLAIM_SECONDS, Claims
from collectors.lake.store import Lake
from schemas.identity import ShardName
from tests.helpers.opened_lakes import uri

__all__ = ["uri"]  # fixture

CELL = "0123456789abcdef"
SHARD, NEXT = ShardName(CELL, 0, 0, 63), ShardName(CELL, 0, 64, 99)
RUNS = ("20260101T000000-00000001", "20260101T000000-00000002", "20260101T000000-00000003")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lake(uri: str) -> Lake:
    lake = Lake(uri).open_for_writing()
    for run in RUNS:
        lake.create(layout.run_name(run), b"a plan")
    return lake


def stored(lake: Lake) -> list[str]:
    """The claims' objects; a local S3 server also lists the folder that they were in."""
    return [name for name in lake.names(layout.CLAIMS) if layout.parse_claim(name)]


def on_another_machine(claims: Claims, monkeypatch: pytest.MonkeyPatch, shard: ShardName) -> bool:
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "another")
        return claims.take(shard)


def test_claim_is_exclusive_and_seen_by_others_alone(lake: Lake) -> None:
    first, second = Claims(lake, RUNS[0]), Claims(lake, RUNS[1])
    assert first.take(SHARD)
    assert first.take(SHARD)  # it has it already
    assert not second.take(SHARD)
    assert second.look(CELL, "t").claimed == [SHARD]
    assert first.look(CELL, "t").claimed == []
    assert Claims(lake, RUNS[1]).look("f" * 16, "t").claimed == []


def test_claim_of_a_committed_shard_is_gone_and_the_shard_is_seen(lake: Lake) -> None:
    first, second = Claims(lake, RUNS[0]), Claims(lake, RUNS[1])
    assert first.take(SHARD)
    lake.create(layout.shard_name("t", SHARD), b"records")
    first.drop(SHARD)
    first.tidy()
    seen = second.look(CELL, "t")
    assert (seen.committed, seen.claimed) == ([SHARD], [])
    assert stored(lake) == []


def test_claim_expires_unless_it_is_renewed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, clock = Claims(lake, RUNS[0], Clock()), Clock()
    others = Claims(lake, RUNS[1], clock)
    assert on_another_machine(mine, monkeypatch, SHARD)
    clock.now = CLAIM_SECONDS - 5
    assert others.look(CELL, "t").claimed == [SHARD]
    clock.now = CLAIM_SECONDS + 5
    assert others.look(CELL, "t").claimed == []
    assert others.take(SHARD)
    assert stored(lake) == [layout.claim_name(SHARD, n) for n in (0, 1)]


def test_claim_half_expired_is_renewed_and_all_its_objects_go(lake: Lake) -> None:
    clock = Clock()
    claims = Claims(lake, RUNS[0], clock)
    assert claims.take(SHARD)
    claims.renew()
    assert len(stored(lake)) == 1
    clock.now = CLAIM_SECONDS * 0.6
    claims.renew()
    assert len(stored(lake)) == 2
    claims.tidy(everything=True)
    assert stored(lake) == []


@pytest.mark.parametrize("why", ["ended", "process", "damaged"])
def test_claim_of_a_run_that_cannot_be_at_work_is_void(lake: Lake, why: str) -> None:
    who = {"run": RUNS[0], "host": "another", "process": 1}
    if why == "process":
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        who |= {"host": socket.gethostname(), "process": pid}
    lake.create(layout.claim_name(SHARD, 0), b"{" if why == "damaged" else json.dumps(who).encode())
    claims = Claims(lake, RUNS[1])
    if why == "ended":
        assert claims.look(CELL, "t").claimed == [SHARD]
        lake.create(layout.end_name(RUNS[0]), b"its end")
    assert claims.look(CELL, "t").claimed == []
    assert claims.take(SHARD)


def test_claims_where_objects_cannot_be_removed_stay_and_expire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    lake.create(layout.run_name(RUNS[0]), b"a plan")
    claims = Claims(lake, RUNS[0])
    assert claims.take(SHARD)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError("no")))
        claims.tidy(everything=True)
    assert claims.take(NEXT)
    claims.tidy(everything=True)  # it does not try again
    assert len(stored(lake)) == 2
