"""The pinned Arrow schema of every table in a lake.

Owns column names, types, units and the meaning of null. Knows nothing of storage and of who writes the tables. A null
always means "unknown": it never stands for wrong, zero or free.
"""

from __future__ import annotations

import pyarrow as pa

#: Version of all schemas below. A change of any column or table makes a new one, with a line of reason here and its
#: digest in tests/schemas/test_versions.py. New columns allow null; other changes need a schemas.migrations entry.
#: 1: first version. 2: failures name an object of the lake; compactions. 3: imported records. 4: prices.
#: 5: a hub's catalog of models. 6: how runs ended; one copy of a run's config. 7: outcomes of items, with scores for
#: those of the model; metrics over whole sets (aggregates); more of a cell's settings. 8: retractions.
#: 9: verdicts apart from answers. 10: thoughts of models that think (tokens, settings), endpoints, and the prices that
#: hosts ask beside prompt and completion. 11: splits for routers.
#: 12: forecasts of items that were not asked, and the fits behind them.
#: 13: lists of items of sparse shards, probe sets, and the items that a run meant to ask of a cell.
SCHEMA_VERSION = 13


def _field(name: str, dtype: pa.DataType, doc: str, *, null: bool = True) -> pa.Field:
    return pa.field(name, dtype, nullable=null, metadata={"doc": doc})


_TEXTS = pa.list_(pa.string())

#: One item of one cell, per filter and repeat: the rows of shards/.
RECORD = pa.schema(
    [
        _field("cell_id", pa.string(), "identity of model, task, items, prompting and decoding", null=False),
        _field("model", pa.string(), "model name in the run's config", null=False),
        _field("task", pa.string(), "lm-eval task name", null=False),
        _field("item", pa.int32(), "position of the item in the task's item table, from 0", null=False),
        _field("item_hash", pa.string(), "lm-eval's doc_hash: SHA-256 of the document as JSON", null=False),
        _field("filter", pa.string(), "lm-eval filter of the answer", null=False),
        _field(
            "repeat",
            pa.int16(),
            "0: the task's own verdict over all repeats; r >= 1: the r-th answer judged alone, where a task repeats",
            null=False,
        ),
        _field(
            "score",
            pa.float64(),
            "value of the primary metric, by schemas.verdicts; null where it was not judged, by our fault, and where "
            "the metric has a value over a whole set alone. In rows without an outcome (schema 6) also null: empty",
        ),
        _field("correct", pa.bool_(), "score >= the cell's correct_threshold; null when unknown"),
        _field("metrics", pa.string(), "JSON object of every metric that the task computed; null when not judged"),
        _field("failure", pa.string(), "failure kind of this item (see schemas.failures); null: none"),
        _field("outcome", pa.string(), "ok, or why the answer is none (see schemas.verdicts); null: schema 6"),
        _field("prompt_tokens", pa.int32(), "context tokens, counted once"),
        _field("cut_tokens", pa.int32(), "context tokens that were cut off so that the prompt fits; null: none"),
        _field("completion_tokens", pa.int32(), "tokens generated (all repeats on repeat 0), or of the chosen answer"),
        _field(
            "reasoning_tokens",
            pa.int32(),
            "the part of completion_tokens that is the thought before an answer; null: not counted, or none",
        ),
        _field("cached_tokens", pa.int32(), "prompt tokens that the engine read from its prefix cache"),
        _field("cache_write_tokens", pa.int32(), "prompt tokens that a host wrote into its cache; null: not stated"),
        _field("engine_tokens", pa.int64(), "all tokens that the engine read or generated for the item"),
        _field("finish_reason", pa.string(), "stop or length for generated text; null for scored choices"),
        _field("ttft_s", pa.float64(), "seconds from scheduled to first token, by the engine's clock"),
        _field("latency_s", pa.float64(), "seconds from scheduled to finish, by the engine's clock"),
        _field("stated_usd", pa.float64(), "cost of the call that the source of an imported record states, USD"),
        _field("source_file", pa.string(), "SHA-256 of the file that the record was imported from; null: collected"),
        _field("source_row", pa.int64(), "row or line of that file, from 1; null: collected"),
        _field(
            "responses",
            _TEXTS,
            "generated text per repeat, with its thought where the cell has markers (column thinking); on "
            "the first filter's rows only",
        ),
        _field(
            "loglikelihoods", pa.list_(pa.float64()), "log-likelihood per request (choice); first filter's rows only"
        ),
        _field(
            "is_greedy", pa.list_(pa.bool_()), "whether each request was the greedy continuation; first filter only"
        ),
        _field("filtered", pa.string(), "JSON of a generated answer after the filter"),
    ]
)

