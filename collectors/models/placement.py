"""Computes how much GPU memory a model needs, and chooses the GPUs where it fits.

Owns the sum and its assumptions, each a named constant with its source, and the order of placements: the smallest that
fits first, then larger ones for a model that runs out of memory. The numbers come from the model's own files; a missing
one is an error, never a default. Knows nothing of Ray, and does not read files.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collectors.engines import ModelRef
from collectors.engines.gpus import GIB, GpuClass, Placement
from collectors.models.model_files import own_dtype, own_length, quantization_config, section
from collectors.models.shape import Shape, shape_of
from schemas.failures import ConfigError, ModelError

#: Default share of a GPU's memory that vLLM takes (CacheConfig.gpu_memory_utilization, vLLM 0.32).
UTILIZATION = 0.92
#: Fewest tokens of key-value cache in a placement: 16 requests of 2,048 tokens side by side. This is a choice of this
#: project; vLLM starts with room for one request of max_length (its check_enough_kv_cache_memory).
KV_TOKENS = 32_768
#: CUDA's context, NCCL's buffers and CUDA graphs on each GPU, GiB. Graphs alone took 2,464 MiB in vllm#7553, and vLLM
#: 0.32 counts them into its share.
FIXED_GIB = 2.5
#: Rows of logits at once, and bytes per number. Prompt log-probabilities come in chunks of 1,024 tokens
#: (v1/worker/gpu/sample/prompt_logprob.py of vLLM 0.32): the logits and, in float32, their log-softmax and a copy.
LOGIT_ROWS, LOGIT_BYTES = 1024, 10
#: Tokens of one forward pass on GPUs from 70 GiB except A100s, and on all others (vLLM 0.32's
#: EngineArgs.get_batch_defaults for LLM()).
BATCHED_TOKENS_LARGE, BATCHED_TOKENS = 16_384, 8_192
#: Hidden states per token that exist at once, beside both halves of a gated feed-forward block and their product.
HIDDEN_COPIES = 4

#: Parts of a GPU that engines may share, and GPUs of one engine. Powers of two fill nodes without gaps.
SHARES = (0.25, 0.5)
PARALLEL = (2, 4, 8, 16)

#: Arguments of vLLM that multiply an engine's GPUs, beside tensor_parallel_size.
_UNCOUNTED = frozenset({"pipeline_parallel_size", "data_parallel_size", "prefill_context_parallel_size"})

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8, "float8_e4m3fn": 1}


@dataclass(frozen=True)
class ModelSize:
    """The size of a model before it is loaded. None: unknown."""

    parameters: int | None = None
    #: Bytes of its weight files.
    weight_bytes: int | None = None
    #: Its config.json; empty: unknown.
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Need:
    """The GPU memory that one engine of a model needs."""

    #: The dtype of the engine's computations.
    dtype: str
    #: Bytes of the weights on all GPUs together; all bytes needed if `stated`.
    weights: int
    #: None: unknown, and with it the numbers of GPUs that vLLM can divide the model among.
    shape: Shape | None
    #: Whether the need is one sum from the config (memory_gib).
    stated: bool = False
    #: Tokens of key-value cache.
    tokens: int = 0
    #: Bytes of a number in the key-value cache and in activations.
    kv_bytes: int = 2
    item_bytes: int = 2
    #: Weights in a row that share a scale; 1: each has its own, or none.
    block: int = 1

    def divides(self, parallel: int) -> bool:
        """Whether vLLM can divide the model among so many GPUs. A model of unknown shape runs on one only.

        Shape.divides must hold, and no block of a quantized weight may be cut (vLLM's
        verify_group_size_divides_partition and validate_fp8_block_shape).
        """
        shape = self.shape
        if shape is None or parallel == 1:
            return parallel == 1
        rows = (*(width // parallel for width in shape.widths), shape.heads // parallel * shape.head_dim)
        return shape.divides(parallel) and all(row % self.block == 0 for row in rows)

    def per_gpu(self, gpu: GpuClass, parallel: int = 1) -> int:
        """Bytes on each of `parallel` GPUs. Divides the weights evenly: those that vLLM repeats (norms) are small."""
        return self.weights // parallel + self.cache(parallel) + self.work(gpu, parallel)

    def cache(self, parallel: int = 1) -> int:
        """Bytes of key-value cache on each GPU."""
        return self.tokens * self.shape.kv_numbers(parallel) * self.kv_bytes if self.shape and not self.stated else 0

    def work(self, gpu: GpuClass, parallel: int = 1) -> int:
        """Bytes of activations or logits on each GPU, with its fixed part."""
        shape = self.shape
        if shape is None or self.stated:
            return 0
        large = gpu.memory_gib >= 70 and not gpu.name.startswith("A100")
        width = HIDDEN_COPIES * shape.hidden + 3 * shape.active // parallel
        passes = (BATCHED_TOKENS_LARGE if large else BATCHED_TOKENS) * width * self.item_bytes
        return int(max(passes, LOGIT_ROWS * shape.vocab * LOGIT_BYTES) + FIXED_GIB * GIB)


def need_of(model: ModelRef, size: ModelSize) -> Need:
    """Computes the need of `model` from its size, or takes the memory_gib of the run's config.

    Raises ModelError of kind unknown_memory that names the missing number.
    """
    shape, dtype = shape_of(dict(size.config)) if size.config else None, _dtype(model, size)
    block = _block(size)
    if model.memory_gib is not None:
        return Need(dtype, int(model.memory_gib * GIB), shape, stated=True, block=block)
    item = _ITEM_BYTES.get(dtype)
    length = model.longest or own_length(dict(size.config))
    weights = None if item is None else _weight_bytes(size, item)
    missing = {
        "config.json": size.config,
        f"the size of {dtype!r}": item,
        "its layers, heads or vocabulary in config.json": shape,
        "its longest context (set max_length)": length,
        "the size of its weights": weights,
    }
    unknown = next((what for what, value in missing.items() if not value), None)
    if unknown or item is None or shape is None or length is None or weights is None:
        raise ModelError(
            f"the GPU memory of {model.name} is unknown: {unknown} is missing; give the model memory_gib",
            "unknown_memory",
        )
    kv_dtype = str(json.loads(model.overrides or "{}").get("kv_cache_dtype", "auto"))
    kv_bytes = 1 if kv_dtype.startswith("fp8") else item
    return Need(dtype, weights, shape, False, max(length, KV_TOKENS), kv_bytes, item, block)


def _dtype(model: ModelRef, size: ModelSize) -> str:
    """The dtype of the engine's computations, never "auto"."""
    dtype = model.memory_dtype or model.dtype
    return own_dtype(dict(size.config)) or "float32" if dtype == "auto" else dtype


