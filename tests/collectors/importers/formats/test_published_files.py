"""Files that others published, whole, where they are at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.helpers.importing import SHARED, imported, rows
from tests.helpers.thorough import long_only

RECORDS = (
    "SELECT model, task, item, score, failure, prompt_tokens, completion_tokens, stated_usd FROM records ORDER BY ALL"
)


def imported_rows(tmp_path: Path, form: str, paths: Path | list[Path], **settings: Any) -> list[tuple[Any, ...]]:
    """Records of a fresh lake; nothing may be rejected."""
    report = imported(form, paths, tmp_path / "lake", **settings)
    assert [reject["message"] for reject in report.rejects] == []
    return rows(tmp_path / "lake", RECORDS)


real = pytest.mark.skipif(not SHARED.exists(), reason="real records are not on this machine")
TIDY = {"model": "model", "task": "task", "key": "item_id", "score": "score"}


@real
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llmrouter_9model", {}),
        ("routellm", {"response": "response", "high": 10}),  # mt_bench's points
        (
            "routerbench_mini",
            {"filter": "strategy", "usd": "cost_usd", "latency_s": "latency_s", "prompt_tokens": "prompt_tokens"},
        ),
        ("routerbench_sub", {"usd": "cost_usd", "response": "response"}),
    ],
)
def test_tidy_tables_of_others_come_in_whole(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    path = SHARED / "records" / name / "records.parquet"
    report = imported("table", path, tmp_path / "lake", options={**TIDY, **settings})
    [(given, total)] = duckdb.execute("SELECT count(*), sum(score) FROM read_parquet(?)", [str(path)]).fetchall()
    assert report.total.rows == given
    assert report.total.records == given - report.total.rejected - report.total.folded
    assert report.total.rejected == (154 if name == "routerbench_sub" else 0)
    [(stored, score)] = rows(tmp_path / "lake", "SELECT count(*), sum(score) FROM records")
    assert (stored, score) == (report.total.records, pytest.approx(total))


@long_only
@real
@pytest.mark.slow
def test_tidy_table_of_thousands_of_models_comes_in_whole(tmp_path: Path) -> None:
    path = tmp_path / "some.parquet"
    source = SHARED / "records/metabench_a/records.parquet"
    duckdb.execute(f"COPY (SELECT * FROM '{source}' WHERE hash(model) % 20 = 0) TO '{path}'")
    report = imported("table", path, tmp_path / "lake", options=TIDY)
    [(given, total)] = duckdb.execute("SELECT count(*), sum(score) FROM read_parquet(?)", [str(path)]).fetchall()
    assert (report.total.rows, report.total.records) == (given, given)
    assert rows(tmp_path / "lake", "SELECT sum(score) FROM records") == [(total,)]


#: Means that others computed of the same records: RouteLLM's repository, and RouterBench's five-shot files.
PUBLISHED = {
    "routellm": {
        ("gsm8k", "gpt-4-1106-preview"): 0.8567,
        ("gsm8k", "mistralai/Mixtral-8x7B-Instruct-v0.1"): 0.6384,
        ("mmlu", "gpt-4-1106-preview"): 0.8058,
        ("mmlu", "mistralai/Mixtral-8x7B-Instruct-v0.1"): 0.6808,
    },
    "routerbench_sub": {
        ("arc-challenge", "gpt-4-1106-preview"): 0.9544,
        ("arc-challenge", "WizardLM/WizardLM-13B-V1.2"): 0.6592,
        ("mbpp", "gpt-4-1106-preview"): 0.6862,
        ("mbpp", "claude-v2"): 0.6417,
        ("winogrande", "gpt-4-1106-preview"): 0.8587,
        ("winogrande", "meta/llama-2-70b-chat"): 0.5028,
    },
}


@real
@pytest.mark.parametrize("name", PUBLISHED)
def test_means_of_others_records_are_those_that_they_published(tmp_path: Path, name: str) -> None:
    options = {**TIDY, "high": 10, "response": "response"}
    imported("table", SHARED / "records" / name / "records.parquet", tmp_path / "lake", options=options)
    means = rows(
        tmp_path / "lake",
        "SELECT CASE WHEN task LIKE 'mmlu%' THEN 'mmlu' ELSE task END AS test, model, avg(score) "
        "FROM matrix GROUP BY ALL",
    )
    stored = {(task, model): round(mean, 4) for task, model, mean in means}
    assert {key: stored[key] for key in PUBLISHED[name]} == PUBLISHED[name]
