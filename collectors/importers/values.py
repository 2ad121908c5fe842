"""Values of other people's JSON as columns of a record. A value of another type is unknown, and never guessed.

Owns the helpers that importers of single rows share. Knows nothing of any one format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from collectors.importers.files import BadFile
from collectors.importers.json_values import decoded, json_rows
from collectors.importers.sources import ImportSource, Sink
from schemas.identity import content_hash

if TYPE_CHECKING:
    from collectors.importers.staging import Staging

JSON = ("*.json", "*.jsonl")
#: Bytes of rows that are made values of Python at a time, and of one value beside its content.
_BATCH_BYTES, _VALUE_BYTES = 64 * 2**20, 120


def by_file(read: Callable[[Sink, int, ImportSource], None]) -> Callable[[Staging, ImportSource], None]:
    """Makes an importer that calls `read` for one file after another. An error in one is a reject of that file."""

    def read_all(staging: Staging, source: ImportSource) -> None:
        staging.read_files(read, [(number, (source,)) for number in range(len(staging.files))])

    return read_all


def objects(staging: Sink, number: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (row, object) of JSON lines, or of one array. Rejects the rows that are not objects."""
    for row, data in json_rows(staging.files[number]):
        try:
            if isinstance(data, BadFile):
                raise data
            value = decoded(data)
            if not isinstance(value, dict):
                raise BadFile("damaged", "not a JSON object")
        except BadFile as error:
            staging.reject(number, row, error.kind, str(error))
            continue
        yield row, value


def rows_at_once(metadata: pq.FileMetaData) -> int:
    """How many rows of a Parquet file to make values of Python of: 1,000, or fewer where they are large or wide."""
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    per_row = size / max(metadata.num_rows, 1) + _VALUE_BYTES * metadata.num_columns
    return max(1, min(1000, int(_BATCH_BYTES / per_row)))


def verdict(
    staging: Sink,
    number: int,
    row: int,
    task: str,
    key: str,
    model: str,
    score: Any,
    *,
    run: str = "",
    **columns: Any,
) -> None:
    """Takes a verdict. Rejects it if its score is not a number."""
    value = number_of(score, keep_odd=True)
    if score is not None and value is None:
        place = {"model": model, "task": task, "source_key": key}
        staging.reject(number, row, "damaged", f"the score {str(score)[:40]!r} is not a number", **place)
        return
    staging.row(file=number, row=row, run=run, model=model, task=task, key=key, score=value, **columns)


def content_of(question: Any, choices: Sequence[str] | None = None, context: str = "") -> str | None:
    """schemas.identity.content_hash of a question; None if `question` is not a text."""
    return content_hash(question, choices or (), context) if isinstance(question, str) and question.strip() else None


def text_of(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def number_of(value: Any, *, keep_odd: bool = False) -> float | None:
    """A finite number, or with `keep_odd` also NaN and infinities; None for anything else."""
    if isinstance(value, bool | int | float):
        number = float(value) if abs(value) < 1e300 or value != value else float("inf")
        return number if keep_odd or np.isfinite(number) else None
    return None


def whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31 else None


def count_of(value: Any) -> int | None:
    """A count of tokens; one below 0 stands for an unknown one (HELM, padding)."""
    number = whole(value)
    return number if number is not None and number >= 0 else None


def texts(value: Any) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    return [text for text in value if isinstance(text, str)] or None if isinstance(value, list) else None
