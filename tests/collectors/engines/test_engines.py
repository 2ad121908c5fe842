"""Real engines answer alike, count their tokens, and refuse broken models."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collectors.engines import Engine, GenerateRequest, ModelRef, ScoreRequest, make_engine
from schemas.failures import EngineError, ModelError, TaskError
from tests.helpers.swap_models import build
from tests.helpers.thorough import long_only

TENSOR = "model.layers.1.mlp.down_proj.weight"
SUMS = "Q: 2+3=\nA: 5\n\nQ: 7+1=\nA: 8\n\nQ: 4+9=\nA:"

Ref = Callable[..., ModelRef]


@pytest.fixture(scope="module")
def tiny_ref(tiny_models: dict[str, Path]) -> Ref:
    """tiny_ref("good", dtype=…) is the ModelRef of a tiny checkpoint, in float32 by default."""

    def ref(name: str, /, **fields: Any) -> ModelRef:
        folder = str(tiny_models[name])
        known = {"name": name, "source": folder, "revision": f"tiny-{name}", "path": folder, "dtype": "float32"}
        return ModelRef(**{**known, **fields})

    return ref


@pytest.fixture(scope="module")
def vllm_engine(tiny_ref: Ref) -> Iterator[Engine]:
    """One engine for all tests here, because a process holds one at a time. Each test loads its model."""
    engine = make_engine("vllm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings from vllm's imports
        engine.load(tiny_ref("good"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def hf_engine() -> Iterator[Engine]:
    engine = make_engine("hf")
    yield engine
    engine.close()


@pytest.fixture(params=["vllm", "hf"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each real engine. It may hold any model, so each test loads its own."""
    real: Engine = request.getfixturevalue(f"{request.param}_engine")
    return real


def scores_to_ask(engine: Engine) -> list[ScoreRequest]:
    """Continuations of one and of several tokens, short and long contexts, two choices of one context."""
    encode = engine.tokenizer.encode
    texts = [("Q:", " 1"), (SUMS, " 13"), (SUMS, " 4"), (SUMS * 30, " 13\n\nQ: 5"), ("The", " import statement")]
    return [ScoreRequest(encode(context), encode(continuation)) for context, continuation in texts]


def texts_to_ask(engine: Engine) -> list[GenerateRequest]:
    encode = engine.tokenizer.encode
    return [
        GenerateRequest(encode(SUMS), 24, ["\n\n"]),
        GenerateRequest(encode(SUMS), 24, ["Q:", "<|end|>"]),
        GenerateRequest(encode(SUMS), 3, []),
        GenerateRequest(encode("Q: 1+1=\n"), 40, ["nowhere"]),
    ]


