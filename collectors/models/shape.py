"""Reads from config.json the shape of a model, as far as its memory depends on it.

Owns the keys that give it. A config.json leaves out the defaults of its class (Gemma 3 its heads, Llama 2 its key-value
heads), so transformers' own classes read it first. Only for a class that transformers lacks are the keys read directly.
"""

from __future__ import annotations

import functools
import json
import logging
from dataclasses import dataclass
from typing import Any

from collectors.models.model_files import section

# Several keys for one number each, in vLLM 0.32's order (transformers_utils/model_arch_config_convertor.py).
_KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_HEAD_DIM = ("attention_head_dim", "head_dim", "hidden_size_per_head", "kv_channels")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_INTERMEDIATE = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k")
#: Keys of other feed-forward widths in a layer: experts', the shared expert's, dense layers'.
_WIDTHS = (
    *("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size", "shared_intermediate_size"),
    *("intermediate_size_mlp",),
)
#: Keys without a size. transformers' validators refuse some of their values that engines load.
_BESIDE = frozenset(["rope_scaling", "rope_parameters", "quantization_config", "auto_map", "transformers_version"])
#: Keys of counts that transformers turns into lists of that length. A damaged count would take all memory.
_LISTED = (*_LAYERS, "num_labels")
#: More layers or labels than any decoder has.
MOST_LISTED = 100_000


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder as whole numbers, for all GPUs together."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    #: Widths of its feed-forward blocks: one expert's, and those of dense layers beside them.
    widths: frozenset[int]
    #: Width that one token passes in a layer: all of its experts, or a dense block if that is wider.
    active: int
    vocab: int
    #: Numbers that one layer keeps of a token if it does not keep keys and values per head (DeepSeek's latent
    #: attention). Every GPU of a tensor-parallel engine keeps all of them. None: it keeps keys and values.
    latent: int | None = None

    def kv_numbers(self, tensor_parallel_size: int = 1) -> int:
        """Numbers that each GPU keeps of one token in its key-value cache.

        Counts all layers as full attention, though sliding windows keep less. The heads are divided among the GPUs, but
        each GPU has at least one (ModelConfig.get_num_kv_heads of vLLM 0.32).
        """
        if self.latent is not None:
            return self.layers * self.latent
        return 2 * self.layers * max(1, self.kv_heads // tensor_parallel_size) * self.head_dim

    def divides(self, tensor_parallel_size: int) -> bool:
        """Whether vLLM can divide the model among so many GPUs.

        Attention heads and all feed-forward blocks must divide evenly, key-value heads divide or repeat evenly (vLLM's
        verify_with_parallel_config, divide(), FusedMoEConfig and QKVParallelLinear).
        """
        n, kv = tensor_parallel_size, self.kv_heads
        even = self.heads % n == 0 and all(width % n == 0 for width in self.widths)
        return even and (self.latent is not None or kv % n == 0 or n % kv == 0)


def shape_of(config: dict[str, Any]) -> Shape | None:
    """Returns the shape of the model with this config.json; None if sizes are missing or it is not a transformer."""
    return _shape(json.dumps({k: v for k, v in config.items() if k not in _BESIDE}, sort_keys=True))


@functools.lru_cache(4096)
def _shape(config_json: str) -> Shape | None:
    config = json.loads(config_json)
    values = _by_transformers(config)
    if values is None:
        values = {**config, **section(config, "text_config"), **section(config, "llm_config")}
    attention = values.get("attn_config")  # MPT's and DBRX's
    attention = attention if isinstance(attention, dict) else getattr(attention, "__dict__", {})
    heads, layers, hidden = (_first(values, names) for names in (_HEADS, _LAYERS, _HIDDEN))
    vocab = _first(values, ("vocab_size", "padded_vocab_size"))
    if not (heads and layers and hidden and vocab):
        return None
    kv_heads = _first(attention, ("kv_n_heads",)) or _first(values, _KV_HEADS) or heads
    if values.get("multi_query") is True and not values.get("new_decoder_architecture"):
        kv_heads = 1  # Falcon and GPTBigCode
    experts = _first(values, _EXPERTS) or 1
    wide = _first(values, _INTERMEDIATE) or 4 * hidden  # GPT-2's default
    each = (_first(values, ("moe_intermediate_size",)) or wide) if experts > 1 else wide
    dense = wide if _first(values, _INTERMEDIATE) else each
    widths = {each, dense, *(width for name in _WIDTHS if (width := _first(values, (name,))))}
    rank, rope = _first(values, ("kv_lora_rank",)), _first(values, ("qk_rope_head_dim",))
    return Shape(
        layers,
        heads,
        kv_heads,
        _first(values, _HEAD_DIM) or hidden // heads,
        hidden,
        frozenset(widths),
        max(wide, experts * each),
        vocab,
        rank + rope if rank and rope else None,
    )


def _by_transformers(config: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the config with the defaults of its class, by transformers' own names; None if it lacks the class."""
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING or _most_listed(config) > MOST_LISTED:
        return None
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        text = CONFIG_MAPPING[kind].from_dict(config).get_text_config()
        own = vars(text)
    except Exception:  # each class raises its own errors; the engine reports the fault later
        return None
    finally:
        logger.setLevel(level)
    names = (*_KV_HEADS, *_LAYERS, *_HEADS, *_HIDDEN, *_INTERMEDIATE, *_EXPERTS)
    return {**own, **{name: value for name in names if (value := getattr(text, name, None)) is not None}}


def _most_listed(value: Any) -> float:
    """The largest count of `_LISTED` in a config and its sections; 0 without any."""
    if not isinstance(value, dict):
        return 0
    own = [value[name] for name in _LISTED if isinstance(value.get(name), int | float)]
    return max([*own, *map(_most_listed, value.values())], default=0)


def _first(values: dict[str, Any], names: tuple[str, ...]) -> int | None:
    """The first value of `names` that is a whole number above 0; the largest of a list, which has one per layer."""
    for name in names:
        value = values.get(name)
        value = max(value) if isinstance(value, list) and value and all(type(v) is int for v in value) else value
        if type(value) is int and value > 0:
            return value
    return None
