"""Pins models to revisions and fetches their files to this machine.

Owns the identity of a model: the commit of a hub repo, the fingerprint of a folder's files, or the digest of a remote
folder's listing. Knows nothing of engines or tasks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock

from collectors.atomic import replacing
from collectors.cache import cache_dir
from collectors.engines import ModelRef
from collectors.engines.weight_files import unloaded_files, weight_files
from collectors.lake.retrying import is_full, may_mend
from collectors.models.hub_repos import fetch_hub, resolve_hub
from collectors.models.model_files import (
    SUFFIXES,
    WEIGHTS,
    own_dtype,
    own_length,
    parse_config,
    read_config,
    section,
)
from collectors.specs import ModelSpec, is_folder
from schemas.failures import DISK_FULL, ModelError, RouterlakeError, UnreachableError, one_line
from schemas.identity import digest, safe_name

logger = logging.getLogger(__name__)

#: Small files of a model folder that no tokenizer opens.
_NO_TOKENIZER = ("config.json", "generation_config.json", "trainer_state.json", "all_results.json", "eval_results.json")
#: Where transformers keeps chat templates with names.
_TEMPLATES = "additional_chat_templates"


def resolve(spec: ModelSpec, dtype: str, max_length: int | None = None, config_json: str | None = None) -> ModelRef:
    """Pins `spec` to a revision. Downloads no weights.

    `dtype` and `max_length` are the run's, for a spec that has none. The dtype "auto" becomes the one in config.json,
    so that no identity contains "auto"; a max_length beyond the model's own becomes the model's own. `config_json` is
    the config.json of a hub repo at the commit that `spec` names; with it the hub is not asked. Raises ModelError of
    kind not_found, gated, no_weights or bad_model.
    """
    with _as_written(spec.place, spec.source):
        return _resolve(spec, dtype, max_length, config_json)


def _resolve(spec: ModelSpec, dtype: str, max_length: int | None, config_json: str | None) -> ModelRef:
    place = spec.place
    if config_json is not None:
        revision, config, path = str(spec.revision), parse_config(config_json.encode(), spec.source), None
    elif "://" in place:
        revision, config, path = _resolve_uri(place)
    elif is_folder(place):
        folder = Path(os.path.expanduser(place)).absolute()
        revision, config, path = fingerprint(folder), read_config(folder), str(folder)
    else:
        revision, config, path = resolve_hub(spec)
    return ModelRef(
        name=spec.label,
        source=place if path is None else path,
        written=spec.source if "$" in spec.source else None,
        revision=revision,
        path=path,
        dtype=_dtype(spec.dtype or dtype, config),
        quantization=spec.quantization or _method(config),
        max_length=_max_length(spec.max_length or max_length, config),
        trust_remote_code=spec.trust_remote_code,
        options=dict(spec.engine),
        has_row=config_json is not None,
    )


def fetch(model: ModelRef) -> ModelRef:
    """Fetches the files of `model` to this machine's disk and checks that they are the planned revision.

    Returns `model` with its path. Raises ModelError, or UnreachableError of kind hub_down when the source does not
    answer, of kind disk_full when the disk is full.
    """
    with _as_written(model.source, model.named_source):
        return _fetch(model)


@contextlib.contextmanager
def _as_written(place: str, written: str) -> Iterator[None]:
    """Names the model in errors as the config does: a value from the environment may be a key."""
    try:
        yield
    except RouterlakeError as error:
        if written == place:
            raise
        raise type(error)(str(error).replace(place, written), error.kind) from None


def _fetch(model: ModelRef) -> ModelRef:
    if model.path is not None:
        if (now := fingerprint(Path(model.path))) != model.revision:
            raise ModelError(
                f"{model.path} changed since the run was planned ({model.revision} → {now})", "model_changed"
            )
        return model
    try:
        path = _fetch_uri(model) if "://" in model.source else fetch_hub(model)
    except ModelError as error:
        if error.kind == "not_found" and may_mend(error.__cause__):
            if is_full(error):
                message = f"model {model.name!r} cannot be fetched: the disk of {platform.node()} is full: {error}"
                raise UnreachableError(message, DISK_FULL) from error
            raise UnreachableError(f"model {model.name!r} cannot be fetched now: {error}", "hub_down") from error
        raise
    return ModelRef(**{**vars(model), "path": path})


# ---- folders


#: Seconds between two lines about a fingerprint: 5 GiB take about ten.
PROGRESS_SECONDS = 5.0
_BLOCK = 4 * 2**20


def fingerprint(folder: Path) -> str:
    """Digest of the names and SHA-256 of a folder's config, tokenizer, weight and code files.

    Raises ModelError of kind not_found when the folder is missing, no_weights when it has no weight files, and
    bad_model when a file cannot be read.
    """
    if not folder.is_dir():
        raise ModelError(f"no folder {folder}", "not_found")
    try:
        files = sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES and f.is_file())
        files += sorted((folder / _TEMPLATES).glob("*.jinja"))
    except OSError as error:
        raise ModelError(f"cannot read {folder}: {one_line(error)}") from error
    if not any(f.suffix in WEIGHTS for f in files):
        raise ModelError(f"{folder} holds no weights (*.safetensors or *.bin)", "no_weights")
    hashes = []
    said, done, size = time.monotonic(), 0, sum(file.stat().st_size for file in files)
    for file in files:
        of_file = hashlib.sha256()
        try:
            with open(file, "rb", buffering=0) as stream:
                while block := stream.read(_BLOCK):
                    of_file.update(block)
                    done += len(block)
                    if time.monotonic() - said > PROGRESS_SECONDS:
                        said = time.monotonic()
                        logger.info("fingerprint of %s: %.1f of %.1f GiB", folder.name, done / 2**30, size / 2**30)
        except OSError as error:
            raise ModelError(f"cannot read {file}: {one_line(error)}") from error
        hashes.append((str(file.relative_to(folder)), of_file.hexdigest()))
    return "files-" + digest(hashes)


def tokenizer_fingerprint(folder: Path) -> str:
    """Digest of a folder's tokenizer, equal for models that share it. Raises ModelError when a file cannot be read.

    It covers every small file that a tokenizer may open, and the keys of config.json that choose its class.
    """
    chooses = ("model_type", "tokenizer_class", "auto_map", "transformers_version", "architectures")
    config = read_config(folder)
    try:
        files = [f for f in folder.iterdir() if f.suffix in SUFFIXES and f.suffix not in WEIGHTS and f.is_file()]
        files = [f for f in files if f.name not in _NO_TOKENIZER and not f.name.endswith(".index.json")]
        files += (folder / _TEMPLATES).glob("*.jinja")
        hashes = [(str(f.relative_to(folder)), hashlib.sha256(f.read_bytes()).hexdigest()) for f in sorted(files)]
    except OSError as error:
        raise ModelError(f"cannot read {folder}: {one_line(error)}") from error
    return digest([hashes, {name: config.get(name) for name in chooses}], 32)


def _dtype(wanted: str, config: dict[str, Any]) -> str:
    if wanted != "auto":
        return wanted
    return own_dtype(config) or "float32"


def _method(config: dict[str, Any]) -> str | None:
    """The method at config.json's top level alone: it is part of a cell's identity and must not change."""
    method = section(config, "quantization_config").get("quant_method")
    return method if isinstance(method, str) else None


def _max_length(wanted: int | None, config: dict[str, Any]) -> int | None:
    """Returns `wanted`, or the model's own length if that is shorter, so that both give one cell."""
    own = own_length(config)
    ropes = [c.get(k) for c in (config, section(config, "text_config")) for k in ("rope_scaling", "rope_parameters")]
    if own is None or '"factor"' in json.dumps(ropes):  # only the engine knows how long a scaled context is
        return wanted
    return own if wanted is None else min(wanted, own)


