"""Writes one part: the rows of some cells of one task under one prompting, sorted for reading.

Owns the order of rows and the Parquet settings. Knows nothing of the choice of cells and of the place of the files.

Verdicts are sorted by item, then by the cell's place: tokenizers together, then models by name. So equal token counts
are neighbours: a record takes 1.0 bytes, and 2.2 in the order of item and model (3.5M synthetic records). Answers have
a file of their own, and so have the rows that a higher generation replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
import numpy.typing as npt

from collectors.file_digests import sha256_of
from collectors.lake.holdings import Part
from schemas.identity import COLUMN_KEY
from schemas.records import FOLDED_RECORD, FOLDED_RESPONSE, OF_CELL, OLDER_RECORD, SCHEMA_VERSION
from schemas.sql import quoted
from schemas.views import KEPT

#: Views that write_part reads.
NEEDED_VIEWS = (*KEPT, "cells", "models", "records", "responses", "superseded")

Chunked = TypeVar("Chunked")
#: Writes the rows of a query into a file, and returns their number.
Writer = Callable[[duckdb.DuckDBPyConnection, str, Path], int]

#: Kinds of objects of a part, in the order of Part.objects.
KINDS = ("records", "responses", "older", "bits")

#: Most memory of DuckDB while it sorts; beyond that it sorts on disk.
MEMORY = "1GB"

#: Dictionaries beat deltas once tokenizers are together: 0.05 bytes per prompt count against 0.08, and 0.30 against
#: 0.37 per completion count.
_PARQUET = (
    "(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, "
    f"KV_METADATA {{routerlake_schema_version: '{SCHEMA_VERSION}'}})"
)

#: Columns that are mostly the same for all cells of a part. A constant is not sorted, which saves a quarter of time.
_SHARED = ("task", *OF_CELL)

_CELLS = f"""
CREATE OR REPLACE TABLE part_cells AS
WITH tokenizers AS (
    SELECT model, revision, min(tokenizer_hash) AS tokenizer FROM models GROUP BY ALL
)
SELECT
    cell_id, model, task, {", ".join(OF_CELL)}, filter,
    (row_number() OVER (ORDER BY tokenizer, model, cell_id) - 1)::INTEGER AS place,
    row_number() OVER (ORDER BY {", ".join(f"cells.{name}" for name in COLUMN_KEY)}) AS column_number
FROM cells LEFT JOIN tokenizers USING (model, revision)
WHERE list_contains(?, cell_id)
"""

_FOLDED = """
SELECT {columns}
FROM (
    SELECT records.* EXCLUDE (task, model), part_cells.model, {varying} place,
        records.filter = part_cells.filter AND repeat = 0 AS is_primary
    FROM records JOIN part_cells USING (cell_id)
    ORDER BY is_primary DESC, records.filter, repeat, item, place
)
"""

_ANSWERED = """
SELECT {columns}
FROM responses JOIN part_cells USING (cell_id)
ORDER BY item, place, responses.filter, repeat
"""

_OLDER = """
SELECT {columns}
FROM superseded JOIN part_cells USING (cell_id)
ORDER BY item, place, superseded.filter, repeat, generation, {columns}
"""


#: Most rows of small parts that are read together: making the views and reading a few shards through them costs half a
#: second of CPU, whatever the number of rows.
TOGETHER_ROWS = 200_000


@dataclass(frozen=True)
class WrittenPart:
    part: Part
    #: The cells, by place.
    cells: list[str]
    #: Number of rows that a higher generation replaced.
    older_rows: int
    #: Name of an object -> its file on this machine.
    files: dict[str, Path]


def limit_memory(con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Limits the memory of `con` to MEMORY; it sorts the rest in `folder`."""
    con.execute(f"SET memory_limit = '{MEMORY}'")
    con.execute("SET temp_directory = ?", [str(folder / "spill")])
    con.execute("SET enable_progress_bar = false")
    con.execute("SET enable_external_file_cache = false")  # or it keeps each file that was read once


