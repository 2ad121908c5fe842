"""What task files may run: nothing of a user's folders unless the run allows it, and no template reaches Python."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lm_eval.utils
import pytest
import yaml
from jinja2 import BaseLoader, Environment, StrictUndefined

from collectors.harness.bounds import depth_of
from collectors.harness.loading import load_tasks
from collectors.harness.own_code import use_code
from collectors.specs import TaskSpec
from schemas.failures import TaskError
from tests.helpers.mini_tasks import own_caches
from tests.helpers.thorough import LONG

_ = own_caches

ESCAPES = [
    "{{ cycler.__init__.__globals__.os.popen('touch PLANTED').read() }}{{question}}",
    "{{ question.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ ''.__class__ }}",
    "{{ question|attr('__class__') }}",
    "{{ '{0.__class__}'.format(question) }}",
    "{{ joiner.__init__.__globals__ }}",
]


def write(folder: Path, **changes: Any) -> Path:
    (folder / "one.jsonl").write_text(json.dumps({"question": "One and one?", "choices": ["2", "3"], "answer": 0}))
    task = {
        "task": "own",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "one.jsonl")}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
    }
    text = yaml.safe_dump({**task, **changes}).replace("'!function own.text'", "!function own.text")
    (folder / "own.yaml").write_text(text.replace("'!function os.getpid'", "!function os.getpid"))
    (folder / "own.py").write_text("open('PLANTED', 'w').close()\ndef text(doc):\n    return 'x'\n")
    return folder


def refused(folder: Path) -> str:
    try:
        tasks, failed = load_tasks(TaskSpec(task="own"), [str(folder)])
        for task in tasks:
            task.item_table()
    except TaskError as error:
        failed = {"own": error}
    assert failed["own"].kind == "unsafe_code"
    return str(failed["own"])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    use_code(False)
    yield
    assert not Path("PLANTED").exists()


@pytest.mark.parametrize("template", ESCAPES)
def test_template_that_reaches_for_python_is_refused_by_name(template: str, tmp_path: Path) -> None:
    assert "task own has a template" in refused(write(tmp_path, doc_to_text=template))


@pytest.mark.parametrize(
    "changes",
    [
        {"doc_to_text": "!function own.text"},
        {"doc_to_text": "!function os.getpid"},
        {"metric_list": [{"metric": "./evil.py"}]},
        {"metric_list": [{"metric": "acc", "hf_evaluate": True}]},
    ],
)
def test_code_of_own_folders_is_refused_unless_the_run_allows_it(changes: dict[str, Any], tmp_path: Path) -> None:
    reason = refused(write(tmp_path, **changes))
    assert reason.startswith("task own ")
    assert "allow_code: true" in reason


def test_code_of_own_folders_runs_where_the_run_allows_it(tmp_path: Path) -> None:
    use_code(True)
    (task,), failed = load_tasks(TaskSpec(task="own"), [str(write(tmp_path, doc_to_text="!function own.text"))])
    assert not failed
    assert task.question(task.docs[0]) == "x"
    Path("PLANTED").unlink()


DEEP = "[" * 3000 + "]" * 3000


def test_deep_data_of_own_tasks_are_named_by_line(tmp_path: Path) -> None:
    """pyarrow's reader of JSON, which `datasets` uses, ended the process."""
    write(tmp_path)
    (tmp_path / "one.jsonl").write_text('{"question": "a"}\n{"question": ' + DEEP + "}\n")
    with pytest.raises(TaskError, match=r"one.jsonl, line 2: nested too deeply"):
        raise next(iter(load_tasks(TaskSpec(task="own"), [str(tmp_path)])[1].values()))


@pytest.mark.slow
def test_deep_yaml_of_own_tasks_ends_no_process(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "deep.yaml").write_text(f"task: deep\nmetadata: {DEEP}\n")
    tasks, failed = load_tasks(TaskSpec(task="own"), [str(tmp_path)])
    assert ([task.name for task in tasks], failed) == (["own"], {})


@pytest.mark.parametrize(("text", "depth"), [(b'{"a": "[[["}', 1), (b"[[1], {}]", 2), (b'["\\"[["]', 1)])
def test_depth_counts_brackets_outside_strings(text: bytes, depth: int) -> None:
    assert depth_of(text) == depth


def shipped_templates() -> list[str]:
    """Every template in the files of lm-eval's tasks, each once."""

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    Loader.add_multi_constructor("!", lambda *_: None)

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, str) and "{" in value:
            yield value
        elif isinstance(value, dict | list):
            for one in value.values() if isinstance(value, dict) else value:
                yield from texts(one)

    files = sorted((Path(lm_eval.__file__).parent / "tasks").rglob("*.yaml"))
    found = set[str]()
    for file in files if LONG else random.Random(0).sample(files, 150):
        with contextlib.suppress(yaml.YAMLError):
            found |= set(texts(yaml.load(file.read_text(), Loader)))
    return sorted(found)


def test_templates_of_lm_eval_render_in_the_sandbox_as_without_it() -> None:
    """On made documents: most errors are of a document that lacks a field, and they are equal, too."""
    plain = Environment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    plain.filters.update(lm_eval.utils.env.filters)
    templates = shipped_templates()
    texts = {"choices": ["a", "b", "c", "d"], "answer": "a", "label": 1, "question": "q?", "text": "t"}
    lists = {"choices": {"text": ["a", "b"], "label": ["A", "B"]}, "question": {"stem": "s"}, "answers": ["x", "y"]}
    rendered = 0
    for template in templates:
        for document in (texts, lists):
            outcomes = []
            for environment in (plain, lm_eval.utils.env):
                try:
                    outcomes.append(environment.from_string(template).render(**document))
                except Exception as error:
                    outcomes.append(f"{type(error).__name__}: {error}")
            assert outcomes[0] == outcomes[1], template
            rendered += "Error" not in outcomes[0]
    assert rendered > len(templates) // 10
