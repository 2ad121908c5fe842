"""The compact command: its output, its exit codes, and bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from collectors.lake.holdings import standing_damage
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.publish.card import Description
from collectors.publish.version import build_version
from pipelines import compact, publish
from pipelines.compact import main
from schemas.failures import UnreachableError
from tests.helpers.filled_lakes import everything, plain_lake
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.thorough import long_only


def test_compact_command_folds_then_has_nothing_to_do_then_prunes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = plain_lake(str(tmp_path)).lake
    before = everything(lake)
    assert main(["--lake", str(tmp_path)]) == 0
    assert "compaction 1: 6 shards folded" in capsys.readouterr().out
    assert main(["--lake", str(tmp_path)]) == 0
    assert "nothing to fold" in capsys.readouterr().out
    assert main(["--lake", str(tmp_path), "--prune"]) == 0
    shown = capsys.readouterr().out
    assert "pruned: 0 shards" in shown
    assert "more can be pruned after" in shown
    assert main(["--lake", str(tmp_path), "--prune", "--keep-hours", "0"]) == 0
    assert "pruned: 6 shards" in capsys.readouterr().out
    assert everything(lake) == before


def test_compact_command_damaged_shard_is_exit_1_until_it_is_pruned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain_lake(str(tmp_path))
    damaged = next((tmp_path / "shards").glob("task=*/*.parquet"))
    damaged.write_bytes(b"PAR1")
    assert main(["--lake", str(tmp_path)]) == 1
    assert damaged.name in capsys.readouterr().out
    assert main(["--lake", str(tmp_path), "--prune"]) == 0
    assert not damaged.exists()
    assert main(["--lake", str(tmp_path)]) == 0


@pytest.mark.parametrize("table", ["run_ends", "gpu_prices", "price_names", "rejects", "runs"])
def test_compact_command_prunes_a_damaged_object_of_any_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str
) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    lake.run(BuiltCell())
    damaged = f"{table}/damaged.parquet"
    lake.lake.create(damaged, b"?")
    view = "runs" if table == "run_ends" else table
    ask(lake.lake, lambda con, _: con.execute(f"FROM {view}").fetchall(), only=[view])
    named = "SELECT file FROM failures WHERE kind = 'damaged_file'"
    assert ask(lake.lake, lambda con, _: con.execute(named).fetchall(), only=["failures"]) == [(damaged,)]
    assert main(["--lake", lake.lake.uri, "--prune"]) == 0
    assert "passed over" not in capsys.readouterr().err
    assert not lake.lake.has(damaged)
    assert standing_damage(lake.lake) == {}


def test_compact_command_wrong_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lake", str(tmp_path / "nowhere")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    lake = plain_lake(str(tmp_path / "lake")).lake
    (tmp_path / "s").mkdir()
    build_version(lake, tmp_path / "s", Description())
    assert main(["--lake", str(tmp_path / "s")]) == 2
    assert "never changes" in capsys.readouterr().err
    for hours in ("-1", "x", "1e9", "nan"):
        with pytest.raises(SystemExit):
            main(["--lake", lake.uri, "--prune", f"--keep-hours={hours}"])


def test_compact_command_lake_that_is_copied_reads_the_same(tmp_path: Path) -> None:
    lake = plain_lake(str(tmp_path / "lake")).lake
    assert main(["--lake", lake.uri]) == 0
    shutil.copytree(tmp_path / "lake", tmp_path / "copy")
    assert everything(Lake(str(tmp_path / "copy"))) == everything(lake)


def test_compact_command_verify_names_a_damaged_object_with_advice_until_it_is_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = plain_lake(str(tmp_path))
    for task in ("t", "u"):
        builder.items(task, "i0", 10)
    assert main(["--lake", str(tmp_path), "--verify"]) == 0
    assert ": 0 damaged or missing" in capsys.readouterr().out
    shard = next((tmp_path / "shards").glob("task=*/*-g0-*.parquet"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(bytes(data))
    assert main(["--lake", str(tmp_path), "--verify"]) == 1
    shown = capsys.readouterr().out
    assert f"damaged: {shard.relative_to(tmp_path)}: its bytes are not those that were written" in shown
    assert "compact.py --verify --prune sets it aside, and collect.py collects its rows again" in shown
    assert main(["--lake", str(tmp_path), "--verify", "--prune"]) == 0
    assert "1 damaged objects set aside" in capsys.readouterr().out
    assert main(["--lake", str(tmp_path), "--verify"]) == 0


@long_only
def test_compact_command_verifies_a_published_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "to"
    to.mkdir()
    build_version(plain_lake(str(tmp_path / "lake")).lake, to, Description(), "to")  # the name of its folder
    assert main(["--lake", str(to), "--verify"]) == 0
    (to / "packed" / "items.parquet").write_bytes(b"PAR1")
    capsys.readouterr()
    assert main(["--lake", str(to), "--verify"]) == 1
    assert "damaged: packed/items.parquet: its 4 bytes differ" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "calls"), [("compact", 3), ("publish", 3), ("build_version", 3)])
def test_compacting_and_publishing_wait_for_a_store_that_is_away(
    name: str, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run does: the third try succeeds."""
    command = compact if name == "compact" else publish
    real, tries = getattr(command, name), []

    def away(*args: object, **options: object) -> object:
        tries.append(name)
        if len(tries) < calls:
            raise UnreachableError("the store does not answer")
        return real(*args, **options)

    monkeypatch.setattr(command, name, away)
    monkeypatch.setattr("pipelines.fleet.waiting.time.sleep", lambda seconds: None)
    lake = ["--lake", plain_lake(str(tmp_path / "lake"), 1).lake.uri]
    assert command.main(lake if name == "compact" else [*lake, "--to", str(tmp_path / "out")]) == 0
    assert len(tries) == calls
