"""Files that others wrote cost bounded memory and run nothing, and errors in them are named."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy._core.multiarray import _reconstruct

from collectors.importers import files
from collectors.importers.files import BadFile, SourceFile, find_files, lines, zip_members
from collectors.importers.json_values import decoded, document, json_rows
from collectors.importers.pickles import load_pickle
from schemas.failures import ConfigError
from tests.helpers.importing import SHARED, imported, rows
from tests.helpers.lm_eval_releases import TIME, write_release
from tests.helpers.thorough import often


def source(path: Path) -> SourceFile:
    return SourceFile(str(path), path.name, path.stat().st_size)


def kind(action: Any) -> str:
    with pytest.raises(BadFile) as caught:
        action()
    return caught.value.kind


# ---- listing


def test_find_files_takes_files_folders_globs_and_uris_in_order_of_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b/2.json", "a/1.json", "a/1.txt", ".hidden/3.json", "c.json.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)

    def names(*paths: str) -> list[str]:
        return [file.name for file in find_files(list(paths), ["*.json"])]

    assert names(str(tmp_path)) == [".hidden/3.json", "a/1.json", "b/2.json", "c.json.gz"]
    assert names("a/1.txt") == ["1.txt"], "what is named is taken"
    assert names("*/?.json") == [".hidden/3.json", "a/1.json", "b/2.json"]
    assert names(f"{tmp_path}/a*") == ["a/1.json"]
    assert names(tmp_path.as_uri()) == names(str(tmp_path))
    assert names("a", "a/1.json") == ["1.json"], "once"
    for missing in ("nowhere", "a/*.csv", "s3x://bucket/y"):
        with pytest.raises(ConfigError):
            names(missing)


def test_find_files_follows_no_link_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "in/real.json").write_text("{}")
    (tmp_path / "in/out.json").symlink_to(tmp_path / "secret.json")
    (tmp_path / "in/up").symlink_to(tmp_path)
    (tmp_path / "in/link.json").symlink_to(tmp_path / "in/real.json")
    assert [file.name for file in find_files([str(tmp_path / "in")], ["*.json"])] == ["link.json", "real.json"]


# ---- read


def test_lines_too_long_are_named_and_the_next_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 100)
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf{}\n\n" + b"y" * 5_000_000 + b"\n[]\n" + b"z" * 200)
    stored = [
        (number, line if isinstance(line, bytes) else line.kind) for number, line in lines(source(tmp_path / "x.jsonl"))
    ]
    assert stored == [(1, b"{}\n"), (3, "too_long"), (4, b"[]\n"), (5, "too_long")]


def test_gigabyte_line_costs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / f"samples_x_{TIME}.jsonl"
    with open(path, "wb") as file:
        file.truncate(2**30)
    code = (
        "import sys\n"
        "from collectors.importers.files import SourceFile, lines, BadFile\n"
        f"stored = list(lines(SourceFile({str(path)!r}, 'x', 2**30)))\n"
        "assert [type(line) for _, line in stored] == [BadFile], stored\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 700 * 1024, "KB"


@pytest.mark.parametrize("data", [b"[1, NaN]", b"[1, 2]", b"\xef\xbb\xbf [1,2]"])
def test_json_rows_of_an_array_are_its_elements(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.json").write_bytes(data)
    assert [number for number, _ in json_rows(source(tmp_path / "x.json"))] == [1, 2]


def test_json_rows_of_an_array_with_nan_are_as_they_are_written(tmp_path: Path) -> None:
    parts = ['{"id": 1.10, "a": 0, "a": 1}', "NaN", '[1e0, "],[ é"]', "-Infinity", '{"b": "\\ud83d\\ude00"}']
    (tmp_path / "x.json").write_text(" [ " + " ,\n".join(parts) + " ] \n", encoding="utf-8")
    assert [row for _, row in json_rows(source(tmp_path / "x.json"))] == [part.encode() for part in parts]
    (tmp_path / "x.json").write_text("[NaN", encoding="utf-8")
    assert kind(lambda: list(json_rows(source(tmp_path / "x.json")))) == "damaged"


def test_documents_that_are_no_json_say_so(tmp_path: Path) -> None:
    for data, wrong in (("{", "damaged"), ("[" * 10**6, "damaged"), ("1" * 10**6, "damaged"), ("", "damaged")):
        assert kind(lambda text=data: decoded(text.encode())) == wrong
    assert kind(lambda: decoded(b'"\xff"')) == "encoding"
    (tmp_path / "x.json").write_bytes("{}".encode("utf-16"))
    assert kind(lambda: document(source(tmp_path / "x.json"))) == "encoding"


def test_compressed_files_are_read_and_bombs_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_SMALL", 1000)
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(b'{"a": 1}'))
    assert document(source(tmp_path / "x.json.gz")) == {"a": 1}
    (tmp_path / "y.json.gz").write_bytes(gzip.compress(b" " * 10**7))
    assert kind(lambda: document(source(tmp_path / "y.json.gz"))) == "bomb"
    (tmp_path / "z.json.gz").write_bytes(gzip.compress(b'{"a": 1}' * 99)[:-20])
    assert kind(lambda: document(source(tmp_path / "z.json.gz"))) == "damaged"
    with zipfile.ZipFile(tmp_path / "b.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples/1.json", "0" * 10**7)
    assert kind(lambda: list(zip_members(source(tmp_path / "b.eval")))) == "bomb"
    (tmp_path / "c.eval").write_bytes((tmp_path / "b.eval").read_bytes()[:-30])
    assert kind(lambda: list(zip_members(source(tmp_path / "c.eval")))) == "damaged"


# ---- pickles


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "value",
    [
        Evil(os.system, "touch {}"),
        Evil(eval, "open('{}', 'w')"),
        Evil(getattr, "text", "upper"),
        Evil(np.load, "{}"),
        Evil(pd.read_pickle, "{}"),
        {"data": [Evil(exec, "import os")]},
        np.array([Evil(os.system, "touch {}")], object),
        pd.DataFrame({"x": [Evil(os.system, "touch {}")]}),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_that_would_run_code_are_refused_before_they_do(tmp_path: Path, value: Any, protocol: int) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol).replace(b"{}", str(tmp_path / "run").encode()[:2]))
    assert kind(lambda: load_pickle(source(tmp_path / "x.pkl"))) in ("forbidden", "damaged")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_numbers_texts_and_frames_are_read(tmp_path: Path, protocol: int) -> None:
    value = {"model": ["m"], "data": np.arange(6.0).reshape(3, 2), "texts": np.array(["x", "ÿ"]), "n": np.float64(2.5)}
    value |= {"turned": np.asfortranarray(np.arange(6).reshape(2, 3)), "any": np.array(["a", None], object)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
    stored = load_pickle(source(tmp_path / "x.pkl"))
    assert stored.keys() == value.keys()
    for name in ("data", "texts", "turned", "any"):
        np.testing.assert_array_equal(stored[name], value[name])
    assert (stored["n"], stored["model"]) == (2.5, ["m"])
    frame = pd.DataFrame({"a": [1.5, 2.0], "b": ["x", "y"], "c": [True, False], "d": [0.5, 1.5]}).astype({"b": object})
    frame.columns = pd.Index(["a", "b", "c", "d"], dtype=object)
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(frame, protocol))
    columns = load_pickle(source(tmp_path / "f.pkl")).columns
    assert columns == {"a": [1.5, 2.0], "b": ["x", "y"], "c": [True, False], "d": [0.5, 1.5]}


TEXTS = ["x", None, "ÿÿ", ""]
#: Frames that pandas 1 to 3 pickle in different ways, and their only column.
FRAMES = {
    "str": (TEXTS, "str"),
    "text of Python": (TEXTS, "string[python]"),
    "text of Arrow": (TEXTS, "string[pyarrow]"),
    "Arrow": (TEXTS, pd.ArrowDtype(pa.string())),
    "objects": (TEXTS, object),
    "whole numbers": ([1, None, 3], "Int64"),
    "numbers": ([1.5, None], "Float64"),
    "flags": ([True, None, False], "boolean"),
    "flags of Arrow": ([True, None, False], pd.ArrowDtype(pa.bool_())),
    "whole numbers of Arrow": ([1, None, 3], pd.ArrowDtype(pa.int64())),
    "numbers of Arrow": ([1.5, None], pd.ArrowDtype(pa.float64())),
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("protocol", [2, 5])
def test_pickled_frames_of_every_type_of_text_and_number_are_read(tmp_path: Path, name: str, protocol: int) -> None:
    values, dtype = FRAMES[name]
    frame = pd.DataFrame({"a": pd.Series(values, dtype=dtype)})
    for part, expected in ((frame, values), (frame.iloc[1:], values[1:]), (pd.concat([frame, frame]), values * 2)):
        (tmp_path / "f.pkl").write_bytes(pickle.dumps(part, protocol))
        assert load_pickle(source(tmp_path / "f.pkl")).columns == {"a": expected}


def test_pickled_columns_whose_texts_lie_outside_their_bytes_are_refused(tmp_path: Path) -> None:
    good = pickle.dumps(pd.DataFrame({"a": pd.Series(["ab", "cd"], dtype="str")}), 5)
    edges = np.array([0, 2, 4], "<i8").tobytes()
    assert good.count(edges) == 1
    for wrong in ([0, 2, 400], [0, -2, 4], [0, 4, 2], [-1, 2, 4], [2**62, 2**62, 2**62]):
        (tmp_path / "f.pkl").write_bytes(good.replace(edges, np.array(wrong, "<i8").tobytes()))
        assert kind(lambda: load_pickle(source(tmp_path / "f.pkl"))) == "damaged"


class Made:
    """Pickles as a call of pandas.DataFrame, as a frame of another release than pandas' own pickles can be written."""

    def __init__(self, *given: Any) -> None:
        self.given = given

    def __reduce__(self) -> Any:
        return pd.DataFrame, self.given


