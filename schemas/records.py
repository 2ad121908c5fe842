"""The pinned Arrow schema of every table in a lake.

Owns column names, types, units and what a null means. Knows nothing of where the tables are stored or who writes them.
A null always means "unknown": it never stands for wrong, zero or free.
"""

from __future__ import annotations

import pyarrow as pa

#: Version of all schemas below. A change of any column or table makes a new one, with a line of reason here and its
#: digest in tests/schemas/test_versions.py. New columns allow null; other changes need a schemas.migrations entry.
#: 1: first version. 2: failures name an object of the lake; compactions. 3: imported records. 4: prices.
#: 5: a hub's catalog of models. 6: how runs ended; one copy of a run's config.
SCHEMA_VERSION = 6


def _field(name: str, dtype: pa.DataType, doc: str, *, null: bool = True) -> pa.Field:
    return pa.field(name, dtype, nullable=null, metadata={"doc": doc})


_TEXTS = pa.list_(pa.string())

#: One item of one cell, per filter and repeat: the rows of shards/.
RECORD = pa.schema(
    [
        _field("cell_id", pa.string(), "identity of model, task, items, prompting and decoding", null=False),
        _field("model", pa.string(), "model name, as the run's config calls it", null=False),
        _field("task", pa.string(), "lm-eval task name", null=False),
        _field("item", pa.int32(), "position of the item in the task's item table, from 0", null=False),
        _field("item_hash", pa.string(), "lm-eval's doc_hash: SHA-256 of the document as JSON", null=False),
        _field("filter", pa.string(), "lm-eval filter that read the answer", null=False),
        _field(
            "repeat",
            pa.int16(),
            "0: the task's own verdict over all repeats; r >= 1: the r-th answer judged alone, where a task repeats",
            null=False,
        ),
        _field("score", pa.float64(), "the primary metric; null when unanswered, failed or not judged"),
        _field("correct", pa.bool_(), "score >= the cell's correct_threshold; null when unknown"),
        _field("metrics", pa.string(), "JSON object of every metric that the task computed; null when not judged"),
        _field("failure", pa.string(), "failure kind of this item (see schemas.failures); null when scored"),
        _field("prompt_tokens", pa.int32(), "context tokens, counted once"),
        _field("completion_tokens", pa.int32(), "tokens generated (all repeats on repeat 0), or of the chosen answer"),
        _field("cached_tokens", pa.int32(), "prompt tokens that the engine read from its prefix cache"),
        _field("engine_tokens", pa.int64(), "all tokens that the engine took in or put out for the item"),
        _field("finish_reason", pa.string(), "stop or length for generated text; null for scored choices"),
        _field("ttft_s", pa.float64(), "seconds from scheduled to first token, by the engine's clock"),
        _field("latency_s", pa.float64(), "seconds from scheduled to finish, by the engine's clock"),
        _field("stated_usd", pa.float64(), "what the source of an imported record says the call cost, USD"),
        _field("source_file", pa.string(), "SHA-256 of the file that the record was imported from; null: collected"),
        _field("source_row", pa.int64(), "row or line of that file, from 1; null: collected"),
        _field("responses", _TEXTS, "generated text per repeat; on the first filter's rows only"),
        _field(
            "loglikelihoods", pa.list_(pa.float64()), "log-likelihood per request (choice); first filter's rows only"
        ),
        _field(
            "is_greedy", pa.list_(pa.bool_()), "whether each request was the greedy continuation; first filter only"
        ),
        _field("filtered", pa.string(), "JSON of what the filter left of a generated answer"),
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
        _field("subject", pa.string(), "the document's own subject or category, where it has one"),
        _field("doc", pa.string(), "the whole document as JSON"),
        _field("content_hash", pa.string(), "schemas.identity.content_hash: equal for equal items of all sources"),
        _field("source_key", pa.string(), "what an imported item's source calls it; null: collected"),
    ]
)

