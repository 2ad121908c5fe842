"""Tables of verdicts, a row a verdict, whose columns a YAML of settings names.

Owns what each setting becomes. The settings themselves are in collectors.importers.formats.table_settings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from collectors.importers.formats.table_settings import CELL, ITEM, is_constant
from collectors.importers.relation import Constant, Kind, select_items, table_of
from collectors.importers.sources import CellDescription
from collectors.importers.staging import Staging
from collectors.importers.suspicions import AGGREGATE, ODD_TOTAL
from collectors.importers.usage import counted
from schemas.sql import quoted

PATTERNS = ("*.csv", "*.tsv", "*.parquet", "*.jsonl", "*.ndjson", "*.json")

#: Setting -> column of RAW_VERDICT, the meaning of the table's column, and its SQL; {} stands for the value.
_VERDICT = {
    "model": ("model", Kind.TEXT, "{}"),
    "task": ("task", Kind.TEXT, "{}"),
    "filter": ("filter", Kind.TEXT, "{}"),
    "repeat": (
        "repeat",
        Kind.COUNT,
        "if({0} > 32767, -1, {0})::SMALLINT",
    ),
    "prompt_tokens": ("prompt_tokens", Kind.COUNT, "{}"),
    "completion_tokens": ("completion_tokens", Kind.COUNT, "{}"),
    "cached_tokens": ("cached_tokens", Kind.COUNT, "{}"),
    "usd": ("stated_usd", Kind.NUMBER, "{}"),
    "latency_s": ("latency_s", Kind.NUMBER, "{}"),
    "latency_ms": ("latency_s", Kind.NUMBER, "{} / 1000"),
    "finish_reason": ("finish_reason", Kind.TEXT, "{}"),
    "response": ("responses", Kind.TEXT, "CASE WHEN {0} IS NOT NULL THEN [{0}] END"),
}
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens")
#: Other settings -> the meaning of the table's column.
_REST = {
    "score": Kind.SCORE,
    "total_tokens": Kind.COUNT,
    **dict.fromkeys(("key", "prompt", "target", "subject"), Kind.TEXT),
    "choices": Kind.TEXTS,
}


def read_table(staging: Staging, settings: Mapping[str, Any]) -> None:
    """Stores the verdicts and items of every file, by `settings` that passed check_settings."""
    cell = {name: settings[name] for name in CELL if name in settings}
    if (cell.get("low", 0), cell.get("high", 1)) != (0, 1):
        cell.setdefault("threshold", None)  # only the author knows which score out of ten is right
    staging.default = CellDescription(**cell)
    for number in range(len(staging.files)):
        with staging.one_file(number):
            _read_file(staging, number, settings)


def _read_file(staging: Staging, number: int, settings: Mapping[str, Any]) -> None:
    table = table_of(staging, number)
    kinds = {name: kind for name, (_, kind, _) in _VERDICT.items()} | _REST
    wanted: dict[str, tuple[str | Constant, Kind]] = {}
    for name, value in settings.items():
        if name in kinds and value is not None:
            wanted[name] = Constant(str(value["value"])) if is_constant(value) else value, kinds[name]
    rows = table.relation(wanted)
    if "key" not in wanted:
        rows = f"(SELECT *, {_key_of(staging, number, wanted)} AS key FROM {rows})"
    if "cached_tokens" in wanted or "total_tokens" in wanted:
        rows = _counted(staging, number, rows, wanted)
    parts = [f"{sql.format(name)} AS {column}" for name, (column, _, sql) in _VERDICT.items() if name in wanted]
    staging.select(f"SELECT {number} AS file, row, key, score, {', '.join(parts)} FROM {rows}")
    if not {"key", "prompt"} & wanted.keys():
        cells = f"SELECT count(*) FROM (SELECT DISTINCT model, task FROM {rows})"
        staging.select_suspects(
            f"SELECT {number} AS file, '' AS run, model, task, '{AGGREGATE}' AS kind FROM {rows} "
            f"WHERE (SELECT count(*) FROM {rows}) = ({cells})"
        )
    if any(name in wanted for name in ITEM):
        select_items(staging, rows, wanted)


def _counted(staging: Staging, number: int, rows: str, wanted: Collection[str]) -> str:
    """The rows with the counts that add up. The others are unknown, and suspicious."""
    total = "total_tokens" if "total_tokens" in wanted else "NULL::INTEGER"
    lacking = [f"NULL::INTEGER AS {name}" for name in _TOKENS if name not in wanted]
    rows = counted(f"(SELECT *, {', '.join([f'{total} AS total', *lacking])} FROM {rows})")
    staging.select_suspects(
        f"SELECT {number} AS file, '' AS run, model, task, '{ODD_TOTAL}' AS kind FROM {rows} WHERE is_odd"
    )
    return rows


def _key_of(staging: Staging, number: int, wanted: Collection[str]) -> str:
    """The key of an item that no column names, as SQL: its question, else the row of the file."""
    name = staging.files[number].name
    row = "row::VARCHAR" if len(staging.files) == 1 else f"{quoted(name + '#')} || row"
    return f"coalesce(content_hash_of(prompt, NULL), {row})" if "prompt" in wanted else row
