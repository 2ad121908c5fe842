"""One pool of real models in two dtypes, a hosted model's answers in a CSV, and a checkpoint that could not be run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

from pipelines.ingest import main as ingest
from tests.helpers.collect_calls import Collect, collect
from tests.helpers.pool_readers import assert_every_reader_shows, sql
from tests.helpers.runs import config
from tests.helpers.thorough import long_only

__all__ = ["collect"]  # a fixture

QUESTIONS = [(f"{a}+{b}=", [str(a + b), str(a + b + 1), str(a + 9)]) for a in range(2, 6) for b in (1, 3, 7)]
TASK = """\
task: my_sums
dataset_path: json
dataset_kwargs: {data_files: {test: HERE/items.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "Q: {{question}}\\nA:"
doc_to_choice: choices
doc_to_target: 0
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@long_only
@pytest.mark.slow
def test_real_models_of_two_dtypes_and_a_csv_are_one_pool_for_every_reader(
    tiny_models: dict[str, Path], collect: Collect, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    rows = (json.dumps({"question": question, "choices": choices}) for question, choices in QUESTIONS)
    (tasks / "items.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tasks / "my_sums.yaml").write_text(TASK.replace("HERE", str(tasks)), encoding="utf-8")
    for name in ("good", "weak"):
        shutil.copytree(tiny_models[name], tmp_path / name)
    weights = tmp_path / "weak" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])  # it cannot be run, and is replaced under its name
    asked = {"tasks": [str(tasks / "my_sums.yaml")], "datasets": None, "engine": {"name": "hf"}}
    good = {"source": str(tmp_path / "good"), "dtype": "float32"}
    weak = {"source": str(tmp_path / "weak"), "dtype": "bfloat16"}
    lake = str(tmp_path / "lake")
    assert collect(config(tmp_path, models=[good], lake=lake, **asked)).code == 0
    assert collect(config(tmp_path, models=[weak], lake=lake, chat_template=True, **asked)).code == 1
    weights.write_bytes(whole)
    run = collect(config(tmp_path, models=[weak], lake=lake, chat_template=True, **asked))
    assert run.code == 0, run.err

    hosted = tmp_path / "hosted.csv"
    columns = ["model", "task", "key", "score", "prompt", "choices", "target"]
    with hosted.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for item, (question, choices) in reversed(list(enumerate(QUESTIONS))):
            writer.writerow(["hosted", "my_sums", item, item % 3 // 2, question, json.dumps(choices), choices[0]])
    mapping = tmp_path / "columns.yaml"
    mapping.write_text(yaml.safe_dump({name: name for name in columns}), encoding="utf-8")
    assert ingest(["--format", "table", str(hosted), "--columns", str(mapping), "--lake", lake]) == 0

    capsys.readouterr()
    query = "SELECT cells.model, cells.dtype, cells.chat_template, scored FROM coverage JOIN cells USING (cell_id)"
    cells = sql(lake, query, capsys)
    found = {(row["model"], row["dtype"], row["chat_template"], row["scored"]) for row in cells}
    weak_cells = {("weak", "bfloat16", "true", 12), ("weak", "bfloat16", "true", 0)}
    assert found == {("good", "float32", None, 12), ("hosted", None, None, 12), *weak_cells}
    measured = sql(lake, "SELECT model, score FROM leaderboard WHERE score IS NOT NULL", capsys)
    means = {row["model"]: row["score"] for row in measured}
    assert means["hosted"] == pytest.approx(1 / 3)
    assert_every_reader_shows(lake, means, 12, tmp_path, capsys)
