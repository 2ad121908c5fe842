#!/usr/bin/env -S python3 -P
"""Writes the views over a lake into a DuckDB file, and answers queries over them.

Owns that file and the check that a query only reads. console/lake_shown.py prints a lake; schemas/views/*.sql
define the views.
"""

from __future__ import annotations

try:  # an old Python, or one without the environment, fails at the imports below
    import duckdb as _duckdb  # noqa: F401

    import collectors as _collectors  # noqa: F401
except ImportError:
    raise SystemExit("this Python lacks routerlake: `make env`, then `. .venv/bin/activate` (3.11 or later)") from None

import argparse
import contextlib
import datetime as dt
import difflib
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import duckdb
from rich.console import Console

from collectors.atomic import replacing
from collectors.lake.holdings import Holdings, read_holdings
from collectors.lake.narrowing import narrow
from collectors.lake.reading import ask, open_store
from collectors.lake.store import Lake
from collectors.matrix import judged
from collectors.matrix.judged import judge_lines
from collectors.matrix.pool_files import ChosenPool
from pipelines import score
from pipelines.console.lake_shown import SHOWN, show
from pipelines.console.plain_console import rows_stream, stdout_console
from pipelines.console.pool_options import add_pool, options_of, pool_of
from pipelines.console.rows_out import add_format, print_rows
from pipelines.console.script import Parser, command, python
from schemas.failures import ConfigError, RouterlakeError, one_line
from schemas.reading_only import check_query
from schemas.views import contents, create_views, named_in, views_of
from schemas.views.order import view_files

#: Bytes of output that are kept in memory; more goes through a temporary file.
OUTPUT_IN_MEMORY = 2**24

#: Views that earlier releases put into the file.
FORMER = {("view", "_cell_facts")}

#: Every object of a database that a user made.
CONTENTS = """
SELECT 'view', view_name FROM duckdb_views() WHERE NOT internal
UNION ALL SELECT 'table', table_name FROM duckdb_tables()
UNION ALL SELECT 'sequence', sequence_name FROM duckdb_sequences()
UNION ALL SELECT 'macro', function_name FROM duckdb_functions() WHERE NOT internal
UNION ALL SELECT 'type', type_name FROM duckdb_types() WHERE NOT internal
"""
#: Queries that return a row if the lake has records, and if some were imported.
ANY_RECORDS = "SELECT 1 FROM _shard_files UNION ALL SELECT 1 FROM _folded LIMIT 1"
IMPORTS = "SELECT 1 FROM imports LIMIT 1"
#: Returns a row if the pool's condition chose no cell.
NO_CELLS = "SELECT 1 WHERE len(CAST(getvariable('pool_cells') AS VARCHAR[])) = 0"

DESCRIPTION = """\
Assemble the matrix (items × models) from a lake.

The command writes a small DuckDB file that holds views and no data. Each query reads the lake, so it sees shards that
were collected after the file was written; the pool's candidates and questions are those of the time of writing. The
views are cells, tasks, models, items, records, responses, failures, runs, shards, coverage, leaderboard, matrix (one
row per item and cell), pool (one row per question and candidate), costs, oracle and more (--sql "SHOW TABLES").
"""

EXAMPLES = """\
examples:
  python pipelines/matrix.py --lake lake --show
  python pipelines/matrix.py --lake lake --sql "SELECT model, task, score, ci_low, ci_high FROM leaderboard"
  python pipelines/matrix.py --lake lake --sql "SELECT item, count(*) FILTER (correct) FROM matrix GROUP BY item"
  python pipelines/matrix.py --lake lake --sql "DESCRIBE matrix"
  python pipelines/matrix.py --lake lake --include all --same dtype --sql "FROM pool"
  python pipelines/matrix.py score --help                 # judge routers by their choices

exit codes: 0 done, even if the lake has no records; 2 the input is wrong and nothing was written"""


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["score"]:
        return score.main(given[1:])
    args = parse(given)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    console = stdout_console()
    try:
        run(args, console)
    except RouterlakeError as error:
        print(f"matrix: {one_line(error)}", file=sys.stderr)
        return 2
    except duckdb.Error as error:
        print(f"matrix: {'the query' if args.sql else 'the lake'}: {_in_words(error)}", file=sys.stderr)
        return 2
    return 0


