"""Imports for tests: files of a source put into a lake, and what became of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.files import find_files
from collectors.importers.ingest import Report, ingest
from collectors.importers.registry import FORMATS, aliases_of
from collectors.importers.sources import ImportSource
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from schemas.views import named_in

#: Real files that are beside a checkout on some machines; tests of them are skipped elsewhere.
SHARED = Path(__file__).resolve().parents[3] / "shared/data"
#: Files in the layouts of their writers: a folder for each format.
CORPUS = Path(__file__).resolve().parents[1] / "golden/imports"


#: Settings of the format `table` for tables that `table` writes.
COLUMNS = {"model": "model", "task": "task", "key": "id", "score": "score"}


def table(
    path: Path, verdicts: list[tuple[Any, ...]], names: tuple[str, ...] = ("model", "task", "id", "score")
) -> Path:
    """A Parquet table of verdicts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(zip(*verdicts, strict=True))
    pq.write_table(pa.table(dict(zip(names, (list(column) for column in columns), strict=True))), path)
    return path


def verdicts(models: str = "ab", items: int = 3) -> list[tuple[Any, ...]]:
    return [(model, "quiz", f"q{item}", float((item + ord(model)) % 2)) for model in models for item in range(items)]


def imported(form: str, paths: Path | list[Path], lake: Path, *, dry_run: bool = False, **settings: Any) -> Report:
    """Imports `paths` as `form`. The report's counts are checked to add up."""
    paths = paths if isinstance(paths, list) else [paths]
    source = ImportSource(
        name=settings.pop("name", form), format=form, aliases=aliases_of(form, settings.pop("aliases", {})), **settings
    )
    files = find_files([str(path) for path in paths], FORMATS[form].patterns)
    report = ingest(FORMATS[form].read, files, source, Lake(str(lake)), dry_run=dry_run)
    for count in report.counts:
        assert count.rows == count.records + count.known + count.folded + count.rejected
    assert report.total.rejected == sum(1 for reject in report.rejects if reject["source_row"] is not None)
    return report


def rows(lake: Path, sql: str) -> list[tuple[Any, ...]]:
    """A query over a lake's views, imported records among them."""
    with connect(Lake(str(lake)), only=named_in(sql)) as con:
        return con.execute(sql).fetchall()


def contents(lake: Path) -> dict[str, Any]:
    """Everything that a lake holds but times: name -> rows of a table."""
    tables = {}
    for path in sorted(lake.rglob("*.parquet")):
        tables[str(path.relative_to(lake))] = [
            {k: v for k, v in row.items() if k not in ("imported_at", "started_at")}
            for row in pq.ParquetFile(path).read().to_pylist()
        ]
    return tables


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
