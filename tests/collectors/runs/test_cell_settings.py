"""Settings of a cell that its model and task make together: what a template writes or leaves out, what a file adds."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from collectors.harness.encoding import Encoder
from collectors.lake.store import Lake
from collectors.runs import planning
from collectors.runs.collector import Collector
from collectors.runs.plan import Plan
from collectors.runs.planning import make_plan
from collectors.specs import RepeatsSpec
from schemas.failures import TaskError
from tests.helpers.asked import bind
from tests.helpers.mini_tasks import own_caches, write_tasks
from tests.helpers.planned_cells import configured, ids, model, planned, tasks, write_model
from tests.helpers.thorough import long_only

__all__ = ["model", "own_caches", "tasks"]  # fixtures

_TURNS = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
_NO_SYSTEM = "{% for m in messages if m.role != 'system' %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
TEMPLATES = {
    "plain": _TURNS,
    "dated": "[date] {{ strftime_now('%d %b %Y') }}\n" + _TURNS,
    # as Llama 3.1's
    "dated_default": "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "[date] {{ date_string }}\n" + _TURNS,
    # as Llama 3.0's: its own date is a constant
    "constant_date": "[date] {{ date_string | default('26 Jul 2024') }}\n" + _TURNS,
    "dated_for_tools": "{% if tools %}{{ strftime_now('%Y') }}{% endif %}" + _TURNS,
    "dated_without_system": "{% if messages[0].role != 'system' %}{{ strftime_now('%Y-%m-%d') }}{% endif %}" + _TURNS,
    "refuses": "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + _TURNS,
    "drops": _NO_SYSTEM,
    "into_the_question": "{% set first = messages[0].content | trim if messages[0].role == 'system' else '' %}"
    "{{ first | upper }}{{ first }}" + _NO_SYSTEM,
    "quotes": "{{ messages | tojson }}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    """folder(template, **generation_config) is a new model's folder."""

    def made(template: str, **generation: Any) -> Path:
        path = write_model(tmp_path / f"{template}{len(generation)}")
        (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
        (path / "chat_template.jinja").write_text(TEMPLATES[template])
        if generation:
            (path / "generation_config.json").write_text(json.dumps(generation))
        return path

    return made


def chat(tasks: Path, folder: Path, /, **changes: Any) -> Plan:
    return planned(configured(tasks, folder, **{"chat_template": True, **changes}))


def dates(plan: Plan) -> list[str | None]:
    assert not plan.failures
    assert [cell.row.get("chat_date") for cell in plan.cells] == [cell.cell.chat_date for cell in plan.cells]
    return [cell.cell.chat_date for cell in plan.cells]


# ---- dates


@pytest.mark.parametrize("template", TEMPLATES)
def test_only_a_cell_whose_prompts_hold_the_date_has_one(tasks: Path, folder: Any, template: str) -> None:
    plan = chat(tasks, folder(template))
    if template in ("dated", "dated_default", "dated_without_system"):
        assert dates(plan) == [f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"]
        assert "the chat template writes a date, which is " in plan.notes[0]
    else:
        assert dates(plan) == [None]


def test_date_depends_on_what_the_task_sends(tasks: Path, folder: Any) -> None:
    """This template writes it only where there is no system prompt, as Mistral's do."""
    path = folder("dated_without_system")
    assert dates(chat(tasks, path, system_prompt="Be brief.", chat_date="2026-01-31")) == [None]
    assert dates(chat(tasks, path, chat_template=False, chat_date="2026-01-31")) == [None]


def test_given_date_is_in_the_identity_only_where_a_template_writes_it(tasks: Path, folder: Any) -> None:
    for template in TEMPLATES:
        path = folder(template)
        one, other = (ids(chat(tasks, path, chat_date=date)) for date in ("2026-01-31", "2026-02-01"))
        assert (one != other) == ("date" in template and template != "dated_for_tools"), template
        shutil.rmtree(path)


def test_later_run_goes_on_with_the_date_of_the_first(
    tasks: Path, folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tasks, folder("dated"), chat_template=True, decoding={"temperature": 0.7, "do_sample": True})
    lake = Lake(str(tmp_path / "lake"))

    def run_on(day: str, **changes: Any) -> Plan:
        monkeypatch.setattr(planning, "new_run_id", lambda: f"{day}T101500-00000000")
        plan = make_plan(config.model_copy(update=changes), lake)
        lake.open_for_writing()
        plan.write(lake)
        return plan

    first, second = run_on("20260131"), run_on("20260201")
    assert dates(first) == dates(second) == ["2026-01-31"]
    assert ids(first) == ids(second)
    repeated = run_on("20260203", repeats=RepeatsSpec(times=2, items=3))
    assert dates(repeated) == ["2026-01-31", "2026-01-31"]  # of the cell that it stands beside
    given = make_plan(config.model_copy(update={"chat_date": "2026-03-01"}), lake)
    assert dates(given) == ["2026-03-01"]
    assert ids(given) != ids(first)


def test_cell_that_an_older_program_collected_whole_stays(tasks: Path, folder: Any, tmp_path: Path) -> None:
    """Its days were not recorded, so only a whole one is left as it is: an open one would get a second date."""
    config, lake = configured(tasks, folder("dated"), chat_template=True), Lake(str(tmp_path / "lake"))
    (cell,) = make_plan(config, lake).cells
    undated = planning.cell_identity(
        {k: getattr(cell.cell.model, k) for k in planning.MODEL_IDENTITY}, cell.cell.prompting
    )
    lake.open_for_writing()
    shards = lake.root + f"/shards/task={cell.cell.spec.task}"
    for last, kept in ((5, False), (cell.cell.items - 1, True)):
        Path(shards).mkdir(parents=True, exist_ok=True)
        (Path(shards) / f"{undated}-g0-0000000-{last:07d}.parquet").write_bytes(b"")
        (now,) = make_plan(config, lake).cells
        assert (now.cell.cell_id == undated) == kept
        assert (now.cell.chat_date is None) == kept
        assert (now.todo == []) == kept
    (again,) = make_plan(config, lake, generation=1).cells
    assert again.cell.chat_date is not None


@pytest.mark.parametrize("date", ["today", "2026-13-01", 20260131, "31.1.2026"])
def test_chat_date_that_is_no_date_is_refused(tasks: Path, model: Path, date: Any) -> None:
    with pytest.raises(ValueError, match="should be a date such as 2026-01-31"):
        configured(tasks, model, chat_date=date)


def test_rendered_prompts_hold_the_date_of_the_cell(tasks: Path) -> None:
    for template, text in (
        ("dated", "31 Jan 2026"),
        ("dated_default", "31 Jan 2026"),
        ("constant_date", "31 Jan 2026"),
    ):
        encoder = Encoder(_tokenizer(template))
        encoder.chat_date = "2026-01-31"
        built = encoder.build(bind(tasks, "mini_choice", chat_template=True), 2)
        assert built[0][0].args[0].startswith(f"[date] {text}\n")


def _tokenizer(template: str) -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", chat_template=TEMPLATES[template])


@long_only
@pytest.mark.slow
def test_collected_cell_holds_its_date_and_is_whole_on_the_next_day(
    tasks: Path, tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTERLAKE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "dated"
    shutil.copytree(tiny_models["good"], path)
    (path / "chat_template.jinja").write_text(TEMPLATES["dated"])
    config = configured(tasks, path, chat_template=True, limit=2, dtype="float32")
    lake = Lake(str(tmp_path / "lake"))
    lake.open_for_writing()
    monkeypatch.setattr(planning, "new_run_id", lambda: "20260131T101500-00000000")
    plan = make_plan(config, lake)
    plan.write(lake)
    (cell,) = (planned.cell for planned in plan.cells)
    collector = Collector(plan.run_id, lake.uri, "hf", {}, config.include_tasks)
    assert collector.collect(cell, 0, 1).committed
    (shard,) = (tmp_path / "lake" / "shards").rglob(f"{cell.cell_id}-*.parquet")
    metadata = json.loads(pq.ParquetFile(shard).metadata.metadata[b"cell"])
    assert metadata["settings"] == {"chat_date": "2026-01-31"}
    (texts,) = (tmp_path / "lake" / "cache" / "requests").glob("texts-*.npz")
    with np.load(texts) as arrays:
        assert arrays["text"].tobytes().decode().startswith("[date] 31 Jan 2026\n")
    monkeypatch.setattr(planning, "new_run_id", lambda: "20260201T101500-00000000")
    assert make_plan(config, lake).items_todo == 0
    assert make_plan(config.model_copy(update={"chat_date": "2026-02-01"}), lake).items_todo == 2


# ---- system prompts


@pytest.mark.parametrize("template", ["refuses", "drops"])
def test_system_prompt_that_a_template_does_not_send_is_refused(tasks: Path, folder: Any, template: str) -> None:
    plan = chat(tasks, folder(template), system_prompt="Be brief.")
    fate = {"refuses": "refuses it", "drops": "leaves it out"}[template]
    (failure,) = plan.failures
    assert (failure["kind"], plan.cells) == ("no_system_prompt", [])
    assert failure["message"] == (
        f"task mini_generate has a system prompt, and the model's chat template {fate}: plan such models in a "
        "config of their own without system_prompt"
    )
    with pytest.raises(TaskError, match=f"chat template {fate}") as caught:
        Encoder(_tokenizer(template)).build(
            bind(tasks, "mini_choice", chat_template=True, system_prompt="Be brief."), 2
        )
    assert caught.value.kind == "no_system_prompt"


@pytest.mark.parametrize("template", ["plain", "dated", "into_the_question", "quotes"])
def test_system_prompt_that_a_template_sends_in_another_place_or_form_is_kept(
    tasks: Path, folder: Any, template: str
) -> None:
    plan = chat(tasks, folder(template), system_prompt='  Be "brief".\n')
    assert plan.failures == []
    assert plan.cells[0].row["system_prompt"] == '  Be "brief".\n'


def test_description_that_is_not_sent_is_said_once(
    tmp_path: Path, folder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    described = write_tasks(tmp_path / "tasks")
    file = described / "mini_choice.yaml"
    file.write_text(file.read_text() + "description: 'Add the numbers.'\n")
    plan = chat(described, folder("refuses"), tasks=["mini_choice"])
    assert not plan.failures
    assert plan.notes == ["the description of mini_choice is not sent, because the chat template refuses it: refuses0"]
    built = Encoder(_tokenizer("refuses")).build(bind(described, "mini_choice", chat_template=True), 3)
    assert "Add the numbers" not in built[0][0].args[0]
    assert [r.message for r in caplog.records if "not sent" in r.message] == [
        "task mini_choice: its description is not sent: the model's chat template refuses it"
    ]


def test_turns_that_a_template_changes_are_said(tasks: Path, folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    last = "{{ messages[-1].content }}"
    monkeypatch.setitem(TEMPLATES, "last_turn_alone", last)
    monkeypatch.setitem(TEMPLATES, "trims", "{% for m in messages %}{{ m.content | trim }}{% endfor %}")
    note = (
        "the chat template changes or leaves out parts of the question or examples of mini_generate: last_turn_alone0"
    )
    assert chat(tasks, folder("last_turn_alone")).notes == [note]
    assert chat(tasks, folder("trims")).notes == []


# ---- generation_config.json


FILE = {"repetition_penalty": 1.3, "temperature": 0.6, "top_p": 0.9, "do_sample": True, "eos_token_id": [1, 2]}


def test_generation_config_changes_no_cell_by_default_and_is_named(tasks: Path, folder: Any) -> None:
    with_file, without = (chat(tasks, folder("plain", **file)) for file in (FILE, {}))
    assert with_file.cells[0].cell.settings == without.cells[0].cell.settings == {}
    assert with_file.notes == [
        "repetition_penalty 1.3 of generation_config.json is not applied to mini_generate: plain5"
    ]
    assert without.notes == []


def test_generation_config_that_is_asked_for_is_in_the_identity_where_it_adds_something(
    tasks: Path, folder: Any
) -> None:
    adds, adds_nothing = folder("plain", **FILE), folder("plain", eos_token_id=1)
    on, off = (chat(tasks, adds, generation_config=flag) for flag in (True, False))
    assert on.cells[0].row["generation_config"] == '{"repetition_penalty": 1.3}'  # the task decodes greedily
    assert ids(on) != ids(off)
    assert "repetition_penalty 1.3 of generation_config.json applied to mini_generate: plain5" in on.notes
    assert ids(chat(tasks, adds_nothing, generation_config=True)) == ids(chat(tasks, adds_nothing))
    choices = chat(tasks, adds, generation_config=True, tasks=["mini_choice"])
    assert choices.cells[0].cell.settings == {}
