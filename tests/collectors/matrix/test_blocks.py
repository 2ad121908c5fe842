"""All cells as blocks equal the lake, cell by cell, and a missing value is never a zero."""

from __future__ import annotations

import io
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.lake.compaction import compact
from collectors.lake.layout import run_name
from collectors.lake.store import Lake
from collectors.matrix.arrays import Blocks
from collectors.matrix.blocks import load_blocks, models_with_all
from collectors.matrix.pool_arrays import Pool
from collectors.matrix.pools import load_matrix
from schemas.failures import ConfigError
from schemas.records import SCHEMA_VERSION
from schemas.versions import VERSION_KEY
from schemas.views import PoolChoice
from tests.helpers.lake_builder import BuiltCell, LakeBuilder
from tests.helpers.thorough import often

Scores = list[float | None]
scores = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.25, 1.0, -3.5, 1e300])), min_size=5, max_size=5)


@settings(max_examples=often(15))
@given(st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from(["t1", "t2"])), scores, min_size=1))
def test_blocks_any_lake_equals_its_records_one_by_one(cells: dict[tuple[str, str], Scores]) -> None:
    with TemporaryDirectory() as folder:
        lake = LakeBuilder(folder)
        for (model, task), values in cells.items():
            lake.planned(BuiltCell(model=model, task=task, items=5), values)
        matrix = load_blocks(Lake(folder))
    models = matrix.models["model"].to_pylist()
    assert models == sorted({model for model, _ in cells})
    rows = list(zip(matrix.items["task"].to_pylist(), matrix.items["item"].to_pylist(), strict=True))
    assert rows == [(task, item) for task in sorted({task for _, task in cells}) for item in range(5)]
    for i, (task, item) in enumerate(rows):
        for j, model in enumerate(models):
            score = cells.get((model, task), [None] * 5)[item]
            assert matrix.valid[i, j] == (score is not None)
            assert matrix.prompt_tokens[i, j] == (-1 if score is None else 10 + item)
            assert matrix.completion_tokens[i, j] == (-1 if score is None else 2)
            expected = np.float32(min(score, 3.4e38)) if score is not None else np.float32(math.nan)
            np.testing.assert_equal(matrix.scores[i, j], expected)


@pytest.mark.fast
def test_blocks_item_without_a_verdict_has_tokens_and_no_score(tmp_path: Path) -> None:
    lake, cell = LakeBuilder(tmp_path), BuiltCell(items=3)
    lake.run(cell)
    lake.shard(cell, [cell.record(0, score=1.0), cell.record(1, score=0.0, failure="judge_died")])
    matrix = load_blocks(Lake(str(tmp_path)))
    assert matrix.valid.tolist() == [[True], [False], [False]]
    assert matrix.completion_tokens.tolist() == [[2], [2], [-1]]
    assert np.isnan(matrix.scores[1:]).all()


