"""The view throughput over small lakes: rates are sums over sums, and unknown values are null."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collectors.lake.compaction import compact
from collectors.lake.reading import ask
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, rows

CELL = BuiltCell()


@pytest.fixture
def lake(tmp_path: Path) -> LakeBuilder:
    return LakeBuilder(tmp_path / "lake")


def facts(seconds: float, **more: Any) -> dict[str, Any]:
    own = {"engine": "vllm", "gpu": None, "wall_seconds": seconds + 1, "load_seconds": 0.5, "requests": 8}
    return {**own, "engine_seconds": seconds, "engine_tokens": 300, "concurrency": 4.0, **more}


def found(lake: LakeBuilder, columns: str) -> list[tuple[Any, ...]]:
    return lake.rows(f"SELECT {columns} FROM throughput ORDER BY model")


def test_throughput_of_two_shards_is_their_sums(lake: LakeBuilder) -> None:
    lake.run(CELL, output_type="generate_until")
    lake.shard(CELL, [CELL.record(i, score=1.0, ttft_s=0.1) for i in range(4)], metadata=facts(2.0))
    last = [CELL.record(4, score=0.0, ttft_s=0.3, latency_s=1.5), CELL.record(5, latency_s=None)]
    lake.shard(CELL, last, metadata=facts(1.0, concurrency=1.0, gpu="H100"))
    columns = "items, shards, engine_seconds, items_per_s, engine_tokens_per_s, generated_tokens_per_s, "
    columns += "mean_latency_s, timed_items, mean_ttft_s, concurrency, gpu, engine, load_seconds, requests"
    [values] = lake.rows(f"SELECT {columns} FROM throughput")
    expected = [6, 2, 3.0, 6 / 3, 600 / 3, 6 * 2 / 3, (4 * 0.5 + 1.5) / 5, 5, (4 * 0.1 + 0.3) / 5, 3.0]
    assert values == (*map(pytest.approx, expected), "H100", "vllm", 1.0, 16)


def test_throughput_of_what_is_not_known_is_null(lake: LakeBuilder) -> None:
    nothing, half, scored = (BuiltCell(model=name) for name in ("a", "b", "c"))
    lake.run(nothing, half, output_type="generate_until")
    lake.run(scored, output_type="multiple_choice")
    lake.shard(nothing, [nothing.record(0, score=1.0, latency_s=None)])
    lake.shard(half, [half.record(0, completion_tokens=None)], metadata=facts(2.0, engine_tokens=None))
    lake.shard(scored, [scored.record(0, score=1.0)], metadata=facts(0.0))
    columns = "items, items_per_s, engine_tokens_per_s, generated_tokens_per_s, mean_latency_s, mean_ttft_s"
    assert found(lake, columns) == [
        (None, None, None, None, None, None),
        (1, 0.5, None, None, 0.5, None),
        (1, None, None, None, 0.5, None),
    ]


def test_throughput_of_generated_tokens_counts_who_was_not_asked_as_none(lake: LakeBuilder) -> None:
    lake.run(CELL, output_type="generate_until")
    unasked = CELL.record(1, failure="prompt_too_long", completion_tokens=None, latency_s=None)
    lake.shard(CELL, [CELL.record(0, score=1.0), unasked], metadata=facts(4.0))
    assert found(lake, "generated_tokens_per_s") == [(0.5,)]


def test_throughput_of_items_collected_twice_counts_the_engines_work_twice(lake: LakeBuilder) -> None:
    lake.run(CELL, output_type="generate_until")
    records = [CELL.record(i, score=1.0) for i in range(4)]
    lake.shard(CELL, records, metadata=facts(2.0))
    lake.shard(CELL, records, metadata=facts(2.0), generation=1)
    assert found(lake, "items, items_per_s, generated_tokens_per_s, timed_items") == [(8, 2.0, None, 4)]


def test_throughput_is_the_same_after_a_compaction(lake: LakeBuilder) -> None:
    lake.run(CELL, output_type="generate_until")
    lake.shard(CELL, [CELL.record(i, score=1.0, ttft_s=0.25 * i) for i in range(4)], metadata=facts(2.0))
    before = lake.rows("FROM throughput")
    compact(lake.lake)
    assert ask(lake.lake, lambda con, _: rows(con, "FROM throughput"), only=["throughput"]) == before
