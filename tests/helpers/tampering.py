"""Ways to tamper with a published version, each of which `verify` has to name or refuse.

Owns the kinds. `signed` changes also change the manifest, as somebody does who passes a version on as whole. A version
that nobody can tell from one that was published so has another SHA-256 of its manifest, which people compare.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collectors.lake.layout import PUBLISHED_MANIFEST, manifest_name
from collectors.lake.seals import sealed_json

COMPACTION = manifest_name(1)
DEEP = b"[" * 100_000 + b"]" * 100_000


class Copy:
    """A copy of a version that may be changed: files are linked, and written anew where they change."""

    def __init__(self, version: Path, place: Path) -> None:
        self.folder = place / version.name
        self.outside = place / "outside"
        shutil.copytree(version, self.folder, copy_function=os.link)

    @property
    def manifest(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.read(PUBLISHED_MANIFEST))
        return value

    @property
    def compaction(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.read(COMPACTION))
        del value["seal"]
        return value

    @property
    def parts(self) -> list[str]:
        return [part["records"] for part in self.compaction["parts"]]

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def put(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data)

    def sign(self, name: str, data: bytes) -> None:
        """Puts a file and its SHA-256 in the manifest."""
        self.put(name, data)
        manifest = self.manifest
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        self.state(**manifest)

    def state(self, **values: Any) -> None:
        """Changes values of the manifest."""
        self.put(PUBLISHED_MANIFEST, json.dumps({**self.manifest, **values}).encode())

    def fold(self, **values: Any) -> None:
        """Changes values of the compaction's manifest, with seal and signature."""
        self.sign(COMPACTION, sealed_json({**self.compaction, **values}, COMPACTION))

    def fold_part(self, place: int = 0, **values: Any) -> None:
        parts = self.compaction["parts"]
        parts[place] |= values
        self.fold(parts=parts)

    def file_entry(self, old: str, new: str) -> None:
        """Renames a file in the manifest alone."""
        files = self.manifest["files"]
        files[new] = files.pop(old)
        self.state(files=files)


Kind = Callable[[Copy], None]
KINDS: dict[str, Kind] = {}


def kind(act: Kind) -> Kind:
    KINDS[act.__name__] = act
    return act


def _state(name: str, **values: Any) -> None:
    KINDS[name] = lambda copy: copy.state(**values)


def _stray(name: str, file: str, data: bytes = b"x") -> None:
    KINDS[name] = lambda copy: copy.put(file, data)


# ---- files that differ from the manifest

_stray("stray_beside_a_part", "compact/000001/task=t/note.txt")
_stray("stray_deep", "a/b/c/d/e/f/g/h/i/j/k/l/note.txt")
_stray("stray_hidden", "compact/.0123456789abcdef.tmp")
_stray("stray_named_as_a_probe", "probe-evil")
_stray("stray_name_with_a_control_character", "items/\x1b[2J.parquet")
_stray("stray_second_compaction", "compact/000002/manifest.json")
_stray("stray_shard", "shards/task=t/0123456789abcdef-g0-0000000-0000004.parquet")
_stray("stray_claim", "claim.json", b"{}")
_stray("stray_settings_of_git", ".gitattributes")


