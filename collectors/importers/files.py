"""Files that others wrote, read without trust: their content costs bounded memory and runs no code.

Owns how files are listed, opened, decompressed and cut into lines. Knows nothing of formats.
"""

from __future__ import annotations

import bz2
import fnmatch
import glob
import gzip
import hashlib
import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.failures import ConfigError, one_line
from schemas.texts import without_queries

#: Longest line, and largest document that has to be read as a whole, bytes.
MAX_LINE = 64 * 2**20
MAX_DOCUMENT = 1024 * 2**20
#: Limit of a compressed file's content: this many times its size, plus a constant. JSON of equal rows reaches 100.
MAX_RATIO, MAX_SMALL = 200, 64 * 2**20
_CHUNK = 2**20
#: Folders below each other that are looked through.
_MAX_DEPTH = 100

#: Number of zstd among a zip archive's methods of compression.
_ZSTD = 93

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


class BadFile(Exception):
    """A file, or the rest of one, that cannot be read; `kind` is a reject's."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    #: Where it is, and its name below the path that was given, which reports and provenance show: without a query,
    #: which may hold a key of any name.
    path: str
    name: str
    size: int

    def open(self) -> IO[bytes]:
        """The file as it is, decompressed by its ending. Raises BadFile."""
        try:
            raw = fsspec.open(self.path, "rb").open() if "://" in self.path else open(self.path, "rb")  # noqa: SIM115
        except Exception as error:  # stores' clients have error types of their own
            raise BadFile("unreadable", without_queries(one_line(error))) from error
        opener = _OPENERS.get(os.path.splitext(self.name)[1].lower())
        limit = self.size * MAX_RATIO + MAX_SMALL
        stream = _Bounded([opener(raw), raw], limit) if opener else _Bounded([raw], None)
        return io.BufferedReader(stream, _CHUNK)

    @cached_property
    def state(self) -> tuple[int, int]:
        """Size and time of a file of this machine, when it was first asked for."""
        return self._state()

    def _state(self) -> tuple[int, int]:
        try:
            state = os.stat(self.path)
        except OSError:  # of another machine, or gone
            return 0, 0
        return state.st_size, state.st_mtime_ns

    def has_changed(self) -> bool:
        """Whether it is another file than when its digest was taken."""
        return self.state != self._state()

    @cached_property
    def sha256(self) -> str:
        """Of the file as it is stored."""
        _ = self.state  # as it was before
        try:
            with fsspec.open(self.path, "rb") if "://" in self.path else open(self.path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except Exception as error:
            raise BadFile("unreadable", without_queries(one_line(error))) from error

    def read(self) -> bytes:
        """The whole content. Raises BadFile where it exceeds MAX_DOCUMENT."""
        with self.open() as file:
            data = file.read(MAX_DOCUMENT + 1)
        if len(data) > MAX_DOCUMENT:
            raise BadFile("too_large", f"more than {MAX_DOCUMENT // 2**20} MiB in one document")
        return data

    def check(self) -> None:
        """Reads the file to its end, before something else reads it. Raises BadFile."""
        with self.open() as file:
            while file.read(_CHUNK):
                pass

    @property
    def stem(self) -> str:
        """File name without the ending of its compression."""
        base = self.name.rsplit("/", 1)[-1]
        root, ending = os.path.splitext(base)
        return root if ending.lower() in _OPENERS else base


class _Bounded(io.RawIOBase):
    """The first of `streams`. Raises BadFile where it is damaged, or yields more than `limit` bytes."""

    def __init__(self, streams: Sequence[IO[bytes]], limit: int | None) -> None:
        self.streams, self.limit, self.given = streams, limit, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            given = self.streams[0].readinto(buffer)  # type: ignore[attr-defined]
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise BadFile("damaged", f"cannot be decompressed or read: {one_line(error)}") from error
        self.given += given
        if self.limit is not None and self.given > self.limit:
            raise BadFile("bomb", f"holds more than {self.limit // 2**20} MiB, too much for a file of its size")
        return int(given)

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
        super().close()


# ---- listing


def find_files(paths: Sequence[str], patterns: Sequence[str]) -> list[SourceFile]:
    """Returns the files of `paths` in order of name. A path is a file, a folder, a glob, or a URI of one of these.

    Takes of a folder the files whose name, or path below it, fits one of `patterns`, but no link that leads out of it.
    Raises ConfigError where a path matches nothing.
    """
    files: dict[str, SourceFile] = {}
    for path in paths:
        some = _find_remote(path, patterns) if "://" in path else _find_local(path, patterns)
        if not some:
            lacking = f"no file like {', '.join(patterns)} in" if "://" in path or os.path.isdir(path) else "no file at"
            raise ConfigError(without_queries(f"{lacking} {path}"))
        files |= {file.path: file for file in some}
    return sorted(files.values(), key=lambda file: (file.name, file.path))


def _find_local(path: str, patterns: Sequence[str]) -> list[SourceFile]:
    if os.path.isdir(path):
        root = os.path.realpath(path)
        return sorted(_walk(root, root, patterns), key=lambda file: file.name)
    if os.path.isfile(path):
        return [SourceFile(os.path.abspath(path), _shown(os.path.basename(path)), os.path.getsize(path))]
    files = []
    for match in sorted(glob.glob(path, recursive=True, include_hidden=True)):
        if os.path.isdir(match):
            inner = _find_local(match, patterns)
            files += [SourceFile(f.path, f"{_shown(os.path.basename(match))}/{f.name}", f.size) for f in inner]
        elif os.path.isfile(match):
            files.append(SourceFile(os.path.abspath(match), _shown(match), os.path.getsize(match)))
    return files


def _walk(folder: str, root: str, patterns: Sequence[str]) -> Iterator[SourceFile]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                real = os.path.realpath(entry.path)
                if entry.is_symlink() and not (real.startswith(root + os.sep) and os.path.isfile(real)):
                    continue
                if entry.is_dir(follow_symlinks=False) and entry.path.count(os.sep) - root.count(os.sep) < _MAX_DEPTH:
                    yield from _walk(entry.path, root, patterns)
                elif entry.is_file() and not entry.name.startswith("."):
                    name = _shown(os.path.relpath(entry.path, root).replace(os.sep, "/"))
                    if _fits(name, patterns):
                        yield SourceFile(entry.path, name, entry.stat().st_size)
    except OSError as error:
        raise ConfigError(f"cannot list {folder}: {one_line(error)}") from error


def _shown(name: str) -> str:
    """A file's name as text: other bytes are written as \\x…."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _find_remote(path: str, patterns: Sequence[str]) -> list[SourceFile]:
    try:
        filesystem, root = fsspec.core.url_to_fs(path)
        if isinstance(filesystem, LocalFileSystem):
            return _find_local(root, patterns)
        if any(letter in root for letter in "*?["):
            details = filesystem.glob(root, detail=True)
        elif filesystem.isfile(root) and not root.endswith("/"):
            details = {root: filesystem.info(root)}
        else:
            details = filesystem.find(root, detail=True)
    except Exception as error:  # stores' clients have error types of their own
        raise ConfigError(without_queries(f"cannot list {path}: {one_line(error)}")) from error
    files = []
    for name, detail in details.items():
        place = name.partition("?")[0]
        below = place[len(root) :].lstrip("/") or place.rsplit("/", 1)[-1]
        if detail.get("type") == "file" and (name == root or _fits(below, patterns)):
            files.append(SourceFile(filesystem.unstrip_protocol(name), below, int(detail.get("size") or 0)))
    return files


