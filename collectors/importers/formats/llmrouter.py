"""LLMRouter's routing data (ulab-uiuc/LLMRouter, data/api_calling_evaluation.py): a row a verdict; also xRouteBench.

`token_num` is the provider's total. A call that failed is a row with an error in place of the answer, without a token,
and judged like an answer.
"""

from __future__ import annotations

from collectors.importers.relation import Constant, Kind, select_items, table_of
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging, name_of
from collectors.importers.suspicions import ODD_TOTAL
from collectors.importers.usage import counted

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
_TOTAL = {"total": ("token_num", Kind.COUNT)}
_REST = {
    "answer": ("response", Kind.TEXT),
    "target": ("ground_truth", Kind.TEXT),
    "choices": ("choices", Kind.TEXTS),
}
#: Columns that a file may lack.
_TYPES = {
    "prompt_tokens": "INTEGER",
    "completion_tokens": "INTEGER",
    "cached_tokens": "INTEGER",
    "total": "INTEGER",
    "latency_s": "DOUBLE",
    "answer": "VARCHAR",
}
#: Its calls that failed: their rows have no token.
_FAILED = (
    "(coalesce(prompt_tokens, 0) = 0 AND coalesce(completion_tokens, 0) = 0 AND coalesce(total, 0) = 0 "
    "AND coalesce(starts_with(answer, 'ERROR: ') OR starts_with(answer, 'API Error: '), false))"
)


def read(staging: Staging, source: ImportSource) -> None:
    """routing_data: a row a verdict, with tokens and seconds. An item without an id is its question."""
    staging.default = CellDescription(metric="performance", low=-1.0)  # BERT scores may be below 0
    for number, file in enumerate(staging.files):
        folder = "".join(file.path.split("/")[-2:-1])
        if folder in ("llm_candidates", "query_data") or folder.endswith("_queries"):
            # models, and questions without answers
            staging.describing.add(number)
            continue
        with staging.one_file(number):
            table = table_of(staging, number)
            there = {label: one for label, one in (_VERDICT | _TOTAL | _REST).items() if one[0] in table}
            wanted: dict[str, tuple[str | Constant, Kind]] = {**_NEEDED, **there}
            key = name_of(table.names, "task_id", "embedding_id")
            if key:
                wanted["id"] = key, Kind.TEXT
            of_item = "coalesce(id, md5(prompt))" if key else "md5(prompt)"
            lacking = ", ".join(f"NULL::{kind} AS {name}" for name, kind in _TYPES.items() if name not in wanted)
            rows = f"(SELECT *, {of_item} AS key{lacking and f', {lacking}'} FROM {table.relation(wanted)})"
            failed = f"(SELECT *, {_FAILED} AS has_failed FROM {rows})"
            totalled = counted(failed, rest_is_output=True)
            staging.select(
                f"""
                SELECT {number} AS file, row, model, task, key, prompt_tokens, completion_tokens,
                    CASE WHEN NOT has_failed THEN score END AS score,
                    CASE WHEN has_failed THEN 'failed_call' END AS failure,
                    CASE WHEN NOT has_failed THEN latency_s END AS latency_s,
                    CASE WHEN NOT has_failed AND answer IS NOT NULL THEN [answer] END AS responses
                FROM {totalled}
                """
            )
            staging.select_suspects(
                f"SELECT {number} AS file, '' AS run, model, task, '{ODD_TOTAL}' AS kind FROM {totalled} WHERE is_odd"
            )
            select_items(staging, rows, wanted)
