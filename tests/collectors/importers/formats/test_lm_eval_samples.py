"""lm-eval's output of nine releases: the same answers are the same records, and nothing is lost or made up."""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.importing import SHARED, imported, rows, write_lines
from tests.helpers.lm_eval_releases import RELEASES, TIME, Answers, as_written, letters, sums, write_release
from tests.helpers.thorough import LONG

needs_real_files = pytest.mark.skipif(not SHARED.exists(), reason="real files are not on this machine")

RECORDS = """
SELECT task, item, item_hash, filter, repeat, score, correct, metrics, failure, responses, loglikelihoods, is_greedy,
    filtered, model
FROM records LEFT JOIN (SELECT * EXCLUDE (model, task, item_hash, generation) FROM responses)
    USING (cell_id, item, filter, repeat)
ORDER BY ALL
"""


def test_import_of_every_release_gives_the_same_records(tmp_path: Path) -> None:
    stored = {}
    for release in RELEASES if LONG else ("0.4.0", *RELEASES[1:-1:4], "0.4.13"):
        report = imported("lm_eval", write_release(tmp_path / release, release), tmp_path / f"lake-{release}")
        assert (report.total.rows, report.total.records, report.rejects, report.suspicions) == (7, 7, [], []), release
        stored[release] = rows(tmp_path / f"lake-{release}", RECORDS)
    assert all(records == stored["0.4.13"] for records in stored.values())
    primary = [row for row in stored["0.4.0"] if row[3] in ("none", "strict-match")]
    assert [row[5] for row in primary] == [1, 0, 1, 1, 0]
    assert primary[0][10:12] == ([-0.5, -1.5], [True, False])
    assert primary[3][9] == ["the sum"]


def test_import_of_a_run_says_what_is_known_of_its_cells_and_null_of_the_rest(tmp_path: Path) -> None:
    imported("lm_eval", write_release(tmp_path / "run", "0.4.13"), tmp_path / "lake")
    [letter, number] = rows(
        tmp_path / "lake",
        "SELECT model, revision, dtype, task_version, output_type, num_fewshot, metric, filter, imported_from, engine, "
        "quantization, items, planned_items FROM cells ORDER BY task",
    )
    common = ("me/model", "0" * 40, "bfloat16")
    assert letter == (*common, "1.0", "multiple_choice", 0, "acc", "none", "lm_eval", None, None, 3, 3)
    assert number == (*common, "3.0", "generate_until", 0, "exact_match", "strict-match", "lm_eval", None, None, 2, 2)
    [(path, sha, version)] = rows(
        tmp_path / "lake",
        "SELECT DISTINCT path, sha256 = source_file, format_version FROM records JOIN imports ON source_file = sha256 "
        "WHERE task = 'letters'",
    )
    assert (path, sha, version) == (f"samples_letters_{TIME}.jsonl", True, "0.4.13")
    assert rows(tmp_path / "lake", "SELECT source_row FROM records WHERE task = 'letters' ORDER BY item") == [
        (1,),
        (2,),
        (3,),
    ]


@pytest.mark.parametrize("named", [False, True])
def test_import_of_two_models_that_wrote_into_one_folder_mixes_no_answers(tmp_path: Path, named: bool) -> None:
    for model, right in (("me/A", (True, True, True)), ("me/B", (False, False, False))):
        folder = write_release(tmp_path / "run", "0.4.0", Answers(right, model=model))
        if named:  # --output_path out/A.json
            (folder / "results.json").rename(folder / f"{model[-1]}.json")
    report = imported("lm_eval", folder, tmp_path / "lake")
    stored = rows(tmp_path / "lake", "SELECT DISTINCT model, score FROM records WHERE task = 'letters' ORDER BY ALL")
    assert stored == ([("me/A", 1.0), ("me/B", 0.0)] if named else [("me/B", 0.0)])
    assert {reject["kind"] for reject in report.rejects} == (set() if named else {"no_model"})