def _fits(name: str, patterns: Sequence[str]) -> bool:
    base = name.rsplit("/", 1)[-1]
    for ending in _OPENERS:
        name, base = name.removesuffix(ending), base.removesuffix(ending)
    return any(fnmatch.fnmatch(base, pattern) or fnmatch.fnmatch(name, pattern) for pattern in patterns)


def names_of(files: Sequence[SourceFile]) -> list[str]:
    """The names of files that only their names describe, with their folders where two have the same name."""
    stems = [os.path.splitext(file.stem)[0] for file in files]
    folders = [file.name.rpartition("/")[0] for file in files]
    return [
        f"{folder}/{stem}" if folder and stems.count(stem) > 1 else stem
        for folder, stem in zip(folders, stems, strict=True)
    ]


# ---- reading


def lines(file: SourceFile) -> Iterator[tuple[int, bytes | BadFile]]:
    """Yields the lines that are not blank, numbered from 1, and a BadFile in place of one that is too long."""
    with file.open() as stream:
        number = 0
        while line := stream.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE and not line.endswith(b"\n"):
                while (rest := stream.readline(_CHUNK)) and not rest.endswith(b"\n"):
                    pass
                yield number, BadFile("too_long", f"a line of more than {MAX_LINE // 2**20} MiB")
                continue
            if number == 1:
                line = without_mark(line)
            if line and not line.isspace():
                yield number, line


