"""Classes of GPUs, and placements of a model on them.

Owns the figures of each class and the fields of a placement. Knows nothing of models' needs
(collectors.models.placement) or of Ray.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schemas.failures import ConfigError

if TYPE_CHECKING:
    from collectors.specs import GpuSpec

GIB = 2**30


@dataclass(frozen=True)
class GpuClass:
    """GPUs of one kind."""

    #: Ray's accelerator_type.
    name: str
    #: Memory of one GPU as CUDA reports it, GiB.
    memory_gib: float
    #: Most GPUs in one node, since tensor parallelism stays inside a node.
    per_node: int = 1
    #: Peak of dense bfloat16 (else float16) matrix products, 10¹² operations a second; None: unknown.
    tflops: float | None = None
    #: Bandwidth of its memory, 10⁹ bytes a second; None: unknown.
    bandwidth: float | None = None
    #: Whether it computes in bfloat16. vLLM refuses the dtype below compute capability 8.0.
    bfloat16: bool = True


@dataclass(frozen=True)
class _Figures:
    """The figures of a class, in GpuClass's units."""

    memory_gib: float
    tflops: float
    bandwidth: float
    #: A pattern for the device's name, as engines record it.
    device: str
    bfloat16: bool = True


# Memory is CUDA's figure, rounded down, as PyTorch's out-of-memory messages quote it (H100 79.11: vllm#27508; A100
# 39.39: bottlerocket#3873; L40S 44.40: Qwen3-VL#2097; V100 of 32 GB 31.74, so 15.7 of 16). nvidia-smi shows more
# (modal-client#2797 lists H100, A100, A10, L40S, L4, T4). Where no message quotes it, it is nvidia-smi's less 2 %.
# Operations and bandwidth are from NVIDIA's data sheets, for SXM where there are several, without sparsity.
_CLASSES = {
    "T4": _Figures(14.5, 65, 320, r"\bT4\b", bfloat16=False),
    "V100": _Figures(15.7, 125, 900, r"\bV100", bfloat16=False),  # Ray's name for two sizes: this is the smaller
    "L4": _Figures(22.0, 121, 300, r"\bL4\b"),
    "A10G": _Figures(22.0, 70, 600, r"\bA10G?\b"),
    "L40S": _Figures(44.4, 362, 864, r"\bL40S\b"),
    "A100": _Figures(39.3, 312, 1555, r"\bA100"),  # as for V100
    "A100-40G": _Figures(39.3, 312, 1555, r"\bA100.*40GB"),
    "A100-80G": _Figures(79.1, 312, 2039, r"\bA100.*80GB"),
    "H100": _Figures(79.1, 989, 3350, r"\bH100"),
    "H200": _Figures(139.0, 989, 4800, r"\bH200"),
    "B200": _Figures(175.5, 2250, 8000, r"\bB200"),  # nvidia-smi's 183,359 MiB less 2 %
}


def _figures(name: str) -> _Figures | None:
    return _CLASSES.get(re.sub(r"GB$", "G", name.strip().replace(" ", "-")))


def ray_name(gpu: str) -> str:
    """Ray's accelerator_type of the nodes with GPUs of a class: it gives both sizes of the A100 one name."""
    return re.sub(r"^A100[- ](40|80)GB?$", "A100", gpu.strip())


def gpu_classes(specs: Iterable[GpuSpec]) -> list[GpuClass]:
    """Returns the classes that a config or a cluster names, smallest memory first.

    Raises ConfigError for a class whose memory neither the config nor this module gives.
    """
    classes = []
    for spec in specs:
        figures = _figures(spec.name)
        if spec.memory_gib is None and figures is None:
            raise ConfigError(
                f"fleet.gpus: the memory of a {spec.name} is not known: give memory_gib, or fleet.gpus_per_worker for "
                f"all models alike (the memory of {', '.join(_CLASSES)} is known)"
            )
        memory = spec.memory_gib or (figures.memory_gib if figures else 0.0)
        rest = (figures.tflops, figures.bandwidth, figures.bfloat16) if figures else (None, None, True)
        classes.append(GpuClass(spec.name, memory, spec.per_node, *rest))
    return sorted(classes, key=lambda gpu: (gpu.memory_gib, gpu.name))


def is_device(gpu: str, device: str | None) -> bool:
    """Whether a device, named as engines record it, is of the class `gpu`."""
    figures = _figures(gpu)
    return device is not None and bool(re.search(figures.device if figures else re.escape(gpu), device, re.IGNORECASE))


def class_of(device: str | None) -> str | None:
    """Returns the narrowest built-in class of a device, or None."""
    return max((name for name in _CLASSES if is_device(name, device)), key=len, default=None)


@dataclass(frozen=True)
class Placement:
    """The GPUs of one engine: some of one class in one node, or a part of one."""

    #: Name of the class.
    gpu: str
    #: Number of GPUs: 0.25 or 0.5, 1, or as many as tensor_parallel_size.
    gpus: float
    tensor_parallel_size: int
    dtype: str
    #: Memory of these GPUs together, or of the part, GiB.
    memory_gib: float
    #: Share of each GPU that vLLM may use; None: vLLM's own default, or the config's engine option.
    gpu_memory_utilization: float | None = None
    #: Key-value cache where engines share a GPU. With it vLLM does not measure free memory while others start.
    kv_cache_memory_bytes: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Options for the vLLM engine. The config's options win over them."""
        named = ("tensor_parallel_size", "gpu_memory_utilization", "kv_cache_memory_bytes")
        return {name: value for name in named if (value := getattr(self, name)) is not None}

    @property
    def resources(self) -> dict[str, Any]:
        """Arguments of Ray's `.options` for the engine's process, which itself starts those of its other GPUs."""
        return {"num_gpus": self.gpus, "accelerator_type": ray_name(self.gpu)}

    def __str__(self) -> str:
        part = {0.25: "1/4", 0.5: "1/2"}.get(self.gpus, f"{self.gpus:g}")
        return f"{part} × {self.gpu}"