def plain_logprob(folder: Path, request: ScoreRequest) -> tuple[float, bool]:
    """The same question put to transformers by hand."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logprobs = model(torch.tensor([request.context + request.continuation])).logits[0].log_softmax(-1)
    rows = range(len(request.context) - 1, len(request.context) + len(request.continuation) - 1)
    pairs = list(zip(rows, request.continuation, strict=True))
    greedy = all(int(logprobs[row].argmax()) == token for row, token in pairs)
    return sum(float(logprobs[row, token]) for row, token in pairs), greedy


@pytest.mark.slow
@pytest.mark.parametrize("name", ["good", "random"])
def test_score_both_engines_equal_a_plain_forward_pass(
    engine: Engine, tiny_ref: Ref, tiny_models: dict[str, Path], name: str
) -> None:
    key = engine.load(tiny_ref(name))
    requests = scores_to_ask(engine)
    answered, scores = engine.score(key, requests)
    assert answered == key
    for request, score in zip(requests, scores, strict=True):
        logprob, greedy = plain_logprob(tiny_models[name], request)
        assert score.logprob == pytest.approx(logprob, abs=1e-4)
        assert score.greedy == greedy


@pytest.mark.slow
@pytest.mark.parametrize("name", ["good", "weak"])
def test_generate_greedy_both_engines_give_equal_texts(
    vllm_engine: Engine, hf_engine: Engine, tiny_ref: Ref, name: str
) -> None:
    answers = []
    for engine in (vllm_engine, hf_engine):
        key = engine.load(tiny_ref(name))
        generations = engine.generate(key, texts_to_ask(engine))[1]
        answers.append([(g.text, g.token_ids, g.usage.finish_reason) for g in generations])
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_tokenizer_both_engines_give_equal_ids(vllm_engine: Engine, hf_engine: Engine, tiny_ref: Ref) -> None:
    for engine in (vllm_engine, hf_engine):
        engine.load(tiny_ref("good"))
    text = "<|start|>user\nWhat is 12+30? Ünïcödé\n<|end|>"
    assert vllm_engine.tokenizer.encode(text) == hf_engine.tokenizer.encode(text)


@pytest.mark.slow
def test_usage_scored_request_equals_the_tokenizers_count(engine: Engine, tiny_ref: Ref) -> None:
    key = engine.load(tiny_ref("good"))
    for request, score in zip(requests := scores_to_ask(engine), engine.score(key, requests)[1], strict=True):
        assert score.usage.prompt_tokens == len(request.context) + len(request.continuation)
        assert score.usage.finish_reason is None


@pytest.mark.slow
def test_usage_generated_text_counts_every_token(engine: Engine, tiny_ref: Ref) -> None:
    key = engine.load(tiny_ref("good"))
    stopped, _, cut, _ = engine.generate(key, texts_to_ask(engine))[1]
    assert stopped.usage.prompt_tokens == len(engine.tokenizer.encode(SUMS))
    # The text ends before the stop string, the tokens with it.
    assert engine.tokenizer.decode(stopped.token_ids) == stopped.text + "\n\n"
    assert (stopped.usage.generated_tokens, stopped.usage.finish_reason) == (len(stopped.token_ids), "stop")
    assert (cut.usage.generated_tokens, cut.usage.finish_reason) == (3, "length")


@pytest.mark.slow
def test_usage_times_are_ordered(engine: Engine, tiny_ref: Ref) -> None:
    key = engine.load(tiny_ref("good"))
    for generation in engine.generate(key, texts_to_ask(engine))[1]:
        usage = generation.usage
        assert usage.scheduled is not None
        assert usage.first_token is not None
        assert usage.finished is not None
        assert 0 < usage.scheduled <= usage.first_token <= usage.finished
        assert usage.finished - usage.scheduled < 60


@pytest.mark.slow
def test_usage_vllm_repeated_prompt_is_read_from_the_cache(vllm_engine: Engine, tiny_ref: Ref) -> None:
    key = vllm_engine.load(tiny_ref("weak"))
    request = GenerateRequest(vllm_engine.tokenizer.encode(SUMS * 30), 2, [])
    vllm_engine.generate(key, [request])
    again = vllm_engine.generate(key, [request])[1][0].usage
    assert again.cached_tokens is not None
    assert 128 <= again.cached_tokens < again.prompt_tokens


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [[7], [1], [3, 4, 1]])
def test_prompt_logprobs_taken_in_bulk_are_vllms_own(chunks: list[int]) -> None:
    import torch
    from vllm import SamplingParams
    from vllm.v1.engine.logprobs import LogprobsProcessor
    from vllm.v1.outputs import LogprobsTensors

    from collectors.engines import vllm_logprobs

    class Request:
        sampling_params = SamplingParams(prompt_logprobs=2, flat_logprobs=True, detokenize=False)

    vllm_logprobs.take_in_bulk()
    theirs, ours = (LogprobsProcessor.from_new_request(None, Request()) for _ in range(2))  # type: ignore[arg-type]
    for rows in chunks:
        tensors = LogprobsTensors(torch.randint(99, (rows, 3)), torch.randn(rows, 3), torch.randint(99, (rows,)))
        vllm_logprobs._row_by_row(theirs, tensors)
        ours._update_prompt_logprobs(tensors)
    assert ours.prompt_logprobs == theirs.prompt_logprobs
    assert [ours.prompt_logprobs[i] for i in range(1, sum(chunks))] == [  # type: ignore[index]
        theirs.prompt_logprobs[i]
        for i in range(1, sum(chunks))  # type: ignore[index]
    ]


@pytest.mark.slow
def test_generate_sampled_with_seed_is_repeatable(engine: Engine, tiny_ref: Ref) -> None:
    key = engine.load(tiny_ref("random"))
    prompt = engine.tokenizer.encode("Q:")
    request, other = (GenerateRequest(prompt, 20, [], 1.0, seed, {"top_p": 0.9}) for seed in (1, 2))
    first, again, different = (engine.generate(key, [asked])[1][0].token_ids for asked in (request, request, other))
    assert first == again
    assert first != different


@pytest.mark.slow
def test_generate_unknown_decoding_setting_is_a_task_error(engine: Engine, tiny_ref: Ref) -> None:
    key = engine.load(tiny_ref("good"))
    with pytest.raises(TaskError, match="wishful"):
        engine.generate(key, [GenerateRequest([5], 2, [], params={"wishful": 1})])


@pytest.mark.slow
def test_load_second_model_answers_as_a_fresh_engine(vllm_engine: Engine, hf_engine: Engine, tiny_ref: Ref) -> None:
    requests = scores_to_ask(vllm_engine)
    before = vllm_engine.score(vllm_engine.load(tiny_ref("random")), requests)[1]
    key = vllm_engine.load(tiny_ref("other"))
    swapped = [score.logprob for score in vllm_engine.score(key, requests)[1]]
    fresh = hf_engine.score(hf_engine.load(tiny_ref("other")), requests)[1]
    assert swapped == pytest.approx([score.logprob for score in fresh], abs=1e-4)
    assert all(abs(a.logprob - b) > 1e-3 for a, b in zip(before, swapped, strict=True))


@pytest.mark.slow
def test_score_wrong_key_is_refused(engine: Engine, tiny_ref: Ref) -> None:
    engine.load(tiny_ref("good"))
    with pytest.raises(EngineError, match="asked for model") as caught:
        engine.score(tiny_ref("weak").key, [ScoreRequest([5], [6])])
    assert caught.value.kind == "wrong_model"


@pytest.mark.slow
def test_score_after_close_is_refused_and_loads_again(engine: Engine, tiny_ref: Ref) -> None:
    key = engine.load(tiny_ref("good"))
    engine.close()
    with pytest.raises(EngineError, match="no model"):
        engine.score(key, [ScoreRequest([5], [6])])
    assert engine.load(tiny_ref("good")) == key
    assert len(engine.score(key, [ScoreRequest([5], [6])])[1]) == 1


@pytest.mark.slow
def test_load_model_option_overrides_the_engines(engine: Engine, tiny_ref: Ref) -> None:
    engine.load(tiny_ref("good", max_length=512))
    assert engine.max_length == 512
    engine.load(tiny_ref("good"))
    assert engine.max_length == 2048


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def unknown(folder: Path) -> None:
    edit_config(folder, model_type="nosuch", architectures=["NoSuchForCausalLM"])


def remote(folder: Path) -> None:
    unknown(folder)
    edit_config(folder, auto_map={"AutoModelForCausalLM": "modeling.NoSuchForCausalLM"})


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def drop_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors[TENSOR]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def as_bin(folder: Path, *left_out: str) -> None:
    """Turns the weights into a PyTorch checkpoint."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({name: t for name, t in tensors.items() if name not in left_out}, folder / "pytorch_model.bin")


