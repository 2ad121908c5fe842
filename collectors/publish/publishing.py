"""Publishes a version, and compares two versions.

Owns the guarantee that a version never changes once its manifest is written, in a folder, an object store or on the
Hugging Face hub. Knows nothing of a version's contents except its manifest, and of verifying a copy
(collectors.publish.verifying).

In a store `claim.json`, with the digest of the content, comes first, then the files, then the manifest. All are created
exclusively: if two publish the same version with different content, one succeeds and the other gets an error. Publish
again after a crash to continue. On the hub a version is a tag on one commit.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from collectors.lake.holdings import Holdings, Part, read_holdings
from collectors.lake.layout import PUBLISHED_MANIFEST, PUBLISHING, is_probe
from collectors.lake.reading import open_store
from collectors.lake.retractions import read_retracted
from collectors.lake.retrying import may_mend
from collectors.lake.store import Lake
from collectors.publish.manifests import open_published
from collectors.publish.verifying import claim, verify
from collectors.publish.version import PublishedVersion
from schemas.failures import ConfigError, RouterlakeError, StorageError, UnreachableError, one_line
from schemas.records import SCHEMA_FILES
from schemas.views import lake_place

logger = logging.getLogger(__name__)

_HUB = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)/?")


def publish(
    built: PublishedVersion, to: str, progress: Callable[[int, int], None] = lambda done, files: None
) -> tuple[str, bool]:
    """Publishes a version below `to`. Returns its URI, and True if it is new.

    `progress` gets the numbers of written files and of all files. Publishing the same content again changes nothing.
    Raises ConfigError if the version exists with other content or somebody else is publishing it, StorageError if the
    target cannot be written or the existing version is not whole.
    """
    if match := _HUB.fullmatch(to):
        return _publish_on_hub(built, match["repo"])
    if to.startswith("hf://"):
        raise ConfigError(f"--to {to}: on the hub give hf://datasets/OWNER/NAME; the version becomes a tag there")
    store = Lake(f"{to.rstrip('/')}/{built.version}")
    manifest = built.manifest_bytes
    others = [name for name in store.names("") if not is_probe(name)]
    # Checked after the listing: the claim is written before the files and removed after the manifest.
    begun = store.has(PUBLISHING)
    if store.has(PUBLISHED_MANIFEST):
        _check_same(store, PUBLISHED_MANIFEST, manifest, built.version)
        if faults := verify(store.uri).faults:
            raise StorageError(
                f"version {built.version} is published at {store.uri} but not whole any more ({faults[0]}): replace "
                "it with a whole copy, or remove it and publish again"
            )
        return store.uri, False
    if others and not begun:
        raise ConfigError(f"{store.uri} holds other files: give another --to or --version")
    store.probe()
    mine = claim(built.manifest_sha256)
    if not store.create(PUBLISHING, mine):
        _check_same(store, PUBLISHING, mine, built.version)
    for number, name in enumerate(built.files):
        data = (built.folder / name).read_bytes()
        if not store.create(name, data) and store.read(name) != data:
            raise StorageError(f"{name} is at {store.uri} already and is not whole: remove it and publish again")
        progress(number + 1, len(built.files))
    if not store.create(PUBLISHED_MANIFEST, manifest):
        _check_same(store, PUBLISHED_MANIFEST, manifest, built.version)
    store.remove([PUBLISHING])
    return store.uri, True


def _check_same(store: Lake, name: str, ours: bytes, version: str) -> None:
    try:
        theirs = store.read(name)
    except FileNotFoundError:  # the other publisher has just removed its claim, and the manifest decides
        theirs = ours
    if theirs != ours:
        what = "is published" if name == PUBLISHED_MANIFEST else "is being published, or was partly published,"
        raise ConfigError(
            f"version {version} {what} at {store.uri} with other content, and a version never changes: "
            "give another with --version"
        )


# ---- the hub


def _publish_on_hub(built: PublishedVersion, repo: str) -> tuple[str, bool]:
    """Makes one commit with the files of the version and no others, then tags it."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi  # 0.2 s
    from huggingface_hub.errors import HfHubHTTPError

    api, uri = HfApi(), f"hf://datasets/{repo}@{built.version}"
    with _hub_errors(repo):
        api.create_repo(repo, repo_type="dataset", exist_ok=True)
        refs = api.list_repo_refs(repo, repo_type="dataset")
        if any(tag.name == built.version for tag in refs.tags):
            _check_same(Lake(uri), PUBLISHED_MANIFEST, built.manifest_bytes, built.version)
            return uri, False
        names = [*built.files, PUBLISHED_MANIFEST]
        old = set(api.list_repo_files(repo, repo_type="dataset")) - {*names, ".gitattributes"}
        add = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=built.folder / name) for name in names]
        delete = [CommitOperationDelete(path_in_repo=name) for name in sorted(old)]
        message = f"Version {built.version}"
        # The parent is the commit that was listed: a commit by somebody else in between could add foreign files.
        head = next((branch.target_commit for branch in refs.branches if branch.name == "main"), None)
        commit = api.create_commit(
            repo, [*add, *delete], commit_message=message, repo_type="dataset", parent_commit=head
        )
        try:
            api.create_tag(repo, tag=built.version, revision=commit.oid, repo_type="dataset")
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code != 409:
                raise
            _check_same(Lake(uri), PUBLISHED_MANIFEST, built.manifest_bytes, built.version)
    return uri, True