def _in_words(error: duckdb.Error) -> str:
    """DuckDB's message; of a view that does not exist our own, as DuckDB knows only those that a query names."""
    missing = re.search(r"Table with name (\S+) does not exist", str(error))
    if not missing:
        return str(error)
    near = difflib.get_close_matches(missing[1], [name for name in view_files() if not name.startswith("_")])
    hint = f"did you mean {' or '.join(near)}?" if near else "SHOW TABLES lists all"
    return f"there is no view {missing[1]}; {hint}"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(__file__, description=DESCRIPTION, epilog=EXAMPLES)
    parser.add_argument("--lake", metavar="URI", default="./lake", help="the lake to read (default: %(default)s)")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="the DuckDB file to write (default: matrix.duckdb; none with --sql or --show). "
        "It replaces an existing file only if this command wrote that file and you added no tables",
    )
    parser.add_argument(
        "--show", action="store_true", help="print leaderboards, a corner of the matrix, oracle, tokens and failures"
    )
    add_pool(parser)
    parser.add_argument(
        "--prices-on",
        metavar="DAY",
        type=day,
        help="use the prices of that day, such as 2025-01-31 (default: today)",
    )
    parser.add_argument("--price-provider", metavar="NAME", help="use this provider's prices alone")
    parser.add_argument("--sql", metavar="QUERY", help="run one query over the views and print its result")
    add_format(parser, "a table on a terminal, else csv")
    args = parser.parse_args(argv)
    if args.format and args.sql is None:
        parser.error("--format goes with --sql")
    return args


def day(text: str) -> str:
    return dt.date.fromisoformat(text).isoformat()


def run(args: argparse.Namespace, console: Console) -> None:
    lake = Lake(args.lake).open_for_reading()
    out = args.out or (Path("matrix.duckdb") if args.sql is None and not args.show else None)
    if out and (out.absolute().is_relative_to(lake.root) or out.resolve().is_relative_to(Path(lake.root).resolve())):
        raise ConfigError(f"--out {out} is inside the lake, where only collect.py writes; name another place")
    only = asked_of(args) if args.sql is None else views_of(args.sql)
    if only is not None and args.judge:
        only |= set(judged.VIEWS)
    pool = pool_of(args, lake)
    with tempfile.SpooledTemporaryFile(OUTPUT_IN_MEMORY, "w+", encoding="utf-8", newline="") as text:
        ask(
            lake,
            lambda con, holdings: answer(args, lake, holdings, pool, out, con, console, text),
            only=only,
            include=pool.include,
            choice=pool.choice,
        )
        text.seek(0)
        shutil.copyfileobj(text, rows_stream())
    if args.sql is None:
        print_next(lake, args.lake, options_of(args), out, console)


def asked_of(args: argparse.Namespace) -> set[str]:
    """The views that `answer` itself queries without --sql. The file always gets all views."""
    asked = f"{ANY_RECORDS} {IMPORTS}"
    return named_in(" ".join((asked, *SHOWN, *judged.VIEWS)) if args.show else asked)


def answer(
    args: argparse.Namespace,
    lake: Lake,
    holdings: Holdings,
    pool: ChosenPool,
    out: Path | None,
    con: duckdb.DuckDBPyConnection,
    to: Console,
    text: IO[str],
) -> None:
    """Writes the whole output into `text`, anew at each call: the caller repeats it after a damaged file."""
    text.seek(0)
    text.truncate()
    with contextlib.redirect_stdout(text):
        if out:
            write_database(lake, out, pool)
            to.print(f"{out}: the views over {lake.uri}", soft_wrap=True)
        if pool.choice.where != "true" and con.execute(NO_CELLS).fetchall():
            where = textwrap.shorten(pool.choice.where, 200)
            print(f"matrix: no cell meets the pool's condition, {where}: its views have no rows", file=sys.stderr)
        lines = judge_lines(con) if pool.choice.judge or args.show else []
        if args.sql is not None:
            for line in lines:  # beside the rows, which another program may read
                print(f"matrix: {line}", file=sys.stderr)
            print_query(con, lake, holdings, args.sql, args.format, to)
            return
        if not con.execute(ANY_RECORDS).fetchall():
            which = "" if pool.include == "all" else f"{pool.include} "
            to.print(f"the lake {lake.uri} holds no {which}records yet: collect into it with pipelines/collect.py")
        if pool.include == "collected" and con.execute(IMPORTS).fetchall():
            to.print("imported records are left out: --include imported shows them, --include all shows both")
        if args.show:
            for line in lines:
                to.print(line, soft_wrap=True)
            show(con, to)


