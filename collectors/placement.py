"""How much GPU memory a model needs, and which GPUs it is put on.

Owns the sum and its assumptions, each a named constant with its source, and the order of placements: the smallest that
fits first, then larger ones for who ran out of memory. Memory comes from facts of the model's own files; where they do
not tell, that is an error and no default. Knows nothing of Ray or of how facts are read.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collectors.engines import ModelRef
from collectors.gpus import GIB, GpuClass, Placement
from collectors.model_facts import own_dtype, own_length, quantization_config, section
from collectors.model_shape import Shape, shape_of
from schemas.failures import ConfigError, ModelError

#: Share of a GPU's memory that vLLM takes (CacheConfig.gpu_memory_utilization, vLLM 0.32), unless an option says so.
UTILIZATION = 0.92
#: Tokens of key-value cache that a placement has room for, beside that vLLM starts with one request of max_length only
#: (its check_enough_kv_cache_memory): 16 requests of 2,048 tokens answer side by side. A choice of ours.
KV_TOKENS = 32_768
#: CUDA's context, NCCL's buffers and CUDA graphs on each GPU, GiB. Graphs alone took 2,464 MiB in vllm#7553, and vLLM
#: 0.32 counts them into its share.
FIXED_GIB = 2.5
#: Rows of logits at once, and bytes of each number: prompt log-probabilities come in chunks of 1,024 tokens
#: (v1/worker/gpu/sample/prompt_logprob.py of vLLM 0.32), as logits and, in float32, their log-softmax and a copy.
LOGIT_ROWS, LOGIT_BYTES = 1024, 10
#: Tokens of one forward pass (vLLM 0.32's EngineArgs.get_batch_defaults for LLM()): on GPUs from 70 GiB, but A100s, and
#: on smaller ones.
BATCHED_TOKENS_LARGE, BATCHED_TOKENS = 16_384, 8_192
#: Hidden states that live at once for each of them, beside both halves of a gated feed-forward and their product.
HIDDEN_COPIES = 4

#: Parts of a GPU that engines may share, and most GPUs of one engine; powers of two fill nodes without rest.
SHARES = (0.25, 0.5)
PARALLEL = (2, 4, 8, 16)

#: Arguments of vLLM that multiply an engine's GPUs, beside tensor_parallel_size.
_UNCOUNTED = frozenset({"pipeline_parallel_size", "data_parallel_size", "prefill_context_parallel_size"})

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8, "float8_e4m3fn": 1}


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before it is loaded. None: unknown."""

    parameters: int | None = None
    weight_bytes: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Need:
    """What one engine of a model needs, bytes over all GPUs unless it says otherwise."""

    dtype: str
    #: Or, where it is `stated`, all that is needed.
    weights: int
    #: None: unknown, and so is on how many GPUs vLLM would take it.
    shape: Shape | None
    #: Whether the config says it, in one sum.
    stated: bool = False
    tokens: int = 0
    #: Bytes of a number in the key-value cache and in activations.
    kv_bytes: int = 2
    item_bytes: int = 2
    #: Weights of a row that share a scale; 1: none do.
    block: int = 1

    def divides(self, parallel: int) -> bool:
        """Whether vLLM runs it on so many GPUs: as Shape.divides, and no block of a quantized weight is cut (its
        verify_group_size_divides_partition and validate_fp8_block_shape). Of an unknown shape only one is known to do.
        """
        shape = self.shape
        if shape is None or parallel == 1:
            return parallel == 1
        rows = (*(width // parallel for width in shape.widths), shape.heads // parallel * shape.head_dim)
        return shape.divides(parallel) and all(row % self.block == 0 for row in rows)

    def per_gpu(self, gpu: GpuClass, parallel: int = 1) -> int:
        """Bytes on each of `parallel` GPUs. Weights are divided evenly: what vLLM repeats (norms) is small."""
        return self.weights // parallel + self.cache(parallel) + self.work(gpu, parallel)

    def cache(self, parallel: int = 1) -> int:
        """Bytes of key-value cache on each GPU."""
        return self.tokens * self.shape.kv_numbers(parallel) * self.kv_bytes if self.shape and not self.stated else 0

    def work(self, gpu: GpuClass, parallel: int = 1) -> int:
        """Bytes of activations, of logits and of what is fixed on each GPU."""
        shape = self.shape
        if shape is None or self.stated:
            return 0
        large = gpu.memory_gib >= 70 and not gpu.name.startswith("A100")
        width = HIDDEN_COPIES * shape.hidden + 3 * shape.active // parallel
        passes = (BATCHED_TOKENS_LARGE if large else BATCHED_TOKENS) * width * self.item_bytes
        return int(max(passes, LOGIT_ROWS * shape.vocab * LOGIT_BYTES) + FIXED_GIB * GIB)


def need_of(model: ModelRef, facts: ModelFacts) -> Need:
    """What an engine of `model` needs, by its facts or as its config says (memory_gib).

    Raises ModelError of kind unknown_memory, naming the fact that is missing.
    """
    shape, dtype = shape_of(dict(facts.config)) if facts.config else None, _dtype(model, facts)
    block = _block(facts)
    if model.memory_gib is not None:
        return Need(dtype, int(model.memory_gib * GIB), shape, stated=True, block=block)
    item = _ITEM_BYTES.get(dtype)
    length = model.max_length or own_length(dict(facts.config))
    weights = None if item is None else _weight_bytes(facts, item)
    missing = {
        "config.json": facts.config,
        f"the size of {dtype!r}": item,
        "its layers, heads or vocabulary in config.json": shape,
        "its longest context (set max_length)": length,
        "the size of its weights": weights,
    }
    unknown = next((what for what, value in missing.items() if not value), None)
    if unknown or item is None or shape is None or length is None or weights is None:
        raise ModelError(
            f"the GPU memory of {model.name} is unknown: {unknown} is not known; give the model memory_gib",
            "unknown_memory",
        )
    kv_dtype = str(json.loads(model.overrides or "{}").get("kv_cache_dtype", "auto"))
    kv_bytes = 1 if kv_dtype.startswith("fp8") else item
    return Need(dtype, weights, shape, False, max(length, KV_TOKENS), kv_bytes, item, block)


def _dtype(model: ModelRef, facts: ModelFacts) -> str:
    """The dtype of the run. The stub's says whose place it takes: stub-bfloat16, or stub-auto for the model's own."""
    dtype = model.dtype.removeprefix("stub-")
    return own_dtype(dict(facts.config)) or "float32" if dtype == "auto" else dtype


def _weight_bytes(facts: ModelFacts, item: int) -> int | None:
    """Bytes of the weights once loaded: of a quantized checkpoint as its files are, else in the dtype of the run."""
    own = _ITEM_BYTES.get(own_dtype(dict(facts.config)) or "")
    quantized = bool(quantization_config(dict(facts.config)))
    if quantized or (facts.parameters is None and own == item):
        return facts.weight_bytes
    if facts.parameters is not None:
        return facts.parameters * item
    return facts.weight_bytes * item // own if facts.weight_bytes and own else None


def _block(facts: ModelFacts) -> int:
    """Weights of a row that share a scale in a quantized checkpoint: 128 in most; 1 where a whole row does, or none."""
    how = quantization_config(dict(facts.config))
    groups = [section(group, "weights") for group in section(how, "config_groups").values() if isinstance(group, dict)]
    found = [
        part.get(name) for part in (how, *groups) for name in ("group_size", "weight_block_size", "block_structure")
    ]
    sizes = [size for one in found for size in (one if isinstance(one, list) else [one])]
    return math.lcm(*{size for size in sizes if type(size) is int and 0 < size < 2**31})


def placements(need: Need, gpus: Sequence[GpuClass], options: Mapping[str, Any] | None = None) -> tuple[Placement, ...]:
    """Where a model with this need fits, the smallest first, each later one with more memory than the one before.

    One GPU comes before several, whichever class they are of. `options`: the engine's, as the config gives them; a
    tensor_parallel_size or gpu_memory_utilization among them is kept to. Empty: it fits nowhere.
    """
    options = options or {}
    found: list[Placement] = []
    for gpu, share, parallel in _candidates(gpus, options):
        if need.dtype == "bfloat16" and not gpu.bfloat16:
            continue
        told = options.get("tensor_parallel_size") == parallel and need.shape is None
        if not (need.divides(parallel) or told):
            continue
        may = int(gpu.memory_gib * GIB * share * float(options.get("gpu_memory_utilization", UTILIZATION)))
        memory = gpu.memory_gib * share * parallel
        if need.per_gpu(gpu, parallel) <= may and (not found or memory > found[-1].memory_gib):
            place = Placement(gpu.name, share * parallel, parallel, need.dtype, memory)
            if share < 1:
                left = None if need.stated else may - need.weights - need.work(gpu)
                utilization = int(share * UTILIZATION * 10_000) / 10_000
                place = dataclasses.replace(place, gpu_memory_utilization=utilization, kv_cache_memory_bytes=left)
            found.append(place)
    return tuple(found)


def _candidates(gpus: Sequence[GpuClass], options: Mapping[str, Any]) -> Iterator[tuple[GpuClass, float, int]]:
    """(class, share of one, how many), in the order in which they are tried."""
    parallel = options.get("tensor_parallel_size")
    ordered = sorted(gpus, key=lambda gpu: gpu.memory_gib)
    if parallel in (None, 1):
        # Who says how much of a GPU is used has thought of a whole one.
        told = {"gpu_memory_utilization", "kv_cache_memory_bytes"} & options.keys()
        shares = (1.0,) if told else (*SHARES, 1.0)
        yield from ((gpu, share, 1) for gpu in ordered for share in shares)
    for n in PARALLEL if parallel is None else [parallel] if parallel > 1 else []:
        yield from ((gpu, 1.0, n) for gpu in ordered if n <= gpu.per_node)


def place(model: ModelRef, need: Need, gpus: Sequence[GpuClass], options: Mapping[str, Any]) -> ModelRef:
    """`model` with its placements.

    Raises ModelError of kind no_gpu_fits, and ConfigError for options that ask for GPUs which it cannot count.
    """
    check_options(options)
    found = placements(need, gpus, options)
    if not found:
        largest = max(gpus, key=lambda gpu: gpu.memory_gib * gpu.per_node)
        wanted = need.per_gpu(largest) / UTILIZATION / GIB
        classes = ", ".join(f"{gpu.per_node} × {gpu.name}" for gpu in gpus)
        several = (
            "or on several a part each; give fleet.gpus a larger class or a higher per_node"
            if need.shape
            else "and no config.json tells whether vLLM can divide it among several; give fleet.gpus a larger class, "
            "or the model's engine options a tensor_parallel_size"
        )
        raise ModelError(
            f"{model.name} fits on none of the GPUs of a node ({classes}): in {need.dtype} it needs {wanted:,.0f} GiB "
            f"of one GPU's memory, {several}",
            "no_gpu_fits",
        )
    # Weights are swapped in engines of one GPU only.
    group = model.group if found[0].tensor_parallel_size == 1 else None
    return dataclasses.replace(model, placements=found, group=group)


def check_options(options: Mapping[str, Any]) -> None:
    """Raises ConfigError where engine options ask vLLM for GPUs that a placement would not count."""
    extra = options.get("extra") or {}
    if wrong := sorted(_UNCOUNTED & extra.keys() if isinstance(extra, dict) else ()):
        raise ConfigError(
            f"engine options: extra.{wrong[0]} is not counted where each model is put on GPUs, of which "
            "tensor_parallel_size alone takes several: leave it out, or give fleet.gpus_per_worker for all models alike"
        )


def next_placement(model: ModelRef) -> ModelRef | None:
    """`model` where it has more memory than where it is now; None where it is on the largest that there is."""
    rest = model.placements[1:]
    return dataclasses.replace(model, placements=rest) if rest else None
