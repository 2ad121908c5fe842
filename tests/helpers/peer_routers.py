"""What RouterBench's and RouterEval's own programs chose on other people's records, and the inputs that they had.

Owns the reading of formats/routerbench/reference beside a checkout. Knows no routers of ours.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from collectors.routers.contract import Queries
from tests.helpers.importing import SHARED

REFERENCE = SHARED.parent / "formats" / "routerbench" / "reference"
RECORDS = SHARED / "records"


def lines(name: str) -> Iterator[dict[str, str]]:
    opener: Any = gzip.open if name.endswith(".gz") else open
    with opener(REFERENCE / name, "rt", newline="") as file:
        yield from csv.DictReader(file)


def queries(ids: list[str], candidates: list[str], vectors: np.ndarray) -> Queries:
    return Queries(ids, ["t"] * len(ids), ids, candidates, vectors.astype(np.float64))


class BenchInputs:
    """RouterBench's rows in the order of the reference, and its split."""

    def __init__(self) -> None:
        self.rows = list(lines("rows.csv.gz"))
        place = {(row["sample_id"], int(row["parts"])): at for at, row in enumerate(self.rows)}
        self.models = [row["model"] for row in lines("models.csv")]
        self.prices = {
            row["model"]: float(row["completion_price"]) + 0.0 + float(row["prompt_price"])
            for row in lines("models.csv")
        }
        columns = {model: at for at, model in enumerate(self.models)}
        table = pq.read_table(RECORDS / "routerbench_sub" / "records.parquet").to_pydict()
        doubled = {row["sample_id"] for row in self.rows if row["null_row"] == "True"}
        self.scores = np.full((len(self.rows), len(self.models)), np.nan)
        for item, model, score in zip(table["item_id"], table["model"], table["score"], strict=True):
            if score is None:
                continue
            # Of a doubled question the first model has a score for its two parts, all others for its one.
            part = (2 if model == self.models[0] else 1) if item in doubled else None
            at = (
                place[item, part]
                if part
                else next(p for p in (place.get((item, n)) for n in range(1, 20)) if p is not None)
            )
            self.scores[at, columns[model]] = score
        self.vectors = np.load(REFERENCE / "embedding.npy")
        self.parts = {(row["scope"], row["sample_id"]): row["part"] for row in lines("split.csv.gz")}

    def part(self, scope: str, part: str) -> list[int]:
        task = scope.split("_")[0]
        return [
            at
            for at, row in enumerate(self.rows)
            if (row["null_row"] == "False" and self.parts.get((scope, row["sample_id"])) == part)
            or (row["null_row"] == "True" and part == "train" and scope.endswith("_nulls") and task == "arc-challenge")
        ]


class EvalInputs:
    """The GSM8K questions and pools of the reference."""

    def __init__(self) -> None:
        items = pq.read_table(RECORDS / "metabench_a" / "items.parquet", filters=[("task", "==", "gsm8k")])
        self.ids = sorted(items["item_id"].to_pylist())
        self.models: dict[tuple[str, int], list[str]] = {}
        for row in lines("routereval/pools.csv"):
            self.models.setdefault((row["group"], int(row["pool_size"])), []).append(row["model"])
        every = sorted({model for models in self.models.values() for model in models})
        where = [("task", "==", "gsm8k"), ("model", "in", every)]
        records = pq.read_table(RECORDS / "metabench_a" / "records.parquet", filters=where).to_pydict()
        place = {name: at for at, name in enumerate(self.ids)}
        self.scores = {model: np.full(len(self.ids), np.nan) for model in every}
        for item, model, score in zip(records["item_id"], records["model"], records["score"], strict=True):
            self.scores[model][place[item]] = score
        self.vectors = np.load(REFERENCE / "routereval" / "embedding.npy")
        order = np.random.RandomState(0).permutation(len(self.ids))
        cut = int(len(self.ids) * 0.7)
        self.train, self.test = np.sort(order[:cut]), np.sort(order[cut:])
