"""Keeps fetched models on this machine's disk: downloads each one once, and deletes unused ones beyond a quota.

Owns a record of each fetched model, and the locks that the processes of one machine share. The files themselves are in
the cache of huggingface_hub or, for folders at URIs, of collectors.models.pinning. The system drops a lock when its
process ends, however that happens. A model that is a folder on this machine is never deleted. Knows nothing of engines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from collectors.cache import cache_dir
from collectors.engines import ModelRef
from collectors.lake.retrying import is_full, may_mend
from collectors.models.model_files import WEIGHTS
from collectors.models.pinning import fetch
from schemas.failures import DISK_FULL, ConfigError, UnreachableError, one_line
from schemas.identity import safe_name

logger = logging.getLogger(__name__)

GIB = 2**30

#: Environment variable of a node: GiB of fetched models that it keeps, where the config gives none.
DISK = "ROUTERLAKE_DISK_GIB"
#: Share of a disk's free space, with what fetched models take of it, that these may take. The rest is for the next one.
DISK_SHARE = 0.8


@dataclass
class Held:
    """A model whose files stay on this machine until it is released."""

    model: ModelRef
    _lock: int | None = None

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Weights:
    """Hands out models, and deletes those used longest ago when fetched files take more than `quota_gib`.

    The quota is enforced after each download, so a download may exceed it for a while. None: $ROUTERLAKE_DISK_GIB, else
    DISK_SHARE of the disk's room for them. `passing` surrounds each download. Raises ConfigError if the variable is
    not a number.
    """

    def __init__(
        self,
        quota_gib: float | None = None,
        passing: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        if quota_gib is None and (text := os.environ.get(DISK)):
            try:
                quota_gib = float(text)
            except ValueError as error:
                raise ConfigError(f"{DISK}={text!r} is not a number of GiB") from error
        self._quota = None if quota_gib is None else int(quota_gib * GIB)
        self._passing = passing

    def take(self, model: ModelRef) -> Held:
        """Fetches a model and holds it. One process fetches it while others that need it wait.

        Raises ModelError and UnreachableError, as collectors.models.pinning.fetch does.
        """
        if model.path is not None:
            return Held(fetch(model))
        record = cache_dir("weights") / f"{_name(model.source, model.revision)}.json"
        lock = _lock(record.with_suffix(".used"), fcntl.LOCK_SH)
        try:
            with FileLock(record.with_suffix(".lock")):
                fetched = self._fetch(model, record)
        except BaseException as error:
            os.close(lock)
            if is_full(error):  # the next try has more room
                self._keep_quota(0)
            if isinstance(error, OSError) and may_mend(error):  # the disk was too full for the record itself
                raise UnreachableError(
                    f"model {model.name!r} cannot be kept on {platform.node()}: {one_line(error)}",
                    DISK_FULL if is_full(error) else "hub_down",
                ) from error
            raise
        return Held(fetched, lock)

    def _fetch(self, model: ModelRef, record: Path) -> ModelRef:
        entry = _read(record)
        if entry and _is_whole(entry) and "://" not in model.source:  # fetch() checks the contents of folders at URIs
            os.utime(record)
            return dataclasses.replace(model, path=entry["path"])
        is_ours = record.exists() or not _in_hub_cache(model)
        if is_ours:
            record.touch()  # so that the files are ours even if the download breaks off
        with self._passing():
            fetched = fetch(model)
        if is_ours:  # else another program put it into the hub's cache, and may still need it
            files = {str(f.relative_to(fetched.path or "")): f.stat().st_size for f in _files(Path(fetched.path or ""))}
            entry = {"source": model.source, "revision": model.revision, "path": fetched.path, "files": files}
            record.write_text(json.dumps(entry), encoding="utf-8")
            self._keep_quota()
        return fetched

    def _keep_quota(self, quota: int | None = None) -> None:
        """Deletes unused models until the others take at most `quota` bytes. None: the quota of this object."""
        folder = cache_dir("weights")
        with FileLock(folder / "quota.lock"):
            records = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            entries = {record: entry for record in records if (entry := _read(record))}
            left = sum(sum(entry["files"].values()) for entry in entries.values())
            free = shutil.disk_usage(folder).free
            most = next((one for one in (quota, self._quota) if one is not None), int(DISK_SHARE * (free + left)))
            for record, entry in entries.items():
                if left <= most:
                    return
                with _unused(record.with_suffix(".used")) as unused:
                    if unused:
                        _delete(entry)
                        record.unlink(missing_ok=True)
                        size = sum(entry["files"].values())
                        left -= size
                        logger.info("deleted %s (%.1f GiB) to leave room on the disk", entry["source"], size / GIB)
        if left > most:
            logger.warning("fetched models take %.1f GiB, more than they may: all are in use", left / GIB)


def _lock(path: Path, kind: int) -> int:
    """Locks `path` and returns its descriptor; closing it ends the lock.

    Waits for the lock, or raises BlockingIOError if `kind` contains LOCK_NB.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def _unused(path: Path) -> Iterator[bool]:
    """Yields whether no process uses the model of this lock. If so, none can start to inside the block."""
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
    """The name of a record. Two records of the same files would each delete the files that the other one keeps."""
    return f"{safe_name(source)}-{safe_name(revision)}"


def _read(record: Path) -> dict[str, Any] | None:
    """Reads a record. None if there is none, it is damaged, or its download broke off: the model is fetched again."""
    try:
        text = record.read_bytes()
    except FileNotFoundError:
        return None
    if not text:  # a download broke off
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if _is_record(value) and record.stem == _name(value["source"], value["revision"]):
        return dict(value)
    logger.warning("%s is damaged: its model will be fetched again", record)
    return None


def _is_record(value: Any) -> bool:
    if not isinstance(value, dict) or any(type(value.get(key)) is not str for key in ("source", "revision", "path")):
        return False
    files = value.get("files")
    return isinstance(files, dict) and bool(files) and all(type(size) is int and size >= 0 for size in files.values())


def _is_whole(entry: dict[str, Any]) -> bool:
    """Whether all files of a record exist in their recorded sizes."""
    try:
        return all((Path(entry["path"]) / name).stat().st_size == size for name, size in entry["files"].items())
    except (OSError, ValueError):  # a missing file, or a name that no path can have
        return False


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _in_hub_cache(model: ModelRef) -> bool:
    """Whether the hub client's cache already has weights of this model's repo and revision."""
    if "://" in model.source:
        return False
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model.source, revision=model.revision, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return False
    return any(file.suffix in WEIGHTS for file in _files(folder))


def _delete(entry: dict[str, Any]) -> None:
    """Deletes the files of a fetched model, except those that other revisions in the hub client's cache share."""
    folder = Path(entry["path"])
    if "://" in entry["source"]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f"{folder.name}.fingerprint").unlink(missing_ok=True)
        return
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        scan_cache_dir(folder.parents[2]).delete_revisions(entry["revision"]).execute()
    except (CacheNotFound, OSError) as error:
        logger.warning("%s could not be deleted: %s", folder, one_line(error))
