"""Records of a model that anybody sends: what fits a version is ranked beside its own, and what does not is named."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collectors.lake.reading import ask
from collectors.matrix.pools import load_pools
from collectors.matrix.sent_records import VIEWS, SentRecords, read_records
from collectors.routers.checking import Examined, PublishedBasis, lines_of
from collectors.routers.open_board import as_json, build
from collectors.routers.sent_models import _range
from collectors.routers.submissions import read_submission
from pipelines.matrix import main as matrix
from pipelines.publish import main
from schemas.failures import ConfigError
from schemas.views import PoolChoice
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.sent import FAIR, ITEMS, answers, graded, in_one_task, records, right_or_wrong, send, send_records

Row = dict[str, Any]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> str:
    return right_or_wrong(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def basis(version: str) -> PublishedBasis:
    return PublishedBasis(version)


@pytest.fixture(scope="module")
def of_two_tasks(tmp_path_factory: pytest.TempPathFactory) -> PublishedBasis:
    return PublishedBasis(graded(tmp_path_factory.mktemp("graded")))


def honest(share: float = 0.6, seed: int = 5) -> list[int]:
    draw = random.Random(seed)
    return [int(draw.random() < share) for _ in range(ITEMS)]


def examined(basis: PublishedBasis, folder: Path, data: bytes, **stated: Any) -> Examined:
    return basis.examine(read_submission(send_records(folder, data, **stated)))


def rows_of(basis: PublishedBasis, folder: Path) -> dict[str, Row]:
    [board] = json.loads(as_json(build(folder, basis), basis))["models"]
    return {row["name"]: row for row in board["rows"]}


# ---- equality with the version's own


def exported(basis: PublishedBasis, model: str, capsys: pytest.CaptureFixture[str]) -> str:
    query = (
        f"SELECT task, item, score, prompt_tokens, completion_tokens FROM matrix WHERE model = '{model}' ORDER BY ALL"
    )
    assert matrix(["--lake", basis.lake.uri, "--sql", query, "--format", "csv"]) == 0
    return capsys.readouterr().out


def as_parquet(text: str) -> bytes:
    rows = list(csv.DictReader(io.StringIO(text)))
    kinds = {"task": str, "item": int, "score": float, "prompt_tokens": int, "completion_tokens": int}
    out = io.BytesIO()
    pq.write_table(pa.table({name: [kind(row[name]) for row in rows] for name, kind in kinds.items()}), out)
    return out.getvalue()


def as_lines(text: str) -> bytes:
    rows = [{**row, "response": "x"} for row in csv.DictReader(io.StringIO(text))]
    return "".join(json.dumps({**row, "score": float(row["score"])}) + "\n" for row in reversed(rows)).encode()


FIGURES = ("rank", "score", "low", "high", "answered", "usd", "unpriced", "completion_tokens")


@pytest.mark.parametrize("split", [False, True])
def test_records_of_a_candidate_under_another_name_get_its_figures_and_are_named_as_a_copy(
    split: bool, of_two_tasks: PublishedBasis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = exported(of_two_tasks, "a", capsys)
    stated = {"split": one_split(of_two_tasks)} if split else {}
    forms = {"t.csv": text.encode()} | ({} if split else {"u.jsonl": as_lines(text), "v.parquet": as_parquet(text)})
    for file, data in forms.items():
        send_records(tmp_path / file, data, "new", file, model="acme/new", **stated)
        rows = rows_of(of_two_tasks, tmp_path / file)
        own, new = rows["a"], rows["new"]
        assert own["usd"] is not None
        assert own["answered"] == (2 * ITEMS if not split else own["answered"]) > 0
        assert {key: new[key] for key in FIGURES} == {key: own[key] for key in FIGURES}
        [suspicion] = new["suspicions"]
        assert suspicion["kind"] == "copy"
        assert suspicion["line"].startswith(f"its scores are those of a on {2 * ITEMS} questions; the next nearest")
    if not split:
        for file, data in forms.items():
            send_records(tmp_path / "all", data, f"new {file[0]}", file, model="acme/new")
        assert {*build(tmp_path / "all", of_two_tasks).refused} == {"u.json", "v.json"}, "they are the same records"


def one_split(basis: PublishedBasis) -> str:
    [(name,)] = ask(
        basis.lake, lambda con, _: con.execute("SELECT DISTINCT split FROM splits").fetchall(), only=["splits"]
    )
    return str(name)


def test_records_of_a_model_that_the_version_has_tell_how_many_verdicts_agree(
    basis: PublishedBasis, tmp_path: Path
) -> None:
    scores = [1 - one if item < 3 else one for item, one in enumerate(answers()["a"])]
    found = examined(basis, tmp_path / "in", records(scores), model="A")
    assert found.faults == []
    assert f"the version has this model as a: {ITEMS - 3} of {ITEMS} verdicts are the stored ones" in lines_of(
        found, basis
    )
    assert found.sent
    assert found.sent.suspicions == []


# ---- suspicions


def test_suspicious_records_are_on_the_board_and_say_why(basis: PublishedBasis, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    near = [1 - one if item in (7, 40) else one for item, one in enumerate(answers()["b"])]
    send_records(folder, records([1] * ITEMS), "all right", "a.csv")
    send_records(folder, records(near), "near b", "b.csv")
    send_records(folder, records(honest()), "honest", "c.csv")
    send_records(folder, records([0] * ITEMS), "all wrong", "d.csv")
    rows = rows_of(basis, folder)
    kinds = {name: [one["kind"] for one in row.get("suspicions", ())] for name, row in rows.items() if row["sent"]}
    assert kinds == {
        "all right": ["constant", "above the oracle"],
        "near b": ["copy"],
        "honest": [],
        "all wrong": ["constant"],
    }
    assert f"those of b on {ITEMS} questions but 2; the next nearest" in rows["near b"]["suspicions"][0]["line"]
    assert (rows["all right"]["rank"], rows["all right"]["low"]) == (1, None)


def test_copy_of_a_model_that_the_pool_leaves_out_is_named(of_two_tasks: PublishedBasis, tmp_path: Path) -> None:
    rows = "".join(f"quiz,{item},{one}\nessay,{item},0.{item}\n" for item, one in enumerate(in_one_task()))
    found = examined(of_two_tasks, tmp_path / "in", f"task,item,score\n{rows}".encode())
    assert found.sent
    [(kind, line)] = found.sent.suspicions
    assert (kind, line.split(";")[0]) == ("copy", f"its scores are those of d on {ITEMS} questions")


# ---- what is missing, and what it cost


def test_records_that_lack_a_question_are_shown_without_a_rank(basis: PublishedBasis, tmp_path: Path) -> None:
    scores: list[Any] = [*honest()[:-3], "", None, None]
    path = send_records(tmp_path / "in", records(scores))
    found = basis.examine(read_submission(path))
    lines = lines_of(found, basis)
    assert f"records: {ITEMS - 3} of the pool's {ITEMS} questions; 1 row without a score" in lines
    [missing] = [line for line in lines if line.startswith("missing: 3 test questions")]
    assert "quiz item 77 (" in missing
    rows = rows_of(basis, tmp_path / "in")
    assert list(rows)[-1] == "mine"
    assert (rows["mine"]["rank"], rows["mine"]["answered"]) == (None, ITEMS - 3)
    assert rows["mine"]["score"] == pytest.approx(np.mean(honest()[:-3]))


COSTS = {
    "acme/new": "cost: the price of acme/new by host (equal); answers: 1 by tokens, 1 as stated, 1 unknown",
    "acme/other": "cost: no price of acme/other is in the version; answers: 2 as stated, 1 unknown",
}


@pytest.mark.parametrize("model", COSTS)
def test_cost_is_by_the_versions_price_else_as_stated_else_unknown(
    model: str, of_two_tasks: PublishedBasis, tmp_path: Path
) -> None:
    head = "source_key,score,prompt_tokens,completion_tokens,usd\n"
    data = f"{head}quiz-0,1,100,10,0.5\nquiz-1,0,100,,0.25\nquiz-2,1,,,\n".encode()
    found = examined(of_two_tasks, tmp_path / "in", data, model=model)
    assert found.faults == []
    assert found.sent
    assert COSTS[model] in found.sent.lines
    known = sorted(found.sent.usd[~np.isnan(found.sent.usd)].tolist())
    assert known == ([(100 * 1.0 + 10 * 3.0) / 1e6, 0.25] if model == "acme/new" else [0.25, 0.5])


# ---- faults

KEY = "hf_" + "a" * 30
FAULTS: dict[str, tuple[bytes, str]] = {
    "unknown item": (b"item,score\n0,1\n900,1\n", "1 row of an item that the pool's candidates were not asked: line 3"),
    "a key as an item": (f"item,score\n0,1\n{KEY},1\n".encode(), "1 row of an item that"),
    "many": (
        records([1] * 99, "item,score"),
        "19 rows of an item that the pool's candidates were not asked: line 82 ('80')",
    ),
    "no item": (b"item,score\n0,1\n,1\n", "1 row without a name of an item: line 3"),
    "contradiction": (
        b"item,score\n0,1\n1,0\n0,0\n",
        "1 row contradicting an earlier row of the same question: line 4 ('0')",
    ),
    "other tokens": (b"item,score,usd\n0,1,1\n0,1,2\n", "1 row contradicting an earlier row"),
    "a fraction": (
        b"item,score\n0,1\n1,0.5\n",
        "task quiz: 1 score neither 0 nor 1, as all scores of the version are: line 3",
    ),
    "percent": (b"item,score\n0,100\n1,0\n", "task quiz: 1 score beyond 0 to 1: line 2 ('100')"),
    "nan": (b"item,score\n0,nan\n1,1\n", "1 row with a score that is no number: line 2 ('nan')"),
    "infinite": (b"item,score\n0,1e999\n1,1\n", "no number: line 2 ('1e999')"),
    "code": (b"item,score\n0,__import__('os').system('id')\n1,1\n", "no number: line 2"),
    "sql": (b"item,score\n0,1); DROP TABLE sent; --\n1,1\n", "no number: line 2"),
    "formula": (b"item,score\n0,=1+1\n1,1\n", "no number: line 2 ('=1+1')"),
    "negative tokens": (
        b"item,score,prompt_tokens\n0,1,-5\n",
        "with prompt_tokens that is no whole number from 0 on: line 2",
    ),
    "half a token": (b"item,score,completion_tokens\n0,1,1.5\n", "with completion_tokens that is no whole number"),
    "huge cost": (b"item,score,usd\n0,1,1e300\n", "with usd that is no number from 0 to 1,000,000: line 2 ('1e300')"),
    "time below 0": (b"item,score,latency_s\n0,1,-1\n", "with latency_s that is no number"),
    "no score": (b"item,model\n0,1\n", "it needs a column score"),
    "all scores empty": (b"item,score\n0,\n", "it has no score for any of the 80 test questions"),
    "no rows": (b"item,score\n", "it has no rows"),
    "no table": (b"\x00\xff\x00", ".csv: "),
    "two columns of one name": (b"item,score,score\n0,1,0\n", "two columns are called 'score'"),
    "a longer row": (b"item,score\n0,1\n1,1,1\n", "line 3: 3 values"),
    "markup": (b"item,score\n<script>alert(1)</script>,1\n0,1\n", "line 2 ('<script>alert(1)</script>')"),
}


@pytest.mark.few(8)
@pytest.mark.parametrize("kind", FAULTS)
def test_faulty_records_are_on_no_board_and_named_by_check_as_by_the_board(
    kind: str, basis: PublishedBasis, tmp_path: Path
) -> None:
    data, reason = FAULTS[kind]
    path = send_records(tmp_path / "in", data)
    made = build(tmp_path / "in", basis)
    assert made.models == []
    told = made.refused["mine.json"]
    assert any(reason in fault for fault in told)
    assert basis.examine(read_submission(path)).faults == told
    assert not any(part in "".join(told) for part in (KEY, str(tmp_path), "\n"))


def test_rows_of_a_table_of_other_types_are_read_as_numbers_or_named(basis: PublishedBasis, tmp_path: Path) -> None:
    table = {
        "item": [str(item) for item in range(4)],
        "score": [True, False, True, None],
        "usd": pa.array([[1.0], [2.0], None, None], pa.list_(pa.float64())),
    }
    out = io.BytesIO()
    pq.write_table(pa.table(table), out)
    found = examined(basis, tmp_path / "in", out.getvalue(), file="mine.parquet")
    assert found.faults == ["2 rows with usd that is no number from 0 to 1,000,000: row 1 ('[1.0]'), row 2 ('[2.0]')"]
    assert found.sent
    assert found.sent.scores[:3].tolist() == [1.0, 0.0, 1.0]
    lines = b'{"item": 0, "score": true}\n{"item": 1, "score": "0"}\n{"item": 2, "score": {"a": 1}}\n'
    found = examined(basis, tmp_path / "j", lines, file="mine.jsonl")
    assert found.faults[0].startswith("1 row with a score that is no number: line 3")


def test_range_of_a_tasks_scores_is_the_stated_one_or_that_of_its_leaderboard() -> None:
    plain = {"has_score_range": False, "score_low": None, "score_high": None, "correct_threshold": 1.0}
    stated = {**plain, "has_score_range": True, "score_low": 0.0, "score_high": 10.0, "correct_threshold": None}
    half, open_above = np.array([0.0, 0.5]), {**stated, "score_high": None}
    assert _range([stated, stated], half) == (0, 10)
    assert _range([stated, open_above], half) == (0, np.inf)
    assert _range([plain, plain], half) == (0, 1)
    for cells, scores in (([plain], half * 4), ([{**plain, "correct_threshold": None}], half), ([plain, stated], half)):
        assert _range(cells, scores) == (-np.inf, np.inf)


def test_file_of_many_times_the_rows_of_the_pool_is_refused(
    basis: PublishedBasis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.matrix.sent_records._MOST_ROWS", 10)
    rows = {"item": ["0"] * (4 * ITEMS + 1), "score": [1.0] * (4 * ITEMS + 1)}
    out = io.BytesIO()
    pq.write_table(pa.table(rows), out)
    text = "item,score\n" + "0,1\n" * (4 * ITEMS + 1)
    for file, data in (("mine.parquet", out.getvalue()), ("mine.csv", text.encode())):
        assert examined(basis, tmp_path, data, file=file).faults == [f"{file}: it has more than {4 * ITEMS:,} rows"]
    chosen = b"item,model\n" + b"0,a\n" * (4 * ITEMS + 1)
    assert basis.examine(read_submission(send(tmp_path, chosen))).faults == [
        f"mine.csv: it has more than {4 * ITEMS} rows"
    ]


def test_items_of_several_tasks_need_a_task(of_two_tasks: PublishedBasis, tmp_path: Path) -> None:
    found = examined(of_two_tasks, tmp_path / "a", b"item,score\n0,1\n")
    assert found.faults == ["1 row of an item of several tasks (add a column task): line 2 ('0')"]
    found = examined(of_two_tasks, tmp_path / "b", b"task,item,score\nessay,0,0.3\nquiz,0,0.3\n,1,1\nnone,1,1\n")
    assert found.faults == [
        "1 row without a task: line 4",
        "1 row of an item that the pool's candidates were not asked: line 5 ('none/1')",
        "task quiz: 1 score neither 0 nor 1, as all scores of the version are: line 3 ('0.3')",
    ]


def test_items_of_several_tables_need_another_name(tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    for digest in ("i0", "i1"):
        builder.planned(BuiltCell(model=digest, items_digest=digest), [1.0, 0.0])
        builder.items("quiz", digest, 2, source_key=[f"{digest}-0", f"{digest}-1"], item_hash=[f"{digest}-0", "same"])
    pool = load_pools(builder.lake, choice=PoolChoice(questions="any")).matrix()
    path = tmp_path / "x.csv"

    def read(text: str) -> SentRecords:
        path.write_text(text)
        return ask(
            builder.lake, lambda con, _: read_records(con, path, pool), only=VIEWS, choice=PoolChoice(questions="any")
        )

    assert read("source_key,score\ni0-0,1\ni1-1,0\n").wrong == []
    [wrong] = read("item,score\n0,1\n").wrong
    assert wrong.startswith("1 row of an item that is another question in each table of its task (name it by question")
    assert [read(f"{key},score\n{name},1\n").rows for key, name in (("item_hash", "same"), ("source_key", "i1-0"))] == [
        1,
        1,
    ]


def test_rows_that_say_the_same_twice_are_counted_and_no_fault(basis: PublishedBasis, tmp_path: Path) -> None:
    found = examined(basis, tmp_path / "in", records(honest()) + b"0,%d\n" % honest()[0])
    assert found.faults == []
    assert any(line.endswith("; 1 row repeating an earlier one: line 82 ('0')") for line in lines_of(found, basis))


STATED: dict[str, tuple[Row, str]] = {
    "no model": ({"model": None}, "model: expected the model's name"),
    "a model with blanks": ({"model": "a b"}, "model: expected"),
    "markup as a model": ({"model": "<b>x</b>"}, "model: expected"),
    "a formula as a model": ({"model": "=1+1"}, "model: expected"),
    "a key as a model": ({"model": KEY}, "model: holds a user, query or token"),
    "a revision with a quote": ({"revision": "x'y"}, "revision: expected"),
    "a routing's cost": ({"usd_per_query": 0.1}, "usd_per_query: it is a key of choices, and kind is records"),
    "a kind that is none": ({"kind": "both"}, "kind: expected"),
    "a model of choices": ({"kind": "choices"}, "model: it is a key of records, and kind is choices"),
}


@pytest.mark.parametrize("kind", STATED)
def test_statement_of_records_with_what_it_may_not_hold_is_refused(kind: str, tmp_path: Path) -> None:
    stated, reason = STATED[kind]
    path = send_records(tmp_path / "in", records([1]))
    value = {**json.loads(path.read_text()), **stated}
    path.write_text(json.dumps({key: one for key, one in value.items() if one is not None}))
    with pytest.raises(ConfigError, match=f"submission .*{reason}"):
        read_submission(path)


# ---- the board


def test_name_of_a_candidate_is_taken_in_check_and_board(basis: PublishedBasis, tmp_path: Path) -> None:
    path = send_records(tmp_path / "in", records(honest()), "A ")
    assert basis.examine(read_submission(path)).faults == ["the name 'A ' is taken by a model of the version"]
    assert build(tmp_path / "in", basis).refused == {"mine.json": ["the name 'A ' is taken by a model of the version"]}


def test_board_of_models_and_routers_is_the_same_bytes_whatever_the_order_of_files(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "m.csv": (records(honest(0.8)), "good", True),
        "n.csv": (records(honest(0.1, 6), "item,score,usd", ",0.01"), "bad", True),
        "o.csv": (records(honest(0.8)), "good again", True),
        "r.csv": (FAIR, "router", False),
    }
    made = []
    for place, names in (("x", sorted(files)), ("y", sorted(files, reverse=True))):
        for file in names:
            data, name, is_model = files[file]
            (send_records if is_model else send)(tmp_path / place, data, name, file, by="Jane | Doe")
        out = tmp_path / f"out-{place}"
        assert main(["board", str(tmp_path / place), "--version", version, "--out", str(out)]) == 1
        made.append([(out / name).read_bytes() for name in ("board.json", "board.md")])
    assert made[0] == made[1]
    value = json.loads(made[0][0])
    assert [len(value["boards"]), len(value["models"])] == [1, 1]
    rows = {row["name"]: row for row in value["models"][0]["rows"]}
    assert (rows["good"]["rank"], rows["bad"]["usd"], rows["a"]["usd"]) == (1, 0.01, None)
    assert rows["bad"]["rank"] > rows["a"]["rank"] == rows["b"]["rank"] == 2
    assert "o.json | its records are those of good, question by question" in made[0][1].decode()
    shown = capsys.readouterr().out
    assert "## Models, pool of all candidates, collected records, split none: all questions" in shown
    assert "Jane \\| Doe" in shown
