"""A published version, and submissions to its board: choices of a router, records of a model."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collectors.matrix.pool_files import choose_pool
from collectors.metrics.splits import CONTENT
from collectors.publish.publishing import publish
from collectors.routers.questions import load_questions, split_by, store_split
from tests.helpers.equal_lakes import put_prices
from tests.helpers.filled_lakes import published
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

ITEMS = 80


def answers() -> dict[str, list[float]]:
    """Two models that are each right on about half of the items, and one on fewer."""
    draw = random.Random(1)
    return {
        model: [float(draw.random() < chance) for _ in range(ITEMS)]
        for model, chance in (("a", 0.5), ("b", 0.5), ("c", 0.3))
    }


def right_or_wrong(place: Path) -> str:
    """A version of these answers to the task quiz."""
    builder = LakeBuilder(place / "lake")
    for model, scores in answers().items():
        builder.planned(BuiltCell(model=model), scores)
    builder.items("quiz", "i0", ITEMS)
    return publish(published(builder.lake, place / "s", "1.0.0"), str(place / "out"))[0]


def choices(chosen: list[str]) -> bytes:
    return ("item,model\n" + "".join(f"{item},{model}\n" for item, model in enumerate(chosen))).encode()


FAIR = choices(["a" if item % 3 else "b" for item in range(ITEMS)])


def send(folder: Path, data: bytes = FAIR, name: str = "mine", file: str = "mine.csv", **stated: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / Path(file).name).write_bytes(data)
    value = {"name": name, "file": file, "sha256": hashlib.sha256(data).hexdigest(), **stated}
    path = folder / f"{Path(file).stem}.json"
    path.write_text(json.dumps(value))
    return path


def fractions() -> list[float]:
    draw = random.Random(2)
    return [round(draw.random(), 3) for _ in range(ITEMS)]


def in_one_task() -> list[float]:
    draw = random.Random(3)
    return [float(draw.random() < 0.5) for _ in range(ITEMS)]


def graded(place: Path) -> str:
    """A version of the task quiz, right or wrong, and the task essay, in parts, with prices and a split."""
    builder = LakeBuilder(place / "lake")
    for model, scores in answers().items():
        builder.planned(BuiltCell(model=model), scores)
        builder.planned(
            BuiltCell(model=model, task="essay"), [abs(f - s / 3) for f, s in zip(fractions(), scores, strict=True)]
        )
    builder.planned(BuiltCell(model="d"), in_one_task())  # no candidate of a pool over both
    for task in ("quiz", "essay"):
        builder.items(task, "i0", ITEMS, source_key=[f"{task}-{item}" for item in range(ITEMS)])
    put_prices(builder.lake, [("a", 1.0, 3.0), ("acme/new", 1.0, 3.0), ("b", 0.5, 1.0)])
    questions = load_questions(builder.lake, choose_pool(builder.lake, None, None, {}))
    store_split(builder.lake, split_by(questions, CONTENT, 0.5, 0), questions)
    return publish(published(builder.lake, place / "s", "1.0.0"), str(place / "out"))[0]


def records(scores: Sequence[Any], head: str = "item,score", rest: str = "") -> bytes:
    """A CSV file of a row for each item whose score is not None."""
    rows = "".join(f"{item},{score}{rest}\n" for item, score in enumerate(scores) if score is not None)
    return f"{head}\n{rows}".encode()


def send_records(folder: Path, data: bytes, name: str = "mine", file: str = "mine.csv", **stated: Any) -> Path:
    return send(folder, data, name, file, **{"kind": "records", "model": "acme/mine", **stated})