#: One document of a task: the rows of items/.
ITEM = pa.schema(
    [
        _field("task", pa.string(), "lm-eval task name", null=False),
        _field("items_digest", pa.string(), "digest of all item hashes of the table, in order", null=False),
        _field("item", pa.int32(), "position in the table, from 0", null=False),
        _field("item_hash", pa.string(), "lm-eval's doc_hash", null=False),
        _field("prompt", pa.string(), "the question as the task renders it, without few-shot examples"),
        _field("target", pa.string(), "the reference answer, as JSON"),
        _field("choices", _TEXTS, "answer choices; null for free-form tasks"),
        _field("subject", pa.string(), "the document's subject or category; null without one"),
        _field("doc", pa.string(), "the whole document as JSON"),
        _field("content_hash", pa.string(), "schemas.identity.content_hash: equal for equal items of all sources"),
        _field("source_key", pa.string(), "the item's key in the source of an import; null: collected"),
    ]
)

#: A description of one model at one revision: models/. The view merges several rows of the same model.
MODEL = pa.schema(
    [
        _field("model", pa.string(), "model name in the run's config", null=False),
        _field("source", pa.string(), "hub repo, folder or URI", null=False),
        _field("revision", pa.string(), "commit sha of a hub repo, or fingerprint of a folder's files; null: unknown"),
        _field("architecture", pa.string(), "first entry of config.json's architectures"),
        _field(
            "parameters",
            pa.int64(),
            "number of parameters in the safetensors headers; the hub's own count where these cannot be read and of "
            "GGUF files; null: unknown, or several quantized weights are in one integer",
        ),
        _field("weight_bytes", pa.int64(), "bytes of the weight files that an engine would load"),
        _field("max_length", pa.int32(), "longest context that config.json names, tokens"),
        _field(
            "tokenizer_hash",
            pa.string(),
            "digest of the contents of the tokenizer's files, or 'hub-' and a digest of the hub's ids of them; equal "
            "digests mean equal tokenizers, unequal ones mean nothing",
        ),
        _field("chat_template_hash", pa.string(), "digest of the chat template; null: none, or unknown"),
        _field("dtype", pa.string(), "weight type that config.json names"),
        _field("quantization", pa.string(), "quantization method that config.json or a quantizer's own file names"),
        _field(
            "weights", pa.string(), "kind of the weight files: safetensors, bin, adapter or gguf; null: no such files"
        ),
        _field("weights_hash", pa.string(), "digest of the SHA-256 of the weight files: equal for the same weights"),
        _field("tensors_hash", pa.string(), "digest of name, dtype and shape of every tensor in safetensors headers"),
        _field("files_hash", pa.string(), "digest of all files that decide an answer, by the hub's ids of them"),
        _field("config", pa.string(), "config.json"),
        _field("generation_config", pa.string(), "generation_config.json"),
        _field("licence", pa.string(), "licence that the model card states"),
        _field("library", pa.string(), "library, by the hub"),
        _field("pipeline_tag", pa.string(), "purpose, by the hub, such as text-generation"),
        _field(
            "base_model",
            pa.string(),
            "model that it was made from, by its card or adapter_config.json; the first of several",
        ),
        _field(
            "base_relation",
            pa.string(),
            "how it was made from base_model, by the hub: adapter, finetune, merge or quantized",
        ),
        _field("gated", pa.bool_(), "whether the hub gives its files only to users who accepted its terms"),
        _field("downloads", pa.int64(), "downloads in 30 days, by the hub's latest count"),
        _field("created_at", pa.timestamp("us", tz="UTC"), "when the repo was created"),
        _field("listed_at", pa.timestamp("us", tz="UTC"), "when a catalog listed it at this revision; null: never"),
        _field(
            "said_at",
            pa.timestamp("us", tz="UTC"),
            "when a catalog wrote the row: for values that may change, the newest row counts",
        ),
        _field(
            "vllm", pa.bool_(), "whether vllm_version has a class for it, its own or one of transformers; null: unknown"
        ),
        _field("vllm_version", pa.string(), "version of vLLM behind the column vllm"),
        _field(
            "problem", pa.string(), "why its files could not be read: a kind of schemas.failures; null: they were read"
        ),
        _field("problem_message", pa.string(), "the problem in one line"),
    ]
)

