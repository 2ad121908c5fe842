"""The tables of an import's rows before they are trusted: verdicts, items, texts, rejects, suspects, stated figures.

Owns their schemas.
"""

from __future__ import annotations

import pyarrow as pa

from schemas.records import RECORD

_OF_RECORD = (
    "filter",
    "repeat",
    "score",
    "metrics",
    "failure",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "engine_tokens",
    "finish_reason",
    "ttft_s",
    "latency_s",
    "stated_usd",
    "responses",
    "loglikelihoods",
    "is_greedy",
    "filtered",
)

#: One verdict of a source. `run`: which of the source's runs, '' where it has only one.
RAW_VERDICT = pa.schema(
    [
        pa.field("file", pa.int32()),
        pa.field("row", pa.int64()),
        pa.field("run", pa.string()),
        pa.field("model", pa.string()),
        pa.field("task", pa.string()),
        pa.field("key", pa.string()),
        *(RECORD.field(name).with_nullable(True).remove_metadata() for name in _OF_RECORD),
        #: The source's own verdict, which wins over the cell's threshold; null where it states none.
        pa.field("correct", pa.bool_()),
    ]
)
#: One item of a source. `position`: its place in the task, null if the source does not number items. `item_hash`:
#: lm-eval's, null where the source has no document. `text`: the key of its row of RAW_TEXT, null without one.
RAW_ITEM = pa.schema(
    [
        pa.field("run", pa.string()),
        pa.field("task", pa.string()),
        pa.field("key", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("item_hash", pa.string()),
        pa.field("content_hash", pa.string()),
        pa.field("text", pa.string()),
    ]
)
#: The texts of items, once for all models that were asked the same. `text`: a digest of the other columns.
RAW_TEXT = pa.schema(
    [
        pa.field("text", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("target", pa.string()),
        pa.field("choices", pa.list_(pa.string())),
        pa.field("subject", pa.string()),
        pa.field("doc", pa.string()),
    ]
)
#: One row that cannot be trusted; `source_row` null: a file.
REJECTED = pa.schema(
    [
        pa.field("file", pa.int32()),
        pa.field("source_row", pa.int64()),
        *(pa.field(name, pa.string()) for name in ("kind", "message", "model", "task", "source_key")),
    ]
)
#: One row that looks wrong to its reader (suspicions.py).
RAW_SUSPECT = pa.schema([*(RAW_VERDICT.field(name) for name in ("file", "run", "model", "task"))]).append(
    pa.field("kind", pa.string())
)
#: Figures that a source states of one cell: how many answers it holds, and the mean of its scores; null: not stated.
RAW_STATED = (
    pa.schema([*(RAW_VERDICT.field(name) for name in ("file", "run", "model", "task"))])
    .append(pa.field("answers", pa.int64()))
    .append(pa.field("mean", pa.float64()))
)
#: Name of a table -> its schema.
RAW_TABLES = {
    "raw_verdicts": RAW_VERDICT,
    "raw_items": RAW_ITEM,
    "raw_texts": RAW_TEXT,
    "raw_suspects": RAW_SUSPECT,
    "raw_stated": RAW_STATED,
    "rejects": REJECTED,
}