# ---- folders at a URI


def _resolve_uri(source: str) -> tuple[str, dict[str, Any], None]:
    return _listing_digest(source), _config_at(source), None


def _config_at(source: str) -> dict[str, Any]:
    if (data := uri_file(source, "config.json")) is None:
        raise ModelError(f"{source} has no config.json")
    return parse_config(data, source)


def uri_file(source: str, name: str) -> bytes | None:
    """Returns a file of a folder at a URI; None if there is none. Raises ModelError when it cannot be read."""
    try:
        fs, root = fsspec.core.url_to_fs(source, use_listings_cache=False)
        data: bytes = fs.cat_file(f"{root.rstrip('/')}/{name}")
    except FileNotFoundError:
        return None
    except Exception as error:  # clients of stores have error types of their own
        raise ModelError(f"{source}: {name} cannot be read: {one_line(error)}") from error
    return data


def size_at_uri(source: str) -> tuple[int | None, dict[str, Any]]:
    """Returns the bytes of the weights in a folder at a URI, or None without any, and its config.json.

    Raises ModelError when the folder or its config.json cannot be read.
    """
    sizes = {name: int(version.rpartition(" ")[2]) for name, version in _list_uri(source).items()}
    return sum(sizes[name] for name in weight_files(sizes)[1]) or None, _config_at(source)


