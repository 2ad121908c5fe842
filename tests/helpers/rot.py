"""Random damages of a lake's objects: bits flipped, bytes zeroed, files cut, swapped and deleted.

Owns the damages, a small lake with an object of every kind, and the judgement of what a damage changed.
"""

from __future__ import annotations

import datetime as dt
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake.compaction import compact
from collectors.lake.holdings import newest_manifest
from collectors.lake.layout import is_compacted, is_object, table_of
from collectors.lake.pruning import prune
from collectors.lake.store import Lake
from collectors.lake.verifying import verify
from collectors.matrix.blocks import load_blocks
from schemas.failures import RouterlakeError
from schemas.identity import digest
from schemas.records import TABLES
from tests.helpers.filled_lakes import NOW, everything
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

KINDS = ("flip", "zeros", "cut", "swap", "deletion")
#: Objects that are newer than the newest compaction. Nothing else tells that there was one.
UNTOLD = ("failures", "run_ends", "models", "prices")
ENDED = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)


def rotting_lake(folder: Path) -> Lake:
    """A lake with objects of all tables: folded and pruned, then collected further by a run that finished."""
    builder = LakeBuilder(folder)
    first = [BuiltCell(model=f"m{i}", task=task) for i in range(3) for task in "tu"]
    _collect(builder, first)
    _answers(builder, first[0], 4, 3, generation=1)
    for table in ("imports", "rejects", "suspicions", "gpu_prices", "price_names", "aggregates"):
        _small(builder, table, "a")
    _beside(builder, "a")
    compact(builder.lake)
    prune(builder.lake, NOW)
    _answers(builder, first[1], 0, 10, generation=1)  # it makes rows of a part older
    _collect(builder, [BuiltCell(model=f"m{i}", task=task) for i in (3, 4) for task in "tu"])
    _beside(builder, "b")
    return builder.lake


def _collect(builder: LakeBuilder, cells: list[BuiltCell]) -> None:
    run_id = builder.run(*cells)
    for cell in cells:
        if not builder.lake.has(f"items/task={cell.task}/i0.parquet"):
            builder.items(cell.task, "i0", 10, prompt=[f"{cell.task} {i}?" for i in range(10)])
        builder.model(cell.model, f"r-{cell.task}", tokenizer_hash=digest(cell.model))
        for start in (0, 5):
            _answers(builder, cell, start, 5)
    builder.end(run_id, "finished", ENDED)


def _answers(builder: LakeBuilder, cell: BuiltCell, first: int, count: int, generation: int = 0) -> None:
    draw = random.Random(f"{cell} {first} {generation}")
    rows = []
    for item in range(first, first + count):
        text = " ".join(draw.choice(["yes", "no", "four", "seven"]) for _ in range(20))
        tokens = {"prompt_tokens": draw.randrange(10, 300), "completion_tokens": draw.randrange(1, 90)}
        rows.append(cell.record(item, score=float(draw.random() < 0.5), responses=[text], **tokens))
    builder.shard(cell, rows, generation=generation, metadata={"run_id": "run-0001", "wall_seconds": 1.5})


def _beside(builder: LakeBuilder, name: str) -> None:
    builder.failure(f"run-{name}", "no_weights", f"{name} has none", model=f"gone-{name}")
    _small(builder, "prices", name)


def _small(builder: LakeBuilder, table: str, name: str) -> None:
    row = {field.name: _value(field.type, name) for field in TABLES[table]}
    builder.lake.create_table(f"{table}/{name}.parquet", pa.Table.from_pylist([row], TABLES[table]))


def _value(dtype: pa.DataType, text: str) -> Any:
    if pa.types.is_string(dtype):
        return text
    if pa.types.is_list(dtype):
        return [text]
    if pa.types.is_boolean(dtype):
        return True
    if pa.types.is_timestamp(dtype):
        return ENDED
    return ENDED.date() if pa.types.is_date(dtype) else 1


@dataclass(frozen=True)
class Damage:
    kind: str
    #: Table of the object, or what else it is.
    of: str
    name: str
    #: Name -> its bytes from now on; None: deleted.
    changes: dict[str, bytes | None]


def damages(objects: dict[str, bytes], count: int, seed: int = 0) -> Iterator[Damage]:
    """Yields damages of objects, each kind as often, and each table as often as any other."""
    tables: dict[str, list[str]] = {}
    for name in sorted(objects):
        tables.setdefault(_of(name), []).append(name)
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        kind, table = KINDS[number % len(KINDS)], draw.choice(sorted(tables))
        name = draw.choice(tables[table])
        data, changes = objects[name], dict[str, bytes | None]()
        if kind == "swap":
            other = draw.choice([n for n in tables[table] if objects[n] != data] or [n for n in objects if n != name])
            changes = {name: objects[other]} | ({other: data} if draw.random() < 0.5 else {})
        elif kind == "deletion":
            changes = {name: None}
        elif kind == "cut":
            changes = {name: data[: draw.randrange(len(data))]}
        else:
            changes = {name: _changed(data, draw, 1 if kind == "flip" else draw.choice([2, 8, 64, 512]))}
        yield Damage(kind, table, name, changes)