def test_pickles_that_make_a_frame_of_plain_columns_are_read_and_of_others_refused(tmp_path: Path) -> None:
    columns = {"a": [1, 2.5, None], "b": ["x", "", "z"]}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Made(columns), 4))
    assert load_pickle(source(tmp_path / "x.pkl")).columns == columns
    loop: list[Any] = []
    loop.append(loop)
    for wrong in ({"a": [1], "b": []}, {"a": "text"}, ["a"], 5, {"a": loop}, {"a": [{}]}):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(Made(wrong), 4))
        assert kind(lambda: load_pickle(source(tmp_path / "x.pkl"))) in ("forbidden", "damaged")


def test_pickles_whose_arrays_point_elsewhere_are_refused(tmp_path: Path) -> None:
    plain = np.dtype("O8")
    for made in (
        Evil(np.ndarray, (1, 1), plain, bytearray(b"AAAAAAAA")),
        Evil(np.ndarray, (200, 1)),
        Evil(_reconstruct, np.ndarray, (10**12,), b"b"),
        Evil(range, 10**9),
        Evil(bytearray, 10**10),
    ):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": ["a"], "data": {"s": made}}, 4))
        assert kind(lambda: load_pickle(source(tmp_path / "x.pkl"))) in ("forbidden", "damaged")
    doctored = pickle.dumps(np.array([1, 2], "i8"), 2).replace(b"i8", b"O8")
    (tmp_path / "x.pkl").write_bytes(doctored)
    assert kind(lambda: load_pickle(source(tmp_path / "x.pkl"))) == "forbidden"


