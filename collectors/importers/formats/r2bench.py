"""R2-Bench (JiaqiXue/R2-Bench): a CSV for each model and budget of output tokens, a row a judged answer.

A model under a budget of tokens is a candidate of its own: `Qwen/Qwen3-0.6B:100` may write 100.
"""

from __future__ import annotations

import re

from collectors.importers.files import BadFile
from collectors.importers.relation import Constant, Kind, Wanted, select_items, table_of
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging
from schemas.sql import quoted

PATTERNS = ("*_judge.csv",)
_PLACE = re.compile(r"(?:^|/)(?P<model>[^/]+/[^/]+)/(?P<budget>0|[1-9][0-9]*|[a-z]+)_judge\.csv$")
TASK = "r2-bench"


def read(staging: Staging, source: ImportSource) -> None:
    """data/<organisation>/<model>/<budget>_judge.csv; the score is a judge's, from 0 to 1."""
    staging.default = CellDescription(metric="judge_score", output_type="generate_until")
    for number, file in enumerate(staging.files):
        with staging.one_file(number):
            place = _PLACE.search(file.path)
            if place is None:
                place_of = "<organisation>/<model>/<budget>_judge.csv"
                raise BadFile("unknown_layout", f"its place is not {place_of}, a number without zeros before it")
            budget = place["budget"]
            model = place["model"] + (f":{budget}" if budget.isdecimal() else "")
            table = table_of(staging, number)
            wanted: Wanted = {
                "task": (Constant(TASK), Kind.TEXT),
                "key": ("key", Kind.TEXT),
                "prompt": ("original_prompt", Kind.TEXT),
                "score": ("correctness_score", Kind.SCORE),
                "tokens": ("actual_token_count", Kind.COUNT),
                **({"target": ("golden_answer", Kind.TEXT)} if "golden_answer" in table else {}),
                **({"answer": ("response", Kind.TEXT)} if "response" in table else {}),
            }
            rows = table.relation(wanted)
            answer = "CASE WHEN answer IS NOT NULL THEN [answer] END" if "answer" in wanted else "NULL::VARCHAR[]"
            staging.select(
                f"SELECT {number} AS file, row, {quoted(model)} AS model, task, key, score, "
                f"tokens AS completion_tokens, {answer} AS responses FROM {rows}"
            )
            select_items(staging, rows, wanted)
