"""route.py: a board, a router that is kept and chooses, and stored splits, on a lake of imported records."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import matrix, route
from tests.helpers.importing import rows
from tests.helpers.routed_worlds import routed_lake, world

pytestmark = pytest.mark.slow  # each board starts a process that imports scikit-learn
OWN = """
import numpy as np

class Longest:
    def fit(self, queries, scores, costs, valid):
        self.best = int(np.nanmean(scores, axis=0).argmax())

    def route(self, queries, candidates):
        return [candidates[self.best] if "sum" in text else None for text in queries.texts]


class Raising(Longest):
    def fit(self, queries, scores, costs, valid):
        raise ArithmeticError("no fit")


class Ends(Longest):
    def fit(self, queries, scores, costs, valid):
        raise SystemExit(0)


class Sees(Longest):
    PEEKS = True


class Quiet:
    def fit(self, queries, scores, costs, valid):
        pass


class Lost(Quiet):
    def route(self, queries, candidates):
        return None


class Raises(Quiet):
    def route(self, queries, candidates):
        raise LookupError("no way")


class Deep(Quiet):
    def route(self, queries, candidates):
        return self.route(queries, candidates)


class Stops(Quiet):
    def route(self, queries, candidates):
        raise SystemExit(0)


class Unasked(Quiet):
    def route(self, queries, candidates):
        return queries.answers.observed["usd"].argmin(axis=1)
