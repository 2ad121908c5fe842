"""The tables of a published version beside its records: which rows of the lake go into it, and in what form.

Owns the choice of rows and their order. Knows nothing of a version's parts, matrix and manifest
(collectors.publish.version).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.holdings import Holdings, includes
from collectors.lake.keyless import without_keys_in
from collectors.lake.retractions import Retracted
from collectors.lake.store import Lake, parquet_bytes
from collectors.publish.anonymous import Anonymous
from schemas.records import ITEM, RETRACTION, TABLES

#: Tables that need no cell of the version.
_ALWAYS = ("failures", "models", "prices", "gpu_prices", "price_names", layout.RETRACTIONS, layout.SPLITS)
_OF_FORECASTS = (layout.FORECASTS, layout.FORECAST_FITS)
_FORECASTS = """
SELECT DISTINCT forecast, task, items_digest, prompting, metric FROM forecast_fits WHERE is_shown AND stale IS NULL
"""
#: Table -> its rows: the view verdicts has those of answers that count alone.
_JUDGED = {
    layout.VERDICTS: "SELECT verdicts.* FROM verdicts SEMI JOIN cells USING (cell_id)",
    layout.JUDGES: "SELECT judges.* EXCLUDE (is_newest) FROM judges "
    "SEMI JOIN (SELECT judge_id FROM verdicts SEMI JOIN cells USING (cell_id)) USING (judge_id)",
}


@dataclass(frozen=True)
class ChosenRows:
    """What the views choose of some tables."""

    #: Table -> the verdicts of published answers, and their judges.
    judged: dict[str, pa.Table]
    #: Forecasts of these cells as they are; of others they would be no use, and may not be published.
    forecasts: pa.Table


def views_of_tables(holdings: Holdings) -> list[str]:
    """The views that chosen_rows needs beside PROVENANCE_VIEWS.

    The view of forecasts reads every record, so it is made only where there are some.
    """
    return [layout.FORECAST_FITS] if holdings.listed[layout.FORECAST_FITS] else []


def chosen_rows(con: duckdb.DuckDBPyConnection, holdings: Holdings) -> ChosenRows:
    judged = {
        # DuckDB gives times in another name of the zone.
        table: con.sql(query).to_arrow_table().select(TABLES[table].names).cast(TABLES[table])
        for table, query in _JUDGED.items()
    }
    forecasts = con.sql(_FORECASTS).to_arrow_table() if views_of_tables(holdings) else pa.table({})
    return ChosenRows(judged, forecasts)


@dataclass(frozen=True)
class VersionTables:
    """The tables without records."""

    lake: Lake
    holdings: Holdings
    planned_cells: pa.Table
    chosen: ChosenRows
    retracted: Retracted
    anonymous: Anonymous

    def objects(self, table: str) -> Iterator[tuple[str, bytes]]:
        """Yields names and contents: the items as they are, any other table as one sorted file if it has rows."""
        if table == "items":
            # An imported table that grew has several files. All their names begin with the digest of the first.
            mine = set(self.planned_cells["items_digest"].to_pylist())
            for name in self.holdings.listed[table]:
                if layout.items_digest_of(name) in mine:
                    yield name, _as_today(self.lake.read(name), ITEM)
            return
        schema, rows = TABLES[table], self._rows(table)
        if len(rows):  # some readers fail at a file without rows
            order = [(f.name, "ascending") for f in schema if not pa.types.is_list(f.type)]
            rows = self.anonymous.table(table, rows).sort_by(order).replace_schema_metadata(schema.metadata)
            yield layout.published_name(table), parquet_bytes(rows)

    def _rows(self, table: str) -> pa.Table:
        if table in self.chosen.judged:
            return without_keys_in(self.chosen.judged[table])
        schema = TABLES[table]
        names = [name for name in self.holdings.listed[table] if self._is_asked_for(table, name)]
        files = [_read_table(self.lake.read(name), schema) for name in names]
        rows = without_keys_in(self._left(table, pa.concat_tables([schema.empty_table(), *files])))
        if table == "models":  # without the rest of a hub's catalog
            import pyarrow.compute as pc  # 75 ms

            rows = rows.filter(pc.is_in(rows["model"], self.planned_cells["model"].combine_chunks()))
        return rows

    def _left(self, table: str, rows: pa.Table) -> pa.Table:
        """The rows of a table without those about forgotten cells, runs and models, and without old forecasts."""
        if table in _OF_FORECASTS:
            keys = self.chosen.forecasts.column_names
            numbered = rows.select(keys).append_column("row", pa.array(range(len(rows)), pa.int64()))
            joined = numbered.join(self.chosen.forecasts, keys, join_type="left semi") if keys else None
            return rows.take(joined["row"]) if joined else rows[:0]
        if table == layout.RETRACTIONS:
            kept = [row for row in self.retracted.rows if row["cell_id"] is None or self._is_included(row)]
            kept = [row for row in kept if row["run_id"] is None]
            return pa.Table.from_pylist(list(map(dict, kept)), RETRACTION)
        return self.retracted.left_of(table, rows)

    def _is_included(self, row: Mapping[str, Any]) -> bool:
        return includes(self.holdings.include, str(row["cell_id"]))

    def _is_asked_for(self, table: str, name: str) -> bool:
        """Whether an object goes into the version: not all of them depend on the kind of cells."""
        include = self.holdings.include
        if table in _OF_FORECASTS or include == "all" or table in _ALWAYS:  # _left keeps forecasts of these cells
            return True
        imported = table in ("imports", "rejects", "suspicions") or layout.is_of_import(name)
        return imported == (include == "imported")


def _as_today(data: bytes, schema: pa.Schema) -> bytes:
    """Returns a Parquet object as it is, or with the columns added that its schema version lacks."""
    if set(schema.names) <= set(pq.read_schema(io.BytesIO(data)).names):
        return data
    return parquet_bytes(_read_table(data, schema))


def _read_table(data: bytes, schema: pa.Schema) -> pa.Table:
    return pq.read_table(io.BytesIO(data), schema=schema, page_checksum_verification=True)
