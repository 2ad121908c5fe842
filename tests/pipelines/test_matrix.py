"""The matrix command: its file, its output, and bad input."""

from __future__ import annotations

import datetime as dt
import os
import shlex
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from collectors.lake.compaction import compact
from collectors.lake.pruning import prune
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from pipelines.matrix import main
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, rows
from tests.helpers.thorough import LONG, long_only

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "pipelines" / "matrix.py"
CELL = BuiltCell()


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LakeBuilder:
    """An empty lake in ./lake of a fresh working directory."""
    monkeypatch.chdir(tmp_path)
    return LakeBuilder(tmp_path / "lake")


def fill(lake: LakeBuilder) -> None:
    """Two models: right, wrong, empty, unjudged and missing answers, a fraction, a model that could not be loaded."""
    lake.planned(CELL, [1.0, 0.0, 0.0, 1.0])
    other = BuiltCell(model="[bold]model-b")
    run_id = lake.run(other)
    judged = [other.record(0, score=0.25), other.record(1, score=1.0)]
    empty = other.record(2, failure="empty_answer", score=0.0)
    lake.shard(other, [*judged, empty, other.record(3, failure="judge_died")])
    lake.failure(run_id, "no_weights", "model-x: no weight files in its folder", model="model-x")


def run_script(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "40"}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, check=False)


def line_of(text: str, *words: str) -> str:
    [line] = [line for line in text.splitlines() if all(word in line for word in words)]
    return line


# ---- the file


def test_matrix_file_opens_in_plain_duckdb_from_another_folder_and_sees_later_shards(
    lake: LakeBuilder, tmp_path: Path
) -> None:
    fill(lake)
    (tmp_path / "sub").mkdir()
    assert main(["--lake", "lake", "--out", "sub/m.duckdb"]) == 0
    code = (
        "import duckdb; print(duckdb.connect({!r}, read_only=True).execute('SELECT count(*) FROM matrix').fetchall())"
    )
    path = str(tmp_path / "sub" / "m.duckdb")
    assert run_script("-c", code.format(path), cwd=Path("/")).stdout.strip() == "[(8,)]"
    lake.scores(CELL, [1.0], first=4)
    assert run_script("-c", code.format(path), cwd=Path("/")).stdout.strip() == "[(9,)]"
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["m.duckdb"]


@long_only
def test_matrix_own_file_is_replaced_and_points_to_the_new_lake(lake: LakeBuilder, tmp_path: Path) -> None:
    assert main(["--lake", "lake"]) == 0
    LakeBuilder(tmp_path / "second").planned(CELL, [1.0])
    assert main(["--lake", "second"]) == 0
    with duckdb.connect("matrix.duckdb", read_only=True) as con:
        assert rows(con, "SELECT count(*) FROM matrix") == [(1,)]