def _changed(data: bytes, draw: random.Random, length: int) -> bytes:
    """With one bit flipped, or `length` bytes zeroed; always another content."""
    while True:
        changed, start = bytearray(data), draw.randrange(len(data))
        if length == 1:
            changed[start] ^= 1 << draw.randrange(8)
        else:
            changed[start : start + length] = bytes(len(changed[start : start + length]))
        if changed != data:
            return bytes(changed)


def _of(name: str) -> str:
    if is_compacted(name) and not name.endswith(".parquet"):
        return "compact/" + name.rsplit("/", 1)[1].split("-")[0].split(".")[0]
    return "schema files" if "schema" in name else table_of(name)


@contextmanager
def damaged(lake: Lake, objects: dict[str, bytes], damage: Damage) -> Iterator[None]:
    """Applies the damage, and puts every object back."""
    for name, data in damage.changes.items():
        path = Path(lake.root, name)
        path.unlink()
        if data is not None:
            path.write_bytes(data)
    try:
        yield
    finally:
        for name in damage.changes:
            Path(lake.root, name).write_bytes(objects[name])


@dataclass
class Storm:
    """What became of many damages."""

    lake: Lake
    objects: dict[str, bytes] = field(init=False)
    #: (kind, outcome) -> number. Outcomes: named, harmless, loud, untold, silent.
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    silent: list[str] = field(default_factory=list)
    laundered: list[str] = field(default_factory=list)
    compacted: int = 0

    def __post_init__(self) -> None:
        self.objects = {name: self.lake.read(name) for name in self.lake.names("", 4) if is_object(name)}
        assert not verify(self.lake).faults
        self.before = _shown(self.lake)
        self.rows = _folded_rows(self._compacted_copy("whole"), set())

    def verify(self, damage: Damage) -> None:
        """Counts a damage by what `verify` and the views make of it. Views are read where nothing is named."""
        with damaged(self.lake, self.objects, damage):
            outcome = self._outcome(damage)
        self.counts[damage.kind, outcome] += 1
        if outcome == "silent":
            self.silent.append(f"{damage.kind} of {damage.name}")

    def _outcome(self, damage: Damage) -> str:
        try:
            faults = verify(self.lake).faults.keys()
            # A deleted run, or items, are named by what lacks them.
            if faults & damage.changes.keys() or (faults and damage.kind == "deletion"):
                return "named"
        except RouterlakeError:
            return "loud"
        try:
            if _shown(self.lake) == self.before:
                return "harmless"
        except Exception:  # of DuckDB, pyarrow and ours: the reader is told
            return "loud"
        return "untold" if damage.kind == "deletion" and damage.of in UNTOLD else "silent"

    def fold(self, damage: Damage) -> None:
        """Compacts a damaged copy, and compares every row of its new parts with those of a sound one."""
        with damaged(self.lake, self.objects, damage):
            old = {name for name in self.objects if is_compacted(name)}
            try:
                copy = self._compacted_copy("damaged")
            except RouterlakeError:  # it names the object and writes no manifest
                return
            finally:
                self.compacted += 1
        for name, rows in _folded_rows(copy, old).items():
            if rows - self.rows[name]:
                self.laundered.append(f"{damage.kind} of {damage.name}")

    def _compacted_copy(self, name: str) -> Lake:
        folder = Path(f"{self.lake.root}-{name}")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.lake.root, folder)
        lake = Lake(str(folder)).open_for_writing()
        compact(lake)
        return lake


def _shown(lake: Lake) -> dict[str, Any]:
    """All that readers see: the views, and the matrix, whose scores come from bits."""
    matrix = load_blocks(lake)
    arrays = (matrix.scores, matrix.valid, matrix.prompt_tokens, matrix.completion_tokens)
    return {**everything(lake), "arrays": [array.tobytes() for array in arrays]}


def _folded_rows(lake: Lake, old: set[str]) -> dict[str, set[str]]:
    """Kind of object -> the rows that the newest compaction wrote, without their place."""
    rows: dict[str, set[str]] = {"records": set(), "responses": set(), "older": set()}
    manifest = newest_manifest(lake)
    for part in manifest.parts if manifest else ():
        for kind, name in (("records", part.records), ("responses", part.responses), ("older", part.older)):
            if name and name not in old:
                table = pq.ParquetFile(lake.open_object(name)).read()
                if "place" in table.schema.names:
                    table = table.drop_columns(["place"])
                rows[kind] |= {str(row) for row in table.to_pylist()}
    return rows