#: One planned cell of one run: runs/. It holds the identity, and settings that are left out of it on purpose.
RUN_CELL = pa.schema(
    [
        _field("run_id", pa.string(), "UTC start time and a random suffix", null=False),
        _field("started_at", pa.timestamp("us", tz="UTC"), "when the run was planned", null=False),
        _field("cell_id", pa.string(), "identity of the cell", null=False),
        _field("imported_from", pa.string(), "name of the source of imported records; null: collected"),
        _field("model", pa.string(), "model name", null=False),
        _field(
            "source", pa.string(), "hub repo, folder or URI; of an imported cell the name in its source", null=False
        ),
        _field("revision", pa.string(), "resolved revision"),
        _field("task", pa.string(), "lm-eval task name; of an imported cell the name in its source", null=False),
        _field("task_version", pa.string(), "the task's own version"),
        _field("task_digest", pa.string(), "digest of the task's resolved config"),
        _field("items_digest", pa.string(), "digest of the task's items", null=False),
        _field("output_type", pa.string(), "lm-eval request kind"),
        _field("num_fewshot", pa.int32(), "few-shot examples"),
        _field("fewshot_seed", pa.int32(), "seed of the few-shot sampler; 0 without few-shot examples"),
        _field("chat_template", pa.string(), "true, or a template's name; null when none is applied"),
        _field("fewshot_as_multiturn", pa.bool_(), "whether few-shot examples are chat turns"),
        _field("system_prompt", pa.string(), "system prompt; null when none"),
        _field(
            "decoding",
            pa.string(),
            "JSON of generation settings that override the task's own; repeats: answers to each item, where a config "
            "asks for several",
        ),
        _field("dtype", pa.string(), "weight and activation type"),
        _field("quantization", pa.string(), "quantization method; null when none"),
        _field("max_length", pa.int32(), "longest context of the run, tokens; null: the model's own"),
        _field("overrides", pa.string(), "JSON of engine arguments that may change answers; null when none"),
        _field(
            "prompting",
            pa.string(),
            "hash of everything above except the model: cells with equal hashes compare models",
            null=False,
        ),
        _field("metric", pa.string(), "primary metric, the one in score", null=False),
        _field(
            "aggregation",
            pa.string(),
            "how the task makes one number of its items' values: mean, or a function's name, and then items have no "
            "score; null: see schemas.verdicts.is_set_level",
        ),
        _field("overlong", pa.string(), "what happens to a prompt beyond the context: truncate; null: it fails"),
        _field(
            "context_length",
            pa.int32(),
            "context that the task needs, tokens, as worked out; null: max_length is set",
        ),
        _field("chat_date", pa.string(), "date that the chat template writes, YYYY-MM-DD; null: it writes none"),
        _field(
            "generation_config",
            pa.string(),
            "JSON of settings that the model's generation_config.json adds to the task's; null: none",
        ),
        _field(
            "effort",
            pa.string(),
            "what tells candidates apart in how the model thinks, in words: the settings below; null: none is set",
        ),
        _field("chat_template_args", pa.string(), "JSON of the chat template's variables; null: none is set"),
        _field("thinking", pa.string(), "JSON of the markers around a thought: start, end; null: none are set"),
        _field("thinking_tokens", pa.int32(), "most tokens of a thought; null: no limit of its own"),
        _field("reasoning_effort", pa.string(), "effort that the endpoint was asked for; null: its own default"),
        _field("endpoint", pa.string(), "URL of the server that answered, without credentials; null: an own engine"),
        _field("filter", pa.string(), "primary filter, the one in the matrix", null=False),
        _field("higher_is_better", pa.bool_(), "direction of the primary metric", null=False),
        _field("correct_threshold", pa.float64(), "lowest score of a correct answer; null: there is none"),
        _field("items", pa.int32(), "items of the task", null=False),
        _field("planned_items", pa.int32(), "items that the run planned (limit)", null=False),
        _field("sampled_items", pa.int32(), "those that it meant to ask, of planned_items; null: all"),
        _field("item_set", pa.string(), "digest of the list of these (item_sets); null: all"),
        _field("generation", pa.int32(), "0, or the number of the repeated collection", null=False),
        _field("engine", pa.string(), "engine name; null: imported"),
        _field("sandbox", pa.string(), "program and limits that run the answers; null: none is run"),
        _field("versions", pa.string(), "JSON of library versions", null=False),
        _field("config", pa.string(), "the run's whole config as JSON; null: on another row of the run"),
    ]
)

