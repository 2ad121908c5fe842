"""Tables of text are read to the letter: CSV as Python's csv module reads it, values of JSON as they are written."""

from __future__ import annotations

import bz2
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.importers import text_tables
from collectors.importers.files import BadFile, SourceFile
from collectors.importers.text_tables import text_table
from tests.helpers.importing import imported, rows
from tests.helpers.thorough import often

#: Characters and words that readers which guess take for quotes, comments, delimiters, numbers, dates or nothing.
ODD = ["a", "'", '"', ",", ";", "\t", "|", "#", "\\", " ", "\n", "\r\n", "\r", "\x00", "ü", "\u2028", "\x85", "🙂"]
ODD += ["1.10", "007", "12345678901234567890", "1e3", "0x1F", "1/2/2023", "2023-02-01", "12:30", "True", "NaN", "NULL"]
ODD += ["#N/A", "=1+1", "None", "ABCDEF01-1111-2222-3333-444455556660"]
VALUES = st.lists(st.sampled_from(ODD), max_size=4).map("".join)
Rejects = list[tuple[int, str, str]]


def read(path: Path, wanted: list[str] | None = None) -> tuple[list[tuple[Any, ...]], Rejects]:
    """Rows of a file, each with its number, and the rejects."""
    rejects: Rejects = []
    table = text_table(SourceFile(str(path), path.name, path.stat().st_size))
    batches = table.batches(list(table.names) if wanted is None else wanted, lambda *why: rejects.append(why))
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()], rejects


# ---- CSV


