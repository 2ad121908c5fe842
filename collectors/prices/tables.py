"""Price tables: CSV files with the prices of models and GPUs, which views join as rows of a lake.

Owns the format of these files, and the tables that come with the package (price_tables/). Does not choose a model's
price: the view model_prices does.

A file is UTF-8 CSV with a header; lines that begin with # are comments. Its columns decide which table it is:
prices      model, provider, usd_per_million_prompt, usd_per_million_completion, valid_from, source, and optionally
            usd_per_million_cached, _cache_write, _reasoning, _batch_prompt and _batch_completion, usd_per_request,
            over_parameters, to_parameters (a tier of sizes)
gpu_prices  accelerator, provider, usd_per_gpu_hour, valid_from, source
price_names name, price_name, source, and optionally provider
An empty field means unknown, never 0.
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

from collectors.lake.layout import price_name
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from schemas.failures import ConfigError, one_line
from schemas.identity import digest
from schemas.records import TABLES

#: Names of the tables that come with the package.
SHIPPED = ("open_models", "hosted_models", "price_names", "gpus", "routerbench")
#: Prices stay below so many dollars, so that sums of costs stay finite.
_MOST_USD = 1e12
#: Table -> the columns of its key.
_KEYS = {
    "prices": ("model", "provider", "over_parameters", "to_parameters", "valid_from"),
    "gpu_prices": ("accelerator", "provider", "valid_from"),
    "price_names": ("name",),
}
#: Characters that a name must not have, because they would change the lines of a terminal or a log.
_CONTROLS = frozenset("\n\r\t\x1b\x00")
_MAY_LACK = frozenset(
    [
        *(
            f"usd_per_million_{kind}"
            for kind in ("cached", "cache_write", "reasoning", "batch_prompt", "batch_completion")
        ),
        *("usd_per_request", "over_parameters", "to_parameters", "added_at"),
    ]
)


def shipped_path(name: str) -> AbstractContextManager[Path]:
    """The path of a table that comes with the package; `name` is one of SHIPPED."""
    return importlib.resources.as_file(importlib.resources.files("collectors.prices") / "price_tables" / f"{name}.csv")


def read_prices(path: Path) -> tuple[str, pa.Table]:
    """The name of the file's table, and its rows without the column `added_at`.

    Raises ConfigError, with file and line, if the file does not have the format that this module's docstring describes.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {one_line(error)}") from error
    # A comment becomes an empty line, so that messages have the line numbers of the file.
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
            parsed = _row(where, table, row)
            key, first = _key(table, parsed), _KEYS[table][0]
            if {**rows.setdefault(key, parsed), first: parsed[first]} != parsed:  # names differ in case alone
                raise ConfigError(f"{where}: another line differs for {', '.join(str(k) for k in key if k)}")
    except csv.Error as error:
        raise ConfigError(f"{path} line {above + reader.line_num}: not valid CSV: {error}") from error
    if not rows:
        raise ConfigError(f"{path} has no rows")
    schema = TABLES[table].remove(TABLES[table].get_field_index("added_at"))
    return table, pa.Table.from_pylist(list(rows.values()), schema)


def _table_of(path: Path, names: list[str]) -> str:
    lacking: dict[str, list[str]] = {}
    for table in _KEYS:
        columns = set(TABLES[table].names)
        needed = columns - _MAY_LACK - ({"provider"} if table == "price_names" else set())
        lacking[table] = [name for name in TABLES[table].names if name in needed - set(names)]
        if not lacking[table]:
            if unknown := sorted(set(names) - columns):
                raise ConfigError(f"{path}: the table {table} has no column {', '.join(unknown)}")
            if len(names) > len(set(names)):
                raise ConfigError(f"{path}: a column name appears twice")
            return table
    nearest = max(lacking, key=lambda table: (len({*names} & {*TABLES[table].names}), -len(lacking[table])))
    raise ConfigError(
        f"{path}: its columns fit no price table; {nearest} lacks {', '.join(lacking[nearest])} "
        "(all formats: python pipelines/prices.py --help)"
    )


def _row(where: str, table: str, row: Mapping[str | None, Any]) -> dict[str, Any]:
    if None in row or None in row.values():
        raise ConfigError(f"{where}: it does not have as many fields as the header")
    schema = TABLES[table]
    values: dict[str, Any] = {}
    for name, text in row.items():
        field = schema.field(str(name))
        text = text.strip()
        if not text:
            if not field.nullable:
                raise ConfigError(f"{where}: {name} is empty")
            values[str(name)] = None
            continue
        if any(character in text for character in _CONTROLS):
            raise ConfigError(f"{where}: {name} is {text[:40]!r}: it has a control character")
        try:
            values[str(name)] = _KINDS.get(field.type, str)(text)
        except ValueError as error:
            raise ConfigError(f"{where}: {name} is {text[:40]!r}: {error}") from error
    low, high = values.get("over_parameters"), values.get("to_parameters")
    if high is not None and (low is None or low >= high):
        raise ConfigError(f"{where}: a tier needs over_parameters, below to_parameters")
    return values


def _usd(text: str) -> float:
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < _MOST_USD:
        raise ValueError(f"expected a number of dollars from 0 to below {_MOST_USD:g}")
    return value