@contextlib.contextmanager
def _hub_errors(repo: str) -> Iterator[None]:
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        yield
    except HFValidationError as error:
        raise ConfigError(f"--to: {one_line(error)}") from error
    except RouterlakeError:
        raise
    except Exception as error:  # a hub that is away: httpx has error types of its own
        status = getattr(getattr(error, "response", None), "status_code", None)
        advice = "; see HF_TOKEN, and whether it may write there" if status in (401, 403) else ""
        if isinstance(error, RepositoryNotFoundError):
            advice = "; the hub does not show it to you: see HF_TOKEN"
        kind = UnreachableError if may_mend(error) else StorageError
        raise kind(f"cannot publish to the data set {repo} on the hub: {one_line(error)}{advice}") from error


# ---- comparing two


@dataclass(frozen=True)
class Difference:
    """Numbers of records that differ between two versions, for one model and task."""

    task: str
    model: str
    #: Records of the second version alone.
    came: int
    #: Records of the first version alone, and how many of them the second one retracted.
    went: int
    retracted: int
    #: Records of both versions that differ in a column of _COMPARED.
    changed: int


_COMPARED = ("score", "correct", "failure", "prompt_tokens", "completion_tokens", "finish_reason", "metrics")

_RETRACTED = """EXISTS (
    FROM retracted
    WHERE retracted.cell_id = a.cell_id AND a.generation <= retracted.generation
        AND a.item BETWEEN retracted.first AND retracted.last
)"""

_DIFFERENCES = """
SELECT
    coalesce(a.model, b.model),
    count(*) FILTER (a.cell_id IS NULL),
    count(*) FILTER (b.cell_id IS NULL),
    count(*) FILTER (b.cell_id IS NULL AND a.is_retracted),
    count(*) FILTER (a.cell_id = b.cell_id AND ({changed}))
FROM (SELECT *, {retracted_by} AS is_retracted FROM read_parquet($first, hive_partitioning = false) AS a) AS a
FULL JOIN read_parquet($second, hive_partitioning = false) AS b
    ON a.cell_id = b.cell_id AND a.item = b.item AND a.filter = b.filter AND a.repeat = b.repeat
GROUP BY ALL
HAVING count(*) FILTER (a.cell_id IS NULL OR b.cell_id IS NULL OR {changed}) > 0
ORDER BY ALL
"""


def differences(first: str, second: str) -> list[Difference]:
    """The differences from one published version to another, by task and model.

    Files that are equal byte for byte are not read. Raises ConfigError if a URI is not a version, StorageError if a
    version cannot be read.
    """
    sides = [_side(uri) for uri in (first, second)]
    changes = []
    with contextlib.closing(duckdb.connect()) as con:
        for store, _, _ in sides:
            with contextlib.suppress(duckdb.CatalogException):  # both versions are in the same store
                open_store(con, store)
        retracted = read_retracted(sides[1][0]).as_table()
        con.register("retracted", retracted)
        for task in sorted({part.task for _, holdings, _ in sides for part in holdings.parts}):
            files = [_files_of(task, *side) for side in sides]
            same = files[0].keys() & files[1].keys()
            paths = [
                [f"{lake_place(store.uri)}/{SCHEMA_FILES['compact/records']}"]
                + [path for sha, path in side_files.items() if sha not in same]
                for side_files, (store, _, _) in zip(files, sides, strict=True)
            ]
            if len(paths[0]) + len(paths[1]) == 2:
                continue
            retracted_by = _RETRACTED if len(retracted) else "false"
            changed = " OR ".join(f"a.{name} IS DISTINCT FROM b.{name}" for name in _COMPARED)
            try:
                rows = con.execute(
                    _DIFFERENCES.format(changed=changed, retracted_by=retracted_by),
                    {"first": paths[0], "second": paths[1]},
                ).fetchall()
            except duckdb.Error as error:
                raise StorageError(f"cannot compare {first} and {second}: {one_line(error)}") from error
            changes += [Difference(task, *row) for row in rows]
    return changes


def _side(uri: str) -> tuple[Lake, Holdings, dict[str, Any]]:
    store, manifest = open_published(uri)
    return store, read_holdings(store), manifest


def _files_of(task: str, store: Lake, holdings: Holdings, manifest: dict[str, Any]) -> dict[str, str]:
    """SHA-256 -> path, for the files with a task's records."""
    parts: list[Part] = [part for part in holdings.parts if part.task == task]
    return {manifest["files"][part.records]["sha256"]: f"{lake_place(store.uri)}/{part.records}" for part in parts}
