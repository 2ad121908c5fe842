"""Small worlds for routers: questions of two kinds, and candidates that are each good at one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from collectors.matrix.pool_arrays import Pool
from collectors.routers.questions import Questions
from tests.helpers.importing import imported, table

#: Candidates and their mean USD.
CANDIDATES = {"cheap": 0.001, "maths": 0.01, "verse": 0.02}


def world(count: int = 240, *, seed: int = 0, tasks: tuple[str, ...] = ("quiz",)) -> Questions:
    """`maths` is right on 90 % of sums and 20 % of poems, `verse` the other way round, `cheap` on 40 % of each."""
    random = np.random.default_rng(seed)
    is_sum = random.random(count) < 0.5
    chance = np.stack([np.full(count, 0.4), np.where(is_sum, 0.9, 0.2), np.where(is_sum, 0.2, 0.9)], axis=1)
    scores = (random.random(chance.shape) < chance).astype(np.float32)
    usd = np.array(list(CANDIDATES.values())) * random.uniform(0.8, 1.2, chance.shape)
    kinds = {True: "sum number add total digits", False: "poem rhyme verse line stanza"}
    texts = [f"{kinds[bool(one)]} {' '.join(map(str, random.integers(0, 10**6, 8)))}" for one in is_sum]
    names = [tasks[place * len(tasks) // count] for place in range(count)]
    ids = [f"q{place}" for place in range(count)]
    pool = Pool(
        task=tasks[0] if len(tasks) == 1 else "all",
        metric="acc",
        higher_is_better=True,
        candidates=list(CANDIDATES),
        questions=pa.table({"task": names, "question": ids}),
        cells=pa.table({"candidate": list(CANDIDATES)}),
        scores=scores,
        prompt_tokens=np.zeros((0, 0), np.int32),
        completion_tokens=np.zeros((0, 0), np.int32),
        numbers={
            "usd": usd,
            "latency_s": np.full(usd.shape, 0.5),
            "completion_tokens": np.where(scores > 0, 20.0, 60.0),
        },
    )
    return Questions(pool, texts, ids, [None] * count, np.arange(count) / count, ["left-out"], [])


def without_usd(questions: Questions) -> Questions:
    numbers = {name: values for name, values in questions.pool.numbers.items() if name != "usd"}
    return replace(questions, pool=replace(questions.pool, numbers=numbers))


#: Fields of an answer -> columns of the file that `routed_lake` imports.
COLUMNS = {"model": "model", "task": "task", "key": "id", "score": "score", "usd": "usd", "prompt": "prompt"}


def routed_lake(folder: Path) -> Path:
    """A lake of the answers of a world of 200 questions, one half in each of two tasks."""
    given, tasks = world(200, tasks=("first", "second")), ["first"] * 100 + ["second"] * 100
    scores, usd = given.pool.scores, given.pool.numbers["usd"]
    answers = [
        (model, tasks[row], f"q{row}", float(scores[row, column]), usd[row, column], text)
        for row, text in enumerate(given.texts)
        for column, model in enumerate(given.pool.candidates)
    ]
    names = tuple(COLUMNS.values())
    imported("table", table(folder / "rows.parquet", answers, names), folder / "lake", options=COLUMNS)
    return folder / "lake"
