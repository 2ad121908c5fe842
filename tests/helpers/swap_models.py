"""Tiny random models of every architecture whose weights may be swapped, tied and untied where both exist.

Owns their shapes. Two of one variant differ in every tensor, norms and biases too, so that a tensor which a swap leaves
in place shows in the answers.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

#: vLLM's attention on CPUs takes heads of 32 and more.
_SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
}
_GROUPED = {**_SHAPE, "num_key_value_heads": 2}
_WINDOWS = {**_GROUPED, "head_dim": 32, "sliding_window": 64}

#: transformers' name of the model type -> what its config is made with.
TYPES: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "mistral": {**_GROUPED, "sliding_window": None},
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 32},
    "phi3": _GROUPED,
    "gemma2": _WINDOWS,
    "gemma3_text": _WINDOWS,
    "granite": _GROUPED,
    "olmo2": _GROUPED,
    "smollm3": _GROUPED,
    "stablelm": _GROUPED,
    "gpt_neox": _SHAPE,
}
#: Gemma 2 has no output matrix of its own.
VARIANTS = [f"{name}-{tied}" for name in TYPES for tied in ("tied", "untied") if (name, tied) != ("gemma2", "untied")]


def build(variant: str, seed: int, tokenizer: Path, folder: Path, **shape: Any) -> Path:
    """Writes one model into `folder`, float32, with the tokenizer of a tiny model's folder. `shape`: other settings."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, _, tied = variant.rpartition("-")
    special = {"vocab_size": 1024, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    config = AutoConfig.for_model(
        model_type, **{**TYPES[model_type], **shape}, **special, tie_word_embeddings=tied == "tied"
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # as they are made, norms are ones, biases zeros, and answers all alike
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn(parameter.shape))
            else:
                parameter.mul_(3)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    return folder
