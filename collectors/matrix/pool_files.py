"""Pools that are written down: a YAML file that a paper can cite, alone or in a published version.

Owns the keys of the file and its digest. Knows nothing of how a pool is loaded.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from collectors.lake import layout
from collectors.lake.store import Lake
from collectors.plain_yaml import is_text, read_plain
from schemas.failures import YAML_VALUE_ERRORS, ConfigError, one_line
from schemas.identity import digest
from schemas.sql import quoted
from schemas.texts import without_keys
from schemas.views import INCLUDED, PoolChoice

#: Key -> what stands there.
KEYS = {
    "name": "letters, digits, '.', '_' and '-'",
    "condition": "SQL on columns of the view cells",
    "tasks": "a list of tasks; without it all",
    "metric": "the metric of all cells; without it the one that most candidates have",
    "same": "a list of settings that all candidates share",
    "questions": "every or any",
    "sparse": "apart or mixed",
    "include": "collected, imported or all",
    "prices": "on: a day, provider: a name",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: Most bytes of a pool's file.
_MOST = 1 << 20


@dataclass(frozen=True)
class PoolFile:
    """A pool that is written down."""

    name: str
    choice: PoolChoice
    include: str
    #: The file as it was written.
    data: bytes

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for equal pools whatever their names. A key at its default does not count."""
        value = {**dataclasses.asdict(self.choice), "include": self.include}
        default = {**dataclasses.asdict(PoolChoice()), "include": "collected"}
        return digest({key: one for key, one in value.items() if one != default[key]})


@dataclass(frozen=True)
class ChosenPool:
    """The pool that a person names by options."""

    choice: PoolChoice
    include: str
    #: The file it was written in.
    file: PoolFile | None = None

    def cited(self, uri: str) -> list[str]:
        """A line that names a written pool, as a paper cites it."""
        return [f"pool {self.file.name} ({self.file.digest}) of {uri}"] if self.file else []


def choose_pool(
    lake: Lake, pool: str | None, include: str | None, options: Mapping[str, Any], default: str = "collected"
) -> ChosenPool:
    """The pool that `pool` names: SQL on columns of the view cells, @NAME of a kept one, or a file NAME.yaml.

    `options` are fields of PoolChoice but `where`, None for one that is not given; `default` is `include` where neither
    it nor a file states any. Raises ConfigError for a wrong or missing file, and for an option beside a written pool.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if pool is not None and not pool.strip():
        raise ConfigError("--pool is empty")
    text = pool or "true"
    if include is not None and include not in INCLUDED:
        raise ConfigError(f"include: {include!r} is none of {', '.join(INCLUDED)}")
    if not (text.startswith("@") or text.endswith((".yaml", ".yml"))):
        if _NAME.fullmatch(text) and text in kept_pools(lake):
            raise ConfigError(f"--pool {text} is a condition; --pool @{text} is the pool that the version keeps")
        return ChosenPool(PoolChoice(where=text, **given), include or default)
    file = kept_pool(lake, text[1:]) if text.startswith("@") else read_pool_file(text)
    stated = {**dataclasses.asdict(file.choice), "include": file.include}
    asked = {**given, **({"include": include} if include else {})}
    if other := [name for name, value in asked.items() if value != stated[name]]:
        name = other[0].replace("_", "-")
        raise ConfigError(
            f"--{name} belongs into the file of the pool {file.name}: write it there, or give --pool as SQL"
        )
    return ChosenPool(file.choice, file.include, file)


def _check_size(size: int, place: str) -> None:
    if size > _MOST:
        raise ConfigError(f"pool {place}: {size:,} bytes are too many for a pool")


def read_pool_file(path: str) -> PoolFile:
    """Raises ConfigError for a file that is missing or wrong."""
    try:
        _check_size(os.path.getsize(path), path)
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(f"--pool {path}: {error.strerror}") from error
    text = data.decode(errors="replace")
    if without_keys(text) != text:  # versions keep the file as it is
        raise ConfigError(f"--pool {path}: holds a user, query or token")
    return parse_pool(data, path)


def kept_pool(lake: Lake, name: str) -> PoolFile:
    """The pool that a published version keeps under this name. Raises ConfigError for another."""
    names = kept_pools(lake)
    if name not in names:
        kept = ", ".join(names) if names else "none"
        raise ConfigError(f"--pool @{name}: {lake.uri} keeps {kept}; publish.py --pools keeps pools in a version")
    return parse_pool(lake.read(layout.pool_name(name)), f"@{name}")


def kept_pools(lake: Lake) -> list[str]:
    """The names of all pools that a published version keeps."""
    return sorted(layout.pools_of(lake.names(layout.POOLS)))


def parse_pool(data: bytes, place: str) -> PoolFile:
    """The pool in a file's bytes; `place` names it in messages. Raises ConfigError, with the key, for a wrong one."""
    _check_size(len(data), place)
    try:
        value = read_plain(data)
    except (*YAML_VALUE_ERRORS, yaml.YAMLError) as error:
        raise ConfigError(f"pool {place}: this is not YAML: {one_line(error, 200)}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"pool {place}: expected the keys {', '.join(KEYS)}")
    if unknown := sorted(str(key) for key in value.keys() - KEYS.keys()):
        raise ConfigError(f"pool {place}: no key {unknown[0]!r}; there are {', '.join(KEYS)}")

    def wrong(key: str) -> ConfigError:
        return ConfigError(f"pool {place}: {key}: expected {KEYS[key]}, not {reprlib.repr(value.get(key))}")

    def text(key: str, default: str) -> str:
        one = value.get(key, default)
        if not is_text(one):
            raise wrong(key)
        return str(one)

    def texts(key: str) -> list[str] | None:
        some = value.get(key)
        if some is not None and not (isinstance(some, list) and some and all(is_text(one) for one in some)):
            raise wrong(key)
        return some

    name = text("name", "")
    if not _NAME.fullmatch(name):
        raise wrong("name")
    where = text("condition", "true")
    if "metric" in value:
        where = f"({where}) AND metric = {quoted(text('metric', ''))}"
    if tasks := texts("tasks"):
        where = f"({where}) AND task IN ({', '.join(quoted(task) for task in sorted(set(tasks)))})"
    include = text("include", "collected")
    if include not in INCLUDED:
        raise wrong("include")
    same = tuple(sorted(set(texts("same") or [])))
    sparse = text("sparse", "apart")
    choice = PoolChoice(where, same, text("questions", "every"), **_prices(value, wrong), sparse=sparse)
    return PoolFile(name, choice, include, data)


def _prices(value: dict[str, Any], wrong: Any) -> dict[str, str | None]:
    prices = value.get("prices", {})
    if not isinstance(prices, dict) or prices.keys() - {"on", "provider"}:
        raise wrong("prices")
    on, provider = prices.get("on"), prices.get("provider")
    if isinstance(on, dt.date):  # as YAML reads an unquoted day
        on = on.isoformat()
    try:
        day = None if on is None else dt.date.fromisoformat(on).isoformat()
    except (TypeError, ValueError) as error:
        raise wrong("prices") from error
    if provider is not None and not isinstance(provider, str):
        raise wrong("prices")
    return {"prices_on": day, "price_provider": provider}