def one_of_two_bins(folder: Path) -> None:
    as_bin(folder)
    (folder / "pytorch_model.bin").rename(folder / "pytorch_model-00001-of-00002.bin")


def leftovers(folder: Path) -> None:
    """Files that no engine loads, as conversions and trainers leave them beside whole weights."""
    lost = {"metadata": {}, "weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(lost))
    (folder / "openvino_model.index.json").write_text(json.dumps({"x": 1}))
    (folder / "training_args.bin").write_bytes(b"x")


def two_shards(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


BROKEN = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no_weights", "no weights"),
    "unknown architecture": (unknown, "unknown_architecture", "NoSuchForCausalLM"),
    "remote code": (remote, "remote_code", "trust_remote_code"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "bad_model", "config.json"),
    "no JSON in config": (lambda folder: (folder / "config.json").write_text("{"), "bad_model", "not JSON"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "bad_model", "tokenizer"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "bad_model", "cannot be loaded"),
    "cut weights": (lambda folder: cut(folder / "model.safetensors"), "bad_model", "damaged"),
    "no header": (lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 4), "bad_model", "damaged"),
    "missing shard": (two_shards, "bad_model", "00002-of-00002"),
    "other shapes": (
        lambda folder: edit_config(folder, intermediate_size=256),
        "bad_model",
        "has the shape",
    ),
    "missing tensor of a .bin": (lambda folder: as_bin(folder, TENSOR), "bad_model", f"lack {TENSOR}"),
    "missing .bin": (one_of_two_bins, "bad_model", "1 of the files that belong to"),
    "cut .bin": (lambda folder: (as_bin(folder), cut(folder / "pytorch_model.bin")), "bad_model", "damaged"),
    "missing tensor": (drop_tensor, "bad_model", f"lack {TENSOR}"),
    "no folder": (shutil.rmtree, "not_found", "does not exist"),
}


