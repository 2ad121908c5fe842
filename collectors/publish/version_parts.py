"""Writes the parts of a published version: the records of some cells, from a lake into files of a folder.

Owns what of a lake the parts of a group need, so that another process can write them. Knows nothing of the rest of a
version.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from collectors.lake import layout
from collectors.lake.holdings import Holdings, Part
from collectors.lake.parts import NEEDED_VIEWS, WrittenPart, limit_memory, read_together, write_part
from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.publish.indexed_parquet import write_indexed
from collectors.scratch import scratch


@dataclass(frozen=True)
class VersionChunk:
    """Cells of one task under one prompting that make one part, and the number of their rows."""

    task: str
    cells: list[str]
    rows: int


@dataclass(frozen=True)
class PartsWork:
    """Chunks that are read together, the number of the first, and the part of the lake that holds their cells."""

    uri: str
    holdings: Holdings
    cells: pa.Table
    chunks: Sequence[VersionChunk]
    first: int


def write_parts(work: PartsWork, folder: Path, threads: int | None = None) -> Iterator[WrittenPart]:
    """Yields each part with its files in `folder`; the next one replaces those that were not moved away."""
    lake = Lake(work.uri)
    made = connect(lake, work.holdings, cells=work.cells, only=NEEDED_VIEWS, threads=threads)
    with contextlib.closing(made) as con:
        limit_memory(con, folder)
        if len(work.chunks) > 1:
            read_together(con)
        for number, chunk in enumerate(work.chunks, work.first):
            yield write_part(
                con,
                chunk.cells,
                folder,
                lambda kind, _: layout.part_name(1, chunk.task, kind, f"{number:05d}"),  # noqa: B023
                write=write_indexed,
            )


def made_parts(work: PartsWork) -> list[tuple[Part, list[str], dict[str, bytes]]]:
    """Each part, its cells by place, and its files by name: for a process on another machine."""
    with scratch("publish-") as folder:
        return [
            (one.part, one.cells, {name: path.read_bytes() for name, path in one.files.items()})
            for one in write_parts(work, Path(folder), threads=1)
        ]
