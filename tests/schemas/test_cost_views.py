"""What answers cost, over small lakes whose prices and tokens are known or summed here in another way."""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.prices.tables import add_prices, read_prices, shipped_path
from schemas.records import MODEL
from tests.helpers.lake_builder import BuiltCell, LakeBuilder, LakeViews, rows
from tests.helpers.thorough import often

A, B, C = (BuiltCell(model=f"org/{name}") for name in "abc")


@pytest.fixture
def lake(tmp_path: Path) -> LakeBuilder:
    return LakeBuilder(tmp_path / "lake")


def price(lake: LakeBuilder, *prices: dict[str, Any]) -> None:
    """Adds entries to the lake, with the same defaults for other columns."""
    default = {"provider": "host", "valid_from": "2026-01-01", "source": "test"}
    write(
        lake, "prices", [{**default, **one} for one in prices], ["usd_per_million_prompt", "usd_per_million_completion"]
    )


def name(lake: LakeBuilder, **columns: str) -> None:
    write(lake, "price_names", [{"source": "test", **columns}], ["price_name"])


def write(lake: LakeBuilder, what: str, entries: list[dict[str, Any]], always: list[str]) -> None:
    columns = sorted({*itertools.chain(*entries), *always})
    path = Path(lake.lake.root).parent / f"{what}.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(entries)
    table, found = read_prices(path)
    assert table == what
    assert add_prices(lake.lake, table, found)


def per_million(model: str, prompt: float | None, completion: float | None, **facts: Any) -> dict[str, Any]:
    return {"model": model, "usd_per_million_prompt": prompt, "usd_per_million_completion": completion, **facts}


def charged(lake: LakeBuilder) -> dict[str, Any]:
    found = lake.rows("SELECT model, basis, price_model, provider FROM model_prices")
    return {model: tuple(rest) for model, *rest in found}


# ---- which price


def test_model_prices_by_name_then_equal_name_then_tier(lake: LakeBuilder) -> None:
    cells = [BuiltCell(model=f"org/{name}") for name in ("named", "Equal", "small", "large", "unknown")]
    lake.run(*cells)
    for model, parameters in (("org/named", 5), ("org/Equal", 5), ("org/small", 5), ("org/large", 11)):
        row = {"model": model, "source": model, "revision": "r0", "parameters": parameters}
        lake.lake.create_table(f"models/{model[4:]}.parquet", pa.Table.from_pylist([row], MODEL))
    price(
        lake,
        per_million("theirs", 1, 1),
        per_million("org/EQUAL", 2, 2),
        per_million("up to ten", 3, 3, over_parameters=0, to_parameters=10),
        per_million("more", 4, 4, over_parameters=10),
    )
    name(lake, name="org/named", price_name="theirs")
    assert charged(lake) == {
        "org/named": ("named", "theirs", "host"),
        "org/Equal": ("equal", "org/EQUAL", "host"),
        "org/small": ("tier", "up to ten", "host"),
        "org/large": ("tier", "more", "host"),
        "org/unknown": (None, None, None),
    }


def test_model_prices_take_names_in_another_case_for_the_same(lake: LakeBuilder) -> None:
    lake.run(BuiltCell(model="org/a"), BuiltCell(model="org/b"))
    price(lake, per_million("Org/A", 1, 1, valid_from="2025-01-01"), per_million("org/b", 1, 1))
    price(lake, per_million("org/a", 5, 5), per_million("ORG/B", 5, 5))
    name(lake, name="org/B", price_name="org/a")
    name(lake, name="Org/b", price_name="")
    found = lake.rows("SELECT model, usd_per_million_prompt FROM model_prices ORDER BY model")
    assert found == [("org/a", 5.0), ("org/b", None)]
    assert lake.rows("SELECT model FROM prices ORDER BY ALL") == [("ORG/B",), ("Org/A",), ("org/a",)]