@pytest.mark.fast
def test_blocks_variants_of_a_model_are_columns_and_promptings_are_blocks(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    for dtype, score in (("float32", 1.0), ("bfloat16", 0.0)):
        lake.planned(BuiltCell(dtype=dtype, items=1), [score])
    lake.planned(BuiltCell(prompting="p1", items=1), [0.5])
    matrix = load_blocks(Lake(str(tmp_path)))
    assert matrix.models["dtype"].to_pylist() == ["bfloat16", "float32"]
    assert matrix.items["prompting"].to_pylist() == ["p0", "p1"]
    np.testing.assert_equal(matrix.scores, np.array([[0.0, 1.0], [math.nan, 0.5]], np.float32))


@pytest.mark.fast
def test_blocks_of_some_tasks_hold_those_only(tmp_path: Path) -> None:
    lake = LakeBuilder(tmp_path)
    for task in ("t1", "t2"):
        lake.planned(BuiltCell(task=task, items=2), [1.0, 0.0])
    blocks = load_blocks(Lake(str(tmp_path)), ["t2"])
    assert (set(blocks.items["task"].to_pylist()), blocks.valid.all()) == ({"t2"}, True)
    with pytest.raises(ConfigError, match="no collected cell of these tasks"):
        load_blocks(Lake(str(tmp_path)), ["none"])


def test_pool_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    LakeBuilder(tmp_path / "lake").planned(BuiltCell(model="modèle", items=2), [1.0, None])
    pool = load_matrix(str(tmp_path / "lake"), numbers=["latency_s"])
    pool.save(tmp_path / "m.npz")
    again = Pool.load(tmp_path / "m.npz")
    for name in ("scores", "prompt_tokens", "completion_tokens"):
        np.testing.assert_array_equal(getattr(again, name), getattr(pool, name))
    np.testing.assert_array_equal(again.numbers["latency_s"], pool.numbers["latency_s"])
    assert (again.questions, again.cells) == (pool.questions, pool.cells)
    assert (again.candidates, again.task, again.metric) == (["modèle"], pool.task, "acc")


@settings(max_examples=often(15, few=2))
@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=5, max_size=5), st.permutations(range(5)))
def test_blocks_from_bits_of_a_compaction_equals_the_shards(right: list[list[bool]], order: list[int]) -> None:
    names = [("a", "float32"), ("a", "bfloat16"), ("b", "float32"), ("c", "float32"), ("d", "float32")]
    with TemporaryDirectory() as folder:
        lake = LakeBuilder(folder)
        for (model, dtype), values in zip(names, right, strict=True):
            lake.planned(BuiltCell(model=model, dtype=dtype, items=9), [float(value) for value in values])
        for model, place in zip("abcd", order, strict=False):  # a part's rows are ordered by tokenizer
            lake.model(model, "r0", tokenizer_hash=f"tokenizer-{place}")
        expected = _loaded(folder)
        manifest = compact(lake.lake).manifest
        assert manifest
        [bits] = [part.bits for part in manifest.parts]
        assert bits is not None
        for _ in range(2):  # with the bits, and without them
            for one, other in zip(_loaded(folder), expected, strict=True):
                for name in ("scores", "valid", "prompt_tokens", "completion_tokens"):
                    np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            (Path(folder) / bits).unlink(missing_ok=True)


def _loaded(folder: str) -> list[Blocks | Pool]:
    """All cells, the pool of one of each model, and the pool of some."""
    return [
        load_blocks(Lake(folder)),
        load_matrix(folder),
        load_matrix(folder, choice=PoolChoice("model IN ('b', 'd')")),
    ]


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01" * 100], ids=["empty", "short", "long"])
def test_blocks_with_damaged_bits_reads_the_scores_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    lake = LakeBuilder(tmp_path)
    lake.planned(BuiltCell(items=40), [1.0, 0.0] * 20)
    manifest = compact(lake.lake).manifest
    assert manifest
    bits = manifest.parts[0].bits
    assert bits
    assert (tmp_path / bits).read_bytes() == b"\x55" * 5
    (tmp_path / bits).write_bytes(data)
    assert load_matrix(str(tmp_path), tokens=False).scores[:, 0].tolist() == [1.0, 0.0] * 20
    assert "reading the scores instead" in caplog.text


@pytest.mark.parametrize("scores", [[1.0, 0.5, 0.0], [1.0, None, 0.0]], ids=["partial credit", "gap"])
def test_compaction_of_what_bits_cannot_say_writes_none(tmp_path: Path, scores: list[float | None]) -> None:
    lake = LakeBuilder(tmp_path)
    lake.planned(BuiltCell(items=3), scores)
    manifest = compact(lake.lake).manifest
    assert manifest
    assert [part.bits for part in manifest.parts] == [None]
    found = load_blocks(Lake(str(tmp_path)))
    assert [score if ok else None for score, ok in zip(found.scores[:, 0], found.valid[:, 0], strict=True)] == scores


