"""The shape of a model that its config.json tells, as far as memory depends on it.

Owns which keys say it. A config.json leaves out what its class has as default (Gemma 3 its heads, Llama 2 its key-value
heads), so transformers' own classes are asked first; only for a class that it lacks the keys themselves are read.
"""

from __future__ import annotations

import functools
import json
import logging
from dataclasses import dataclass
from typing import Any

from collectors.model_facts import section

#: Of several names for one thing; as vLLM 0.32 looks for them (transformers_utils/model_arch_config_convertor.py).
_KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_HEAD_DIM = ("attention_head_dim", "head_dim", "hidden_size_per_head", "kv_channels")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_INTERMEDIATE = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k")
#: Other widths of feed-forward blocks in a layer: of experts, of the one that all tokens share, of dense layers.
_WIDTHS = (
    *("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size", "shared_intermediate_size"),
    *("intermediate_size_mlp",),
)
#: Keys that size nothing, and of which validators complain in configs that engines load.
_BESIDE = frozenset(["rope_scaling", "rope_parameters", "quantization_config", "auto_map", "transformers_version"])
#: Counts for which transformers makes a list of so many elements: a damaged one would take all memory.
_LISTED = (*_LAYERS, "num_labels")
#: No decoder has more layers, or labels.
MOST_LISTED = 100_000


@dataclass(frozen=True)
class Shape:
    """Whole numbers of a decoder, over all GPUs."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    #: Widths of its feed-forward blocks: of one expert, of dense layers beside them; where all are alike it is one.
    widths: frozenset[int]
    #: Width of all that one token goes through in a layer: its experts', or a dense block's where that is wider.
    active: int
    vocab: int
    #: Numbers that one layer keeps of a token where these are not keys and values of heads (DeepSeek's latent
    #: attention): every GPU of a tensor-parallel engine keeps all of them.
    latent: int | None = None

    def kv_numbers(self, tensor_parallel_size: int = 1) -> int:
        """Numbers that each GPU keeps of one token in its key-value cache.

        All layers count as full attention: sliding windows keep less. Heads are divided, and where there are fewer than
        GPUs each has one (ModelConfig.get_num_kv_heads of vLLM 0.32).
        """
        if self.latent is not None:
            return self.layers * self.latent
        return 2 * self.layers * max(1, self.kv_heads // tensor_parallel_size) * self.head_dim

    def divides(self, tensor_parallel_size: int) -> bool:
        """Whether vLLM runs it on so many GPUs: attention heads and feed-forward blocks, experts' and dense ones, are
        divided evenly, key-value heads divided or repeated evenly (its verify_with_parallel_config, divide(),
        FusedMoEConfig and QKVParallelLinear)."""
        n, kv = tensor_parallel_size, self.kv_heads
        even = self.heads % n == 0 and all(width % n == 0 for width in self.widths)
        return even and (self.latent is not None or kv % n == 0 or n % kv == 0)


def shape_of(config: dict[str, Any]) -> Shape | None:
    """The shape of the model with this config.json; None where it does not tell, or is no transformer."""
    return _shape(json.dumps({k: v for k, v in config.items() if k not in _BESIDE}, sort_keys=True))


@functools.lru_cache(4096)
def _shape(config_json: str) -> Shape | None:
    config = json.loads(config_json)
    found = _by_transformers(config)
    if found is None:
        found = {**config, **section(config, "text_config"), **section(config, "llm_config")}
    attention = found.get("attn_config")  # MPT's and DBRX's
    attention = attention if isinstance(attention, dict) else getattr(attention, "__dict__", {})
    heads, layers, hidden = (_first(found, names) for names in (_HEADS, _LAYERS, _HIDDEN))
    vocab = _first(found, ("vocab_size", "padded_vocab_size"))
    if not (heads and layers and hidden and vocab):
        return None
    kv_heads = _first(attention, ("kv_n_heads",)) or _first(found, _KV_HEADS) or heads
    if found.get("multi_query") is True and not found.get("new_decoder_architecture"):
        kv_heads = 1  # Falcon and GPTBigCode
    experts = _first(found, _EXPERTS) or 1
    wide = _first(found, _INTERMEDIATE) or 4 * hidden  # GPT-2's own rule, where none is named
    each = (_first(found, ("moe_intermediate_size",)) or wide) if experts > 1 else wide
    dense = wide if _first(found, _INTERMEDIATE) else each
    widths = {each, dense, *(width for name in _WIDTHS if (width := _first(found, (name,))))}
    rank, rope = _first(found, ("kv_lora_rank",)), _first(found, ("qk_rope_head_dim",))
    return Shape(
        layers,
        heads,
        kv_heads,
        _first(found, _HEAD_DIM) or hidden // heads,
        hidden,
        frozenset(widths),
        max(wide, experts * each),
        vocab,
        rank + rope if rank and rope else None,
    )


def _by_transformers(config: dict[str, Any]) -> dict[str, Any] | None:
    """The config with its class's defaults, by transformers' own names; None where it has no such class."""
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
    except Exception:  # each class checks in ways of its own; an engine says later what is wrong
        return None
    finally:
        logger.setLevel(level)
    names = (*_KV_HEADS, *_LAYERS, *_HEADS, *_HIDDEN, *_INTERMEDIATE, *_EXPERTS)
    return {**own, **{name: value for name in names if (value := getattr(text, name, None)) is not None}}


def _most_listed(value: Any) -> float:
    """The largest of `_LISTED` in a config and in its sections; 0 where it has none."""
    if not isinstance(value, dict):
        return 0
    own = [value[name] for name in _LISTED if isinstance(value.get(name), int | float)]
    return max([*own, *map(_most_listed, value.values())], default=0)


def _first(found: dict[str, Any], names: tuple[str, ...]) -> int | None:
    """The first of `names` that holds a whole number above 0; of a list, one per layer, the largest."""
    for name in names:
        value = found.get(name)
        value = max(value) if isinstance(value, list) and value and all(type(v) is int for v in value) else value
        if type(value) is int and value > 0:
            return value
    return None