def without_mark(data: bytes) -> bytes:
    """Without UTF-8's byte order mark. Raises BadFile for UTF-16 and UTF-32, which have others."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadFile("encoding", "in UTF-16 or UTF-32: convert it to UTF-8")
    return data.removeprefix(b"\xef\xbb\xbf")


#: A damaged archive, or a damaged file in it, raises one of these.
_OF_ZIP = (
    *(zipfile.BadZipFile, OSError, EOFError, struct.error, zlib.error, lzma.LZMAError),
    *(NotImplementedError, RuntimeError),
)


def zip_members(file: SourceFile) -> Iterator[tuple[str, bytes | BadFile]]:
    """Names and contents of a zip archive's files, all within MAX_RATIO. Raises BadFile where the archive is damaged.

    A BadFile stands in place of one file that is damaged, and of several that have one name and differ: zipfile takes
    the last in silence.
    """
    limit, given = file.size * MAX_RATIO + MAX_SMALL, 0
    try:
        data = file.read()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            named: dict[str, list[zipfile.ZipInfo]] = {}
            for info in archive.infolist():
                named.setdefault(info.filename, []).append(info)
            for name, infos in named.items():
                if infos[0].is_dir():
                    continue
                content: bytes | BadFile = b""
                for place, info in enumerate(infos):
                    before = content
                    try:
                        content = _member(archive, data, info, limit - given)
                        given += len(content)
                    except _OF_ZIP as error:
                        content = BadFile("damaged", f"{name[:60]} in it is damaged: {one_line(error)}")
                        given += info.file_size  # no more was read
                    if given > limit:
                        raise BadFile("bomb", f"holds more than {limit // 2**20} MiB, too much for a file of its size")
                    if place and content != before:
                        content = BadFile("doubled_name", f"{name[:60]!r} stands in it twice, with other content")
                        break
                yield name, content
    except _OF_ZIP as error:
        raise BadFile("damaged", f"not a whole zip archive: {one_line(error)}") from error


def _member(archive: zipfile.ZipFile, data: bytes, info: zipfile.ZipInfo, most: int) -> bytes:
    """The content of one file, up to `most` bytes and one more. Raises one of _OF_ZIP."""
    if info.compress_type != _ZSTD:
        with archive.open(info) as member:
            return member.read(most + 1)
    with _zstd_member(data, info) as packed:
        content: bytes = packed.read(min(most, info.file_size) + 1)
    if len(content) <= most and zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile("bad CRC-32")
    return content


def _zstd_member(data: bytes, info: zipfile.ZipInfo) -> IO[bytes]:
    """A file of an archive that is compressed by zstd, which zipfile reads from Python 3.14 on alone."""
    import pyarrow as pa  # 40 ms

    *_, name, extra = struct.unpack_from("<4s5H3I2H", data, info.header_offset)
    start = info.header_offset + struct.calcsize("<4s5H3I2H") + name + extra
    packed = pa.py_buffer(memoryview(data)[start : start + info.compress_size])
    return pa.CompressedInputStream(pa.BufferReader(packed), "zstd")  # type: ignore[no-any-return]
