"""--format: rows for other programs in place of tables."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import matrix, prices, status
from pipelines.console.rows_out import print_rows
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

HOSTILE = "a|b\n<script>alert(1)</script> \"q\", 'x'\\ [y](z)"


def written(form: str, columns: list[str], rows: list[tuple[object, ...]]) -> str:
    out = io.StringIO()
    print_rows(form, columns, rows, out)
    return out.getvalue()


@given(st.lists(st.tuples(st.text(), st.integers(), st.none() | st.text()), max_size=5))
def test_csv_texts_come_back_to_the_letter(rows: list[tuple[str, int, str | None]]) -> None:
    text = written("csv", ["a", "b", "c"], rows)
    back = list(csv.reader(io.StringIO(text, newline="")))
    assert back[0] == ["a", "b", "c"]
    assert back[1:] == [[a, str(b), c or ""] for a, b, c in rows]


def test_csv_names_like_formulas_stand_behind_an_apostrophe_and_other_texts_do_not() -> None:
    columns = ["model", "best_model", "task", "score", "prompt", "=x"]
    rows = [("=cmd|' /C calc'!A0", "@a", "+b", -0.5, "- a list", None), ("-c", "d", None, 1, "=2", "=")]
    back = list(csv.reader(io.StringIO(written("csv", columns, rows), newline="")))
    assert back == [
        ["model", "best_model", "task", "score", "prompt", "'=x"],
        ["'=cmd|' /C calc'!A0", "'@a", "'+b", "-0.5", "- a list", ""],
        ["'-c", "d", "", "1", "=2", "="],
    ]
    assert json.loads(written("json", ["model"], [("=x",)])) == [{"model": "=x"}]


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.booleans()), max_size=5))
def test_json_values_come_back_exactly(rows: list[tuple[str, float, bool]]) -> None:
    assert json.loads(written("json", ["a", "b", "c"], rows)) == [dict(zip("abc", row, strict=True)) for row in rows]


@given(st.lists(st.tuples(st.text(), st.text()), max_size=4))
def test_markdown_is_one_line_a_row_with_as_many_cells_as_columns(rows: list[tuple[str, str]]) -> None:
    lines = written("markdown", ["a", "b"], rows).splitlines()
    assert len(lines) == 2 + len(rows)
    for line in lines[2:]:
        assert line.replace("\\\\", "").replace("\\|", "").count("|") == 3


def test_formats_keep_unknown_apart_from_empty_and_markup_as_text() -> None:
    row = (None, "", HOSTILE, float("nan"), Decimal("0.5"), dt.date(2026, 1, 2), [1, None], {"k": "v"}, True)
    names = list("abcdefghi")
    assert written("csv", names, [row]).splitlines()[1].startswith(',"","a|b')
    [back] = json.loads(written("json", names, [row]))
    assert back == {
        **{"a": None, "b": "", "c": HOSTILE, "d": None, "e": 0.5, "f": "2026-01-02"},
        **{"g": [1, None], "h": {"k": "v"}, "i": True},
    }
    markdown = written("markdown", names, [row])
    assert "<script>" not in markdown
    assert len(markdown.splitlines()) == 3


def test_formats_without_rows_are_whole_documents() -> None:
    assert written("csv", ["a"], []) == "a\n"
    assert json.loads(written("json", ["a"], [])) == []
    assert len(written("markdown", ["a"], []).splitlines()) == 2


@pytest.fixture
def lake(tmp_path: Path) -> str:
    builder = LakeBuilder(tmp_path / "lake")
    builder.planned(BuiltCell(items=3), [1.0, 0.0, None])
    return builder.lake.uri


def test_matrix_query_without_a_terminal_is_csv_with_all_rows(lake: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert matrix.main(["--lake", lake, "--sql", "SELECT item, score FROM matrix ORDER BY item"]) == 0
    assert capsys.readouterr().out == "item,score\n0,1.0\n1,0.0\n"
    assert matrix.main(["--lake", lake, "--sql", "SELECT range AS n FROM range(5000)"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5001


@pytest.mark.parametrize("form", ["json", "markdown", "csv"])
def test_matrix_query_in_each_format(lake: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert matrix.main(["--lake", lake, "--format", form, "--sql", "FROM LEADERBOARD"]) == 0
    out = capsys.readouterr().out
    assert out.count("model-a") == 1
    assert form != "json" or json.loads(out)[0]["score"] == 0.5


def test_matrix_query_of_times_keeps_what_python_has_no_value_for(
    lake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    query = (
        "SELECT 'infinity'::DATE, '-infinity'::TIMESTAMP, '2026-01-02 03:04:05.123456789'::TIMESTAMP_NS, "
        "INTERVAL '1 month 2 days', 1, '2026-01-02'::DATE, '2026-01-02 03:04:05'::TIMESTAMP, NULL::DATE"
    )
    assert matrix.main(["--lake", lake, "--format", "csv", "--sql", query]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        "infinity,-infinity,2026-01-02T03:04:05.123456789,1 month 2 days,1,2026-01-02,2026-01-02T03:04:05,"
    )


def test_markdown_shows_no_character_that_breaks_a_line_or_turns_its_direction() -> None:
    assert written("markdown", ["a"], [("x\u2028y\u202ez\u2066w",)]).splitlines()[-1] == "| x y z w |"


@pytest.mark.slow
def test_matrix_query_about_the_database_sees_all_views(lake: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert matrix.main(["--lake", lake, "--sql", "SELECT view_name FROM duckdb_views() WHERE NOT internal"]) == 0
    assert {"leaderboard", "oracle", "throughput"} <= set(capsys.readouterr().out.split())


def test_matrix_format_without_a_query_is_refused(lake: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        matrix.main(["--lake", lake, "--format", "csv"])


def test_prices_in_each_format(lake: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert prices.main(["--lake", lake, "--format", "json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["model"], row["basis"]) == ("model-a", None)
    assert prices.main(["--lake", lake, "--shipped", "open_models", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("model,")


def test_status_in_each_format(lake: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main(["--lake", lake, "--list", "--format", "json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    assert status.main(["--lake", lake, "--list", "--format", "csv"]) == 0
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["run_id"] == runs[0]["run_id"]
    with pytest.raises(SystemExit, match="2"):
        status.main(["--lake", lake, "--watch", "--format", "csv"])


def test_matrix_long_query_prints_its_rows_alone(lake: str) -> None:
    """DuckDB would draw a progress bar on standard output, below the level that capsys sees."""
    query = "SELECT current_setting('enable_progress_bar') AS drawn"
    done = subprocess.run(
        [sys.executable, "-P", "pipelines/matrix.py", "--lake", lake, "--sql", query],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "drawn\nfalse\n"