#: How one run ended: run_ends/. A run without a row is at work, was killed, or could no longer reach its lake.
RUN_END = pa.schema(
    [
        _field("run_id", pa.string(), "the run", null=False),
        _field("ended_at", pa.timestamp("us", tz="UTC"), "when the run ended", null=False),
        _field(
            "outcome",
            pa.string(),
            "finished: all but failed cells are complete; budget: a budget is spent; stopped: by hand or a signal; "
            "error: by an error that would have stopped every other cell, too",
            null=False,
        ),
        _field("message", pa.string(), "one line with the budget, signal, error or number of failed cells; null: none"),
    ]
)

#: One failure above the level of an item: failures/. Item failures are the `failure` column of RECORD.
FAILURE = pa.schema(
    [
        _field("run_id", pa.string(), "run of the failure", null=False),
        _field("failed_at", pa.timestamp("us", tz="UTC"), "when it happened", null=False),
        _field("model", pa.string(), "model name; null when no model is concerned"),
        _field("task", pa.string(), "task name; null when it concerns all of the model's cells"),
        _field("cell_id", pa.string(), "cell; null when its identity is unknown"),
        _field("first_item", pa.int32(), "first item of the shard at work"),
        _field("last_item", pa.int32(), "last item of the shard at work"),
        _field("kind", pa.string(), "failure kind (see schemas.failures)", null=False),
        _field("message", pa.string(), "one line: the error, and advice", null=False),
        _field("file", pa.string(), "name of the object of the lake that cannot be read; null for other failures"),
    ]
)

#: The value of one metric over all items of a cell, or over the cells of a group: aggregates/.
AGGREGATE = pa.schema(
    [
        _field("task", pa.string(), "lm-eval task, or group of tasks", null=False),
        _field("is_group", pa.bool_(), "whether it is a group's", null=False),
        _field("model", pa.string(), "model name", null=False),
        _field("cell_id", pa.string(), "the cell; null for a group"),
        _field("members", _TEXTS, "cells of the group, sorted; null for a task"),
        _field("prompting", pa.string(), "of the cell; of a group a digest of its cells' promptings", null=False),
        _field("metric", pa.string(), "metric of the task or group", null=False),
        _field("filter", pa.string(), "lm-eval filter of the answers", null=False),
        _field("aggregation", pa.string(), "function that made the value, such as mean or perplexity", null=False),
        _field("higher_is_better", pa.bool_(), "direction of the metric", null=False),
        _field("value", pa.float64(), "the task's own aggregation of its items' values; null: see problem"),
        _field("stderr", pa.float64(), "standard error of value, as lm-eval's; null: lm-eval has none, or not finite"),
        _field("items", pa.int32(), "items behind the value", null=False),
        _field("bootstraps", pa.int32(), "resamples behind stderr; null: by a formula"),
        _field("problem", pa.string(), "why there is no value, in one line; null: there is one"),
        _field("covers", pa.string(), "digest of the shards behind the value: see the view aggregates", null=False),
        _field("computed_at", pa.timestamp("us", tz="UTC"), "when it was computed", null=False),
        _field("judge_id", pa.string(), "judge of the verdicts behind the value; null: the task's own, in records"),
    ]
)

#: One judge of stored answers to one task: judges/.
JUDGE = pa.schema(
    [
        _field("judge_id", pa.string(), "digest of the columns before made_at: all that decides a verdict", null=False),
        _field("judge", pa.string(), "name that commands take", null=False),
        _field("kind", pa.string(), "task: lm-eval's own code; code: it runs the answers; model", null=False),
        _field("task", pa.string(), "task whose answers it judges", null=False),
        _field("version", pa.string(), "version that the task or the prompt file states; null: none"),
        _field("digest", pa.string(), "digest of the judge's code and settings, or of its prompt file", null=False),
        _field("sandbox", pa.string(), "program and limits that run the answers; null: none is run"),
        _field("metric", pa.string(), "metric behind score", null=False),
        _field("filter", pa.string(), "filter of the verdict that the matrix shows", null=False),
        _field("aggregation", pa.string(), "how the task makes one number of its items' values", null=False),
        _field("higher_is_better", pa.bool_(), "direction of the metric", null=False),
        _field("correct_threshold", pa.float64(), "lowest score of a correct answer; null: there is none"),
        _field("model", pa.string(), "model that judges; null: none does"),
        _field("revision", pa.string(), "revision of that model"),
        _field("settings", pa.string(), "JSON of what else decides: decoding, scale, parser, opponent", null=False),
        _field(
            "made_at", pa.timestamp("us", tz="UTC"), "when it judged first; of one name the newest counts", null=False
        ),
        _field("prompt", pa.string(), "text of the prompt file; null: no model judges"),
        _field("versions", pa.string(), "JSON of library versions", null=False),
    ]
)

