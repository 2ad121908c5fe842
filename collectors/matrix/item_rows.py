"""Reads files of anybody with a row for each item of a pool, such as a router's choices or a model's records.

Owns the columns that name an item, and the lines that errors name.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.files import BadFile, SourceFile
from collectors.importers.text_tables import refuse_doubled, text_table
from schemas.failures import ConfigError, one_line

#: Columns that may name an item, the first one in a file counts.
KEYS = ("question", "item", "item_hash", "source_key")
#: Views that name_items reads.
VIEWS = ("_questions_of", "_question_names", "_left_out", "items")


def load_rows(
    con: duckdb.DuckDBPyConnection, path: Path, columns: Sequence[str], most: int | None = None
) -> Collection[str]:
    """Makes the table rows_of_file of a file's rows: their number, and those of KEYS and `columns` that it has.

    Returns all columns of the file. Raises ConfigError, with the line, where it cannot be read, and where it has more
    rows than `most`.
    """
    too_many = ConfigError(f"{path}: it has more than {most or 0:,} rows")
    try:
        if path.suffix.lower() == ".parquet":
            file = pq.ParquetFile(path)  # not by `con`, which is locked and reads the lake alone
            refuse_doubled(file.schema_arrow.names)
            if most is not None and file.metadata.num_rows > most:
                raise too_many
            names = set(file.schema_arrow.names)
            rows = file.read([name for name in (*KEYS, *columns) if name in names])
            con.register("given", rows.append_column("row", pa.array(range(1, len(rows) + 1), pa.int64())))
            con.execute("CREATE OR REPLACE TEMP TABLE rows_of_file AS FROM given")
            con.unregister("given")
            return names
        table = text_table(SourceFile(str(path), path.name, path.stat().st_size))
        wanted = [name for name in (*KEYS, *columns) if name in table.names]
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE rows_of_file (row BIGINT{''.join(f', {name} VARCHAR' for name in wanted)})"
        )

        def refuse(row: int, kind: str, message: str) -> None:
            place = "" if message.startswith("line ") else f", {line_of(path, row)}"
            raise ConfigError(f"{path}{place}: {message}")

        rows_so_far = 0
        for batch in table.batches(wanted, refuse):  # also without a column: the first bad row names the reason
            rows_so_far += len(batch)
            if most is not None and rows_so_far > most:
                raise too_many
            con.register("given", batch)
            con.execute("INSERT INTO rows_of_file FROM given")
            con.unregister("given")
        return table.names
    except (duckdb.Error, BadFile, OSError, ValueError, pa.ArrowException) as error:
        raise ConfigError(f"{path}: {one_line(error, 200)}") from error


def key_of(path: Path, columns: Collection[str], needed: str) -> str:
    """The column of KEYS that names the items. Raises ConfigError without one, and without the column `needed`."""
    key = next((column for column in KEYS if column in columns), None)
    if key is None or needed not in columns:
        raise ConfigError(
            f"{path}: it needs a column {needed}, and question, item, item_hash or source_key; it has "
            f"{', '.join(sorted(columns))}"
        )
    return key


def name_items(con: duckdb.DuckDBPyConnection, key: str) -> None:
    """Makes the table asked_items of what the pool's cells were asked: task, question, and its name by `key`."""
    name = "question" if key == "question" else f"{key}::VARCHAR"
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE asked_items AS
        SELECT DISTINCT places.task, question, {name} AS name
        FROM (
            SELECT task, items_digest, item, question_number FROM _questions_of SEMI JOIN (
                SELECT task, items_digest FROM _pool_choice ANTI JOIN _left_out USING (task, cell_id)
            ) AS kept USING (task, items_digest)
        ) AS places
        INNER JOIN (SELECT question_number, question FROM _question_names) AS names USING (question_number)
        LEFT JOIN (SELECT task, items_digest, item, item_hash, source_key FROM items) AS texts
            USING (task, items_digest, item)
        """
    )


def line_of(path: Path, row: int) -> str:
    """The place of row number `row`, counted from 1: its line, or its number in a file without lines."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return f"row {row}"
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        if suffix in (".csv", ".tsv"):
            return f"line {_csv_line(file, row)}"
        return f"entry {row}" if file.read(64).lstrip()[:1] == "[" else f"line {row}"


def _csv_line(file: Iterable[str], row: int) -> int:
    """The number of the line where data row `row` begins. A quoted value may span several lines."""
    reader = csv.reader(file)
    begins = 1
    for values in reader:
        row -= bool(values)  # the first row that is not empty is the header
        if row < 0:
            return begins
        begins = reader.line_num + 1
    return begins
