"""The status command: its output on a run, its formats, and bad input."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from collectors.runs.status import RunStatus
from collectors.runs.watching import RunWatch
from pipelines import status as module
from pipelines.status import main
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

ROOT = Path(__file__).parents[2]
A, B = BuiltCell(model="[bold]model-a"), BuiltCell(model="model-b")
FACTS = {"host": "h", "gpu": None, "engine_seconds": 2.0, "engine_tokens": 100, "stages": {"engine": 2.0}}


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LakeBuilder:
    """An empty lake in ./lake of a fresh working directory."""
    monkeypatch.chdir(tmp_path)
    return LakeBuilder(tmp_path / "lake")


def half(lake: LakeBuilder) -> str:
    run = lake.run(A, B)
    lake.shard(A, [A.record(item, score=1.0) for item in range(10)], metadata={**FACTS, "run_id": run})
    lake.shard(B, [B.record(item, score=1.0) for item in range(3)], metadata={**FACTS, "run_id": run})
    lake.failure(run, "bad_model", "model-c: it\tcannot\tbe loaded", model="model-c")
    return run


def whole(lake: LakeBuilder, run: str) -> None:
    lake.shard(B, [B.record(item, score=1.0) for item in range(3, 10)], metadata={**FACTS, "run_id": run})


def test_status_says_where_a_run_stands(lake: LakeBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    run = half(lake)
    assert main([]) == 0
    text = capsys.readouterr().out
    assert f"run {run} in {lake.lake.uri}: 2 models × 1 tasks, engine stub, started 2026-01-02 00:00:00 UTC" in text
    assert "cells: 2 planned, 1 done, 0 failed, 1 open" in text
    assert "items: 13 of 20 done\n" in text
    assert "cost so far: unknown, no price for any of 2 shards: 2 on CPUs" in text
    assert "tokens through the engines: 200\n" in text
    assert "bad_model" in text
    assert "[bold]model-a" in text
    assert "at work" in text


def test_status_pauses_and_resumes_a_run_that_has_not_ended(
    lake: LakeBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = half(lake)
    for flags, text in (
        (["--pause"], f"pause: run {run} obeys within 15 s"),
        (["--pause"], f"run {run} is paused already"),
        (["--resume"], f"resume: run {run} obeys"),
        (["--resume", "--run", run], f"run {run} was not paused"),
    ):
        assert main(flags) == 0
        assert capsys.readouterr().out.startswith(text)
    lake.end(run, "finished", dt.datetime.now(dt.UTC))
    assert main(["--pause"]) == 2
    assert f"run {run} has ended (finished)" in capsys.readouterr().err


def test_status_of_a_run_that_stopped_asks_whether_it_is_stuck(
    lake: LakeBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    half(lake)
    for shard in (lake.lake.root / Path("shards")).glob("task=*/*.parquet"):
        os.utime(shard, (1.767e9 + 3e5, 1.767e9 + 3e5))
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "1 cells are open: killed or stuck?" in text
    assert "eta ?" in text


def test_status_of_a_run_that_ended_says_how_and_is_not_watched_for_ever(
    lake: LakeBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = half(lake)
    lake.end(run, "budget", dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), "budget.usd: 2 of 1 USD are spent")
    assert main(["--watch", "--html", "run.html"]) == 0
    said = (
        "ended by a budget at 2026-01-02 03:00:00 UTC: budget.usd: 2 of 1 USD are spent; 1 cells are open: run "
        "the same collect command to continue"
    )
    text = capsys.readouterr().out
    assert text.count(said) == 2  # the only look, and the end
    assert "eta none" in text
    assert said in Path("run.html").read_text()
    assert main(["--list"]) == 0
    assert "budget" in capsys.readouterr().out
    assert main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["over"], found["complete"], found["end"]["outcome"]) == (True, False, "budget")


def test_status_json_is_one_object_with_null_for_what_is_unknown(
    lake: LakeBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = half(lake)
    assert main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["run_id"], found["items_open"], found["complete"]) == (run, 7, False)
    assert found["work"]["usd"] is None
    assert found["work"]["unpriced"] == {"cpu": 2}
    assert [model["model"] for model in found["work"]["models"]] == ["[bold]model-a", "model-b"]
    assert found["failures"][0]["message"] == "model-c: it\tcannot\tbe loaded"


def test_status_list_shows_runs_newest_first(lake: LakeBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [lake.run(A), lake.run(A, B)]
    assert main(["--list", "--json"]) == 0
    assert [run["run_id"] for run in json.loads(capsys.readouterr().out)] == runs[::-1]
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.index(runs[1]) > 0


def test_status_watch_without_a_terminal_prints_a_line_a_look_and_ends_with_the_run(
    lake: LakeBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = half(lake)
    rest = threading.Thread(target=whole, args=(lake, run))
    threading.Timer(0.3, rest.start).start()
    assert main(["--watch", "--interval", "0.05", "--run", run]) == 0
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if f" run {run} " in line]
    assert "cells 1/2 failed 0 items 13/20" in lines[0]
    assert "cells 2/2 failed 0 items 20/20" in lines[-1]
    assert lines[-1].endswith("eta 0s complete")
    assert text.count("cells: 2 planned, 2 done") == 1


def test_status_watch_goes_on_when_the_lake_was_away(
    lake: LakeBuilder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = half(lake)

    class Watched:
        """The lake goes before the second look and is back before the third; the run ends before the fourth."""

        def __init__(self, *args: Any) -> None:
            self.watch, self.looks = RunWatch(*args), 0

        def close(self) -> None:
            self.watch.close()

        def look(self, most: int) -> RunStatus:
            self.looks += 1
            if self.looks == 2:
                Path("lake").rename("away")
            if self.looks == 3:
                Path("away").rename("lake")
            if self.looks == 4:
                whole(lake, run)
            return self.watch.look(most)

    monkeypatch.setattr(module, "RunWatch", Watched)
    monkeypatch.setattr(module, "LOOKS", 0.0)
    assert main(["--watch", "--interval", "0.01"]) == 0
    shown = capsys.readouterr()
    assert shown.err == f"status: runs/{run}.parquet is gone from {lake.lake.uri}; looking again\n"
    assert shown.out.count(f" run {run} ") == 3


def test_status_watch_json_prints_an_object_a_line(lake: LakeBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    whole(lake, half(lake))
    assert main(["--watch", "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["complete"]


def test_status_watch_on_a_terminal_shows_the_run_live(lake: LakeBuilder) -> None:
    whole(lake, half(lake))
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "160"}
    command = [sys.executable, str(ROOT / "pipelines" / "status.py"), "--watch"]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                text += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
        assert process.wait() == 0, text
    os.close(ours)
    assert b"\x1b[" in text
    assert text.count(b"cells: 2 planned, 2 done, 0 failed, 0 open") >= 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--lake", "nowhere"], "no lake at "),
        ([], "holds no run yet: start one with pipelines/collect.py"),
        (["--run", "x"], "holds no run yet"),
        (["--lake", "s3://user:secret@bucket/lake"], "keys by the environment"),
        (["--lake", "published"], "is a published version, which has no runs of its own"),
    ],
)
def test_status_without_a_run_is_one_line_and_exit_2(
    lake: LakeBuilder, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    LakeBuilder("published").lake.create("manifest.json", b"{}")
    assert main(flags) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("status: ")
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert "secret" not in shown.err


def test_status_of_an_unknown_run_names_those_that_there_are(
    lake: LakeBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    run = half(lake)
    assert main(["--run", "20260101T000000-00000000"]) == 2
    assert f"the newest are {run}" in capsys.readouterr().err


def test_status_writes_nothing(lake: LakeBuilder) -> None:
    half(lake)
    before = sorted(Path("lake").rglob("*"))
    assert main([]) == 0
    assert sorted(Path("lake").rglob("*")) == before


# ---- the page


class Page(HTMLParser):
    """What a browser makes of a page: elements, attributes, text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = "</td><script>alert(1)</script>\"' onload=x&lt;<img src=http://evil/x>"