@pytest.mark.parametrize("damaged", ['"doc_id": 1.0', '"doc_id": 1, "doc_hash": 7, "doc": 5'])
def test_import_of_unlabelled_filters_gives_no_verdict_to_another_filter(tmp_path: Path, damaged: str) -> None:
    """A row that is refused stood for its filter: the next one of its document does not."""
    folder = write_release(tmp_path / "run", "0.4.5")
    path = folder / f"samples_sums_{TIME}.jsonl"
    lines = path.read_text().splitlines()
    second = next(number for number, line in enumerate(lines) if json.loads(line)["doc_id"] == 1)
    lines[second] = lines[second].replace('"doc_id": 1', damaged, 1).replace('"doc_hash": "', '"was": "')
    path.write_text("\n".join(lines) + "\n")
    imported("lm_eval", folder, tmp_path / "lake")
    stored = rows(tmp_path / "lake", "SELECT filter, score FROM records WHERE task = 'sums' AND item = 1 ORDER BY ALL")
    assert ("strict-match", 1.0) not in stored


def test_import_of_a_score_that_is_a_text_is_rejected(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "run", "0.4.13")
    path = folder / f"samples_letters_{TIME}.jsonl"
    path.write_text(path.read_text().replace('"acc": 1.0', '"acc": "1.0"', 1))
    report = imported("lm_eval", folder, tmp_path / "lake")
    [reject] = report.rejects
    assert reject["kind"] == "damaged"
    assert "is not a number" in reject["message"]


@pytest.mark.parametrize("configs", [None, 5, []])
def test_import_beside_a_results_file_of_no_form_goes_on(tmp_path: Path, configs: Any) -> None:
    good, bad = write_release(tmp_path / "runs/good", "0.4.0"), write_release(tmp_path / "runs/bad", "0.4.0")
    path = bad / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "configs": configs}))
    report = imported("lm_eval", good.parent, tmp_path / "lake")
    assert report.total.records == 7
    assert {reject["kind"] for reject in report.rejects} <= {"unknown_layout", "no_model"}


def test_import_of_unlabelled_filters_without_results_invents_no_name(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "run", "0.4.5")
    (folder / f"results_{TIME}.json").unlink()
    report = imported("lm_eval", folder, tmp_path / "lake", model="me/model")
    assert report.total.records == 7
    assert rows(tmp_path / "lake", "SELECT DISTINCT task, filter FROM records ORDER BY ALL") == [
        ("letters", "none"),
        ("sums", "unlabelled-1"),
        ("sums", "unlabelled-2"),
    ]


def test_import_without_results_and_model_is_rejected_with_what_to_do(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "run", "0.4.9")
    (folder / f"results_{TIME}.json").unlink()
    report = imported("lm_eval", folder, tmp_path / "lake")
    assert {(reject["kind"], "--model" in reject["message"]) for reject in report.rejects} == {("no_model", True)}
    assert report.total.rows == 0


def test_import_of_a_file_that_two_runs_were_appended_to_folds_what_is_equal(tmp_path: Path) -> None:
    for release in ("0.4.5", "0.4.9"):
        folder = write_release(tmp_path / release, release)
        for task, made in (("letters", letters), ("sums", sums)):
            again = [as_written(row, release) for row in made(Answers(right=(True, True, True)))]
            with open(folder / f"samples_{task}_{TIME}.jsonl", "a") as file:
                file.writelines(json.dumps(row) + "\n" for row in again)
        report = imported("lm_eval", folder, tmp_path / f"lake-{release}")
        assert (report.total.records, report.total.folded) == (7, 6)
        [reject] = report.rejects
        assert (reject["kind"], reject["source_row"], reject["source_key"]) == ("conflict", 5, "1")
        assert rows(tmp_path / f"lake-{release}", "SELECT score FROM records WHERE task = 'letters' AND item = 1") == [
            (0,)
        ]


