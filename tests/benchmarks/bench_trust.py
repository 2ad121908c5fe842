"""What nobody may do to a lake: keys searched everywhere, versions tampered with, queries that act. A row a figure.

A row is a function in ROWS: it gets the report and an empty folder, and reports one figure or more.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb

from collectors.publish.publishing import publish
from pipelines import matrix
from pipelines import publish as publishing
from schemas.reading_only import refused_functions
from tests.benchmarks.bench_lake import ROOT, Report
from tests.helpers.duckdb_functions import acts, calls
from tests.helpers.filled_lakes import filled, plain_lake, published
from tests.helpers.marked_commands import PLACES
from tests.helpers.markers import KEY, found_in, shown_by
from tests.helpers.signed_tampering import KINDS
from tests.helpers.tampering import Copy

Row = Callable[[Report, Path], None]
ROWS: list[Row] = []


def row(measure: Row) -> Row:
    ROWS.append(measure)
    return measure


@row
def keys_found(report: Report, folder: Path) -> None:
    found = []
    for number, (name, act) in enumerate(PLACES.items()):
        place = folder / str(number)
        place.mkdir()
        if KEY in shown_by(act, place) or any(found_in(place)):
            found.append(name)
    report.row("a key in a place of a user: found again", len(found), 0, f"{len(PLACES)} places {' '.join(found)}")


@row
def tampered_versions(report: Report, folder: Path) -> None:
    version = Path(publish(published(filled(folder / "lake").lake, folder / "a"), str(folder / "out"))[0])
    named = []
    for kind, tamper in KINDS.items():
        place = folder / kind
        place.mkdir()
        copy = Copy(version, place)
        tamper(copy)
        with quiet():
            if publishing.main(["verify", str(copy.folder)]) in (1, 2):
                named.append(kind)
    missed = " ".join(KINDS.keys() - set(named))
    report.row("versions tampered with: named or refused", len(named), len(KINDS), f"kinds {missed}", more=True)


@row
def functions_that_act(report: Report, _: Path) -> None:
    """Every function of DuckDB is tried without a lock, each in a process of its own."""
    tried = calls()
    acting = {name for name, queries in tried.items() if acts(queries)}
    with duckdb.connect() as con:
        refused = acting & refused_functions(con)
    detail = f"of {len(tried)} tried: {' '.join(sorted(acting))}"
    report.row("functions of DuckDB that act: refused in queries", len(refused), len(acting), detail, more=True)


@row
def files_of_queries(report: Report, folder: Path) -> None:
    """All calls of all functions, and statements that write, as `matrix.py --sql` and as a condition of `--pool`."""
    from pipelines import score

    lake = plain_lake(str(folder / "lake"), 1).lake
    before = set(folder.rglob("*"))
    statements = ["COPY (SELECT 1) TO '{here}/x.csv'", "EXPORT DATABASE '{here}/e'", "ATTACH '{here}/x.db'"]
    acting = [query for name in ("enable_logging", "enable_profiling") for query in calls()[name]]
    queries = [query.format(here=place) for query in (*statements, *acting) for place in (lake.root, folder)]
    here = os.getcwd()
    os.chdir(folder)
    try:
        with quiet():
            for query in queries:
                matrix.main(["--lake", lake.uri, "--sql", query])
                for condition in (f"true); {query}; SELECT (1", f"EXISTS ({query})"):
                    score.main(["--lake", lake.uri, "--choices", "none.csv", "--pool", condition])
    finally:
        os.chdir(here)
    written = set(folder.rglob("*")) - before
    names = " ".join(str(path.relative_to(folder)) for path in sorted(written))
    report.row("files that a query or condition wrote", len(written), 0, f"{len(queries) * 3} tried {names}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        yield


def main() -> int:
    report = Report()
    (ROOT / ".cache").mkdir(exist_ok=True)
    os.environ.setdefault("ROUTERLAKE_CACHE", str(ROOT / ".cache" / "routerlake"))
    for measure in ROWS:
        with tempfile.TemporaryDirectory(prefix="routerlake-bench-trust-") as folder:
            measure(report, Path(folder))
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
