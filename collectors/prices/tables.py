"""Price tables: CSV files of what models and GPUs cost, put into a lake as rows that views join.

Owns the format of these files, and the tables that come with the package (price_tables/). Knows nothing of how a model
finds its price: that is the view model_prices.

A file is UTF-8 CSV with a header, lines that begin with # are comments, and its columns say which table it is:
prices      model, provider, usd_per_million_prompt, usd_per_million_completion, valid_from, source, and where known
            usd_per_million_cached, usd_per_request, over_parameters, to_parameters (a tier of sizes)
gpu_prices  accelerator, provider, usd_per_gpu_hour, valid_from, source
price_names name, price_name, source, and where it matters provider
An empty field is unknown, never 0.
"""

from __future__ import annotations

import csv
import datetime as dt
import importlib.resources
import io
import math
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa

from collectors.lake.reading import ask
from collectors.lake.store import Lake
from schemas.failures import ConfigError, one_line
from schemas.identity import digest
from schemas.records import TABLES

#: Tables that come with the package, by name.
SHIPPED = ("open_models", "price_names", "gpus", "routerbench")
#: Dollars that no price reaches: beyond them sums of costs are no numbers any more.
_MOST_USD = 1e12
#: Table -> columns that tell one row from another.
_KEYS = {
    "prices": ("model", "provider", "over_parameters", "to_parameters", "valid_from"),
    "gpu_prices": ("accelerator", "provider", "valid_from"),
    "price_names": ("name",),
}
#: What a name may not hold: a line of a terminal or of a log would be another one.
_CONTROLS = frozenset("\n\r\t\x1b\x00")
_MAY_LACK = frozenset(["usd_per_million_cached", "usd_per_request", "over_parameters", "to_parameters", "added_at"])


def shipped_path(name: str) -> AbstractContextManager[Path]:
    """The file of a table that comes with the package, one of SHIPPED."""
    return importlib.resources.as_file(importlib.resources.files("collectors.prices") / "price_tables" / f"{name}.csv")