def test_model_prices_of_a_name_without_organisation_are_those_of_the_only_one_that_ends_so(lake: LakeBuilder) -> None:
    names = ("Only", "by-name", "of-two", "own", "kept", "elsewhere", "sized", "x/y")
    lake.run(*(BuiltCell(model=name) for name in names if name != "elsewhere"), source="/models/somewhere")
    lake.run(BuiltCell(model="elsewhere"), source="tuner/elsewhere")  # a hub repo of another organisation
    row = {"model": "sized", "source": "/models/somewhere", "revision": "r0", "parameters": 5}
    lake.lake.create_table("models/sized.parquet", pa.Table.from_pylist([row], MODEL))
    price(
        lake,
        per_million("org/only", 1, 1),
        per_million("ORG/Only", 2, 2, provider="other"),
        per_million("theirs", 3, 3),
        per_million("org/of-two", 4, 4),
        per_million("host-of/of-two", 4, 4),
        per_million("own", 5, 5),
        per_million("org/own", 1, 1),
        per_million("org/kept", 6, 6),
        per_million("org/elsewhere", 7, 7),
        per_million("org/x/y", 8, 8),
        per_million("hosts/models/sized", 8, 8),
        per_million("up to ten", 9, 9, over_parameters=0, to_parameters=10),
    )
    name(lake, name="org/by-name", price_name="theirs")
    name(lake, name="org/kept", price_name="")
    assert charged(lake) == {
        "Only": ("short", "org/only", "host"),
        "by-name": ("short", "theirs", "host"),
        "of-two": (None, None, None),
        "own": ("equal", "own", "host"),
        "kept": (None, None, None),
        "elsewhere": (None, None, None),
        "sized": ("tier", "up to ten", "host"),
        "x/y": (None, None, None),
    }
    con = lake.views()
    con.execute("SET VARIABLE price_provider = 'host'")
    query = "SELECT price_model FROM model_prices WHERE model = 'of-two'"
    assert rows(con, query) == [(None,)]


def test_model_prices_of_a_short_name_count_only_names_with_a_price_on_the_day(lake: LakeBuilder) -> None:
    lake.run(BuiltCell(model="alpha"), BuiltCell(model="beta"), source="/models/somewhere")
    price(lake, per_million("org/alpha", 1, 1, valid_from="2024-01-01"))
    price(lake, per_million("zzz/alpha", 9, 9, valid_from="2099-01-01"))
    price(lake, per_million("org/beta", 2, 2, valid_from="2024-01-01"))
    price(lake, per_million("beta", 9, 9, valid_from="2099-01-01"))
    charge = ("short", "org/alpha", "host")
    assert charged(lake) == {"alpha": charge, "beta": ("short", "org/beta", "host")}
    con = lake.views()
    con.execute("SET VARIABLE prices_on = '2099-01-02'")
    found = rows(con, "SELECT model, basis, price_model FROM model_prices ORDER BY model")
    assert found == [("alpha", None, None), ("beta", "equal", "beta")]


@pytest.mark.parametrize(
    ("model", "price_model"),
    [
        ("Llama-2-70b-chat", "accounts/fireworks/models/llama-v2-70b-chat"),
        ("llama-2-70b-chat-hf", "accounts/fireworks/models/llama-v2-70b-chat"),
        ("Mistral-7B-v0.1", "accounts/fireworks/models/mistral-7b"),
        ("gemma-3-27b-it", "google/gemma-3-27b-it"),
        ("gemma-3-270m", None),  # nobody sells it
        ("Llama-2-70b-chat-tuned", None),
    ],
)
def test_model_prices_of_short_names_by_the_shipped_tables(
    lake: LakeBuilder, model: str, price_model: str | None
) -> None:
    lake.run(BuiltCell(model=model), source=model)
    for shipped in ("open_models", "price_names"):
        with shipped_path(shipped) as path:
            add_prices(lake.lake, *read_prices(path))
    assert charged(lake)[model][:2] == (None if price_model is None else "short", price_model)


