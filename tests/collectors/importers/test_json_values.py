"""JSON in which one object has a name twice: no reader takes either value, and the rows beside it come in."""

from __future__ import annotations

import json
import math
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.importers.files import BadFile
from collectors.importers.formats.lm_eval_rows import Fields, fields_of, value_of
from collectors.importers.json_values import decoded, members
from tests.helpers.importing import COLUMNS, imported, rows

NAMES = st.text(max_size=3) | st.sampled_from(["a", 'a":', "ü", "\\", ":", " "])
VALUES = st.recursive(
    st.none() | st.integers(-(2**70), 2**70) | st.text(max_size=4) | st.sampled_from([float("nan"), '":', "a: b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
)


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), st.sampled_from([None, 1, (",", ":"), (" ,", " : ")]))
def test_json_of_any_object_is_read_as_python_reads_it_and_refused_with_a_name_twice(
    value: dict[str, Any], style: Any
) -> None:
    written = json.dumps(value, **({"separators": style} if isinstance(style, tuple) else {"indent": style}))
    right = json.loads(written, parse_constant=lambda _: "nan")
    for text in (written, json.dumps(value, ensure_ascii=False)):
        assert str(json.loads(json.dumps(decoded(text.encode())), parse_constant=lambda _: "nan")) == str(right)
        assert list(members(text.encode())) == list(value)
        [first, *_] = value
        twice = text[: text.rindex("}")] + f", {json.dumps(first)}: 1" + "}"
        for read in (decoded, members):
            with pytest.raises(BadFile) as caught:
                read(twice.encode())
            assert caught.value.kind == "doubled_name"


def test_json_members_are_undecoded_and_checked_without_a_second_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.importers.json_values._pairs", lambda _: pytest.fail("read a second time"))
    for text in ('{"a": {"b": [1, 2]}, "c": "x, \\"y\\": 1"}', '{"a":1.10,"c":{}}', ' {"a": 1}\n'):
        assert {name: json.loads(bytes(one)) for name, one in members(text.encode()).items()} == json.loads(text)
    assert members(b'{"a": 1.10}') == {"a": msgspec.Raw(b"1.10")}


#: Format -> name of the file, and the text of two rows; @ stands for the score of the second, and is written twice.
ROWS = {
    "table": ("t.jsonl", '{"model":"m","task":"t","id":1,"score":1}\n{"model":"m","task":"t","id":2,"score":@}'),
    "llmrouter": (
        "t.jsonl",
        '{"task_name":"t","query":"a","model_name":"m","performance":1}\n'
        '{"task_name":"t","query":"b","model_name":"m","performance":@}',
    ),
    "routerdc": ("t.json", '[{"question":"a","scores":{"m":1}},{"question":"b","scores":{"m":@}}]'),
    "routerarena": (
        "m.jsonl",
        '{"global_index":"t_1","llm_selected":"m","evaluation_result":{"score":1}, "generated_answer": "x"}\n'
        '{"global_index":"t_2","llm_selected":"m","evaluation_result":{"score":@}, "generated_answer": "x"}',
    ),
    "llmrouterbench": (
        "t-s-m-20250101_000000.json",
        '{"dataset_name":"t","split":"s","model_name":"m","records":[{"index":1,"score":1},{"index":2,"score":@}]}',
    ),
    "inspect": (
        "log.json",
        '{"eval":{"model":"m","task":"t"},"samples":[{"id":1,"scores":{"s":{"value":1}}},'
        '{"id":2,"scores":{"s":{"value":@}}}]}',
    ),
    "every_eval_ever": (
        "u_samples.jsonl",
        '{"model_id":"m","evaluation_name":"t","evaluation_id":"e","sample_id":"1","evaluation":{"score":1}}\n'
        '{"model_id":"m","evaluation_name":"t","evaluation_id":"e","sample_id":"2","evaluation":{"score":@}}',
    ),
    "lm_eval": (
        "samples_t_2026-01-02T03-04-05.678901.jsonl",
        '{"doc_id": 0, "doc": {"q": "a"}, "arguments": [["a", {}]], "metrics": ["acc"], "acc": 1}\n'
        '{"doc_id": 1, "doc": {"q": "b"}, "arguments": [["b", {}]], "metrics": ["acc"], "acc": @}',
    ),
}