def test_import_of_several_runs_of_one_model_keeps_each_as_a_cell(tmp_path: Path) -> None:
    first = write_release(tmp_path / "runs/a", "0.4.9")
    second = write_release(tmp_path / "runs/b", "0.4.9", Answers(right=(False, False, False)))
    for path in second.iterdir():
        path.rename(path.with_name(path.name.replace("2026-01-02", "2026-02-02")))
    report = imported("lm_eval", first.parent, tmp_path / "lake")
    assert (report.cells, report.rejects) == (4, [])
    scores = "SELECT imported_from, score FROM leaderboard WHERE task = 'letters' ORDER BY ALL"
    assert rows(tmp_path / "lake", scores) == [("lm_eval", 2 / 3), ("lm_eval#2", 0.0)]
    for folder in (first, second):  # one after the other: the same
        imported("lm_eval", folder, tmp_path / "later")
    assert rows(tmp_path / "later", scores) == rows(tmp_path / "lake", scores)


def test_import_of_two_folders_at_once_keeps_their_models_apart(tmp_path: Path) -> None:
    folders = [write_release(tmp_path / m, "0.4.2", Answers(right=(m == "a",) * 3, model=f"me/{m}")) for m in "ab"]
    report = imported("lm_eval", folders, tmp_path / "lake")
    assert (report.total.records, report.rejects) == (14, [])
    stored = rows(tmp_path / "lake", "SELECT model, score FROM leaderboard WHERE task = 'letters' ORDER BY ALL")
    assert stored == [("me/a", 1.0), ("me/b", 0.0)]


def test_import_of_a_damaged_row_among_unlabelled_filters_moves_no_verdict(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "run", "0.4.5", Answers(sums=((False, True), (False, True), (False, True))))
    path = folder / f"samples_sums_{TIME}.jsonl"
    first, second, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, second[:40] + "\n", *rest]))
    report = imported("lm_eval", folder, tmp_path / "lake")
    assert sorted(reject["kind"] for reject in report.rejects) == ["damaged", "unknown_filter"]
    assert rows(tmp_path / "lake", "SELECT filter, item, score FROM records WHERE task = 'sums' ORDER BY ALL") == [
        ("flexible-extract", 0, 1.0),
        ("flexible-extract", 2, 1.0),
        ("strict-match", 0, 0.0),
        ("strict-match", 2, 0.0),
    ]


def test_import_of_a_row_with_another_filter_first_leaves_the_document_its_place(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "run", "0.4.9")
    path = folder / f"samples_sums_{TIME}.jsonl"
    path.write_text(path.read_text().replace('"strict-match"', '"bogus"', 1))
    report = imported("lm_eval", folder, tmp_path / "lake")
    assert [reject["kind"] for reject in report.rejects] == ["unknown_filter"]
    stored = rows(tmp_path / "lake", "SELECT item, filter FROM records WHERE task = 'sums' ORDER BY ALL")
    assert stored == [(0, "flexible-extract"), (1, "flexible-extract"), (1, "strict-match")]


def test_import_of_a_run_that_grew_takes_the_rest(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "run", "0.4.9")
    path = folder / f"samples_letters_{TIME}.jsonl"
    whole = path.read_text()
    path.write_text(whole.splitlines(keepends=True)[0])
    imported("lm_eval", folder, tmp_path / "lake")
    path.write_text(whole)
    report = imported("lm_eval", folder, tmp_path / "lake")
    assert (report.total.records, report.total.known, report.rejects) == (3, 4, [])
    counts = "SELECT task, scored FROM leaderboard ORDER BY ALL"  # on the items of then, and on all of them
    assert rows(tmp_path / "lake", counts) == [("letters", 1), ("letters", 3), ("sums", 2)]


def test_import_of_results_of_odd_kinds_is_no_traceback(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "run", "0.4.9")
    path = folder / f"results_{TIME}.json"
    value = json.loads(path.read_text())
    value |= {
        "n-shot": {"letters": 10**12},
        "fewshot_as_multiturn": "yes",
        "system_instruction": {},
        "lm_eval_version": {},
    }
    value["configs"]["letters"]["output_type"] = ["x"]
    value["n-samples"]["letters"]["original"] = 2**40
    path.write_text(json.dumps(value))
    report = imported("lm_eval", folder, tmp_path / "lake")
    assert (report.total.records, report.rejects) == (7, [])