#: What somebody says of one model at one revision: models/. The view puts together what several rows say.
MODEL = pa.schema(
    [
        _field("model", pa.string(), "model name, as the run's config calls it", null=False),
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
            "digest of the tokenizer's files: of their contents, or 'hub-' and one of the hub's ids; only equal "
            "ones tell anything",
        ),
        _field("chat_template_hash", pa.string(), "digest of the chat template; null: none, or unknown"),
        _field("dtype", pa.string(), "weight type that config.json names"),
        _field("quantization", pa.string(), "quantization method that config.json or a quantizer's own file names"),
        _field(
            "weights", pa.string(), "what the weight files are: safetensors, bin, adapter or gguf; null: no such files"
        ),
        _field("weights_hash", pa.string(), "digest of the SHA-256 of the weight files: equal for the same weights"),
        _field("tensors_hash", pa.string(), "digest of name, dtype and shape of every tensor in safetensors headers"),
        _field("files_hash", pa.string(), "digest of all files that decide an answer, by the hub's ids of them"),
        _field("config", pa.string(), "config.json"),
        _field("generation_config", pa.string(), "generation_config.json"),
        _field("licence", pa.string(), "licence that the model card states"),
        _field("library", pa.string(), "library that the hub takes it for"),
        _field("pipeline_tag", pa.string(), "what the hub takes it to do, such as text-generation"),
        _field(
            "base_model", pa.string(), "what it was made from, by its card or adapter_config.json; first of several"
        ),
        _field("base_relation", pa.string(), "how, as the hub says: adapter, finetune, merge or quantized"),
        _field("gated", pa.bool_(), "whether the hub gives its files only to those who accepted its terms"),
        _field("downloads", pa.int64(), "downloads of 30 days, as the hub last counted them"),
        _field("created_at", pa.timestamp("us", tz="UTC"), "when the repo was made"),
        _field("listed_at", pa.timestamp("us", tz="UTC"), "when a catalog saw it at this revision; null: none did"),
        _field(
            "said_at", pa.timestamp("us", tz="UTC"), "when a catalog wrote the row: of what may change the last counts"
        ),
        _field("vllm", pa.bool_(), "whether vllm_version has a class for it, its own or transformers'; null: unknown"),
        _field("vllm_version", pa.string(), "the vLLM that was asked"),
        _field("problem", pa.string(), "why its files could not be read: a kind of schemas.failures; null: they were"),
        _field("problem_message", pa.string(), "one line about that"),
    ]
)

#: One planned cell of one run: runs/. Everything in the identity, and what is left out of it on purpose.
RUN_CELL = pa.schema(
    [
        _field("run_id", pa.string(), "UTC start time and a random suffix", null=False),
        _field("started_at", pa.timestamp("us", tz="UTC"), "when the run was planned", null=False),
        _field("cell_id", pa.string(), "identity of the cell", null=False),
        _field("imported_from", pa.string(), "name of the source of imported records; null: collected"),
        _field("model", pa.string(), "model name", null=False),
        _field("source", pa.string(), "hub repo, folder or URI; the name in its source where imported", null=False),
        _field("revision", pa.string(), "resolved revision"),
        _field("task", pa.string(), "lm-eval task name, or the source's where imported", null=False),
        _field("task_version", pa.string(), "the task's own version"),
        _field("task_digest", pa.string(), "digest of the task's resolved config"),
        _field("items_digest", pa.string(), "digest of the task's items", null=False),
        _field("output_type", pa.string(), "lm-eval request kind"),
        _field("num_fewshot", pa.int32(), "few-shot examples"),
        _field("fewshot_seed", pa.int32(), "seed of the few-shot sampler; 0 without few-shot examples"),
        _field("chat_template", pa.string(), "true, a template's name, or null when none is applied"),
        _field("fewshot_as_multiturn", pa.bool_(), "few-shot examples as chat turns"),
        _field("system_prompt", pa.string(), "system prompt; null when none"),
        _field("decoding", pa.string(), "JSON of generation settings laid over the task's own"),
        _field("dtype", pa.string(), "weight and activation type"),
        _field("quantization", pa.string(), "quantization method; null when none"),
        _field("max_length", pa.int32(), "longest context asked for, tokens; null: whatever the model allows"),
        _field("overrides", pa.string(), "JSON of engine arguments that may change answers; null when none"),
        _field(
            "prompting", pa.string(), "hash of everything above but the model: equal hashes compare models", null=False
        ),
        _field("metric", pa.string(), "primary metric: what score holds", null=False),
        _field("filter", pa.string(), "primary filter: the one that the matrix shows", null=False),
        _field("higher_is_better", pa.bool_(), "direction of the primary metric", null=False),
        _field("correct_threshold", pa.float64(), "score from which an answer is correct; null: no such rule"),
        _field("items", pa.int32(), "items of the task", null=False),
        _field("planned_items", pa.int32(), "items that this run was asked for (limit)", null=False),
        _field("generation", pa.int32(), "0, or the number of the forced recollection", null=False),
        _field("engine", pa.string(), "engine name; null where imported"),
        _field("versions", pa.string(), "JSON of library versions", null=False),
        _field("config", pa.string(), "the run's whole config as JSON; null: on another row of the run"),
    ]
)

