"""Files that came out wrong, each with its right value: texts that change, files without any record, costs."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.lake.store import Lake
from collectors.prices.tables import add_prices, read_prices, shipped_path
from pipelines.ingest import main
from tests.helpers.importing import COLUMNS, imported, rows, table, verdicts, write_json, write_lines
from tests.helpers.thorough import long_only

ANSWERS = (
    "SELECT source_key, score, responses FROM records JOIN items USING (task, item) "
    "LEFT JOIN responses USING (model, task, item) ORDER BY item"
)
IDS = ["ABCDEF01-1111-2222-3333-444455556660", "ABCDEF01-1111-2222-3333-444455556661"]


def text(path: Path, lines: str) -> Path:
    path.write_text(lines, encoding="utf-8", newline="")
    return path


# ---- text is text


@pytest.mark.parametrize(
    ("lines", "keys", "rejected"),
    [
        ("id,model,task,score\n1,m,t,0\n#2,m,t,1\n3,m,t,0\n", ["1", "#2", "3"], []),
        ("score,model,task,id\n#N/A,m,t,0\n0.1,m,t,1\n0.2,m,t,2\n", ["1", "2"], [("not_finite", 1)]),
        ("model,task,id,score\nm,t,1.1,1\nm,t,1.10,1\nm,t,007,1\n", ["1.1", "1.10", "007"], []),
        ("model,task,id,score\nm,t,2023-01-02,1\nm,t,1/2/2023,1\n", ["2023-01-02", "1/2/2023"], []),
    ],
)
def test_csv_rows_of_a_table_are_all_in_or_rejected(
    tmp_path: Path, lines: str, keys: list[str], rejected: list[Any]
) -> None:
    report = imported("table", text(tmp_path / "t.csv", lines), tmp_path / "lake", options=COLUMNS)
    assert report.total.rows == lines.count("\n") - 1
    assert [(one["kind"], one["source_row"]) for one in report.rejects] == rejected
    assert [key for key, *_ in rows(tmp_path / "lake", ANSWERS)] == keys


@pytest.mark.parametrize("form", ["table", "routerbench", "llmrouter", "routellm"])
def test_csv_answers_stay_as_they_are_in_every_reader(tmp_path: Path, form: str) -> None:
    answers = ["'a'", "1/2/2023", "12/11/2023", "12:30", "01:05", "12345678901234567890", "1.10", "#N/A", "null"]
    heads = {
        "table": "id,model,task,score,answer\n{n},m,t,0,{answer}\n",
        "routerbench": "sample_id,prompt,eval_name,m,m|model_response,m|total_cost\n{n},What {n}?,t,0,{answer},0.01\n",
        "llmrouter": "task_id,task_name,query,model_name,performance,response\n{n},t,What {n}?,m,0,{answer}\n",
        "routellm": "prompt,m,m_response\nWhat {n}?,False,{answer}\n",
    }
    head, row = heads[form].splitlines()
    body = "\n".join(row.format(n=n, answer=answer) for n, answer in enumerate(answers))
    options = {**COLUMNS, "response": "answer"} if form == "table" else {}
    imported(form, text(tmp_path / "t.csv", f"{head}\n{body}\n"), tmp_path / "lake", options=options)
    assert [row[1:] for row in rows(tmp_path / "lake", ANSWERS)] == [(0.0, [answer]) for answer in answers]


def test_routerbench_csv_ids_that_look_like_numbers_are_items_of_their_own(tmp_path: Path) -> None:
    lines = "sample_id,prompt,eval_name,m,m|model_response,m|total_cost\n"
    lines += "".join(f"{key},What {key}?,tm,{n % 2},a,0.01\n" for n, key in enumerate(("1.1", "1.10", "1.100")))
    imported("routerbench", text(tmp_path / "t.csv", lines), tmp_path / "lake")
    stored = rows(tmp_path / "lake", ANSWERS)
    assert [row[:2] for row in stored] == [("1.1", 0.0), ("1.10", 1.0), ("1.100", 0.0)]


def test_llmrouter_csv_queries_of_digits_alone_are_read(tmp_path: Path) -> None:
    lines = "task_name,query,model_name,performance\nt,101,m,1\nt,0102,m,0\n"
    report = imported("llmrouter", text(tmp_path / "t.csv", lines), tmp_path / "lake")
    assert (report.total.records, report.rejects) == (2, [])
    assert rows(tmp_path / "lake", "SELECT prompt FROM items ORDER BY item") == [("101",), ("0102",)]


def test_routellm_column_of_true_and_false_answers_is_no_model(tmp_path: Path) -> None:
    lines = "prompt,a,a_response,b,b_response\nIs 1 odd?,True,True,False,False\nIs 2 odd?,True,False,True,False\n"
    imported("routellm", text(tmp_path / "odd.csv", lines), tmp_path / "lake")
    stored = rows(tmp_path / "lake", "SELECT model, score, responses FROM records JOIN responses USING (model, item)")
    assert sorted(stored) == [
        ("a", 1.0, ["False"]),
        ("a", 1.0, ["True"]),
        ("b", 0.0, ["False"]),
        ("b", 1.0, ["False"]),
    ]


def test_table_keys_that_look_like_uuids_stay_and_join_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.matrix import main as matrix

    lines = [{"id": key, "model": m, "task": "t", "score": s} for key in IDS for m, s in (("org/a", 1), ("org/b", 0))]
    imported("table", write_lines(tmp_path / "t.jsonl", lines), tmp_path / "lake", options=COLUMNS)
    choices = write_lines(tmp_path / "mine.jsonl", [{"source_key": key, "model": "org/a"} for key in IDS])
    words = ["--choices", str(choices), "--lake", str(tmp_path / "lake"), "--include", "imported"]
    assert matrix(["score", *words]) == 0, capsys.readouterr().err
    assert rows(tmp_path / "lake", "SELECT DISTINCT source_key FROM items ORDER BY 1") == [(key,) for key in IDS]


def test_table_of_chat_messages_is_the_same_text_from_parquet_and_json_lines(tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": "hi, you"}], [{"role": "user", "content": "2", "name": "x"}]]
    given = {
        m: [{"id": str(n), "model": m, "task": "t", "score": 1, "prompt": c} for n, c in enumerate(chats)] for m in "ab"
    }
    pq.write_table(pa.Table.from_pylist(given["a"]), tmp_path / "a.parquet")
    files = [tmp_path / "a.parquet", write_lines(tmp_path / "b.jsonl", given["b"])]
    imported("table", files, tmp_path / "lake", options={**COLUMNS, "prompt": "prompt"})
    texts = ['[{"role":"user","content":"hi, you"}]', '[{"role":"user","content":"2","name":"x"}]']
    stored = rows(
        tmp_path / "lake",
        "SELECT item, count(*), any_value(prompt) FROM records JOIN items USING (task, item) GROUP BY ALL ORDER BY 1",
    )
    assert stored == [(0, 2, texts[0]), (1, 2, texts[1])]


def test_table_keys_that_are_nan_are_no_keys(tmp_path: Path) -> None:
    given = [("m", "t", key, 1.0) for key in (1.0, math.nan, math.nan)]
    report = imported("table", table(tmp_path / "t.parquet", given), tmp_path / "parquet", options=COLUMNS)
    assert [(one["kind"], one["source_row"]) for one in report.rejects] == [("no_key", 2), ("no_key", 3)]
    lines = '{"id": NaN, "model": "m", "task": "t", "score": 1}\n{"id": 1, "model": "m", "task": "t", "score": NaN}\n'
    report = imported("table", text(tmp_path / "t.jsonl", lines), tmp_path / "json", options=COLUMNS)
    assert [one["kind"] for one in report.rejects] == ["no_record", "no_key", "not_finite"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_table_with_a_column_named_twice_is_refused(tmp_path: Path, ending: str) -> None:
    path = text(tmp_path / "t.csv", "id,model,task,score,score\n1,m,t,0,1\n")
    if ending == "parquet":
        path = tmp_path / "t.parquet"
        columns = [pa.array([value]) for value in ("1", "m", "t", 0.0, 1.0)]
        pq.write_table(pa.table(columns, names=["id", "model", "task", "score", "score"]), path)
    report = imported("table", path, tmp_path / "lake", options=COLUMNS)
    [reject] = report.rejects
    assert (reject["kind"], "'score'" in reject["message"]) == ("unknown_layout", True)


def test_table_of_columns_that_differ_in_case_alone_takes_the_right_one(tmp_path: Path) -> None:
    columns = {"id": ["1"], "model": ["m"], "task": ["t"], "Score": [0.0], "score": [1.0], "file_row_number": [7]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    imported("table", tmp_path / "t.parquet", tmp_path / "lake", options=COLUMNS)
    assert rows(tmp_path / "lake", "SELECT score, source_row FROM records") == [(1.0, 1)]


def test_table_record_with_cached_tokens_costs_what_the_source_asks(tmp_path: Path) -> None:
    line = {
        "id": 1,
        "model": "ByteDance/Seed-1.8",
        "task": "t",
        "score": 1,
        "in": 100_000,
        "out": 100,
        "cached": 99_000,
    }
    counts = {"prompt_tokens": "in", "completion_tokens": "out", "cached_tokens": "cached"}
    path = write_lines(tmp_path / "t.jsonl", [line])
    imported("table", path, tmp_path / "lake", options={**COLUMNS, **counts})
    with shipped_path("open_models") as shipped:
        name, prices = read_prices(shipped)
        add_prices(Lake(str(tmp_path / "lake")), name, prices)
    assert sum(price is not None for price in prices["usd_per_million_cached"].to_pylist()) == 251
    [(usd,)] = rows(tmp_path / "lake", "SELECT usd FROM costs")
    assert usd == pytest.approx(0.0054, abs=1e-12)


def test_routerarena_reasoning_in_the_total_alone_is_paid(tmp_path: Path) -> None:
    usage = {"input_tokens": 92, "output_tokens": 79, "total_tokens": 2500}
    line = {"global_index": "MMLU_0", "question": "q 0", "llm_selected": "xai/thinker", "success": True}
    line |= {"generated_answer": "a", "token_usage": usage, "evaluation_result": {"score": 1.0}}
    imported("routerarena", write_lines(tmp_path / "thinker.jsonl", [line]), tmp_path / "lake")
    head = "model,provider,usd_per_million_prompt,usd_per_million_completion,valid_from,source"
    prices = text(tmp_path / "prices.csv", f"{head}\nxai/thinker,x,0.2,0.5,2025-01-01,made up\n")
    add_prices(Lake(str(tmp_path / "lake")), *read_prices(prices))
    [(completion, usd)] = rows(tmp_path / "lake", "SELECT completion_tokens, usd FROM costs")
    assert (completion, usd) == (2408, pytest.approx(0.0012224, abs=1e-12))


# ---- silence


def test_ingest_of_a_file_with_nothing_per_item_says_so_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = {"results": {"gsm8k": {"exact_match,strict-match": 0.5}}}
    results["config"] = {"model": "hf", "model_args": "pretrained=org/m"}
    write_json(tmp_path / "run/results_2025-01-01T00-00-00.000000.json", results)
    words = ["--format", "lm_eval", str(tmp_path / "run"), "--lake", str(tmp_path / "lake")]
    for more, words_of_it in ((["--dry-run"], "no_record: 1"), ([], "no_record: 1"), ([], "with 1 rejects")):
        assert main([*words, *more]) == 1
        assert sum(words_of_it in line for line in capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("form", "name", "content"),
    [
        ("table", "t.csv", "model,task,id,score\n"),
        ("table", "t.csv", "model,task,id,score\nm,t,1,high\n"),
        ("table", "t.jsonl", '{"model": "m", "id": ' + "[" * 100_000 + "]" * 100_000 + "}\n"),
        ("routerdc", "t.json", "[]"),
        ("inspect", "t.json", '{"eval": {"model": "m", "task": "t"}, "samples": []}'),
        ("opencompass", "other.json", "{}"),
        ("llmrouterbench", "t.json", '{"records": [], "dataset_name": "d", "split": "s", "model_name": "m"}'),
        ("routerarena", "t.jsonl", ""),
        ("every_eval_ever", "a_samples.jsonl", "\n"),
    ],
)
def test_ingest_of_a_file_of_which_nothing_became_a_record_names_it(
    tmp_path: Path, form: str, name: str, content: str
) -> None:
    options = COLUMNS if form == "table" else {}
    report = imported(form, text(tmp_path / name, content), tmp_path / "lake", options=options)
    assert report.total.records == 0
    assert [one["kind"] for one in report.rejects if one["source_row"] is None] in (["no_record"], ["unknown_layout"])


def test_ingest_of_a_silent_file_among_good_ones_names_it(tmp_path: Path) -> None:
    files = [table(tmp_path / "good.parquet", verdicts()), text(tmp_path / "none.csv", "model,task,id,score\n")]
    report = imported("table", files, tmp_path / "lake", options=COLUMNS)
    assert (report.total.records, [(one["file"], one["kind"]) for one in report.rejects]) == (6, [(1, "no_record")])


# ---- costs


@pytest.mark.parametrize("form", ["table", "embedllm", "llmrouter"])
def test_table_row_that_is_nested_deeply_is_rejected_by_its_line(tmp_path: Path, form: str) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    good = {"model": "m", "task": "t", "id": "1", "score": 1, "prompt_id": 1, "model_name": "m", "label": 1}
    good |= {"task_name": "t", "query": "q", "performance": 1}
    path = write_lines(tmp_path / "t.jsonl", [good])
    names = ("id", "prompt_id", "query")
    path.write_text(path.read_text() + "{" + ", ".join(f'"{name}": {deep}' for name in names) + "}\n")
    report = imported(form, path, tmp_path / "lake", options=COLUMNS if form == "table" else {})
    assert report.total.records == 1
    assert [(one["kind"], one["source_row"]) for one in report.rejects] == [("damaged", 2)]


def test_table_choices_that_are_nested_deeply_in_a_text_are_unknown(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    lines = f'model,task,id,score,choices\nm,t,1,1,"{deep}"\nm,t,2,1,"[""a"", 1.10]"\n'
    options = {**COLUMNS, "choices": "choices"}
    imported("table", text(tmp_path / "t.csv", lines), tmp_path / "lake", options=options)
    assert rows(tmp_path / "lake", "SELECT choices FROM items ORDER BY item") == [(None,), (["a", "1.10"],)]


@pytest.mark.parametrize(
    "ending", ["csv", pytest.param("jsonl", marks=long_only), pytest.param("parquet", marks=long_only)]
)
def test_table_of_100000_columns_takes_little(tmp_path: Path, ending: str) -> None:
    names = [f"m{n}|total_cost" for n in range(100_000)]
    path = tmp_path / f"t.{ending}"
    if ending == "csv":
        text(path, ",".join([*COLUMNS.values(), *names]) + "\nm,t,1,1" + ",0" * len(names) + "\n")
    elif ending == "jsonl":
        write_lines(path, [{"model": "m", "task": "t", "id": "1", "score": 1, **dict.fromkeys(names, 0)}])
    else:
        columns = dict.fromkeys(names, pa.array([0], pa.int8()))
        pq.write_table(pa.table({"model": ["m"], "task": ["t"], "id": ["1"], "score": [1], **columns}), path)
    code = (
        "import time; from pathlib import Path; from tests.helpers.importing import COLUMNS, imported\n"
        "from tests.benchmarks.peak import peak_memory\n"
        f"report = imported('table', Path({str(path)!r}), Path({str(tmp_path / 'lake')!r}), options=COLUMNS)\n"
        "assert report.total.records == 1, report.rejects\n"
        "print(peak_memory() // 2**20, time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    megabytes, seconds = map(float, done.stdout.split())
    assert megabytes < 1000
    assert seconds < 60, "it grows faster than the columns"


def test_routerbench_of_many_models_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.importers.formats.routerbench.MOST_COLUMNS", 8)
    models = [f"m{n}" for n in range(7)]
    head = [
        "sample_id",
        "prompt",
        "eval_name",
        *(c for m in models for c in (m, f"{m}|model_response", f"{m}|total_cost")),
    ]
    values = ["t.1", "What?", "t", *("1", "yes", "0.5") * 7]
    lines = ",".join(head) + "\n" + ",".join(values) + "\n" + "short,row\n"
    report = imported("routerbench", text(tmp_path / "t.csv", lines), tmp_path / "lake")
    assert (report.total.records, [(one["kind"], one["source_row"]) for one in report.rejects]) == (7, [("damaged", 2)])
    stored = rows(tmp_path / "lake", "SELECT model, score, stated_usd FROM records ORDER BY 1")
    assert stored == [(model, 1.0, 0.5) for model in models]


@long_only
def test_routerbench_of_300_models_fits_into_the_memory_of_an_import(tmp_path: Path) -> None:
    models, items = 300, 2_000
    head = [f"m{n}{end}" for n in range(models) for end in ("", "|model_response", "|total_cost")]
    with open(tmp_path / "t.csv", "w", encoding="utf-8") as file:
        file.write(",".join(["sample_id", "prompt", "eval_name", *head]) + "\n")
        for item in range(items):
            file.write(f"t.{item},q{item},t," + ",".join(f"{(item + n) % 2},a{n},0.5" for n in range(models)) + "\n")
    report = imported("routerbench", tmp_path / "t.csv", tmp_path / "lake", dry_run=True)
    assert (report.total.records, report.rejects) == (models * items, [])


def test_routereval_of_many_items_takes_no_chunk_an_item(tmp_path: Path) -> None:
    items = 10_000  # at 4 KB an item: 40 MB of Arrow
    value = {"model": ["a/one", "b/two"], "data": {"quiz": {"correctness": np.ones((items, 2), np.int8)}}}
    (tmp_path / "leaderboard_old.pkl").write_bytes(pickle.dumps(value))
    before = pa.default_memory_pool().max_memory()
    assert imported("routereval", tmp_path / "leaderboard_old.pkl", tmp_path / "lake").total.records == 2 * items
    assert pa.default_memory_pool().max_memory() - before < 30 * 2**20
    assert rows(
        tmp_path / "lake", "SELECT model, count(DISTINCT item), sum(score) FROM records GROUP BY ALL ORDER BY 1"
    ) == [
        ("a/one", items, items),
        ("b/two", items, items),
    ]


def test_lm_eval_row_has_its_own_fields_whatever_the_first_row_has(tmp_path: Path) -> None:
    first = {"doc_id": 0, "doc": {"question": "q0"}, "arguments": [["q0", {}]], "acc": 1.0, "metrics": ["acc"]}
    later = {"resps": [["x"]], "filtered_resps": ["x"], "target": "x", "latency_ms": 250, "acc": 0.0}
    later["token_usage"] = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    rows_of = [first, *({**first, "doc_id": n, "doc": {"question": f"q{n}"}, **later} for n in (1, 2))]
    path = write_lines(tmp_path / "samples_t_2026-01-02T03-04-05.678901.jsonl", rows_of)
    imported("lm_eval", path, tmp_path / "lake", model="m")
    query = "SELECT score, prompt_tokens, completion_tokens, latency_s, responses FROM records LEFT JOIN responses"
    assert rows(tmp_path / "lake", f"{query} USING (item) ORDER BY item") == [
        (1.0, None, None, None, None),
        (0.0, 10, 5, 0.25, ["x"]),
        (0.0, 10, 5, 0.25, ["x"]),
    ]