@kind
def bit_flipped(copy: Copy) -> None:
    data = bytearray(copy.read(copy.parts[0]))
    data[len(data) // 2] ^= 1
    copy.put(copy.parts[0], bytes(data))


@kind
def file_cut(copy: Copy) -> None:
    copy.put("views.sql", copy.read("views.sql")[:-1])


@kind
def file_extended(copy: Copy) -> None:
    copy.put("README.md", copy.read("README.md") + b"\n")


@kind
def file_missing(copy: Copy) -> None:
    (copy.folder / "views.sql").unlink()


@kind
def files_exchanged(copy: Copy) -> None:
    first, second = copy.parts[:2]
    one, other = copy.read(first), copy.read(second)
    copy.put(first, other)
    copy.put(second, one)


@kind
def file_is_a_link(copy: Copy) -> None:
    copy.outside.mkdir()
    shutil.move(copy.folder / copy.parts[0], copy.outside / "part")
    (copy.folder / copy.parts[0]).symlink_to(copy.outside / "part")


@kind
def folder_is_a_link(copy: Copy) -> None:
    shutil.move(copy.folder / "compact/000001", copy.outside)
    (copy.folder / "compact/000001").symlink_to(copy.outside)


@kind
def manifest_is_a_link(copy: Copy) -> None:
    shutil.move(copy.folder / PUBLISHED_MANIFEST, copy.outside)
    (copy.folder / PUBLISHED_MANIFEST).symlink_to(copy.outside)


@kind
def stray_link_to_a_folder(copy: Copy) -> None:
    (copy.folder / "shards/task=t").symlink_to("/")


@kind
def file_is_a_folder(copy: Copy) -> None:
    (copy.folder / "views.sql").unlink()
    (copy.folder / "views.sql").mkdir()


@kind
def file_is_a_pipe(copy: Copy) -> None:
    (copy.folder / "views.sql").unlink()
    os.mkfifo(copy.folder / "views.sql")


# ---- the manifest

_state("schema_version_of_the_future", schema_version=999)
_state("schema_version_as_text", schema_version="7")
_state("schema_version_true", schema_version=True)
_state("kind_of_another_program", kind="dataset")
_state("version_of_another_folder", version="9.9.9")
_state("version_is_a_path", version="../1.0.0")
_state("previous_is_a_path", previous={"version": "../../other", "manifest_sha256": "0" * 64})
_state("previous_is_a_text", previous="1.0.0")
_state("previous_without_a_digest", previous={"version": "1.0.0", "manifest_sha256": 5})
_state("files_is_a_list", files=[])
_state("files_is_empty", files={})
_state("counts_of_forecasts", counts={"forecasts": 5})
_state("counts_are_texts", counts={"records": "many"})


def _entry(name: str, **values: Any) -> None:
    def act(copy: Copy) -> None:
        files = copy.manifest["files"]
        files["views.sql"] |= values
        copy.state(files=files)

    KINDS[name] = act


_entry("bytes_is_a_text", bytes="many")
_entry("bytes_is_negative", bytes=-1)
_entry("bytes_is_wrong", bytes=1)
_entry("bytes_is_no_whole_number", bytes=1.5)
_entry("sha256_is_a_word", sha256="whole")
_entry("sha256_is_null", sha256=None)


def _renamed(name: str, new: Callable[[Copy], str]) -> None:
    KINDS[name] = lambda copy: copy.file_entry("views.sql", new(copy))


_renamed("name_above_the_folder", lambda copy: f"../{copy.folder.name}/views.sql")
_renamed("name_absolute", lambda copy: str(copy.folder / "views.sql"))
_renamed("name_with_a_dot", lambda copy: "./views.sql")
_renamed("name_with_two_slashes", lambda copy: "items//views.sql")
_renamed("name_with_a_backslash", lambda copy: "items\\views.sql")
_renamed("name_in_another_store", lambda copy: "s3://bucket/views.sql")
_renamed("name_of_the_manifest", lambda copy: PUBLISHED_MANIFEST)


@kind
def name_twice(copy: Copy) -> None:
    text = copy.read(PUBLISHED_MANIFEST).replace(b'"files": {', b'"files": {"views.sql": {"sha256": "", "bytes": 0}, ')
    assert text != copy.read(PUBLISHED_MANIFEST)
    copy.put(PUBLISHED_MANIFEST, text)


@kind
def counts_are_others(copy: Copy) -> None:
    copy.state(counts={**copy.manifest["counts"], "records": 750})


@kind
def empty_folder(copy: Copy) -> None:
    (copy.folder / "items" / "more").mkdir()


def _stated(name: str, part: str, change: Callable[[Any], Any]) -> None:
    def tamper(copy: Copy) -> None:
        provenance = copy.manifest["provenance"]
        copy.state(provenance={**provenance, part: change(provenance.get(part))})

    KINDS[name] = tamper


_stated("provenance_of_another_revision", "models", lambda rows: [{**rows[0], "revision": "f" * 40}, *rows[1:]])
_stated("provenance_without_a_model", "models", lambda rows: rows[1:])
_stated("provenance_of_another_day", "created", lambda day: "2020" + day[4:])
_stated("provenance_of_another_library", "versions", lambda rows: [{**rows[0], "lm_eval": "9.9"}, *rows[1:]])
_stated("provenance_of_an_import", "imports", lambda rows: [*rows, {"format": "table", "licence": "MIT"}])
_stated("provenance_of_a_run_twice", "runs", lambda rows: [*rows, rows[-1]])
_stated("provenance_that_is_deep", "versions", lambda _: json.loads("[" * 900 + "]" * 900))
_stated("provenance_of_a_strange_part", "approved_by", lambda rows: ["a university"])


@kind
def manifest_cut(copy: Copy) -> None:
    copy.put(PUBLISHED_MANIFEST, copy.read(PUBLISHED_MANIFEST)[:-9])


@kind
def manifest_not_text(copy: Copy) -> None:
    copy.put(PUBLISHED_MANIFEST, b"\xff\xfe{}")


@kind
def manifest_deep(copy: Copy) -> None:
    copy.put(PUBLISHED_MANIFEST, DEEP)