def doubled(tuples: bool, times: int) -> bytes:
    """A pickle of few bytes that is 2 ** times values: as the key of a mapping, or as a list."""
    code = b"\x80\x02" + (b"}" if tuples else b"") + (b"K\x01K\x02\x86q\x00" if tuples else b"](K\x01K\x02eq\x00")
    for turn in range(times):
        twice = b"h" + bytes([turn]) + b"h" + bytes([turn])
        code += (twice + b"\x86" if tuples else b"](" + twice + b"e") + b"q" + bytes([turn + 1])
    return code + (b"K\x01s." if tuples else b".")


@pytest.mark.parametrize("tuples", [True, False])
def test_pickle_of_values_in_each_other_ends(tmp_path: Path, tuples: bool) -> None:
    (tmp_path / "x.pkl").write_bytes(doubled(tuples, 60))
    assert kind(lambda: load_pickle(source(tmp_path / "x.pkl"))) == ("forbidden" if tuples else "bomb")


def test_pickle_changes_nothing_that_the_next_one_is_read_with(tmp_path: Path) -> None:
    frame = pd.DataFrame([[1.0, 3.0], [2.0, 4.0]], columns=pd.Index(["a", "b"], dtype=object))
    frame.to_pickle(tmp_path / "good.pkl")
    before = load_pickle(source(tmp_path / "good.pkl")).columns
    for module, name, attribute in (
        ("pandas.core.indexes.base", "Index", "labels"),
        ("pandas._libs.internals", "_unpickle_block", "__init__"),
        ("_codecs", "encode", "__defaults__"),
    ):
        state = b"N}X" + len(attribute).to_bytes(4, "little") + attribute.encode() + b"c__builtin__\nset\ns\x86b."
        (tmp_path / "bad.pkl").write_bytes(b"\x80\x02c" + f"{module}\n{name}\n".encode() + state)
        assert kind(lambda: load_pickle(source(tmp_path / "bad.pkl"))) == "forbidden"
    assert load_pickle(source(tmp_path / "good.pkl")).columns == before