#: The verdict of one judge on one item of a cell, per filter and repeat: verdicts/.
VERDICT = pa.schema(
    [
        _field("judge_id", pa.string(), "the judge", null=False),
        _field("cell_id", pa.string(), "cell of the answer", null=False),
        _field("generation", pa.int32(), "generation of the answer", null=False),
        _field("task", pa.string(), "lm-eval task name", null=False),
        _field("item", pa.int32(), "position of the item in the task's item table, from 0", null=False),
        _field("item_hash", pa.string(), "lm-eval's doc_hash of the document", null=False),
        _field("filter", pa.string(), "filter of the answer", null=False),
        _field("repeat", pa.int16(), "as in records", null=False),
        _field("against", pa.string(), "cell whose answer to the item it was compared with; null: it stood alone"),
        _field("answer", pa.string(), "digest of the judged answer and its opponent's; null: there was none"),
        _field("score", pa.float64(), "as in records; null where it was not judged"),
        _field("correct", pa.bool_(), "score >= the judge's correct_threshold; null when unknown"),
        _field("metrics", pa.string(), "JSON object of every metric that the judge computed; null when not judged"),
        _field("filtered", pa.string(), "JSON of the filtered answer, or of what was read from the judge's text"),
        _field("failure", pa.string(), "failure kind of this item (see schemas.failures); null: none"),
        _field("outcome", pa.string(), "as in records", null=False),
        _field("judge_texts", _TEXTS, "what the judging model wrote, per order of a pair; null: no model judged"),
        _field("judge_prompt_tokens", pa.int32(), "prompt tokens of the judging model"),
        _field("judge_completion_tokens", pa.int32(), "tokens that the judging model generated"),
        _field("judge_cached_tokens", pa.int32(), "prompt tokens that its engine read from its prefix cache"),
        _field("judge_latency_s", pa.float64(), "seconds of the judging model's requests, by its engine's clock"),
        _field("judge_usd", pa.float64(), "cost of these requests as its endpoint states it, USD"),
    ]
)

_IMPORT = [
    _field("import_id", pa.string(), "digest of the files and of the options of the import", null=False),
    _field("imported_from", pa.string(), "name of the source", null=False),
]

#: One file that was imported: imports/. rows = records + known + folded + rejected.
IMPORT = pa.schema(
    [
        *_IMPORT,
        _field("imported_at", pa.timestamp("us", tz="UTC"), "when the file was imported", null=False),
        _field("format", pa.string(), "format name of ingest.py", null=False),
        _field("format_version", pa.string(), "version of the program that wrote the file; null: not in the file"),
        _field("path", pa.string(), "path of the file, relative to the path on the command line", null=False),
        _field("sha256", pa.string(), "SHA-256 of the file", null=False),
        _field("bytes", pa.int64(), "size of the file", null=False),
        _field("licence", pa.string(), "licence of the source, from the command line; null: not stated"),
        _field("rows", pa.int64(), "verdicts in the file", null=False),
        _field("records", pa.int64(), "rows that became records", null=False),
        _field("known", pa.int64(), "rows that the lake already held, from the same source", null=False),
        _field("folded", pa.int64(), "rows that repeat another row", null=False),
        _field("rejected", pa.int64(), "rows that are wrong or contradictory: see rejects", null=False),
    ]
)

_SOURCE = [
    _field("path", pa.string(), "file, as in imports; null when no file is concerned"),
    _field("source_file", pa.string(), "SHA-256 of the file; null when no file is concerned"),
]

#: One row of a source that is wrong or contradictory: rejects/.
REJECT = pa.schema(
    [
        *_IMPORT,
        *_SOURCE,
        _field("source_row", pa.int64(), "row or line of the file, from 1; null: the whole file"),
        _field("kind", pa.string(), "reason: see collectors.importers.staging", null=False),
        _field("message", pa.string(), "the reason in one line", null=False),
        _field("model", pa.string(), "model name in the source; null: unknown"),
        _field("task", pa.string(), "task name in the source; null: unknown"),
        _field("source_key", pa.string(), "key of the item in the source; null: unknown"),
    ]
)

