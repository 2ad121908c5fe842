"""RouterBench's tables, read back by the rules of its description."""

from __future__ import annotations

import ast
import pickle
import pickletools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.exporters.formats.routerbench import sample_ids
from collectors.exporters.grid import Options
from collectors.exporters.registry import FORMATS, export
from collectors.exporters.texts import as_python_list, is_python_list
from collectors.lake.store import Lake
from schemas.failures import ConfigError
from tests.helpers.exporting import PROMPTS, RESPONSES, USD, answers, build, exported, grids, price
from tests.helpers.importing import imported, rows
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

SCORES = {"org/a": [1, 0, 1, 0, 0.5, 0], "b": [1, 1, 0, 0, 0.5, 0], "c": [0, 0, 0, 1, 0.25, 0]}
BEST = ["b", "b", "org/a", "c", "b", "no_model_correct"]


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_pickle(path)


def text(value: str) -> Any:
    """As RouterBench reads a prompt or response: the first element where it stands in brackets."""
    if value.startswith("[") and value.endswith("]"):
        return ast.literal_eval(value)[0]
    return value


@pytest.mark.parametrize("ending", ["csv", "pkl"])
def test_routerbench_wide_read_back_is_the_lake(tmp_path: Path, ending: str) -> None:
    lake = price(build(tmp_path / "lake", SCORES, tasks=("arc", "quiz")))
    path = tmp_path / f"out.{ending}"
    assert exported(lake, "routerbench", path) == []
    frame = read(path)
    models = [name.removesuffix("|total_cost") for name in frame.columns if name.endswith("|total_cost")]
    assert models == sorted(SCORES)
    others = {"sample_id", "prompt", "eval_name", "oracle_model_to_route_to"}
    assert set(frame.columns) == others | {f"{m}{e}" for m in models for e in ("", "|model_response", "|total_cost")}
    assert frame.sample_id.tolist() == [f"{task}.{item}" for task in ("arc", "quiz") for item in range(6)]
    assert frame.eval_name.tolist() == ["arc"] * 6 + ["quiz"] * 6
    assert [text(prompt) for prompt in frame.prompt] == PROMPTS * 2
    written = [
        (row.eval_name, int(row.sample_id.split(".")[1]), model, row[model], row[f"{model}|total_cost"])
        for _, row in frame.iterrows()
        for model in models
    ]
    assert written == answers(lake)
    for model in models:
        assert [text(response) for response in frame[f"{model}|model_response"]] == RESPONSES * 2
    assert frame.oracle_model_to_route_to.tolist() == BEST * 2
    assert frame["b|total_cost"][1] == pytest.approx((11 + 2 * 10) * USD["b"] / 1e6)