def test_model_prices_are_the_newest_and_the_cheapest_unless_asked_otherwise(lake: LakeBuilder) -> None:
    lake.run(A)
    price(
        lake,
        per_million("org/a", 9, 9, valid_from="2024-01-01"),
        per_million("org/a", 3, 3, valid_from="2025-01-01"),
        per_million("org/a", 1, 4, provider="other", valid_from="2025-06-01"),
        per_million("org/a", None, 0, provider="half", valid_from="2025-06-01"),
    )
    query = "SELECT provider, usd_per_million_completion FROM model_prices"
    con = lake.views()
    assert rows(con, query) == [("other", 4)]
    con.execute("SET VARIABLE price_provider = 'host'")
    assert rows(con, query) == [("host", 3)]
    con.execute("SET VARIABLE prices_on = '2024-12-31'")
    assert rows(con, query) == [("host", 9)]
    con.execute("SET VARIABLE prices_on = '2023-12-31'")
    assert rows(con, query) == [(None, None)]


def test_prices_that_were_corrected_are_the_later_ones(lake: LakeBuilder) -> None:
    lake.planned(A, [1.0])
    price(lake, per_million("org/a", 9, 9))
    price(lake, per_million("org/a", 1, 1))
    assert lake.rows("SELECT usd_per_million_prompt FROM prices") == [(1,)]
    name(lake, name="org/a", price_name="nothing")
    assert charged(lake) == {"org/a": (None, None, None)}
    name(lake, name="org/a", price_name="org/a")
    assert charged(lake) == {"org/a": ("named", "org/a", "host")}


# ---- costs


def test_costs_tell_unpriced_untokened_and_free_apart(lake: LakeBuilder) -> None:
    free = BuiltCell(model="org/free")
    for cell in (A, B, free):
        lake.run(cell)
        records = [cell.record(0, score=1.0), cell.record(1, score=0.0, prompt_tokens=None)]
        lake.shard(cell, records)
    price(lake, per_million("org/a", 2, 8, usd_per_request=0.5), per_million("org/free", 0, 0))
    found = lake.rows("SELECT model, item, serving_usd, unknown FROM costs ORDER BY ALL")
    assert found == [
        ("org/a", 0, pytest.approx((10 * 2 + 2 * 8) / 1e6 + 0.5, rel=1e-15), None),
        ("org/a", 1, None, "untokened"),
        ("org/b", 0, None, "unpriced"),
        ("org/b", 1, None, "untokened"),
        ("org/free", 0, 0.0, None),
        ("org/free", 1, None, "untokened"),
    ]
    query = "SELECT model, priced, unpriced, untokened FROM coverage ORDER BY model"
    assert lake.rows(query) == [("org/a", 1, 0, 1), ("org/b", 0, 1, 1), ("org/free", 1, 0, 1)]
    query = "SELECT model, usd_per_1000, usd_items FROM leaderboard ORDER BY model"
    assert lake.rows(query) == [
        ("org/a", pytest.approx(500.036, rel=1e-12), 1),
        ("org/b", None, 0),
        ("org/free", 0.0, 1),
    ]


def test_costs_charge_cached_tokens_of_an_imported_record_alone(lake: LakeBuilder) -> None:
    theirs = BuiltCell(model="org/b")
    lake.run(A)
    lake.run(theirs, imported_from="somebody")
    for cell in (A, theirs):
        lake.shard(cell, [cell.record(0, score=1.0), cell.record(1, score=1.0, cached_tokens=99)])
    price(lake, *(per_million(f"org/{name}", 10, 0, usd_per_million_cached=1) for name in "ab"))
    found = lake.rows("SELECT model, item, serving_usd * 1e6 FROM costs ORDER BY ALL")
    assert found == [("org/a", 0, 100), ("org/a", 1, 110), ("org/b", 0, pytest.approx(64)), ("org/b", 1, 110)]
    query = "SELECT usd_per_1000 * 1e3 FROM leaderboard ORDER BY model"
    assert lake.rows(query) == [(pytest.approx(105),), (pytest.approx(87),)]