def _listing_digest(source: str) -> str:
    """A revision made of the store's own versions of the files, and of the place where they include change times."""
    listing = _list_uri(source)
    timed = any(version.startswith("time ") for version in listing.values())
    return "listing-" + digest([sorted(listing.items()), source if timed else None])


def _list_uri(source: str) -> dict[str, str]:
    """Maps file names to the store's own version of them, ETag or checksum or else "time " and a time, and the size.

    Raises ModelError when the folder cannot be listed, has no weights, or is in a store without versions.
    """
    try:
        fs, root = fsspec.core.url_to_fs(source, use_listings_cache=False)
        entries = fs.ls(root, detail=True)
        if any(entry["type"] == "directory" and _base(entry) == _TEMPLATES for entry in entries):
            entries += [
                e for e in fs.ls(f"{root.rstrip('/')}/{_TEMPLATES}", detail=True) if _base(e).endswith(".jinja")
            ]
    except FileNotFoundError as error:
        raise ModelError(f"nothing at {source}", "not_found") from error
    except Exception as error:  # clients of stores have error types of their own
        raise ModelError(f"cannot list {source}: {one_line(error)}", "not_found") from error
    files = {}
    for entry in entries:
        name = _base(entry) if f"/{_TEMPLATES}/" not in entry["name"] else f"{_TEMPLATES}/{_base(entry)}"
        if entry["type"] == "file" and name.endswith(SUFFIXES):
            version = next((entry[k] for k in ("ETag", "etag", "md5Hash", "content_md5") if entry.get(k)), None)
            time = next((entry[k] for k in ("mtime", "LastModified", "updated", "last_modified") if entry.get(k)), None)
            if version is None and time is None:
                raise ModelError(f"{source}: this store gives no version of its files; copy them to a folder first")
            files[name] = f"{f'time {time}' if version is None else version} {entry['size']}"
    if not any(name.endswith(WEIGHTS) for name in files):
        raise ModelError(f"{source} holds no weights (*.safetensors or *.bin)", "no_weights")
    return files


def _base(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]


def _fetch_uri(model: ModelRef) -> str:
    """Downloads a folder into this node's cache, all of it or nothing, unless the cache has it.

    Checks after the download that the listing has not changed. A copy in the cache is used again only if its files have
    the fingerprint of the download.
    """
    target = cache_dir("models") / f"{safe_name(model.name)}-{model.revision}"
    noted = target.with_name(f"{target.name}.fingerprint")
    with FileLock(f"{target}.lock"):
        if target.is_dir():
            if noted.is_file() and noted.read_text(encoding="utf-8") == _fingerprint_or_none(target):
                return str(target)
            logger.warning("model %s: its copy in %s has changed; downloading it again", model.name, target)
            shutil.rmtree(target)
        fs, root = fsspec.core.url_to_fs(model.source, use_listings_cache=False)
        with replacing(target, locked=True) as temporary:
            temporary.mkdir()
            try:
                names = _list_uri(model.source)
                for name in set(names).difference(unloaded_files(names, partial(_must_read, model.source))):
                    (temporary / name).parent.mkdir(exist_ok=True)
                    fs.get_file(f"{root.rstrip('/')}/{name}", str(temporary / name))
            except ModelError:
                raise
            except Exception as error:
                raise ModelError(f"cannot download {model.source}: {one_line(error)}", "not_found") from error
            if _listing_digest(model.source) != model.revision:
                raise ModelError(f"{model.source} changed since the run was planned", "model_changed")
            noted.write_text(fingerprint(temporary), encoding="utf-8")
    return str(target)


def _must_read(source: str, name: str) -> bytes:
    if (data := uri_file(source, name)) is None:
        raise ModelError(f"{source} changed since the run was planned", "model_changed")
    return data


def _fingerprint_or_none(folder: Path) -> str | None:
    try:
        return fingerprint(folder)
    except ModelError:
        return None
