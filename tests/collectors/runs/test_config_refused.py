"""Configs that are refused: one line that names the key, whatever the bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from collectors.runs.config import RunConfig, load_config
from collectors.specs import CatalogSpec, ModelSpec
from schemas.failures import ConfigError
from tests.helpers.config_files import LEAST, load, load_keys, path

__all__ = ["path"]  # a fixture


def faults(path: Path, text: str | bytes) -> list[str]:
    """The lines of the ConfigError; each has to begin with the file."""
    with pytest.raises(ConfigError) as caught:
        load(path, text)
    lines = str(caught.value).split("\n")
    assert all(str(path) in line and line.isprintable() and len(line) < 700 for line in lines), lines
    return [line.removeprefix(f"{path}: ") for line in lines]


def key_faults(path: Path, **keys: Any) -> list[str]:
    return faults(path, yaml.safe_dump({**LEAST, **keys}))


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"model": ["a/b"]}, "model"),
        ({"models": [{"source": "a/b", "weight": 1}]}, "models.0.weight"),
        ({"tasks": ["t", {"task": "u", "fewshot": 1}]}, "tasks.1.fewshot"),
        ({"tasks": [{"task": "t", "lake": "x"}]}, "tasks.0.lake"),
        ({"engine": {"name": "stub", "max_length": 5}}, "engine.max_length"),
        ({"fleet": {"gpu": 1}}, "fleet.gpu"),
        ({"a\nb": 1}, "'a\\nb'"),
    ],
)
def test_config_unknown_key_at_any_level_is_named(path: Path, keys: dict[str, Any], place: str) -> None:
    [fault] = key_faults(path, **keys)
    assert fault.startswith(f"{place}: unknown key; ")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"models": []}, "models"),
    ({"tasks": []}, "tasks"),
    ({"models": "a/b"}, "models"),
    ({"tasks": {"t": 1}}, "tasks"),
    ({"models": [None]}, "models.0"),
    ({"models": [5]}, "models.0"),
    ({"models": [""]}, "models.0.source"),
    ({"models": ["x" * 201]}, "models.0.source"),
    ({"models": [{"name": "x"}]}, "models.0.source"),
    ({"models": [{"catalog": " "}]}, "models.0.catalog"),
    ({"models": [{"catalog": "true", "source": "a/b"}]}, "models.0.source"),
    ({"models": [{"catalog": "true", "also": ["gguf"]}]}, "models.0.also.0"),
    ({"models": [{"catalog": "true", "most": 0}]}, "models.0.most"),
    ({"models": [{"source": "a", "dtype": "int3"}]}, "models.0.dtype"),
    ({"models": [{"source": "a", "trust_remote_code": "yes"}]}, "models.0.trust_remote_code"),
    ({"tasks": ["  "]}, "tasks.0.task"),
    ({"tasks": [{"task": "t", "limit": 0}]}, "tasks.0.limit"),
    ({"tasks": [{"task": "t", "metric": 1}]}, "tasks.0.metric"),
    ({"limit": -1}, "limit"),
    ({"limit": True}, "limit"),
    ({"limit": "40"}, "limit"),
    ({"limit": 1.5}, "limit"),
    ({"num_fewshot": -1}, "num_fewshot"),
    ({"num_fewshot": 10**30}, "num_fewshot"),
    ({"num_fewshot": False}, "num_fewshot"),
    ({"fewshot_seed": 2**31}, "fewshot_seed"),
    ({"fewshot_seed": -1}, "fewshot_seed"),
    ({"fewshot_seed": float("nan")}, "fewshot_seed"),
    ({"chat_template": 1}, "chat_template"),
    ({"chat_template": ""}, "chat_template"),
    ({"chat_template": "true"}, "chat_template"),
    ({"chat_template": ["a"]}, "chat_template"),
    ({"chat_template": None}, "chat_template"),
    ({"system_prompt": 5}, "system_prompt"),
    ({"system_prompt": ["a"] * 1000}, "system_prompt"),
    ({"decoding": [1]}, "decoding"),
    ({"decoding": {1: 2}}, "decoding.1.[key]"),
    ({"decoding": {"temperature": float("nan")}}, "decoding"),
    ({"decoding": {"temperature": float("-inf")}}, "decoding"),
    ({"lake": ""}, "lake"),
    ({"lake": None}, "lake"),
    ({"lake": " "}, "lake"),
    ({"datasets": 5}, "datasets"),
    ({"include_tasks": {"a": 1}}, "include_tasks"),
    ({"include_tasks": [1]}, "include_tasks.0"),
    ({"dtype": "float64"}, "dtype"),
    ({"engine": "stubb"}, "engine.name"),
    ({"engine": {"name": "gpt"}}, "engine.name"),
    ({"engine": {"options": {"a": {"b": float("inf")}}}}, "engine.options"),
    ({"fleet": {"workers": 0}}, "fleet.workers"),
    ({"fleet": {"cpus_per_worker": 0}}, "fleet.cpus_per_worker"),
    ({"fleet": {"cpus_per_worker": float("nan")}}, "fleet.cpus_per_worker"),
    ({"fleet": {"gpus_per_worker": -0.5}}, "fleet.gpus_per_worker"),
    ({"fleet": {"shard_seconds": float("inf")}}, "fleet.shard_seconds"),
    ({"fleet": {"first_shard_items": 4097}}, "fleet.first_shard_items"),
]


@pytest.mark.parametrize(("keys", "place"), WRONG, ids=[f"{i}-{place}" for i, (_, place) in enumerate(WRONG)])
def test_config_wrong_value_is_one_line_naming_the_key(path: Path, keys: dict[str, Any], place: str) -> None:
    (line,) = key_faults(path, **keys)
    assert line.startswith(f"{place}: ")


def test_config_several_faults_are_a_line_each(path: Path) -> None:
    lines = key_faults(path, limit=0, tasks=[{"task": "t", "num_fewshot": "x"}, {"metric": "acc"}], colour="red")
    places = ["colour", "limit", "tasks.0.num_fewshot", "tasks.1.task"]
    assert sorted(line.split(":")[0] for line in lines) == places


@pytest.mark.parametrize("text", ["tasks: [t]", "models: [a/b]", "{}"])
def test_config_required_key_is_missing_is_named(path: Path, text: str) -> None:
    missing = {"models", "tasks"} - {text.split(":")[0]}
    assert {line.split(":")[0] for line in faults(path, text)} == missing
    assert all(line.endswith("this key is missing") for line in faults(path, text))


@pytest.mark.parametrize(
    "models",
    [
        ["a/b", "a/b"],
        ["/x/m", "/y/m"],
        ["/x/m", {"source": "a/b", "name": "m"}],
        [{"source": "a/b", "dtype": "float32"}, "a/b"],  # the run's dtype, which the second one has, is float32
    ],
)
def test_config_two_models_of_one_name_are_refused(path: Path, models: list[Any]) -> None:
    (line,) = key_faults(path, models=models, dtype="float32")
    assert line.startswith("models: the name ")


def test_config_one_model_in_two_dtypes_is_accepted(path: Path) -> None:
    config = load_keys(path, models=["a/b", {"source": "a/b", "dtype": "float16"}])
    assert [model.dtype for model in config.models] == [None, "float16"]


def test_config_models_from_the_catalog_stand_beside_named_ones(path: Path) -> None:
    text = "models:\n  - a/b\n  - catalog: parameters < 15e9 AND NOT gated\n    dtype: float16\ntasks: [t]\n"
    named, chosen = load(path, text).models
    assert isinstance(named, ModelSpec)
    assert chosen == CatalogSpec(catalog="parameters < 15e9 AND NOT gated", dtype="float16")


@pytest.mark.parametrize(
    "text",
    [
        "limit: 1\nmodels: [a/b]\ntasks: [t]\nlimit: 2\n",
        "models: [{source: a/b, source: c/d}]\ntasks: [t]\n",
        "models: [a/b]\ntasks: [t]\ndecoding: {a: {b: 1, 'b': 2}}\n",
    ],
)
def test_config_key_given_twice_is_refused_with_its_line(path: Path, text: str) -> None:
    (line,) = faults(path, text)
    assert "is given twice, near line" in line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "models",
        "- a\n- b\n",
        "models: [a/b\n",
        "a: b: c",
        "models: [a/b]\n---\nmodels: [c/d]\n",
        "models: *nowhere",
        "models: !!python/object/apply:os.getcwd []",
        "limit: 2024-13-45",
        "limit: !!int abc",
        "limit: !!bool maybe",
        "limit: !!timestamp soon",
        "limit: " + "9" * 5000,
        "? [a, b]\n: c",
        "tasks: " + "[" * 3000 + "]" * 3000,
        "a: \x00",
        b"models: [\xff\xfe]",
        "models: [a/b]\ntasks: [t]\n".encode("utf-16"),
    ],
)
def test_config_not_a_yaml_mapping_is_one_line(path: Path, text: str | bytes) -> None:
    assert len(faults(path, text)) == 1


@pytest.mark.parametrize("text", ["decoding: &a {x: *a}", "decoding: {day: 2024-01-01}", 'decoding: {x: "\\ud800"}'])
def test_config_settings_that_json_cannot_hold_are_refused(path: Path, text: str) -> None:
    (line,) = faults(path, f"models: [a/b]\ntasks: [t]\n{text}\n")
    assert line.startswith(("decoding: has a value that JSON", "decoding.x: holds a surrogate")) or "YAML" in line


def test_config_text_that_no_file_can_hold_is_refused_by_its_key(path: Path) -> None:
    text = """
