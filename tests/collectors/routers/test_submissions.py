"""Submissions of anybody: what fits a version is on its board, and what does not is named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.lake.store import Lake
from collectors.publish.card import Description
from collectors.publish.publishing import publish
from collectors.publish.version import build_version
from collectors.routers.checking import Basis, PublishedBasis
from collectors.routers.open_board import _bases, _short, as_json, build
from collectors.routers.submissions import read_submission
from collectors.routers.trial import Fold
from pipelines.publish import main
from schemas.failures import ConfigError
from tests.helpers.importing import COLUMNS, imported, table
from tests.helpers.routed_worlds import world
from tests.helpers.sent import FAIR, ITEMS, answers, choices, right_or_wrong, send
from tests.helpers.thorough import long_only


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> str:
    return right_or_wrong(tmp_path_factory.mktemp("board"))


def test_check_names_version_pool_split_prices_choices_and_leakage(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = choices(["a"] * 60)
    assert main(["check", str(send(tmp_path / "in", data)), "--version", version]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"submission mine, SHA-256 {hashlib.sha256(data).hexdigest()}"
    beginnings = [line.split(" ")[0].rstrip(":") for line in shown]
    assert beginnings == ["submission", "version", "pool", "split", "prices", "choices", "leakage"]
    assert f"60 of {ITEMS}; 20 are missing" in shown[5]
    assert "none is seen" in shown[6]


def test_check_of_the_oracles_choices_says_that_they_know_the_answers(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = answers()
    best = [max(scores, key=lambda model: scores[model][item]) for item in range(ITEMS)]
    assert main(["check", str(send(tmp_path / "in", choices(best))), "--version", version, "--json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert not value["fits"]
    assert value["faults"][0].startswith("leakage:")


def test_check_of_a_name_that_every_board_has_is_told_what_the_board_tells(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = send(tmp_path / "in", name="Best-Constant")
    assert main(["check", str(path), "--version", version, "--json"]) == 1
    faults = json.loads(capsys.readouterr().out)["faults"]
    assert faults == build(tmp_path / "in", PublishedBasis(version)).refused["mine.json"]
    assert faults == ["the name 'Best-Constant' is taken"]


FAULTS: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "unknown item": (b"item,model\n0,a\n900,a\n", {}, "line 3: item '900' is not among"),
    "unknown model": (b"item,model\n0,gpt-x\n", {}, "mine.csv, line 2: mine chose 'gpt-x'"),
    "doubled": (b"item,model\n0,a\n0,b\n", {}, "line 3: mine chose b for item 0"),
    "no model": (b"item,model\n0,\n", {}, "line 2: model is empty"),
    "nan": (b"item,model\nnan,NaN\n", {}, "item 'nan'"),
    "two routers": (b"item,model,router\n0,a,x\n0,b,y\n", {}, "2 routers"),
    "another version": (FAIR, {"version": "9.9"}, "it is for version 9.9"),
    "other prices": (FAIR, {"prices": "0" * 16}, "other prices"),
    "no such pool": (FAIR, {"pool": "best"}, "no 'best' is in the version; the version keeps no pool"),
    "records that are not there": (FAIR, {"include": "imported"}, "no imported cell with a score; the version keeps"),
    "no such split": (FAIR, {"split": "nothing"}, "split: no 'nothing' is in the version; those it has: none"),
    "no rows": (b"item,model\n", {}, "no rows"),
    "no table": (b"\x00\xff\x00", {}, "mine.csv"),
    "markup": (b"item,model\n0,<script>alert(1)</script>\n", {}, "script"),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("kind", FAULTS)
def test_faulty_choices_are_on_no_board_and_named(kind: str, version: str, tmp_path: Path) -> None:
    data, stated, reason = FAULTS[kind]
    send(tmp_path / "in", data, **stated)
    made = build(tmp_path / "in", PublishedBasis(version))
    assert not made.boards
    [why] = made.refused["mine.json"]
    assert reason in why
    assert str(tmp_path) not in why
    assert " --" not in why.replace("publish.py --pools", ""), "options of other commands"


STATED: dict[str, tuple[dict[str, Any], str]] = {
    "a name that is a formula": ({"name": "=1+1"}, "name: expected"),
    "a name that is a path": ({"name": "../../etc"}, "name: expected"),
    "markup as a name": ({"name": "<b>x</b>"}, "name: expected"),
    "a long name": ({"name": "x" * 81}, "name: expected"),
    "a file elsewhere": ({"file": "../mine.csv"}, "file: expected"),
    "a file by its path": ({"file": "/etc/passwd.csv"}, "file: expected"),
    "a file that is not there": ({"file": "other.csv"}, "No such file"),
    "another digest": ({"sha256": "0" * 64}, "its SHA-256 is"),
    "a condition as a pool": ({"pool": "true) OR (true"}, "pool: expected"),
    "a cost of NaN": ({"usd_per_query": float("nan")}, "usd_per_query: expected"),
    "a cost below 0": ({"usd_per_query": -1}, "usd_per_query: expected"),
    "a huge cost": ({"usd_per_query": 10**400}, "usd_per_query: expected"),
    "an unknown key": ({"score": 1.0}, "no key 'score'"),
    "an address that is none": ({"url": "javascript:alert(1)"}, "url: expected"),
    "lines in a text": ({"by": "a\nb"}, "by: expected"),
}


@pytest.mark.parametrize("kind", STATED)
def test_statement_with_what_it_may_not_hold_is_refused(kind: str, tmp_path: Path) -> None:
    stated, reason = STATED[kind]
    path = send(tmp_path / "in")
    path.write_text(json.dumps({**json.loads(path.read_text()), **stated}))
    with pytest.raises(ConfigError, match=f"submission .*{reason}"):
        read_submission(path)


def test_statement_that_is_not_json_is_named_in_plain_words(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"{")
    with pytest.raises(ConfigError, match="it cannot be read: it is not JSON"):
        read_submission(path)


@pytest.mark.parametrize("data", [b"[" * 100_000, b"{", b"[]", b"\xff", b'{"name": 1, "name": 2}', b"x" * 70_000])
def test_statement_that_is_none_is_refused_in_a_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_submission(path)
    assert "\n" not in str(caught.value)


def test_choices_that_stand_for_too_much_are_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.parquet"
    values = pa.chunked_array([pa.array(["a"] * 1_000_000)] * 51)
    pq.write_table(pa.table({"model": values}), bomb, compression="zstd")
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(ConfigError, match="too many"):
        read_submission(bomb)
    line = tmp_path / "line.csv"
    line.write_bytes(b"item,model\n" + b"a" * (1 << 21))
    with pytest.raises(ConfigError, match="longer than"):
        read_submission(line)
    sparse = tmp_path / "sparse.csv"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="bytes are more"):
        read_submission(sparse)


def test_submission_by_a_link_is_refused(tmp_path: Path) -> None:
    path = send(tmp_path / "in")
    secret = tmp_path / "secret.csv"
    (tmp_path / "in/mine.csv").rename(secret)
    (tmp_path / "in/mine.csv").symlink_to(secret)
    with pytest.raises(ConfigError, match="it is a link"):
        read_submission(path)


def test_statement_by_a_link_is_refused_unread(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root:x:0:0")
    path = tmp_path / "link.json"
    path.symlink_to(secret)
    with pytest.raises(ConfigError, match="it is a link"):
        read_submission(path)


def test_board_of_a_folder_is_the_same_bytes_wherever_it_lies(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    for place in ("x", "y"):
        folder = tmp_path / place
        send(folder, FAIR, "fair", "fair.csv", by="Jane | Doe", usd_per_query=0.001)
        send(folder, choices(["a"] * ITEMS), "always a", "a.csv")
        send(folder, b"item,model\n0,z\n", "bad", "bad.csv")
        send(folder, FAIR, "a copy", "z.csv")
        assert main(["board", str(folder), "--version", version, "--out", str(tmp_path / f"out-{place}")]) == 1
        made.append([(tmp_path / f"out-{place}" / name).read_bytes() for name in ("board.json", "board.md")])
    assert made[0] == made[1]
    value = json.loads(made[0][0])
    [board] = value["boards"]
    assert {row["router"] for row in board["rows"]} == {"fair", "always a", "oracle", "best-constant"}
    assert {one["file"] for one in value["refused"]} == {"bad.json", "z.json"}
    assert "those of fair, question by question" in made[0][1].decode()
    assert "Traceback" not in capsys.readouterr().err
    scores = answers()
    [fair] = [row for row in board["rows"] if row["router"] == "fair"]
    expected = sum(scores["a" if item % 3 else "b"][item] for item in range(ITEMS)) / ITEMS
    assert fair["score"] == pytest.approx(expected)


def test_board_names_files_and_models_as_they_are_whatever_the_folder_is_called(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    send(Path("org"), b"item,model\n0,org/x\n", "mine", "a.csv")
    send(Path("org"), FAIR, "second", "b.csv", split="nope")
    send(Path("org"), FAIR, "third", "c.csv")
    rows = [f"{item},b" for item in reversed(range(ITEMS))]
    send(Path("org"), choices(["b"] * ITEMS), "fourth", "d.csv")
    send(Path("org"), "\n".join(["item,model", *rows]).encode(), "fifth", "e.csv")
    (tmp_path / os.fsdecode(b"org/bad\xff.json")).write_text("{}")
    made = build(Path("org"), PublishedBasis(version))
    assert "'org/x'" in made.refused["a.json"][0]
    assert made.refused["b.json"] == ["split: no 'nope' is in the version; those it has: none"]
    assert made.refused["e.json"] == ["its choices are those of fourth, question by question"]
    assert "bad\\udcff.json" in made.refused
    json.dumps(made.refused).encode()
    assert main(["board", "org", "--version", version, "--out", "out"]) == 1


def test_version_with_another_price_or_item_is_refused(version: str, tmp_path: Path) -> None:
    copy = tmp_path / Path(version).name
    shutil.copytree(version, copy)
    prices = next((copy / "prices").glob("*.parquet"))
    prices.write_bytes(prices.read_bytes()[:-1] + b"?")
    with pytest.raises(ConfigError, match="is not the one that was published: prices/"):
        PublishedBasis(str(copy))
    assert main(["site", str(copy), str(tmp_path / "site"), "--no-sql"]) == 2


@pytest.mark.parametrize(("value", "shown"), [(None, None), (0.0, "0.0000"), (2.27e-07, "0.00000023"), (1.5, "1.5000")])
def test_board_shows_digits_of_the_smallest_cost(value: float | None, shown: str | None) -> None:
    assert _short(value, 4) == shown


def test_board_cheapest_is_the_least_mean_of_known_costs_in_training() -> None:
    questions = world(8)  # its first candidate is the cheapest
    usd = questions.pool.numbers["usd"]
    usd[np.arange(3), np.arange(3)] = np.nan  # each has one unknown cost
    usd[4:, 0] = 9.0  # dear on the test questions, which nobody knows in training
    fold = Fold(np.arange(4), np.arange(4, 8), 0)
    rows = dict(_bases(Basis(None, "all", None, questions, fold)))
    assert rows["cheapest"].tolist() == [0] * 4
    usd[:] = np.nan
    assert "cheapest" not in dict(_bases(Basis(None, "all", None, questions, fold)))


def test_board_with_two_of_one_name_has_the_first_alone(version: str, tmp_path: Path) -> None:
    send(tmp_path / "in", FAIR, "Mine", "a.csv")
    send(tmp_path / "in", choices(["b"] * ITEMS), "mine", "b.csv")
    send(tmp_path / "in", choices(["c"] * ITEMS), "oracle", "c.csv")
    made = build(tmp_path / "in", PublishedBasis(version))
    assert [list(found) for _, _, found in made.boards] == [["Mine"]]
    assert set(made.refused) == {"b.json", "c.json"}
    assert b"NaN" not in as_json(made, PublishedBasis(version))


@long_only
def test_board_of_one_pool_by_two_kinds_of_records_is_one(version: str, tmp_path: Path) -> None:
    send(tmp_path / "in", FAIR, "first", "a.csv", include="all")
    send(tmp_path / "in", choices(["b"] * ITEMS), "second", "b.csv", include="collected")
    send(tmp_path / "in", choices(["a"] * ITEMS), "third ", "c.csv")
    send(tmp_path / "in", choices(["c"] * ITEMS), "third", "d.csv")
    made = build(tmp_path / "in", PublishedBasis(version))
    assert [list(found) for _, _, found in made.boards] == [["first", "second", "third "]]
    assert "is taken" in made.refused["d.json"][0]
    [board] = json.loads(as_json(made, PublishedBasis(version)))["boards"]
    assert board["include"] == "all"
    assert {row.get("leakage") for row in board["rows"]} == {"none is seen", None}


def test_choices_for_two_splits_may_be_the_same_bytes(version: str, tmp_path: Path) -> None:
    basis = PublishedBasis(version)
    one = basis.basis(read_submission(send(tmp_path / "x")))
    basis._bases[None, None, "other"] = dataclasses.replace(one, split="other")
    send(tmp_path / "in", FAIR, "all", "a.csv")
    send(tmp_path / "in", FAIR, "of a split", "b.csv", split="other")
    made = build(tmp_path / "in", basis)
    assert (len(made.boards), made.refused) == (2, {})


def of_imports(place: Path) -> str:
    """A version that holds imported records alone."""
    verdicts = [
        (model, "quiz", f"q{item}", score) for model, scores in answers().items() for item, score in enumerate(scores)
    ]
    rows = table(place / "rows.parquet", verdicts)
    imported("table", rows, place / "lake", options=COLUMNS)
    lake = Lake(str(place / "lake"))
    (place / "s").mkdir()
    return publish(build_version(lake, place / "s", Description(), "1.0.0", include="imported"), str(place / "out"))[0]


@long_only
def test_check_of_plain_choices_takes_the_records_that_the_version_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = of_imports(tmp_path)
    path = tmp_path / "mine.csv"
    path.write_text("source_key,model\n" + "".join(f"q{item},a\n" for item in range(ITEMS)))
    assert main(["check", str(path), "--version", uri]) == 0
    assert "imported records: 3 candidates, 80 questions" in capsys.readouterr().out
    path.write_text("source_key,model\nq0,a\nq0,b\n")
    assert main(["check", str(path), "--version", uri]) == 1
    shown = capsys.readouterr()
    assert "mine.csv, line 3: mine chose b" in shown.out
    assert "--choices" not in shown.out
    assert shown.err.endswith("it does not fit: 1 fault\n")
    stated = send(tmp_path / "in", path.read_bytes(), include="collected")
    assert main(["check", str(stated), "--version", uri]) == 1
    assert "the version at " in capsys.readouterr().out


def test_board_of_what_is_no_folder_or_no_version_is_refused(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["board", str(tmp_path / "none"), "--version", version, "--out", str(tmp_path / "o")]) == 2
    assert main(["check", str(send(tmp_path / "in")), "--version", str(tmp_path)]) == 2
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "x", "/proc/x", tmp_path / ("x" * 300)):
        assert main(["board", str(tmp_path / "in"), "--version", version, "--out", str(out)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 6
