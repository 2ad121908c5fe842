"""LLMRouter's routing data (ulab-uiuc/LLMRouter): a row a verdict, with tokens and seconds."""

from __future__ import annotations

from collectors.importers.relation import Constant, Kind, response_of, select_items, table_of
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging, name_of

#: Label -> column, and the kind of its values.
_NEEDED = {
    "task": ("task_name", Kind.TEXT),
    "prompt": ("query", Kind.TEXT),
    "model": ("model_name", Kind.TEXT),
    "score": ("performance", Kind.SCORE),
}
_VERDICT = {
    "prompt_tokens": ("input_tokens", Kind.COUNT),
    "completion_tokens": ("output_tokens", Kind.COUNT),
    "latency_s": ("response_time", Kind.NUMBER),
}
_REST = {
    "answer": ("response", Kind.TEXT),
    "target": ("ground_truth", Kind.TEXT),
    "choices": ("choices", Kind.TEXTS),
}


def read(staging: Staging, source: ImportSource) -> None:
    """routing_data: a row a verdict, with tokens and seconds. An item without an id is its question."""
    staging.default = CellDescription(metric="performance")
    for number in range(len(staging.files)):
        with staging.one_file(number):
            table = table_of(staging, number)
            there = {label: one for label, one in (_VERDICT | _REST).items() if one[0] in table}
            wanted: dict[str, tuple[str | Constant, Kind]] = {**_NEEDED, **there}
            key = name_of(table.names, "task_id", "embedding_id")
            if key:
                wanted["id"] = key, Kind.TEXT
            of_item = "coalesce(id, md5(prompt))" if key else "md5(prompt)"
            rows = f"(SELECT *, {of_item} AS key FROM {table.relation(wanted)})"
            parts = ["row", "model", "task", "key", "score", *(name for name in _VERDICT if name in wanted)]
            parts.append(f"{response_of('answer', wanted)} AS responses")
            staging.select(f"SELECT {number} AS file, {', '.join(parts)} FROM {rows}")
            select_items(staging, rows, wanted)
