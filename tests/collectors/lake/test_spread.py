"""Compactions and verifications whose work other processes do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.lake import parts
from collectors.lake.compaction import compact
from collectors.lake.holdings import newest_manifest
from collectors.lake.layout import is_part_commit
from collectors.lake.store import Lake
from collectors.lake.verifying import verify
from collectors.publish.version import build_version
from schemas.failures import StorageError
from tests.helpers.filled_lakes import DESCRIPTION, add, contents, filled
from tests.helpers.spreading import pickled


def objects(lake: Lake) -> dict[str, Any]:
    """Name -> bytes of all objects of compactions; of a manifest all but its time and its seal."""
    found: dict[str, Any] = contents(Path(lake.root, "compact"))
    for name in (name for name in found if name.endswith("manifest.json")):
        found[name] = json.loads(found[name]) | {"created_at": "", "seal": ""}
    return found


@pytest.fixture
def in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is a group of its own."""
    monkeypatch.setattr(parts, "TOGETHER_ROWS", 1)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_spread_compaction_and_version_have_the_bytes_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    if apart:
        monkeypatch.setattr(parts, "TOGETHER_ROWS", 1)
    lakes = [filled(tmp_path / name) for name in ("here", "spread")]
    for spread, builder in zip((None, pickled), lakes, strict=True):
        assert compact(builder.lake, spread=spread).folded == 5
        add(builder, "a", "t", 3, 0, 2)  # a second compaction, of a part and a shard
        assert compact(builder.lake, spread=spread).folded == 1
    assert objects(lakes[0].lake) == objects(lakes[1].lake)
    folders = [tmp_path / "version-here", tmp_path / "version-spread"]
    for folder, spread in zip(folders, (None, pickled), strict=True):
        folder.mkdir()
        build_version(lakes[0].lake, folder, DESCRIPTION, spread=spread)
    assert contents(folders[0]) == contents(folders[1])


def test_spread_compaction_that_ends_half_way_keeps_its_parts_and_writes_no_manifest(
    tmp_path: Path, in_groups: None
) -> None:
    whole, broken = filled(tmp_path / "whole").lake, filled(tmp_path / "broken").lake
    compact(whole)

    def ends(function: Callable[[Any], Any], works: Iterable[Any]) -> Iterator[Any]:
        for result in pickled(function, works):
            yield result
            raise StorageError("the store is away")

    with pytest.raises(StorageError, match="the store is away"):
        compact(broken, spread=ends)
    assert newest_manifest(broken) is None
    there = [name for name in broken.names("compact") if is_part_commit(name)]
    assert len(there) == 1
    before = broken.read(there[0])
    compact(broken, spread=pickled)
    assert broken.read(there[0]) == before
    assert objects(whole) == objects(broken)


def test_spread_verification_names_what_one_process_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.lake.inventory.BATCH", 3)
    lake = filled(tmp_path / "lake").lake
    compact(lake)
    [name, *_] = [name for name in lake.names("shards") if "-g1-" in name]
    path = Path(lake.local_path(name))
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 20)
    here, spread = verify(lake), verify(lake, spread=pickled)
    assert name in here.damaged
    assert spread == here
