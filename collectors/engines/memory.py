"""Running out of memory: how it is told from other faults of an engine, and what a smaller batch is.

Owns the texts by which PyTorch 2.13 and vLLM 0.32 (v1/core/kv_cache_utils.py, v1/worker/utils.py) say it, and the steps
by which batches shrink. Imports neither. Knows nothing of who tries again.
"""

from __future__ import annotations

from typing import Any

from schemas.failures import OUT_OF_MEMORY, EngineError, causes, one_line

#: Parts of messages, in lower case: of torch and CUDA, of vLLM where weights leave too little for its cache, of Linux
#: where a process may not have more.
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

#: By how much each step makes a batch smaller, and what a batch is never made smaller than: below 16 sequences the
#: cache, not the batch, is what memory goes to.
STEP = 4
FEWEST_SEQUENCES, FEWEST_TOKENS = 16, 512
#: Smallest of vLLM's defaults for offline use (EngineArgs.get_batch_defaults): steps begin there where nothing is set.
DEFAULT_SEQUENCES, DEFAULT_TOKENS = 256, 8192


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, says that memory did not suffice."""
    return any(isinstance(e, MemoryError) or any(t in f"{type(e)} {e}".lower() for t in TEXTS) for e in causes(error))


def engine_error(message: str, error: BaseException) -> EngineError:
    """An EngineError that says `message` and why, of kind out_of_memory where that is what it was."""
    kind = OUT_OF_MEMORY if is_out_of_memory(error) else None
    return EngineError(f"{message}: {one_line(error)}", kind)


def smaller(sequences: int | None, tokens: int | None) -> dict[str, Any] | None:
    """vLLM's options for the next smaller batch than one of `sequences` and `tokens` (None: vLLM's default).

    None where it is as small as it may be.
    """
    sequences, tokens = sequences or DEFAULT_SEQUENCES, tokens or DEFAULT_TOKENS
    if sequences <= FEWEST_SEQUENCES:
        return None
    fewer = max(FEWEST_SEQUENCES, sequences // STEP)
    return {"max_num_seqs": fewer, "max_num_batched_tokens": max(FEWEST_TOKENS, min(tokens, tokens // STEP))}
