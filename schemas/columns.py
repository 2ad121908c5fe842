"""What every column of every public view holds, and in which unit: the comments that DuckDB shows.

A column that a view hands on from a table is described once, by that table's schema. Owns the words for all others.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.records import (
    FAILURE,
    FOLDED_RECORD,
    GPU_PRICE,
    IMPORT,
    ITEM,
    MODEL,
    PRICE,
    PRICE_NAME,
    RECORD,
    REJECT,
    RUN_CELL,
    RUN_END,
    SUSPICION,
)

#: View -> the schemas that its columns of the same names come from.
SCHEMAS: dict[str, tuple[pa.Schema, ...]] = {
    "records": (RECORD,),
    "responses": (RECORD,),
    "superseded": (RECORD,),
    "matrix": (RECORD,),
    "items": (ITEM,),
    "models": (MODEL,),
    "cells": (RUN_CELL,),
    "runs": (RUN_END,),
    "tasks": (RUN_CELL,),
    "failures": (FAILURE,),
    "imports": (IMPORT,),
    "rejects": (REJECT,),
    "suspicions": (SUSPICION,),
    "prices": (PRICE,),
    "gpu_prices": (GPU_PRICE,),
    "price_names": (PRICE_NAME,),
    "model_prices": (PRICE,),
    "costs": (RECORD,),
}

#: Columns of RUN_CELL that mean the same in every view that has them.
_OF_CELLS = (
    *("cell_id", "model", "revision", "task", "items_digest", "prompting", "num_fewshot", "chat_template", "dtype"),
    *("quantization", "max_length", "metric", "higher_is_better", "imported_from", "run_id"),
)

_COUNTS = {
    "attempted": "items that were asked: scored + unanswered + failed",
    "scored": "items with a score",
    "unanswered": "items that the model answered with nothing (schemas.failures.UNANSWERED); never counted as wrong",
    "failed": "items without a score for another reason; never counted as wrong",
}
_SHARD = {
    "generation": FOLDED_RECORD.field("generation").metadata[b"doc"].decode(),
    "first_item": "first item of the shard, position in the task's item table",
    "last_item": "last item of the shard, included",
    "engine": "name of the engine that answered; null: not recorded",
    "gpu": "name of the GPU that answered; null: on CPUs, or not recorded",
    "engine_seconds": "seconds in which the engine worked, by the host's clock",
    "wall_seconds": "seconds from taking up the shard to its commit, loading included",
    "load_seconds": "seconds of loading the model for the shard; 0: it was loaded already",
    "requests": "requests that the engine answered, repeats and choices counted singly",
    "engine_tokens": "tokens that the engine took in or put out for the shard, cached ones included",
    "concurrency": "requests in flight, on average over the time that any was",
}
_POOL = {
    "models": "cells in the pool",
    "models_scored": "cells of the pool with a verdict on the item",
    "models_correct": "cells of the pool that are right on the item",
    "pool": "cell_id of the pool's first cell: equal for all rows of a pool",
}
_BASIS = "how the price was found: named, equal, short or tier (see model_prices); null: unpriced"
_LEADERBOARD = {
    **_COUNTS,
    "rank": "place by score among comparable cells, from 1; null without a score",
    "score": "mean score over the scored items",
    "stderr": "standard error of score: sample standard deviation / sqrt(scored); null below two scored items",
    "ci_low": "lower end of the 95 % interval of score",
    "ci_high": "upper end of the 95 % interval of score",
    "ci_method": "wilson where every score is 0 or 1, else normal; null without an interval",
    "mean_prompt_tokens": "context tokens per item, over the items where they are known",
    "mean_completion_tokens": "completion tokens per item, over the items where they are known",
    "prompt_tokens": "sum of context tokens over the items where they are known",
    "completion_tokens": "sum of completion tokens over the items where they are known",
    "engine_tokens": "sum of all tokens that the engine took in or put out, every choice included",
    "cached_tokens": "sum of tokens that the engine read from its prefix cache, every choice included",
    "cached_share": "share of the engine's tokens that its prefix cache held, from 0 to 1",
    "mean_latency_s": "seconds from scheduled to finish per item, over the items where it is known",
    "usd_per_1000": "USD for a thousand items: the mean over usd_items; null: no cost is known",
    "usd_items": "items whose cost is known",
    "price_basis": _BASIS.replace("unpriced", "unpriced, or by the source's statement alone"),
}

#: View -> column -> what it holds, where no schema says it.
_OWN: dict[str, dict[str, str]] = {
    "records": {"generation": _SHARD["generation"]},
    "responses": {"generation": _SHARD["generation"]},
    "superseded": {"generation": _SHARD["generation"]},
    "matrix": {"generation": _SHARD["generation"]},
    "models": {
        "listed_at": "when a catalog last saw it at this revision; null: none did",
        "same_weights_as": "the model that first had these weights, of those that could be collected; null: itself",
        "skipped": "why a config's catalog leaves it out; null: it would be collected, or is from no catalog",
        "skipped_because": "one line about that",
    },
    "failures": {"level": "cell: something could not be collected; item: an item of the matrix has no verdict"},
    "runs": {
        "started_at": "when the run was planned, UTC",
        "cells": "cells that the run was to collect",
        "models": "models among them",
        "tasks": "tasks among them",
        "planned_items": "items that the run was asked for, over all its cells",
        "generation": "0, or the number of the forced recollection",
        "engine": "engine name; null where imported",
        "versions": "JSON of library versions",
        "config": "the run's whole config as JSON",
    },
    "tasks": {"cells": "cells that were planned on it"},
    "shards": {
        **_SHARD,
        "generation": "0, or the number of the forced recollection",
        "host": "name of the machine that collected the shard",
        "tokens_per_second": "engine_tokens / engine_seconds",
        "facts": "JSON of everything that the run wrote into the shard's metadata",
        "file": "path or URI of the shard's file; after a prune it may be gone",
        "in_compaction": "whether the newest compaction holds its rows",
    },
    "model_prices": {
        "model": "model, as cells call it",
        "parameters": "number of parameters in the safetensors headers; null: unknown",
        "basis": "how the price was found: named, equal, short or tier; null: unpriced",
        "price_model": "the entry of prices that it is charged by; null: unpriced",
        "provider": "whose price it is",
    },
    "costs": {
        "serving_usd": "USD that a router's user pays for the answer, by model_prices; null: see unknown",
        "usd": "USD: serving_usd, else stated_usd; null: no cost is known",
        "usd_from": "where usd comes from: price or stated; null without it",
        "unknown": "why serving_usd is null: untokened (no token counts), unpriced (no price); null: it is known",
        "basis": _BASIS,
        "price_model": "the entry of prices that the answer is charged by; null: unpriced",
        "provider": "whose price it is",
    },
    "collection_costs": {
        **_SHARD,
        "generation": "0, or the number of the forced recollection",
        "gpu_class": "class of the GPU, as a fleet's config or Ray calls it; null: on CPUs, or not recorded",
        "accelerator": "the entry of gpu_prices that the GPU is charged by; null: none",
        "provider": "whose price it is",
        "usd_per_gpu_hour": "USD for one accelerator and hour; null: unpriced",
        "gpus": "GPUs that the engine had, or the part of one; 1 where the run does not say",
        "usd": "USD that the engine's seconds cost: (engine_seconds + load_seconds) × gpus × usd_per_gpu_hour / 3600; "
        "null: unpriced",
    },
    "coverage": {
        **_COUNTS,
        "planned": "items that runs were asked for",
        "missing": "planned - attempted",
        "priced": "attempted items with token counts and a price, be it 0",
        "unpriced": "attempted items with token counts and no price",
        "untokened": "attempted items without token counts",
        "stated": "attempted items whose cost the source states",
        "suspicions": "kinds of what looks wrong in an imported cell (view suspicions); null: nothing does",
    },
    "leaderboard": _LEADERBOARD,
    "pareto": _LEADERBOARD,
    "oracle": {
        **_POOL,
        "items": "items that every cell of the pool has a score on: what all scores here rest on",
        "items_scored_by_any": "items that some cell of the pool has a score on",
        "best_model": "the best single model, the first by name of equals; null without common items",
        "best_model_score": "its mean score on the common items",
        "oracle_score": "mean over the common items of the best score that any cell of the pool has",
        "gap": "how much better the oracle is than the best single model, in units of the score; never negative",
        "best_cell_id": "cell of the best single model",
    },
    "oracle_items": {
        **_POOL,
        "item": "position of the item in the task's item table, from 0",
        "best_score": "the best score that any cell of the pool has on the item",
        "model": "the cheapest of the models with that score",
        "usd": "USD of its answer; null: of none of these the cost is known",
        "cell_id": "the cell of model",
    },
    "cheapest_correct": {
        **_POOL,
        "item": "position of the item in the task's item table, from 0",
        "models_scored": "cells of the pool of which it is known whether they are right on the item",
        "model": "the cheapest of the models that are right; null: nobody is, or of those who are no cost is known",
        "usd": "USD of its answer",
        "cell_id": "the cell of model",
    },
    "complementarity": {
        "model_a": "one model of the pair",
        "model_b": "the other",
        "items": "items of which both are known to be right or wrong",
        "both": "items that both solve",
        "only_a": "items that model_a alone solves",
        "only_b": "items that model_b alone solves",
        "neither": "items that neither solves",
        "union_score": "share of the items that at least one solves, from 0 to 1",
        "cell_id_a": "cell of model_a",
        "cell_id_b": "cell of model_b",
    },
    "profile": {
        "stage": "tasks, fetch, load, build, engine, prefill (a part of engine), judge, write or idle",
        "seconds": "seconds of the stage, by the host's clock, over these shards",
        "shards": "shards that had the stage",
    },
    "throughput": {
        **_SHARD,
        "engine": "names of the engines that answered; null: not recorded",
        "gpu": "names of the GPUs that answered; null: on CPUs, or not recorded",
        "items": "items of all shards whose engine seconds are known; null: of none",
        "shards": "number of these shards",
        "engine_seconds": "seconds in which the engine worked, over these shards",
        "wall_seconds": "seconds from taking up a shard to its commit, over these shards",
        "load_seconds": "seconds of loading the model, over these shards",
        "items_per_s": "items / engine_seconds",
        "engine_tokens_per_s": "tokens that the engine took in or put out per engine second, cached ones included",
        "generated_tokens_per_s": "tokens generated per engine second; null: not known, or choices are scored",
        "mean_latency_s": "seconds from scheduled to finish per item, beside concurrency others; null: of none known",
        "mean_ttft_s": "seconds from scheduled to first token per item; null: of none known",
        "timed_items": "items whose latency is known",
        "concurrency": "requests in flight, on average, weighted by engine seconds",
    },
}


def column_docs(view: str) -> dict[str, str]:
    """Column -> what it holds, for every column of a public view; others may be among them."""
    fields = {field.name: field for schema in SCHEMAS.get(view, ()) for field in schema}
    known = {name: RUN_CELL.field(name) for name in _OF_CELLS} | fields
    return {name: field.metadata[b"doc"].decode() for name, field in known.items()} | _OWN.get(view, {})
