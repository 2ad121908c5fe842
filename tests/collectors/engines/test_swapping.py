"""Which models count as one group, which weights are refused, and that swapped weights answer as new engines do."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from collectors.engines import GenerateRequest, ModelRef, ScoreRequest, make_engine
from collectors.engines.live import check_canary
from collectors.engines.swapping import ALLOWED, CANARY_LENGTHS, canary_prompts, check_weights, swap_key, tensors
from schemas.failures import EngineError, ModelError
from tests.helpers.swap_models import TYPES, VARIANTS, build
from tests.helpers.thorough import LONG, long_only

WEIGHTS = "model.safetensors"


def plain(folder: Path, **fields: Any) -> ModelRef:
    """A model named by its folder, in float32 by default."""
    known = {"name": folder.name, "source": str(folder), "revision": folder.name, "path": str(folder)}
    return ModelRef(**{**known, "dtype": "float32", **fields})


def edit(folder: Path, name: str, **changes: object) -> None:
    file = folder / name
    old = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({k: v for k, v in {**old, **changes}.items() if v != "gone"}))


def edit_tensors(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    held = dict(load_file(folder / WEIGHTS))
    change(held)
    save_file(held, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the key and the checks read of a model; no engine could load it."""
    made = tmp_path / "model"
    made.mkdir()
    edit(made, "config.json", architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=3, eos_token_id=1)
    edit(made, "tokenizer.json", model={"vocab": {"a": 0}})
    edit(made, "tokenizer_config.json", eos_token="a", name_or_path="here")
    edit(made, "generation_config.json", eos_token_id=[1, 2], temperature=0.7)
    save_file({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float32)}, made / WEIGHTS)
    return made


SAME: dict[str, Callable[[Path], Any]] = {
    "other values": lambda f: edit_tensors(f, lambda held: held["a"].fill(7)),
    "another place": lambda f: edit(f, "config.json", _name_or_path="elsewhere", transformers_version="4.1", dtype="x"),
    "a default said": lambda f: edit(f, "config.json", rope_scaling=None),
    "another sampling": lambda f: edit(f, "generation_config.json", temperature=1.0),
    "tokenizer from elsewhere": lambda f: edit(f, "tokenizer_config.json", name_or_path="there"),
    "a README": lambda f: (f / "README.md").write_text("new"),
    "logs of training": lambda f: edit(f, "trainer_state.json", step=4),
}
OTHER: dict[str, Callable[[Path], Any]] = {
    "config": lambda f: edit(f, "config.json", hidden_size=4),
    "EOS of the config": lambda f: edit(f, "config.json", eos_token_id=2),
    "EOS of generation": lambda f: edit(f, "generation_config.json", eos_token_id=[1]),
    "no generation config": lambda f: (f / "generation_config.json").unlink(),
    "vocabulary": lambda f: edit(f, "tokenizer.json", model={"vocab": {"b": 0}}),
    "tokenizer's settings": lambda f: edit(f, "tokenizer_config.json", add_bos_token=True),
    "chat template": lambda f: (f / "chat_template.jinja").write_text("{{ messages }}"),
    "named chat template": lambda f: (
        (f / "additional_chat_templates").mkdir(),
        (f / "additional_chat_templates/rag.jinja").write_text(""),
    ),
    "missing tensor": lambda f: edit_tensors(f, lambda held: held.pop("b")),
    "extra tensor": lambda f: edit_tensors(f, lambda held: held.update(c=np.ones(1, np.float32))),
    "shape": lambda f: edit_tensors(f, lambda held: held.update(b=np.zeros((2, 2), np.float32))),
    "name": lambda f: edit_tensors(f, lambda held: held.update(c=held.pop("b"))),
}
NONE: dict[str, Callable[[Path], Any]] = {
    "Mixtral": lambda f: edit(f, "config.json", architectures=["MixtralForCausalLM"]),
    "GPT-2": lambda f: edit(f, "config.json", architectures=["GPT2LMHeadModel"]),
    "two architectures": lambda f: edit(f, "config.json", architectures=["LlamaForCausalLM", "MistralForCausalLM"]),
    "quantized": lambda f: edit(f, "config.json", quantization_config={"quant_method": "fp8"}),
    "own code": lambda f: edit(f, "config.json", auto_map={"AutoConfig": "own.Config"}),
    "no weights": lambda f: (f / WEIGHTS).unlink(),
    "no header": lambda f: (f / WEIGHTS).write_bytes(b"\0\0"),
    "no config": lambda f: (f / "config.json").unlink(),
    "no JSON": lambda f: (f / "config.json").write_text("["),
    "one name twice": lambda f: shutil.copy(f / WEIGHTS, f / "again.safetensors"),
}


