"""Works out the settings of a cell that depend on its model and its task together.

Owns the date that the model's chat template writes, the settings that its generation_config.json adds, and the refusal
of a system prompt that its template does not send. Reads small files of models and the lake's earlier runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from collectors.engines import ModelRef
from collectors.harness.chats import Chat, Traits, chats_of, traits_of, unsent_error
from collectors.harness.efforts import NO_EFFORT, Effort
from collectors.harness.encoding import end_token_error, ending
from collectors.harness.sampling import added_by_model, left_out
from collectors.harness.tasks import PROMPT_MARGIN, BoundTask, TaskSettings
from collectors.lake.item_sets import ItemSets
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.models.small_files import chat_templates, folder_here, may_end_texts, small_json, special_tokens
from collectors.specs import TaskSpec
from schemas.failures import ModelError, TaskError, one_line
from schemas.identity import MODEL_IDENTITY, ShardName, cell_identity, digest

logger = logging.getLogger(__name__)

#: Items whose conversations are rendered while planning.
SAMPLE = 4
#: Most models that a note names.
MOST_NAMED = 3

#: Models whose files are read at once.
AT_ONCE = 16

#: A model's chat template, or several by name (see chat_templates), and its special tokens.
_Templates = tuple[str | dict[str, str] | None, dict[str, str]]

_NONE: dict[str, Any] = {}

_DATES = """
SELECT model, revision, dtype, quantization, max_length, overrides, prompting, arg_max(chat_date, run_id)
FROM _run_cells
WHERE chat_date IS NOT NULL
GROUP BY ALL
"""


class CellSettings:
    """Settings of cells, with the files, templates and tasks that were read for them."""

    def __init__(
        self, lake: Lake, run_id: str, shards: Mapping[str, list[ShardName]], generation: int | None = None
    ) -> None:
        self._lake, self._shards, self._generation = lake, shards, generation
        self._item_sets = ItemSets(lake)
        self._today = f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}"
        #: By source, revision and name of the template.
        self._files: dict[tuple[str, str, str | None], _Templates] = {}
        self._equal: dict[str, _Templates] = {}
        self._chats: dict[str, list[Chat]] = {}
        self._traits: dict[tuple[str, str], Traits | TaskError] = {}
        self._configs: dict[tuple[str, str, bool], dict[str, Any]] = {}
        self._ends: dict[str, _End | None] = {}
        #: Remark -> the models that it concerns.
        self._remarks: defaultdict[str, list[str]] = defaultdict(list)

    def of(self, model: ModelRef, task: BoundTask, items: int, effort: Effort = NO_EFFORT) -> dict[str, str]:
        """Returns the settings of cell_identity beside `effort`, by their columns of RUN_CELL; empty for most cells.

        `items` is the number of items to ask. Raises TaskError when the model's chat template does not send the system
        prompt, or cannot render the task, and ModelError when a file of the model cannot be read.
        """
        settings = self._decoding(model, task)
        self._check_room(model, task, effort)
        traits = self._traits_of(model, task, effort.chat_template_args)
        if (end := self._ending(model)) and not (traits and traits.text.startswith(end.prefix)):
            raise end_token_error(end.token)
        if traits and (date := self._date(model, task, traits, items, settings | effort.settings)):
            settings["chat_date"] = date
        return settings

    def notes(self) -> Iterator[str]:
        """One line for each remark, with the models that it concerns."""
        for remark, names in self._remarks.items():
            models = list(dict.fromkeys(names))
            more = f" and {len(models) - MOST_NAMED} more" if len(models) > MOST_NAMED else ""
            yield f"{remark}: {', '.join(models[:MOST_NAMED])}{more}"

    def _check_room(self, model: ModelRef, task: BoundTask, effort: Effort) -> None:
        needed = task.tokens_needed + (effort.thinking_tokens or 0) - PROMPT_MARGIN + task.margin
        if task.request_kind != "generate_until" or not model.longest or needed <= model.longest:
            return
        what = "answers get the room that prompts leave" if task.spec.overlong == "fail" else "prompts are cut"
        need = f"{task.name} may need {needed:,} tokens for a prompt and its answer"
        self._remarks[f"{need}, and the context has {model.longest:,}: {what}"].append(model.name)

    # ---- decoding

    def _decoding(self, model: ModelRef, task: BoundTask) -> dict[str, str]:
        if task.settings.output_type != "generate_until":
            return {}
        wanted = task.spec.generation_config
        file, own = self._generation_config(model, far=wanted), task.task.config.generation_kwargs or {}
        added = added_by_model(file, own) if wanted else {}
        for name, value in left_out(file, own, added).items():
            self._remarks[f"{name} {value} of generation_config.json is not applied to {task.name}"].append(model.name)
        if added:
            self._remarks[f"{_shown(added)} of generation_config.json applied to {task.name}"].append(model.name)
        return {"generation_config": _json(added)} if added else {}

    def _generation_config(self, model: ModelRef, *, far: bool) -> dict[str, Any]:
        """The file of a model, empty without one. Without `far`, when it will not count, only this machine is asked."""
        key = model.source, model.revision, far
        if key not in self._configs:
            here = model if far else dataclasses.replace(model, path=str(folder_here(model) or ""))
            self._configs[key] = (small_json(here, "generation_config.json") if here.path != "" else None) or _NONE
        return self._configs[key]

    # ---- tokenizers

    def _ending(self, model: ModelRef) -> _End | None:
        """The token that the model's tokenizer puts after every text; None without one, or where it is not here."""
        if model.revision not in self._ends:
            self._ends[model.revision] = _ending_of(model)
        return self._ends[model.revision]

    # ---- chat templates

    def _date(
        self, model: ModelRef, task: BoundTask, traits: Traits, items: int, settings: dict[str, Any]
    ) -> str | None:
        if traits.unsent and task.spec.system_prompt:
            raise unsent_error(task.name, traits.unsent)
        if traits.unsent:
            remark = f"the description of {task.name} is not sent, because the chat template {traits.unsent}"
            self._remarks[remark].append(model.name)
        if traits.changes_turns:
            remark = f"the chat template changes or leaves out parts of the question or examples of {task.name}"
            self._remarks[remark].append(model.name)
        if not traits.is_dated:
            return None
        date = task.spec.chat_date or self._recorded.get(_key(model, task.settings))
        if date is None and task.spec.repeats:
            date = self._recorded.get(_key(model, task.settings.once))
        if date is None and self._is_collected(model, task, items, settings):
            return None
        date = date or self._today
        self._remarks[f"the chat template writes a date, which is {date} for {task.name}"].append(model.name)
        return date

    def _is_collected(self, model: ModelRef, task: BoundTask, items: int, settings: dict[str, Any]) -> bool:
        """Whether a program before schema 7, which did not record the date, collected the whole cell."""
        undated = cell_identity(_identity(model), task.settings.prompting, settings)
        return self._generation is None and not self._item_sets.missing(self._shards.get(undated, []), items)

    def _traits_of(self, model: ModelRef, task: BoundTask, args: str | None) -> Traits | None:
        """Traits of the model's template in this task; None without a chat template, or where it is unknown."""
        chat = task.spec.chat_template
        if not chat or model.trust_remote_code:  # a tokenizer's own code may render in its own way
            return None
        templates, tokens = self._templates_of(model, chat)
        if templates is None:
            return None
        template = _chosen(templates, chat, task.name)
        key = digest([template, tokens, args], 32), task.settings.prompting
        if key not in self._traits:
            self._traits[key] = self._worked_out(template, {**tokens, **json.loads(args or "{}")}, task)
        traits = self._traits[key]
        if isinstance(traits, TaskError):
            raise traits
        return traits

    def _templates_of(self, model: ModelRef, chat: bool | str) -> _Templates:
        key = model.source, model.revision, chat if isinstance(chat, str) else None
        if key not in self._files:
            templates = chat_templates(model, key[2])
            read = templates, special_tokens(model) if templates else {}
            self._files[key] = self._equal.setdefault(digest(read, 32), read)  # families share one template
        return self._files[key]

    def read_ahead(self, models: Iterable[ModelRef], specs: Iterable[TaskSpec]) -> None:
        """Reads the chat templates of hub repos side by side: 8,500 models one after the other would take an hour."""
        far = [model for model in models if model.path is None and model.has_files and not model.trust_remote_code]
        jobs = [(model, chat) for chat in {spec.chat_template for spec in specs} - {False} for model in far]

        def read(job: tuple[ModelRef, bool | str]) -> None:
            with contextlib.suppress(ModelError):  # the cells of the model raise it again
                self._templates_of(*job)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(read, jobs))

    def _worked_out(self, template: str, names: dict[str, Any], task: BoundTask) -> Traits | TaskError:
        """`names` are special tokens and variables that the template may use."""
        from transformers.utils.chat_template_utils import render_jinja_template

        def apply(messages: list[dict[str, Any]], *, tokenize: bool, **variables: Any) -> str:
            texts, _ = render_jinja_template([messages], chat_template=template, **{**names, **variables})
            return str(texts[0])

        if task.settings.prompting not in self._chats:
            self._chats[task.settings.prompting] = chats_of(task, min(SAMPLE, len(task.docs)))
        try:
            return traits_of(
                apply, template, self._chats[task.settings.prompting], date_given=task.spec.chat_date is not None
            )
        except TaskError as error:
            return TaskError(f"task {task.name}: {error}", error.kind)

    @functools.cached_property
    def _recorded(self) -> dict[tuple[Any, ...], str]:
        """The newest date in the lake's runs of a model and a prompting (see _key)."""
        if not self._lake.exists():
            return {}
        rows = ask(self._lake, lambda con, _: con.execute(_DATES).fetchall(), only=["_run_cells"], shards=False)
        return {tuple(key): date for *key, date in rows}


