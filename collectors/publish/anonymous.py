"""Takes paths of folders, and names of users and hosts of the machines that collected it, out of a version.

Owns the columns that may hold them. A model's folder keeps its own name, and its fingerprint is its revision; hosts get
numbers. Prompts, answers and other content of items stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa

#: Table -> columns whose texts may name a folder or a host.
_COLUMNS = {
    "runs": ("source", "config", "versions"),
    "models": ("source", "config", "problem_message", "base_model"),
    "failures": ("message", "file"),
    "run_ends": ("message",),
    "rejects": ("message",),
    "suspicions": ("message",),
    "imports": ("path",),
    "retractions": ("reason", "condition"),
}
#: A path from the root with two names or more, that is no part of an address.
_PATH = re.compile(r"""(?<![\w.:/~-])(?:file://)?~?(?:/[^\s/"'<>|,;:(){}\[\]\\]+){2,}/?""")


class Anonymous:
    """Replaces paths by their last names, and the names of `hosts` by host-1, host-2 and so on."""

    def __init__(self, hosts: Iterable[str | None], folders: Iterable[str | None] = ()) -> None:
        """`folders` are paths that may hold blanks."""
        named = sorted({host for host in hosts if host})
        self._hosts = {host: f"host-{number}" for number, host in enumerate(named, 1)}
        texts = sorted((re.escape(host) for host in named if len(host) > 2), key=len, reverse=True)
        self._in_text = re.compile(rf"(?<![\w.-])(?:{'|'.join(texts)})(?![\w-])") if texts else None
        self._folders = sorted({f for f in folders if f and f.startswith(("/", "~", "file://"))}, key=len, reverse=True)

    def text(self, text: str) -> str:
        for folder in self._folders:
            text = text.replace(folder, _last(folder))
        if "/" in text:
            text = _PATH.sub(lambda match: _last(match[0]), text)
        return self._in_text.sub(lambda match: self._hosts[match[0]], text) if self._in_text else text

    def value(self, value: Any) -> Any:
        """A value of JSON."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {name: self.value(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(one) for one in value]
        return value

    def provenance(self, stated: Mapping[str, Any]) -> dict[str, Any]:
        """The provenance of a version, in which what stands in tables reads as it does there."""
        columns = {column for of_table in _COLUMNS.values() for column in of_table}

        def row(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            return {name: self.value(one) if name in columns else one for name, one in value.items()}

        rows = {
            name: [row(one) for one in value] if isinstance(value, list) else value for name, value in stated.items()
        }
        return {**rows, "versions": self.value(stated["versions"])}

    def facts(self, facts: str | None) -> str | None:
        """The metadata of a shard."""
        return None if facts is None else json.dumps(self.value(json.loads(facts)))

    def table(self, name: str, rows: pa.Table) -> pa.Table:
        for column in _COLUMNS.get(name, ()):
            texts = rows[column].to_pylist()
            clean = {text: self._column(column, text) for text in set(texts) if text is not None}
            if any(old != new for old, new in clean.items()):
                place = rows.column_names.index(column)
                kind = rows.schema.field(column)
                rows = rows.set_column(place, kind, pa.array([text and clean[text] for text in texts], kind.type))
        return rows

    def _column(self, column: str, text: str) -> str:
        if column in ("config", "versions"):
            try:
                stated = json.loads(text)
                kept = self.value(stated)
                return text if kept == stated else json.dumps(kept, ensure_ascii=False)
            except ValueError:
                return self.text(text)
        return self.text(text)


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or path


def hosts_of(facts: Collection[str | None]) -> set[str]:
    """The hosts in the metadata of shards."""
    hosts = {json.loads(text).get("host") for text in facts if text}
    return {host for host in hosts if isinstance(host, str)}
