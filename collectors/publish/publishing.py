"""Bringing a snapshot to where others find it, proving a copy, and comparing two.

Owns that a version never changes once its manifest is there, in a folder, an object store or on the Hugging Face hub.
Knows nothing of what is in a snapshot but its manifest.

In a store the order is: `claim.json` names the content that is coming, then the files, then the manifest. All are
created exclusively, so of two who publish the same version with other content one wins and the other is told; what was
killed goes on when it is published again. On the hub a version is a tag on one commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from collectors.lake.holdings import Holdings, Part, read_holdings
from collectors.lake.reading import open_store
from collectors.lake.store import Lake
from collectors.publish.snapshot import KIND, MANIFEST, Snapshot
from schemas.failures import ConfigError, StorageError, one_line
from schemas.views import lake_place

logger = logging.getLogger(__name__)

_CLAIM = "claim.json"
_HUB = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)/?")


def publish(
    snapshot: Snapshot, to: str, told: Callable[[int, int], None] = lambda done, files: None
) -> tuple[str, bool]:
    """Publishes below `to`, and returns the URI of the version, and whether it was not there before.

    `told` hears how many files of how many are there. Publishing the same content again changes nothing. Raises
    ConfigError where the version is there with other content or is being published by somebody else, StorageError when
    the place cannot be written, or when the version is there and is not whole.
    """
    if match := _HUB.fullmatch(to):
        return _publish_on_hub(snapshot, match["repo"])
    if to.startswith("hf://"):
        raise ConfigError(f"--to {to}: on the hub give hf://datasets/OWNER/NAME; the version becomes a tag there")
    store = Lake(f"{to.rstrip('/')}/{snapshot.version}")
    manifest = (snapshot.folder / MANIFEST).read_bytes()
    others = [name for name in store.names("") if not name.startswith("probe-")]
    begun = store.has(_CLAIM)  # looked for after the listing: it comes before the files, and goes after the manifest
    if store.has(MANIFEST):
        _check_same(store, MANIFEST, manifest, snapshot.version)
        if faults := verify(store.uri).faults:
            raise StorageError(
                f"version {snapshot.version} is published at {store.uri}, and is not whole any more ({faults[0]}): put "
                "a whole copy in its place, or remove it and publish again"
            )
        return store.uri, False
    if others and not begun:
        raise ConfigError(f"{store.uri} holds other things: give another --to or --version")
    store.probe()
    claim = json.dumps({"sha256 of the manifest": hashlib.sha256(manifest).hexdigest()}).encode()
    if not store.create(_CLAIM, claim):
        _check_same(store, _CLAIM, claim, snapshot.version)
    for number, name in enumerate(snapshot.files):
        data = (snapshot.folder / name).read_bytes()
        if not store.create(name, data) and store.read(name) != data:
            raise StorageError(f"{name} is at {store.uri} already and is not whole: remove it and publish again")
        told(number + 1, len(snapshot.files))
    if not store.create(MANIFEST, manifest):
        _check_same(store, MANIFEST, manifest, snapshot.version)
    store.remove([_CLAIM])
    return store.uri, True


def _check_same(store: Lake, name: str, ours: bytes, version: str) -> None:
    try:
        theirs = store.read(name)
    except FileNotFoundError:  # a claim: the version was completed in this moment
        theirs = ours
    if theirs != ours:
        what = "is published" if name == MANIFEST else "is being published, or was begun,"
        raise ConfigError(
            f"version {version} {what} at {store.uri} with other content, and a version never changes: "
            "give another with --version"
        )


# ---- the hub


def _publish_on_hub(snapshot: Snapshot, repo: str) -> tuple[str, bool]:
    """One commit that holds the snapshot and nothing else, then the tag that makes it a version."""
    api, uri = HfApi(), f"hf://datasets/{repo}@{snapshot.version}"
    with _hub_errors(repo):
        api.create_repo(repo, repo_type="dataset", exist_ok=True)
        refs = api.list_repo_refs(repo, repo_type="dataset")
        if any(tag.name == snapshot.version for tag in refs.tags):
            _check_same(Lake(uri), MANIFEST, (snapshot.folder / MANIFEST).read_bytes(), snapshot.version)
            return uri, False
        names = [*snapshot.files, MANIFEST]
        old = set(api.list_repo_files(repo, repo_type="dataset")) - {*names, ".gitattributes"}
        add = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=snapshot.folder / name) for name in names]
        delete = [CommitOperationDelete(path_in_repo=name) for name in sorted(old)]
        message = f"Version {snapshot.version}"
        # On what was seen: a commit of somebody else in between would leave files here that are not of this version.
        head = next((branch.target_commit for branch in refs.branches if branch.name == "main"), None)
        commit = api.create_commit(
            repo, [*add, *delete], commit_message=message, repo_type="dataset", parent_commit=head
        )
        try:
            api.create_tag(repo, tag=snapshot.version, revision=commit.oid, repo_type="dataset")
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code != 409:
                raise
            _check_same(Lake(uri), MANIFEST, (snapshot.folder / MANIFEST).read_bytes(), snapshot.version)
    return uri, True


@contextlib.contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    try:
        yield
    except HFValidationError as error:
        raise ConfigError(f"--to: {one_line(error)}") from error
    except (HfHubHTTPError, OSError, RuntimeError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        advice = "; see HF_TOKEN, and whether it may write there" if status in (401, 403) else ""
        if isinstance(error, RepositoryNotFoundError):
            advice = "; the hub does not show it to you: see HF_TOKEN"
        raise StorageError(f"cannot publish to the data set {repo} on the hub: {one_line(error)}{advice}") from error


# ---- proving a copy


def open_published(uri: str) -> tuple[Lake, dict[str, Any]]:
    """A published version and its manifest. Raises ConfigError where there is none."""
    store = Lake(uri)
    try:
        manifest = json.loads(store.read(MANIFEST))
        if manifest["kind"] != KIND or not all(
            {"sha256", "bytes"} <= fact.keys() for fact in manifest["files"].values()
        ):
            raise ValueError(manifest["kind"])
    except FileNotFoundError as error:
        raise ConfigError(f"no snapshot at {uri}: there is no {MANIFEST}; give the place of one version") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{MANIFEST} at {uri} is not that of a snapshot") from error
    return store, manifest


@dataclass(frozen=True)
class Proof:
    files: int
    bytes: int
    #: One line for each file that is missing, has another content, or does not belong there.
    faults: list[str]
    #: Of the manifest itself: what a copy is compared with, because everything else hangs on it.
    manifest_sha256: str


def verify(uri: str, told: Callable[[int, int], None] = lambda done, files: None) -> Proof:
    """Reads every file that the manifest at `uri` names and compares its SHA-256; names files that it does not know."""
    store, manifest = open_published(uri)
    files: dict[str, dict[str, Any]] = manifest["files"]
    faults = []
    for number, (name, fact) in enumerate(files.items()):
        try:
            data = store.read(name)
            if hashlib.sha256(data).hexdigest() != fact["sha256"]:
                faults.append(
                    f"{name}: {len(data):,} bytes that are not those of the manifest ({fact['bytes']:,} bytes)"
                )
        except FileNotFoundError:
            faults.append(f"{name}: missing")
        told(number + 1, len(files))
    known = {*files, MANIFEST, _CLAIM, ".gitattributes"}
    faults += [
        f"{name}: not part of the snapshot"
        for name in store.names("", depth=10)
        if name not in known and not name.startswith("probe-")
    ]
    sha256 = hashlib.sha256(store.read(MANIFEST)).hexdigest()
    return Proof(len(files), sum(fact["bytes"] for fact in files.values()), faults, sha256)


# ---- comparing two


@dataclass(frozen=True)
class Difference:
    """Records of one model on one task that only the second holds, only the first, or both with another verdict."""

    task: str
    model: str
    came: int
    went: int
    changed: int


_COMPARED = ("score", "correct", "failure", "prompt_tokens", "completion_tokens", "finish_reason", "metrics")

_DIFFERENCES = """
SELECT
    coalesce(a.model, b.model),
    count(*) FILTER (a.cell_id IS NULL),
    count(*) FILTER (b.cell_id IS NULL),
    count(*) FILTER (a.cell_id = b.cell_id AND ({changed}))