BAD_ROWS: dict[str, tuple[str, str]] = {
    "cut": ('{"doc_id": 1, "doc', "damaged"),
    "a list": ("[1, 2]", "damaged"),
    "no JSON": ("hello", "damaged"),
    "nested": ("[" * 100_000, "damaged"),
    "no id": ('{"doc": {}}', "no_key"),
    "negative id": ('{"doc_id": -1}', "no_key"),
    "text id": ('{"doc_id": "1"}', "no_key"),
    "huge id": ('{"doc_id": 99999999999999999999999}', "no_key"),
    "other document": (json.dumps({"doc_id": 0, "doc": {"a": 1}, "acc": 1.0}), "bad_item"),
    "unknown filter": (
        json.dumps({"doc_id": 7, "doc": {}, "filter": "other", "metrics": ["acc"], "acc": 1.0}),
        "unknown_filter",
    ),
    "half a character": ('{"doc_id": 7, "doc": {"question": "\\ud83d"}, "metrics": ["acc"], "acc": 1.0}', "encoding"),
    "NaN": ('{"doc_id": 7, "doc": {}, "metrics": ["acc"], "acc": NaN}', "not_finite"),
    "beyond its range": ('{"doc_id": 7, "doc": {}, "metrics": ["acc"], "acc": 1.5}', "out_of_range"),
    "no metric": ('{"doc_id": 7, "doc": {}, "metrics": []}', "no_verdict"),
}