@pytest.mark.parametrize("what", SAME)
def test_key_of_what_changes_no_engine_is_the_same(folder: Path, what: str) -> None:
    before = swap_key(plain(folder))
    SAME[what](folder)
    assert swap_key(plain(folder)) == before is not None


@pytest.mark.parametrize("what", OTHER)
def test_key_of_what_makes_another_engine_is_another(folder: Path, what: str) -> None:
    before = swap_key(plain(folder))
    OTHER[what](folder)
    assert swap_key(plain(folder)) not in (before, None)


@pytest.mark.parametrize("what", NONE)
def test_key_of_what_is_not_proven_or_cannot_be_read_is_none(folder: Path, what: str) -> None:
    NONE[what](folder)
    assert swap_key(plain(folder)) is None


def test_key_ref_in_another_dtype_length_or_option_is_another(folder: Path) -> None:
    model = plain(folder)
    others = [{"dtype": "bfloat16"}, {"max_length": 7}, {"options": {"seed": 1}}, {"overrides": "{}"}]
    keys = {swap_key(dataclasses.replace(model, **fields)) for fields in [{}, *others]}
    assert len(keys) == 5
    assert None not in keys
    for fields in ({"quantization": "fp8"}, {"trust_remote_code": True}, {"path": None}):
        assert swap_key(dataclasses.replace(model, **fields)) is None


def test_key_index_names_the_files_that_count(folder: Path) -> None:
    """As vLLM loads them: beside an index, another file with the same tensors is not read."""
    before = swap_key(plain(folder))
    shutil.copy(folder / WEIGHTS, folder / "consolidated.safetensors")
    edit(folder, f"{WEIGHTS}.index.json", weight_map={"a": WEIGHTS, "b": WEIGHTS})
    assert swap_key(plain(folder)) == before is not None


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_check_weights_one_number_that_is_none_names_its_tensor(folder: Path, wrong: float) -> None:
    check_weights(plain(folder))
    edit_tensors(folder, lambda held: held["b"].__setitem__(3, wrong))
    with pytest.raises(ModelError, match="'model': b holds NaN or infinite"):
        check_weights(plain(folder))


def test_check_weights_cut_file_is_a_model_error(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4])
    with pytest.raises(ModelError, match=r"'model': .* is damaged"):
        check_weights(plain(folder))


def test_canary_prompts_fit_a_short_context_and_never_change() -> None:
    assert [len(prompt) for prompt in canary_prompts(1000, 600)] == [min(n, 600) for n in CANARY_LENGTHS]
    assert canary_prompts(50, 2000) == canary_prompts(50, 2000)
    assert {token for prompt in canary_prompts(50, 2000) for token in prompt} == set(range(50))


@pytest.mark.parametrize("second", [[-1.0, -2.0002], [-1.0, float("nan")], [-1.0, float("-inf")]])
def test_canary_another_answer_fails(second: list[float]) -> None:
    check_canary([-1.0, -2.0], [-1.0, -2.000001])
    with pytest.raises(EngineError, match="1 of 2 log-probabilities"):
        check_canary([-1.0, -2.0], second)


# ---- real engines

#: Of all that are allowed, one of each way to be loaded: a tied output matrix, biases, transformers' own modelling
#: code. tests/benchmarks/bench_swap.py proves the others: 70 s.
CHOSEN = ("llama-tied", "qwen2-tied", "gpt_neox-untied")


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    made = make_engine("vllm")
    yield made
    made.close()


