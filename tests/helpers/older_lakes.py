"""Lakes that older programs made, kept for good, and the rows that their views show.

Owns how the rows of a view are written down: a file per view, its columns first, then a row a line, floats to the last
bit. Reads a lake as a person does: matrix.py writes its views into a DuckDB file.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from collectors.lake.holdings import read_holdings
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from pipelines import matrix

ROOT = Path(__file__).parents[2]
LAKE_V6 = ROOT / "tests" / "golden" / "lake_v6"

#: Columns that depend on where and how a lake is stored, not on its records.
_PLACES = {"shards": {"file", "in_compaction"}}
#: Views with sums of measured times and costs: their last bits depend on the order of addition.
SUMMED = {"leaderboard", "pareto", "oracle", "complementarity", "profile", "throughput"}

#: View -> its columns, and its rows as JSON texts, sorted.
Shown = dict[str, tuple[list[str], list[str]]]


def shown(lake: Path, folder: Path | None, include: str = "all", columns: dict[str, list[str]] | None = None) -> Shown:
    """All that the views over `lake` show, or some `columns` by view.

    `folder` gets the file of views. Without one they are asked as a command asks them, in a tenth of the time.
    """
    with _opened(lake, folder, include) if folder else _asked(lake, include) as con:
        named = columns or {view: _columns(con, view) for view in _views(con)}
        return {view: (names, _rows(con, view, names)) for view, names in named.items()}


def golden(folder: Path) -> Shown:
    """The rows that were written down in `folder`."""
    views: Shown = {}
    for file in sorted(folder.glob("*.jsonl")):
        head, *rows = file.read_text(encoding="utf-8").splitlines()
        views[file.stem] = (json.loads(head), rows)
    return views


def write_golden(views: Shown, folder: Path) -> None:
    folder.mkdir(parents=True)
    for view, (names, rows) in views.items():
        (folder / f"{view}.jsonl").write_text("\n".join([json.dumps(names), *rows]) + "\n", encoding="utf-8")


def even(view: str, rows: list[str]) -> list[str]:
    """Rows as they are compared: those of SUMMED with 12 digits."""
    if view not in SUMMED:
        return rows
    return sorted(json.dumps([_twelve(value) for value in json.loads(row)], ensure_ascii=False) for row in rows)


def _twelve(value: Any) -> Any:
    return float(f"{value:.12g}") if isinstance(value, float) else value


@contextlib.contextmanager
def _opened(lake: Path, folder: Path, include: str) -> Iterator[duckdb.DuckDBPyConnection]:
    out = folder / "matrix.duckdb"
    out.unlink(missing_ok=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = matrix.main(["--lake", str(lake), "--include", include, "--out", str(out)])
    assert code == 0, printed.getvalue()
    with contextlib.closing(duckdb.connect(out, read_only=True, config={"threads": 1})) as con:
        yield con


def _asked(lake: Path, include: str) -> contextlib.closing[duckdb.DuckDBPyConnection]:
    store = Lake(str(lake))
    return contextlib.closing(connect(store, read_holdings(store, include=include)))


def _views(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The public ones."""
    names = con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY ALL").fetchall()
    return [name for (name,) in names if not name.startswith("_")]


def _columns(con: duckdb.DuckDBPyConnection, view: str) -> list[str]:
    names = [name for name, *_ in con.execute(f"DESCRIBE {view}").fetchall()]
    return [name for name in names if name not in _PLACES.get(view, ())]


def _rows(con: duckdb.DuckDBPyConnection, view: str, columns: list[str]) -> list[str]:
    names = ", ".join(f'"{name}"' for name in columns)
    con.execute("SET TimeZone = 'UTC'")
    rows = con.execute(f"SELECT {names} FROM {view}").fetchall()
    return sorted(json.dumps(row, ensure_ascii=False, default=_text) for row in rows)


def _text(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | dt.timedelta):
        return str(value)
    raise TypeError(f"a column holds {type(value)}: add how it is written down")


if __name__ == "__main__":  # python -m tests.helpers.older_lakes LAKE FOLDER: writes down the rows of a lake
    lake_folder, rows_folder = Path(sys.argv[1]), Path(sys.argv[2])
    write_golden(shown(lake_folder, rows_folder.parent), rows_folder)
    (rows_folder.parent / "matrix.duckdb").unlink()
