"""Fetched models on this machine's disk: each downloaded once, kept up to a quota, and left alone while one is in use.

Owns the record of what was fetched, beside the caches that hold the files (huggingface_hub's, and collectors.catalog's
of folders at URIs), and the locks by which processes of one machine agree. A lock is the system's: it goes with the
process that held it, however that ended. Models that are folders here are nobody's to delete. Knows nothing of engines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from collectors.catalog import cache_dir, fetch
from collectors.engines import ModelRef
from collectors.model_facts import WEIGHTS
from collectors.outages import may_mend
from schemas.failures import UnreachableError, one_line
from schemas.identity import safe_name

logger = logging.getLogger(__name__)

GIB = 2**30


@dataclass
class Held:
    """A model with its files on this machine, which stay until it is released."""

    model: ModelRef
    _lock: int | None = None

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Weights:
    """Hands out models and deletes, beyond `quota_gib` of fetched files, those that were used longest ago.

    The quota is looked at after each download: until then the model that is fetched comes on top. None: no quota.
    """

    def __init__(self, quota_gib: float | None = None) -> None:
        self._quota = None if quota_gib is None else int(quota_gib * GIB)

    def take(self, model: ModelRef) -> Held:
        """Raises what collectors.catalog.fetch raises. One process fetches a model, the others wait for it."""
        if model.path is not None:
            return Held(fetch(model))
        record = cache_dir("weights") / f"{_name(model.source, model.revision)}.json"
        lock = _lock(record.with_suffix(".used"), fcntl.LOCK_SH)
        try:
            with FileLock(record.with_suffix(".lock")):
                fetched = self._fetch(model, record)
        except BaseException as error:
            os.close(lock)
            if isinstance(error, OSError) and may_mend(error):  # a full disk, at the record itself
                raise UnreachableError(
                    f"model {model.name!r} cannot be kept now: {one_line(error)}", "hub_down"
                ) from error
            raise
        return Held(fetched, lock)

    def _fetch(self, model: ModelRef, record: Path) -> ModelRef:
        known = _read(record)
        if known and _is_whole(known) and "://" not in model.source:  # of those the contents are proven, by fetch
            os.utime(record)
            return dataclasses.replace(model, path=known["path"])
        is_ours = record.exists() or not _in_hub_cache(model)
        if is_ours:
            record.touch()  # of a download that breaks off here, too
        fetched = fetch(model)
        if is_ours:  # else somebody else has put it there, and may want it still
            files = {str(f.relative_to(fetched.path or "")): f.stat().st_size for f in _files(Path(fetched.path or ""))}
            facts = {"source": model.source, "revision": model.revision, "path": fetched.path, "files": files}
            record.write_text(json.dumps(facts), encoding="utf-8")
            self._keep_quota()
        return fetched

    def _keep_quota(self) -> None:
        if self._quota is None:
            return
        folder = cache_dir("weights")
        with FileLock(folder / "quota.lock"):
            records = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            known = {record: facts for record in records if (facts := _read(record))}
            left = sum(sum(facts["files"].values()) for facts in known.values())
            for record, facts in known.items():
                if left <= self._quota:
                    return
                with _unused(record.with_suffix(".used")) as unused:
                    if unused:
                        _delete(facts)
                        record.unlink(missing_ok=True)
                        size = sum(facts["files"].values())
                        left -= size
                        logger.info("deleted %s, %.1f GiB: fleet.disk_gib is reached", facts["source"], size / GIB)
        if left > self._quota:
            logger.warning("fetched models take %.1f GiB, more than fleet.disk_gib: all are in use", left / GIB)


def _lock(path: Path, kind: int) -> int:
    """A lock on `path` that lasts until the file is closed; waited for, unless `kind` says not to (BlockingIOError)."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _unused(path: Path) -> Iterator[bool]:
    """Whether no process uses the model of this lock; none begins to inside the block."""
    try:
        descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(descriptor)


def _name(source: str, revision: str) -> str:
    """Of a record: by what is fetched, for of two names for it each would delete what the other one uses."""
    return f"{safe_name(source)}-{safe_name(revision)}"


def _read(record: Path) -> dict[str, Any] | None:
    """What was fetched; None where nothing was, or the record is damaged: it is fetched anew then."""
    try:
        text = record.read_bytes()
    except FileNotFoundError:
        return None
    if not text:  # of a download that broke off
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if _is_record(value) and record.stem == _name(value["source"], value["revision"]):
        return dict(value)
    logger.warning("%s is damaged: its model counts as not fetched", record)
    return None


def _is_record(value: Any) -> bool:
    if not isinstance(value, dict) or any(type(value.get(key)) is not str for key in ("source", "revision", "path")):
        return False
    files = value.get("files")
    return isinstance(files, dict) and bool(files) and all(type(size) is int and size >= 0 for size in files.values())


def _is_whole(facts: dict[str, Any]) -> bool:
    """Whether all files are there in the size in which they were fetched."""
    try:
        return all((Path(facts["path"]) / name).stat().st_size == size for name, size in facts["files"].items())
    except (OSError, ValueError):  # not there, or no path at all
        return False


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _in_hub_cache(model: ModelRef) -> bool:
    """Whether weights of a hub repo lie in the client's cache already."""
    if "://" in model.source:
        return False
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model.source, revision=model.revision, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return False
    return any(file.suffix in WEIGHTS for file in _files(folder))


def _delete(facts: dict[str, Any]) -> None:
    """The files of a fetched model: from the hub client's cache without what its other revisions share."""
    folder = Path(facts["path"])
    if "://" in facts["source"]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f"{folder.name}.fingerprint").unlink(missing_ok=True)
        return
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        scan_cache_dir(folder.parents[2]).delete_revisions(facts["revision"]).execute()
    except (CacheNotFound, OSError) as error:
        logger.warning("%s could not be deleted: %s", folder, one_line(error))
