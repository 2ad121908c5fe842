"""Lakes of made-up records with the statistics of real ones, at any size, for the benchmarks of the lake.

Owns the statistics. Verdicts follow the two-parameter logistic model of item response theory (A. Birnbaum, in Lord &
Novick, "Statistical Theories of Mental Test Scores", 1968): chance of a right answer 1 / (1 + exp(-a(θ - b))), with
ability θ a model's, difficulty b and discrimination a an item's. Prompts are log-normal in length and counted by one
of a dozen tokenizers; answers are a letter, a choice of a few tokens, or generated texts of log-normal length. As in
RouterEval: 12 tasks of 23,529 items in all.
"""

from __future__ import annotations

import datetime as dt
import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.lake.layout import shard_name
from collectors.lake.store import Lake
from schemas.identity import MODEL_IDENTITY, ShardName, cell_identity, digest
from schemas.records import MODEL, RECORD, RUN_CELL

#: Items of each task: those of GENERATED are answered in texts, those of LETTERS by one token, the others by a choice.
TASKS = {
    "arc_challenge": 1172,
    "bbh": 3600,
    "gpqa": 1192,
    "gsm8k": 1319,
    "hellaswag": 4096,
    "ifeval": 541,
    "math_hard": 1324,
    "mmlu": 4090,
    "mmlu_pro": 3364,
    "musr": 756,
    "truthfulqa_mc1": 817,
    "winogrande": 1258,
}
GENERATED = {"gsm8k", "ifeval", "math_hard"}
LETTERS = {"bbh", "gpqa", "mmlu", "mmlu_pro", "winogrande"}
ITEMS = sum(TASKS.values())
FAMILIES = (
    "llama-2",
    "llama-3",
    "mistral",
    "qwen2",
    "qwen2.5",
    "gemma",
    "gemma-2",
    "phi-3",
    "yi",
    "falcon",
    "mpt",
    "olmo",
)
MAKERS = 400