@pytest.mark.parametrize("form", ROWS)
def test_import_of_a_row_with_a_name_twice_rejects_it_and_takes_the_others(tmp_path: Path, form: str) -> None:
    name, text = ROWS[form]
    before, _, behind = text.rpartition("@")
    score = (
        before[before.rindex(",") + 1 :]
        if form in ("table", "llmrouter", "lm_eval")
        else before[before.rindex("{") + 1 :]
    )
    (tmp_path / name).write_text(f"{before}0,{score}1{behind}\n")
    settings = {"options": COLUMNS} if form == "table" else {"model": "m"} if form == "lm_eval" else {}
    report = imported(form, tmp_path / name, tmp_path / "lake", **settings)
    assert [(one["kind"], one["source_row"]) for one in report.rejects] == [("doubled_name", 2)]
    assert rows(tmp_path / "lake", "SELECT score FROM records") == [(1.0,)]


def test_opencompass_answer_with_a_name_twice_is_rejected_and_its_results_are_refused(tmp_path: Path) -> None:
    for folder, text in (
        ("predictions", '{"0":{"prediction":"a"},"1":{"prediction":"b","prediction":"c"}}'),
        ("results", '{"accuracy":100,"details":{"0":{"correct":true},"1":{"correct":false,"correct":true}}}'),
    ):
        (tmp_path / "w" / folder / "m").mkdir(parents=True)
        (tmp_path / "w" / folder / "m/t.json").write_text(text)
    report = imported("opencompass", tmp_path / "w", tmp_path / "lake")
    rejected = [(one["kind"], one["source_row"]) for one in report.rejects]
    assert rejected == [("doubled_name", 2), ("doubled_name", None)]


def test_inspect_archive_with_damaged_samples_gives_the_others(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.eval", "w") as archive:
        archive.writestr("header.json", '{"eval": {"model": "m", "task": "t"}}')
        for number, value in enumerate(["1", '1, "value": 0', "0", "0.25", "1"]):
            archive.writestr(
                f"samples/{number}_epoch_1.json", f'{{"id": {number}, "scores": {{"s": {{"value": {value}}}}}}}'
            )
        archive.writestr("samples/5_epoch_1.json", '{"id": 5, "scores"')
    data = (tmp_path / "log.eval").read_bytes()
    (tmp_path / "log.eval").write_bytes(data.replace(b"0.25", b"0.75"))  # its checksum is another one now
    report = imported("inspect", tmp_path / "log.eval", tmp_path / "lake")
    assert [(one["kind"], one["source_row"]) for one in report.rejects] == [
        ("doubled_name", 2),
        ("damaged", 4),
        ("damaged", 6),
    ]
    assert rows(tmp_path / "lake", "SELECT source_key, score FROM records JOIN items USING (item) ORDER BY 1") == [
        ("0", 1.0),
        ("2", 0.0),
        ("4", 1.0),
    ]


#: Format -> name of the file, and a row that has a name twice although it is as long, or has as many colons, as one
#: that has each name once.
MADE_UP = {
    "routerdc": ("t.json", '[{"question":"a\\u003ab","scores":{"m":0.0,"m":1.0}}]'),
    "table": ("t.jsonl", '{"model":"m","task":"t","id":"8","score":10,"b":1,"c":2,"score":1}\n'),
    "lm_eval": (
        "samples_t_2026-01-02T03-04-05.678901.jsonl",
        '{"doc_id":0,"doc":{"q":"a"},"arguments":[["a",{}]],"metrics":["acc"],"acc":1}\n'
        '{"doc_id":1,"doc":{"q":"b"},"arguments":[["b",{}]],"metrics":["acc"],"acc":1,"acc":0}\n',
    ),
}


@pytest.mark.parametrize("form", MADE_UP)
def test_import_of_a_name_twice_that_escapes_or_spaces_make_up_for_rejects_the_row(tmp_path: Path, form: str) -> None:
    name, text = MADE_UP[form]
    (tmp_path / name).write_text(text)
    settings = {"options": COLUMNS} if form == "table" else {"model": "m"} if form == "lm_eval" else {}
    report = imported(form, tmp_path / name, tmp_path / "lake", **settings)
    kinds = [(one["kind"], one["source_row"]) for one in report.rejects if one["source_row"]]
    assert kinds == [("doubled_name", text.rstrip().count("\n") + 1)]


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 9), min_size=1), st.integers(0, 20), st.data())
def test_members_with_a_dropped_value_of_any_length_are_refused(
    value: dict[str, int], length: int, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(value)))
    for separators in ((",", ":"), (", ", ": ")):
        text = json.dumps(value, separators=separators)
        assert list(members(text.encode())) == list(value)
        with pytest.raises(BadFile, match="stands twice"):
            members(f'{text[:-1]},"{name}":1{"0" * length}}}'.encode())