@pytest.mark.few(6)
@pytest.mark.slow
@pytest.mark.parametrize("what", BROKEN)
def test_load_broken_folder_gives_one_line_of_its_kind(
    engine: Engine, tiny_models: dict[str, Path], tiny_ref: Ref, tmp_path: Path, what: str
) -> None:
    breaks, kind, words = BROKEN[what]
    folder = shutil.copytree(tiny_models["random"], tmp_path / "model")
    breaks(folder)
    with pytest.raises(ModelError, match=words) as caught:
        engine.load(tiny_ref("random", name="broken-one", revision="broken", path=str(folder)))
    assert caught.value.kind == kind
    assert "broken-one" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert engine.model is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "change"),
    [
        ("vllm", leftovers),
        ("hf", as_bin),
        *(pytest.param(*more, marks=long_only) for more in (("hf", leftovers), ("vllm", as_bin))),
    ],
    indirect=["engine"],
)
def test_load_sound_weights_of_any_kind_and_beside_leftovers(
    engine: Engine, tiny_models: dict[str, Path], tiny_ref: Ref, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    folder = shutil.copytree(tiny_models["good"], tmp_path / "model")
    change(folder)
    key = engine.load(tiny_ref("good", revision="changed", path=str(folder)))
    prompt = engine.tokenizer.encode(SUMS)
    [changed] = engine.generate(key, [GenerateRequest(prompt, 3, [])])[1]
    [plain] = engine.generate(engine.load(tiny_ref("good")), [GenerateRequest(prompt, 3, [])])[1]
    assert changed.token_ids == plain.token_ids


@pytest.mark.slow
def test_load_after_a_broken_model_answers_again(
    engine: Engine, tiny_models: dict[str, Path], tiny_ref: Ref, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_models["random"], tmp_path / "model")
    edit_config(folder, intermediate_size=256)
    with pytest.raises(ModelError):
        engine.load(tiny_ref("random", revision="broken", path=str(folder)))
    key = engine.load(tiny_ref("good"))
    assert engine.generate(key, [GenerateRequest(engine.tokenizer.encode(SUMS), 3, [])])[1][0].token_ids


@pytest.mark.slow
def test_attention_that_vllm_has_no_kernel_for_names_the_way_out(
    vllm_engine: Engine, hf_engine: Engine, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    folder = str(build("llama-untied", 0, tiny_models["good"], tmp_path / "odd", head_dim=24))
    model, request = ModelRef("odd", folder, "odd", folder, "float32"), GenerateRequest([5, 6, 7], 2, [])
    with pytest.raises(ModelError, match=r"set engine: hf for it: .*head_dim=24"):  # so no other cell is tried
        vllm_engine.generate(vllm_engine.load(model), [request])
    assert hf_engine.generate(hf_engine.load(model), [request])[1][0].token_ids