@dataclass(frozen=True)
class Synthetic:
    """`models` models on all tasks. The same seed gives the same records."""

    models: int
    seed: int = 0
    #: Also what only an engine knows: seconds, cached tokens, all its tokens. Records from elsewhere lack it.
    engine: bool = False
    #: Also the texts of answers, cut from one text of made-up words.
    texts: bool = False
    #: Task -> its items.
    tasks: Mapping[str, int] = field(default_factory=lambda: TASKS)

    @property
    def records(self) -> int:
        return self.models * sum(self.tasks.values())

    @cached_property
    def families(self) -> npt.NDArray[np.int64]:
        return np.random.default_rng(self.seed).integers(len(FAMILIES), size=self.models)

    @cached_property
    def _words(self) -> str:
        rng = np.random.default_rng([self.seed, 6])
        letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
        words = ["".join(letters[np.minimum(rng.geometric(0.12, n), 26) - 1]) for n in rng.integers(2, 10, 8000)]
        return " ".join(np.array(words)[np.minimum(rng.zipf(1.2, 700_000), 8000) - 1])

    def name(self, model: int) -> str:
        maker = np.random.default_rng([self.seed, 1, model]).integers(MAKERS)
        return f"maker-{maker:03d}/{FAMILIES[self.families[model]]}-{model:05d}-instruct"

    def prompting(self, task: str) -> str:
        return digest({"task": task, "items": self.tasks[task]})

    def cell_id(self, model: int, task: str) -> str:
        identity = dict.fromkeys(MODEL_IDENTITY) | self._identity(model)
        return cell_identity(identity, self.prompting(task))

    def _identity(self, model: int) -> dict[str, str]:
        return {"name": self.name(model), "revision": digest({"model": model}, 40), "dtype": "bfloat16"}

    def item_hashes(self, task: str) -> list[str]:
        return [digest({"task": task, "item": item}, 64) for item in range(self.tasks[task])]

    def table(self, model: int, task: str, hashes: pa.Array) -> pa.Table:
        """The records of one cell, in the schema of a shard."""
        number = sorted(self.tasks).index(task)
        count = self.tasks[task]
        of_items = np.random.default_rng([self.seed, 2, number])
        difficulty, discrimination = of_items.normal(0.3, 1.2, count), of_items.lognormal(0, 0.4, count)
        base = of_items.lognormal(np.log(120 + 60 * number), 0.5, count)
        of_tokenizer = np.random.default_rng([self.seed, 3, number, self.families[model]])
        scale = of_tokenizer.uniform(0.85, 1.25)
        prompt = np.maximum(base * scale * of_tokenizer.normal(1, 0.03, count), 1).astype(np.int32)
        own = np.random.default_rng([self.seed, 4, number, model])
        ability = np.random.default_rng([self.seed, 5, model]).normal() + own.normal(0, 0.3)
        right = own.random(count) < 1 / (1 + np.exp(-discrimination * (ability - difficulty)))
        if task in GENERATED:
            length = np.minimum(own.lognormal(np.log(90) + own.normal(0, 0.3), 0.6, count) + 1, 1024).astype(np.int32)
        elif task in LETTERS:
            length = np.ones(count, np.int32)
        else:
            choices = np.maximum(of_items.lognormal(np.log(2), 0.7, (4, count)) * scale, 1).astype(np.int32)
            length = choices[np.where(right, 0, own.integers(1, 4, count)), np.arange(count)]
        metrics = pa.array(['{"acc": 0.0}', '{"acc": 1.0}'])
        columns: dict[str, pa.Array] = {
            "cell_id": pa.repeat(self.cell_id(model, task), count),
            "model": pa.repeat(self.name(model), count),
            "task": pa.repeat(task, count),
            "item": pa.array(np.arange(count, dtype=np.int32)),
            "item_hash": hashes,
            "filter": pa.repeat("none", count),
            "repeat": pa.array(np.zeros(count, np.int16)),
            "score": pa.array(right.astype(np.float64)),
            "correct": pa.array(right),
            "metrics": metrics.take(pa.array(right.astype(np.int8))),
            "prompt_tokens": pa.array(prompt),
            "completion_tokens": pa.array(length),
            "outcome": pa.repeat("ok", count),
        }
        if task in GENERATED:
            columns["finish_reason"] = pa.array(np.where(length < 1024, "stop", "length"))
        if self.engine:
            columns["cached_tokens"] = pa.array((prompt * own.choice([0, 0.5], count)).astype(np.int32) // 16 * 16)
            columns["engine_tokens"] = pa.array((prompt + length).astype(np.int64))
            columns["latency_s"] = pa.array(length * own.normal(0.02, 0.002, count))
        if self.texts:
            starts = own.integers(len(self._words) - 8 * 1024, size=count)
            answers = [[self._words[start : start + 6 * int(n)]] for start, n in zip(starts, length, strict=True)]
            columns["responses"] = pa.array(answers, RECORD.field("responses").type)
        rest = {f.name: pa.nulls(count, f.type) for f in RECORD if f.name not in columns}
        return pa.table([{**columns, **rest}[name] for name in RECORD.names], schema=RECORD)

    def write(self, lake: Lake, processes: int = 2, generation: int = 0, every: int = 1) -> None:
        """Writes the lake: one run, and a shard per model and task. `every` n-th model only."""
        lake.open_for_writing()
        if generation == 0:
            self._write_facts(lake)
        parts = [
            (self, lake.uri, range(i * every, self.models, processes * every), generation) for i in range(processes)
        ]
        if processes == 1:
            _write_models(*parts[0])
            return
        with multiprocessing.get_context("forkserver").Pool(processes) as pool:
            pool.starmap(_write_models, parts)

    def _write_facts(self, lake: Lake) -> None:
        run, models = [], []
        for model in range(self.models):
            identity = self._identity(model)
            name, revision, dtype = identity["name"], identity["revision"], identity["dtype"]
            tokenizer = digest({"tokenizer": FAMILIES[self.families[model]]})
            models.append({"model": name, "source": name, "revision": revision, "tokenizer_hash": tokenizer})
            for task, count in self.tasks.items():
                run.append(
                    {
                        "run_id": "20260101T000000-00000000",
                        "started_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
                        "cell_id": self.cell_id(model, task),
                        "model": name,
                        "source": name,
                        "revision": revision,
                        "task": task,
                        "task_version": "1.0",
                        "task_digest": digest({"task": task}),
                        "items_digest": digest({"items": task}),
                        "output_type": "generate_until" if task in GENERATED else "multiple_choice",
                        "num_fewshot": 0,
                        "fewshot_seed": 0,
                        "fewshot_as_multiturn": False,
                        "decoding": "{}",
                        "dtype": dtype,
                        "prompting": self.prompting(task),
                        "metric": "acc",
                        "filter": "none",
                        "higher_is_better": True,
                        "correct_threshold": 0.5,
                        "items": count,
                        "planned_items": count,
                        "generation": 0,
                        "engine": "synthetic",
                        "versions": "{}",
                        "config": "{}",
                    }
                )
        lake.create_table("runs/20260101T000000-00000000.parquet", pa.Table.from_pylist(run, RUN_CELL))
        lake.create_table("models/synthetic.parquet", pa.Table.from_pylist(models, MODEL))


def _write_models(synthetic: Synthetic, uri: str, models: range, generation: int) -> None:
    lake = Lake(uri)
    hashes = {task: pa.array(synthetic.item_hashes(task)) for task in synthetic.tasks}
    for model in models:
        for task, count in synthetic.tasks.items():
            shard = ShardName(synthetic.cell_id(model, task), generation, 0, count - 1)
            facts = {"shard": {"run_id": "20260101T000000-00000000", "items": count, "engine": "synthetic"}}
            lake.create_table(shard_name(task, shard), synthetic.table(model, task, hashes[task]), facts)
