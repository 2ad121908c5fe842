"""Prices of GPUs and the names that they are sold under, put into a lake."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa

from collectors.lake.store import Lake
from schemas.records import GPU_PRICE, PRICE_NAME


def sell_gpu(lake: Lake, accelerator: str, usd: float) -> None:
    now = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    row = {"accelerator": accelerator, "provider": "host", "usd_per_gpu_hour": usd, "valid_from": dt.date(2026, 1, 1)}
    table = pa.Table.from_pylist([{**row, "source": "test", "added_at": now}], schema=GPU_PRICE)
    assert lake.create_table(f"gpu_prices/{accelerator}.parquet", table)


def name_gpu(lake: Lake, accelerator: str, price_name: str) -> None:
    row = {"name": accelerator, "price_name": price_name, "source": "test"}
    table = pa.Table.from_pylist([{**row, "added_at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}], schema=PRICE_NAME)
    assert lake.create_table(f"price_names/{accelerator}.parquet", table)
