"""Model repos of the Hugging Face Hub: their commits, and their files in the cache of the hub's client.

Owns the choice of files to download, and the way without a hub that answers. Raises ModelError of kind not_found,
gated, no_weights or bad_model.
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collectors.engines import ModelRef
from collectors.engines.weight_files import loaded_of, missing_shards, unloaded_files
from collectors.models.model_files import SUFFIXES, WEIGHTS, parse_config
from collectors.specs import ModelSpec
from schemas.failures import ModelError, one_line

logger = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}$")


def resolve_hub(spec: ModelSpec) -> tuple[str, dict[str, Any], None]:
    """Returns the commit of a repo and its config.json; no path, because nothing else is fetched."""
    from huggingface_hub import HfApi, hf_hub_download  # seconds to import; folders do not need it

    with asking_hub(spec.place):
        revision = spec.revision or "main"
        if not _COMMIT.match(revision):
            try:
                revision = HfApi().model_info(spec.place, revision=revision).sha or ""
            except Exception as error:
                revision = _commit_in_cache(spec.place, revision, error)
        config = hf_hub_download(spec.place, "config.json", revision=revision)
    return revision, parse_config(Path(config).read_bytes(), spec.place), None


def _commit_in_cache(source: str, revision: str, error: Exception) -> str:
    """The commit of a branch or tag when it was last fetched to this machine, where the hub does not answer now.

    Raises `error` where the hub did answer, or the cache of the hub's client does not have the model.
    """
    from collectors.models.hub_errors import refusal

    folder = None if refusal(error, source) else snapshot(source, revision)
    if folder is None:
        raise error
    logger.warning("%s: the hub does not answer; commit %s of this machine's cache is used", source, folder.name)
    return folder.name


def snapshot(source: str, revision: str) -> Path | None:
    """The folder of a repo in the cache of the hub's client, if its config and weights are there. Asks no hub."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        _, files = loaded_of(folder)
    except ValueError:
        return None
    is_whole = files and not missing_shards(files) and all((folder / name).is_file() for name in files)
    return folder if is_whole else None


def fetch_hub(model: ModelRef) -> str:
    """Downloads a repo at its commit, without weights that no engine loads, and returns its folder in the cache.

    A whole one in the cache is taken at once where the hub does not answer: its client would try for 46 seconds.
    """
    from huggingface_hub import HfApi, snapshot_download

    if (folder := snapshot(model.source, model.revision)) and _is_silent(model):
        return str(folder)
    with asking_hub(model.source):
        path = snapshot_download(
            model.source,
            revision=model.revision,
            allow_patterns=[f"*{suffix}" for suffix in SUFFIXES],
            ignore_patterns=[glob.escape(name) for name in _unloaded_in_repo(model)],
        )
    if not any(f.suffix in WEIGHTS for f in Path(path).iterdir()):
        with asking_hub(model.source):  # while the hub is down, the client returns an incomplete folder
            HfApi().model_info(model.source, revision=model.revision)
        raise ModelError(f"{model.source} holds no weights (*.safetensors or *.bin)", "no_weights")
    return path


def _is_silent(model: ModelRef) -> bool:
    """Whether the hub gives no answer about a model, be it a refusal. It is asked once."""
    from huggingface_hub import HfApi

    from collectors.models.hub_errors import TRANSPORT_ERROR, refusal

    try:
        HfApi().model_info(model.source, revision=model.revision)
    except (OSError, ValueError, TRANSPORT_ERROR) as error:
        return refusal(error, model.source) is None
    return False


def _unloaded_in_repo(model: ModelRef) -> list[str]:
    """The weights of a hub repo that no engine loads; empty where the hub does not answer, and for a damaged index."""
    from huggingface_hub import HfApi, hf_hub_download

    def read(name: str) -> bytes:
        return Path(hf_hub_download(model.source, name, revision=model.revision)).read_bytes()

    try:
        return unloaded_files(HfApi().list_repo_files(model.source, revision=model.revision), read)
    except Exception as error:  # then the download names the fault, or takes the cache's files
        logger.info("model %s: its files cannot be listed: %s", model.name, one_line(error))
        return []


@contextmanager
def asking_hub(source: str) -> Iterator[None]:
    """Turns the hub client's exceptions into ModelErrors with a kind and advice."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    from collectors.models.hub_errors import TRANSPORT_ERROR, refusal

    try:
        yield
    except RemoteEntryNotFoundError as error:
        raise ModelError(f"{source} has no config.json: not a transformers model") from error
    except (OSError, ValueError, TRANSPORT_ERROR) as error:
        silent = f"{source} is not a folder here, and the hub did not answer: {one_line(error)}"
        raise refusal(error, source) or ModelError(silent, "not_found") from error