@pytest.mark.parametrize("folded", [False, True])
def test_blocks_scores_rows_of_schema_6_by_todays_rules(tmp_path: Path, folded: bool) -> None:
    """Their empty answers have a verdict in their metrics, and the items of a perplexity have no score."""
    lake, cell, perplexity = (
        LakeBuilder(tmp_path),
        BuiltCell(items=3),
        BuiltCell(metric="perplexity", task="p", items=3),
    )
    lake.run(cell, perplexity)
    older = {"outcome": None, "score": None}
    empty = cell.record(1, failure="empty_answer", metrics='{"acc": 1.0}', **older)
    lake.shard(cell, [cell.record(0, score=1.0, outcome=None), empty, cell.record(2, failure="nan_logprobs", **older)])
    lake.shard(perplexity, [perplexity.record(i, score=-2.0, outcome=None) for i in range(3)])
    for name in (name for name in lake.lake.names("shards") if "task=" in name):
        _write_as_of_6(lake.lake, name)
    if folded:
        manifest = compact(lake.lake).manifest
        assert manifest
        assert {part.schema_version for part in manifest.parts} == {SCHEMA_VERSION}
    matrix = load_blocks(Lake(str(tmp_path)))
    scores = {task: matrix.scores[row] for row, task in enumerate(matrix.items["task"].to_pylist())}
    assert np.isnan(scores["p"]).all()
    quiz = [matrix.scores[row, 0] for row, task in enumerate(matrix.items["task"].to_pylist()) if task == "quiz"]
    assert quiz == [1.0, 1.0, 0.0]


def _write_as_of_6(lake: Lake, name: str) -> None:
    """Writes an object anew without the columns and the seal of version 7."""
    table = pq.read_table(io.BytesIO(lake.read(name)))
    older = [column for column in table.schema.names if column not in ("outcome", "cut_tokens")]
    kept = {key: value for key, value in (table.schema.metadata or {}).items() if b"seal" not in key}
    metadata = {**kept, VERSION_KEY: b"6"}
    sink = io.BytesIO()
    pq.write_table(table.select(older).replace_schema_metadata(metadata), sink)
    lake.remove([name])
    assert lake.create(name, sink.getvalue())


def test_compaction_of_an_item_without_a_verdict_writes_no_bits(tmp_path: Path) -> None:
    lake, cell = LakeBuilder(tmp_path), BuiltCell(items=2)
    lake.run(cell)
    lake.shard(cell, [cell.record(0, score=1.0), cell.record(1, score=0.0, failure="judge_died")])
    manifest = compact(lake.lake).manifest
    assert manifest
    assert (manifest.parts[0].is_grid, manifest.parts[0].bits) == (True, None)
    assert load_blocks(Lake(str(tmp_path))).valid[:, 0].tolist() == [True, False]


def test_blocks_of_cells_that_differ_in_their_chat_date_alone_takes_the_newest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake = LakeBuilder(tmp_path)
    days = {"2026-01-01": BuiltCell(items=2), "2026-02-01": BuiltCell(items=2, filter="none ")}
    for (day, cell), score in zip(days.items(), (1.0, 0.0), strict=True):
        lake.run(cell, planned=2, chat_date=day)  # the builder's cell id covers the filter
        lake.scores(cell, [score] * 2)
    for folded in (False, True):
        if folded:
            compact(lake.lake)
        assert load_blocks(Lake(str(tmp_path))).scores.tolist() == [[0.0], [0.0]]
        assert "1 cells are left out" in caplog.text
        caplog.clear()


def test_models_with_all_of_some_blocks_are_counted_without_those_of_a_damaged_plan(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake = LakeBuilder(tmp_path)
    for model, task in (("a", "t"), ("b", "t"), ("c", "t"), ("c", "u")):
        lake.planned(BuiltCell(model=model, task=task), [1.0])
    keys, wanted = ["task", "items_digest"], [("t", "i0")]
    assert models_with_all(lake.lake, keys, wanted) == 3
    assert models_with_all(lake.lake, keys, [*wanted, ("u", "i0")]) == 1
    damaged = run_name("run-0001")
    (tmp_path / damaged).write_bytes(b"PAR1 no more")
    assert models_with_all(lake.lake, keys, wanted) == 2
    assert f"passed over: {damaged}" in caplog.text