@pytest.mark.few(3)
@pytest.mark.parametrize(("line", "kind"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_import_of_a_bad_row_rejects_it_and_takes_the_others(tmp_path: Path, line: str, kind: str) -> None:
    folder = write_release(tmp_path / "run", "0.4.9")
    with open(folder / f"samples_letters_{TIME}.jsonl", "a") as file:
        file.write(line + "\n")
    report = imported("lm_eval", folder, tmp_path / "lake")
    assert [(reject["kind"], reject["source_row"]) for reject in report.rejects] == [(kind, 4)]
    assert report.total.records == 7
    assert rows(tmp_path / "lake", "SELECT kind, source_row, path FROM rejects") == [
        (kind, 4, f"samples_letters_{TIME}.jsonl")
    ]


def test_import_of_bytes_that_are_no_text_rejects_the_row(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "run", "0.4.9")
    with open(folder / f"samples_letters_{TIME}.jsonl", "ab") as file:
        file.write(b'{"doc_id": 3, "doc": {"question": "\xff\xfe"}}\n')
    report = imported("lm_eval", folder, tmp_path / "lake")
    assert (report.rejects[0]["kind"], report.total.records) == ("encoding", 7)


def test_import_of_log_likelihoods_that_are_nan_keeps_the_verdict(tmp_path: Path) -> None:
    row = as_written(letters(Answers())[0], "0.4.9") | {"resps": [[["nan", "False"]], [["-1.0", "True"]]]}
    write_lines(tmp_path / f"run/samples_letters_{TIME}.jsonl", [row])
    imported("lm_eval", tmp_path / "run", tmp_path / "lake", model="m")
    assert rows(tmp_path / "lake", "SELECT score FROM records") == [(1.0,)]
    assert rows(tmp_path / "lake", "SELECT loglikelihoods FROM responses") == [(None,)]


def test_import_of_a_forks_token_usage_keeps_it(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    row = as_written(sums(Answers())[0], "0.4.9") | {"token_usage": usage, "latency_ms": 250.0}
    write_lines(tmp_path / f"run/samples_sums_{TIME}.jsonl", [row])
    imported("lm_eval", tmp_path / "run", tmp_path / "lake", model="m")
    assert rows(tmp_path / "lake", "SELECT prompt_tokens, completion_tokens, latency_s FROM records") == [(12, 3, 0.25)]


# ---- real files


@needs_real_files
def test_import_of_the_releases_own_files_has_their_means(tmp_path: Path) -> None:
    hashes = defaultdict(set)
    for release in RELEASES if LONG else RELEASES[::4]:  # the records of each are compared above
        lake = tmp_path / release
        report = imported("lm_eval", SHARED / "lm_eval/dummy" / release, lake)
        assert (report.total.rows, report.total.records, report.rejects) == (30, 30, [])
        [path] = (SHARED / "lm_eval/dummy" / release).rglob("results*.json")
        results = json.loads(path.read_text())["results"]
        for task, name, metrics in rows(
            lake, "SELECT task, filter, list(metrics ORDER BY item) FROM records GROUP BY ALL"
        ):
            values = [json.loads(one) for one in metrics]
            for metric in values[0]:
                assert aggregated(metric, [v[metric] for v in values]) == pytest.approx(
                    results[task][f"{metric},{name}"], abs=1e-9
                ), (release, task, metric)
        for task, item, item_hash in rows(lake, "SELECT DISTINCT task, item, item_hash FROM records"):
            hashes[task, item].add(item_hash)
    assert len(hashes) == 24
    assert all(len(values) == 1 for values in hashes.values())


def aggregated(metric: str, values: list[Any]) -> float:
    """As lm-eval does: the mean, or for rolling log-likelihoods over all weights (lm_eval.api.metrics)."""
    if not isinstance(values[0], list):
        return float(sum(values) / len(values))
    bits = -sum(loglikelihood for loglikelihood, _ in values) / sum(weight for _, weight in values)
    return bits / math.log(2) if metric == "bits_per_byte" else math.exp(bits)


@needs_real_files
@pytest.mark.parametrize(
    ("folder", "model", "records"),
    [
        ("metabench_pythia14m_0.4.5", "EleutherAI/pythia-14m", 734),
        ("gsm8k_two_filters", "m", None),
        ("samarth_0.4.9", None, 600),
    ],
)
def test_import_of_other_peoples_runs_takes_every_row(
    tmp_path: Path, folder: str, model: str | None, records: int | None
) -> None:
    report = imported("lm_eval", SHARED / "lm_eval/real" / folder, tmp_path / "lake", model=model)
    files = {path.name for path in (SHARED / "lm_eval/real" / folder).rglob("*.json*")}
    alone = [name for name in files if name.startswith("results") and sum(name[8:-5] in one for one in files) == 1]
    assert [(r["kind"], r["source_row"]) for r in report.rejects] == [("no_record", None)] * len(alone)
    assert report.total.rows == report.total.records == (records or report.total.rows) > 0
    for path in (SHARED / "lm_eval/real" / folder).rglob("results*.json"):
        results = json.loads(path.read_text())
        own = tmp_path / path.stem
        own.mkdir()
        for file in path.parent.glob(f"*{path.stem.removeprefix('results')}*"):
            shutil.copy(file, own)
        if imported("lm_eval", own, own / "lake").total.rows:
            for task, score in rows(own / "lake", "SELECT task, score FROM leaderboard"):
                assert score == pytest.approx(results["results"][task]["acc,none"], abs=1e-9)


def test_lm_eval_thoughts_are_part_of_the_answer_where_the_total_has_them(tmp_path: Path) -> None:
    """A fork of lm-eval counts tokens. Its total decides whether thoughts stand in the answer's count."""
    usages = [
        {"prompt_tokens": 40, "completion_tokens": 79, "thinking_tokens": 2329, "total_tokens": 2448},
        {"prompt_tokens": 40, "completion_tokens": 2408, "thinking_tokens": 2329, "total_tokens": 2448},
        {"prompt_tokens": 40, "completion_tokens": 79, "thinking_tokens": 2329, "total_tokens": 200},
        {"prompt_tokens": 40, "completion_tokens": 79},
    ]
    given = [
        {
            **{"doc_id": key, "doc": {"question": f"q{key}"}, "target": "A", "filter": "none", "token_usage": usage},
            **{"resps": [["A"]], "filtered_resps": ["A"], "metrics": ["exact_match"], "exact_match": 1.0},
        }
        for key, usage in enumerate(usages)
    ]
    path = write_lines(tmp_path / "samples_quiz_2026-01-02T03-04-05.678901.jsonl", given)
    report = imported("lm_eval", path, tmp_path / "lake", model="me/model")
    assert rows(tmp_path / "lake", "SELECT prompt_tokens, completion_tokens FROM records ORDER BY item") == [
        *[(40, 2408), (40, 2408), (None, None), (40, 79)]
    ]
    assert [one.kind for one in report.suspicions] == ["no_usage", "odd_total"]
