"""The lake: all storage behind one root URI. No other module talks to a store.

Owns paths, exclusive creation (= commit), listing and the Parquet settings. Knows nothing of engines, tasks or Ray.
An object is created whole or not at all and never rewritten, so a listed name is a whole object.
"""

from __future__ import annotations

import datetime as dt
import errno
import functools
import io
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from collectors import extras
from collectors.lake import layout, seals
from collectors.lake.answers import advice_on, answer_of, http_status
from collectors.lake.files import (
    LEFTOVER,
    LEFTOVER_AGE,
    create_file,
    empty_folders,
    entries_below,
    every_file,
    files_below,
    is_file,
    is_plain_file,
    made,
)
from collectors.lake.keyless import keyless
from collectors.lake.retrying import may_mend
from schemas.failures import ConfigError, StorageError, UnreachableError, one_line
from schemas.records import SCHEMA_FILES, SCHEMA_VERSION, TABLES
from schemas.texts import holds_keys, without_key_values
from schemas.versions import VERSION_KEY, check_readable, stated_version

logger = logging.getLogger(__name__)


#: Rows of a row group: DuckDB gives each to a thread, and a run of 100,000 cells takes half the time on two.
_ROW_GROUP = 20_000

#: S3 answers 409 to a conditional write that meets another one in flight and asks for it to be sent again.
_CONFLICT_TRIES = 8

#: Most objects that S3 deletes by one request.
_DELETED_AT_ONCE = 1000


