"""Each column of a price, by what it adds to the cost of one answer."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from collectors.prices.tables import add_prices, read_prices
from tests.helpers.lake_builder import BuiltCell, LakeBuilder

#: USD per million tokens of each kind, and per request.
PRICE = {
    "usd_per_million_prompt": 1.0,
    "usd_per_million_cached": 0.1,
    "usd_per_million_cache_write": 1.25,
    "usd_per_million_completion": 2.0,
    "usd_per_million_reasoning": 4.0,
    "usd_per_million_batch_prompt": 0.5,
    "usd_per_million_batch_completion": 1.0,
    "usd_per_request": 0.01,
}
TOKENS = {
    "prompt_tokens": 1_000_000,
    "cached_tokens": 200_000,
    "cache_write_tokens": 100_000,
    "completion_tokens": 500_000,
    "reasoning_tokens": 300_000,
}
#: Column that the table lacks -> USD. With all: .8 + .02 for the prompt, .025 more for what was written, 1 + .6, .01.
WITHOUT = {
    None: 2.455,
    "usd_per_million_prompt": None,
    "usd_per_million_cached": 2.635,
    "usd_per_million_cache_write": 2.43,
    "usd_per_million_completion": None,
    "usd_per_million_reasoning": 1.855,
    "usd_per_million_batch_prompt": 2.455,
    "usd_per_million_batch_completion": 2.455,
    "usd_per_request": 2.445,
}


@pytest.mark.parametrize("lacking", WITHOUT)
def test_column_of_a_price_counts_for_its_tokens_alone(lacking: str | None, tmp_path: Path) -> None:
    builder = LakeBuilder(tmp_path / "lake")
    cell = BuiltCell(model="org/a", items=1)
    builder.run(cell, imported_from="source")
    builder.shard(cell, [cell.record(0, **TOKENS)])
    row = {"model": "org/a", "provider": "host", "valid_from": "2026-01-01", "source": "test", **PRICE}
    kept = {name: value for name, value in row.items() if name != lacking}
    if lacking in ("usd_per_million_prompt", "usd_per_million_completion"):
        kept[lacking] = ""  # a table of prices has the column
    with open(tmp_path / "prices.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(kept))
        writer.writeheader()
        writer.writerow(kept)
    assert add_prices(builder.lake, *read_prices(tmp_path / "prices.csv"))
    [(usd,)] = builder.rows("SELECT usd FROM costs")
    assert usd == (None if WITHOUT[lacking] is None else pytest.approx(WITHOUT[lacking], rel=1e-12))
    if usd is not None:
        batch = [name for name in PRICE if "batch" in name]
        found = builder.rows(f"SELECT {', '.join(batch)} FROM model_prices")
        assert found == [tuple(kept.get(one) for one in batch)], "kept for those who send batches, in no cost"
