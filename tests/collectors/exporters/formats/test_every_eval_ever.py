"""Every Eval Ever 0.3.0, read back by what its schemas require."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from schemas.failures import ConfigError
from tests.helpers.exporting import PROMPTS, RESPONSES, answers, build, exported, price
from tests.helpers.importing import imported, rows
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

SCORES = {"org/a": [1, 0, 1, 0, 0.5, 0], "b": [1, 1, 0, 0, 0.5, 0]}
#: What its schemas require, with the type of each; the instance's closes its keys.
AGGREGATE = {
    "schema_version": str,
    "evaluation_id": str,
    "retrieved_timestamp": str,
    "source_metadata": dict,
    "eval_library": dict,
    "model_info": dict,
    "evaluation_results": list,
}
INSTANCE = {
    "schema_version": str,
    "evaluation_id": str,
    "model_id": str,
    "evaluation_name": str,
    "sample_id": str,
    "interaction_type": str,
    "input": dict,
    "answer_attribution": list,
    "evaluation": dict,
}
OPTIONAL = {"evaluation_result_id", "sample_hash", "output", "messages", "token_usage", "performance", "metadata"}
PATH = r"data/routerlake/[^/]+/[^/]+/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}_samples\.jsonl"


def read(out: Path) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each model's aggregate, and its samples, checked against each other."""
    exports = []
    for path in sorted(out.rglob("*.json")):
        value = json.loads(path.read_text(encoding="utf-8"))
        detailed = value["detailed_evaluation_results"]
        assert re.fullmatch(PATH, detailed["file_path"])
        data = (out / detailed["file_path"]).read_bytes()
        assert detailed["checksum"] == hashlib.sha256(data).hexdigest()
        samples = [json.loads(line) for line in data.decode().split("\n")[:-1]]
        assert detailed["total_rows"] == len(samples)
        exports.append((value, samples))
    return exports


def required(value: dict[str, Any], names: dict[str, type]) -> None:
    assert {name: type(value[name]) for name in names} == names


def test_every_eval_ever_read_back_is_the_lake(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", SCORES, tasks=("arc", "quiz")))
    notes = exported(lake, "every_eval_ever", tmp_path / "out")
    assert notes == ["1 models have no developer in their names: theirs is unknown"]
    exports = []
    for value, samples in read(tmp_path / "out"):
        required(value, AGGREGATE)
        assert value["source_metadata"]["source_type"] in ("documentation", "evaluation_run")
        details = value["model_info"]["additional_details"]
        assert {"deployment_type", "model_availability"} <= details.keys()
        assert all(isinstance(detail, str) for detail in details.values())
        for result in value["evaluation_results"]:
            of = [one["evaluation"]["score"] for one in samples if one["evaluation_name"] == result["evaluation_name"]]
            assert result["score_details"]["score"] == pytest.approx(sum(of) / len(of))
            assert result["metric_config"]["lower_is_better"] is False
            assert result["source_data"] == {"dataset_name": result["evaluation_name"], "source_type": "other"}
        for sample in samples:
            required(sample, INSTANCE)
            assert sample.keys() <= INSTANCE.keys() | OPTIONAL
            assert (sample["evaluation_id"], sample["model_id"]) == (value["evaluation_id"], value["model_info"]["id"])
            item, judged, usage = int(sample["sample_id"]), sample["evaluation"], sample["token_usage"]
            assert (sample["input"]["raw"], sample["output"]["raw"]) == (PROMPTS[item], [RESPONSES[item]])
            assert judged["is_correct"] is (judged["score"] >= 1)
            assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] == 12 + item
            usd = float(sample["metadata"]["usd"])
            seconds = sample["performance"]["latency_ms"] / 1000
            exports.append((sample["evaluation_name"], item, sample["model_id"], judged["score"], usd, seconds))
    assert sorted(exports) == answers(lake, "task, item, model, score, usd, latency_s")
    report = imported("every_eval_ever", tmp_path / "out", tmp_path / "second")
    assert report.rejects == []
    columns = "task, item, model, score, prompt_tokens, completion_tokens"
    again = rows(tmp_path / "second", f"SELECT {columns} FROM costs ORDER BY task, item, model")
    assert again == answers(lake, columns)


def test_every_eval_ever_of_the_same_lake_is_the_same_bytes(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", SCORES)
    for name in ("one", "two"):
        exported(lake, "every_eval_ever", tmp_path / name)
    one, two = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.json*")}
        for name in ("one", "two")
    )
    assert one == two
    assert len(one) == 4