def _weight_bytes(size: ModelSize, item: int) -> int | None:
    """Bytes of the loaded weights: as in the files for a quantized checkpoint, else `item` bytes per parameter."""
    own = _ITEM_BYTES.get(own_dtype(dict(size.config)) or "")
    quantized = bool(quantization_config(dict(size.config)))
    if quantized or (size.parameters is None and own == item):
        return size.weight_bytes
    if size.parameters is not None:
        return size.parameters * item
    return size.weight_bytes * item // own if size.weight_bytes and own else None


def _block(size: ModelSize) -> int:
    """Weights in a row that share a scale in a quantized checkpoint, mostly 128; 1 if a whole row does, or none do."""
    how = quantization_config(dict(size.config))
    groups = [section(group, "weights") for group in section(how, "config_groups").values() if isinstance(group, dict)]
    values = [
        part.get(name) for part in (how, *groups) for name in ("group_size", "weight_block_size", "block_structure")
    ]
    lengths = [length for value in values for length in (value if isinstance(value, list) else [value])]
    return math.lcm(*{length for length in lengths if type(length) is int and 0 < length < 2**31})


def placements(need: Need, gpus: Sequence[GpuClass], options: Mapping[str, Any] | None = None) -> tuple[Placement, ...]:
    """Returns the placements that fit, the smallest first, each with more memory than the one before; empty: none.

    One GPU comes before several of any class. `options` are the config's options of the engine; a tensor_parallel_size
    or gpu_memory_utilization among them is kept.
    """
    options = options or {}
    fitting: list[Placement] = []
    for gpu, share, parallel in _candidates(gpus, options):
        if need.dtype == "bfloat16" and not gpu.bfloat16:
            continue
        chosen_by_config = options.get("tensor_parallel_size") == parallel and need.shape is None
        if not (need.divides(parallel) or chosen_by_config):
            continue
        may = int(gpu.memory_gib * GIB * share * float(options.get("gpu_memory_utilization", UTILIZATION)))
        memory = gpu.memory_gib * share * parallel
        if need.per_gpu(gpu, parallel) <= may and (not fitting or memory > fitting[-1].memory_gib):
            place = Placement(gpu.name, share * parallel, parallel, need.dtype, memory)
            if share < 1:
                left = None if need.stated else may - need.weights - need.work(gpu)
                utilization = int(share * UTILIZATION * 10_000) / 10_000
                place = dataclasses.replace(place, gpu_memory_utilization=utilization, kv_cache_memory_bytes=left)
            fitting.append(place)
    return tuple(fitting)


