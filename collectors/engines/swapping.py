"""Decides which models one live engine can serve in turn by swapping weights, and swaps them.

Owns the list of allowed architectures, the swap key, the checks of a folder's tensors, and the part that runs inside
vLLM's worker. Does not import vllm, and neither opens nor asks an engine.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from collectors.engines import ModelRef
from collectors.engines.checks import check_files, load_error, read_header
from collectors.engines.weight_files import safetensors_of
from schemas.failures import ModelError
from schemas.identity import digest

#: Names of an architecture's embeddings and of its output matrix.
Head = tuple[str, str]
_LLAMA_HEAD: Head = ("model.embed_tokens.weight", "lm_head.weight")

#: Architectures that give a new engine's answers after a swap, with tied and untied embeddings, as
#: tests/collectors/engines/test_swapping.py and tests/benchmarks/bench_swap.py show. None: vLLM takes the logits from
#: the embeddings themselves. Mixtral and GPT-2 silently give wrong answers after a swap.
ALLOWED: dict[str, Head | None] = {
    "LlamaForCausalLM": _LLAMA_HEAD,
    "MistralForCausalLM": _LLAMA_HEAD,
    "Qwen2ForCausalLM": _LLAMA_HEAD,
    "Qwen3ForCausalLM": _LLAMA_HEAD,
    "Phi3ForCausalLM": _LLAMA_HEAD,
    "Gemma2ForCausalLM": None,
    "Gemma3ForCausalLM": _LLAMA_HEAD,
    "GraniteForCausalLM": _LLAMA_HEAD,
    "Olmo2ForCausalLM": _LLAMA_HEAD,
    "SmolLM3ForCausalLM": _LLAMA_HEAD,
    "StableLmForCausalLM": _LLAMA_HEAD,
    "GPTNeoXForCausalLM": ("gpt_neox.embed_in.weight", "embed_out.weight"),
}

#: Keys of config.json that do not count: its origin, the program that wrote it, and the dtype, which the ModelRef has.
_NOT_CONFIG = {"_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "unsloth_version"}
#: Keys of tokenizer_config.json that do not count: its origin.
_NOT_TOKENIZER = {"name_or_path", "_name_or_path", "tokenizer_file", "vocab_file", "merges_file"}
_TOKENIZER_FILES = (
    *("tokenizer*", "vocab*", "merges*", "special_tokens*", "added_tokens*", "chat_template*", "tekken*"),
    *("*.model", "*.tiktoken", "tokenization_*", "additional_chat_templates/*"),
)

#: Lengths of the canary's prompts in tokens, cut to the model's context. They fill one block and several blocks of the
#: key-value cache (128 tokens on CPUs), and reach beyond a sliding window of 512.
CANARY_LENGTHS = (2, 17, 150, 520)
#: Next tokens whose log-probabilities are compared. Each depends on the logits of the whole vocabulary.
CANARY_TOKENS = 32


def swap_key(model: ModelRef) -> str | None:
    """Returns a key shared by models that differ in the values of their tensors alone; one engine serves them in turn.

    It digests config.json, the tokenizer's files, the EOS ids of generation_config.json, names and shapes of all
    tensors, dtype, longest context and engine options, and reads no weights. None for architectures that are not
    allowed, and for folders that cannot be read: their own new engine then reports the fault.
    """
    if not model.path or model.trust_remote_code or model.quantization:
        return None
    folder = Path(model.path)
    try:
        config = json.loads((folder / "config.json").read_bytes())
        architectures = config.get("architectures")
        if not isinstance(architectures, list) or len(architectures) != 1 or architectures[0] not in ALLOWED:
            return None
        if "quantization_config" in config or "auto_map" in config:
            return None
        dtype = config.get("dtype") or config.get("torch_dtype") if model.dtype == "auto" else model.dtype
        parts = [_without(config, _NOT_CONFIG), _tokenizer(folder), _eos_ids(folder), tensors_digest(folder)]
        return digest([*parts, dtype, model.longest, model.options, model.overrides])
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


def _without(value: Any, names: set[str]) -> Any:
    """Returns a JSON value without the keys `names` and without nulls, which mean the same as a missing key."""
    if not isinstance(value, dict):
        return value
    return {k: _without(v, names) for k, v in value.items() if k not in names and v is not None}


def _tokenizer(folder: Path) -> dict[str, str]:
    """Maps the files of the tokenizer and its chat templates, by their path in the folder, to digests."""
    files = {file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern) if file.is_file()}
    digests = {}
    for file in files:
        data = file.read_bytes()
        if file.name == "tokenizer_config.json":
            data = json.dumps(_without(json.loads(data), _NOT_TOKENIZER), sort_keys=True).encode()
        digests[str(file.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return digests


def _eos_ids(folder: Path) -> Any:
    """The EOS ids of generation_config.json. vLLM reads nothing else of it when a request has its own settings."""
    file = folder / "generation_config.json"
    return json.loads(file.read_bytes()).get("eos_token_id") if file.is_file() else None


# ---- tensors


def tensors_digest(folder: Path) -> str:
    """Digest of names and shapes of all tensors. Raises ValueError if there are none, or one is in two files."""
    shapes: dict[str, list[int]] = {}
    for file in safetensors_of(folder):
        header = read_header(file)
        if twice := shapes.keys() & header.keys():
            raise ValueError(f"{min(twice)} is in two files")
        shapes |= {name: tensor["shape"] for name, tensor in header.items()}
    if not shapes:
        raise ValueError(f"{folder} has no safetensors")
    return digest(shapes)


def check_weights(model: ModelRef) -> None:
    """Reads every tensor of the model's folder. Raises ModelError for a damaged file, and for NaN or infinite numbers.

    Reads 3 to 5 GB/s on one core from the page cache, and leaves the files there for the swap.
    """
    import torch

    folder = Path(model.path or "")
    check_files(model, folder)
    try:
        for name, tensor in tensors(safetensors_of(folder)):
            if tensor.is_floating_point() and tensor.numel() and not _finite(torch.aminmax(tensor)):
                raise ModelError(f"model {model.name!r}: {name} holds NaN or infinite numbers")
    except ModelError:
        raise
    except Exception as error:  # safetensors has an error of its own
        raise load_error(model, error) from error


def _finite(ends: Sequence[Any]) -> bool:
    return all(bool(end.isfinite()) for end in ends)  # one NaN in a tensor makes both ends NaN


def tensors(files: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    """Yields name and tensor of each entry of safetensors files. The bytes are read when the tensor is used."""
    from safetensors import safe_open

    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no dict
                yield name, opened.get_tensor(name)


def head_of(model: ModelRef) -> Head | None:
    """The entry in ALLOWED of a model that has a swap key."""
    config = json.loads((Path(model.path or "") / "config.json").read_bytes())
    return ALLOWED[config["architectures"][0]]


# ---- the canary


def canary_prompts(vocabulary: int, longest: int) -> list[list[int]]:
    """Returns prompts of random token ids, the same in every process, each at most `longest` tokens long."""
    draw = random.Random(0)
    return [[draw.randrange(vocabulary) for _ in range(min(length, longest))] for length in CANARY_LENGTHS]


def canary_tokens(vocabulary: int) -> list[int]:
    return sorted(random.Random(1).sample(range(vocabulary), min(CANARY_TOKENS, vocabulary)))


# ---- inside vLLM's worker


class SwapWorker:
    """Methods for vLLM's worker (worker_extension_cls), so that every process of an engine reads the files itself."""

    def scramble_weights(self) -> None:
        """Fills every tensor that vLLM keeps as it is with large random numbers.

        A new engine's own random numbers are below 0.001, and a canary might take them for a bias of 0. Tensors that
        vLLM has packed keep them.
        """
        for parameter in self.model_runner.get_model().parameters():  # type: ignore[attr-defined]
            if parameter.is_floating_point():
                parameter.data.uniform_(-1, 1)

    def swap_weights(self, folder: str, expected: str, head: Head | None) -> None:
        """Replaces all loaded tensors by the folder's. Raises ValueError unless their digest is `expected`.

        `head` names embeddings and output matrix. If the files have no output matrix, it gets a copy of the embeddings,
        because vLLM leaves a tied one at its old, packed values.
        """
        files = safetensors_of(Path(folder))
        if tensors_digest(Path(folder)) != expected:
            raise ValueError(f"{folder} changed: its tensors are not those that were checked")
        dtype = self.model_config.dtype  # type: ignore[attr-defined]
        self.reload_weights(weights_iterator=_as_loaded(files, head, dtype))  # type: ignore[attr-defined]


def _as_loaded(files: Sequence[Path], head: Head | None, dtype: Any) -> Iterator[tuple[str, Any]]:
    """Yields the files' tensors, cut to the digits of the engine's `dtype`.

    A new engine cuts them off as well. In a swap, the kernels that hold biases in float32 would keep all digits of a
    float32 file.
    """
    embeddings, output = head or (None, None)
    tied = not any(output in read_header(file) for file in files)
    for name, raw in tensors(files):
        tensor = raw.to(dtype) if raw.is_floating_point() and raw.itemsize >= dtype.itemsize else raw
        yield name, tensor
        if tied and name == embeddings and output:
            yield output, tensor