@pytest.mark.parametrize("name", ["header.json", "samples/1_epoch_1.json"])
def test_inspect_archive_with_two_files_of_one_name_takes_neither(tmp_path: Path, name: str) -> None:
    files = {"header.json": '{"eval": {"model": "m", "task": "t"}}'}
    files |= {f"samples/{n}_epoch_1.json": f'{{"id": {n}, "scores": {{"s": {{"value": 1}}}}}}' for n in (1, 2)}
    for again, kinds in ((files[name], []), (files[name].replace("1", "0").replace('"m"', '"n"'), ["doubled_name"])):
        with zipfile.ZipFile(tmp_path / "log.eval", "w") as archive:
            for one, text in files.items():
                archive.writestr(one, text)
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr(name, again)
        report = imported("inspect", tmp_path / "log.eval", tmp_path / f"lake{len(kinds)}")
        assert [one["kind"] for one in report.rejects] == kinds


def test_rows_that_are_decoded_as_the_first_one_was_equal_rows_that_are_decoded_alone() -> None:
    row = {"doc_id": 0, "doc": {"q": "a: b"}, "arguments": "é: ", "filter": "none", "metrics": ["acc"], "acc": 1.0}
    draw, fields, kinds = random.Random(0), Fields(), set()
    fields.of(json.dumps(row).encode() + b"\n")
    for _ in range(1_000):
        name = draw.choice(list(row))
        changed: dict[str, Any] = dict(draw.sample(list(row.items()), draw.choice((5, 6, 6))))
        changed |= draw.choice(({}, {name: math.nan}, {name: {"a": {"b": 1}}}, {name: "\ud800"}, {"more": 10**30}))
        separators = draw.choice(((", ", ": "), (",", ":")))
        text = json.dumps(changed, ensure_ascii=draw.random() < 0.5, separators=separators)
        text = draw.choice((text, text, f'{text[:-1]}, "{name}": 0}}', text.replace('"a', '"\\u0061'), text[:-9]))
        data = text.encode("utf-8", "surrogatepass") + draw.choice((b"\n", b"", b"\r\n"))
        one, other = (decoded_row(read, data) for read in (fields.of, fields_of))
        assert one == other, data
        kinds.add(other if isinstance(other, str) else "row")
    assert kinds == {"row", "damaged", "encoding", "doubled_name"}


def decoded_row(read: Callable[[bytes], dict[str, Any]], data: bytes) -> dict[str, str] | str:
    """The fields of a row as JSON, or the kind of its BadFile."""
    try:
        return {name: json.dumps(value_of(value)) for name, value in read(data).items()}
    except BadFile as error:
        return error.kind