def read_prices(path: Path) -> tuple[str, pa.Table]:
    """Which table the file is of, and its rows but for `added_at`.

    Raises ConfigError, with file and line, for anything that is not as the head of this module says.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {one_line(error)}") from error
    # A comment leaves its line behind, so that numbers of lines are the file's.
    lines = ["\n" if line.startswith("#") else line for line in io.StringIO(text, newline="")]
    above = next((number for number, line in enumerate(lines) if line.strip()), 0)
    reader = csv.DictReader(lines[above:], strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        table = _table_of(path, names)
        reader.fieldnames = names
        rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in reader:
            where = f"{path} line {above + reader.line_num}"
            found = _row(where, table, row)
            key, first = _key(table, found), _KEYS[table][0]
            if {**rows.setdefault(key, found), first: found[first]} != found:  # in any case of letters it is the same
                raise ConfigError(f"{where}: another line says otherwise of {', '.join(str(k) for k in key if k)}")
    except csv.Error as error:
        raise ConfigError(f"{path} line {above + reader.line_num}: no CSV: {error}") from error
    if not rows:
        raise ConfigError(f"{path} holds no row")
    schema = TABLES[table].remove(TABLES[table].get_field_index("added_at"))
    return table, pa.Table.from_pylist(list(rows.values()), schema)


def _table_of(path: Path, names: list[str]) -> str:
    for table in _KEYS:
        columns = set(TABLES[table].names)
        needed = columns - _MAY_LACK - ({"provider"} if table == "price_names" else set())
        if needed <= set(names):
            if unknown := sorted(set(names) - columns):
                raise ConfigError(f"{path}: {table} have no column {', '.join(unknown)}")
            if len(names) > len(set(names)):
                raise ConfigError(f"{path}: a column is named twice")
            return table
    raise ConfigError(
        f"{path}: its columns are those of no price table; prices need model, provider, usd_per_million_prompt, "
        "usd_per_million_completion, valid_from and source (all formats: python pipelines/prices.py --help)"
    )


def _row(where: str, table: str, row: Mapping[str | None, Any]) -> dict[str, Any]:
    if None in row or None in row.values():
        raise ConfigError(f"{where}: has not as many fields as the header")
    schema = TABLES[table]
    found: dict[str, Any] = {}
    for name, text in row.items():
        field = schema.field(str(name))
        text = text.strip()
        if not text:
            if not field.nullable:
                raise ConfigError(f"{where}: {name} is empty")
            found[str(name)] = None
            continue
        if any(character in text for character in _CONTROLS):
            raise ConfigError(f"{where}: {name} is {text[:40]!r}: it holds what cannot be printed")
        try:
            found[str(name)] = _KINDS.get(field.type, str)(text)
        except ValueError as error:
            raise ConfigError(f"{where}: {name} is {text[:40]!r}: {error}") from error
    low, high = found.get("over_parameters"), found.get("to_parameters")
    if high is not None and (low is None or low >= high):
        raise ConfigError(f"{where}: a tier has more than over_parameters, up to to_parameters")
    return found


def _usd(text: str) -> float:
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < _MOST_USD:
        raise ValueError(f"a number of dollars, 0 or more and below {_MOST_USD:g}, is expected")
    return value


def _whole(text: str) -> int:
    if not (text.isdecimal() and len(text) < 19):
        raise ValueError("a whole number is expected")
    return int(text)


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise ValueError("a day such as 2026-01-31 is expected") from None


_KINDS: dict[pa.DataType, Callable[[str], Any]] = {pa.float64(): _usd, pa.int64(): _whole, pa.date32(): _day}


def add_prices(lake: Lake, table: str, rows: pa.Table) -> bool:
    """Puts `rows` of read_prices into the lake; whether that changed what it says.

    The same file again adds nothing, but where other rows have replaced its own since, these come into force again.
    """
    held = _in_force(lake, table)
    if all(held.get(_key(table, row), {}).items() >= row.items() for row in rows.to_pylist()):
        return False
    added_at = dt.datetime.now(dt.UTC)
    now = pa.repeat(pa.scalar(added_at, pa.timestamp("us", "UTC")), len(rows))
    schema = TABLES[table]
    data = rows.append_column(schema.field("added_at"), now).select(schema.names).cast(schema)
    own = [[str(value) for value in row.values()] for row in rows.to_pylist()]
    # With the time: rows that come back, or whose object is damaged, are an object of their own.
    return lake.create_table(f"{table}/{digest([own, str(added_at)])}.parquet", data)


def gpu_rates(lake: Lake) -> dict[str, float]:
    """What an hour of a GPU costs, USD, by each name in lower case that the lake prices now: the view _gpu_rates, by
    which collection_costs goes too."""
    if not lake.exists():
        return {}
    sql = "SELECT name, usd_per_gpu_hour FROM _gpu_rates"
    return dict(ask(lake, lambda con, _: con.execute(sql).fetchall(), only=["gpu_prices", "price_names", "_gpu_rates"]))


def usd_per_gpu_hour(lake: Lake, names: Iterable[str]) -> dict[str, float]:
    """`gpu_rates` of the GPUs of these names; those that nobody prices are left out."""
    wanted = sorted(set(names))
    rates = gpu_rates(lake) if wanted else {}
    return {name: rates[name.lower()] for name in wanted if name.lower() in rates}


def how_to_price(lake: Lake, gpus: Collection[str]) -> str:
    """Commands that put prices of these GPUs into the lake: the shipped ones, or a table of what the reader pays."""
    with shipped_path("gpus") as prices, shipped_path("price_names") as names:
        shipped = {row["accelerator"].lower() for row in read_prices(prices)[1].to_pylist()}
        renamed = read_prices(names)[1].to_pylist()
    shipped |= {row["name"].lower() for row in renamed if (row["price_name"] or "").lower() in shipped}
    command = f"python pipelines/prices.py --lake {shlex.quote(lake.uri)}"
    told = [f"{command} --shipped gpus price_names"] if any(gpu.lower() in shipped for gpu in gpus) else []
    if own := sorted(gpu for gpu in gpus if gpu.lower() not in shipped):
        lines = ["accelerator,provider,usd_per_gpu_hour,valid_from,source"]
        lines += [f"{gpu},PROVIDER,USD,{dt.date.today()},SOURCE" for gpu in own]
        table = "".join(f"{line}\\n" for line in lines)
        told.append(f"printf {shlex.quote(table)} > gpus.csv && {command} gpus.csv")
    return "; ".join(told)


def _in_force(lake: Lake, table: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows of the view `table`, by what tells them apart."""
    found = ask(lake, lambda con, _: con.execute(f"FROM {table}").to_arrow_table(), only=[table])
    return {_key(table, row): row for row in found.to_pylist()}


def _key(table: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Names of models and GPUs count in any case of letters."""
    first, *others = _KEYS[table]
    return (row[first].lower(), *(row.get(name) for name in others))
