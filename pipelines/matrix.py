#!/usr/bin/env -S python3 -P
"""Writes the views over a lake into a DuckDB file, and shows the matrix to a person.

Owns that file and what is printed. What a row of each view is stands in schemas/views/*.sql.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from collectors.lake import Lake
from collectors.reading import connect, open_store
from schemas.failures import ConfigError, RouterlakeError, one_line
from schemas.views import create_views

MOST_TASKS, MOST_CELLS, MOST_ITEMS = 10, 15, 8
GROUP = ("task", "items_digest", "prompting", "metric")

#: Everything of a database that is not DuckDB's own.
CONTENTS = """
SELECT 'view', view_name FROM duckdb_views() WHERE NOT internal
UNION ALL SELECT 'table', table_name FROM duckdb_tables()
UNION ALL SELECT 'sequence', sequence_name FROM duckdb_sequences()
UNION ALL SELECT 'macro', function_name FROM duckdb_functions() WHERE NOT internal
UNION ALL SELECT 'type', type_name FROM duckdb_types() WHERE NOT internal
"""
#: Statements without an effect outside the database in memory. DESCRIBE, SUMMARIZE and SHOW are SELECTs to DuckDB, a
#: PIVOT is a CREATE TYPE and a SELECT.
READING = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.CREATE}

DESCRIPTION = """\
Assemble the matrix (items × models) from a lake.

Writes a small DuckDB file that holds views, no data: it reads the lake each time it is asked, so shards that are
collected later are seen. The views are cells, tasks, models, items, records, responses, failures, runs, shards,
coverage, leaderboard, matrix (one row per item and cell) and oracle."""

EXAMPLES = """\
examples:
  python pipelines/matrix.py --lake lake --show
  python pipelines/matrix.py --lake lake --sql "SELECT model, task, score, ci_low, ci_high FROM leaderboard"
  python pipelines/matrix.py --lake lake --sql "SELECT item, count(*) FILTER (correct) FROM matrix GROUP BY item"
  python pipelines/matrix.py --lake lake --sql "DESCRIBE matrix"