@settings(max_examples=often(1500, 150))
@given(
    st.lists(VALUES, min_size=1, max_size=4, unique=True).flatmap(
        lambda names: st.tuples(
            st.just(names), st.lists(st.lists(VALUES, min_size=len(names), max_size=len(names)), max_size=5)
        )
    ),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_csv_of_any_text_is_what_pythons_csv_module_reads(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[list[str], list[list[str]]], quoting: Any, ends: str
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting, lineterminator=ends).writerows([table[0], *table[1]])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    header, *right = [row for row in csv.reader(io.StringIO(text.getvalue(), newline="")) if row] or [[""]]
    if not any(header) or len(set(filter(None, header))) < len([name for name in header if name]):
        return  # a carriage return, which the writer does not quote, cut it
    if header.count("") > 1:
        return  # columns without a name, which nobody can ask for
    stored, rejects = read(path)
    numbered = list(enumerate(right, 1))
    whole = [(number, *(value or None for value in row)) for number, row in numbered if len(row) == len(header)]
    assert stored == whole
    assert [number for number, *_ in rejects] == [number for number, row in numbered if len(row) != len(header)]


@pytest.mark.slow
@settings(max_examples=often(60, 3))
@given(
    st.lists(VALUES.filter(lambda text: bool(text.strip()) and "\0" not in text), min_size=1, max_size=6, unique=True)
)
def test_csv_of_any_text_is_the_same_text_in_the_lake(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    with (folder / "t.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "answer", "ok"], *([text, text, "1"] for text in texts)])
    options = {"model": {"value": "m"}, "task": {"value": "t"}, "key": "id", "score": "ok", "response": "answer"}
    assert imported("table", folder / "t.csv", folder / "lake", options=options).total.records == len(texts)
    query = "SELECT source_key, responses[1] FROM responses JOIN items USING (task, item) ORDER BY item"
    assert rows(folder / "lake", query) == [(text, text) for text in texts]


@pytest.mark.parametrize(
    ("text", "stored", "rejected"),
    [
        ('a,b\n1,2\n"x"y,3\n4,5\n', [(1, "1", "2"), (3, "4", "5")], [(2, "damaged", "line 3: not CSV")]),
        ("a,b\n1\n2,3\n4,5,6\n", [(2, "2", "3")], [(1, "damaged", "line 2: 1 values"), (3, "damaged", "line 4: 3")]),
        ('a,b\n1,"2\n3\n', [], [(1, "damaged", "line 2: not CSV")]),
        ('\n\na,b\n\n1,"x\ny"\n\n2,3\n', [(1, "1", "x\ny"), (2, "2", "3")], []),
        ("\ufeffa,b\n1,2", [(1, "1", "2")], []),
        ('a,b\nit"s,6" long\n', [(1, 'it"s', '6" long')], []),
    ],
)
def test_csv_row_that_is_none_is_rejected_with_its_line_and_the_others_stay(
    tmp_path: Path, text: str, stored: list[Any], rejected: Rejects
) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    good, rejects = read(tmp_path / "t.csv")
    assert good == stored
    assert [(row, kind) for row, kind, _ in rejects] == [(row, kind) for row, kind, _ in rejected]
    assert all(message.startswith(begins) for (*_, message), (*_, begins) in zip(rejects, rejected, strict=True))


def test_csv_in_other_encodings_is_named_by_row_or_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n1,\xff\n2,\xc3\xbc\n")
    assert read(tmp_path / "t.csv") == ([(2, "2", "ü")], [(1, "encoding", "not UTF-8")])
    assert read(tmp_path / "t.csv", ["a"]) == ([(1, "1"), (2, "2")], []), "a column that nobody asks for does no harm"
    (tmp_path / "t.csv").write_bytes("a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(BadFile, match="UTF-16"):
        read(tmp_path / "t.csv")


def test_csv_and_json_are_read_compressed_and_with_tabs(tmp_path: Path) -> None:
    (tmp_path / "t.csv.bz2").write_bytes(bz2.compress(b"a,b\n1,2\n"))
    (tmp_path / "t.tsv").write_text("a\tb\n1\t2,3\n")
    assert read(tmp_path / "t.csv.bz2")[0] == [(1, "1", "2")]
    assert read(tmp_path / "t.tsv")[0] == [(1, "1", "2,3")]


def test_csv_row_without_an_end_costs_bounded_memory_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_tables, "MAX_ROW", 1000)
    (tmp_path / "t.csv").write_text("a,b\n1,2\n" + '3,"' + "x\n" * 2000)
    with pytest.raises(BadFile, match="nor the rest") as caught:
        read(tmp_path / "t.csv")
    assert caught.value.kind == "too_long"


def test_csv_column_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,score,score\n1,0,1\n")
    with pytest.raises(BadFile, match="two columns are called 'score'"):
        read(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("id,score,Score,,\n1,0,1,,\n")
    assert read(tmp_path / "t.csv", ["Score", "score"])[0] == [(1, "1", "0")], "other names, and two without one"


# ---- JSON


def test_json_values_are_texts_as_they_are_written(tmp_path: Path) -> None:
    lines = [
        '{"a": "1.10", "b": 1.10, "c": 123456789012345678901234567890, "d": true}',
        '{"b": null, "a": "2024-1-2", "c": [{"x": 1, "y": null}, "é"], "late": ""}',
        '{"a": NaN, "b": NaN, "c": {"k": NaN}}',
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = text_table(SourceFile(str(tmp_path / "t.jsonl"), "t.jsonl", 1))
    assert list(table.names) == ["a", "b", "c", "d", "late"]
    [batch] = table.batches(["a", "b", "c", "d", "late"], lambda *why: pytest.fail(str(why)), numbers=["b"])
    assert [tuple(row.values()) for row in batch.to_pylist()] == [
        (1, "1.10", "1.10", "123456789012345678901234567890", "true", None),
        (2, "2024-1-2", None, '[{"x":1},"é"]', None, ""),
        (3, None, "NaN", "{}", None, None),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"a": NaN, "b": 1, "a": 2}', "'a' stands twice"),
        ('{"a": "\\ud800"}', "half of a character"),
        ("[1]", "not a JSON object"),
        ('{"a": 1', "not JSON"),
    ],
)
def test_json_row_that_cannot_be_trusted_is_rejected_by_its_line(tmp_path: Path, line: str, why: str) -> None:
    (tmp_path / "t.jsonl").write_text(f'{{"a": "x", "b": "\\"a\\": 1"}}\n\n{line}\n{{"a": "y"}}\n')
    stored, [(row, _, message)] = read(tmp_path / "t.jsonl", ["a"])
    assert (stored, row) == ([(1, "x"), (4, "y")], 3)
    assert why in message


@settings(max_examples=often(300, 60))
@given(st.dictionaries(VALUES, VALUES | st.integers() | st.booleans() | st.none(), min_size=1, max_size=4))
def test_json_of_any_text_is_what_pythons_json_module_reads(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps([values]), encoding="utf-8")
    right = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values.values()]
    assert read(path) == ([(1, *right)], [])
