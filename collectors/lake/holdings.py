"""Lists a lake: shards by their names, the newest compaction by its manifest, and damaged objects.

Owns the manifest's form and a reader's choice of files: the newest manifest, and the shards that it does not name.
Knows nothing of the making of a compaction (collectors.lake.compaction) and of the meaning of views.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.lake import layout
from collectors.lake.damage import recorded_damage
from collectors.lake.retractions import Retracted, read_retracted
from collectors.lake.seals import broken_seal, sealed_json
from collectors.lake.store import Lake
from schemas.failures import ConfigError, StorageError, one_line
from schemas.identity import ShardName, is_imported
from schemas.migrations import first_readable
from schemas.records import GLOBS, SCHEMA_FILES, SCHEMA_VERSION, TABLES
from schemas.versions import OLDEST_VERSION, RULED_VERSION, check_readable
from schemas.views import ViewFiles

#: A lake of at most so many objects and, by their names, rows is small. DuckDB's threads share work of 120,000 rows.
FEW_OBJECTS, FEW_ROWS = 500, 10_000


@dataclass(frozen=True)
class Part:
    """One file of a compaction with the verdicts of some cells of one task and prompting, and the objects beside it.

    Rows are sorted by item and then by `place`, the cell's position in the part; the primary ones come first.
    """

    task: str
    prompting: str
    records: str
    #: Objects with the answers, and with rows that a higher generation replaced; None without such rows.
    responses: str | None
    older: str | None
    #: Object with a bit per primary row of a grid whose scores are all 0 or 1, item by item, the cells in the order of
    #: the matrix's axis (schemas.identity.COLUMN_KEY), little-endian; None for other parts. `records` holds the same.
    bits: str | None
    cells: int
    rows: int
    primary_rows: int
    #: Items of the primary rows, first and last; None without any.
    first_item: int | None
    last_item: int | None
    #: Whether each cell and item from first to last has exactly one primary row: the rows are a matrix in row order.
    is_grid: bool
    #: Bytes of `records`, and of the other objects.
    bytes: int
    other_bytes: int
    #: The version that wrote the part. Later fields need a default, too, for manifests without them.
    schema_version: int = OLDEST_VERSION
    #: SHA-256 of each of `objects`, in their order; empty where version 6 wrote the part.
    sha256: tuple[str, ...] = ()

    @classmethod
    def from_value(cls, value: dict[str, Any]) -> Part:
        """Raises TypeError or ValueError for a value that `to_value` did not make."""
        part = cls(**{**value, "sha256": tuple(value.get("sha256", ()))})
        for name in part.objects:
            if not layout.is_in_compaction(name):
                raise ValueError(f"its part {name!r} is not an object of a compaction")
        counts = (part.cells, part.rows, part.primary_rows, part.bytes, part.other_bytes, part.schema_version)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"the numbers of its part {part.records} are not all numbers")
        check_readable(part.records, part.schema_version)
        if part.sha256 and len(part.sha256) != len(part.objects):
            raise ValueError(f"it holds {len(part.sha256)} SHA-256 of {len(part.objects)} objects")
        return part

    @property
    def objects(self) -> list[str]:
        return [name for name in (self.records, self.responses, self.older, self.bits) if name]

    @property
    def parquet_objects(self) -> list[str]:
        return [name for name in self.objects if name != self.bits]

    def to_value(self) -> dict[str, object]:
        """Returns the fields as JSON values, without defaults of fields that version 6 lacks: its programs read it."""
        later = {"schema_version": OLDEST_VERSION, "sha256": ()}
        return {
            key: value for key, value in dataclasses.asdict(self).items() if key not in later or later[key] != value
        }

    @property
    def recorded(self) -> dict[str, str]:
        """Object -> its SHA-256; empty where version 6 wrote the part."""
        return dict(zip(self.objects, self.sha256, strict=True)) if self.sha256 else {}

    @property
    def bits_size(self) -> int:
        """Bytes of the object `bits`."""
        return (self.primary_rows + 7) // 8


@dataclass(frozen=True)
class Manifest:
    """One compaction: objects that it does not name are not part of it. It is written last and never changes."""

    number: int
    created_at: str
    #: Object with a row per folded shard (schemas.records.FOLDED_SHARD), and the number of these shards.
    folded: str
    shards: int
    parts: tuple[Part, ...]
    #: Object with the SHA-256 of all objects outside compactions that the lake had; None in published versions.
    inventory: str | None = None
    #: SHA-256 of these two objects; None where version 6 wrote the manifest.
    folded_sha256: str | None = None
    inventory_sha256: str | None = None
    #: Ids of the retractions that it follows: its parts have no row that one of them names.
    retracted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return layout.manifest_name(self.number)

    @property
    def objects(self) -> list[str]:
        lists = [self.folded, *([self.inventory] if self.inventory else [])]
        return [self.name, *lists, *(name for part in self.parts for name in part.objects)]

    @property
    def recorded(self) -> dict[str, str]:
        """Object of the compaction -> its SHA-256, where it is recorded."""
        pairs = [(self.folded, self.folded_sha256), (self.inventory, self.inventory_sha256)]
        own = {name: sha256 for name, sha256 in pairs if name and sha256}
        return own | {name: sha256 for part in self.parts for name, sha256 in part.recorded.items()}

    def to_json(self) -> bytes:
        value = {
            "schema_version": SCHEMA_VERSION,
            **dataclasses.asdict(self),
            "parts": [part.to_value() for part in self.parts],
        }
        if not self.retracted:
            del value["retracted"]
        return sealed_json(value, self.name)

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Raises ConfigError for a manifest of a newer version; ValueError, KeyError or TypeError for other data."""
        value = json.loads(data)
        check_readable(f"compaction {value['number']}", value.pop("schema_version"))
        value.pop("seal", None)
        parts = tuple(Part.from_value(part) for part in value["parts"])
        for name in (value["folded"], value.get("inventory")):
            if name is not None and not layout.is_in_compaction(name):
                raise ValueError(f"it names {name!r}, which is not an object of a compaction")
        if bool(parts) != bool(value["shards"]):
            raise ValueError(f"it holds {value['shards']} shards in {len(parts)} parts")
        return cls(**{**value, "parts": parts, "retracted": tuple(map(str, value.get("retracted", ())))})


