"""Makes and writes rows of the table `failures`."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from collectors.lake.layout import failure_name
from schemas.failures import RouterlakeError, one_line
from schemas.identity import digest
from schemas.records import FAILURE

if TYPE_CHECKING:
    from collectors.lake.store import Lake


def failure_row(run_id: str, error: BaseException, **columns: Any) -> dict[str, Any]:
    """Returns a row of schemas.records.FAILURE for `error`; `columns` add its model, task, cell or items."""
    kind = error.kind if isinstance(error, RouterlakeError) else "internal"
    now = dt.datetime.now(dt.UTC)
    return {"run_id": run_id, "failed_at": now, "kind": kind, "message": one_line(error), **columns}


def write_failure(lake: Lake, row: dict[str, Any], name: str | None = None) -> None:
    """Writes one failure as one object, named by run and content unless `name` is given."""
    row = {column: row.get(column) for column in FAILURE.names}
    name = name or failure_name(row["run_id"], digest({k: str(v) for k, v in row.items()}, 8))
    lake.create_table(name, pa.Table.from_pylist([row], schema=FAILURE))
