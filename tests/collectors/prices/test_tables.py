"""Price tables: the columns that a file needs, and the lines that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.lake.reading import connect
from collectors.lake.store import Lake
from collectors.prices.tables import SHIPPED, add_prices, read_prices, shipped_path
from schemas.failures import ConfigError

HEADER = "model,provider,usd_per_million_prompt,usd_per_million_completion,valid_from,source"
GOOD = "org/a,host,1,2,2026-01-01,their page"


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "prices.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_table_is_read_and_says_whence_it_is(name: str) -> None:
    with shipped_path(name) as path:
        table, rows = read_prices(path)
        assert path.read_text().startswith("# ")
    assert table == {"gpus": "gpu_prices", "price_names": "price_names"}.get(name, "prices")
    assert len(rows) > 3
    assert None not in rows["source"].to_pylist()


def test_shipped_gpus_are_those_that_clouds_rent_each_with_its_day_and_source() -> None:
    with shipped_path("gpus") as gpus:
        rows = {row["accelerator"]: row for row in read_prices(gpus)[1].to_pylist()}
    rented = {"T4", "L4", "A10G", "L40S", "A100-40GB", "A100-80GB", "H100", "H200", "B200", "MI300X"}
    assert rented <= rows.keys()
    for row in rows.values():
        assert 0 < row["usd_per_gpu_hour"] < 10
        assert row["valid_from"].year == 2026
        assert any(whence in row["source"] for whence in ("@", "factualminds.com"))


def test_shipped_price_names_name_entries_that_are_shipped() -> None:
    with shipped_path("price_names") as names, shipped_path("open_models") as prices, shipped_path("gpus") as gpus:
        entries = {(row["model"], row["provider"]) for row in read_prices(prices)[1].to_pylist()}
        entries |= {(row["accelerator"], None) for row in read_prices(gpus)[1].to_pylist()}
        for row in read_prices(names)[1].to_pylist():
            assert (row["price_name"], row["provider"]) in entries


def test_read_prices_keeps_what_is_unknown_unknown(tmp_path: Path) -> None:
    header = f"{HEADER},usd_per_request,usd_per_million_cached"
    table, rows = read_prices(
        written(tmp_path, "# a comment", header, "", f"{GOOD},,0", "org/b,host,,0,2026-01-01,s,,")
    )
    assert table == "prices"
    found = rows.select(["model", "usd_per_million_prompt", "usd_per_million_cached", "usd_per_request"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [("org/a", 1, 0, None), ("org/b", None, None, None)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([HEADER], "has no rows"),
        (["model,price", "a,1"], "fit no price table"),
        (["model,provider,usd_per_m_prompt", "a,b,1"], "fit no price table; prices lacks usd_per_million_prompt"),
        ([HEADER + ",colour", GOOD + ",red"], "no column colour"),
        ([HEADER + ",source", GOOD + ",again"], "appears twice"),
        ([HEADER, GOOD.replace(",1,", ",-1,")], "line 2: usd_per_million_prompt is '-1'"),
        ([HEADER, GOOD.replace(",1,", ",nan,")], "a number of dollars"),
        ([HEADER, GOOD.replace(",1,", ",$1,")], "a number of dollars"),
        ([HEADER, GOOD.replace(",1,", ",1e308,")], "below 1e+12"),
        (["# one", HEADER, GOOD, GOOD.replace("2026-01-01", "01/02/2026")], "line 4: valid_from is '01/02/2026'"),
        ([HEADER, GOOD.replace("org/a", "")], "line 2: model is empty"),
        ([HEADER, GOOD + ",more"], "as many fields"),
        ([HEADER, "org/a,host"], "as many fields"),
        ([HEADER, GOOD, GOOD.replace(",2,", ",3,")], "another line differs for org/a"),
        ([HEADER, GOOD, GOOD.replace("org/a", "Org/A").replace(",2,", ",3,")], "another line differs for org/a"),
        ([HEADER, GOOD.replace(",1,", ",1_0,")], "a number of dollars"),
        ([HEADER, GOOD.replace("org/a", "a\x1b[31m")], "it has a control character"),
        ([HEADER + ",over_parameters,to_parameters", GOOD + ",10,5"], "a tier"),
        ([HEADER + ",over_parameters,to_parameters", GOOD + ",1e9,"], "a whole number"),
        ([HEADER, '"org/a,host'], "not valid CSV"),
    ],
)
def test_read_prices_refuses_what_is_not_certain(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=r"prices\.csv") as error:
        read_prices(written(tmp_path, *lines))
    assert said in str(error.value)


def test_read_prices_takes_a_line_in_another_case_of_letters_for_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER, GOOD, GOOD.replace("org/a", "Org/A"))
    table, rows = read_prices(path)
    assert rows["model"].to_pylist() == ["org/a"]
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    assert add_prices(lake, table, rows)
    assert not add_prices(lake, table, rows)


def test_read_prices_of_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "prices.csv", tmp_path, tmp_path / "none.csv"):
        with pytest.raises(ConfigError, match="cannot read"):
            read_prices(path)


def test_add_prices_twice_adds_nothing(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    table, rows = read_prices(written(tmp_path, HEADER, GOOD))
    assert [add_prices(lake, table, rows) for _ in range(2)] == [True, False]
    assert len([name for name in lake.names("prices") if "schema" not in name]) == 1


def test_read_prices_ends_lines_where_csv_does(tmp_path: Path) -> None:
    _, rows = read_prices(written(tmp_path, HEADER, GOOD.replace("their page", "their\u2028page\x85\x0b")))
    assert rows["source"].to_pylist() == ["their\u2028page"]


def test_add_prices_that_others_replaced_brings_them_back(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake")).open_for_writing()
    first, second = (read_prices(written(tmp_path, HEADER, GOOD.replace(",1,", f",{usd},")))[1] for usd in (1, 3))
    for rows, usd, is_new in ((first, 1, True), (second, 3, True), (first, 1, True), (first, 1, False)):
        assert add_prices(lake, "prices", rows) == is_new
        with connect(lake, only=["prices"]) as con:
            assert con.sql("SELECT usd_per_million_prompt FROM prices").fetchall() == [(usd,)]
