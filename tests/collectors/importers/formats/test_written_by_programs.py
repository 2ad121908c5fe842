"""Files that the programs themselves wrote, against the numbers that these programs state (tests/golden/imports)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.importing import imported, rows

FILES = Path(__file__).resolve().parents[3] / "golden/imports"
MEANS = "SELECT task, avg(score) FROM records WHERE repeat = 0 GROUP BY ALL ORDER BY ALL"
COUNTED = "SELECT count(*), sum(prompt_tokens + completion_tokens), sum(cached_tokens) FROM records"


#: Releases of lighteval whose rows state the place of their item, and their tokens.
SINCE_0_11 = ["lighteval-0.11.0", "lighteval-0.13.0"]


def folders(program: str) -> list[str]:
    return sorted(path.name for path in FILES.glob(f"{program}-*"))


def inspect_logs() -> list[tuple[str, str, Path]]:
    return [
        (folder, path.name.split("_")[1], path)
        for folder in folders("inspect_ai")
        for path in sorted((FILES / folder / "logs").iterdir())
    ]


@pytest.mark.parametrize(("folder", "name", "path"), inspect_logs(), ids=lambda value: str(value)[-60:])
def test_inspect_log_has_its_accuracy_and_the_tokens_of_its_model(
    tmp_path: Path, folder: str, name: str, path: Path
) -> None:
    summary = json.loads((FILES / folder / f"{path.suffix[1:]}.summary.json").read_text())[name]
    report = imported("inspect", path, tmp_path / "lake")
    assert (report.rejects, report.suspicions) == ([], [])
    assert rows(tmp_path / "lake", MEANS) == [(name, pytest.approx(summary["score"], abs=1e-12))]
    assert rows(tmp_path / "lake", "SELECT DISTINCT metric FROM cells") == [(summary["metric"],)]
    usage = summary["usage"]
    # The judge's three calls are the same model's: 4,900 tokens each, by the script.
    of_model = usage["total_tokens"] - (3 * 4900 if name == "graded" else 0)
    [(_, tokens, cached)] = rows(tmp_path / "lake", COUNTED)
    assert (tokens, cached) == (of_model, usage.get("input_tokens_cache_read"))


def test_inspect_logs_of_two_releases_are_runs_of_one_model(tmp_path: Path) -> None:
    paths = [path for _, name, path in inspect_logs() if name == "cached"]
    imported("inspect", paths, tmp_path / "lake")
    newest = max(paths, key=lambda path: path.name)
    assert newest.parent.parent.name == "inspect_ai-0.3.60"
    query = "SELECT imported_from, versions, count(*) FROM records JOIN cells USING (cell_id) GROUP BY ALL ORDER BY ALL"
    versions = rows(tmp_path / "lake", query)
    assert [(name, json.loads(version)["inspect_ai"], count) for name, version, count in versions] == [
        ("inspect", "0.3.60", 3),
        ("inspect#2", "0.3.285", 3),
    ]


def every_eval_ever_files() -> list[Path]:
    return sorted(FILES.glob("every_eval_ever-*/**/*_samples.jsonl"))


@pytest.mark.parametrize("path", every_eval_ever_files(), ids=lambda path: path.parts[-5])
def test_every_eval_ever_samples_have_the_score_of_their_evaluation(tmp_path: Path, path: Path) -> None:
    whole = json.loads(Path(str(path).replace("_samples.jsonl", ".json")).read_text())
    stated = {one["evaluation_result_id"]: one["score_details"]["score"] for one in whole["evaluation_results"]}
    report = imported("every_eval_ever", path, tmp_path / "lake")
    assert (report.rejects, report.suspicions) == ([], [])
    [(_, mean)] = rows(tmp_path / "lake", MEANS)
    assert mean == pytest.approx(next(iter(stated.values())))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert report.total.rows >= len(lines) == report.total.folded + len({(x["sample_id"], _epoch(x)) for x in lines})
    first = {(line["sample_id"], _epoch(line)): line for line in reversed(lines)}
    usages = [line["token_usage"]["total_tokens"] for line in first.values() if line["token_usage"]]
    assert rows(tmp_path / "lake", COUNTED)[0][1] == (sum(usages) or None)


def _epoch(line: dict[str, Any]) -> str | None:
    return (line["metadata"] or {}).get("epoch")


def test_every_eval_ever_of_two_metrics_is_one_record_with_both(tmp_path: Path) -> None:
    [path] = [path for path in every_eval_ever_files() if "lm" in path.parts]
    imported("every_eval_ever", path, tmp_path / "lake")
    given: dict[str, dict[str, float]] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        given.setdefault(line["sample_id"], {})[line["evaluation_result_id"]] = line["evaluation"]["score"]
    metrics = rows(
        tmp_path / "lake", "SELECT source_key, metrics FROM records JOIN items USING (task, item) ORDER BY 1"
    )
    assert {key: json.loads(text) for key, text in metrics} == given
    assert rows(tmp_path / "lake", "SELECT DISTINCT metric FROM cells") == [(next(iter(given["0"])),)]


@pytest.mark.parametrize("folder", folders("lighteval"))
def test_lighteval_details_have_the_scores_of_its_results(tmp_path: Path, folder: str) -> None:
    [path] = (FILES / folder / "results").rglob("*.json")
    results = json.loads(path.read_text())["results"]
    report = imported("lighteval", FILES / folder / "details", tmp_path / "lake")
    assert (report.rejects, report.suspicions) == ([], [])
    metrics = dict(rows(tmp_path / "lake", "SELECT task, metric FROM cells"))
    means = dict(rows(tmp_path / "lake", MEANS))
    assert means == {task: results[_stated(task, results)][metrics[task]] for task in means}
    assert len(means) == 2


def _stated(task: str, results: dict[str, Any]) -> str:
    """The key of a task in a results file: it has colons where the names of details have bars."""
    return next(key for key in results if key.replace(":", "|") == task)


@pytest.mark.parametrize("folder", SINCE_0_11)
def test_lighteval_items_are_those_of_the_data_set_in_its_order(tmp_path: Path, folder: str) -> None:
    imported("lighteval", FILES / folder / "details", tmp_path / "lake")
    asked = [json.loads(line)["q"] for line in (FILES / "sums.jsonl").read_text().splitlines()]
    for task in ("gen", "mc"):
        query = f"SELECT prompt FROM items WHERE contains(task, 'sums_{task}') ORDER BY item"
        assert rows(tmp_path / "lake", query) == [(text,) for text in asked]


@pytest.mark.parametrize("folder", SINCE_0_11)
def test_lighteval_prompts_have_as_many_tokens_alone_as_in_a_padded_batch(tmp_path: Path, folder: str) -> None:
    """Prompts that are asked for choices are not padded: the same texts have the same tokens where they are."""
    imported("lighteval", FILES / folder / "details", tmp_path / "lake")
    tokens = "SELECT prompt_tokens FROM records WHERE contains(task, 'sums_{}') ORDER BY item"
    assert rows(tmp_path / "lake", tokens.format("gen")) == rows(tmp_path / "lake", tokens.format("mc"))
    # " 11" is three tokens of the tiny model's, and stands beside " 12 or so" of more.
    chosen = "SELECT DISTINCT completion_tokens FROM records WHERE contains(task, 'sums_mc')"
    assert rows(tmp_path / "lake", chosen) == [(3,)]


@pytest.mark.parametrize("folder", folders("lm_eval"))
def test_lm_eval_samples_have_the_accuracy_of_their_results(tmp_path: Path, folder: str) -> None:
    [path] = (FILES / folder).rglob("results_*.json")
    results = json.loads(path.read_text())["results"]
    imported("lm_eval", FILES / folder, tmp_path / "lake")
    assert rows(tmp_path / "lake", MEANS) == [("sums_mc", results["sums_mc"]["acc,none"])]