def test_status_html_shows_the_run_and_hostile_names_stay_text(lake: LakeBuilder) -> None:
    cell = BuiltCell(model=HOSTILE)
    run = lake.run(cell, B)
    lake.shard(cell, [cell.record(item, score=1.0) for item in range(4)], metadata={**FACTS, "run_id": run})
    lake.failure(run, HOSTILE, HOSTILE, model=HOSTILE, task=HOSTILE)
    assert main(["--html", "run.html"]) == 0
    page = Page(Path("run.html"))
    assert page.text.count(HOSTILE) == 5  # a slow model; the kind, whose it is (model on task) and the message
    assert not page.elements & {"script", "img", "link", "iframe", "object", "a", "form"}
    assert not [name for name, _ in page.attributes if name in ("src", "href", "srcset", "action", "onload")]
    assert not [value for _, value in page.attributes if "//" in value or "url(" in value]
    assert f"Run {run}" in page.text
    assert "Cells: 0 of 2 done, 0 failed, 2 open" in page.text
    assert "Items: 4 of 20 done" in page.text
    assert "CPUs, unpriced" in page.text
    assert "rect" in page.elements  # throughput over time
    assert page.text.count("answering requests, with the engine's own bookkeeping") == 1


def test_status_html_of_a_run_without_shards_says_so(lake: LakeBuilder) -> None:
    lake.run(A)
    assert main(["--html", "run.html"]) == 0
    page = Page(Path("run.html"))
    assert "killed or stuck?" in page.text
    assert "Nothing was committed since the run began" in page.text
    assert "rect" not in page.elements


def test_status_html_that_cannot_be_written_is_one_line(lake: LakeBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    half(lake)
    assert main(["--html", "no/folder/run.html"]) == 2
    assert capsys.readouterr().err == "status: cannot write no/folder/run.html: No such file or directory\n"


def test_status_html_under_watch_is_written_at_each_look(lake: LakeBuilder) -> None:
    whole(lake, half(lake))
    assert main(["--watch", "--html", "run.html"]) == 0
    assert "Cells: 2 of 2 done" in Page(Path("run.html")).text


def test_status_of_a_run_loads_no_library_that_is_slow_to_import(lake: LakeBuilder) -> None:
    half(lake)
    slow = {"huggingface_hub", "jinja2", "lm_eval", "pydantic", "ray"}
    code = f"import sys; from pipelines.status import main; main(); print(sorted({slow} & set(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_status_of_an_older_run_counts_its_own_generations_alone(lake: LakeBuilder) -> None:
    run = lake.run(A)
    lake.shard(A, [A.record(item, score=1.0) for item in range(10)], metadata={**FACTS, "run_id": run})
    again = lake.run(A, generation=1)
    lake.shard(A, [A.record(item, score=1.0) for item in range(4)], generation=1, metadata={**FACTS, "run_id": again})
    for name in ("0000000-0000009", "0000000-0000003"):  # the first before the run, the second after it
        [shard] = (lake.lake.root / Path("shards")).glob(f"task=*/*-{name}.parquet")
        os.utime(shard, (1.7e9, 1.7e9))
    watch = RunWatch(lake.lake, run)
    status = watch.look(100)
    watch.close()
    assert (status.items_done, status.items_before, status.cells_done) == (10, 10, 1)