def test_collection_costs_are_seconds_of_a_gpu_at_its_price(lake: LakeBuilder) -> None:
    lake.run(A)
    facts = {"gpu": "NVIDIA Thing", "engine_seconds": 90.0}
    lake.shard(A, [A.record(0, score=1.0)], metadata=facts)
    lake.shard(A, [A.record(1, score=1.0)], metadata={**facts, "gpu": None})
    lake.shard(A, [A.record(2, score=1.0)], metadata={**facts, "engine_seconds": 80.0, "load_seconds": 10.0, "gpus": 4})
    lake.shard(A, [A.record(3, score=1.0)], metadata={**facts, "gpus": 0.25})
    assert lake.rows("SELECT DISTINCT usd FROM collection_costs") == [(None,)]
    prices = [("host", 4, "2026-01-01"), ("other", 8, "2025-01-01")]
    entries = [
        {"accelerator": "thing", "provider": p, "usd_per_gpu_hour": usd, "valid_from": day, "source": "test"}
        for p, usd, day in prices
    ]
    write(lake, "gpu_prices", entries, [])
    name(lake, name="NVIDIA Thing", price_name="Thing")
    assert lake.rows("SELECT usd FROM collection_costs ORDER BY first_item") == [
        (pytest.approx(0.1),),
        (None,),
        (pytest.approx(0.4),),
        (pytest.approx(0.025),),
    ]


# ---- who is worth it


def three(lake: LakeBuilder, scores: dict[str, list[float | None]], prices: dict[str, float | None]) -> LakeViews:
    for model, values in scores.items():
        cell = BuiltCell(model=model)
        lake.planned(cell, values)
    price(
        lake, *(per_million(model, usd, 0) for model, usd in prices.items() if usd is not None), per_million("x", 1, 1)
    )
    return lake.views()


def test_oracle_items_take_the_best_then_the_cheapest(lake: LakeBuilder) -> None:
    scores: dict[str, list[float | None]] = {"a": [1, 0, 1, None], "b": [1, 0, 0, 1], "c": [0, 1, 0, None]}
    con = three(lake, scores, {"a": 5.0, "b": 1.0, "c": None})
    found = rows(
        con,
        "SELECT item, candidates_scored, candidates_correct, best_score, candidate, usd * 1e6 "
        "FROM oracle_items ORDER BY 1",
    )
    assert found == [
        (0, 3, 2, 1, "b", pytest.approx(10)),
        (1, 3, 1, 1, "c", None),
        (2, 3, 1, 1, "a", pytest.approx(60)),
        (3, 1, 1, 1, "b", pytest.approx(13)),
    ]
    columns = "item, candidates_scored, candidates_correct, candidate, usd * 1e6"
    found = rows(con, f"SELECT {columns} FROM cheapest_correct ORDER BY 1")
    assert found == [
        (0, 3, 2, "b", pytest.approx(10)),
        (1, 3, 1, None, None),
        (2, 3, 1, "a", pytest.approx(60)),
        (3, 1, 1, "b", pytest.approx(13)),
    ]


@pytest.mark.parametrize("order", ["abc", "cba"])
def test_oracle_items_and_cheapest_correct_of_equals_are_the_first_by_name(lake: LakeBuilder, order: str) -> None:
    con = three(lake, {model: [1, 0] for model in order}, dict.fromkeys("abc", 2.0))
    assert rows(con, "SELECT candidate FROM oracle_items ORDER BY item") == [("a",), ("a",)]
    assert rows(con, "SELECT candidate FROM cheapest_correct ORDER BY item") == [("a",), (None,)]


def test_coverage_counts_tokens_whose_sum_no_column_holds(lake: LakeBuilder) -> None:
    cell = BuiltCell(model="m")
    lake.run(cell)
    most = 2**31 - 1
    lake.shard(cell, [cell.record(0, score=1.0, prompt_tokens=most, completion_tokens=most)])
    price(lake, per_million("m", 1, 1))
    assert lake.rows("SELECT priced, unpriced, untokened FROM coverage") == [(1, 0, 0)]
    assert lake.rows("SELECT usd_per_1000 FROM leaderboard") == [(pytest.approx(2 * most / 1000),)]