class Lake:
    """One lake at a root URI: a folder, or any fsspec URI whose store honours exclusive creation.

    Raises StorageError if the store cannot be reached (UnreachableError if it may come back) or written, and
    ConfigError if a newer schema version wrote the lake. Its fsspec client, `filesystem`, is for reading only
    (collectors.lake.reading).
    """

    def __init__(self, uri: str, *, is_open: bool = False) -> None:
        if re.match(r"[a-z][a-z0-9]+:/(?!/)", uri):
            raise ConfigError(f"lake {uri!r}: a URI has two slashes behind its colon")
        if not uri.isprintable():
            raise ConfigError(f"the lake's URI {uri!r} holds characters that cannot be printed")
        if holds_keys(uri):
            raise ConfigError("the lake's URI holds a user, password or query: give keys by the environment instead")
        try:
            if "://" in uri:
                self.filesystem, root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
            else:  # not url_to_fs: it takes "a::b" for a chain of stores
                self.filesystem, root = LocalFileSystem(), LocalFileSystem._strip_protocol(uri)
        except (ValueError, TypeError, ImportError, OSError) as error:
            why = extras.advice(error) or one_line(error)
            raise ConfigError(f"lake {uri!r} is not a folder or a supported URI: {why}") from error
        #: Whether it was opened for writing. If its folders are deleted then, no new lake is begun in their place.
        self._is_open = is_open
        self.local = isinstance(self.filesystem, LocalFileSystem)
        if isinstance(self.filesystem, MemoryFileSystem):
            raise ConfigError(f"lake {uri!r} would be lost: every engine is a process with a memory of its own")
        self.root = (os.path.normpath(root) if self.local else root).rstrip("/") or "/"
        self.uri = self.root if self.local else uri.rstrip("/")
        self._is_older: bool | None = None
        #: All names of a published version, opened for reading; None in a lake.
        self._named: list[str] | None = None
        #: Listed names that cannot be objects (_is_object).
        self.foreign: set[str] = set()

    # ---- opening

    def exists(self) -> bool:
        """Whether a lake was ever opened for writing here."""
        return self.first_version() is not None

    def open_for_writing(self) -> Lake:
        """Makes missing folders and proves that the store honours exclusive creation. Returns self.

        In a lake of an older schema version it adds the tables and the mark of this version. Raises ConfigError for a
        published version, and for a lake that a newer version wrote.
        """
        if self.is_published():
            raise ConfigError(f"{self.uri} is a published version, which never changes: give a lake of your own")
        version = self._check_version()
        self.probe()
        if version is not None and version < SCHEMA_VERSION:
            self.create_table(layout.mark_name(SCHEMA_VERSION), TABLES[layout.SHARDS].empty_table())
        for table in TABLES:
            self.create(SCHEMA_FILES[table], _schema_file(SCHEMA_FILES[table], TABLES[table], SCHEMA_VERSION))
        self._is_open = True
        return self

    def open_for_reading(self) -> Lake:
        """Returns self. Raises ConfigError if no lake exists here, or a newer schema version wrote it."""
        if self.local and os.path.lexists(self.root) and not os.path.isdir(self.root):
            raise ConfigError(f"{self.uri} is not a folder, and so not a lake: name another with --lake")
        self._named = self._names_of_version()
        if self._check_version() is None:
            raise ConfigError(f"no lake at {self.uri}: run collect.py first, or name another with --lake")
        return self

    def is_published(self) -> bool:
        """Whether this is a published version (collectors.publish.version): its manifest names every file."""
        return self.has(layout.PUBLISHED_MANIFEST)

    def _names_of_version(self) -> list[str] | None:
        """The files that a version's manifest names: nothing has to be listed. None in a lake, or for a damaged one."""
        try:
            value = json.loads(self.read(layout.PUBLISHED_MANIFEST))
        except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
            return None
        is_manifest = isinstance(value, dict) and value.get("kind") == layout.PUBLISHED_KIND
        files = value.get("files") if is_manifest else None
        if not isinstance(files, dict):
            return None
        return sorted([layout.PUBLISHED_MANIFEST, *(name for name in files if name.isprintable() and ".." not in name)])

    def first_version(self) -> int | None:
        """Returns the schema version that began the lake; None without a lake, 0 if it is not stated."""
        name = SCHEMA_FILES[layout.SHARDS]
        try:
            data = self.read(name)
        except FileNotFoundError:
            return None
        try:
            return stated_version(pq.read_schema(io.BytesIO(data)).metadata) or 0
        except (ValueError, OSError) as error:
            raise StorageError(
                f"{name} in {self.uri} is damaged ({one_line(error)}): put a copy of this file in its place, "
                "from another lake that the same release began"
            ) from error

    def is_older(self) -> bool:
        """Whether an older schema version began the lake: its files may lack columns and tables of today."""
        if self._is_older is None:
            self._is_older = (self.first_version() or SCHEMA_VERSION) < SCHEMA_VERSION
        return self._is_older

    def _check_version(self) -> int | None:
        """The newest schema version that wrote here; None without a lake. Raises ConfigError for one out of reach."""
        marks = [layout.marked_version(name) for name in self.names(layout.MARKS, depth=1)]
        versions = [version for version in (self.first_version(), *marks) if version is not None]
        for version in versions:
            check_readable(f"the lake at {self.uri}", version)
        return max(versions, default=None)

    def probe(self) -> None:
        """Creates one object twice. Raises StorageError if the store accepts the second one: it would lose commits."""
        name = layout.probe_name(secrets.token_hex(8))
        self.create(name, b"1")
        second, kept = self.create(name, b"2"), self.has(name)
        with self._doing("delete a probe object in"):
            self.filesystem.rm_file(self._path(name))
        if second or not kept:
            raise StorageError(f"the store at {self.uri} ignores exclusive creation: commits would be lost")

    # ---- objects

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextmanager
    def _doing(self, what: str, but: type[Exception] | tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Turns errors of a store's client into StorageError. Clients have their own types, not only OSError."""
        try:
            yield
        except but:
            raise
        except Exception as error:
            kind = UnreachableError if may_mend(error) else StorageError
            raise kind(f"cannot {what} the lake at {self.uri}: {one_line(error)}{advice_on(error)}") from error

    @contextmanager
    def _reason(self, name: str) -> Iterator[None]:
        """Gives a store's refusal its reason. The client asks by HEAD first, and an answer to that has no body."""
        try:
            yield
        except OSError as error:
            if str(answer_of(error).get("Error", {}).get("Code")) in ("400", "401", "403"):
                self.filesystem.cat_file(self._path(name), start=0, end=1)  # raises the store's own error
            raise

    def check_holds(self, name: str) -> None:
        """Raises StorageError unless the lake has the object, as where another lake was put in this one's place.

        A lake that is away as a whole is another error, which `create` raises.
        """
        if self.local and not Path(self._path(layout.SHARDS)).is_dir():
            return
        if not self.has(name):
            raise StorageError(f"{self.uri} is another lake than before: {name} is gone from it; nothing was written")

    def create(self, name: str, data: bytes) -> bool:
        """Creates the whole object. Returns False if it exists already: the first writer wins."""
        with self._doing(f"write {name} to"):
            if self.local:
                if self._is_open and not Path(self._path(layout.SHARDS)).is_dir():
                    raise OSError(errno.ESTALE, f"{self.root} is gone: was the lake moved, or is it not mounted?")
                return create_file(Path(self._path(name)), data)
            for _ in range(_CONFLICT_TRIES):
                try:
                    self.filesystem.pipe_file(self._path(name), data, mode="create")
                    return True
                except FileExistsError:
                    return False
                except OSError as error:
                    status = http_status(error)
                    if status == 412:
                        return False
                    if status != 409:
                        raise
            raise OSError("other writers of the same object kept it busy")

    def create_table(self, name: str, table: pa.Table, metadata: dict[str, Any] | None = None) -> bool:
        """Creates a Parquet object, each of `metadata` as JSON in its footer. Returns False if the object exists."""
        return self.create(name, parquet_bytes(keyless(name, table), metadata, name))

    def read(self, name: str) -> bytes:
        """Returns the whole object. Raises FileNotFoundError without one, StorageError if it cannot be read."""
        with self._doing(f"read {name} in", but=FileNotFoundError), self._reason(name):
            data = bytes(self.filesystem.cat_file(self._path(name)))
            # A network or a cache between may garble a body: what its seal does not confirm is asked once more.
            if not self.local and seals.broken_seal(data, name):
                logger.warning("%s came garbled from %s: asked once more", name, self.uri)
                data = bytes(self.filesystem.cat_file(self._path(name)))
            return data

    def open_object(self, name: str) -> str | io.BytesIO:
        """Returns the object for a Parquet reader: the path of a file, else all bytes."""
        return self._path(name) if self.local else io.BytesIO(self.read(name))

    def remove(self, names: Sequence[str]) -> None:
        """Deletes the objects. Ignores names that do not exist."""
        with self._doing("delete objects of"):
            if self.local:
                for name in names:
                    Path(self._path(name)).unlink(missing_ok=True)
            else:
                for start in range(0, len(names), _DELETED_AT_ONCE):
                    paths = [self._path(name) for name in names[start : start + _DELETED_AT_ONCE]]
                    with suppress(FileNotFoundError):
                        self.filesystem.rm(paths)

    def remove_leftovers(self) -> int:
        """Deletes temporary files of writers that were killed, a day old at least. Returns their number.

        Stores other than folders have none.
        """
        if not self.local:
            return 0
        with self._doing("delete temporary files of"):
            limit = time.time() - LEFTOVER_AGE
            entries = [entry for entry in entries_below(self.root, depth=4) if LEFTOVER.fullmatch(entry.name)]
            old = [entry.path for entry in entries if (made(entry) or limit) < limit]
            for path in old:
                Path(path).unlink(missing_ok=True)
        return len(old)

    def has(self, name: str) -> bool:
        with self._doing("read"):
            if self.local:
                return is_file(Path(self._path(name)))
            with self._reason(name):
                return bool(self.filesystem.exists(self._path(name)))

    def names(self, folder: str, depth: int = 3) -> list[str]:
        """Returns the names below `folder`, relative to the root, in byte order (stores have different orders).

        `depth` is the least number of levels of folders that are listed; the tables of a lake have at most 3.
        """
        if self._named is not None:
            return [name for name in self._named if name.startswith(f"{folder}/") or not folder]
        with self._doing(f"list {folder} in"):
            if self.local:
                names = [path[len(self.root) :].lstrip("/") for path in files_below(self._path(folder), depth)]
            else:
                try:
                    names = [path[len(self.root) + 1 :] for path in self.filesystem.find(self._path(folder))]
                except FileNotFoundError:
                    names = []
        return sorted(name for name in names if self._is_object(name))

    def every_name(self) -> list[str]:
        """Returns the names of all files below the root at any depth, in byte order.

        Also of links and special files, and of anything that no reader takes for an object.
        """
        with self._doing("list"):
            if self.local:
                return every_file(self.root)
            return sorted(path[len(self.root) + 1 :] for path in self.filesystem.find(self.root))

    def empty_folders(self) -> list[str]:
        """Returns the folders of a lake in a folder that hold nothing. Object stores have none."""
        with self._doing("list"):
            return empty_folders(self.root) if self.local else []

    def is_plain_file(self, name: str) -> bool:
        """Whether `name` is a file of this lake itself, without a link on the way. Stores have nothing else."""
        if not self.local:
            return self.has(name)
        with self._doing("read"):
            return is_plain_file(self.root, name)

    def is_there(self, name: str) -> bool:
        """Whether a lake in a folder has anything of that name, such as a broken link."""
        return os.path.lexists(self.local_path(name))

    def local_path(self, name: str) -> str:
        """Returns the path of an object of a lake in a folder."""
        assert self.local
        return self._path(name)

    def now(self) -> float:
        """Returns the time by the store's own clock, seconds since the epoch; by this machine's where it has none.

        It creates an object and deletes it. Clocks of other machines that write to the lake may be days off.
        """
        name = layout.probe_name(secrets.token_hex(8))
        self.create(name, b"1")
        try:
            with self._doing(f"read {name} in"):
                if self.local:
                    return os.stat(self._path(name)).st_mtime
                details = self.filesystem.info(self._path(name))
                made = _last_modified(details)
                return time.time() if made is None else made
        finally:
            self.remove([name])

    def listing(self, folder: str, depth: int = 3, prefix: str = "") -> dict[str, float | None]:
        """Returns `names` with their creation times: seconds since the epoch by the store's clock; None: unknown.

        With `prefix` only those directly below `folder` whose last part begins with it. In a copy of a lake it is the
        time of the copy, unless the copy kept the times.
        """
        with self._doing(f"list {folder} in"):
            if self.local:
                entries = entries_below(self._path(folder), 1 if prefix else depth)
                times = {e.path[len(self.root) :].lstrip("/"): made(e) for e in entries if e.name.startswith(prefix)}
            else:
                # Clients of S3, Google's and Azure's stores pass the prefix on; it saves the listing of a whole task.
                only = {"prefix": prefix} if prefix else {}
                try:
                    objects = self.filesystem.find(self._path(folder), detail=True, **only)
                except FileNotFoundError:
                    objects = {}
                times = {path[len(self.root) + 1 :]: _last_modified(details) for path, details in objects.items()}
                if prefix:  # whatever the client made of it
                    times = {name: time for name, time in times.items() if name.startswith(f"{folder}/{prefix}")}
        return {name: times[name] for name in sorted(times) if self._is_object(name)}

    def _is_object(self, name: str) -> bool:
        """Whether a listed name can be an object. Names that are not printable text, such as invalid UTF-8, were not
        written here and break DuckDB and terminals: they are logged once, and all readers pass them over."""
        if name.isprintable():
            return not name.endswith(".tmp")
        if name not in self.foreign:
            self.foreign.add(name)
            logger.warning("passed over in the lake, its name is not text: %s", ascii(name))
        return False


def parquet_bytes(table: pa.Table, metadata: dict[str, Any] | None = None, name: str = "") -> bytes:
    """Returns `table` as a Parquet object of a lake, each of `metadata` as JSON in its footer.

    Its pages have checksums, and a seal covers all of it (collectors.lake.seals). With `name` it is whole under that
    name alone.
    """
    footer = {k: v for k, v in (table.schema.metadata or {}).items() if k != seals.KEY.encode()}
    footer |= {VERSION_KEY: str(SCHEMA_VERSION).encode()}
    footer |= {k.encode(): json.dumps(without_key_values(v)).encode() for k, v in (metadata or {}).items()}
    table = table.replace_schema_metadata(footer)
    sink = io.BytesIO()
    # Integers as deltas, strings by dictionary: the layout that measured smallest on records of this shape.
    integers = [f.name for f in table.schema if pa.types.is_integer(f.type)]
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        use_dictionary=[f.name for f in table.schema if pa.types.is_string(f.type)],
        column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table, row_group_size=_ROW_GROUP)
        writer.add_key_value_metadata({seals.KEY: seals.unsigned(name)})
    return seals.sealed(sink.getvalue())


@functools.cache
def _schema_file(name: str, schema: pa.Schema, version: int) -> bytes:
    """The bytes of a table's schema file: making those of all tables takes 30 ms of each opening."""
    return parquet_bytes(schema.empty_table(), name=name)


def _last_modified(details: dict[str, Any]) -> float | None:
    """Returns the creation time of an object, under the key of any of fsspec's clients."""
    for key in ("LastModified", "last_modified", "mtime", "updated"):
        value = details.get(key)
        if isinstance(value, dt.datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None
