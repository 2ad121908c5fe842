"""The catalog against a hub that pages and moves: requests, recorded rows, and the models that a config takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collectors.lake.store import Lake
from collectors.models.catalog_query import all_of, choose
from collectors.models.hub_catalog import installed_vllm, state_support
from collectors.models.hub_listing import Named, Query, parameters, read_names
from collectors.models.pinning import resolve
from collectors.specs import CatalogSpec, ModelSpec
from schemas.failures import ConfigError
from tests.helpers.catalog_runs import lake, models, run, served
from tests.helpers.model_hub import ModelHub, Repo, llama, safetensors
from tests.helpers.thorough import long_only

__all__ = ["lake", "served"]  # fixtures


# ---- the row of a model


def test_facts_are_read_without_weights(served: ModelHub, lake: Lake) -> None:
    repo = llama("org/model", tags=["license:mit", "base_model:org/base", "base_model:finetune:org/base"])
    served.add(repo)
    assert run(lake).read == 1
    row = models(lake)["org/model"]
    expected = {
        "source": "org/model",
        "revision": repo.sha,
        "architecture": "LlamaForCausalLM",
        "parameters": 100 * 64 + 64,
        "weight_bytes": repo.weights["model.safetensors"][1],
        "max_length": 2048,
        "dtype": "bfloat16",
        "quantization": None,
        "weights": "safetensors",
        "licence": "mit",
        "library": "transformers",
        "base_model": "org/base",
        "base_relation": "finetune",
        "gated": False,
        "downloads": 5000,
        "problem": None,
        "skipped": None,
    }
    assert {name: row[name] for name in expected} == expected
    assert json.loads(row["config"])["model_type"] == "llama"
    assert json.loads(row["generation_config"]) == {"temperature": 0.6}
    assert row["chat_template_hash"]
    assert row["tokenizer_hash"].startswith("hub-")


def test_headers_of_large_shards_take_a_range_or_two_each(served: ModelHub, lake: Lake) -> None:
    many = {f"model.layers.{n}.self_attn.q_proj.weight": [4096, 4096] for n in range(2000)}  # its header: 220 kB
    few = {"lm_head.weight": [128_256, 4096]}
    weights = {
        "model-00001-of-00002.safetensors": safetensors(many),
        "model-00002-of-00002.safetensors": safetensors(few),
        "consolidated.safetensors": safetensors({**many, **few}),
    }
    served.add(llama("org/large", weights=weights))
    run(lake)
    row = models(lake)["org/large"]
    assert row["parameters"] == 2000 * 4096**2 + 128_256 * 4096
    assert row["weight_bytes"] == sum(weights[name][1] for name in weights if name.startswith("model"))
    calls = served.calls()
    assert [calls[name] for name in weights] == [2, 1, 0]


def test_hub_that_ignores_ranges_is_refused(served: ModelHub, lake: Lake) -> None:
    served.add(llama("org/model"))
    served.ignores_ranges = True
    with pytest.raises(ConfigError, match="ignores byte ranges"):
        run(lake)
    assert models(lake)["org/model"]["skipped"] == "unread"


def kinds(served: ModelHub) -> None:
    """One repo of each kind."""
    quantized = ["base_model:org/first", "base_model:quantized:org/first"]
    served.add(
        llama("org/first", created="2024-01-02T00:00:00.000Z"),
        llama("late/copy", seed="org/first", created="2025-01-01T00:00:00.000Z", files={"README.md": b"mine"}),
        Repo(
            "org/adapter",
            {"adapter_config.json": b'{"base_model_name_or_path": "org/first"}'},
            {"adapter_model.safetensors": safetensors({"a": [1]})},
        ),
        Repo("org/gguf", {"config.json": b"{}"}, {"m.Q4.gguf": (b"GGUF", 10**9, "f" * 64)}, tags=quantized),
        llama("org/gptq", dtype="I32", tags=quantized, config={"quantization_config": {"quant_method": "gptq"}}),
        llama("org/awq", dtype="I32", tags=quantized, files={"quant_config.json": b'{"w_bit": 4}'}),
        llama("org/native", config={"quantization_config": {"quant_method": "fp8"}}),
        Repo("org/empty", {"config.json": b"{}"}),
        llama("org/cut", files={"config.json": b'{"architectures": ['}),
        llama("org/lacks", weights={"model-00001-of-00003.safetensors": safetensors({"b": [1]})}),
        llama("org/short", weights={"model.safetensors": (*safetensors({"a": [9]})[:1], 500, "a" * 64)}),
    )


def test_each_kind_is_recognised_and_says_why_it_is_left_out(served: ModelHub, lake: Lake) -> None:
    kinds(served)
    done = run(lake)
    rows = models(lake)
    assert {name: (row["skipped"], row["skipped_because"]) for name, row in rows.items() if row["problem"] is None} == {
        "org/first": (None, None),
        "org/native": (None, None),
        "late/copy": ("copy", "the same weights as org/first"),
        "org/adapter": ("adapter", "an adapter of org/first, which has no weights of its own"),
        "org/gguf": ("gguf", "GGUF files only, made from org/first"),
        "org/gptq": ("quantized", "a copy of org/first, quantized by gptq"),
        "org/awq": ("quantized", "a copy of org/first, quantized by awq"),
        "org/empty": ("no_weights", "it has no weight files"),
    }
    troubled = {name: row["skipped_because"] for name, row in rows.items() if row["skipped"] == "bad_model"}
    assert set(troubled) == set(done.troubled) == {"org/cut", "org/lacks", "org/short"}
    assert "config.json is damaged" in troubled["org/cut"]
    assert "2 shards of the set of model-00001-of-00003.safetensors are missing" in troubled["org/lacks"]
    assert "model.safetensors is damaged: 500 bytes instead of" in troubled["org/short"]
    assert rows["late/copy"]["weights_hash"] == rows["org/first"]["weights_hash"]
    assert rows["org/gptq"]["parameters"] is None  # eight weights in an integer
    assert len({row["weights_hash"] for row in rows.values() if row["weights_hash"]}) == 9  # all but the copy


@long_only
@pytest.mark.slow
def test_vllm_is_asked_once_which_models_it_has(served: ModelHub, lake: Lake) -> None:
    odd = {"architectures": ["OddForCausalLM"], "model_type": "odd"}
    served.add(
        llama("org/known"), llama("org/odd", config=odd), llama("org/own", config={**odd, "auto_map": {"A": "b"}})
    )
    run(lake)
    version = installed_vllm()
    assert version is not None
    assert [state_support(lake, version), state_support(lake, version), state_support(lake, None)] == [3, 0, 0]
    rows = models(lake)
    assert {name: (row["vllm"], row["skipped"]) for name, row in rows.items()} == {
        "org/known": (True, None),
        "org/odd": (False, "unknown_architecture"),
        "org/own": (False, "remote_code"),
    }
    assert rows["org/odd"]["skipped_because"] == f"vLLM {version} has no OddForCausalLM"


# ---- asked once


def test_second_run_asks_nothing_of_a_model_and_a_change_costs_one_chain(served: ModelHub, lake: Lake) -> None:
    kinds(served)
    run(lake)
    served.asked.clear()
    assert run(lake).read == 0
    assert served.calls() == {"list": 1}
    served.add(llama("org/first", downloads=9000, seed="other weights"))
    served.asked.clear()
    run(lake)
    assert served.calls()["info"] == 1
    assert [path for path in served.asked if "org/first" not in path and "/api/models?" not in path] == []
    assert models(lake)["org/first"]["downloads"] == 9000
    assert models(lake)["late/copy"]["skipped"] is None  # nobody else has its weights at their newest revision


def test_commit_to_the_readme_keeps_the_first_revision(served: ModelHub, lake: Lake) -> None:
    first = llama("org/model")
    served.add(first)
    run(lake)
    served.add(llama("org/model", files={"README.md": b"better"}))
    run(lake)
    second = served.repos["org/model"]
    served.add(llama("org/model", files={"README.md": b"best", "config.json": b'{"model_type": "other"}'}))
    third = served.repos["org/model"]
    rows = {row["revision"]: row for row in models(lake).values()}
    assert (rows[first.sha]["skipped"], rows[second.sha]["skipped"]) == (None, "older")
    assert first.sha[:12] in rows[second.sha]["skipped_because"]
    run(lake)
    rows = {row["revision"]: row for row in models(lake).values()}
    assert {sha: row["skipped"] for sha, row in rows.items()} == {
        first.sha: "older",
        second.sha: "older",
        third.sha: None,
    }


def test_listing_whose_order_changes_between_pages_gives_each_model_once(served: ModelHub, lake: Lake) -> None:
    served.page_size = 3
    served.add(*(llama(f"org/m{n}", downloads=1000 - n) for n in range(8)))

    def change(number: int) -> None:
        if number == 1:  # the first of page 0 falls to page 2, at another commit
            served.add(llama("org/m0", downloads=10, files={"config.json": b'{"model_type": "new"}'}))

    served.before_page = change
    run(lake)
    assert served.calls()["list"] == 3
    rows = models(lake, "skipped IS NULL")
    assert rows["org/m0"]["revision"] == served.repos["org/m0"].sha
    # The one that moved up to page 0 in the meantime is in no page that was asked for; the next run has it.
    assert set(rows) == {f"org/m{n}" for n in range(8)} - {"org/m3"}
    served.before_page = lambda number: None
    served.asked.clear()
    run(lake)
    assert served.calls()["info"] == 1
    assert set(models(lake, "skipped IS NULL")) == {f"org/m{n}" for n in range(8)}


def test_query_conditions_hold(served: ModelHub, lake: Lake) -> None:
    sizes = {"org/small": 5_000_000_000, "org/large": 70_000_000_000, "org/unsure": None}
    served.add(*(llama(name, parameters=size, tags=["license:mit"]) for name, size in sizes.items()))
    served.add(
        llama("org/rare", downloads=3, tags=["license:mit"]), llama("org/other"), llama("me/mine", tags=["license:mit"])
    )
    run(lake, Query(min_downloads=1000, max_parameters="15B", licence="MIT", author="org"))
    assert set(models(lake)) == {"org/small", "org/unsure"}
    asked = served.asked[0]
    assert "num_parameters=max%3A15B" in asked
    assert "filter=license%3Amit" in asked
    run(lake, Query(search="me/", most=1))
    assert set(models(lake)) == {"org/small", "org/unsure", "me/mine"}


@pytest.mark.parametrize(("text", "number"), [("15B", 15e9), ("500m", 5e8), ("7.5e9", 7.5e9), ("12", 12)])
def test_parameters_are_read_as_people_write_them(text: str, number: float) -> None:
    assert parameters(text) == number


# ---- names


def test_names_are_read_once_and_newest_asks_for_one_info(served: ModelHub, lake: Lake) -> None:
    old = llama("org/a")
    served.add(old, llama("org/b"))
    names = [Named("org/a"), Named("org/b", served.repos["org/b"].sha)]
    assert run(lake, None, names).read == 2
    served.asked.clear()
    run(lake, None, names)
    assert served.asked == []
    run(lake, None, names, newest=True)
    assert served.calls() == {"info": 1}
    served.add(llama("org/a", seed="new"))
    run(lake, None, names, newest=True)
    assert models(lake, "skipped IS NULL")["org/a"]["revision"] == served.repos["org/a"].sha != old.sha


def test_name_that_moved_is_named_and_one_that_is_not_there_fails(served: ModelHub, lake: Lake) -> None:
    served.add(llama("org/new"))
    served.renamed["org/old"] = "org/new"
    done = run(lake, None, [Named("org/old"), Named("org/never"), Named("org/new", "0" * 40)])
    assert set(done.failed) == {"org/never", "org/new"}
    assert models(lake)["org/old"]["skipped_because"] == "its name is org/new now: use that"
    served.asked.clear()
    run(lake, None, [Named("org/old")])
    assert served.asked == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "names no model"), ("a b\n", "line 1"), ("# x\norg/a\norg//b\n", "line 3"), ("a/b@x\na/b@y\n", "line 2")],
)
def test_names_that_are_none_are_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_names(tmp_path / "names.txt")


def test_names_with_comments_and_revisions_are_read(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("# mine\norg/a  # the best\n\norg/b@v1\norg/a\n")
    assert read_names(tmp_path / "names.txt") == [Named("org/a"), Named("org/b", "v1")]


# ---- chosen by a config


def test_choose_takes_what_fits_and_is_not_skipped(served: ModelHub, lake: Lake) -> None:
    kinds(served)
    served.add(llama("org/popular", hidden=8, downloads=10_000), llama("org/wide", hidden=6400))
    run(lake)

    def sources(catalog: str, **keys: Any) -> list[str]:
        return [model.spec.source for model in choose(lake, CatalogSpec(catalog=catalog, **keys))]

    assert sources("parameters < 100e3 AND downloads >= 1000 AND NOT gated") == [
        "org/popular",
        "org/first",
        "org/native",
    ]
    assert sources("model LIKE 'org/%' -- mine", most=1) == ["org/popular"]
    assert sources("quantization IN ('gptq', 'awq')", also=["quantized"]) == ["org/awq", "org/gptq"]
    assert sources("parameters = 6464", also=["copy"]) == ["late/copy", "org/first", "org/native"]
    # The first to have the weights does not fit: the copy stands for them.
    assert sources("model <> 'org/first' AND parameters = 6464") == ["late/copy", "org/native"]
    for wrong in ("no_such_column > 1", "parameters <", "model = 5", "parameters > 1e30"):
        with pytest.raises(ConfigError, match=r"models: "):
            sources(wrong)


def test_chosen_models_are_pinned_as_their_files_say_without_a_call(
    served: ModelHub, lake: Lake, tmp_path: Path
) -> None:
    scaled = {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}
    served.add(llama("org/a"), llama("org/b", config=scaled), llama("org/c", config={"dtype": "float16"}))
    run(lake)
    served.asked.clear()
    entries: list[ModelSpec | CatalogSpec] = [ModelSpec(source="org/c", dtype="float32"), CatalogSpec(catalog="true")]
    found = list(all_of(lake, entries))
    assert [spec.source for spec, _ in found] == ["org/c", "org/a", "org/b"]
    for spec, config_json in found[1:]:
        model = resolve(spec, "auto", 8192, config_json)
        folder = tmp_path / spec.source
        folder.mkdir(parents=True)
        for name, data in served.repos[spec.source].files.items():
            (folder / name).write_bytes(data)
        (folder / "model.safetensors").write_bytes(b"weights")
        local = resolve(ModelSpec(source=str(folder)), "auto", 8192)
        same = ("dtype", "quantization", "max_length")
        assert [getattr(model, name) for name in same] == [getattr(local, name) for name in same]
        assert (model.name, model.source, model.path) == (spec.source, spec.source, None)
        assert model.revision == served.repos[spec.source].sha
        assert model.has_row
    assert served.asked == []


def test_choose_from_no_lake_or_no_catalog_says_what_to_run(tmp_path: Path, lake: Lake) -> None:
    for place in (Lake(str(tmp_path / "none")), lake):
        with pytest.raises(ConfigError, match=r"catalog\.py"):
            choose(place, CatalogSpec(catalog="true"))