#: How one run ended: run_ends/. A run without a row is at work, or was killed, or lost its lake.
RUN_END = pa.schema(
    [
        _field("run_id", pa.string(), "the run", null=False),
        _field("ended_at", pa.timestamp("us", tz="UTC"), "when", null=False),
        _field(
            "outcome",
            pa.string(),
            "finished: nothing is left but what failed; budget: one is spent; stopped: by hand or a signal; error: by "
            "what no other cell would have survived",
            null=False,
        ),
        _field("message", pa.string(), "one line: which budget, signal or error, or how many cells failed; null: none"),
    ]
)

#: One failure above the level of an item: failures/. Item failures are the `failure` column of RECORD.
FAILURE = pa.schema(
    [
        _field("run_id", pa.string(), "run in which it happened", null=False),
        _field("failed_at", pa.timestamp("us", tz="UTC"), "when", null=False),
        _field("model", pa.string(), "model name; null when the failure is not a model's"),
        _field("task", pa.string(), "task name; null when it concerns all of the model's cells"),
        _field("cell_id", pa.string(), "cell; null when the identity could not be formed"),
        _field("first_item", pa.int32(), "first item of the shard in hand"),
        _field("last_item", pa.int32(), "last item of the shard in hand"),
        _field("kind", pa.string(), "failure kind (see schemas.failures)", null=False),
        _field("message", pa.string(), "one line: what happened and what to do", null=False),
        _field("file", pa.string(), "name of the lake's object that cannot be read; null for another failure"),
    ]
)

_IMPORT = [
    _field("import_id", pa.string(), "digest of the files and of how they were read", null=False),
    _field("imported_from", pa.string(), "name of the source", null=False),
]

#: One file that was imported: imports/. rows = records + known + folded + rejected.
IMPORT = pa.schema(
    [
        *_IMPORT,
        _field("imported_at", pa.timestamp("us", tz="UTC"), "when", null=False),
        _field("format", pa.string(), "name of the format, as ingest.py takes it", null=False),
        _field("format_version", pa.string(), "version of the program that wrote the file; null: it does not say"),
        _field("path", pa.string(), "where the file was, relative to the path that was given", null=False),
        _field("sha256", pa.string(), "SHA-256 of the file", null=False),
        _field("bytes", pa.int64(), "size of the file", null=False),
        _field("licence", pa.string(), "licence of the source, as it was given; null: not stated"),
        _field("rows", pa.int64(), "verdicts that the file holds", null=False),
        _field("records", pa.int64(), "rows that became records", null=False),
        _field("known", pa.int64(), "rows that the lake held already, from the same source", null=False),
        _field("folded", pa.int64(), "rows that say again what another row says", null=False),
        _field("rejected", pa.int64(), "rows that cannot be trusted: see rejects", null=False),
    ]
)

_SOURCE = [
    _field("path", pa.string(), "file, as in imports; null when it concerns none"),
    _field("source_file", pa.string(), "SHA-256 of the file; null when it concerns none"),
]

#: One row of a source that cannot be trusted: rejects/.
REJECT = pa.schema(
    [
        *_IMPORT,
        *_SOURCE,
        _field("source_row", pa.int64(), "row or line of the file, from 1; null: the file as a whole"),
        _field("kind", pa.string(), "why: see collectors.importers.staging", null=False),
        _field("message", pa.string(), "one line: what is wrong", null=False),
        _field("model", pa.string(), "model as the source calls it; null: unknown"),
        _field("task", pa.string(), "task as the source calls it; null: unknown"),
        _field("source_key", pa.string(), "item as the source calls it; null: unknown"),
    ]
)

#: What looks wrong in a source and was imported as it is: suspicions/.
SUSPICION = pa.schema(
    [
        *_IMPORT,
        *_SOURCE,
        _field("kind", pa.string(), "what looks wrong: see collectors.importers.suspicions", null=False),
        _field("message", pa.string(), "one line: what was found, in numbers", null=False),
        _field("model", pa.string(), "model; null when it concerns several"),
        _field("task", pa.string(), "task; null when it concerns several"),
        _field("cell_id", pa.string(), "cell; null when it concerns several"),
    ]
)

#: What a model answered, as far as RECORD holds it; stored apart from verdicts and tokens in a compaction.
ANSWERS = ("responses", "loglikelihoods", "is_greedy", "filtered")
#: What tells one row of a lake from all others, with what is equal for the rows of an item or a cell.
KEY = ("cell_id", "model", "task", "item", "item_hash", "filter", "repeat")
_GENERATION = RUN_CELL.field("generation").with_metadata({"doc": "generation of the shard that the row comes from"})