def _whole(text: str) -> int:
    if not (text.isdecimal() and len(text) < 19):
        raise ValueError("expected a whole number")
    return int(text)


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise ValueError("expected a day such as 2026-01-31") from None


_KINDS: dict[pa.DataType, Callable[[str], Any]] = {pa.float64(): _usd, pa.int64(): _whole, pa.date32(): _day}


def add_prices(lake: Lake, table: str, rows: pa.Table) -> bool:
    """Puts `rows` from read_prices into the lake. Returns False if the lake has them in force already.

    Adding the same file again changes nothing, unless other rows have replaced its rows since: then its rows are in
    force again.
    """
    held = _in_force(lake, table)
    if all(held.get(_key(table, row), {}).items() >= row.items() for row in rows.to_pylist()):
        return False
    added_at = dt.datetime.now(dt.UTC)
    now = pa.repeat(pa.scalar(added_at, pa.timestamp("us", "UTC")), len(rows))
    schema = TABLES[table]
    data = rows.append_column(schema.field("added_at"), now).select(schema.names).cast(schema)
    own = [[str(value) for value in row.values()] for row in rows.to_pylist()]
    # The digest includes the time, so that rows that come back, or replace a damaged object, get an object of their
    # own.
    return lake.create_table(price_name(table, digest([own, str(added_at)])), data)


def gpu_rates(lake: Lake) -> dict[str, float]:
    """GPU name in lower case -> USD per hour, for every name that has a price in the lake now.

    The source is the view _gpu_rates, which collection_costs uses, too. Without a lake there are none.
    """
    if not lake.exists():
        return {}
    sql = "SELECT name, usd_per_gpu_hour FROM _gpu_rates"
    views = ["gpu_prices", "price_names", "_gpu_rates"]
    return dict(ask(lake, lambda con, _: con.execute(sql).fetchall(), only=views, shards=False))


def usd_per_gpu_hour(lake: Lake, names: Iterable[str]) -> dict[str, float]:
    """Name -> USD per GPU hour for the names that have a price."""
    wanted = sorted(set(names))
    rates = gpu_rates(lake) if wanted else {}
    return {name: rates[name.lower()] for name in wanted if name.lower() in rates}


#: By its own name, or by the name that price_names gives it; of several entries the cheapest, as in model_prices.
_TOKEN_PRICES = """
SELECT prices.* EXCLUDE (source, added_at)
FROM prices
LEFT JOIN price_names ON lower(price_names.price_name) = lower(prices.model)
    AND coalesce(price_names.provider, prices.provider) = prices.provider
WHERE (list_contains($names, lower(prices.model)) OR list_contains($names, lower(price_names.name)))
    AND valid_from <= current_date AND usd_per_million_prompt IS NOT NULL AND usd_per_million_completion IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY lower(model), prices.provider ORDER BY valid_from DESC) = 1
ORDER BY usd_per_million_prompt + usd_per_million_completion, prices.provider, model
LIMIT 1
"""


def token_prices(lake: Lake, names: Iterable[str]) -> dict[str, float | None]:
    """USD per million tokens, by the columns of PRICE, for a model of any of these names; empty: unpriced."""
    if not lake.exists():
        return {}
    values = {"names": sorted({name.lower() for name in names})}
    columns = [name for name in TABLES["prices"].names if name.startswith("usd_")]

    def question(con: Any, _: object) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = con.execute(_TOKEN_PRICES, values).to_arrow_table().to_pylist()
        return rows

    rows = ask(lake, question, only=["prices", "price_names"], shards=False)
    return {name: rows[0][name] for name in columns} if rows else {}


def how_to_price(lake: Lake, gpus: Collection[str]) -> str:
    """Shell commands that put prices of `gpus` into the lake: from the shipped tables, else from a table to fill in."""
    with shipped_path("gpus") as prices, shipped_path("price_names") as names:
        shipped = {row["accelerator"].lower() for row in read_prices(prices)[1].to_pylist()}
        renamed = read_prices(names)[1].to_pylist()
    shipped |= {row["name"].lower() for row in renamed if (row["price_name"] or "").lower() in shipped}
    command = f"python pipelines/prices.py --lake {shlex.quote(lake.uri)}"
    commands = [f"{command} --shipped gpus price_names"] if any(gpu.lower() in shipped for gpu in gpus) else []
    if own := sorted(gpu for gpu in gpus if gpu.lower() not in shipped):
        lines = ["accelerator,provider,usd_per_gpu_hour,valid_from,source"]
        lines += [f"{gpu},PROVIDER,USD,{dt.date.today()},SOURCE" for gpu in own]
        table = "".join(f"{line}\\n" for line in lines)
        commands.append(f"printf {shlex.quote(table)} > gpus.csv && {command} gpus.csv")
    return "; ".join(commands)


def _in_force(lake: Lake, table: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Key -> row of the view `table`."""
    rows = ask(lake, lambda con, _: con.execute(f"FROM {table}").to_arrow_table(), only=[table], shards=False)
    return {_key(table, row): row for row in rows.to_pylist()}


def _key(table: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The key of a row. The case of letters in names of models and GPUs does not count."""
    first, *others = _KEYS[table]
    return (row[first].lower(), *(row.get(name) for name in others))