# ---- the file


def write_database(lake: Lake, out: Path, pool: ChosenPool) -> None:
    """Writes the views into `out`, whole or not at all. They read the newest compaction and all shards after it.

    The pool's candidates and questions are those of this moment. Raises ConfigError if `out` must not or cannot be
    written.
    """
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    if os.path.lexists(out):
        _check_replaceable(out)
    try:
        with replacing(out) as temporary, contextlib.closing(duckdb.connect(temporary)) as con:
            open_store(con, lake)
            files = read_holdings(lake, include=pool.include).view_files(live=True)
            create_views(con, lake.uri, files, choice=pool.choice)
    except (OSError, duckdb.IOException) as error:
        raise ConfigError(f"--out {out}: cannot be written: {one_line(error)}") from error


def _check_replaceable(out: Path) -> None:
    """Raises ConfigError if `out` holds anything but our views."""
    if not out.is_file():  # DuckDB would wait for the other end of a pipe
        raise ConfigError(f"--out {out} exists and is not a file; name another")
    refusal = f"--out {out} exists and this command did not write it; remove it or name another"
    if out.with_name(out.name + ".wal").exists():
        raise ConfigError(f"--out {out} is open in another program; close it there or name another file")
    try:
        with contextlib.closing(duckdb.connect(out, read_only=True)) as con:
            objects = con.execute(CONTENTS).fetchall()
    except duckdb.Error as error:
        raise ConfigError(f"{refusal} ({one_line(error)})") from error
    if not objects or not set(objects) <= contents() | FORMER:
        raise ConfigError(refusal)


# ---- output


def print_query(
    con: duckdb.DuckDBPyConnection, lake: Lake, holdings: Holdings, query: str, form: str | None, console: Console
) -> None:
    """Prints a query's rows in one of FORMATS; without one, as a table on a terminal and as CSV elsewhere."""
    statements = con.extract_statements(query)
    if not statements:
        raise ConfigError("--sql is empty: give it a query, such as 'FROM leaderboard'")
    try:
        check_query(con, query)
    except ConfigError as error:
        raise ConfigError(f"--sql only reads: {error}") from error
    narrow(con, lake.uri, holdings, query)
    result = con.sql(query)
    if result is not None and form is None and console.is_terminal:
        result.show(max_width=console.width, max_rows=1000)
    elif result is not None:
        if form == "json" and len(set(result.columns)) < len(result.columns):
            raise ConfigError("two columns of the query have one name, and JSON can hold one: name them with AS")
        print_rows(form or "csv", result.columns, iter(_exact_times(result).fetchone, None))


def _exact_times(rows: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Returns times as ISO texts where Python's have no infinity, no nanoseconds, and intervals no months."""
    texts = {"INTERVAL": "{}::VARCHAR", "DATE": "{}::VARCHAR"}
    texts |= {f"TIMESTAMP{unit}": "replace({}::VARCHAR, ' ', 'T')" for unit in ("", "_S", "_MS", "_NS")}
    columns = [texts.get(str(dtype), "{}").format(f"#{place}") for place, dtype in enumerate(rows.types, 1)]
    if not any(column.endswith(("VARCHAR", ")")) for column in columns):
        return rows
    return rows.query("rows_with_times", f"SELECT {', '.join(columns)} FROM rows_with_times")


#: Columns of the suggested query. They fit on a screen.
CORNER = "task, item, model, score, prompt_tokens, completion_tokens"


def print_next(lake: Lake, place: str, asked: list[str], out: Path | None, console: Console) -> None:
    """Prints the next commands to try, ready to paste."""
    query = f"SELECT {CORNER} FROM matrix ORDER BY ALL LIMIT 20"
    commands = [command(__file__, "--lake", place, *asked, "--sql", query)]
    if out and lake.local:  # a remote lake needs a secret, which the file does not hold
        code = f'import duckdb; print(duckdb.connect({str(out)!r}, read_only=True).sql("FROM leaderboard"))'
        commands.append(python(code))
    if out and lake.local and shutil.which("duckdb"):
        commands.append(shlex.join(["duckdb", "-readonly", str(out), "FROM leaderboard"]))
    for one in commands:
        console.print(f"next: {one}", soft_wrap=True)


if __name__ == "__main__":
    from pipelines.console.script import run_script

    run_script(main)
