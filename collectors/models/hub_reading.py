"""Reads a model row from the files of a hub repo: small files whole, and the headers of its safetensors files.

Owns the chain of requests for one model at one revision, and the row of schemas.records.MODEL that it gives. Downloads
no weights, and knows nothing of the lake.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from collectors.engines.weight_files import missing_shards, weight_files
from collectors.models.hub_listing import hub_parameters, listed_columns
from collectors.models.model_files import (
    PREFIX,
    SUFFIXES,
    Tensors,
    config_columns,
    header_length,
    is_tokenizer_file,
    parse_config,
    template_hash,
)
from schemas.failures import ModelError
from schemas.identity import digest

if TYPE_CHECKING:
    from collectors.models.hub_client import Hub
#: Bytes of the first read of a safetensors file. 97 % of all headers are shorter (huggingface_hub).
_FIRST = 100_000
#: Most bytes of a small file. tokenizer_config.json can list 100,000 added tokens.
_SMALL = 20_000_000
#: Quantizers' own files, from the time before config.json held their settings -> their method.
_QUANTIZERS = {"quantize_config.json": "gptq", "quant_config.json": "awq"}


def read_model(hub: Hub, model: str, revision: str | None, recorded: Collection[str] = ()) -> dict[str, Any]:
    """Reads the row of `model` at the commit that `revision` points to now; None: its newest commit.

    If that commit is among `recorded`, asks for the repo's info alone and returns its columns.

    A gated repo or one with damaged files gives a row with a problem and the columns of its info. So does a repo that
    was renamed, in a row of its old name. Raises ModelError when the Hub has no such repo or revision or keeps failing
    for it, and Hub's errors that concern every repo.
    """
    info = hub.info(model, revision)
    row = listed_columns(info)
    if row["model"] != model:
        message = f"its name is {row['model']} now: use that"
        return {**row, "model": model, "problem": "renamed", "problem_message": message}
    if row["revision"] in recorded:
        return row
    files = {f["rfilename"]: f for f in info.get("siblings") or () if isinstance(f, dict) and "rfilename" in f}
    repo = _Repo(hub, model, row["revision"], files)
    row |= _file_columns(files)
    try:
        row |= _read(repo, row)
    except ModelError as error:
        if error.kind == "hub_down":
            raise
        message = str(error).removeprefix(f"{model}: ")
        row |= {"problem": error.kind, "problem_message": message, "parameters": hub_parameters(info)}
    if row["weights"] == "gguf":
        row["parameters"] = hub_parameters(info)
    return row


class _Repo:
    """A repo at a commit. Reads its files by name."""

    def __init__(self, hub: Hub, model: str, revision: str, files: dict[str, dict[str, Any]]) -> None:
        self.hub, self.model, self.revision, self.files = hub, model, revision, files

    def object(self, name: str) -> dict[str, Any] | None:
        """Returns the JSON object in a small file; None if the repo has no such file."""
        data = self.data(name)
        return None if data is None else parse_config(data, self.model, name)

    def data(self, name: str) -> bytes | None:
        return self.hub.file(self.model, self.revision, name, _SMALL) if name in self.files else None

    def header(self, name: str) -> bytes:
        """Returns the header of a safetensors file. Raises ValueError if it has none."""

        def read(first: int, last: int) -> bytes:
            return self.hub.range(self.model, self.revision, name, first, last)

        data = read(0, _FIRST - 1)
        end = PREFIX + header_length(data[:PREFIX])
        if end > len(data):
            data += read(len(data), end - 1)
        if end > len(data):
            raise ValueError("it ends within its header")
        return data[PREFIX:end]


def _file_columns(files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the columns made of the files' names, sizes and hashes. The Hub lists these of gated repos too."""
    kind, weights = weight_files(files)
    hashes = {name: _id(file) for name, file in files.items()}
    sizes = [size for name in weights if type(size := files[name].get("size")) is int]
    decisive = sorted((name, hashes[name]) for name in files if _is_decisive(name, kind))
    tokenizer = sorted((name, hashes[name]) for name in files if is_tokenizer_file(name))
    has_hashes = all(hashes[name] for name in weights) and weights
    return {
        "weights": kind,
        "weight_bytes": sum(sizes) if len(sizes) == len(weights) else None,
        "weights_hash": digest(sorted(str(hashes[name]) for name in weights)) if has_hashes else None,
        "files_hash": digest(decisive),
        "tokenizer_hash": f"hub-{digest(tokenizer)}" if tokenizer else None,
    }


def _is_decisive(name: str, kind: str | None) -> bool:
    """Whether a file counts in files_hash: those of collectors.models.pinning.fingerprint, and GGUF files."""
    if "/" in name:
        return name.startswith("additional_chat_templates/")
    return name.endswith(SUFFIXES) or (kind == "gguf" and name.endswith(".gguf"))


def _id(file: dict[str, Any]) -> str | None:
    """The SHA-256 of a file in LFS or Xet storage, else its id in git; None if the Hub gives neither."""
    lfs = file.get("lfs")
    sha = (lfs.get("sha256") or lfs.get("oid")) if isinstance(lfs, dict) else None
    return str(sha) if sha else file.get("blobId")


def _read(repo: _Repo, row: dict[str, Any]) -> dict[str, Any]:
    """Returns the columns read from the files' contents. Raises ModelError if a file is missing or damaged."""
    if row["weights"] == "adapter":
        adapter = repo.object("adapter_config.json") or {}
        base = adapter.get("base_model_name_or_path")
        return {"base_model": base if isinstance(base, str) and base else row["base_model"], "base_relation": "adapter"}
    if row["weights"] in ("gguf", None):
        return {}
    config = repo.object("config.json")
    if config is None:
        raise ModelError(f"{repo.model} has no config.json: not a transformers model")
    columns = config_columns(config)
    columns["quantization"] = columns["quantization"] or _quantizer(repo)
    tokenizer_config = repo.object("tokenizer_config.json")
    generation = repo.object("generation_config.json")
    columns |= {
        "chat_template_hash": template_hash(repo.data("chat_template.jinja"), tokenizer_config),
        "generation_config": json.dumps(generation, separators=(",", ":"), sort_keys=True) if generation else None,
    }
    if row["weights"] == "safetensors":
        columns |= _tensor_columns(repo, columns["quantization"] is not None)
    return columns


def _quantizer(repo: _Repo) -> str | None:
    """The method in a quantizer's own file: its "quant_method", or the quantizer's usual one."""
    for name, method in _QUANTIZERS.items():
        if name in repo.files:
            return str((repo.object(name) or {}).get("quant_method") or method)
    return None


def _tensor_columns(repo: _Repo, quantized: bool) -> dict[str, Any]:
    tensors = Tensors()
    names = weight_files(repo.files)[1]
    if missing := missing_shards(names):
        raise ModelError(f"{repo.model}: {missing} shards of the set of {names[0]} are missing")
    for name in names:
        size = repo.files[name].get("size")
        try:
            tensors.add(repo.header(name), size if type(size) is int else None)
        except ValueError as error:
            raise ModelError(f"{repo.model}: {name} is damaged: {error}") from error
    return {"parameters": tensors.parameters(quantized), "tensors_hash": tensors.hash()}