def test_pareto_keeps_what_no_other_beats(lake: LakeBuilder) -> None:
    scores: dict[str, list[float | None]] = {
        "cheap": [0, 0, 1, 0],
        "same": [0, 0, 1, 0],
        "worse": [0, 0, 0, 0],
        "best": [1, 1, 1, 0],
        "dear": [1, 1, 1, 0],
    }
    con = three(lake, scores, {"cheap": 1.0, "same": 1.0, "worse": 2.0, "best": 3.0, "dear": 4.0})
    assert rows(con, "SELECT candidate FROM pareto ORDER BY usd_per_1000, candidate") == [
        ("cheap",),
        ("same",),
        ("best",),
    ]


def test_complementarity_counts_what_each_of_two_solves(lake: LakeBuilder) -> None:
    scores: dict[str, list[float | None]] = {"a": [1, 1, 0, 0, None], "b": [1, 0, 1, 0, 1], "c": [1, 1, 1, 1, 1]}
    # So many that a lacks less than a tenth of them, and is not left out.
    con = three(lake, {model: values + [0.0] * 7 for model, values in scores.items()}, {})
    found = rows(
        con,
        'SELECT candidate_a, candidate_b, questions, "both", only_a + only_b, neither, union_score '
        "FROM complementarity ORDER BY ALL",
    )
    assert found == [("a", "b", 11, 1, 2, 8, 3 / 11), ("a", "c", 11, 2, 2, 7, 4 / 11), ("b", "c", 12, 3, 2, 7, 5 / 12)]


@settings(max_examples=often(25, few=3))
@given(st.data())
def test_costs_of_any_lake_are_what_is_summed_here(data: st.DataObject) -> None:
    tokens = st.one_of(st.none(), st.integers(0, 10_000))
    answers = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), tokens, tokens), min_size=1, max_size=6)
    models = data.draw(st.dictionaries(st.sampled_from("abcd"), answers, min_size=1))
    usd = st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.37, 12.5]))
    prices = data.draw(st.fixed_dictionaries({model: st.tuples(usd, usd, usd) for model in models}))
    with TemporaryDirectory() as folder:
        lake = LakeBuilder(Path(folder) / "lake")
        for model, given_answers in models.items():
            cell = BuiltCell(model=model)
            lake.run(cell)
            lake.shard(
                cell,
                [
                    cell.record(item, score=score, prompt_tokens=prompt, completion_tokens=completion)
                    for item, (score, prompt, completion) in enumerate(given_answers)
                ],
            )
        price(lake, *(per_million(m, p, c, usd_per_request=r) for m, (p, c, r) in prices.items()))
        con = lake.views()
        costs: dict[tuple[str, int], float | None] = {}
        for model, given_answers in models.items():
            p, c, r = prices[model]
            for item, (_, prompt, completion) in enumerate(given_answers):
                if p is None or c is None or prompt is None or completion is None:
                    costs[model, item] = None
                else:
                    costs[model, item] = (prompt * p + completion * c) / 1e6 + (r or 0)
        found = {(m, i): usd for m, i, usd in rows(con, "SELECT model, item, usd FROM costs")}
        assert found == {key: usd if usd is None else pytest.approx(usd, rel=1e-12) for key, usd in costs.items()}
        for model, total, many in rows(con, "SELECT model, usd_per_1000, usd_items FROM leaderboard"):
            mine = [usd for (m, _), usd in costs.items() if m == model and usd is not None]
            assert many == len(mine)
            assert total == (pytest.approx(1000 * sum(mine) / len(mine), rel=1e-9) if mine else None)
        cheapest: dict[int, float] = defaultdict(lambda: float("inf"))
        pool = {model for (model,) in rows(con, "SELECT model FROM candidates WHERE NOT left_out")}
        for (model, item), value in costs.items():
            if model in pool and value is not None and models[model][item][0] == 1:
                cheapest[item] = min(cheapest[item], value)
        for item, value in rows(con, "SELECT item, usd FROM cheapest_correct"):
            assert value == (pytest.approx(cheapest[item], rel=1e-12) if item in cheapest else None)
