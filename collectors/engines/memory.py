"""Recognises errors that mean "out of memory", and computes smaller batches.

Owns the steps by which batches shrink, and the messages of PyTorch 2.13 and vLLM 0.32 (v1/core/kv_cache_utils.py,
v1/worker/utils.py), without importing either. The caller decides whether to try again.
"""

from __future__ import annotations

from typing import Any

from schemas.failures import OUT_OF_MEMORY, EngineError, causes, one_line

#: Parts of messages in lower case: torch's and CUDA's, vLLM's when weights leave too little for its cache, and Linux's
#: when a process may not take more.
TEXTS = (
    "out of memory",
    "outofmemory",
    "no available memory for the cache blocks",
    "larger than the available kv cache memory",
    "free memory on device",
    "cannot allocate memory",
    "defaultcpuallocator: can't allocate",
    "unable to allocate",
    "cublas_status_alloc_failed",
)

#: Each step divides a batch by this.
STEP = 4
#: The smallest batch. Below 16 sequences the cache takes the memory, not the batch.
FEWEST_SEQUENCES, FEWEST_TOKENS = 16, 512
#: Steps start here when no batch is set: the smallest of vLLM's defaults for offline use
#: (EngineArgs.get_batch_defaults).
DEFAULT_SEQUENCES, DEFAULT_TOKENS = 256, 8192


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` or one of its causes means that memory ran out."""
    return any(isinstance(e, MemoryError) or any(t in f"{type(e)} {e}".lower() for t in TEXTS) for e in causes(error))


def engine_error(message: str, error: BaseException) -> EngineError:
    """Returns an EngineError with `message` and the text of `error`, of kind out_of_memory if memory ran out."""
    kind = OUT_OF_MEMORY if is_out_of_memory(error) else None
    return EngineError(f"{message}: {one_line(error)}", kind)


def smaller(sequences: int | None, tokens: int | None) -> dict[str, Any] | None:
    """Returns vLLM's options for the next smaller batch, or None if this one is the smallest.

    `sequences` and `tokens` are those of the current batch; None: vLLM's default.
    """
    sequences, tokens = sequences or DEFAULT_SEQUENCES, tokens or DEFAULT_TOKENS
    if sequences <= FEWEST_SEQUENCES:
        return None
    fewer = max(FEWEST_SEQUENCES, sequences // STEP)
    return {"max_num_seqs": fewer, "max_num_batched_tokens": max(FEWEST_TOKENS, min(tokens, tokens // STEP))}
