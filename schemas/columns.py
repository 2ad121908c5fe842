"""Describes every column of every public view, with its unit: the comments that DuckDB shows.

The schema of a table describes a column that a view passes on from it. This module describes all others.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.records import (
    AGGREGATE,
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
    "aggregates": (AGGREGATE,),
    "imports": (IMPORT,),
    "rejects": (REJECT,),
    "suspicions": (SUSPICION,),
    "prices": (PRICE,),
    "gpu_prices": (GPU_PRICE,),
    "price_names": (PRICE_NAME,),
    "model_prices": (PRICE,),
    "costs": (RECORD,),
    "candidates": (RUN_CELL,),
    "questions": (ITEM,),
    "pool": (RECORD,),
}

#: Columns of RUN_CELL that mean the same in every view that has them.
_OF_CELLS = (
    *("cell_id", "model", "revision", "task", "items_digest", "prompting", "num_fewshot", "chat_template", "dtype"),
    *("quantization", "effort", "max_length", "metric", "filter", "higher_is_better", "imported_from", "run_id"),
)

_COUNTS = {
    "attempted": "items that were collected: scored, set-level and failed ones",
    "scored": "items with a score",
    "failed": "items without a verdict by our fault (outcome engine, judge or store); missing, never counted as wrong",
    "ok": "items with a whole answer and a verdict",
    "empty": "items with an empty answer, scored by the task's verdict on it",
    "truncated": "items whose answer reached the limit of generated tokens, scored as it is",
    "overlong": "items whose prompt does not fit the model's context, scored 0",
    "nan": "items for which the model's log-likelihood was not a number, scored 0",
    "filtered": "items that a provider's content filter withheld, scored 0",
    "refused": "items that the model cannot be asked, such as a token that its weights lack, scored 0",
    "engine": "items that the engine did not answer",
    "judge": "items that could not be judged",
    "store": "items that could not be stored",
}
_SHARD = {
    "generation": FOLDED_RECORD.field("generation").metadata[b"doc"].decode(),
    "first_item": "first item of the shard, position in the task's item table",
    "last_item": "last item of the shard, inclusive",
    "engine": "name of the engine that answered; null: not recorded",
    "gpu": "name of the GPU that answered; null: on CPUs, or not recorded",
    "engine_seconds": "seconds in which the engine worked, by the host's clock",
    "wall_seconds": "seconds from the start of the shard to its commit, with loading",
    "load_seconds": "seconds of loading the model for the shard; 0: already loaded",
    "requests": "requests that the engine answered; each repeat and each choice is one",
    "engine_tokens": "tokens that the engine read or generated for the shard, with cached ones",
    "concurrency": "mean number of requests in flight while there were any",
}
_POOL = {
    "task": "task of the pool; 'all' for the pool of all tasks",
    "is_all": "whether it is the pool of all tasks, with the candidates that every task has",
    "candidate": "name of the candidate: its model, with the revision or quantization where another has the same name",
    "candidates": "candidates of the pool, without those left out",
    "candidates_scored": "candidates with a score on the question",
    "candidates_correct": "candidates with a correct answer to the question",
    "question": "id of the question: a digest of its text, choices, right answer and occurrence",
    "questions": "questions that count: with a score from every candidate; all scores here are over these",
    "left_out": "candidates that are left out, because too many questions would be lost for them",
    "usd": "USD of the answer (view costs); null: unknown",
    "cell_id": "the cell that stands for the candidate",
    "item": "position of the question in that item table, from 0",
    "items_digest": "digest of one of the item tables that hold the question",
}
_BASIS = "how the price was matched: named, equal, short or tier (see model_prices); null: unpriced"
_LEADERBOARD = {
    **_COUNTS,
    "rank": "place by score, else by value, among comparable whole cells, from 1; null where an item is missing",
    "is_group": "whether the row is of a group of tasks, such as mmlu",
    "score": "mean score over the scored items; null for a metric over whole sets",
    "score_answered": "mean score over the items with outcome ok",
    "value": "the metric over all judged items by lm-eval's own aggregation; null: not computed, see view aggregates",
    "value_stderr": "lm-eval's standard error of value; null: it has none",
    "stderr": "standard error of score: sample standard deviation / sqrt(scored); null below two scored items",
    "ci_low": "lower end of the 95 % interval of score",
    "ci_high": "upper end of the 95 % interval of score",
    "ci_method": "wilson, bounded (the metric has a range) or hall (it has none); null: no interval would be honest",
    "mean_prompt_tokens": "mean context tokens of the items with a token count",
    "mean_completion_tokens": "mean completion tokens of the items with a token count",
    "prompt_tokens": "sum of context tokens over the items with a token count",
    "completion_tokens": "sum of completion tokens over the items with a token count",
    "engine_tokens": "sum of all tokens that the engine read or generated, for every choice",
    "cached_tokens": "sum of tokens that the engine read from its prefix cache, for every choice",
    "cached_share": "share of the engine's tokens that came from its prefix cache, from 0 to 1",
    "cacheable_tokens": "sum of engine tokens over the items whose cached tokens are known",
    "mean_latency_s": "mean seconds from scheduled to finish, of the items with a latency",
    "timed_items": "items with a latency",
    "usd_per_1000": "USD for a thousand items: the mean over usd_items; null: no cost is known",
    "usd_items": "items whose cost is known",
    "price_basis": _BASIS.replace("unpriced", "unpriced, or the source alone states costs"),
}

#: View -> column -> its description, for columns that are in no schema of SCHEMAS.
_OWN: dict[str, dict[str, str]] = {
    "records": {"generation": _SHARD["generation"]},
    "responses": {"generation": _SHARD["generation"]},
    "superseded": {"generation": _SHARD["generation"]},
    "matrix": {"generation": _SHARD["generation"]},
    "cells": {
        "is_set_level": "whether metric has a value over a whole set alone, so that items have no score",
        "older_set_level": "the same of the metric in runs of schema 6, whose rows hold its values as scores",
        "has_score_range": "whether an import states the range of its scores",
        "score_low": "least that a score can be, where has_score_range; null: no limit",
        "score_high": "most that a score can be, where has_score_range; null: no limit",
    },
    "aggregates": {"stale": "why value and stderr are not shown; null: they are"},
    "models": {
        "listed_at": "when a catalog last listed it at this revision; null: never",
        "same_weights_as": "the first model with the same weights, among those that can be collected; null: itself",
        "skipped": "why a config's catalog leaves it out; null: it would be collected, or no catalog lists it",
        "skipped_because": "the reason in one line",
    },
    "failures": {
        "level": "cell: a model, task, cell or shard was not collected; item: an item has no verdict by our fault"
    },
    "runs": {
        "started_at": "when the run was planned, UTC",
        "cells": "planned cells",
        "models": "models of these cells",
        "tasks": "tasks of these cells",
        "planned_items": "planned items, over all cells of the run",
        "generation": "0, or the number of the repeated collection",
        "engine": "engine name; null where imported",
        "versions": "JSON of library versions",
        "config": "the run's whole config as JSON",
    },
    "tasks": {"cells": "planned cells of the task"},
    "shards": {
        **_SHARD,
        "generation": "0, or the number of the repeated collection",
        "host": "name of the machine that collected the shard",
        "tokens_per_second": "engine_tokens / engine_seconds",
        "facts": "JSON of the metadata that the run wrote into the shard",
        "file": "path or URI of the shard's file, which a prune may have deleted",
        "in_compaction": "whether the newest compaction holds its rows",
    },
    "model_prices": {
        "model": "model name in cells",
        "model_source": "the cells' source: hub repo, folder or URI",
        "parameters": "number of parameters in the safetensors headers; null: unknown",
        "basis": "how the price was matched: named, equal, short or tier; null: unpriced",
        "price_model": "the entry of prices that applies to it; null: unpriced",
        "provider": "provider with this price",
    },
    "costs": {
        "serving_usd": "USD that a router's user pays for the answer, by model_prices; null: see unknown",
        "usd": "USD: serving_usd, else stated_usd; null: no cost is known",
        "usd_from": "origin of usd: price or stated; null without usd",
        "unknown": "why serving_usd is null: untokened (no token counts) or unpriced (no price); null: it is not",
        "basis": _BASIS,
        "price_model": "the entry of prices that applies to the answer; null: unpriced",
        "provider": "provider with this price",
    },
    "collection_costs": {
        **_SHARD,
        "generation": "0, or the number of the repeated collection",
        "gpu_class": "class of the GPU in a fleet's config or in Ray; null: on CPUs, or not recorded",
        "accelerator": "the entry of gpu_prices that applies to the GPU; null: none",
        "provider": "provider with this price",
        "usd_per_gpu_hour": "USD for an hour of one accelerator; null: unpriced",
        "gpus": "GPUs of the engine, or the share of one; 1 where the run did not record it",
        "usd": "USD that the engine's seconds cost: (engine_seconds + load_seconds) × gpus × usd_per_gpu_hour / 3600; "
        "null: unpriced",
    },
    "coverage": {
        **_COUNTS,
        "planned": "planned items",
        "missing": "planned - attempted",
        "priced": "attempted items with token counts and a price, which may be 0",
        "unpriced": "attempted items with token counts and no price",
        "untokened": "attempted items without token counts",
        "stated": "attempted items with a cost that their source states",
        "suspicions": "kinds of suspicion about an imported cell (view suspicions); null: none",
    },
    "leaderboard": _LEADERBOARD,
    "candidates": {
        **_POOL,
        "cells": "cells of the candidate, of which this is the chosen one",
        "scored": "items of the cell with a score",
        "left_out": "whether it is left out of the pool, because too many questions would be lost for it",
        "gained": "questions that every other candidate has a score for, and it has not; null: it is not left out",
        "engine": "engine of the cell; null: imported",
        "version": "revision and quantization; '' where a source names neither and the model has several",
        "items_digest": "digest of the cell's item table",
    },
    "questions": {
        **_POOL,
        "gold": "the right answer, as a text that is equal for equal answers; null: unknown",
        "occurrence": "1, or the number of the question among equal ones of one item table",
        "scored": "candidates of the pool with a score on it",
        "is_counted": "whether it is in the view pool",
        "question_number": "its number in this database",
    },
    "pool": {
        **_POOL,
        "items_digest": "digest of the cell's item table",
        "item": "position of the question in the cell's item table, from 0",
    },
    "pareto": {
        **_POOL,
        "score": "mean score over questions",
        "usd_per_1000": "USD for a thousand questions: the mean over usd_questions",
        "usd_questions": "questions whose cost is known",
    },
    "oracle": {
        **_POOL,
        "questions_scored_by_any": "questions with a score from at least one candidate",
        "best_model": "the best single candidate, of equal ones the first by name; null without common questions",
        "best_model_score": "its mean score on these questions",
        "oracle_score": "mean of the pool's best score on each of these questions",
        "gap": "oracle_score minus best_model_score, with the sign that makes it positive; in units of the score",
        "dtypes": "known dtypes among the candidates",
        "promptings": "promptings among the candidates: 1 where each task has one",
        "imported": "cells of the pool that were imported",
        "best_cell_id": "cell of the best single candidate; null for the pool of all tasks",
    },
    "oracle_items": {
        **_POOL,
        "best_score": "the pool's best score on the question",
        "candidate": "the cheapest of the candidates with that score",
        "usd": "USD of its answer; null: the cost of none of these candidates is known",
        "cell_id": "the cell of candidate",
    },
    "cheapest_correct": {
        **_POOL,
        "candidates_scored": "candidates of the pool with a verdict on the question, right or wrong",
        "candidate": "the cheapest of the candidates that are right; null: none is, or no cost of these is known",
        "usd": "USD of its answer",
        "cell_id": "the cell of candidate",
    },
    "complementarity": {
        **_POOL,
        "candidate_a": "one candidate of the pair",
        "candidate_b": "the other",
        "questions": "questions with a verdict, right or wrong, from both",
        "both": "questions that both solve",
        "only_a": "questions that candidate_a alone solves",
        "only_b": "questions that candidate_b alone solves",
        "neither": "questions that neither solves",
        "union_score": "share of the questions that at least one solves, from 0 to 1",
    },
    "profile": {
        "stage": "tasks, fetch, load, build, engine, prefill (within engine), judge, write or idle",
        "seconds": "seconds of the stage, by the host's clock, summed over the shards",
        "shards": "shards with the stage",
    },
    "throughput": {
        **_SHARD,
        "engine": "names of the engines that answered; null: not recorded",
        "gpu": "names of the GPUs that answered; null: on CPUs, or not recorded",
        "items": "items of all shards with engine seconds; null: there are none",
        "shards": "number of these shards",
        "engine_seconds": "seconds in which the engine worked, summed over these shards",
        "wall_seconds": "seconds from the start of a shard to its commit, summed over these shards",
        "load_seconds": "seconds of loading the model, summed over these shards",
        "items_per_s": "items / engine_seconds",
        "engine_tokens_per_s": "tokens that the engine read or generated per engine second, with cached ones",
        "generated_tokens_per_s": "tokens generated per engine second; null: unknown, or the task scores choices",
        "mean_latency_s": "mean seconds from scheduled to finish of an item, among concurrent ones; null: none known",
        "mean_ttft_s": "mean seconds from scheduled to first token of an item; null: none known",
        "timed_items": "items with a latency",
        "concurrency": "mean number of requests in flight, weighted by engine seconds",
    },
}


def column_docs(view: str) -> dict[str, str]:
    """Column -> its description, for every column of a public view and possibly for others."""
    fields = {field.name: field for schema in SCHEMAS.get(view, ()) for field in schema}
    described = {name: RUN_CELL.field(name) for name in _OF_CELLS} | fields
    return {name: field.metadata[b"doc"].decode() for name, field in described.items()} | _OWN.get(view, {})