@pytest.mark.parametrize("content", ["[" + "[]," * 11_000_000 + "[]]", "[" + "1," * 20_000_001 + "1]"])
def test_json_of_far_more_values_than_bytes_is_too_large(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    assert kind(lambda: list(json_rows(source(tmp_path / "x.json")))) == "too_large"
    assert kind(lambda: document(source(tmp_path / "x.json"))) == "too_large"


def test_files_behind_a_web_server_are_found_and_read(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text("{}")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_address[1]}"
        for path in (f"{uri}/one.json", f"{uri}/"):
            [file] = find_files([path], ["*.json"])
            assert (file.stem, file.read()) == ("one.json", b"{}")
        with pytest.raises(ConfigError):
            find_files([f"{uri}/none.json"], ["*.json"])
        server.shutdown()


# ---- damaged copies


@settings(max_examples=often(12))
@given(st.data())
def test_damaged_copies_of_a_run_give_no_wrong_record(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    release = data.draw(st.sampled_from(["0.4.0", "0.4.5", "0.4.13"]))
    write_release(folder / "run", release)
    imported("lm_eval", folder / "run", folder / "whole")
    query = "SELECT task, item_hash, filter, score FROM records"
    right = set(rows(folder / "whole", query))
    path = data.draw(st.sampled_from(sorted((folder / "run").glob("*sums*" if release != "0.4.0" else "*.jsonl"))))
    damage(path, data)
    imported("lm_eval", folder / "run", folder / "lake")
    if not (folder / "lake").exists():
        return
    stored = {row for row in rows(folder / "lake", query) if row[1] in {item_hash for _, item_hash, _, _ in right}}
    values = {(task, item, name): score for task, item, name, score in right}
    for task, item, name, score in stored:
        if (task, item, name) in values and score != values[task, item, name]:
            # A flipped digit of a score is a score, and one without its name is null, which gives no verdict.
            assert score is None or 0 <= score <= 1


def damage(path: Path, data: st.DataObject) -> None:
    """Cuts, doubles, swaps or flips bytes of a file."""
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        how = data.draw(st.sampled_from(["cut", "flip", "insert", "double", "drop"]))
        if how == "cut":
            del content[at:]
        elif how == "flip" and content:
            content[min(at, len(content) - 1)] ^= data.draw(st.integers(1, 255))
        elif how == "insert":
            content[at:at] = data.draw(st.binary(max_size=20))
        elif how == "double":
            content[at:at] = content[at : at + 200]
        else:
            del content[at : at + data.draw(st.integers(1, 50))]
    path.write_bytes(content)


@pytest.mark.skipif(not SHARED.exists(), reason="real files are not on this machine")
@pytest.mark.slow
@settings(max_examples=often(10))
@given(st.data())
def test_damaged_copies_of_real_files_are_read_without_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("real")
    real = sorted((SHARED / "lm_eval/dummy").glob("0*/**/*.json*"))
    for path in data.draw(st.lists(st.sampled_from(real), min_size=1, max_size=3, unique=True)):
        (folder / "run").mkdir(exist_ok=True)
        copy = folder / "run" / path.name
        copy.write_bytes(path.read_bytes())
        damage(copy, data)
    form = data.draw(
        st.sampled_from(["lm_eval", "inspect", "routerdc", "llmrouterbench", "routerarena", "opencompass"])
    )
    report = imported(form, sorted((folder / "run").iterdir()), folder / "lake", model="m")
    assert all(len(json.dumps(reject["message"])) < 1000 for reject in report.rejects)
