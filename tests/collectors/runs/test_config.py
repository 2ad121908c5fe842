"""Valid config files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from collectors.engines import make_engine
from collectors.runs.config import EngineSpec, RunConfig, load_config
from collectors.specs import ModelSpec, TaskSpec
from schemas.failures import ConfigError
from tests.helpers.config_files import LEAST, load, load_keys, path

__all__ = ["path"]  # a fixture


def test_config_least_possible_fills_the_defaults(path: Path) -> None:
    config = load(path, "models: [org/name]\ntasks: [gsm8k]\n")
    assert config == RunConfig(models=[ModelSpec(source="org/name")], tasks=[TaskSpec(task="gsm8k")])
    assert (config.lake, config.engine.name, config.dtype, config.limit) == ("lake", "vllm", "auto", None)


def test_config_readme_shows_how_the_stub_is_given_options() -> None:
    root = Path(__file__).parents[3]
    readme = (root / "pipelines" / "README.md").read_text()
    [line] = [line for line in readme.splitlines() if "name: stub" in line]
    spec = EngineSpec.model_validate(yaml.safe_load(line.removeprefix("#")))
    assert make_engine(spec.name, spec.options)


def test_config_demo_of_the_package_is_valid() -> None:
    demo = Path(__file__).parents[3] / "pipelines" / "configs" / "demo.yaml"
    assert [spec.num_fewshot for spec in load_config(str(demo)).task_specs()] == [None, 5, None, None]


def test_config_task_without_settings_takes_the_runs(path: Path) -> None:
    shared: dict[str, Any] = {"num_fewshot": 3, "fewshot_seed": 7, "chat_template": True, "fewshot_as_multiturn": False}
    shared |= {"system_prompt": "Be brief.", "decoding": {"temperature": 1.0}, "limit": 9}
    (spec,) = load_keys(path, **shared).task_specs()
    assert {name: getattr(spec, name) for name in shared} == shared


def test_config_task_with_settings_keeps_them_even_null(path: Path) -> None:
    shared = {"num_fewshot": 3, "limit": 9, "system_prompt": "x", "decoding": {"top_p": 0.5}, "chat_template": True}
    own: dict[str, Any] = {
        "num_fewshot": None,
        "limit": None,
        "system_prompt": None,
        "decoding": {},
        "chat_template": False,
    }
    one, other = load_keys(path, **shared, tasks=[{"task": "t", **own}, "u"]).task_specs()
    assert {name: getattr(one, name) for name in own} == own
    assert {name: getattr(other, name) for name in shared} == shared


def test_config_overrides_replace_keys_and_are_checked(path: Path) -> None:
    text = yaml.safe_dump({**LEAST, "limit": 5, "lake": "a"})
    assert (load(path, text, limit=2, lake="b").limit, load(path, text, lake="b").lake) == (2, "b")
    with pytest.raises(ConfigError, match="limit: input should be greater than or equal to 1"):
        load(path, text, limit=0)


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("org/name", "org/name"),
        ("/models/llama", "llama"),
        ("/models/llama/", "llama"),
        ("models/deep/llama", "llama"),
        ("s3://bucket/models/llama/", "llama"),
        ("gpt2", "gpt2"),
    ],
)
def test_model_without_a_name_is_called_by_its_source(source: str, label: str) -> None:
    assert ModelSpec(source=source).label == label
    assert ModelSpec(source=source, name="mine").label == "mine"


def test_config_with_aliases_that_stand_for_a_billion_values_is_refused_at_once(path: Path) -> None:
    lines = ["a: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"]
    lines += [f"b{i}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(9)]
    path.write_text("\n".join([*lines, "decoding: {x: *a9}", "models: [a/b]", "tasks: [gsm8k]"]))
    with pytest.raises(ConfigError, match="aliases stand for more than"):
        load_config(str(path))


def test_config_anchors_and_merge_keys_work_and_may_be_overridden(path: Path) -> None:
    text = """
    models: [a/b]
    decoding: &common {temperature: 1.0, top_p: 0.9}
    tasks:
      - task: t
        decoding: {<<: *common, top_p: 0.5}
      - {task: u, decoding: *common}
    """
    one, other = load(path, text).task_specs()
    assert one.decoding == {"temperature": 1.0, "top_p": 0.5}
    assert other.decoding == {"temperature": 1.0, "top_p": 0.9}


def test_config_merged_mapping_is_merged_again_before_it_is_read_works(path: Path) -> None:
    text = """
    models: [a/b]
    decoding: &a {x: 1}
    tasks:
      - {task: t, decoding: &b {<<: *a, x: 2}}
    engine: {name: stub, options: {<<: *b}}
    """
    config = load(path, text)
    assert (config.tasks[0].decoding, config.engine.options) == ({"x": 2}, {"x": 2})


def test_config_environment_expands_only_in_places(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "/data")
    config = load_keys(
        path,
        models=[{"source": "$WHERE/m", "name": "$WHERE"}],
        lake="${WHERE}/lake",
        datasets="$WHERE/d",
        system_prompt="pay $WHERE",
        include_tasks=["$WHERE"],
        decoding={"until": ["$WHERE"]},
    )
    assert (config.models[0].place, config.lake_uri, config.datasets_folder) == ("/data/m", "/data/lake", "/data/d")
    assert (config.models[0].label, config.system_prompt, config.include_tasks) == ("$WHERE", "pay $WHERE", ["$WHERE"])
    assert config.decoding == {"until": ["$WHERE"]}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "num_fewshot": st.none() | st.integers(0, 1000),
            "fewshot_seed": st.integers(0, 2**31 - 1),
            "chat_template": st.booleans() | st.just("tool_use"),
            "system_prompt": st.none() | st.text(st.characters(codec="utf-8"), max_size=20),
            "limit": st.none() | st.integers(1, 10**9),
            "decoding": st.dictionaries(
                st.text("abc", min_size=1), st.integers() | st.floats(allow_nan=False, allow_infinity=False)
            ),
        },
    )
)
def test_config_any_valid_keys_come_back_as_they_are(keys: dict[str, Any]) -> None:
    config = RunConfig.model_validate({**LEAST, **keys})
    assert {name: getattr(config, name) for name in keys} == keys
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_config_own_tasks_by_either_word_one_folder_or_the_path_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "mine.yaml"
    file.write_text("task: my_quiz\ndoc_to_text: !function code.text\n")
    config = tmp_path / "c.yaml"
    for keys in ("include_path: a", "include_tasks: a", "include_path: [a]", "include_tasks: [a]"):
        config.write_text(f"models: [x/y]\ntasks: [t]\n{keys}\n")
        assert load_config(str(config)).include_tasks == ["a"]
    config.write_text(
        f"models: [x/y]\ntasks: [{file}, {{task: {file}, limit: 3}}]\ninclude_path: b\ninclude_tasks: a\n"
    )
    read = load_config(str(config))
    assert read.include_tasks == ["a", "b", str(tmp_path / "deep")]
    assert [(task.task, task.limit) for task in read.tasks] == [("my_quiz", None), ("my_quiz", 3)]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("num_fewshots: 1", "num_fewshots: unknown key; did you mean num_fewshot"),
        ("zzz: 1", "zzz: unknown key; there are allow_code, "),
        ("fleet: {worker: 2}", "fleet.worker: unknown key; did you mean workers?"),
        ("tasks: [none.yaml]", "cannot read the task file none.yaml: No such file or directory"),
    ],
)
def test_config_mistakes_say_what_may_be_meant(tmp_path: Path, line: str, fault: str) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("models: [x/y]\n" + ("" if line.startswith("tasks") else "tasks: [t]\n") + line + "\n")
    with pytest.raises(ConfigError, match=re.escape(fault)):
        load_config(str(config))
