"""Which models one live engine can serve in turn by swapping weights, and what is proven before a swap.

Owns the allow-list, the swap key, the checks of a folder's tensors, and the part that runs inside vLLM's worker. Knows
nothing of how an engine is opened or asked, and does not import vllm.
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
from schemas.failures import ModelError
from schemas.identity import digest

#: Where an architecture keeps its embeddings and its output matrix.
Head = tuple[str, str]
_LLAMA_HEAD: Head = ("model.embed_tokens.weight", "lm_head.weight")

#: Architectures whose swapped weights were proven to answer as a fresh engine does, tied and untied
#: (tests/collectors/test_swapping.py, tests/benchmarks/bench_swap.py). None: vLLM takes the logits from the embeddings
#: themselves. Mixtral and GPT-2 answer wrongly after a swap, without a word.
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

#: Of config.json: where it came from, by what it was written, and the dtype, which the ModelRef says.
_NOT_CONFIG = {"_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "unsloth_version"}
#: Of tokenizer_config.json: where it came from.
_NOT_TOKENIZER = {"name_or_path", "_name_or_path", "tokenizer_file", "vocab_file", "merges_file"}
_TOKENIZER_FILES = (
    *("tokenizer*", "vocab*", "merges*", "special_tokens*", "added_tokens*", "chat_template*", "tekken*"),
    *("*.model", "*.tiktoken", "tokenization_*", "additional_chat_templates/*"),
)

#: Lengths of the canary's prompts in tokens, as far as the context allows: one block of the key-value cache and several
#: (128 on CPUs), and beyond a sliding window of 512.
CANARY_LENGTHS = (2, 17, 150, 520)
#: Tokens whose log-probability is compared after each; the sum over the whole vocabulary is in all of them.
CANARY_TOKENS = 32


def swap_key(model: ModelRef) -> str | None:
    """Models of one key differ in the values of their tensors alone: one live engine can serve them in turn.

    Made of config.json, the tokenizer's files, the EOS ids of generation_config.json, names and shapes of all tensors,
    dtype, longest context and engine options; no weights are read. None: not proven to be swappable, or a folder that
    cannot be read: it is opened in an engine of its own, which says what is wrong.
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
        return digest([*parts, dtype, model.max_length, model.options, model.overrides])
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


def _without(value: Any, names: set[str]) -> Any:
    """A JSON value without those keys, and without keys that are null: both mean the class's default."""
    if not isinstance(value, dict):
        return value
    return {k: _without(v, names) for k, v in value.items() if k not in names and v is not None}


def _tokenizer(folder: Path) -> dict[str, str]:
    """Digest of each file that the tokenizer and its chat templates are made from, by its path in the folder."""
    files = {file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern) if file.is_file()}
    digests = {}
    for file in files:
        data = file.read_bytes()
        if file.name == "tokenizer_config.json":
            data = json.dumps(_without(json.loads(data), _NOT_TOKENIZER), sort_keys=True).encode()
        digests[str(file.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return digests


def _eos_ids(folder: Path) -> Any:
    """The EOS ids of generation_config.json: all that vLLM reads of it for a request with settings of its own."""
    file = folder / "generation_config.json"
    return json.loads(file.read_bytes()).get("eos_token_id") if file.is_file() else None


# ---- tensors


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that vLLM loads: those that an index names, else all."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
    return sorted(folder.glob("*.safetensors"))


def tensors_digest(folder: Path) -> str:
    """Digest of names and shapes of all tensors. Raises ValueError where there are none, or a name comes twice."""
    shapes: dict[str, list[int]] = {}
    for file in weight_files(folder):
        header = read_header(file)
        if twice := shapes.keys() & header.keys():
            raise ValueError(f"{min(twice)} is in two files")
        shapes |= {name: tensor["shape"] for name, tensor in header.items()}
    if not shapes:
        raise ValueError(f"{folder} has no safetensors")
    return digest(shapes)


def check_weights(model: ModelRef) -> None:
    """Reads every tensor of the model's folder. Raises ModelError where a file is damaged, or one holds NaN or inf.

    3 to 5 GB/s on one core when the files are in the page cache, where it leaves them for the swap.
    """
    import torch

    folder = Path(model.path or "")
    check_files(model, folder)
    try:
        for name, tensor in tensors(weight_files(folder)):
            if tensor.is_floating_point() and tensor.numel() and not _finite(torch.aminmax(tensor)):
                raise ModelError(f"model {model.name!r}: {name} holds NaN or infinite numbers")
    except ModelError:
        raise
    except Exception as error:  # safetensors has an error of its own
        raise load_error(model, error) from error


def _finite(ends: Sequence[Any]) -> bool:
    return all(bool(end.isfinite()) for end in ends)  # NaN anywhere makes both NaN


def tensors(files: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    """Name and tensor of each entry of safetensors files; the bytes are read when the tensor is used."""
    from safetensors import safe_open

    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no dict
                yield name, opened.get_tensor(name)


def head_of(model: ModelRef) -> Head | None:
    """Of a model with a swap key."""
    config = json.loads((Path(model.path or "") / "config.json").read_bytes())
    return ALLOWED[config["architectures"][0]]


# ---- the canary


def canary_prompts(vocabulary: int, longest: int) -> list[list[int]]:
    """The same token ids in every process, at most `longest` in a prompt."""
    draw = random.Random(0)
    return [[draw.randrange(vocabulary) for _ in range(min(length, longest))] for length in CANARY_LENGTHS]


def canary_tokens(vocabulary: int) -> list[int]:
    return sorted(random.Random(1).sample(range(vocabulary), min(CANARY_TOKENS, vocabulary)))


# ---- inside vLLM's worker


class SwapWorker:
    """Mixed into vLLM's worker (worker_extension_cls), so that every process of an engine reads the files itself."""

    def scramble_weights(self) -> None:
        """Random numbers, large ones, in every tensor that vLLM keeps as it is; those that it has packed hold the small
        ones (below 0.001) that its engine started with, between which and a bias of 0 a canary might not tell."""
        for parameter in self.model_runner.get_model().parameters():  # type: ignore[attr-defined]
            if parameter.is_floating_point():
                parameter.data.uniform_(-1, 1)

    def swap_weights(self, folder: str, expected: str, head: Head | None) -> None:
        """Puts the folder's tensors in the place of all that were loaded; they must have the digest `expected`.

        `head` names embeddings and output matrix: where the files have no output matrix it is a copy of the
        embeddings, since vLLM leaves a tied one at its old, packed values.
        """
        files = weight_files(Path(folder))
        if tensors_digest(Path(folder)) != expected:
            raise ValueError(f"{folder} changed: other tensors than when it was checked")
        dtype = self.model_config.dtype  # type: ignore[attr-defined]
        self.reload_weights(weights_iterator=_as_loaded(files, head, dtype))  # type: ignore[attr-defined]


def _as_loaded(files: Sequence[Path], head: Head | None, dtype: Any) -> Iterator[tuple[str, Any]]:
    """The files' tensors with no more digits than the engine's `dtype` has: its kernels hold some biases in float32,
    and would keep those of a float32 file, which a new engine cuts off."""
    embeddings, output = head or (None, None)
    tied = not any(output in read_header(file) for file in files)
    for name, raw in tensors(files):
        tensor = raw.to(dtype) if raw.is_floating_point() and raw.itemsize >= dtype.itemsize else raw
        yield name, tensor
        if tied and name == embeddings and output:
            yield output, tensor