def _candidates(gpus: Sequence[GpuClass], options: Mapping[str, Any]) -> Iterator[tuple[GpuClass, float, int]]:
    """Yields (class, share of a GPU, number of GPUs) in the order of trial."""
    parallel = options.get("tensor_parallel_size")
    ordered = sorted(gpus, key=lambda gpu: gpu.memory_gib)
    if parallel in (None, 1):
        # A config that sets the memory of an engine means a whole GPU.
        sets_memory = {"gpu_memory_utilization", "kv_cache_memory_bytes"} & options.keys()
        shares = (1.0,) if sets_memory else (*SHARES, 1.0)
        yield from ((gpu, share, 1) for gpu in ordered for share in shares)
    for n in PARALLEL if parallel is None else [parallel] if parallel > 1 else []:
        yield from ((gpu, 1.0, n) for gpu in ordered if n <= gpu.per_node)


def place(model: ModelRef, need: Need, gpus: Sequence[GpuClass], options: Mapping[str, Any]) -> ModelRef:
    """Returns `model` with its placements.

    Raises ModelError of kind no_gpu_fits, and ConfigError for options that multiply GPUs in ways not counted here.
    """
    check_options(options)
    fitting = placements(need, gpus, options)
    if not fitting:
        largest = max(gpus, key=lambda gpu: gpu.memory_gib * gpu.per_node)
        wanted = need.per_gpu(largest) / UTILIZATION / GIB
        classes = ", ".join(f"{gpu.per_node} × {gpu.name}" for gpu in gpus)
        several = (
            "or a part of it on each of several; give fleet.gpus a larger class or a higher per_node"
            if need.shape
            else "and no config.json shows whether vLLM can divide it among several; give fleet.gpus a larger class, "
            "or the model's engine options a tensor_parallel_size"
        )
        raise ModelError(
            f"{model.name} fits on none of the GPUs of a node ({classes}): in {need.dtype} it needs {wanted:,.0f} GiB "
            f"of one GPU's memory, {several}",
            "no_gpu_fits",
        )
    # Engines swap weights on one GPU only.
    group = model.group if fitting[0].tensor_parallel_size == 1 else None
    return dataclasses.replace(model, placements=fitting, group=group)


def check_options(options: Mapping[str, Any]) -> None:
    """Raises ConfigError for engine options that ask vLLM for GPUs that a placement would not count."""
    extra = options.get("extra") or {}
    if wrong := sorted(_UNCOUNTED & extra.keys() if isinstance(extra, dict) else ()):
        raise ConfigError(
            f"engine options: extra.{wrong[0]} is not counted when models are placed on GPUs, only "
            "tensor_parallel_size is: leave it out, or give fleet.gpus_per_worker for all models alike"
        )


def next_placement(model: ModelRef) -> ModelRef | None:
    """Returns `model` at its next larger placement; None if it has the largest already."""
    rest = model.placements[1:]
    return dataclasses.replace(model, placements=rest) if rest else None