#: One suspicion about a source, which was imported unchanged: suspicions/.
SUSPICION = pa.schema(
    [
        *_IMPORT,
        *_SOURCE,
        _field("kind", pa.string(), "kind of suspicion: see collectors.importers.suspicions", null=False),
        _field("message", pa.string(), "the finding in one line, with numbers", null=False),
        _field("model", pa.string(), "model; null when several are concerned"),
        _field("task", pa.string(), "task; null when several are concerned"),
        _field("cell_id", pa.string(), "cell; null when several are concerned"),
    ]
)

#: One line of a retraction: retractions/. It takes back a cell's rows (cell_id), a run or an import (run_id), what
#: else names a model (model alone), or a retraction (takes_back). It is worked out when it is written.
RETRACTION = pa.schema(
    [
        _field("retraction_id", pa.string(), "id of the retraction, with the time of its writing", null=False),
        _field("retracted_at", pa.timestamp("us", tz="UTC"), "when it was written", null=False),
        _field("reason", pa.string(), "why, by the person who wrote it", null=False),
        _field("condition", pa.string(), "what that person asked to forget", null=False),
        _field("takes_back", pa.string(), "the retraction that does not hold any more; null: it takes none back"),
        _field("cell_id", pa.string(), "cell whose rows do not count"),
        _field("generation", pa.int32(), "highest generation of the cell that does not count, with all lower ones"),
        _field("first_item", pa.int32(), "first item of the cell that does not count; null: all items"),
        _field("last_item", pa.int32(), "last item of the cell that does not count; null: all items"),
        _field("run_id", pa.string(), "run or import that does not count"),
        _field("model", pa.string(), "model of the cell; without a cell, the model with nothing left"),
        _field("task", pa.string(), "task of the cell"),
        _field("imported_from", pa.string(), "name of the source; null: collected"),
    ]
)

#: Columns of RECORD with a model's answer. A compaction stores them apart from verdicts and tokens.
ANSWERS = ("responses", "loglikelihoods", "is_greedy", "filtered")
#: Columns that identify a row of RECORD, with those that are equal for all rows of an item or a cell.
KEY = ("cell_id", "model", "task", "item", "item_hash", "filter", "repeat")
_GENERATION = RUN_CELL.field("generation").with_metadata({"doc": "generation of the row's shard"})

#: Columns of the view matrix that describe a row's cell.
OF_CELL = ("items_digest", "prompting", "dtype", "quantization", "metric", "imported_from")
#: Verdicts and tokens in a compaction. The columns after `generation` describe the cell, for the matrix.
FOLDED_RECORD = pa.schema(
    [
        *(field for field in RECORD if field.name not in ANSWERS),
        _GENERATION,
        *(RUN_CELL.field(name) for name in OF_CELL),
        _field("is_primary", pa.bool_(), "whether the matrix shows the row: primary filter, repeat 0", null=False),
        _field("place", pa.int32(), "position of the cell in its part, from 0", null=False),
    ]
)
FOLDED_RESPONSE = pa.schema([*(RECORD.field(name) for name in (*KEY, *ANSWERS)), _GENERATION])
#: Rows in a compaction that a higher generation replaced.
OLDER_RECORD = pa.schema([*RECORD, _GENERATION])
#: One shard whose rows a compaction holds.
FOLDED_SHARD = pa.schema(
    [
        _field("cell_id", pa.string(), "identity of the cell", null=False),
        _field("generation", pa.int32(), "generation of the shard", null=False),
        _field("first_item", pa.int32(), "first item of the shard", null=False),
        _field("last_item", pa.int32(), "last item of the shard", null=False),
        _field("part", pa.string(), "object of the compaction with the verdicts", null=False),
        _field("place", pa.int32(), "position of the cell in that part, from 0", null=False),
        _field("facts", pa.string(), "JSON of the metadata that the run wrote into the shard"),
        _field("file", pa.string(), "the shard's name in the lake; the object may be deleted", null=False),
    ]
)