@pytest.fixture(scope="module")
def two(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[ModelRef]]:
    """Two models of a variant."""
    root, made = tmp_path_factory.mktemp("swap"), dict[str, list[ModelRef]]()

    def get(variant: str) -> list[ModelRef]:
        if variant not in made:
            folders = [build(variant, seed, tiny_models["random"], root / f"{variant}-{seed}") for seed in (0, 1)]
            made[variant] = [plain(folder) for folder in folders]
        return made[variant]

    return get


def questions() -> list[ScoreRequest]:
    """The second half of each prompt after the first."""
    return [ScoreRequest(p[: len(p) // 2], p[len(p) // 2 :]) for p in canary_prompts(1000, 700)]


def answers(engine: Any, model: ModelRef) -> list[float]:
    """The engine's mean log-probability of a token, per question."""
    key = engine.load(model)
    return [
        s.logprob / len(q.continuation) for q, s in zip(questions(), engine.score(key, questions())[1], strict=True)
    ]


def by_transformers(model: ModelRef) -> list[float]:
    import torch
    from transformers import AutoModelForCausalLM

    reference, found = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32), []
    for question in questions():
        ids = question.context + question.continuation
        with torch.no_grad():
            rows = reference(torch.tensor([ids])).logits[0].log_softmax(-1)
        picked = [float(rows[at - 1, ids[at]]) for at in range(len(question.context), len(ids))]
        found.append(sum(picked) / len(picked))
    return found


def test_allow_list_every_architecture_has_tiny_models() -> None:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

    assert {CLASSES[AutoConfig.for_model(name).model_type] for name in TYPES} == set(ALLOWED)
    assert {"MixtralForCausalLM", "GPT2LMHeadModel"}.isdisjoint(ALLOWED)
    assert set(CHOSEN) < set(VARIANTS)


@pytest.mark.few(1)
@pytest.mark.slow
@pytest.mark.parametrize("variant", [pytest.param(CHOSEN[0], marks=long_only), *CHOSEN[1:]])  # the second is tied, too
def test_swap_there_and_back_answers_as_new_engines(
    engine: Any, two: Callable[[str], list[ModelRef]], variant: str
) -> None:
    first, second = two(variant)
    # Before vLLM replaces classes of transformers by its own.
    expected = by_transformers(first), by_transformers(second)
    new = answers(engine, first)
    assert not engine.swapped
    swapped = answers(engine, second)
    assert engine.swapped
    back = answers(engine, first)
    assert engine.swapped
    assert back == pytest.approx(new, abs=1e-5)
    assert new == pytest.approx(expected[0], abs=1e-4)
    assert swapped == pytest.approx(expected[1], abs=1e-4)
    assert max(abs(a - b) for a, b in zip(new, swapped, strict=True)) > 0.1


@pytest.mark.slow
def test_canary_sees_any_one_tensor_that_a_swap_leaves_out(engine: Any, two: Callable[[str], list[ModelRef]]) -> None:
    """Each in turn stays at the random numbers that a new engine of this kind starts from; biases should be 0."""
    import torch

    first, second = two("qwen2-tied")
    engine.load(first)
    engine.load(second)
    held = dict(tensors([Path(second.path or "") / WEIGHTS]))
    held["lm_head.weight"] = held["model.embed_tokens.weight"]
    held |= {name: torch.zeros_like(tensor) for name, tensor in held.items() if name.endswith("bias")}
    large = {name: 1.0 if tensor.dim() == 1 else 1e-3 for name, tensor in held.items()}
    start = {name: torch.empty_like(tensor).uniform_(-large[name], large[name]) for name, tensor in held.items()}

    def put(mixed: dict[str, Any]) -> list[float]:
        engine._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(mixed.items())})
        engine._llm.reset_prefix_cache()
        return engine._canary()

    try:
        right = put(held)
        for left in [*held] if LONG else [*held][::3]:
            with pytest.raises(EngineError, match="log-probabilities after a swap"):
                check_canary(right, put({**held, left: start[left]}))
    finally:
        engine.close()


def drop(folder: Path) -> None:
    edit_tensors(folder, lambda held: held.pop(max(name for name in held if ".layers.1.mlp." in name)))


def add(folder: Path) -> None:
    edit_tensors(folder, lambda held: held.update({"model.layers.2.mlp.down_proj.weight": np.ones((2, 2), np.float32)}))