def newest_manifest(lake: Lake) -> Manifest | None:
    """Returns the compaction that readers use; None before the first. Raises StorageError for a damaged manifest."""
    return _newest(lake, lake.names(layout.COMPACTIONS))


def _newest(lake: Lake, compactions: list[str]) -> Manifest | None:
    names = layout.manifest_names(compactions)
    return read_manifest(lake, names[-1]) if names else None


def read_manifest(lake: Lake, name: str) -> Manifest:
    try:
        data = lake.read(name)
        manifest = Manifest.from_json(data)
        if reason := broken_seal(data, name) or (None if manifest.name == name else "it is of another number"):
            raise ValueError(reason)
        return manifest
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"{name} in {lake.uri} is damaged: remove it if the shards that it names still exist"
        ) from error


@dataclass(frozen=True)
class Holdings:
    """The objects that a reader uses, as they were at one moment."""

    #: Table of schemas.records.GLOBS -> its objects, without the schema file and damaged ones.
    listed: dict[str, list[str]]
    manifest: Manifest | None
    #: Damaged object -> reason.
    damaged: dict[str, str] = field(default_factory=dict)
    #: Kind of cells, a key of schemas.views.INCLUDED: objects and parts of other cells are left out.
    include: str = "all"
    #: Whether names were passed over that make DuckDB's own listing fail.
    foreign: bool = False
    #: Tables without a whole schema file, as where an older schema version began the lake.
    absent: frozenset[str] = frozenset()
    #: Whether files may lack columns of today's schemas, and null is read in their place.
    filled: bool = False
    #: The judge whose verdicts are shown (schemas.views.PoolChoice.judge).
    judge: str | None = None

    def objects(self) -> list[str]:
        """Returns the names of all Parquet objects that the views read."""
        files = self.view_files()
        schemas = [name for table, name in SCHEMA_FILES.items() if table not in self.absent]
        return [name for names in (schemas, *self.listed.values(), *files.compacted.values()) for name in names]

    @property
    def recorded(self) -> dict[str, str]:
        """Object of the compaction -> its SHA-256, where it is recorded."""
        return self.manifest.recorded if self.manifest else {}

    @property
    def parts(self) -> list[Part]:
        """The parts of the compaction that can be read."""
        parts = self.manifest.parts if self.manifest else ()
        return [p for p in parts if p.records not in self.damaged and includes(self.include, p.prompting)]

    @property
    def _has_older_parts(self) -> bool:
        return any(part.schema_version < RULED_VERSION for part in self.parts)

    @property
    def has_other_scores(self) -> bool:
        """Whether the matrix may show other scores than records store: rows of schema 6, or those of a judge."""
        return not self.has_ruled_parts or (self.filled and bool(self.listed["shards"]))

    @property
    def has_ruled_parts(self) -> bool:
        """Whether the matrix shows the scores that the files of compactions store."""
        return self.judge is None and not self._has_older_parts

    @property
    def is_small(self) -> bool:
        """Whether there are at most FEW_OBJECTS and, by the names of shards, FEW_ROWS."""
        if sum(map(len, self.listed.values())) > FEW_OBJECTS:
            return False
        shards = filter(None, map(ShardName.parse, self.listed["shards"]))
        return sum(s.last - s.first + 1 for s in shards) + sum(part.rows for part in self.parts) <= FEW_ROWS

    def view_files(self, *, live: bool = False) -> ViewFiles:
        """Returns the files for schemas.views. `live`: later shards are read, too, unless some must be passed over."""
        parts = self.parts
        compacted = {
            "compact/folded": [self.manifest.folded] if self.manifest else [],
            "compact/records": [part.records for part in parts],
            "compact/responses": [n for part in parts if (n := part.responses) and n not in self.damaged],
            "compact/older": [n for part in parts if (n := part.older) and n not in self.damaged],
        }
        primary = frozenset(part.records for part in parts if part.rows == part.primary_rows)
        # The shards of a lost part are read again, as far as they exist.
        lost = [name for name in self.damaged if layout.is_compacted(name)]
        listed = None if live and not (self.damaged or self.foreign) else self.listed
        manifest = self.manifest.name if self.manifest else ""
        older = self._has_older_parts
        # Bits stand for scores of 0 and 1 that all rows have.
        whole = {p.records: p.primary_rows // p.cells for p in parts if p.bits and p.schema_version >= RULED_VERSION}
        return ViewFiles(
            listed,
            compacted,
            primary,
            lost,
            self.include,
            manifest,
            self.absent,
            self.filled,
            older,
            whole,
            small=self.is_small,
        )


def read_holdings(
    lake: Lake, damaged: Mapping[str, str] | None = None, include: str = "all", *, shards: bool = True
) -> Holdings:
    """Lists the lake. `damaged` adds objects that the caller cannot read to those recorded as damaged.

    `include` is the kind of cells, a key of schemas.views.INCLUDED. Without `shards` these are not listed. Raises
    ConfigError if a migration has to run first.
    """
    holdings = read_unmigrated(lake, damaged, include, shards=shards)
    oldest = min((part.schema_version for part in holdings.parts), default=None)
    if oldest is None and first_readable() > OLDEST_VERSION and holdings.listed["shards"]:
        oldest = lake.first_version()
    if oldest is not None and oldest < first_readable():
        raise ConfigError(
            f"the records of {lake.uri} are of schema version {oldest}, and this program reads them once they are "
            "migrated: run compact.py, which writes them into a new compaction and changes no existing object"
        )
    return holdings


def read_unmigrated(
    lake: Lake, damaged: Mapping[str, str] | None = None, include: str = "all", *, shards: bool = True
) -> Holdings:
    """Lists the lake as read_holdings does, for a compaction, which migrates."""
    # Shards are listed before the manifest, so that a shard that is folded and pruned meanwhile is in the manifest.
    present = {table: lake.names(table) if shards or table != layout.SHARDS else [] for table in GLOBS}
    names = {table: [n for n in present[table] if layout.is_of_table(table, n)] for table in GLOBS}
    compactions = lake.names(layout.COMPACTIONS)
    manifest = _newest(lake, compactions)
    objects = {name for listed in (*present.values(), compactions) for name in listed}
    objects |= set() if shards else {SCHEMA_FILES[layout.SHARDS]}
    absent = frozenset(table for table in TABLES if SCHEMA_FILES[table] not in objects)
    recorded = manifest.recorded if manifest else {}
    bad = _in_use({**recorded_damage(lake, names["failures"], recorded), **(damaged or {})}, manifest)
    if manifest and manifest.folded in bad:
        raise _lost_list(lake, manifest, bad[manifest.folded])
    bad |= _parts_to_read_from_shards(lake, manifest, bad, set(names["shards"]) - bad.keys())
    absent |= {table for table in TABLES if SCHEMA_FILES[table] in bad}
    listed = {table: [name for name in names[table] if name not in bad] for table in GLOBS}
    _check_lists(lake, listed["shards"], listed[layout.ITEM_SETS], bad)
    listed["shards"] = [name for name in listed["shards"] if includes(include, name.rsplit("/", 1)[-1])]
    return Holdings(listed, manifest, bad, include, bool(lake.foreign), absent, bool(absent) or lake.is_older())


def _check_lists(lake: Lake, shards: Iterable[str], lists: Collection[str], damaged: Mapping[str, str]) -> None:
    """Raises StorageError if a shard that was not forgotten names a list that is not among `lists`, the sound ones.

    Without it nobody knows which items the shard shares with others, and their rows would count twice.
    """
    sound = set(lists)
    lost = {
        list_name: shard
        for name in shards
        if "-s" in name.rsplit("/", 1)[-1]  # no other shard has a list, and there may be a million
        and (shard := ShardName.parse(name))
        and shard.item_set
        and (list_name := layout.item_set_name(shard.item_set)) not in sound
    }
    retracted = read_retracted(lake) if lost else None
    for name, shard in sorted(lost.items()):
        if retracted and not retracted.covers(shard):
            reason = f"is damaged ({damaged[name]})" if name in damaged else "is missing"
            raise StorageError(
                f"{name} in {lake.uri} {reason}: without this list nobody knows the items of {shard}; "
                "put a whole copy in its place"
            )


def _parts_to_read_from_shards(
    lake: Lake, manifest: Manifest | None, damaged: Mapping[str, str], shards: set[str]
) -> dict[str, str]:
    """Returns part -> reason for parts with whole verdicts, but damaged objects beside them, whose shards all exist."""
    beside = {
        part.records: f"{name} beside it is damaged"
        for part in (manifest.parts if manifest else ())
        if part.records not in damaged
        for name in part.objects
        if name in damaged
    }
    if not beside or not manifest:
        return {}
    rows = read_folded(lake, manifest, columns=["part", "file"])
    return {part: why for part, why in beside.items() if all(r["file"] in shards for r in rows if r["part"] == part)}


def includes(include: str, identity: str) -> bool:
    """Whether `include`, a key of schemas.views.INCLUDED, has a cell id, a prompting or a shard's name."""
    return include == "all" or is_imported(identity) == (include == "imported")


def standing_damage(lake: Lake) -> dict[str, str]:
    """Returns damaged object -> reason, for objects in the lake's failures. It lists no shards."""
    manifest = newest_manifest(lake)
    recorded = manifest.recorded if manifest else {}
    return _in_use(recorded_damage(lake, lake.names(layout.FAILURES), recorded), manifest)


def _in_use(damaged: Mapping[str, str], manifest: Manifest | None) -> dict[str, str]:
    """Leaves out objects of older compactions: they were written again, and may be deleted."""
    named = {*SCHEMA_FILES.values(), *(manifest.objects if manifest else ())}
    return {name: why for name, why in damaged.items() if not layout.is_compacted(name) or name in named}


def committed(
    lake: Lake, retracted: Retracted | None = None, ever: Mapping[str, list[ShardName]] | None = None
) -> dict[str, list[ShardName]]:
    """Returns every committed shard by cell id, in name order, as the views read them. No shard is opened.

    Forgotten shards are left out. One with some forgotten items is cut: its pieces are not names of objects. `ever` are
    those of ever_committed, for a caller who has them.
    """
    retracted = read_retracted(lake) if retracted is None else retracted
    ever = ever_committed(lake) if ever is None else ever
    if not retracted.ranges:  # a list a cell takes a hundred bytes, and there may be a million
        return dict(ever)
    shards = {cell_id: retracted.without(names) for cell_id, names in ever.items()}
    return {cell_id: names for cell_id, names in shards.items() if names}


def ever_committed(lake: Lake) -> dict[str, list[ShardName]]:
    """Returns every committed shard by cell id, forgotten ones too, in name order."""
    shards: dict[str, list[ShardName]] = {}
    for name in _ever_named(lake):
        if shard := ShardName.parse(name):
            of_cell = shards.get(shard.cell_id)
            if of_cell is None:
                shards[shard.cell_id] = [shard]
            elif shard not in of_cell[-1:]:  # a folded one may still lie beside the compaction
                of_cell.append(shard)
    return {cell_id: names if len(names) == 1 else sorted(set(names)) for cell_id, names in shards.items()}


def _ever_named(lake: Lake) -> Iterator[str]:
    yield from (name for name in lake.names(layout.SHARDS) if layout.is_of_table(layout.SHARDS, name))
    if manifest := newest_manifest(lake):
        yield from folded_shards(lake, manifest)


def folded_shards(lake: Lake, manifest: Manifest) -> list[str]:
    """Returns the names of the shards that a compaction holds. Their objects may be deleted."""
    names: list[str] = _folded_table(lake, manifest, ["file"])["file"].to_pylist()
    return names


def read_folded(lake: Lake, manifest: Manifest, columns: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Returns a row of schemas.records.FOLDED_SHARD per shard that a compaction holds.

    Raises StorageError if the list is damaged: without it no reader knows which shards a part holds.
    """
    rows: list[dict[str, object]] = _folded_table(lake, manifest, columns).to_pylist()
    return rows


def _folded_table(lake: Lake, manifest: Manifest, columns: Sequence[str] | None) -> pa.Table:
    try:
        data = lake.read(manifest.folded)
        if reason := broken_seal(data, manifest.folded, manifest.folded_sha256):
            raise ValueError(reason)
        return pq.read_table(io.BytesIO(data), columns=columns, page_checksum_verification=True)
    except (FileNotFoundError, OSError, ValueError, pa.ArrowException) as error:
        raise _lost_list(lake, manifest, one_line(error)) from error


def _lost_list(lake: Lake, manifest: Manifest, reason: str) -> StorageError:
    return StorageError(
        f"{manifest.folded} in {lake.uri} is damaged ({reason}): put a whole copy in its place; if the shards in "
        f"shards/ still exist, you may remove it and {manifest.name} instead, and compact.py folds them again"
    )