_ADDED = [
    _field("source", pa.string(), "source of the entry", null=False),
    _field(
        "added_at",
        pa.timestamp("us", "UTC"),
        "when it was added to the lake: of two entries the later one counts",
        null=False,
    ),
]
#: The price of a model, or of all models of a size, at one provider from a day on: prices/. Null: unknown, never free.
PRICE = pa.schema(
    [
        _field("model", pa.string(), "the provider's name of the model, or of the tier of sizes", null=False),
        _field("provider", pa.string(), "provider with this price", null=False),
        _field("usd_per_million_prompt", pa.float64(), "USD per million prompt tokens"),
        _field("usd_per_million_cached", pa.float64(), "USD per million cached prompt tokens"),
        _field(
            "usd_per_million_cache_write",
            pa.float64(),
            "USD per million prompt tokens that are written into the cache; null: as other prompt tokens",
        ),
        _field("usd_per_million_completion", pa.float64(), "USD per million completion tokens"),
        _field(
            "usd_per_million_reasoning",
            pa.float64(),
            "USD per million tokens of a thought; null: as other completion tokens",
        ),
        _field("usd_per_million_batch_prompt", pa.float64(), "USD per million prompt tokens of a batch API"),
        _field("usd_per_million_batch_completion", pa.float64(), "USD per million completion tokens of a batch API"),
        _field("usd_per_request", pa.float64(), "additional USD per request; null: unknown, and none is added"),
        _field("over_parameters", pa.int64(), "of a tier: exclusive lower bound of the parameters"),
        _field(
            "to_parameters",
            pa.int64(),
            "of a tier: inclusive upper bound of the parameters; null with over_parameters: no bound",
        ),
        _field("valid_from", pa.date32(), "first day of the price", null=False),
        *_ADDED,
    ]
)
#: The price of an hour of one accelerator from a day on: gpu_prices/.
GPU_PRICE = pa.schema(
    [
        _field("accelerator", pa.string(), "name of the accelerator", null=False),
        _field("provider", pa.string(), "provider with this price", null=False),
        _field("usd_per_gpu_hour", pa.float64(), "USD for an hour of one accelerator", null=False),
        _field("valid_from", pa.date32(), "first day of the price", null=False),
        *_ADDED,
    ]
)
#: The entry of prices/ or gpu_prices/ that applies to a model or an accelerator: price_names/.
PRICE_NAME = pa.schema(
    [
        _field("name", pa.string(), "model name in cells, or the engine's name of an accelerator", null=False),
        _field("price_name", pa.string(), "model or accelerator in the prices; null: none, so it stays unpriced"),
        _field("provider", pa.string(), "provider whose price applies; null: any"),
        *_ADDED,
    ]
)

#: One question, or one candidate, of a division into training and test: splits/. See collectors.metrics.splits.
SPLIT = pa.schema(
    [
        _field("split", pa.string(), "name of the split: the digest of its rule, seed and rows", null=False),
        _field("rule", pa.string(), "content, task, time or model: see collectors.metrics.splits", null=False),
        _field("seed", pa.int64(), "seed of the split", null=False),
        _field("fraction", pa.float64(), "share meant for training", null=False),
        _field("probes", pa.int64(), "training questions that an unseen candidate has answered; null: other rules"),
        _field("task", pa.string(), "task of the question; null: the row is a candidate's"),
        _field("question", pa.string(), "id of the view questions; null: the row is a candidate's"),
        _field("near", pa.string(), "what near-duplicates of the question share; null: the row is a candidate's"),
        _field("candidate", pa.string(), "candidate of the pool; null: the row is a question's"),
        _field("part", pa.string(), "train, test or left_out; of a candidate seen or unseen", null=False),
    ]
)