def test_matrix_file_with_a_table_of_the_users_is_kept(lake: LakeBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    with duckdb.connect("matrix.duckdb") as con:
        con.execute("CREATE TABLE mine AS SELECT 1 AS answer")
    assert main([]) == 2
    assert "matrix.duckdb exists" in capsys.readouterr().err
    with duckdb.connect("matrix.duckdb", read_only=True) as con:
        assert rows(con, "FROM mine") == [(1,)]


@long_only
def test_matrix_file_with_a_view_of_the_users_is_kept(lake: LakeBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    for mine in ("VIEW mine AS FROM leaderboard", "MACRO mine(x) AS x + 1", "SEQUENCE mine"):
        with duckdb.connect("matrix.duckdb") as con:
            con.execute(f"CREATE {mine}")
        assert main([]) == 2
        assert "matrix.duckdb exists" in capsys.readouterr().err
        with duckdb.connect("matrix.duckdb") as con:
            con.execute(f"DROP {mine.split('(')[0].split(' AS ')[0]}")
    assert main([]) == 0


@long_only
def test_matrix_file_of_an_earlier_release_is_replaced(lake: LakeBuilder) -> None:
    assert main([]) == 0
    with duckdb.connect("matrix.duckdb") as con:
        con.execute("CREATE VIEW _cell_facts AS FROM cells")  # a step of the views was called so
    assert main([]) == 0


def test_matrix_out_inside_the_lake_is_refused(lake: LakeBuilder, tmp_path: Path) -> None:
    fill(lake)
    before = sorted(tmp_path.rglob("*"))
    for out in ("lake/m.duckdb", str(tmp_path / "lake" / "shards" / "x.parquet"), "../" + tmp_path.name + "/lake/m"):
        assert main(["--out", out]) == 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", [b"", b"notes of a person\n" * 1000])
def test_matrix_foreign_file_is_kept(lake: LakeBuilder, tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "notes.txt"
    out.write_bytes(content)
    assert main(["--out", str(out)]) == 2
    assert out.read_bytes() == content


@long_only
def test_matrix_file_open_for_writing_elsewhere_is_kept(lake: LakeBuilder, tmp_path: Path) -> None:
    assert main([]) == 0
    with duckdb.connect("matrix.duckdb") as con:
        con.execute("CREATE VIEW mine AS SELECT 1")
        result = run_script(str(SCRIPT), "--lake", "lake", cwd=tmp_path)
        assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
        assert rows(con, "FROM mine") == [(1,)]


def test_matrix_folder_of_out_is_missing_exits_2(lake: LakeBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", "nowhere/m.duckdb"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_matrix_hostile_lake_path_file_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    LakeBuilder(tmp_path / "it's [a] *lake?").planned(CELL, [1.0])
    assert main(["--lake", "it's [a] *lake?"]) == 0
    with duckdb.connect("matrix.duckdb", read_only=True) as con:
        assert rows(con, "SELECT score FROM leaderboard") == [(1.0,)]


# ---- wrong input


@pytest.mark.parametrize("prepare", [lambda folder: None, lambda folder: folder.mkdir()])
def test_matrix_no_lake_there_one_line_exit_2_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prepare: object
) -> None:
    monkeypatch.chdir(tmp_path)
    assert callable(prepare)
    prepare(tmp_path / "lake")
    before = list(tmp_path.rglob("*"))
    assert main(["--show"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "lake") in line
    assert "--lake" in line
    assert list(tmp_path.rglob("*")) == before


def test_matrix_sql_is_wrong_exit_2(lake: LakeBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sql", "FROM leaderbord"]) == 2
    assert "there is no view leaderbord; did you mean leaderboard" in capsys.readouterr().err


@pytest.mark.parametrize("query", ["", " ", ";", "-- nothing"])
def test_matrix_sql_is_empty_exit_2_nothing_written(lake: LakeBuilder, tmp_path: Path, query: str) -> None:
    assert main(["--sql", query]) == 2
    assert not (tmp_path / "matrix.duckdb").exists()


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{}'",
        "SELECT 1; ATTACH '{}'",
        "EXPORT DATABASE '{}'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{}'",
        "/* x */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{}'",
        "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN '{}')",
        "explain\n/**/analyze copy (SELECT 1) TO '{}'",
        "FROM enable_profiling(format='json', save_location='{}'); SELECT 1",
        "SELECT * FROM enable_logging('QueryLog', storage='file', storage_config={{'path':'{}'}}); SELECT 2",
        "PREPARE p AS COPY (SELECT 1) TO '{}'; EXECUTE p",
        "SET log_query_path='{}'; SELECT 1",
        "PRAGMA enable_profiling='json'; PRAGMA profile_output='{}'; SELECT 1",
    ],
)
def test_matrix_sql_that_would_write_is_refused(lake: LakeBuilder, tmp_path: Path, query: str) -> None:
    target = tmp_path / "lake" / "new"
    assert main(["--sql", query.format(target)]) == 2
    assert not target.exists()


def test_matrix_sql_that_reads_in_any_way_works(lake: LakeBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    fill(lake)
    pivot = "PIVOT (SELECT item, model, score FROM matrix) ON model USING any_value(score)"
    for query in ("DESCRIBE matrix", "SUMMARIZE cells", "EXPLAIN FROM records", pivot, "WITH a AS (SELECT 1) FROM a"):
        assert main(["--sql", query]) == 0, query
    assert "model-a" in capsys.readouterr().out


def test_matrix_out_that_is_no_file_is_refused(lake: LakeBuilder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("pipe", "dangling", "lake"):
        assert main(["--out", name]) == 2


@pytest.mark.few(4)
@pytest.mark.parametrize("table", ["runs", "items/task=quiz", "models", "failures", "shards/aaa"])
@pytest.mark.parametrize("kind", ["foreign", "damaged"])
def test_matrix_file_of_others_in_a_lake_is_passed_over_or_named(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, kind: str
) -> None:
    fill(lake)
    place = tmp_path / "lake" / table
    place.mkdir(exist_ok=True, parents=True)
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT 1 AS a) TO '{place / '0.parquet'}' (FORMAT parquet)")
    if kind == "damaged":
        (place / "0.parquet").write_bytes(b"PAR1")
    view = "records" if "shards" in table else table.split("/")[0]
    code = main(["--sql", f"FROM {view}"])
    assert code == 0, capsys.readouterr().err
    with connect(Lake("lake"), only=["failures"]) as con:
        found = rows(con, "SELECT file FROM failures WHERE kind = 'damaged_file'")
    assert found == ([] if table == "shards/aaa" else [(f"{table}/0.parquet",)])


@pytest.mark.parametrize(
    "data", [None, *(pytest.param(data, marks=long_only) for data in (b"not parquet" * 100, b"", b"PAR1"))]
)
def test_matrix_damaged_shard_is_passed_over_and_named(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes | None
) -> None:
    fill(lake)
    shard = next((tmp_path / "lake" / "shards").glob("task=*/*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-100] if data is None else data)
    assert main(["--show", "--out", "matrix.duckdb"]) == 0
    shown = capsys.readouterr().out
    assert "damaged_file" in shown
    assert shown.count("leaderboard") == 1, "what was printed before the damage turned up is printed once"
    with duckdb.connect("matrix.duckdb", read_only=True) as con:
        [(file, message)] = rows(con, "SELECT file, message FROM failures WHERE kind = 'damaged_file'")
        assert shard == tmp_path / "lake" / file
        assert "--prune" in message
        assert rows(con, "SELECT count(*) FROM shards") == [(1,)]
        assert rows(con, "SELECT count(DISTINCT model) FROM matrix") == [(1,)]
    assert main([]) == 0, "the file is replaced, whatever it was made of"


@long_only
def test_matrix_output_that_nobody_reads_or_that_takes_ascii_only_is_no_traceback(
    lake: LakeBuilder, tmp_path: Path
) -> None:
    LakeBuilder(tmp_path / "lake").planned(BuiltCell(model="modèle"), [1.0])
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(SCRIPT))} --lake lake --show"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    for pipe in ("| true", "| head -1", "> shown.txt", ">&-", ">/dev/full", "--sql $'\\xff'"):
        bash = ["bash", "-c", f"{command} {pipe}"]
        done = subprocess.run(bash, cwd=tmp_path, env=env, capture_output=True, check=False)
        assert b"Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) <= 1
    assert "mod?le" in (tmp_path / "shown.txt").read_text()


# ---- output


def test_matrix_empty_lake_says_so_exit_0(lake: LakeBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--show"]) == 0
    assert "holds no collected records yet" in capsys.readouterr().out


def test_matrix_sql_prints_every_column_and_writes_no_file(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(lake)
    assert main(["--sql", "SELECT * FROM leaderboard"]) == 0
    out = capsys.readouterr().out
    assert "ci_high" in out
    assert "quantization" in out
    assert not (tmp_path / "matrix.duckdb").exists()


def test_matrix_show_prints_the_numbers_of_the_views_and_leaves_no_file(
    lake: LakeBuilder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(lake)
    before = sorted(tmp_path.iterdir())
    assert main(["--show"]) == 0
    assert sorted(tmp_path.iterdir()) == before
    out = capsys.readouterr().out
    assert "cells: 2, of them 1 complete and 0 without any item; 8 of 14 planned items collected" in out
    # (no rank, because items are missing,) model, dtype, score, ok, not ok, failed, missing
    # There is no interval of three graded scores.
    assert line_of(out, "0.4167").split() == ["[bold]model-b", "float32", "0.4167", "2", "1", "empty", "1", "6"]
    assert line_of(out, "model-a", "0.5000", "float32", "0.150…0.850").split()[0] == "1"
    assert line_of(out, "[bold]model-b", "0.25", "?").split() == ["[bold]model-b", "float32", "0.25", "1", "0", "?"]
    assert line_of(out, "quiz", "4 of 4").split()[-4:] == ["model-a", "0.5000", "0.5000", "0.0000"]
    assert "left out: [bold]model-b in quiz, which lacks scores: without it 1 more questions count" in out
    assert line_of(out, "no_weights", "model-x").split()[0] == "cell"
    assert line_of(out, "judge_died").split()[:3] == ["item", "judge_died", "[bold]model-b"]
    # 4 items of 10, 11, 12 and 13 prompt tokens, 2 completion, 16 engine and 4 cached tokens each
    assert line_of(out, "model-a", "46", "64").split() == ["model-a", "4", "46", "8", "64", "25.0%", "0.500"]


#: Scores of the best single candidate and the oracle, and the gap between them.
SAME = ["1.0000", "1.0000", "0.0000"]


def test_matrix_show_marks_imported_cells_whose_rank_is_their_own(
    lake: LakeBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = BuiltCell(model="model-a"), BuiltCell(model="model-a", prompting="their-own", filter="f")
    lake.planned(ours, [1.0, 0.0])
    lake.run(theirs, planned=2, imported_from="them", revision=None)
    lake.scores(theirs, [1.0, 1.0])
    assert main(["--show", "--include", "all"]) == 0
    out = capsys.readouterr().out
    assert line_of(out, "model-a", "0.5000").split()[:2] == ["1", "model-a"]
    assert line_of(out, "model-a *", "1.0000").split()[0] == "1"
    assert "* imported from them; a rank counts among cells of one prompting" in out


def test_matrix_show_tells_setups_refusals_and_reasons_apart(
    lake: LakeBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    for prompting, shots, template in (("p0", 0, None), ("p1", 5, "true")):
        cell = BuiltCell(prompting=prompting)
        run_id = lake.run(cell, num_fewshot=shots, chat_template=template)
        lake.scores(cell, [1.0])
    for task, message in (("t1", "no pool of 10 examples"), ("t2", "no such setting")):
        lake.failure(run_id, "bad_task", message, model="model-x", task=task)
    assert main(["--show"]) == 0
    out = capsys.readouterr().out
    assert "higher is better; 0-shot; prompting p0" in out
    assert "higher is better; 5-shot, chat; prompting p1" in out
    assert line_of(out, "quiz", "alike", "model-a").split() == ["quiz", "1", "alike", "1", "of", "1", "model-a", *SAME]
    assert "2 more could not be planned" in out
    assert line_of(out, "bad_task", "2 tasks", "(and 1 other reasons)")


def test_matrix_script_piped_is_not_wrapped_and_its_next_commands_run(lake: LakeBuilder, tmp_path: Path) -> None:
    fill(lake)
    result = run_script(str(SCRIPT), "--lake", "lake", "--show", "--out", "m.duckdb", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    commands = [line.removeprefix("next: ") for line in result.stdout.splitlines() if line.startswith("next: ")]
    assert len(commands) >= 2
    for command in commands:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "model-a" in done.stdout


def test_matrix_file_of_before_a_compaction_asks_to_be_written_anew(lake: LakeBuilder) -> None:
    """Its shards may be deleted: their items would seem missing."""
    lake.planned(BuiltCell(items=2), [1.0, 0.0])
    assert main(["--out", "before.duckdb"]) == 0
    compact(lake.lake)
    for prunes in (False, True):
        if prunes:
            prune(lake.lake, dt.timedelta(0))
        for view in ("matrix", "coverage", "leaderboard", "records") if LONG else ("matrix", "records"):
            refused = pytest.raises(duckdb.Error, match="make them anew")
            with duckdb.connect("before.duckdb", read_only=True) as con, refused:
                con.execute(f"FROM {view}").fetchall()
    assert main(["--out", "after.duckdb"]) == 0
    lake.planned(BuiltCell(items=3, model="later"), [1.0, 0.0, 1.0])
    with duckdb.connect("after.duckdb", read_only=True) as con:
        assert con.execute("SELECT count(*) FROM matrix").fetchall() == [(5,)]


def test_show_weighs_latency_by_timed_items_and_leaves_tokens_of_unknown_caching_out(
    lake: LakeBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.run(slow := BuiltCell(task="slow"), fast := BuiltCell(task="fast"))
    untimed = {"latency_s": None, "cached_tokens": None, "engine_tokens": 100}
    lake.shard(slow, [slow.record(0, score=1.0, latency_s=10.0, cached_tokens=10, engine_tokens=100)])
    lake.shard(slow, [slow.record(item, score=1.0, **untimed) for item in range(1, 10)])
    timed = {**untimed, "latency_s": 1.0, "cached_tokens": 10}
    lake.shard(fast, [fast.record(item, score=1.0, **timed) for item in range(10)])
    assert main(["--show"]) == 0
    line = line_of(capsys.readouterr().out, "model-a", "10.0%")
    assert line.split()[-1] == "1.818"  # (10 + 10 · 1) / 11 s; 110 of 1,100 tokens with a count
