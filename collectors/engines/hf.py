"""The transformers engine: a reference to compare other engines with, too slow to collect with.

Its answers equal those of lm-eval's `hf` backend for the same dtype, unless the model's generation_config.json sets
more than its end tokens: that counts here for no request, as in vLLM. Requests go through the model one at a time,
without padding, so that an answer depends on nothing but its request. Knows nothing of tasks and items.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Sequence
from typing import Any, ClassVar

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
from collectors.engines.base import BaseEngine, EngineOptions
from collectors.engines.checks import check_folder, load_error
from collectors.engines.memory import engine_error, is_out_of_memory
from schemas.failures import ConfigError, RouterlakeError, TaskError

logger = logging.getLogger(__name__)

#: Context of a model whose config and tokenizer name none; lm-eval's assumption.
DEFAULT_MAX_LENGTH = 2048
#: transformers' model_max_length of a tokenizer that sets none.
UNLIMITED = int(1e30)
#: Decoding settings: vLLM's name -> transformers' name, where they differ.
RENAMED = {"min_tokens": "min_new_tokens"}


class HfOptions(EngineOptions):
    #: torch's name of the device; None: cuda if the machine has it, else cpu.
    device: str | None = None


class HfEngine(BaseEngine[HfOptions]):
    """Takes the options of HfOptions."""

    NAME = "hf"
    OPTIONS = HfOptions

    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._model: Any = None
        # Input and logits of the last forward pass; one-token choices share it.
        self._last: tuple[list[int], Any] = ([], None)

    def _open(self, model: ModelRef) -> None:
        import torch

        if model.quantization:
            raise ConfigError(f"model {model.name!r}: engine 'hf' cannot quantize; remove quantization")
        folder = check_folder(model, _supported)
        try:
            self._model, self.tokenizer = _start(model, folder, self._options.device)
        except Exception as error:
            if is_out_of_memory(error):
                raise engine_error(f"model {model.name!r} does not fit", error) from error
            raise load_error(model, error) from error
        own = _context(self._model.config, self.tokenizer)
        self.max_length = self.rolling_length = min(model.longest or own, own)
        self.score_length = self.max_length + 1  # the last token is never an input
        self.vocab_size = self._model.get_input_embeddings().num_embeddings
        device = self._model.device
        self.gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        logger.info("model %s: loaded, context of %d tokens", model.name, self.max_length)

    def score(self, key: str, requests: Sequence[ScoreRequest]) -> tuple[str, list[Score]]:
        """Context and continuation together may hold max_length + 1 tokens, because the last one is never an input."""
        check_key(self, key)
        return key, [self._guarded(self._score, request) for request in requests]

    def choose(self, key: str, requests: Sequence[ChoiceRequest]) -> tuple[str, list[ChoiceScores]]:
        """A context may hold max_length tokens."""
        check_key(self, key)
        return key, [self._guarded(self._choose, request) for request in requests]

    def generate(self, key: str, requests: Sequence[GenerateRequest]) -> tuple[str, list[Generation]]:
        """A prompt must be shorter than max_length. Raises TaskError for a decoding setting that transformers lacks."""
        check_key(self, key)
        return key, [self._guarded(self._generate, request) for request in requests]

    def close(self) -> None:
        self.model, self._model, self._last = None, None, ([], None)
        gc.collect()

    def _guarded(self, answer: Any, request: Any) -> Any:
        try:
            return answer(request)
        except (RouterlakeError, AssertionError):
            raise
        except Exception as error:
            name = self.model.name if self.model else ""
            self.close()
            raise engine_error(f"transformers broke while model {name!r} answered", error) from error

    def _score(self, request: ScoreRequest) -> Score:
        import torch

        scheduled = time.monotonic()
        tokens = request.context + request.continuation
        assert len(tokens) <= self.max_length + 1, f"{len(tokens)} tokens for a context of {self.max_length}"
        if self._last[0] != tokens[:-1]:
            with torch.no_grad():
                logits = self._model(torch.tensor([tokens[:-1]], device=self._model.device)).logits[0]
            self._last = (tokens[:-1], logits)
        logprobs = torch.log_softmax(self._last[1][-len(request.continuation) :], dim=-1)
        wanted = torch.tensor(request.continuation, device=logprobs.device)
        logprob = float(logprobs.gather(1, wanted.unsqueeze(1)).squeeze(1).sum())
        greedy = bool((logprobs.argmax(dim=-1) == wanted).all())
        return Score(logprob, greedy, Usage(len(tokens), 0, scheduled=scheduled, finished=time.monotonic()))

    def _choose(self, request: ChoiceRequest) -> ChoiceScores:
        scores = [self._score(ScoreRequest(request.context, [token])) for token in request.tokens]  # one forward pass
        scheduled, finished = scores[0].usage.scheduled, scores[-1].usage.finished
        usage = Usage(len(request.context), 0, scheduled=scheduled, finished=finished)
        return ChoiceScores([s.logprob for s in scores], [s.greedy for s in scores], [usage])

    def _generate(self, request: GenerateRequest) -> Generation:
        import torch

        assert len(request.prompt) < self.max_length, f"{len(request.prompt)} tokens for a context of {self.max_length}"
        prompt = torch.tensor([request.prompt], device=self._model.device)
        watch = _Watch(self.tokenizer, request)
        if request.seed is not None:
            torch.manual_seed(request.seed)
        scheduled = time.monotonic()
        answered = self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=min(request.max_tokens, self.max_length - len(request.prompt)),
            pad_token_id=_end_ids(self._model)[0] if _end_ids(self._model) else 0,
            stopping_criteria=[watch],
            use_cache=True,
            **_sampling(request),
        )
        finished = time.monotonic()
        ids = answered[0, len(request.prompt) :].tolist()
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        for stop in filter(None, request.stop):
            text = text.split(stop)[0]
        reason = "stop" if watch.stopped or ids[-1] in _end_ids(self._model) else "length"
        return Generation(text, ids, Usage(prompt.numel(), len(ids), None, reason, scheduled, watch.first, finished))


class _Watch:
    """A stopping criterion of transformers that sees every new token, and is true once the answer has a stop string."""

    def __init__(self, tokenizer: Tokenizer, request: GenerateRequest) -> None:
        self._tokenizer, self._prompt = tokenizer, len(request.prompt)
        self._stops = [stop for stop in request.stop if stop]
        # A token is at least one byte. Two more, since tokens may decode differently at the start of a text.
        self._tail = max((len(stop.encode()) for stop in self._stops), default=0) + 2
        self.first: float | None = None
        self.stopped = False

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        import torch

        self.first = self.first or time.monotonic()
        text = self._tokenizer.decode(input_ids[0, self._prompt :][-self._tail :].tolist())
        self.stopped = any(stop in text for stop in self._stops)
        return torch.tensor([self.stopped], device=input_ids.device)


def _supported(config: dict[str, Any]) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return config.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _start(model: ModelRef, folder: str, device: str | None) -> tuple[Any, Tokenizer]:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    # One thread per engine, as under vLLM: on two busy cores, two threads took 57 s where one took 1 s.
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
    trust = model.trust_remote_code
    tokenizer: Tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust, use_fast=True)
    dtype = "auto" if model.dtype == "auto" else getattr(torch, model.dtype)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=trust)
    # As in vLLM, the model's own settings of decoding do not count beside a request's, and its end tokens do. Without
    # this a repetition_penalty in generation_config.json gave ' 5' where vLLM, and the model's weights, gave ' 10'.
    loaded.generation_config = transformers.GenerationConfig(eos_token_id=loaded.generation_config.eos_token_id)
    return loaded.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), tokenizer


def _context(config: Any, tokenizer: Any) -> int:
    """The longest context in tokens, looked up in the order of lm-eval's resolve_max_length."""
    text = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if (value := getattr(text, name, None)) is not None:
            return int(value)
    limit = getattr(tokenizer, "model_max_length", None)
    return DEFAULT_MAX_LENGTH if limit in (None, UNLIMITED) else int(limit)


def _end_ids(model: Any) -> list[int]:
    ends = model.generation_config.eos_token_id
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def _sampling(request: GenerateRequest) -> dict[str, Any]:
    """Arguments for transformers' generate(). Raises TaskError for a setting that it lacks."""
    from transformers import GenerationConfig

    settings = {RENAMED.get(name, name): value for name, value in request.params.items()}
    if unknown := sorted(name for name in settings if not hasattr(GenerationConfig(), name)):
        raise TaskError(f"transformers does not take the decoding setting {unknown[0]!r}")
    if request.temperature > 0:
        # transformers' own default is 50. vLLM writes "any" as 0 or -1.
        settings["top_k"] = max(settings.get("top_k") or 0, 0)
        return {**settings, "do_sample": True, "temperature": request.temperature}
    return {**settings, "do_sample": False}