"""


class _Runs:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return routed_lake(tmp_path_factory.mktemp("routed"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("mine", None)  # of another test


def run(lake: Path, command: str, *argv: str) -> int:
    return route.main([command, "--lake", str(lake), "--include", "all", *argv])


def test_board_ranks_routers_and_one_of_the_users_own(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "routers.yaml").write_text(
        "routers: [best-constant, ridge, {name: own, router: 'mine:Longest', usd_per_query: 0.5}, "
        "{name: bad, router: 'mine:Raising'}]"
    )
    argv = ["--routers", "routers.yaml", "--out", "board", "--seeds", "2", "--processes", "1"]
    assert run(lake, "board", *argv) == 1
    out, err = capsys.readouterr()
    assert "8/8" in err
    assert "without figures: bad (raised: ArithmeticError" in out
    board = json.loads((tmp_path / "board" / "board.json").read_text())
    names = [row["router"] for row in board["rows"]]
    assert (names[0], names[-1]) == ("ridge", "bad")
    own = board["rows"][names.index("own")]
    assert own["abstained"] > 0
    assert own["usd"] > 0.5
    assert sorted(own["per_task"]) == ["first", "second"]
    assert (board["questions"], board["candidates"]) == (200, ["cheap", "maths", "verse"])
    for name in ("board.png", "curves.png"):
        assert (tmp_path / "board" / name).read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "board" / "board.json").read_bytes()
    assert run(lake, "board", *argv, "--format", "json") == 1
    assert "8 kept from before" in capsys.readouterr().err
    assert (tmp_path / "board" / "board.json").read_bytes() == before
    (tmp_path / "routers.yaml").write_text("routers: [best-constant, {name: bad, router: 'mine:Nothing'}]")
    assert run(lake, "board", *argv) == 2
    assert "no router 'mine:Nothing'" in capsys.readouterr().err


def test_kept_router_chooses_what_score_reads(lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lake, "fit", "--router", "ridge", "--out", "kept") == 0
    assert run(lake, "choose", "--kept", "kept", "--out", "choices.csv") == 0
    shown = capsys.readouterr().out
    assert "ridge: 200 choices, 0 abstained" in shown
    assert "it was fitted on 200 of these questions" in shown
    assert "threw away" not in shown
    assert shown.rstrip().endswith("--include all"), "the next command reads the same pool"
    assert run(lake, "fit", "--router", "cascade", "--out", "cascade") == 0
    assert run(lake, "choose", "--kept", "cascade", "--out", "cascade.csv") == 0
    assert re.search(r"it asked \d+ answers that it threw away, for .* USD a question", capsys.readouterr().out)
    argv = ["score", "--choices", "choices.csv", "--lake", str(lake), "--include", "all", "--json"]
    assert matrix.main(argv) == 0
    [first, second, every, by_task] = json.loads(capsys.readouterr().out)
    assert by_task["score"] == pytest.approx(every["score"]), "as many questions of each task"
    assert (first["items"], second["items"], every["items"]) == (100, 100, 200)
    assert every["score"] > every["best_score"]
    assert run(lake, "fit", "--router", "ridge", "--out", "kept") == 2
    assert "is there already" in capsys.readouterr().err
    (tmp_path / "kept" / "router.pkl").write_bytes(pickle.dumps(_Runs(str(tmp_path / "ran"))))
    assert run(lake, "choose", "--kept", "kept", "--out", "choices.csv") == 2
    assert "this machine did not fit that router" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert run(lake, "choose", "--kept", "kept", "--out", "choices.csv", "--allow-code") == 2
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("Raising", 1, "Raising: ArithmeticError: no fit"),
        ("Ends", 1, "Ends: SystemExit: 0"),
        ("Sees", 2, "Sees: it is a bound"),
        ("textwrap", 2, "the module mine has no textwrap"),
    ],
)
def test_fit_of_a_router_that_fails_is_one_line_and_keeps_nothing(
    lake: Path, tmp_path: Path, name: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    assert run(lake, "fit", "--router", f"mine:{name}", "--encoder", "none", "--out", "kept") == code
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "kept").exists()


def test_choose_of_a_router_that_fails_is_one_line_and_writes_nothing(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    for name, message in {
        "Quiet": "AttributeError: 'Quiet' object has no attribute 'route'",
        "Lost": "TypeError",
        "Raises": "LookupError: no way",
        "Deep": "RecursionError",
        "Stops": "SystemExit",
        "Unasked": "it reads 'usd' of answers that it did not ask for",
    }.items():
        assert run(lake, "fit", "--router", f"mine:{name}", "--encoder", "none", "--out", name) == 0
        assert run(lake, "choose", "--kept", name, "--out", "choices.csv") == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"route: {name}: {message}")
        assert not (tmp_path / "choices.csv").exists()
    assert run(lake, "fit", "--router", "mine:Longest", "--encoder", "none", "--out", "kept") == 0
    (tmp_path / "mine.py").write_text(f"{OWN}\n# changed")
    assert run(lake, "choose", "--kept", "kept", "--out", "choices.csv") == 0
    assert "its code is not what it was fitted with: mine is another now" in capsys.readouterr().out
    (tmp_path / "kept" / "router.json").write_text("{}")
    assert run(lake, "choose", "--kept", "kept", "--out", "choices.csv", "--allow-code") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_split_is_stored_once_and_a_board_uses_it(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert run(lake, "split", "--split", "task", "--seed", "3") == 0
    first, second = (line for line in capsys.readouterr().out.splitlines() if "stored" in line or "already" in line)
    assert (first, second) == ("stored in the lake (view splits)", "the lake had it already")
    [(name, rule, seed)] = rows(lake, "SELECT DISTINCT split, rule, seed FROM splits")
    assert (rule, seed) == ("task", 3)
    counts = dict(rows(lake, "SELECT part, count(DISTINCT task) FROM splits GROUP BY part"))
    assert counts == {"train": 1, "test": 1}
    argv = ["--stored", name, "--router", "best-constant", "--out", "board", "--processes", "1"]
    assert run(lake, "board", *argv) == 0
    board = json.loads((tmp_path / "board" / "board.json").read_text())
    assert (board["split"]["rule"], board["test_questions"]) == ("task", [100])
    assert run(lake, "board", "--stored", "nobody", "--router", "knn", "--out", "board") == 2
    assert "has no split 'nobody'" in capsys.readouterr().err


def test_scaling_draws_routers_beside_the_oracle(lake: Path, tmp_path: Path) -> None:
    argv = ["--router", "best-constant", "ridge", "--out", "out", "--draws", "1", "--processes", "1"]
    assert run(lake, "scaling", *argv) == 0
    points = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert sorted(points) == ["best-constant", "oracle", "ridge"]
    assert points["oracle"]["3"][0] >= points["ridge"]["3"][0]
    assert (tmp_path / "out" / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--router", "nobody"], "no router 'nobody'; there are random, cheapest"),
        (["--router", "textwrap:Nobody"], "the module textwrap has no Nobody"),
        (["--router", "knn", "knn"], "two routers have the name 'knn'"),
        (["--router", "knn", "--encoder", "no-such-folder"], "neither tfidf, minilm nor none"),
        (["--task", "third"], "no cell with a score of task third"),
        (["--split", "time"], "a split by time needs questions of two times"),
    ],
)
def test_board_wrong_input_is_one_line(
    lake: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lake, "board", "--out", "board", *argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("routers: []", "it needs a list `routers`"),
        ("routers: [knn, {router: knn}]", "two routers have the name 'knn'"),
        ("routers: [{router: knn, parameter: {}}]", "router 1: no key 'parameter'"),
        ("routers: [{router: knn, seconds: -1}]", "router 1: seconds: -1 is no number"),
        ("routers: [{name: x}]", "router 1: it needs `router`"),
        ("routers: [{router: knn, parameters: 3}]", "parameters are no mapping"),
        ("{", "while parsing"),
        ("routers: [{router: knn, parameters: {k: 2020-01-01}}]", "the value of 'k' is none that JSON has"),
        ("routers: [{router: knn, parameters: {k: [.nan]}}]", "the value of 'k' is none that JSON has"),
        ("routers: [{router: knn, parameters: {k: !!set {a}}}]", "the value of 'k' is none that JSON has"),
        ("routers: [{router: knn, parameters: {k: {1: !!binary aGk=}}}]", "the value of 'k' is none that JSON has"),
        ('routers: [{router: knn, parameters: {k: "\\ud800"}}]', "the value of 'k' is none that JSON has"),
        ("routers: [{router: knn, parameters: &a {k: *a}}]", "aliases are not read"),
        ("a: &a [1, 1]\nrouters: [*a]", "aliases are not read"),
        ("routers: [{router: knn, router: irt}]", "a key stands twice"),
        ('routers: [{router: knn, name: "\\ud800"}]', "router 1: name: '\\ud800' is no text"),
        ('routers: [{router: knn, name: "a\\nb"}]', "router 1: name: 'a\\nb' is no text"),
        ('encoder: "\\ud800"\nrouters: [knn]', "encoder: '\\ud800' is no name"),
        (f"routers: [{{router: knn, seconds: 1{'0' * 400}}}]", "is no number from 0.01 to 1,000,000,000"),
    ],
)
def test_board_wrong_file_names_the_entry(
    lake: Path, tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    assert run(lake, "board", "--out", "board", "--routers", "bad.yaml") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_worlds_of_tests_are_what_they_say() -> None:
    scores = world(2000).pool.scores
    assert np.abs(scores.mean(axis=0) - [0.4, 0.55, 0.55]).max() < 0.05
