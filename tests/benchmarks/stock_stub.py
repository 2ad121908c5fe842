"""The stub engine's made-up answers as an lm-eval backend: both sides of a benchmark get the same, for nothing."""

from __future__ import annotations

from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from collectors.engines import GenerateRequest, ModelRef, ScoreRequest
from collectors.engines.stub import StubEngine
from schemas.identity import digest


class StubLM(TemplateLM):
    """`source`: as a config of ours names the model."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.engine = StubEngine()
        self.key = self.engine.load(ModelRef(source, source, f"stub-{digest(source)}", None, "stub-auto"))
        self.tokenizer = self.engine.tokenizer  # type: ignore[assignment]

    @property
    def eot_token_id(self) -> int:
        return 257

    @property
    def prefix_token_id(self) -> int:
        return 256

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return self.engine.tokenizer.encode(string)

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        asked = [ScoreRequest(context, continuation) for _, context, continuation in requests]
        return [(score.logprob, score.greedy) for score in self.engine.score(self.key, asked)[1]]

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        texts = []
        for context, settings in (request.args for request in requests):
            kwargs: Any = normalize_gen_kwargs(settings, default_max_gen_toks=256)
            until = handle_stop_sequences(kwargs.pop("until", None), eos="<|eos|>")
            asked = GenerateRequest(self.tok_encode(context), int(kwargs["max_gen_toks"]), until)
            texts.append(postprocess_generated_text(self.engine.generate(self.key, [asked])[1][0].text, until, None))
        return texts

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError("no task of the benchmarks asks for it")
