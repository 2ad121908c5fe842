"""The pages that not every site has: the changes since the version before, and a board of routers and models.

Owns how the version before is found, and the check of a board's file, which anybody may have written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collectors.lake.store import Lake
from collectors.publish.earlier import beside, named_version
from collectors.publish.publishing import differences
from collectors.website.rendering import Page
from collectors.website.tables import Column, Table, plain, shown
from schemas.failures import ConfigError, StorageError, one_line

CHANGES, BOARD = ("changes.html", "Changes"), ("board.html", "Board")
#: Most bytes of a board's file, and most rows of a board.
_MOST_BYTES, _MOST_ROWS = 50_000_000, 10_000
#: Keys of the pool and split that a board is of.
_PLACE = ("pool", "include", "split")

# ---- changes


def changes(lake: Lake, manifest: Mapping[str, Any] | None, before: str | None) -> tuple[Page | None, list[str]]:
    """The page of changes since the version before, or why there is none.

    `before` is the URI of that version; by default it lies beside this one under the name that the manifest gives.
    Raises ConfigError where a given `before` names none.
    """
    stated: Mapping[str, str] = (manifest or {}).get("previous") or {}
    if manifest is None or not (before or stated):
        return None, []
    uri = before or beside(lake.uri, stated["version"])
    try:
        found = named_version(uri)
        if not before and found.manifest_sha256 != stated["manifest_sha256"]:
            raise ConfigError(f"{uri} is not the version that the manifest names")
        rows = differences(uri, lake.uri)
    except (ConfigError, StorageError) as error:
        if before:
            raise
        return None, [f"changes since {plain(stated['version'])} are left out: {one_line(error, 200)}; see --before"]
    kinds = {"came": "came", "went": "went", "retracted": "of them retracted", "changed": "changed"}
    values = [{"task": row.task, "model": row.model, **{kind: getattr(row, kind) for kind in kinds}} for row in rows]
    columns = [
        Column("model", "model", "name"),
        Column("task", "task"),
        *(Column(kind, label, "count") for kind, label in kinds.items()),
    ]
    totals = [{"label": label, "value": f"{sum(row[kind] for row in values):,}", "href": "", "under": "records"}
              for kind, label in kinds.items()]  # fmt: skip
    table = Table("changes", "Records that came, went or changed", columns, values, filters=("model", "task"),
                  empty="No record differs.")  # fmt: skip
    lead = f"From version {found.version} (SHA-256 of its manifest {found.manifest_sha256}) to this one."
    return Page(CHANGES[0], "Changes since the version before", [lead], [table], numbers=totals), []


# ---- routers and models that others sent


def board(path: Path, version: str | None = None) -> Page:
    """The page of a board's file, board.json of `route.py board` or `publish.py board`.

    `version` is the name of the version that the site shows. Raises ConfigError for another file, or another version's.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES:,} bytes")
        value = json.loads(path.read_bytes())
        boards, models = value.get("boards", [value]), value.get("models", [])
        tables = [_board_table(number, one) for number, one in enumerate(boards)]
        tables += [_models_table(number, one) for number, one in enumerate(models)]
        of = value.get("version")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is not a board's board.json: {one_line(error, 200)}") from error
    if None not in (of, version) and of != version:
        raise ConfigError(f"{path} is a board of version {shown(plain(of))}, and this is version {version}")
    lead = [_ROUTERS] * bool(boards or not models) + [_MODELS] * bool(models)
    return Page(BOARD[0], "Routers and models" if models else "Routers", lead, tables)


_ROUTERS = "Routers choose a model for each question. Score and cost are those of their choices on the test questions."
_MODELS = (
    "Models that were sent stand beside the version's own, on the same test questions. One that lacks a score has no "
    "rank; what is suspicious is explained by publish.py check."
)


def _board_table(number: int, one: Mapping[str, Any]) -> Table:
    columns = [
        Column("rank", "rank", "count"),
        Column("router", "router", "name"),
        Column("score", "score", "score"),
        Column("gap_closed", "gap closed", "share", note="of the way from the best single model to the oracle"),
        Column("usd", "$ a question", "usd"),
        Column("verdict", "against the best constant"),
        Column("missing", "missing", "count", note="questions that it chose nothing for"),
        Column(
            "leakage", "leakage", note="whether the choices are nearer to the oracle than a router without the answers"
        ),
        Column("by", "by"),
        Column("sha256", "SHA-256", "digest", note="of its choices"),
    ]
    return _table(f"routers-{number}", _heading(one), columns, [_board_row(row) for row in one["rows"]], one)


def _models_table(number: int, one: Mapping[str, Any]) -> Table:
    columns = [
        Column("rank", "rank", "count", note="1 + the models that are better beyond chance"),
        Column("name", "name", "name"),
        Column("model", "model"),
        Column("score", "score", "score"),
        Column("low", "95 % interval", "interval", high="high", middle="score"),
        Column("answered", "answered", "count", note="test questions with a score"),
        Column("usd", "$ a question", "usd", note="by the version's prices, else as its sender states"),
        Column("completion_tokens", "completion tokens", "number", note="mean of a question"),
        Column("by", "sent by"),
        Column("suspicious", "suspicious"),
        Column("sha256", "SHA-256", "digest", note="of its records"),
    ]
    return _table(
        f"models-{number}", f"Models: {_heading(one)}", columns, [_model_row(row) for row in one["rows"]], one
    )


def _table(
    name: str, caption: str, columns: list[Column], given: list[dict[str, Any]], one: Mapping[str, Any]
) -> Table:
    """Of the columns that a row has a value for, with the notes of the board."""
    every = [*columns, *(Column(column.high, "", column.kind) for column in columns if column.high)]
    rows = [{column.key: _believed(row.get(column.key), column) for column in every} for row in given[:_MOST_ROWS]]
    filled = [column for column in columns if any(row[column.key] is not None for row in rows)]
    notes = [note for note in one.get("notes", ()) if isinstance(note, str)]
    return Table(name, caption, filled, rows, filters=(columns[1].key,), notes=notes)


def _heading(one: Mapping[str, Any]) -> str:
    """As in board.md; a board of `route.py board` has no pool."""
    if "pool" not in one:
        return "Routers, ranked"
    pool, include, split = (shown(one[key]) if isinstance(one.get(key), str) else "" for key in _PLACE)
    records = f", {include} records" if include else ""
    return f"Pool {pool or 'of all candidates'}{records}, split {split or 'none: all questions'}"


def _board_row(row: Mapping[str, Any]) -> dict[str, Any]:
    against = row.get("vs_best_constant")
    return {**row, "verdict": against.get("verdict") if isinstance(against, Mapping) else None}


def _model_row(row: Mapping[str, Any]) -> dict[str, Any]:
    found = row.get("suspicions") or []
    kinds = [one["kind"] for one in found if isinstance(one, Mapping) and isinstance(one.get("kind"), str)]
    by = row.get("by") or ("somebody" if row.get("sent") is True else None)
    return {**row, "by": by, "suspicious": ", ".join(kinds) or None}


def _believed(value: Any, column: Column) -> Any:
    """A number where the column has numbers, a text where it has texts; else it is unknown."""
    if column.is_number:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
        return (round(value) if column.kind == "count" else value) if is_number and value == value else None
    return value if isinstance(value, str) else None
