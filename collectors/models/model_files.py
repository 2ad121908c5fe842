"""Reads a model's own files: config.json, tokenizer, chat template, and the headers of its weights.

Owns the reading of these files, wherever they came from, and the model row of a folder. Knows nothing of hubs, stores
or engines.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from collectors.engines import ModelRef
from collectors.engines.weight_files import weight_files
from schemas.failures import ModelError, one_line
from schemas.identity import digest
from schemas.records import MODEL

WEIGHTS = (".safetensors", ".bin")
#: Suffixes of the files that decide a model's answers. Everything else in a folder (README, logs) is left out.
SUFFIXES = (*WEIGHTS, ".json", ".model", ".txt", ".jinja", ".py", ".tiktoken")
#: Bytes before the header of a safetensors file; they hold its length.
PREFIX = 8
#: Longest header that safetensors accepts, bytes (its MAX_HEADER_SIZE).
MOST_HEADER = 100_000_000

_TOKENIZER = ("tokenizer", "vocab", "merges", "special_", "spiece", "tekken")
#: Integers that hold several quantized weights each. I8 is one weight.
_PACKED = frozenset(["U8", "I16", "U16", "I32", "U32", "I64", "U64"])


def parse_config(data: bytes, source: str, name: str = "config.json") -> dict[str, Any]:
    """Parses the JSON object in the file `name` of `source`. Raises ModelError if it is damaged."""
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{source}: {name} is damaged: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{source}: {name} is not a JSON object")
    return config


def section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the object under `name`, empty if it is missing or of another type."""
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def own_dtype(config: dict[str, Any]) -> str | None:
    """The dtype in config.json, without "torch."; None if it has none."""
    text = section(config, "text_config")
    own = next((c[k] for c in (config, text) for k in ("dtype", "torch_dtype") if c.get(k)), None)
    return None if own is None else str(own).removeprefix("torch.")


def own_length(config: dict[str, Any]) -> int | None:
    """The longest context in config.json, in tokens; None if it has none."""
    sections = (config, section(config, "text_config"))
    lengths = [part.get(name) for part in sections for name in ("max_position_embeddings", "n_positions")]
    return next((length for length in lengths if type(length) is int and 0 < length < 2**31), None)


def quantization_config(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of the weights' quantization, empty without any.

    Looked up in the places where vLLM 0.32 looks (get_quantization_config).
    """
    parts, names = (config, section(config, "text_config")), ("quantization_config", "compression_config")
    return next((settings for part in parts for name in names if (settings := section(part, name))), {})


def own_quantization(config: dict[str, Any]) -> str | None:
    """The method in config.json, such as "gptq", "awq" or "bitsandbytes"; "mlx" for mlx-lm's way of writing it."""
    method = quantization_config(config).get("quant_method")
    if isinstance(method, str) and method:
        return method
    return "mlx" if "bits" in section(config, "quantization") else None  # mlx-lm writes no method


def config_columns(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the columns of schemas.records.MODEL that come from config.json."""
    architectures = config.get("architectures")
    return {
        "architecture": str(architectures[0]) if isinstance(architectures, list) and architectures else None,
        "max_length": own_length(config),
        "dtype": own_dtype(config),
        "quantization": own_quantization(config),
        "config": _compact(config),
    }


def _compact(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def template_hash(jinja: bytes | None, tokenizer_config: dict[str, Any] | None) -> str | None:
    """Hash of the chat template in chat_template.jinja, else in tokenizer_config.json; None without one."""
    if jinja is not None:
        return digest(jinja.decode("utf-8", errors="replace"))
    template = (tokenizer_config or {}).get("chat_template")
    return digest(template) if template else None


def is_tokenizer_file(name: str) -> bool:
    return name.startswith(_TOKENIZER) or name.endswith(".tiktoken")


# ---- weights


@dataclass
class Tensors:
    """The tensors that the headers of a model's safetensors files list."""

    #: safetensors' dtype -> number of elements.
    elements: dict[str, int] = field(default_factory=dict)
    #: One line per tensor: name, dtype and shape.
    lines: list[str] = field(default_factory=list)

    def add(self, header: bytes, size: int | None = None) -> None:
        """Adds one file's header, without its prefix. `size` is the size of the whole file in bytes, if known.

        Raises ValueError for a damaged header, and for one that asks for another size. Format:
        https://huggingface.co/docs/safetensors#format
        """
        end = 0
        try:
            for name, tensor in json.loads(header).items():
                if name == "__metadata__":
                    continue
                dtype, shape = str(tensor["dtype"]), [int(n) for n in tensor["shape"]]
                end = max(end, int(tensor["data_offsets"][1]))
                self.elements[dtype] = self.elements.get(dtype, 0) + prod(shape)
                self.lines.append(f"{name} {dtype} {shape}")
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise ValueError(f"its header cannot be read ({one_line(error, 100)})") from error
        if size is not None and size != PREFIX + len(header) + end:
            raise ValueError(f"{size} bytes instead of {PREFIX + len(header) + end}")

    def parameters(self, quantized: bool) -> int | None:
        """Number of elements; None for a quantized model that packs several weights into one integer."""
        total = sum(self.elements.values())
        packed = sum(n for dtype, n in self.elements.items() if dtype in _PACKED)
        return None if quantized and packed > total / 100 else total

    def hash(self) -> str:
        """Digest of names, dtypes and shapes, whichever files hold the tensors."""
        return hashlib.sha256("\n".join(sorted(self.lines)).encode()).hexdigest()[:16]


def header_length(prefix: bytes) -> int:
    """Length of a safetensors file's header by its first 8 bytes. Raises ValueError if they cannot be a length."""
    length = int.from_bytes(prefix, "little")
    if len(prefix) != PREFIX or length > MOST_HEADER:
        raise ValueError("it has no safetensors header")
    return length


# ---- folders


def model_row(model: ModelRef) -> dict[str, Any]:
    """Reads a row of schemas.records.MODEL from the fetched folder. Unknown columns are None."""
    folder = Path(model.path or "")
    config = read_config(folder)
    names = [file.name for file in folder.iterdir() if file.is_file()]
    kind, weights = weight_files(names)
    tokenizer = sorted(folder / name for name in names if is_tokenizer_file(name))
    columns = config_columns(config)
    quantized = columns["quantization"] is not None
    return {
        **dict.fromkeys(MODEL.names),
        **columns,
        "model": model.name,
        "source": model.named_source,
        "revision": model.revision,
        "parameters": _parameters(folder, weights, quantized) if kind == "safetensors" else None,
        "weights": kind,
        "weight_bytes": sum((folder / name).stat().st_size for name in weights),
        "tokenizer_hash": _hash_files(tokenizer),
        "chat_template_hash": _template_hash(folder),
    }


def read_config(folder: Path) -> dict[str, Any]:
    """Reads the folder's config.json. Raises ModelError if it is missing or damaged."""
    try:
        data = (folder / "config.json").read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{folder} has no config.json") from error
    except OSError as error:
        raise ModelError(f"{folder}: config.json cannot be read: {one_line(error)}") from error
    return parse_config(data, str(folder))


def _parameters(folder: Path, weights: Sequence[str], quantized: bool) -> int | None:
    tensors = Tensors()
    for name in weights:
        with open(folder / name, "rb") as stream:
            tensors.add(stream.read(header_length(stream.read(PREFIX))))
    return tensors.parameters(quantized)


def _hash_files(files: list[Path]) -> str | None:
    return digest([(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]) if files else None


def _template_hash(folder: Path) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return template_hash(file.read_bytes(), None)
    try:
        return template_hash(None, json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