def together(parts: Iterable[Chunked], rows: Callable[[Chunked], int]) -> Iterator[list[Chunked]]:
    """Yields neighbours whose rows are read together, at most TOGETHER_ROWS; one with more rows stays alone."""
    group: list[Chunked] = []
    size = 0
    for part in parts:
        if group and size + rows(part) > TOGETHER_ROWS:
            yield group
            group, size = [], 0
        group.append(part)
        size += rows(part)
    if group:
        yield group


def read_together(con: duckdb.DuckDBPyConnection) -> None:
    """Reads the rows of several small parts once, into tables that write_part then finds in place of the views."""
    older = ["superseded"] if _has_older(con) else []
    con.execute("CREATE SCHEMA together")
    for view in ("cells", "models", "records", "responses", *older):
        con.execute(f"CREATE TABLE together.{view} AS FROM main.{view}")
    con.execute("SET search_path = 'together,main'")


def write_part(
    con: duckdb.DuckDBPyConnection,
    cells: Sequence[str],
    folder: Path,
    name: Callable[[str, list[str]], str],
    *,
    bits: bool = False,
    write: Writer | None = None,
) -> WrittenPart:
    """Writes the rows of these cells, all of one task and prompting, from the views of `con` into files in `folder`.

    `name` returns the name of an object for 'records', 'responses', 'older' or 'bits' and the ordered cells. With
    `bits` that object is written, too, if the rows allow it. `write` writes the rows of a query, by default in DuckDB's
    own form. The same rows give the same bytes. Files of an earlier part are replaced. Raises duckdb.Error if a file
    cannot be read or written.
    """
    write = write or _copy
    con.execute(_CELLS, [list(cells)])
    [(task, prompting)] = con.execute("SELECT DISTINCT task, prompting FROM part_cells").fetchall()
    paths = {kind: folder / f"{kind}.parquet" for kind in KINDS if kind != "bits"}
    rows = {"records": write(con, _folded_query(con), paths["records"])}
    columns = ", ".join(_of("responses", name) for name in FOLDED_RESPONSE.names)
    rows["responses"] = write(con, _ANSWERED.format(columns=columns), paths["responses"])
    columns = ", ".join(_of("superseded", name) for name in OLDER_RECORD.names)
    rows["older"] = write(con, _OLDER.format(columns=columns), paths["older"]) if _has_older(con) else 0
    order = [cell_id for (cell_id,) in con.execute("SELECT cell_id FROM part_cells ORDER BY place").fetchall()]
    primary, first, last, is_grid = _primary_rows(con, paths["records"], len(order))
    if bits and is_grid and (data := _bits(con, paths["records"])):
        paths["bits"] = folder / "bits.bin"
        paths["bits"].write_bytes(data)
        rows["bits"] = primary
    names = {kind: name(kind, order) for kind in paths if kind == "records" or rows[kind]}
    sizes = {kind: paths[kind].stat().st_size for kind in names}
    part = Part(
        task=task,
        prompting=prompting,
        records=names["records"],
        responses=names.get("responses"),
        older=names.get("older"),
        bits=names.get("bits"),
        cells=len(order),
        rows=rows["records"],
        primary_rows=primary,
        first_item=first,
        last_item=last,
        is_grid=is_grid,
        bytes=sizes["records"],
        other_bytes=sum(sizes.values()) - sizes["records"],
        schema_version=SCHEMA_VERSION,
        sha256=tuple(sha256_of(paths[kind]) for kind in KINDS if kind in names),
    )
    files = {names[kind]: paths[kind] for kind in names}
    return WrittenPart(part, order, rows["older"], files)