def test_every_eval_ever_says_nothing_of_what_is_unknown(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    cell = BuiltCell(model="org/c")
    lake.run(cell)
    lake.items("quiz", "i0", 1, prompt=["p"])
    unknown = {"prompt_tokens": None, "cached_tokens": None, "latency_s": None}
    lake.shard(cell, [cell.record(0, score=1.0, **unknown)])
    exported(lake, "every_eval_ever", tmp_path / "out")
    [(_, [sample])] = read(tmp_path / "out")
    assert sample.keys() & {"token_usage", "performance"} == set()
    assert (sample["output"], sample["metadata"], sample["input"]["reference"]) == ({"raw": []}, {}, [])


def test_every_eval_ever_tokens_of_a_thought_are_a_part_of_the_output(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    cell = BuiltCell(model="org/a")
    lake.run(cell)
    lake.items("quiz", "i0", 2, prompt=["p", "q"])
    counts = {"prompt_tokens": 10, "completion_tokens": 30}
    lake.shard(cell, [cell.record(0, score=1.0, reasoning_tokens=25, **counts), cell.record(1, score=1.0, **counts)])
    exported(lake, "every_eval_ever", tmp_path / "out")
    [(_, samples)] = read(tmp_path / "out")
    usages = [sample["token_usage"] for sample in samples]
    assert [usage.get("reasoning_tokens") for usage in usages] == [25, None]
    assert [usage["total_tokens"] for usage in usages] == [40, 40]
    assert imported("every_eval_ever", tmp_path / "out", tmp_path / "second").rejects == []
    again = rows(tmp_path / "second", "SELECT prompt_tokens, completion_tokens FROM matrix")
    assert again == [(10, 30), (10, 30)]


def test_every_eval_ever_what_it_cannot_hold_is_refused(tmp_path: Path) -> None:
    lake = build(tmp_path / "lake", {"a": [1, None], "b": [1, 0]})
    with pytest.raises(ConfigError, match="1 of 4 answers have no score"):
        exported(lake, "every_eval_ever", tmp_path / "out")
    lake = build(tmp_path / "texts", {"a": [1, 0]}, prompts=["p", None])
    with pytest.raises(ConfigError, match="1 items have no text"):
        exported(lake, "every_eval_ever", tmp_path / "out")
    lake = build(tmp_path / "folders", {"org/a/b": [1], "org/a_b": [1]})
    with pytest.raises(ConfigError, match="two models have one folder"):
        exported(lake, "every_eval_ever", tmp_path / "out")
    lake = build(tmp_path / "names", {"../a": [1]})
    with pytest.raises(ConfigError, match=r"'\.\./a' cannot be a file's name"):
        exported(lake, "every_eval_ever", tmp_path / "out")
    lake = LakeBuilder(tmp_path / "rule")
    cell = BuiltCell(metric="points")
    lake.run(cell, correct_threshold=None)
    lake.items("quiz", "i0", 1, prompt=["p"])
    lake.shard(cell, [cell.record(0, score=31.5)])
    with pytest.raises(ConfigError, match="'quiz' has no rule for correct answers"):
        exported(lake, "every_eval_ever", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_eval_ever_has_one_sample_a_line_for_readers_that_split_at_any_line_end(tmp_path: Path) -> None:
    """Its validator splits by str.splitlines, which knows more ends of lines than JSON escapes."""
    prompts = ["one\u2028two", "one\u2029two", "one\x85two", "\x0b\x0c\x1c\x1d\x1e", "plain"]
    lake = build(tmp_path / "lake", {"org/a": [1, 0, 1, 0, 1]}, prompts=prompts, responses=["\u2028", *["x"] * 4])
    exported(lake, "every_eval_ever", tmp_path / "out")
    [(value, samples)] = read(tmp_path / "out")
    data = (tmp_path / "out" / value["detailed_evaluation_results"]["file_path"]).read_bytes()
    assert len(data.decode().splitlines()) == data.count(b"\n") == 5
    assert data.startswith(b'{"schema_version": "0.3.0"')
    assert rb'"raw": "one\u2028two"' in data
    assert rb'"raw": "one\u0085two"' in data
    assert [sample["input"]["raw"] for sample in samples] == prompts
    assert samples[0]["output"]["raw"] == ["\u2028"]