exit codes: 0 done, also for a lake without records; 2 the input is wrong, nothing was written"""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Not wrapped at 80 columns in a file or a pipe; in a terminal the terminal knows.
    console = Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 140)
    try:
        run(args, console)
    except RouterlakeError as error:
        print(f"matrix: {one_line(error)}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if "interrupt" not in str(error).lower():
            raise
        raise KeyboardInterrupt from error  # what DuckDB makes of a signal
    except duckdb.Error as error:
        print(f"matrix: {'the query' if args.sql else 'the lake'}: {error}{advice(str(error))}", file=sys.stderr)
        return 2
    return 0


def advice(message: str) -> str:
    """What to do about a shard that DuckDB cannot read; nothing where its message names none."""
    damaged = re.search(r"[^\s\"']*/(?:shards|items|models|runs|failures)/[^\"']*?\.parquet", message)
    again = "if it is damaged or not the lake's own, remove it; what a removed shard held is collected anew"
    return f"\n{damaged[0]}: {again}" if damaged else ""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="matrix.py",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake to read (default: %(default)s)")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="the DuckDB file to write (default: matrix.duckdb; none with --sql). "
        "An existing file is replaced only if this command wrote it and it holds no tables of yours",
    )
    parser.add_argument(
        "--show", action="store_true", help="print leaderboards, a corner of the matrix, oracle, tokens and failures"
    )
    parser.add_argument("--sql", metavar="QUERY", help="run one query over the views and print its result")
    return parser.parse_args(argv)


def run(args: argparse.Namespace, console: Console) -> None:
    lake = Lake(args.lake).open_for_reading()
    out = args.out or (Path("matrix.duckdb") if args.sql is None else None)
    with contextlib.closing(connect(lake)) as con:
        if out:
            if out.absolute().is_relative_to(lake.root) or out.resolve().is_relative_to(Path(lake.root).resolve()):
                raise ConfigError(f"--out {out} is inside the lake, where only collect.py writes; name another place")
            write_database(lake, out, con)
            console.print(f"{out}: the views over {lake.uri}", soft_wrap=True)
        if args.sql is not None:
            print_query(con, args.sql, console)
            return
        if not con.execute("SELECT 1 FROM _shard_files LIMIT 1").fetchall():
            console.print(f"the lake {lake.uri} holds no records yet: collect into it with pipelines/collect.py")
        if args.show:
            show(con, console)
    if out:
        print_next(lake, args.lake, out, console)


# ---- the file


def write_database(lake: Lake, out: Path, ours: duckdb.DuckDBPyConnection) -> None:
    """Writes the views, which `ours` has in memory, into `out`, whole or not at all.

    Raises ConfigError when `out` must not or cannot be written.
    """
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    if os.path.lexists(out):
        _check_replaceable(out, ours)
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        with contextlib.closing(duckdb.connect(temporary)) as con:
            open_store(con, lake)
            create_views(con, lake.uri)
        os.replace(temporary, out)
    except (OSError, duckdb.IOException) as error:
        raise ConfigError(f"--out {out}: cannot be written: {one_line(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _check_replaceable(out: Path, ours: duckdb.DuckDBPyConnection) -> None:
    """Raises ConfigError where `out` holds anything but views of the names that `ours` has."""
    if not out.is_file():  # DuckDB would wait for the other end of a pipe
        raise ConfigError(f"--out {out} is there and is no file; name another")
    refusal = f"--out {out} is there and is not a file that this command wrote; remove it or name another"
    if out.with_name(out.name + ".wal").exists():
        raise ConfigError(f"--out {out} is open in another program; close it there or name another file")
    try:
        with contextlib.closing(duckdb.connect(out, read_only=True)) as con:
            found = con.execute(CONTENTS).fetchall()
    except duckdb.Error as error:
        raise ConfigError(f"{refusal} ({one_line(error)})") from error
    if not found or not set(found) <= set(ours.execute(CONTENTS).fetchall()):
        raise ConfigError(refusal)


# ---- what a person sees


def print_query(con: duckdb.DuckDBPyConnection, query: str, console: Console) -> None:
    statements = con.extract_statements(query)
    if not statements:
        raise ConfigError("--sql is empty: give it a query, such as 'FROM leaderboard'")
    if any(s.type not in READING or re.match(r"\s*EXPLAIN\b.*\bANALYZE\b", s.query, re.I | re.S) for s in statements):
        raise ConfigError("--sql only reads: to write files open the database (--out) in DuckDB")
    result = con.sql(query)
    if result is not None:
        # Outside a terminal no column is left out.
        result.show(max_width=console.width if console.is_terminal else 10_000, max_rows=1000)


#: Columns of the suggested query: those that fit on a screen.
CORNER = "task, item, model, score, prompt_tokens, completion_tokens"


def print_next(lake: Lake, uri: str, out: Path, console: Console) -> None:
    """The commands that a person can type next, as they stand."""
    python, script = (_from_here(path) for path in (sys.executable, os.path.abspath(__file__)))
    code = f'import duckdb; print(duckdb.connect({json.dumps(str(out))}, read_only=True).sql("FROM leaderboard"))'
    commands = [[python, script, "--lake", uri, "--sql", f"SELECT {CORNER} FROM matrix ORDER BY ALL LIMIT 20"]]
    if lake.local:  # elsewhere the file needs a secret first, which no file holds
        commands.append([python, "-c", code])
    if lake.local and shutil.which("duckdb"):
        commands.append(["duckdb", "-readonly", str(out), "FROM leaderboard"])
    for command in commands:
        console.print(f"next: {shlex.join(command)}", soft_wrap=True)


def _from_here(path: str) -> str:
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def show(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    show_coverage(con, console)
    # One scan of the records for everything that is printed per cell.
    con.execute("CREATE TEMP TABLE shown AS SELECT leaderboard.* FROM leaderboard")
    groups = fetch(
        con,
        f"SELECT {', '.join(GROUP)}, any_value(higher_is_better) AS higher_is_better, count(*) AS cells, "
        "any_value(num_fewshot) AS num_fewshot, any_value(chat_template) AS chat_template "
        "FROM shown GROUP BY ALL ORDER BY ALL",
    )
    for group in groups[:MOST_TASKS]:
        show_leaderboard(con, console, group)
        show_corner(con, console, group)
    if len(groups) > MOST_TASKS:
        console.print(f"… and {len(groups) - MOST_TASKS} more tasks: see the view leaderboard")
    if groups:
        show_oracle(con, console)
        show_tokens(con, console)
    show_failures(con, console)


def show_coverage(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    [total] = fetch(
        con,
        "SELECT count(*) AS cells, count(DISTINCT model) AS models, count(DISTINCT task) AS tasks, "
        "count(*) FILTER (missing <= 0) AS complete, count(*) FILTER (attempted = 0) AS untouched, "
        "coalesce(sum(planned), 0) AS planned, coalesce(sum(attempted), 0) AS attempted FROM coverage",
    )
    console.print(
        f"models: {total['models']}; tasks: {total['tasks']}; cells: {total['cells']}, of them {total['complete']} "
        f"complete and {total['untouched']} without any item; {total['attempted']:,} of {total['planned']:,} planned "
        "items collected"
    )
    [(refused,)] = con.execute(
        "SELECT count(DISTINCT (model, task)) FROM failures WHERE level = 'cell' AND cell_id IS NULL"
    ).fetchall()
    if refused:
        console.print(f"{refused} more could not be planned and are in no view but failures (see below)")
    [(unplanned,)] = con.execute(
        "SELECT count(DISTINCT cell_id) FROM _shard_files WHERE cell_id NOT IN (SELECT cell_id FROM cells)"
    ).fetchall()
    if unplanned:
        console.print(f"{unplanned} cells have shards but no row in runs/: their records are in no view but records")


def show_leaderboard(con: duckdb.DuckDBPyConnection, console: Console, group: dict[str, Any]) -> None:
    rows = fetch(
        con,
        "SELECT shown.*, cells.planned_items - attempted AS missing FROM shown JOIN cells USING (cell_id) "
        f"WHERE {_where('shown')} ORDER BY rank NULLS LAST, shown.model, cell_id LIMIT {MOST_CELLS}",
        [group[name] for name in GROUP],
    )
    better = "higher is better" if group["higher_is_better"] else "lower is better"
    console.print(f"\n{group['task']}: {group['metric']}, {better}; {_setup(group)}; prompting {group['prompting']}")
    table = _table("rank", "<model", "<dtype", group["metric"], "95 % CI", "scored", "unans.", "failed", "missing")
    for row in rows:
        table.add_row(
            _number(row["rank"]),
            row["model"],
            _dtype(row),
            _number(row["score"], ".4f"),
            f"{row['ci_low']:.3f}…{row['ci_high']:.3f}" if row["ci_low"] is not None else "",
            *(_number(row[name], ",d") for name in ("scored", "unanswered", "failed", "missing")),
        )
    console.print(table)
    if group["cells"] > MOST_CELLS:
        console.print(f"… and {group['cells'] - MOST_CELLS} more models")


def show_corner(con: duckdb.DuckDBPyConnection, console: Console, group: dict[str, Any]) -> None:
    """The first models × the first items of one task."""
    values = [group[name] for name in GROUP]
    cells = fetch(
        con,
        f"SELECT cell_id, model, dtype, quantization FROM shown WHERE {_where('shown')} "
        f"ORDER BY rank NULLS LAST, model, cell_id LIMIT {MOST_CELLS}",
        values,
    )
    items = [
        item
        for (item,) in con.execute(
            f"SELECT DISTINCT item FROM matrix WHERE {_where('matrix')} ORDER BY item LIMIT {MOST_ITEMS}", values
        ).fetchall()
    ]
    rows = fetch(
        con,
        f"SELECT cell_id, item, score FROM matrix WHERE {_where('matrix')} AND list_contains(?, item)",
        [*values, items],
    )
    verdicts = {(row["cell_id"], row["item"]): row["score"] for row in rows}
    table = _table("<model", "<dtype", *(f"#{item}" for item in items))
    for cell in cells:
        marks = (_mark(verdicts, (cell["cell_id"], item)) for item in items)
        table.add_row(cell["model"], _dtype(cell), *marks)
    console.print(table)
    console.print("score per item (#); ? asked, no verdict; · not collected")


def show_oracle(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    rows = fetch(con, f"SELECT * FROM oracle ORDER BY task, prompting, dtype LIMIT {MOST_TASKS}")
    console.print("\noracle (best model per item) against the best single model, on the items that all models scored")
    table = _table("<task", "<setup", "<dtype", "models", "items", "<best model", "its score", "oracle", "gap")
    for row in rows:
        table.add_row(
            row["task"],
            _setup(row),
            _dtype(row),
            _number(row["models"]),
            f"{row['items']:,} of {row['items_scored_by_any']:,}",
            row["best_model"] or "",
            *(_number(row[name], ".4f") for name in ("best_model_score", "oracle_score", "gap")),
        )
    console.print(table)


def show_tokens(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    rows = fetch(
        con,
        "SELECT model, sum(attempted) AS items, sum(prompt_tokens) AS prompt, sum(completion_tokens) AS completion, "
        "sum(engine_tokens) AS engine, "
        "sum(cached_tokens) / nullif(sum(engine_tokens) FILTER (cached_tokens IS NOT NULL), 0) AS cached, "
        "sum(mean_latency_s * attempted) / sum(attempted) FILTER (mean_latency_s IS NOT NULL) AS latency "
        f"FROM shown GROUP BY model ORDER BY model LIMIT {MOST_CELLS}",
    )
    console.print("\ntokens over all tasks; cached: share of the engine's tokens that its prefix cache held")
    table = _table("<model", "items", "prompt", "completion", "engine", "cached", "latency s")
    for row in rows:
        counts = (_number(row[name], ",d") for name in ("items", "prompt", "completion", "engine"))
        table.add_row(row["model"], *counts, _number(row["cached"], ".1%"), _number(row["latency"], ".3f"))
    console.print(table)


def show_failures(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    """What failed, a row per kind and model; cells that a later run completed are left out."""
    rows = fetch(
        con,
        """
        SELECT level, kind, model,
            CASE WHEN count(DISTINCT task) > 1 THEN count(DISTINCT task) || ' tasks' ELSE max(task) END AS task,
            count(*) AS times,
            max(message) || CASE
                WHEN count(DISTINCT message) > 1 THEN ' (and ' || (count(DISTINCT message) - 1) || ' other reasons)'
                ELSE ''
            END AS message
        FROM failures
        WHERE level = 'item' OR cell_id IS NULL
            OR cell_id NOT IN (SELECT cell_id FROM coverage WHERE missing = 0)
        GROUP BY level, kind, model
        ORDER BY level DESC, times DESC, kind, model
        """,
    )
    if not rows:
        return
    console.print("\nfailures")
    table = _table("<level", "<kind", "<model", "<task", "times", "<message")
    for row in rows[:MOST_CELLS]:
        table.add_row(*(str(row[name] if row[name] is not None else "") for name in row))
    console.print(table)
    if len(rows) > MOST_CELLS:
        console.print(f"and {len(rows) - MOST_CELLS} more: --sql 'FROM failures'")


# ---- small helpers


def fetch(con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """The rows of a query, each by column name."""
    cursor = con.execute(sql, list(parameters))
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _where(view: str) -> str:
    return " AND ".join(f"{view}.{name} = ?" for name in GROUP)


def _table(*headers: str) -> Table:
    """A table whose columns are right-aligned but for those whose header starts with '<'."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for header in headers:
        left, name = header.startswith("<"), header.removeprefix("<")
        # Only texts of any length are folded where the width is short.
        table.add_column(
            name, justify="left" if left else "right", overflow="fold", no_wrap=not left or name == "dtype"
        )
    return table


def _number(value: float | None, form: str = "") -> str:
    return "" if value is None else format(int(value) if form == ",d" else value, form)


def _setup(row: dict[str, Any]) -> str:
    return f"{row['num_fewshot']}-shot" + (", chat" if row["chat_template"] else "")


def _dtype(row: dict[str, Any]) -> str:
    return f"{row['dtype']}/{row['quantization']}" if row["quantization"] else str(row["dtype"])


def _mark(verdicts: dict[tuple[str, int], float | None], key: tuple[str, int]) -> str:
    if key not in verdicts:
        return "·"
    score = verdicts[key]
    return "?" if score is None else f"{score:g}" if score in (0, 1) else f"{score:.2f}"


if __name__ == "__main__":
    from pipelines.script import run_script

    run_script(main)