def has_every_row_once(con: duckdb.DuckDBPyConnection, records: Path) -> bool:
    """Whether no two verdicts of the written file have one key, and none lacks a value that every verdict has."""
    always = [field.name for field in FOLDED_RECORD if not field.nullable]
    nulls = "SELECT coalesce(sum(stats_null_count), 0) FROM parquet_metadata(?) WHERE list_contains(?, path_in_schema)"
    [(lacking,)] = con.execute(nulls, [str(records), always]).fetchall()
    # The rows are sorted by their key, so that equal ones are neighbours: no set of all keys is built.
    key = "(is_primary, filter, repeat, item, place)"
    twice = f"SELECT 1 FROM (SELECT {key} = lag({key}) OVER () AS again FROM read_parquet(?)) WHERE again LIMIT 1"
    return not lacking and not con.execute(twice, [str(records)]).fetchall()


def _folded_query(con: duckdb.DuckDBPyConnection) -> str:
    shared = {}
    for name in _SHARED:
        values = con.execute(f"SELECT DISTINCT {name} FROM part_cells LIMIT 2").fetchall()
        if len(values) == 1:
            [(value,)] = values
            shared[name] = "NULL::VARCHAR" if value is None else quoted(value)
    columns = [f"{shared[name]} AS {name}" if name in shared else name for name in FOLDED_RECORD.names]
    varying = "".join(f"part_cells.{name}, " for name in _SHARED if name not in shared)
    return _FOLDED.format(columns=", ".join(columns), varying=varying)


def _of(view: str, column: str) -> str:
    """A column of a row. The name of its model is its cell's: a published version has cut keys out of those."""
    return f"{'part_cells' if column == 'model' else view}.{column}"


def _copy(con: duckdb.DuckDBPyConnection, query: str, path: Path) -> int:
    [(rows,)] = con.execute(f"COPY ({query}) TO {quoted(str(path))} {_PARQUET}").fetchall()
    return int(rows)


def _has_older(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether `superseded` may have rows, by names alone: a query of the view would open every shard again."""
    query = "SELECT 1 FROM _superseded JOIN _shard_files USING (file) WHERE NOT is_folded"
    rest = "SELECT 1 FROM _outdated UNION ALL SELECT 1 FROM _older LIMIT 1"
    return bool(con.execute(f"{query} UNION ALL {rest}").fetchall())


def _primary_rows(
    con: duckdb.DuckDBPyConnection, records: Path, cells: int
) -> tuple[int, int | None, int | None, bool]:
    """Returns the number of primary rows, their first and last item, and whether they are a whole grid."""
    columns = con.execute("SELECT item, place FROM read_parquet(?) WHERE is_primary", [str(records)]).fetchnumpy()
    return grid_of(np.asarray(columns["item"]), np.asarray(columns["place"]), cells)


def grid_of(
    item: npt.NDArray[np.integer[Any]], place: npt.NDArray[np.integer[Any]], cells: int
) -> tuple[int, int | None, int | None, bool]:
    """The number of these primary rows, their first and last item, and whether they are a whole grid, in order."""
    if not len(item):
        return 0, None, None, False
    first, last = int(item.min()), int(item.max())
    is_grid = len(item) == cells * (last - first + 1) and bool(
        (item.reshape(-1, cells) == np.arange(first, last + 1)[:, None]).all()
        and (place.reshape(-1, cells) == np.arange(cells)).all()
    )
    return len(item), first, last, is_grid


def _bits(con: duckdb.DuckDBPyConnection, records: Path) -> bytes | None:
    """Returns the object `bits` of a grid; None if a score is missing, or is neither 0 nor 1."""
    score = con.execute("SELECT score FROM read_parquet(?) WHERE is_primary", [str(records)]).fetchnumpy()["score"]
    if isinstance(score, np.ma.MaskedArray) and score.mask.any():
        return None
    right: npt.NDArray[np.bool_] = np.asarray(score) == 1
    if not (right | (np.asarray(score) == 0)).all():
        return None
    order = [place for (place,) in con.execute("SELECT place FROM part_cells ORDER BY column_number").fetchall()]
    return np.packbits(right.reshape(-1, len(order))[:, order], bitorder="little").tobytes()