FROM read_parquet($first, hive_partitioning = false) AS a
FULL JOIN read_parquet($second, hive_partitioning = false) AS b
    ON a.cell_id = b.cell_id AND a.item = b.item AND a.filter = b.filter AND a.repeat = b.repeat
GROUP BY ALL
HAVING count(*) FILTER (a.cell_id IS NULL OR b.cell_id IS NULL OR {changed}) > 0
ORDER BY ALL
"""


def differences(first: str, second: str) -> list[Difference]:
    """What came, went and changed from one published version to another, by task and model.

    Files that both hold byte for byte are not read. Raises ConfigError or StorageError for what is no snapshot.
    """
    sides = [_side(uri) for uri in (first, second)]
    found = []
    with contextlib.closing(duckdb.connect()) as con:
        for store, _, _ in sides:
            with contextlib.suppress(duckdb.CatalogException):  # the second of two in the same store
                open_store(con, store)
        for task in sorted({part.task for _, holdings, _ in sides for part in holdings.parts}):
            files = [_files_of(task, *side) for side in sides]
            same = files[0].keys() & files[1].keys()
            paths = [
                [f"{lake_place(store.uri)}/compact/records/schema.parquet"]
                + [p for sha, p in of.items() if sha not in same]
                for of, (store, _, _) in zip(files, sides, strict=True)
            ]
            if len(paths[0]) + len(paths[1]) == 2:
                continue
            changed = " OR ".join(f"a.{name} IS DISTINCT FROM b.{name}" for name in _COMPARED)
            try:
                rows = con.execute(
                    _DIFFERENCES.format(changed=changed), {"first": paths[0], "second": paths[1]}
                ).fetchall()
            except duckdb.Error as error:
                raise StorageError(f"cannot compare {first} and {second}: {one_line(error)}") from error
            found += [Difference(task, *row) for row in rows]
    return found


def _side(uri: str) -> tuple[Lake, Holdings, dict[str, Any]]:
    store, manifest = open_published(uri)
    return store, read_holdings(store), manifest


def _files_of(task: str, store: Lake, holdings: Holdings, manifest: dict[str, Any]) -> dict[str, str]:
    """SHA-256 -> path of the files with a task's records."""
    parts: list[Part] = [part for part in holdings.parts if part.task == task]
    return {manifest["files"][part.records]["sha256"]: f"{lake_place(store.uri)}/{part.records}" for part in parts}