class _End(NamedTuple):
    """A token that a tokenizer puts after every text, and the one that it puts before, as texts."""

    token: str
    prefix: str


def _ending_of(model: ModelRef) -> _End | None:
    try:
        folder = folder_here(model)
        if folder is None or model.trust_remote_code or not may_end_texts(model):
            return None
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        prefix = tokenizer.eos_token if tokenizer.bos_token is None else tokenizer.bos_token
        tokens = ending(tokenizer)
    except Exception as error:  # loading the model names the fault
        logger.info("model %s: its tokenizer was not checked: %s", model.name, one_line(error))
        return None
    return _End(str(tokenizer.decode(tokens[0])), str(prefix)) if tokens else None


def _key(model: ModelRef, settings: TaskSettings) -> tuple[Any, ...]:
    return *_identity(model).values(), settings.prompting


def _identity(model: ModelRef) -> dict[str, Any]:
    return {key: getattr(model, key) for key in MODEL_IDENTITY}


def _chosen(templates: str | dict[str, str], chat: bool | str, task: str) -> str:
    """The text of the chosen template, as lm-eval chooses it. Raises TaskError if the model has none."""
    if isinstance(templates, dict):
        name = chat if isinstance(chat, str) else "default"
        if name not in templates:
            raise TaskError(
                f"task {task} wants the chat template {name!r} and the model has only {', '.join(sorted(templates))}",
                "no_chat_template",
            )
        return templates[name]
    if not templates:
        raise TaskError(
            f"task {task} needs a chat template and the model has none: plan such models in a config of their own "
            "without chat_template",
            "no_chat_template",
        )
    return templates


def _shown(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _json(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), sort_keys=True)
