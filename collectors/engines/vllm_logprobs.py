"""Converts vLLM's prompt log-probabilities to lists in one go instead of row by row.

Owns one replaced method of vLLM, which makes the same lists from whole tensors. vLLM's own spends 4 µs of Python on
each token of a prompt, even on those from its prefix cache: half of the time of a small model's scores.
"""

from __future__ import annotations

from typing import Any

from vllm.logprobs import FlatLogprobs
from vllm.v1.engine.logprobs import LogprobsProcessor

_row_by_row = LogprobsProcessor._update_prompt_logprobs


def take_in_bulk() -> None:
    """Replaces vLLM's method in this process."""
    LogprobsProcessor._update_prompt_logprobs = _in_bulk


def _in_bulk(self: Any, tensors: Any) -> None:
    """As vLLM's own method, which still serves requests that need tokens as text."""
    kept = self.prompt_logprobs
    if self.tokenizer is not None or not isinstance(kept, FlatLogprobs):
        _row_by_row(self, tensors)
        return
    token_ids, logprobs, ranks, *_ = tensors
    rows, width = logprobs.shape
    first = len(kept.logprobs)
    kept.start_indices += range(first, first + rows * width, width)
    kept.end_indices += range(first + width, first + (rows + 1) * width, width)
    kept.token_ids += token_ids.flatten().tolist()
    kept.logprobs += logprobs.flatten().tolist()
    kept.decoded_tokens += [None] * (rows * width)
    all_ranks = ranks.new_empty(rows, width)
    all_ranks[:, 0] = ranks
    all_ranks[:, 1:] = ranks.new_tensor(range(1, width))
    kept.ranks += all_ranks.flatten().tolist()
