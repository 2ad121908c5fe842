"""How much GPU memory models need, against published numbers and vLLM itself, and where they are put."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.engines import ModelRef
from collectors.engines.gpus import GIB, GpuClass, gpu_classes
from collectors.engines.stub import StubEngine
from collectors.models.placement import UTILIZATION, ModelSize, need_of, next_placement, place, placements
from collectors.models.shape import shape_of
from collectors.specs import GpuSpec, ModelSpec
from schemas.failures import ConfigError, ModelError
from tests.helpers.model_shapes import CONFIGS, EIGHT, LLAMA_8B, LLAMA_405B, PARAMETERS, facts, model

LLAMA_2_7B = {**LLAMA_8B, "intermediate_size": 11008, "vocab_size": 32000, "max_position_embeddings": 4096}
del LLAMA_2_7B["num_key_value_heads"]

QWEN_72B = {
    "model_type": "qwen2",
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
}

DEEPSEEK_V3 = {"model_type": "deepseek_v3", "num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64}


# ---- memory


@pytest.mark.parametrize(
    ("config", "kilobytes"),
    [
        # Zhao et al., "Insights into DeepSeek-V3" (ISCA 2025), table 1: key-value cache per token in BF16
        (DEEPSEEK_V3, 70.272),
        (QWEN_72B, 327.680),
        (LLAMA_405B, 516.096),
        # 16 GiB at 131,072 tokens: huggingface.co/blog/llama31
        (LLAMA_8B, 16 * 2**30 / 131_072 / 1000),
        # 2 × 32 layers × 4096 × 2 bytes, as its config names no key-value heads
        (LLAMA_2_7B, 2**19 / 1000),
        # Kwon et al., "PagedAttention" (SOSP 2023), section 3: 800 KB for OPT-13B
        ({"model_type": "opt", "hidden_size": 5120, "num_attention_heads": 40, "num_hidden_layers": 40}, 819.2),
    ],
)
def test_key_value_cache_per_token_is_as_published(config: dict[str, Any], kilobytes: float) -> None:
    shape = shape_of(config)
    assert shape is not None
    assert 2 * shape.kv_numbers() == round(kilobytes * 1000)


def test_key_value_cache_of_several_gpus_is_divided_repeated_or_kept_whole() -> None:
    shape, latent = shape_of(LLAMA_8B), shape_of(DEEPSEEK_V3)
    assert shape
    assert latent
    assert [shape.kv_numbers() // shape.kv_numbers(n) for n in (1, 2, 8, 16)] == [1, 2, 8, 8]
    assert latent.kv_numbers(8) == latent.kv_numbers()


@pytest.mark.parametrize(
    ("name", "dtype", "gib"), [("8b", "bfloat16", 14.96), ("8b", "float32", 29.92), ("70b", "bfloat16", 131.42)]
)
def test_weights_are_parameters_in_the_dtype_of_the_run(name: str, dtype: str, gib: float) -> None:
    assert need_of(model(name, dtype), facts(name)).weights / GIB == pytest.approx(gib, abs=0.01)


def test_weights_without_a_count_of_parameters_are_those_of_the_files_in_the_dtype_of_the_run() -> None:
    known = ModelSize(None, 2 * PARAMETERS["8b"], LLAMA_8B)
    assert need_of(model("8b"), known).weights == 2 * PARAMETERS["8b"]
    assert need_of(model("8b", "float32"), known).weights == 4 * PARAMETERS["8b"]


def test_weights_of_a_quantized_model_are_its_files() -> None:
    config = LLAMA_8B | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    assert need_of(model("8b", "float16"), ModelSize(None, 5_736_000_000, config)).weights == 5_736_000_000


@pytest.mark.parametrize(
    ("known", "missing"),
    [
        (ModelSize(), "config.json"),
        (ModelSize(None, None, LLAMA_8B), "the size of its weights"),
        (ModelSize(None, 16 * GIB, {**LLAMA_8B, "torch_dtype": None}), "the size of its weights"),
        (ModelSize(8, 16, {"model_type": "mamba"}), "its layers, heads or vocabulary"),
        (ModelSize(8, 16, {"model_type": "own_code", "hidden_size": 64}), "its layers, heads or vocabulary"),
    ],
)
def test_unknown_memory_is_an_error_that_names_what_is_missing(known: ModelSize, missing: str) -> None:
    with pytest.raises(ModelError, match=f"GPU memory of 8b is unknown: {missing}.*give the model memory_gib") as error:
        need_of(model("8b"), known)
    assert error.value.kind == "unknown_memory"
    stated = need_of(model("8b", memory_gib=20), known)
    assert stated.per_gpu(GpuClass("L4", 22.0)) == 20 * GIB


PACKED = {"config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 128}}}}


@pytest.mark.parametrize(
    "quantized",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
        {"compression_config": {"quant_method": "compressed-tensors", **PACKED}},
        {"model_type": "own_code", "text_config": {"quantization_config": {"quant_method": "x", **PACKED}}},
    ],
)
def test_placement_never_cuts_a_block_of_a_quantized_weight(quantized: dict[str, Any]) -> None:
    asked, l4 = ModelRef("m", "m", "r", None, "float16", max_length=8192), [GpuSpec(name="L4", per_node=8)]

    def on(intermediate: int) -> list[int]:
        need = need_of(asked, ModelSize(None, 41 * 10**9, QWEN_72B | quantized | {"intermediate_size": intermediate}))
        assert need.weights == 41 * 10**9  # as in its files
        return [place.tensor_parallel_size for place in placements(need, gpu_classes(l4), {})]

    assert on(29_568) == []  # 231 blocks of 128 for 2, 4 or 8 GPUs
    assert on(29_696) == [4, 8]  # what Qwen padded it to for that


def test_weights_of_an_empty_quantization_config_are_not_quantized() -> None:
    known = ModelSize(8 * 10**9, 16 * 10**9, LLAMA_8B | {"quantization_config": None})
    assert need_of(ModelRef("m", "m", "r", None, "float32", max_length=8192), known).weights == 32 * 10**9


@pytest.mark.parametrize(
    "damage",
    [
        {"model_type": ["llama"]},
        {"model_type": {}},
        {"model_type": "dbrx", "text_config": []},
        {"num_hidden_layers": 10**30},
        {"model_type": "qwen2", "num_labels": 10**12, "num_hidden_layers": 0},
        {"model_type": "gemma3", "text_config": {"num_hidden_layers": 10**12}, "num_hidden_layers": None},
    ],
)
def test_damaged_config_is_an_error_of_its_model_within_a_moment(damage: dict[str, Any]) -> None:
    known = ModelSize(8 * 10**9, None, LLAMA_8B | damage)
    gpus = gpu_classes([GpuSpec(name="H100", per_node=8)])
    with contextlib.suppress(ModelError):
        model = ModelRef("m", "m", "r", None)
        place(model, need_of(model, known), gpus, {})


def test_unknown_length_is_an_error_and_not_a_default() -> None:
    config = {key: value for key, value in LLAMA_8B.items() if key != "max_position_embeddings"}
    endless = dataclasses.replace(model("8b"), max_length=None)
    with pytest.raises(ModelError, match="set max_length"):
        need_of(endless, ModelSize(8, 16, config))


KINDS = [
    *("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3", "gpt2"),
    *("gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "falcon", "mpt", "bloom", "opt", "phi", "phi3", "phimoe", "olmo"),
    *("olmo2", "olmoe", "granite", "stablelm", "starcoder2", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "dbrx"),
    *("exaone4", "glm", "glm4", "smollm3", "gpt_oss", "llama4", "zamba2", "persimmon", "codegen", "seed_oss"),
    *("qwen3_next", "apertus"),
]


@pytest.mark.slow
def test_shapes_of_all_architectures_are_those_that_vllm_reads() -> None:
    import vllm.config  # noqa: F401  (before its parts, which import each other)
    from transformers import CONFIG_MAPPING
    from vllm.transformers_utils import model_arch_config_convertor as vllms

    for kind in KINDS:
        config = CONFIG_MAPPING[kind]()
        convertor = vllms.MODEL_ARCH_CONFIG_CONVERTORS.get(kind, vllms.ModelArchConfigConvertorBase)
        theirs = convertor(config, config.get_text_config())
        for written in ({"model_type": kind}, config.to_dict()):
            shape = shape_of(written)
            assert shape, kind
            assert (shape.layers, shape.heads, shape.kv_heads, shape.latent or shape.head_dim) == (
                theirs.get_num_hidden_layers(),
                theirs.get_total_num_attention_heads(),
                theirs.get_total_num_kv_heads(),
                theirs.get_head_size(),
            ), kind


def test_need_of_a_stub_is_that_of_the_model_whose_place_it_takes() -> None:
    wanted = need_of(model("8b"), facts("8b"))
    for dtype in ("bfloat16", "auto"):
        stub = StubEngine.pin(ModelSpec(source="8b"), dtype, None)
        assert stub.dtype == f"stub-{dtype}"
        assert need_of(replace(stub, max_length=8192), facts("8b")) == wanted


# ---- placements


def put(name: str, specs: list[GpuSpec] = EIGHT, dtype: str = "bfloat16", **options: Any) -> list[str]:
    return [str(one) for one in placements(need_of(model(name, dtype), facts(name)), gpu_classes(specs), options)]


def test_placement_is_the_smallest_gpu_that_fits_then_more_memory() -> None:
    assert put("smol")[0] == "1/4 × L4"  # T4s have no bfloat16
    assert put("smol", dtype="float16")[0] == "1/2 × T4"
    assert put("8b") == ["1/2 × A100-80G", "1 × A100-80G", "2 × A100-80G", "4 × A100-80G", "8 × A100-80G"]
    assert put("8b", dtype="float32")[0] == "1 × A100-80G"
    assert put("70b")[0] == "4 × A100-80G"
    assert put("405b") == []
    assert put("405b", [GpuSpec(name="H200", per_node=8)]) == ["8 × H200"]
    assert put("405b", [GpuSpec(name="H100", per_node=16)]) == ["16 × H100"]


def test_placement_70b_on_gpus_of_one_each_fits_nowhere_and_says_so() -> None:
    gpus = gpu_classes([GpuSpec(name="H100")])
    with pytest.raises(ModelError, match=r"70b fits on none of the GPUs of a node \(1 × H100\): in bfloat16") as error:
        place(model("70b"), need_of(model("70b"), facts("70b")), gpus, {})
    assert error.value.kind == "no_gpu_fits"


def test_placement_keeps_to_engine_options_of_the_config() -> None:
    assert put("8b", tensor_parallel_size=2)[0] == "2 × L4"
    assert put("smol", gpu_memory_utilization=0.9)[0] == "1 × L4"
    assert put("8b", gpu_memory_utilization=0.3)[0] == "1 × A100-80G"
    assert put("smol", kv_cache_memory_bytes=GIB)[0] == "1 × L4"  # of its own size: no share of a GPU holds it for sure


@pytest.mark.parametrize(
    ("config", "several"),
    [
        ({"model_type": "qwen3_moe", "moe_intermediate_size": 768, "intermediate_size": 6144}, [2, 4, 8]),
        ({"model_type": "qwen3_moe", "moe_intermediate_size": 770, "intermediate_size": 6144}, [2]),
        ({"model_type": "qwen3_moe", "moe_intermediate_size": 768, "intermediate_size": 6146}, [2]),
        ({"model_type": "deepseek_v3", "moe_intermediate_size": 2048, "intermediate_size": 10945}, []),
        ({"model_type": "qwen2_moe", "shared_expert_intermediate_size": 5636, "moe_intermediate_size": 1408}, [2, 4]),
        ({"model_type": "own_code", "moe_intermediate_size": 1001, "num_experts_per_tok": 1}, []),
    ],
)
def test_mixture_of_experts_is_divided_where_its_experts_and_its_dense_blocks_are(
    config: dict[str, Any], several: list[int]
) -> None:
    shape = shape_of({**LLAMA_8B, "num_key_value_heads": 32, **config})
    assert shape
    assert [n for n in (2, 4, 8) if shape.divides(n)] == several


def test_placement_of_an_unknown_shape_is_one_gpu_unless_the_config_says_several() -> None:
    gpus, stated = gpu_classes(EIGHT), model("8b", memory_gib=30)
    unknown, known = need_of(stated, ModelSize()), need_of(stated, facts("8b"))
    assert [str(one) for one in placements(unknown, gpus)] == ["1/2 × A100-80G", "1 × A100-80G"]
    assert str(placements(known, gpus)[0]) == "1/2 × A100-80G"
    assert len(placements(known, gpus)) > 2
    assert [str(one) for one in placements(unknown, gpus, {"tensor_parallel_size": 2})] == ["2 × L4", "2 × A100-80G"]
    large = model("8b", memory_gib=100)
    with pytest.raises(ModelError, match=r"no config\.json shows whether vLLM can divide it.*a tensor_parallel_size"):
        place(large, need_of(large, ModelSize()), gpus, {})
    assert place(large, need_of(large, facts("8b")), gpus, {}).placements


@pytest.mark.parametrize("name", ["pipeline_parallel_size", "data_parallel_size", "prefill_context_parallel_size"])
def test_placement_refuses_options_whose_gpus_it_does_not_count(name: str) -> None:
    said = rf"extra\.{name} is not counted when models are placed on GPUs.* or give fleet.gpus_per_worker"
    with pytest.raises(ConfigError, match=said):
        place(model("8b"), need_of(model("8b"), facts("8b")), gpu_classes(EIGHT), {"extra": {name: 2}})


def test_next_placement_has_more_memory_until_there_is_none() -> None:
    now: ModelRef | None = place(model("8b"), need_of(model("8b"), facts("8b")), gpu_classes(EIGHT), {})
    seen = []
    while now is not None:
        assert now.placement
        seen.append(now.placement.memory_gib)
        now = next_placement(now)
    assert seen == sorted(set(seen))
    assert len(seen) == 5
    assert next_placement(model("8b")) is None


@given(
    st.sampled_from(sorted(CONFIGS)),
    st.sampled_from(["bfloat16", "float16", "float32"]),
    st.integers(64, 131_072),
    st.lists(
        st.builds(GpuClass, st.sampled_from("ABC"), st.floats(4, 200), st.integers(1, 16)),
        min_size=1,
        unique_by=lambda gpu: gpu.name,
    ),
)
def test_placements_hold_what_the_model_needs_and_share_a_gpu_without_overrun(
    name: str, dtype: str, length: int, gpus: list[GpuClass]
) -> None:
    need = need_of(model(name, dtype, max_length=length), facts(name))
    by_name = {gpu.name: gpu for gpu in gpus}
    for one in placements(need, gpus):
        gpu, parallel = by_name[one.gpu], one.tensor_parallel_size
        share = one.gpus / parallel
        assert parallel <= gpu.per_node
        assert CONFIGS[name]["num_attention_heads"] % parallel == 0
        assert need.per_gpu(gpu, parallel) <= gpu.memory_gib * GIB * share * UTILIZATION
        if share < 1:
            assert one.gpu_memory_utilization is not None
            assert one.kv_cache_memory_bytes is not None
            assert one.gpu_memory_utilization / share <= UTILIZATION  # all its sharers together
            assert need.cache() <= one.kv_cache_memory_bytes < one.memory_gib * GIB
