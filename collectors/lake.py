"""The lake: all storage behind one root URI. The only module that talks to a store.

Owns paths, exclusive creation (= commit), listing and the Parquet settings. Knows nothing of engines, tasks or Ray.
An object is created whole or not at all and never rewritten, so a name that lists is a fact that is complete.
"""

from __future__ import annotations

import io
import json
import os
import secrets
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from schemas.failures import ConfigError, StorageError, one_line
from schemas.identity import ShardName, safe_name
from schemas.records import SCHEMA_VERSION, TABLES

_VERSION_KEY = b"routerlake_schema_version"


class Lake:
    """One lake at a root URI: a folder, or any fsspec URI whose store honours exclusive creation.

    Raises StorageError when the store cannot be reached, written, or was written by another schema version.
    """

    def __init__(self, uri: str) -> None:
        try:
            self._fs, root = fsspec.core.url_to_fs(uri, **({"use_listings_cache": False} if "s3" in uri[:4] else {}))
        except (ValueError, ImportError, OSError) as error:
            raise ConfigError(f"lake {uri!r} is not a folder or a known URI: {one_line(error)}") from error
        self.local = isinstance(self._fs, LocalFileSystem)
        self.root = root.rstrip("/") or "/"
        self.uri = self.root if self.local else uri.rstrip("/")

    # ---- opening

    def exists(self) -> bool:
        """Whether a lake was ever opened for writing here."""
        return self._read_version() is not None

    def open_for_writing(self) -> Lake:
        """Makes the lake's folders where missing and proves that exclusive creation holds. Returns self."""
        self._check_version()
        self._probe()
        for folder, schema in TABLES.items():
            self.create_table(f"{folder}/schema.parquet", schema.empty_table())
        return self

    def open_for_reading(self) -> Lake:
        """Raises ConfigError when no lake is here. Returns self."""
        if not self.exists():
            raise ConfigError(f"no lake at {self.uri}: run collect.py first, or name another with --lake")
        self._check_version()
        return self

    def _read_version(self) -> int | None:
        try:
            data = self._fs.cat_file(self._path("shards/schema.parquet"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read the lake at {self.uri}: {one_line(error)}") from error
        metadata = pq.read_schema(io.BytesIO(data)).metadata or {}
        return int(metadata.get(_VERSION_KEY, b"0"))

    def _check_version(self) -> None:
        version = self._read_version()
        if version not in (None, SCHEMA_VERSION):
            raise ConfigError(
                f"the lake at {self.uri} has schema version {version}, this program writes {SCHEMA_VERSION}: "
                "use the release that wrote it, or another --lake"
            )

    def _probe(self) -> None:
        """Creates one object twice: a store that accepts the second would lose commits, so it is refused."""
        name = f"probe-{secrets.token_hex(8)}"
        first, second = self.create(name, b"1"), self.create(name, b"2")
        try:
            self._fs.rm_file(self._path(name))
        except OSError as error:
            raise StorageError(f"cannot delete a probe object in {self.uri}: {one_line(error)}") from error
        if not first or second:
            raise StorageError(f"the store at {self.uri} ignores exclusive creation: commits would be lost")

    # ---- objects

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def create(self, name: str, data: bytes) -> bool:
        """Creates the object whole; False when it is there already (the first writer won)."""
        try:
            if self.local:
                return _create_file(Path(self._path(name)), data)
            self._fs.pipe_file(self._path(name), data, mode="create")
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if _is_conflict(error):
                return False
            raise StorageError(f"cannot write {name} to {self.uri}: {one_line(error)}") from error

    def create_table(self, name: str, table: pa.Table, facts: dict[str, Any] | None = None) -> bool:
        """Creates a Parquet object; `facts` go as JSON into its metadata, one key each. False when it is there."""
        metadata = {_VERSION_KEY: str(SCHEMA_VERSION).encode()}
        metadata |= {k.encode(): json.dumps(v).encode() for k, v in (facts or {}).items()}
        sink = io.BytesIO()
        # Integers as deltas, strings by dictionary: the layout that measured smallest on records of this shape.
        integers = [f.name for f in table.schema if pa.types.is_integer(f.type)]
        pq.write_table(
            table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata}),
            sink,
            compression="zstd",
            use_dictionary=[f.name for f in table.schema if pa.types.is_string(f.type)],
            column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
        )
        return self.create(name, sink.getvalue())

    def has(self, name: str) -> bool:
        try:
            return bool(self._fs.exists(self._path(name)))
        except OSError as error:
            raise StorageError(f"cannot read the lake at {self.uri}: {one_line(error)}") from error

    def names(self, folder: str) -> list[str]:
        """Names below `folder`, relative to the root, in byte order (stores differ in theirs)."""
        try:
            paths: Iterable[str] = self._fs.find(self._path(folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot list {folder} in {self.uri}: {one_line(error)}") from error
        return sorted(path[len(self.root) + 1 :] for path in paths if not path.endswith(".tmp"))

    # ---- shards

    @staticmethod
    def shard_path(task: str, shard: ShardName) -> str:
        return f"shards/task={safe_name(task)}/{shard}"

    def committed(self) -> dict[str, list[ShardName]]:
        """Every committed shard by cell id, in name order. One listing, no file is opened."""
        shards: dict[str, list[ShardName]] = defaultdict(list)
        for name in self.names("shards"):
            if shard := ShardName.parse(name):
                shards[shard.cell_id].append(shard)
        return dict(shards)


def _create_file(path: Path, data: bytes) -> bool:
    """Temporary file, fsync, hard link: link() is atomic and fails when the name is taken, also over NFS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _is_conflict(error: OSError) -> bool:
    """s3fs reports a failed If-None-Match as OSError(EINVAL) that carries the store's 412."""
    return "PreconditionFailed" in str(error) or "412" in str(error) or "pre-conditions" in str(error)


def missing_ranges(done: Iterable[ShardName], generation: int, items: int) -> list[tuple[int, int]]:
    """The item ranges (first, last, both included) of 0..items-1 that no shard of `generation` covers."""
    gaps, position = [], 0
    for shard in sorted(s for s in done if s.generation == generation):
        if shard.first > position:
            gaps.append((position, min(shard.first, items) - 1))
        position = max(position, shard.last + 1)
    if position < items:
        gaps.append((position, items - 1))
    return [(first, last) for first, last in gaps if first <= last]