models: [a/b]
tasks: [t, {task: u, decoding: {until: ["ok", "\\udfff"], "\\ud800": 1}}]
system_prompt: "before \\ud800 after"
"""
    said = "holds a surrogate, half of a character"
    places = ["tasks.1.decoding.until.1", "tasks.1.decoding.'\\ud800'", "system_prompt"]
    assert faults(path, text) == [f"{place}: {said}" for place in places]


def test_config_cyclic_lists_are_refused(path: Path) -> None:
    assert len(faults(path, "models: &a [*a]\ntasks: [t]\n")) == 1


def test_config_variable_not_set_is_refused_not_made_a_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.setenv("EMPTY", "")
    assert key_faults(path, lake="$NOWHERE/lake") == ["lake: the environment variable NOWHERE is not set"]
    assert key_faults(path, models=["${NOWHERE}"]) == ["models.0.source: the environment variable NOWHERE is not set"]
    assert key_faults(path, models=["$EMPTY"]) == ["models.0.source: is empty"]


@pytest.mark.parametrize("where", ["", "nowhere.yaml"])
def test_config_folder_or_missing_file_is_one_line(tmp_path: Path, where: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the config") as caught:
        load_config(str(tmp_path / where))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_config_any_bytes_load_or_are_refused_plainly(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        load_config(str(path))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(RunConfig.model_fields)), json_like)
def test_config_any_value_of_any_key_loads_or_is_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "value.yaml"
    try:
        text = yaml.safe_dump({**LEAST, key: value}, allow_unicode=True).encode()
    except UnicodeEncodeError:
        return
    path.write_bytes(text)
    lines: list[str] = []
    try:
        load_config(str(path)).model_dump_json()
    except ConfigError as error:
        lines = str(error).split("\n")
    assert all(line.startswith(str(path)) and key in line for line in lines)
