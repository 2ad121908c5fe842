"""EmbedLLM's tables (richardzhuang0412/EmbedLLM): a row a verdict."""

from __future__ import annotations

from collectors.importers.files import BadFile
from collectors.importers.relation import Constant, Kind, Wanted, select_items, table_of
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging, name_of


def read(staging: Staging, source: ImportSource) -> None:
    """train, val and test.csv: a row a verdict. `category` is the task, if the file has it."""
    staging.default = CellDescription(metric="label")
    for number in range(len(staging.files)):
        with staging.one_file(number):
            table = table_of(staging, number)
            if {"prompt_id", "prompt"} == set(table.names) or ("model_name" in table and "label" not in table):
                staging.describing.add(number)  # question_order.csv and model_order.csv
                continue
            model = name_of(table.names, "model_name", "model_id")
            if model is None:
                raise BadFile("unknown_layout", "no column model_name or model_id")
            task = "category" if "category" in table else Constant("embedllm")
            wanted: Wanted = {
                "model": (model, Kind.TEXT),
                "task": (task, Kind.TEXT),
                "key": ("prompt_id", Kind.TEXT),
                "score": ("label", Kind.SCORE),
                **({"prompt": ("prompt", Kind.TEXT)} if "prompt" in table else {}),
            }
            rows = table.relation(wanted)
            [(many,)] = table.ask(f"SELECT count(*) FROM {rows}")
            if not many and len(staging.files) > 1 and not staging.counts[number].rejected:
                staging.describing.add(number)  # a part of the split that has no item
            staging.select(f"SELECT {number} AS file, row, model, task, key, score FROM {rows}")
            if "prompt" in wanted:
                select_items(staging, rows, wanted)