#: What the matrix says of a row's cell.
OF_CELL = ("items_digest", "prompting", "dtype", "quantization", "metric", "imported_from")
#: Verdicts and tokens in a compaction. The columns after `generation` say of the cell what the matrix wants to know.
FOLDED_RECORD = pa.schema(
    [
        *(field for field in RECORD if field.name not in ANSWERS),
        _GENERATION,
        *(RUN_CELL.field(name) for name in OF_CELL),
        _field("is_primary", pa.bool_(), "primary filter, repeat 0: what the matrix shows", null=False),
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
        _field("part", pa.string(), "object of the compaction that holds the verdicts", null=False),
        _field("place", pa.int32(), "position of the cell in that part, from 0", null=False),
        _field("facts", pa.string(), "JSON of what the run wrote into the shard's metadata"),
        _field("file", pa.string(), "the shard's own name in the lake; it may be gone", null=False),
    ]
)

_ADDED = [
    _field("source", pa.string(), "where it was read", null=False),
    _field(
        "added_at", pa.timestamp("us", "UTC"), "when it was put into the lake: of two the later one counts", null=False
    ),
]
#: What a host asks for a model, or for any model of a size, from a day on: prices/. USD; null: not told, never free.
PRICE = pa.schema(
    [
        _field("model", pa.string(), "the model, or the tier of sizes, as the host calls it", null=False),
        _field("provider", pa.string(), "who asks that price", null=False),
        _field("usd_per_million_prompt", pa.float64(), "USD per million prompt tokens"),
        _field("usd_per_million_cached", pa.float64(), "USD per million of those that the host had cached"),
        _field("usd_per_million_completion", pa.float64(), "USD per million completion tokens"),
        _field("usd_per_request", pa.float64(), "USD per request on top; null: none is told, and none is added"),
        _field("over_parameters", pa.int64(), "of a tier: more parameters than this"),
        _field("to_parameters", pa.int64(), "of a tier: up to so many; null with over_parameters: any more"),
        _field("valid_from", pa.date32(), "first day of the price", null=False),
        *_ADDED,
    ]
)
#: What an hour of one accelerator costs from a day on: gpu_prices/.
GPU_PRICE = pa.schema(
    [
        _field("accelerator", pa.string(), "name of the accelerator", null=False),
        _field("provider", pa.string(), "who asks that price", null=False),
        _field("usd_per_gpu_hour", pa.float64(), "USD for one accelerator and hour", null=False),
        _field("valid_from", pa.date32(), "first day of the price", null=False),
        *_ADDED,
    ]
)
#: By which entry of prices/ or gpu_prices/ a model or an accelerator is priced: price_names/.
PRICE_NAME = pa.schema(
    [
        _field("name", pa.string(), "model as the lake's cells call it, or accelerator as engines call it", null=False),
        _field("price_name", pa.string(), "model or accelerator of the prices; null: by none, it stays unpriced"),
        _field("provider", pa.string(), "whose price; null: any provider's"),
        *_ADDED,
    ]
)

#: Table -> schema; the folders of a lake, in the order in which views build on them.
TABLES = {
    "shards": RECORD,
    "items": ITEM,
    "models": MODEL,
    "runs": RUN_CELL,
    "run_ends": RUN_END,
    "failures": FAILURE,
    "imports": IMPORT,
    "rejects": REJECT,
    "suspicions": SUSPICION,
    "prices": PRICE,
    "gpu_prices": GPU_PRICE,
    "price_names": PRICE_NAME,
    "compact/folded": FOLDED_SHARD,
    "compact/records": FOLDED_RECORD,
    "compact/responses": FOLDED_RESPONSE,
    "compact/older": OLDER_RECORD,
}

#: Tables with a folder for each task.
_BY_TASK = ("shards", "items")

#: Table -> its empty file, as deep as its other files are where views read those by a pattern: by it they can open a
#: table without rows.
SCHEMA_FILES = {
    table: f"{table}/schema/schema.parquet" if table in _BY_TASK else f"{table}/schema.parquet" for table in TABLES
}

#: Table -> pattern of its files; the tables of a compaction are read by name, as the manifest lists them.
GLOBS = {
    table: f"{table}/*/*.parquet" if table in _BY_TASK else f"{table}/*.parquet"
    for table in TABLES
    if not table.startswith("compact/")
}