def test_routerbench_csv_and_pickle_hold_the_same(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", SCORES))
    for form in ("routerbench", "routerbench_long"):
        for ending in ("csv", "pkl"):
            exported(lake, form, tmp_path / f"{form}.{ending}")
        left, right = read(tmp_path / f"{form}.csv"), read(tmp_path / f"{form}.pkl")
        if form == "routerbench_long":
            left.performance = left.performance.astype(str)  # texts, which read_csv takes for numbers
        pd.testing.assert_frame_equal(left, right, check_exact=True)


def test_routerbench_pickle_names_nothing_but_the_class_that_every_pandas_has(tmp_path: Path) -> None:
    exported(price(build(tmp_path / "lake", SCORES)), "routerbench", tmp_path / "out.pkl")
    data = (tmp_path / "out.pkl").read_bytes()

    class Names(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            seen.append((module, name))
            return super().find_class(module, name)

    seen: list[tuple[str, str]] = []
    with open(tmp_path / "out.pkl", "rb") as file:
        Names(file).load()
    assert seen == [("pandas", "DataFrame")]
    assert max(opcode.proto for opcode, *_ in pickletools.genops(data)) <= 4


def test_routerbench_long_read_back_is_the_lake(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", SCORES))
    exported(lake, "routerbench_long", tmp_path / "out.pkl")
    frame = pd.read_pickle(tmp_path / "out.pkl")
    names = ["index", "sample_id", "prompt", "eval_name", "performance", "model_response", "model_name", "cost"]
    assert list(frame.columns) == names
    written = [
        (row.eval_name, int(row.sample_id.split(".")[1]), row.model_name, float(row.performance), row.cost)
        for row in frame.itertuples()
    ]
    assert sorted(written) == sorted(answers(lake))
    assert all(isinstance(value, str) for value in frame.performance)


@pytest.mark.few(2)
@pytest.mark.parametrize("name", ["out.csv", "out.pkl"])
@pytest.mark.parametrize("form", ["routerbench", "routerbench_long"])
def test_routerbench_through_the_importer_and_out_again_is_the_same(tmp_path: Path, form: str, name: str) -> None:
    lake = price(build(tmp_path / "lake", SCORES))
    exported(lake, form, tmp_path / name)
    report = imported("routerbench", tmp_path / name, tmp_path / "second")
    assert report.rejects == []
    written = rows(tmp_path / "second", "SELECT task, item, model, score, usd FROM costs ORDER BY task, item, model")
    assert written == answers(lake)
    texts = "SELECT model, item, responses FROM responses ORDER BY ALL"
    assert rows(tmp_path / "second", texts) == rows(tmp_path / "lake", texts)
    exported(Lake(str(tmp_path / "second")), form, tmp_path / f"again-{name}")
    pd.testing.assert_frame_equal(read(tmp_path / f"again-{name}"), read(tmp_path / name), check_exact=True)


def test_routerbench_texts_of_a_sources_second_run_are_not_encoded_twice(tmp_path: Path) -> None:
    exported(price(build(tmp_path / "lake", SCORES)), "routerbench", tmp_path / "out.csv")
    imported("routerbench", tmp_path / "out.csv", tmp_path / "second")
    again = grids(Lake(str(tmp_path / "second")), "routerbench")
    for cell in again[0].cells:
        assert cell is not None
        cell["imported_from"] += "#2"
    export(FORMATS["routerbench"], again, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()


@pytest.mark.parametrize(
    ("prompts", "written"),
    [
        (["['asked']", "['a', 'b']"], ["['asked']", "['a', 'b']"]),  # of an earlier release: lists as text
        (["asked", "['a', 'b']"], ["['asked']", "[\"['a', 'b']\"]"]),  # unwrapped, one of them like a list
    ],
)
def test_routerbench_prompts_of_its_own_files_are_lists_once(
    tmp_path: Path, prompts: list[str], written: list[str]
) -> None:
    [grid] = grids(build(tmp_path / "lake", {"b": [1, 0]}, prompts=prompts, stated_usd=0.5), "routerbench")
    cell = grid.cells[0]
    assert cell is not None
    own = replace(grid, cells=[{**cell, "imported_from": "rb"}], encoded=frozenset(["rb"]))
    export(FORMATS["routerbench"], [own], tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv").prompt.tolist() == written


@pytest.mark.few(5)
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("llama|8b", "'llama|8b' holds '|'"),
        ("llama3:8b", "holds ':'"),
        ("my-knn", "holds 'knn'"),
        ("MLP-mixer", "holds 'mlp'"),
        ("org/svm", "holds 'svm'"),
        ("oracle-7b", "holds 'oracle'"),
        ("total_cost", "holds 'total_cost'"),
        ("prompt", "is a column's name"),
        ("source", "is a column's name"),
        ("two\nlines", "not plain text"),
        ("NA", "reads as missing"),
        ("123", "reads as a number"),
        ("1e5", "reads as a number"),
        ("True", "or a boolean"),
    ],
)
@pytest.mark.parametrize("form", ["routerbench", "routerbench_long"])
def test_routerbench_model_names_that_it_cannot_hold_are_named(
    tmp_path: Path, model: str, message: str, form: str
) -> None:
    lake = build(tmp_path / "lake", {model: [1, 0], "b": [0, 1]}, stated_usd=0.5)
    with pytest.raises(ConfigError) as caught:
        exported(lake, form, tmp_path / "out.csv")
    assert message in str(caught.value)
    assert "the format cannot hold 1 model" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]


def test_routerbench_hostile_but_lawful_names_and_texts_come_through(tmp_path: Path) -> None:
    names = ['quo"te', "com,ma", "üni 漢", "=1+1", "NA-2", "org/x#1", "7b"]
    lake = build(tmp_path / "lake", {name: [1, 0] for name in names}, stated_usd=0.5)
    exported(lake, "routerbench", tmp_path / "out.pkl")
    frame = pd.read_pickle(tmp_path / "out.pkl")
    assert [name for name in frame.columns if f"{name}|total_cost" in frame.columns] == sorted(names)


def test_routerbench_names_like_formulas_stand_behind_an_apostrophe_in_csv(tmp_path: Path) -> None:
    scores = {"=1+1": [1, 0], "@sum": [0, 0], "+x": [0, 1], "-y": [0, 0], "plain=": [0, 0]}
    lake = build(tmp_path / "lake", scores, stated_usd=0.5, tasks=("=cmd",), prompts=["=a", "-b"])
    [note] = exported(lake, "routerbench", tmp_path / "out.csv")
    assert note.startswith("5 names begin like a formula of a spreadsheet, such as '+x'")
    frame = pd.read_csv(tmp_path / "out.csv")
    models = [name for name in frame.columns if f"{name}|total_cost" in frame.columns]
    assert models == ["'+x", "'-y", "'=1+1", "'@sum", "plain="]
    assert frame.oracle_model_to_route_to.tolist() == ["'=1+1", "'+x"]
    assert (frame.eval_name[0], frame.sample_id[0]) == ("'=cmd", "'=cmd.0")
    assert [text(prompt) for prompt in frame.prompt] == ["=a", "-b"]


def renamed(folder: Path) -> Lake:
    """A lake with RouterBench's own rows of two models, which the alias table renames."""
    path = folder / "wide.csv"
    models = ("meta/llama-2-70b-chat", "gpt-4-1106-preview")
    head = [*models, *[f"{model}|{end}" for model in models for end in ("model_response", "total_cost")]]
    names = ["sample_id", "prompt", "eval_name", *head, "oracle_model_to_route_to"]
    row = ["quiz.1", "['What?']", "quiz", "1.0", "0.0", "['2']", "0.001", "['3']", "0.002", models[0]]
    path.write_text("\n".join(",".join(line) for line in (names, row)) + "\n")
    imported("routerbench", path, folder / "renamed")
    return Lake(str(folder / "renamed"))


def test_routerbench_names_of_the_source_are_those_that_its_script_has_prices_of(tmp_path: Path) -> None:
    lake = renamed(tmp_path)
    [note] = exported(lake, "routerbench", tmp_path / "lake.csv")
    assert "1 models have other names in their source, such as meta-llama/Llama-2-70b-chat-hf: --names source" in note
    assert exported(lake, "routerbench", tmp_path / "source.csv", names="source") == []
    frame = pd.read_csv(tmp_path / "source.csv")
    assert {name for name in frame.columns if name.endswith("|total_cost")} == {
        "meta/llama-2-70b-chat|total_cost",
        "gpt-4-1106-preview|total_cost",
    }
    assert frame.oracle_model_to_route_to.tolist() == ["meta/llama-2-70b-chat"]
    assert frame["meta/llama-2-70b-chat|model_response"].tolist() == ["['2']"]


def test_names_of_the_source_that_are_several_or_shared_are_refused(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path / "lake")
    for task, model, source in (("x", "org/a", "a"), ("y", "org/a", "A"), ("x", "org/b", "b"), ("y", "org/b", "b")):
        cell = BuiltCell(model=model, task=task)
        lake.run(cell, imported_from="them", source=source)
        lake.shard(cell, [cell.record(0, score=1.0, stated_usd=0.5)])
    for task in ("x", "y"):
        lake.items(task, "i0", 1, prompt=["what"])
    with pytest.raises(ConfigError, match="org/a has 2 names in its sources: A, a"):
        exported(lake, "routerbench", tmp_path / "out.csv", names="source")
    cell = BuiltCell(model="org/c", task="x")
    lake.run(cell, imported_from="them", source="b")
    lake.shard(cell, [cell.record(0, score=1.0, stated_usd=0.5)])
    of_x = grids(lake, "routerbench", tasks=["x"])
    with pytest.raises(ConfigError, match="2 models are called b in their sources"):
        export(FORMATS["routerbench"], of_x, tmp_path / "out.csv", options=Options(names="source"))


def test_routerbench_task_names(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", SCORES, tasks=("mmlu", "mmlu-law")))
    [note] = exported(lake, "routerbench", tmp_path / "out.csv")
    assert "takes mmlu-law for part of mmlu" in note
    lake = price(build(tmp_path / "dots", SCORES, tasks=("arc.easy",)))
    with pytest.raises(ConfigError, match=r"'arc\.easy' has a dot"):
        exported(lake, "routerbench", tmp_path / "out2.csv")
    lake = price(build(tmp_path / "numbers", SCORES, tasks=("2024", "null")))
    with pytest.raises(ConfigError, match=r"cannot hold 2 tasks: '2024' .* a number .*; 'null' .* missing"):
        exported(lake, "routerbench", tmp_path / "out2.csv")


def test_routerbench_answers_without_a_text_are_empty_and_counted(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", SCORES, responses=[None, *RESPONSES[1:]]))
    assert exported(lake, "routerbench", tmp_path / "out.csv") == [
        "3 answers have no text in the lake; their model_response is ['']"
    ]
    assert pd.read_csv(tmp_path / "out.csv")["b|model_response"][0] == "['']"


def test_routerbench_sample_ids_are_unique_where_a_source_has_its_own(tmp_path: Path) -> None:
    lake = price(build(tmp_path / "lake", {"b": [1, 0]}))
    [grid] = grids(lake, "routerbench")
    for item, key in zip(grid.items, ("quiz.7", "else"), strict=True):
        item["source_key"] = key
    assert sample_ids(grid) == ["quiz.0", "quiz.1"]
    grid.items[1]["source_key"] = "quiz.x"
    assert sample_ids(grid) == ["quiz.7", "quiz.x"]


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_python_list_of_any_text_reads_back(texts: list[str]) -> None:
    assert ast.literal_eval(as_python_list(texts)) == texts
    assert is_python_list(as_python_list(texts))


@pytest.mark.parametrize("text", ["", "[]", "[1]", "[not python]", "['a'", "text", "[" * 5000 + "]"])
def test_python_list_is_not_seen_in_other_texts(text: str) -> None:
    assert not is_python_list(text)
