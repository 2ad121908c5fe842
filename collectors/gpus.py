"""Classes of GPUs, and where on them a model is put.

Owns what is known of each class and the terms of a placement. Knows nothing of models' needs (collectors.placement) or
of Ray.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from collectors.config import GpuSpec
from schemas.failures import ConfigError

GIB = 2**30


@dataclass(frozen=True)
class GpuClass:
    """GPUs of one kind, as Ray's accelerator_type calls them."""

    name: str
    #: What CUDA reports of one, GiB.
    memory_gib: float
    #: Most of them in one node: tensor parallelism stays inside.
    per_node: int = 1
    #: Peak of dense bfloat16 (else float16) matrix products, 10¹² operations a second; None: unknown.
    tflops: float | None = None
    #: Of its memory, 10⁹ bytes a second; None: unknown.
    bandwidth: float | None = None
    #: Whether it computes in bfloat16: compute capability 8.0, or vLLM refuses the dtype.
    bfloat16: bool = True


@dataclass(frozen=True)
class _Known:
    memory_gib: float
    tflops: float
    bandwidth: float
    #: A pattern of the device's name, as engines record it.
    device: str
    bfloat16: bool = True


# Memory: what CUDA reports, rounded down, as PyTorch's out-of-memory messages quote it (H100 79.11: vllm#27508; A100
# 39.39: bottlerocket#3873; L40S 44.40: Qwen3-VL#2097; V100 of 32 GB 31.74, so 15.7 of 16). That is less than nvidia-smi
# shows (modal-client#2797 lists H100, A100, A10, L40S, L4, T4); where only that is known 2 % are taken off it, as for
# the others. Operations and bandwidth: NVIDIA's data sheets, SXM where there are several, without sparsity.
_KNOWN = {
    "T4": _Known(14.5, 65, 320, r"\bT4\b", bfloat16=False),
    "V100": _Known(15.7, 125, 900, r"\bV100", bfloat16=False),  # Ray's name for both sizes: the smaller
    "L4": _Known(22.0, 121, 300, r"\bL4\b"),
    "A10G": _Known(22.0, 70, 600, r"\bA10G?\b"),
    "L40S": _Known(44.4, 362, 864, r"\bL40S\b"),
    "A100": _Known(39.3, 312, 1555, r"\bA100"),  # as V100
    "A100-40G": _Known(39.3, 312, 1555, r"\bA100.*40GB"),
    "A100-80G": _Known(79.1, 312, 2039, r"\bA100.*80GB"),
    "H100": _Known(79.1, 989, 3350, r"\bH100"),
    "H200": _Known(139.0, 989, 4800, r"\bH200"),
}


def _known(name: str) -> _Known | None:
    return _KNOWN.get(re.sub(r"GB$", "G", name.strip().replace(" ", "-")))


def gpu_classes(specs: Iterable[GpuSpec]) -> list[GpuClass]:
    """The classes that a config or a cluster names, smallest memory first.

    Raises ConfigError for one whose memory nobody knows.
    """
    found = []
    for spec in specs:
        known = _known(spec.name)
        if spec.memory_gib is None and known is None:
            raise ConfigError(
                f"fleet.gpus: the memory of a {spec.name} is not known: give memory_gib, or fleet.gpus_per_worker for "
                f"all models alike (known are {', '.join(_KNOWN)})"
            )
        memory = spec.memory_gib or (known.memory_gib if known else 0.0)
        rest = (known.tflops, known.bandwidth, known.bfloat16) if known else (None, None, True)
        found.append(GpuClass(spec.name, memory, spec.per_node, *rest))
    return sorted(found, key=lambda gpu: (gpu.memory_gib, gpu.name))


def is_device(gpu: str, device: str | None) -> bool:
    """Whether a device, by the name that engines record, is of the class `gpu`."""
    known = _known(gpu)
    return device is not None and bool(re.search(known.device if known else re.escape(gpu), device, re.IGNORECASE))


def class_of(device: str | None) -> str | None:
    """The known class of a device, the narrowest where several are; None where none is."""
    return max((name for name in _KNOWN if is_device(name, device)), key=len, default=None)


@dataclass(frozen=True)
class Placement:
    """Where one engine runs: some GPUs of one class in one node, or a part of one."""

    gpu: str
    #: 0.25 or 0.5 of one, 1, or as many as tensor_parallel_size.
    gpus: float
    tensor_parallel_size: int
    dtype: str
    #: Memory of these GPUs, or of that part, GiB.
    memory_gib: float
    #: What vLLM may use of each GPU; None: its own default, or what the config's engine options say.
    gpu_memory_utilization: float | None = None
    #: Key-value cache, where engines share a GPU: vLLM then does not measure what is free while others start.
    kv_cache_memory_bytes: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Options of the vLLM engine; what a config says lies over them."""
        named = ("tensor_parallel_size", "gpu_memory_utilization", "kv_cache_memory_bytes")
        return {name: value for name in named if (value := getattr(self, name)) is not None}

    @property
    def resources(self) -> dict[str, Any]:
        """What Ray's `.options` take for the process: one of its own starts the others of a tensor-parallel engine."""
        return {"num_gpus": self.gpus, "accelerator_type": self.gpu}

    def __str__(self) -> str:
        part = {0.25: "1/4", 0.5: "1/2"}.get(self.gpus, f"{self.gpus:g}")
        return f"{part} × {self.gpu}"
