"""Documents with objects that JSON lacks: hashed by their content, or the task is refused by one line."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from collectors.harness.documents import NoContentError, doc_hash, plain
from collectors.harness.loading import load_like, load_tasks
from collectors.specs import TaskSpec
from tests.helpers.mini_tasks import own_caches
from tests.helpers.planned_cells import configured, model, planned

__all__ = ["model", "own_caches"]  # fixtures


def picture(colour: int, mode: str = "RGB") -> Any:
    from PIL import Image

    return Image.new(mode, (4, 3), colour)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks `pictured`, of text with pictures that are not asked about, and `nameless`, with objects of its own."""
    import datasets

    folder = tmp_path_factory.mktemp("tasks")
    pngs = []
    for colour in range(4):
        picture(colour).save(sink := io.BytesIO(), "PNG")
        pngs.append({"bytes": sink.getvalue(), "path": None})
    questions = [f"Is this colour {i}?" for i in range(4)]
    columns = {"q": questions, "ch": [["yes", "no"]] * 4, "gold": [0] * 4, "picture": pngs}
    text, number = datasets.Value("string"), datasets.Value("int64")
    features = {"q": text, "ch": datasets.List(text), "gold": number, "picture": datasets.Image()}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    table.to_parquet(folder / "test.parquet")
    task = {
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(folder / "test.parquet")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{ch}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    (folder / "pictured.yaml").write_text(yaml.safe_dump({**task, "task": "pictured"}))
    code = "class Own:\n    pass\nclass Docs(list):\n    features = {'q': 0}\n"
    code += "def docs(split):\n    return Docs({**doc, 'picture': Own()} for doc in split)\n"
    (folder / "odd.py").write_text(code)
    odd = yaml.safe_dump({**task, "task": "nameless"}) + "process_docs: !function odd.docs\n"
    (folder / "nameless.yaml").write_text(odd)
    return folder


def test_pictures_are_hashed_by_their_content(tasks: Path, model: Path) -> None:
    plan = planned(configured(tasks, model, tasks=["pictured"]))
    assert not plan.failures
    (cell,) = plan.cells
    (task,) = plan.items.values()
    assert len(set(task.hashes)) == 4
    again = load_like(cell.cell.spec, "pictured", cell.cell.prompting, [str(tasks)])
    assert again.hashes == task.hashes
    assert " at 0x" not in json.dumps(task.item_table().to_pylist())


def test_object_without_content_is_the_tasks_failure(tasks: Path) -> None:
    bound, failed = load_tasks(TaskSpec(task="nameless"), [str(tasks)])
    assert not bound
    assert failed["nameless"].kind == "multimodal"
    assert str(failed["nameless"]).startswith("task nameless: its documents hold objects of ")
    assert str(failed["nameless"]).endswith("Own, which cannot be told apart by their content")


def test_equal_pictures_are_equal_and_others_are_not() -> None:
    assert doc_hash({"p": picture(1)}) == doc_hash({"p": picture(1)}) != doc_hash({"p": picture(2)})
    assert doc_hash({"p": picture(1)}) != doc_hash({"p": picture(1, "RGBA")})
    one, other = picture(1, "P"), picture(1, "P")
    one.putpalette([0] * 768)
    other.putpalette([9] * 768)
    assert doc_hash({"p": one}) != doc_hash({"p": other})


def test_objects_that_lm_eval_prints_by_content_hash_as_before() -> None:
    import lm_eval.utils

    doc = {"a": np.int64(3), "b": np.bool_(True), "c": b"bytes", "d": dt.date(2026, 1, 31), "e": np.arange(3), "f": {7}}
    text = json.dumps(doc, indent=2, default=lm_eval.utils.handle_non_serializable, ensure_ascii=False)
    assert doc_hash(doc) == hashlib.sha256(text.encode()).hexdigest()


def test_sets_hash_alike_in_every_process() -> None:
    code = "from collectors.harness.documents import doc_hash; print(doc_hash({'a': set('qwertyuiop')}))"
    hashes = [
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    assert hashes[0] == hashes[1]


def test_objects_without_content_are_refused() -> None:
    for value in (object(), [object()], {"a": {"b": object()}}):
        with pytest.raises(NoContentError, match=r"objects of builtins.object"):
            doc_hash({"doc": value})
    with pytest.raises(NoContentError):
        plain({"doc": object()})