def bend(folder: Path) -> None:
    edit_tensors(folder, lambda held: held.update({"model.norm.weight": np.ones(64, np.float32)}))


def spoil(folder: Path) -> None:
    edit_tensors(folder, lambda held: held["model.layers.0.self_attn.q_proj.weight"].__setitem__((3, 3), np.nan))


@pytest.mark.few(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "harm"),
    [
        *(("llama-tied", harm) for harm in (drop, bend, spoil)),
        *(pytest.param(*more, marks=long_only) for more in (("llama-tied", add), ("gpt_neox-untied", drop))),
    ],
)
def test_swap_in_of_harmed_weights_is_refused_and_the_next_model_answers_rightly(
    engine: Any, two: Callable[[str], list[ModelRef]], tmp_path: Path, variant: str, harm: Callable[[Path], None]
) -> None:
    first, second = two(variant)
    expected = answers(engine, first)
    engine.load(second)
    folder = shutil.copytree(Path(first.path or ""), tmp_path / "harmed")
    harm(folder)
    with pytest.raises(ModelError, match="'harmed'"):
        engine.load(plain(folder))
    assert engine.model is None
    with pytest.raises(EngineError, match="no model"):
        engine.score(plain(folder).key, questions())
    assert answers(engine, first) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_swap_that_breaks_half_way_leaves_no_engine_that_answers(
    engine: Any, two: Callable[[str], list[ModelRef]], tmp_path: Path
) -> None:
    first, second = two("llama-tied")
    expected = answers(engine, first)
    engine.load(second)
    folder = shutil.copytree(Path(first.path or ""), tmp_path / "cut")
    engine.prefetch(plain(folder))
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1000])  # after it was checked
    with pytest.raises(ModelError, match=r"'cut': .* is damaged"):
        engine.load(plain(folder))
    assert engine.model is None
    with pytest.raises(EngineError, match="no model"):
        engine.score(second.key, questions())
    assert answers(engine, first) == pytest.approx(expected, abs=1e-5)
    engine.load(second)
    assert engine.swapped  # a file was at fault, not swapping


def verdicts(engine: Any, model: ModelRef) -> tuple[list[int], list[bool], list[str]]:
    """For sums: the likeliest of four answers, whether each is the greedy continuation, and the greedy text."""
    key = engine.load(model)
    encode = engine.tokenizer.encode
    sums = [f"Q: {a}+{b}=\nA:" for a in range(2, 18, 3) for b in range(1, 19, 4)]
    choices = [[f" {n}" for n in (3, 7, 12, 21)]] * len(sums)
    requests = [ScoreRequest(encode(q), encode(c)) for q, cs in zip(sums, choices, strict=True) for c in cs]
    scores = engine.score(key, requests)[1]
    best = [max(range(4), key=lambda i, at=at: scores[at + i].logprob) for at in range(0, len(scores), 4)]
    texts = engine.generate(key, [GenerateRequest(encode(q), 8, ["\n\n"]) for q in sums])[1]
    return best, [score.greedy for score in scores], [text.text for text in texts]


@long_only
@pytest.mark.slow
def test_swap_back_and_forth_changes_no_verdict(engine: Any, tiny_models: dict[str, Path]) -> None:
    names = ("good", "weak", "other")
    models = {name: plain(tiny_models[name]) for name in names}
    engine.close()  # a process holds one at a time
    new = make_engine("vllm", {"swap_weights": False})
    expected = {name: verdicts(new, models[name]) for name in names}
    assert not new.swapped
    new.close()
    assert len({str(found) for found in expected.values()}) == 3
    for name in ("good", "weak", "other", "good", "weak", "good"):
        assert verdicts(engine, models[name]) == expected[name]
    assert engine.swapped


@pytest.mark.slow
def test_swap_prefix_cache_holds_nothing_of_the_former_model(engine: Any, two: Callable[[str], list[ModelRef]]) -> None:
    first, second = two("llama-tied")
    expected = answers(engine, first)
    for model in (second, first):
        key = engine.load(model)
        cached = [score.usage.cached_tokens for score in engine.score(key, questions()[:4])[1]]
        assert cached == [0, 0, 0, 0]
    assert answers(engine, first) == pytest.approx(expected, abs=1e-5)