_FORETOLD = (
    _field(
        "forecast", pa.string(), "id of the forecast: a digest of what it learned from and of its settings", null=False
    ),
    _field("task", pa.string(), "task; 'all' for the mean over all tasks of the forecast", null=False),
    _field("items_digest", pa.string(), "the task's item table; '' for all tasks", null=False),
    _field("prompting", pa.string(), "digest of the prompting; '' for all tasks", null=False),
    _field("metric", pa.string(), "the primary metric; '' for all tasks", null=False),
)
#: An expected score, with the band that it lies in: forecasts/. It is no record, and no view of records shows it.
FORECAST = pa.schema(
    [
        *_FORETOLD,
        _field("model", pa.string(), "model name in the run's config", null=False),
        _field("cell_id", pa.string(), "the model's cell of the task; null: it has none"),
        _field("item", pa.int32(), "position of an item that the cell did not answer; null: the mean of the task"),
        _field("value", pa.float64(), "expected score; of a task with the measured answers counted as they are"),
        _field("low", pa.float64(), "lower end of the band; null: of an item, whose value is a probability itself"),
        _field("high", pa.float64(), "upper end of the band; null: as low"),
        _field("level", pa.float64(), "share of models whose score shall lie in such a band; null: as low"),
        _field("method", pa.string(), "answers, or metadata: no answer of the model is there", null=False),
        _field("asked", pa.int32(), "items of the task that the model answered", null=False),
        _field("items", pa.int32(), "items of the task", null=False),
    ]
)
#: What a forecast learned of one task, and how it did on models that were held out: forecast_fits/.
FORECAST_FIT = pa.schema(
    [
        *_FORETOLD,
        _field("number", pa.int64(), "forecasts of the lake are counted from 1", null=False),
        _field("method", pa.string(), "how it foretells", null=False),
        _field("version", pa.string(), "routerlake's version", null=False),
        _field(
            "basis", pa.string(), "digest of the task's cells and their scores, when it was made; null for all tasks"
        ),
        _field("trained_on", _TEXTS, "cells that it learned from; null in the row of all tasks"),
        _field("verdict", pa.string(), "kept, widened (bands had to grow) or refused (there is none)", null=False),
        _field("reason", pa.string(), "why it widened or refused, in one line; null: kept"),
        _field("split", pa.string(), "what was held out of the check: random models or whole families", null=False),
        _field("asked", pa.int32(), "items of the task that the checked models were asked", null=False),
        _field("models", pa.int64(), "complete models that were held out, each once", null=False),
        _field("level", pa.float64(), "share of models that the bands shall hold", null=False),
        _field("coverage", pa.float64(), "share of the held-out models that they held; null: none was checked"),
        _field("error", pa.float64(), "mean absolute error of the held-out models' means"),
        _field("width", pa.float64(), "mean width of their bands"),
        _field("brier", pa.float64(), "mean squared error of items that were not asked; null for all tasks"),
        _field("brier_of_mean", pa.float64(), "the same, had each item's mean over models been the forecast"),
        _field("pairs", pa.int64(), "pairs of held-out models whose bands do not overlap; null: not counted"),
        _field("pairs_right", pa.float64(), "share of these pairs that are in the foretold order"),
    ]
)

#: The items of a list, in ascending order: item_sets/. A list is an object of its own, named by its digest.
ITEM_SET = pa.schema(
    [
        _field("item_set", pa.string(), "digest of the list", null=False),
        _field("item", pa.int32(), "position of the item in the task's item table, from 0", null=False),
    ]
)

#: The list of items that runs ask first of a task: probe_sets/.
PROBE_SET = pa.schema(
    [
        _field("task", pa.string(), "task for which the list was chosen", null=False),
        _field("items_digest", pa.string(), "digest of the task's items", null=False),
        _field("planned_items", pa.int32(), "items to choose from: the first ones of the table", null=False),
        _field("items", pa.int32(), "items of the list", null=False),
        _field("version", pa.int32(), "number of the choice; runs go on with the first", null=False),
        _field("item_set", pa.string(), "digest of the list (item_sets)", null=False),
        _field("rule", pa.string(), "how the items were chosen, such as stratified", null=False),
        _field("models", pa.int32(), "models of the lake with all answers that the choice learned from", null=False),
        _field("chosen_at", pa.timestamp("us", tz="UTC"), "when the list was chosen", null=False),
    ]
)

#: Table -> schema. Tables are the folders of a lake.
TABLES = {
    "shards": RECORD,
    "items": ITEM,
    "models": MODEL,
    "runs": RUN_CELL,
    "run_ends": RUN_END,
    "failures": FAILURE,
    "aggregates": AGGREGATE,
    "judges": JUDGE,
    "verdicts": VERDICT,
    "imports": IMPORT,
    "rejects": REJECT,
    "suspicions": SUSPICION,
    "retractions": RETRACTION,
    "prices": PRICE,
    "gpu_prices": GPU_PRICE,
    "price_names": PRICE_NAME,
    "splits": SPLIT,
    "forecasts": FORECAST,
    "forecast_fits": FORECAST_FIT,
    "item_sets": ITEM_SET,
    "probe_sets": PROBE_SET,
    "compact/folded": FOLDED_SHARD,
    "compact/records": FOLDED_RECORD,
    "compact/responses": FOLDED_RESPONSE,
    "compact/older": OLDER_RECORD,
}

#: Tables with a folder for each task.
_BY_TASK = ("shards", "items")

#: Table -> its empty file, which lets views open a table without rows. Where views read the table by a pattern, it lies
#: as deep as the other files.
SCHEMA_FILES = {
    table: f"{table}/schema/schema.parquet" if table in _BY_TASK else f"{table}/schema.parquet" for table in TABLES
}

#: Table -> pattern of its files; the tables of a compaction are read by name, as the manifest lists them.
GLOBS = {
    table: f"{table}/*/*.parquet" if table in _BY_TASK else f"{table}/*.parquet"
    for table in TABLES
    if not table.startswith("compact/")
}
