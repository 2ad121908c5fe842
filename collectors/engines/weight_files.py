"""Which files of a model's folder or repo are its weights.

Owns the rules by which transformers and vLLM choose them. Reads no file but an index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

INDEX = "model.safetensors.index.json"
#: The index of shards of each kind. Another file of that form, such as OpenVINO's, is no engine's.
INDEXES = {"safetensors": INDEX, "bin": "pytorch_model.bin.index.json"}

_SHARD = re.compile(r".+-\d{5,}-of-(\d{5,})\.[a-z]+$")
#: Files beside the weights: Mistral's own format of the same weights, adapters, states of trainers.
_BESIDE = re.compile(
    r"(consolidated|adapter_model|training_args|optimizer|scheduler|rng_state|non_lora)", re.IGNORECASE
)


def weight_files(names: Iterable[str]) -> tuple[str | None, list[str]]:
    """Returns the kind of a model's weights and the files that an engine would load. `names` are the model's files.

    The kind is "safetensors" or "bin"; "adapter" or "gguf" if there is nothing else; None without weights. If there are
    several sets of shards, or a set beside a single file, the files that transformers looks for first are returned. The
    hashes of weights in lakes are of these files, so the rule stays.
    """
    names = sorted(name for name in names if "/" not in name)
    for suffix, single in ((".safetensors", "model.safetensors"), (".bin", "pytorch_model.bin")):
        files = [name for name in names if name.endswith(suffix) and not _BESIDE.match(name)]
        if single in files:
            return suffix[1:], [single]
        stem = single.partition(".")[0]
        shards = [name for name in files if _SHARD.match(name)]
        if files:
            return suffix[1:], [name for name in shards if name.startswith(f"{stem}-")] or shards or files
    if adapters := [name for name in names if re.match(r"adapter_model.*\.(safetensors|bin)$", name)]:
        return "adapter", adapters
    ggufs = [name for name in names if name.endswith(".gguf")]
    return ("gguf", ggufs) if ggufs else (None, [])


def missing_shards(names: Sequence[str]) -> int:
    """How many files of a set of shards are missing, by the total in the first one's name; 0 for other files."""
    match = _SHARD.match(names[0]) if names else None
    return max(int(match[1]) - len(names), 0) if match else 0


def loaded_files(names: Iterable[str], read: Callable[[str], bytes]) -> tuple[str | None, list[str]]:
    """Returns the kind of a model's weights and the files that an engine loads: those that their index names, if any.

    `names` are the model's files, and `read` returns the bytes of one. Raises ValueError for a damaged index.
    """
    names = list(names)
    kind, files = weight_files(names)
    if (index := INDEXES.get(str(kind))) in names:
        try:
            files = sorted(set(json.loads(read(str(index))).get("weight_map", {}).values()))
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{index} is damaged: {error}") from error
    return kind, files


def loaded_of(folder: Path) -> tuple[str | None, list[str]]:
    """loaded_files of a folder."""
    return loaded_files([file.name for file in folder.iterdir()], lambda name: (folder / name).read_bytes())


def unloaded_files(names: Iterable[str], read: Callable[[str], bytes]) -> list[str]:
    """Returns the files of weights that no engine loads, such as a second format of the same weights.

    Empty where there are adapters alone, or no weights of a known name. Raises ValueError for a damaged index.
    """
    names = list(names)
    kind, files = loaded_files(names, read)
    if kind not in INDEXES:
        return []
    return [name for name in names if name.endswith((".safetensors", ".bin")) and name not in files]


def safetensors_of(folder: Path) -> list[Path]:
    """The safetensors that vLLM and transformers load from a folder: those that its index names, else one set of files.

    Raises ValueError without an index where there are others beside the set: transformers then loads the set, vLLM all
    of them, or Mistral's own files alone.
    """
    kind, files = loaded_of(folder)
    if kind != "safetensors":
        return []
    every = {file.name for file in folder.glob("*.safetensors")}
    if not (folder / INDEX).is_file() and (others := every.difference(files)):
        raise ValueError(f"{min(others)} lies beside the weights, and no {INDEX} says which are loaded")
    return [folder / name for name in files]
