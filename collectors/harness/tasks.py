"""Loads lm-eval's tasks: their documents, their settings and the digests that identify them.

Owns the resolved task config, the items table and the settings that make up a cell's prompting. Knows nothing of
models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants as hub
import lm_eval.utils
import numpy as np
import pyarrow as pa
from lm_eval.api.group import Group
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry
from lm_eval.tasks._yaml_loader import load_yaml

from collectors.atomic import replacing
from collectors.cache import cache_dir
from collectors.harness.aggregations import aggregation_name, primary_metric
from collectors.harness.documents import NoContentError, doc_hash, hash_and_size, plain
from collectors.harness.evaluating import runs_answers
from collectors.harness.examples import guard, is_fallback
from collectors.harness.index import manager_of
from collectors.harness.needs import check_needs
from collectors.harness.sampling import sampling_identity
from collectors.specs import TaskSpec
from schemas.content import document_hash
from schemas.failures import ConfigError, RouterlakeError, TaskError, one_line
from schemas.identity import digest
from schemas.records import ITEM
from schemas.verdicts import CORRECT_THRESHOLD, MEAN, UNIT_METRICS, is_set_level

logger = logging.getLogger(__name__)

#: lm-eval's default when a task sets no limit on generated tokens.
DEFAULT_MAX_GEN_TOKENS = 256
#: Tokens of a prompt beside its documents: instructions, chat template, system prompt.
PROMPT_MARGIN = 512

datasets.logging.set_verbosity_error()  # else two warnings per task about a local cache

_compile = lm_eval.utils.env.from_string


@functools.lru_cache(4096)
def _compiled(source: str) -> Any:
    """Compiles a Jinja template once; lm-eval compiles it on every render, 5.6 ms of CPU per item of a 5-shot task.

    Rendered texts stay the same. Globals in one dict instead of jinja2's chain of two render a third faster.
    """
    template = _compile(source)
    template.globals = dict(template.globals)
    return template


lm_eval.utils.env.from_string = _compiled


@dataclasses.dataclass(frozen=True)
class TaskSettings:
    """A task's identity and settings under one prompting: columns of RUN_CELL. `prompting` is their digest."""

    task: str
    task_version: str
    task_digest: str
    items_digest: str
    fewshot_digest: str
    output_type: str
    num_fewshot: int
    fewshot_seed: int
    chat_template: str | None
    fewshot_as_multiturn: bool
    system_prompt: str | None
    decoding: str
    metric: str
    filter: str
    higher_is_better: bool
    correct_threshold: float | None
    items: int
    aggregation: str
    #: "truncate", or None: a prompt beyond the context fails.
    overlong: str | None
    #: metric, higher_is_better and correct_threshold in the identity: of the spec's metric, else of the task's first,
    #: even if its items have no score. So the cells of version 6 keep their ids.
    stated: dict[str, Any]
    #: JSON of sampling settings that the task leaves to defaults, and its own seed (collectors.harness.sampling).
    sampling: str | None
    #: collectors.harness.examples.OTHERS_ONLY where lm-eval would show items as their own examples.
    examples: str | None

    @property
    def prompting(self) -> str:
        identity = dataclasses.asdict(self)
        del identity["aggregation"]  # it follows from the task and the metric
        stated = identity.pop("stated")
        # Version 6 had no others. A cell without them keeps its id.
        later = {name for name in ("overlong", "sampling", "examples") if identity[name] is None}
        return digest({k: v for k, v in identity.items() if k not in later} | stated)

    @property
    def is_set_level(self) -> bool:
        """Whether the metric has a value over a whole set alone, so that items have no score."""
        return is_set_level(self.aggregation, self.metric, self.output_type)


class BoundTask:
    """One lm-eval task under one prompting, with its documents.

    Raises TaskError when the task is refused or has no documents, and ConfigError when `spec` names a metric or filter
    that the task lacks.
    """

    def __init__(self, task: Any, spec: TaskSpec) -> None:
        self.task = task
        self.spec = spec
        self.name: str = task.task_name
        #: lm-eval's groups that aggregate metrics, among those that were loaded with the task.
        self.groups: list[Group] = []
        if getattr(task, "UNSAFE_CODE", False):
            raise _unsafe(self.name)
        if getattr(task, "MULTIMODAL", False):
            raise TaskError(f"task {self.name} asks about images or sound; only text is supported", kind="multimodal")
        check_needs(task)
        if runner := runs_answers(task):
            raise TaskError(
                f"task {self.name} hands the model's answers to {runner}, which would run them, so it is refused",
                kind="unsafe_code",
            )
        task_digest = digest(_settings(task))  # before the settings below change it
        self._apply(spec)
        self.docs: list[Any] = list(task.eval_docs)
        if not self.docs:
            raise TaskError(f"task {self.name}: its data set has no items", kind="empty_task")
        hashes, sizes = zip(*map(hash_and_size, self.docs), strict=True)
        self.hashes: list[str] = list(hashes)
        #: Bytes of the longest document as JSON.
        self.longest = max(sizes)
        self._examples = guard(task, self.docs, spec.fewshot_seed, doc_hash)
        self.settings = self._bound_settings(task_digest)
        #: Remarks for a person before a run, one line each.
        self.notes = [f"task {self.name} {note}" for note in self._notes()]

    def _notes(self) -> Iterator[str]:
        implied = json.loads(self.settings.sampling or "{}")
        if "temperature" in implied:
            yield f"samples at temperature {implied['temperature']:g}: it has do_sample and no temperature"
        if "seed" in implied:
            repeats = ", plus the repeat's number" if (self.task.config.repeats or 1) > 1 else ""
            yield f"samples with its own seed, {implied['seed']}{repeats}"
        if self.settings.num_fewshot and is_fallback(self.task):
            yield "takes its examples from its own items, as it has no other split; no item is its own example"
        elif self.settings.examples:
            yield "has items among its examples; no item is its own example"

    def _apply(self, spec: TaskSpec) -> None:
        """Sets num_fewshot and decoding as lm-eval's evaluator does: a task whose own num_fewshot is 0 keeps it."""
        task, own = self.task, self.task.get_config("num_fewshot")
        wanted = own if spec.num_fewshot is None or own == 0 else spec.num_fewshot
        task.set_config(key="num_fewshot", value=wanted or 0)
        if spec.decoding and task.OUTPUT_TYPE == "generate_until":
            task.set_config(key="generation_kwargs", value=dict(spec.decoding), update=True)

    def _bound_settings(self, task_digest: str) -> TaskSettings:
        task, spec = self.task, self.spec
        metrics, filters = list(task.aggregation()), [f.name for f in task._filters]
        stated, chosen = spec.metric or metrics[0], spec.filter or filters[0]
        metric = spec.metric or primary_metric(task.aggregation())
        for what, name, names in (("metric", stated, metrics), ("filter", chosen, filters)):
            if name not in names:
                raise ConfigError(f"task {self.name} has no {what} {name!r}; it has {', '.join(names)}")
        aggregation = aggregation_name(task.aggregation()[metric])
        threshold = _threshold(metric) if aggregation == MEAN else None
        better = task.higher_is_better()
        shots = task.get_config("num_fewshot")
        chat = spec.chat_template
        generates = task.OUTPUT_TYPE == "generate_until"
        return TaskSettings(
            task=self.name,
            task_version=str(task.VERSION),
            task_digest=task_digest,
            items_digest=digest(self.hashes),
            fewshot_digest=digest([doc_hash(d) for d in task.sampler.df]) if shots and hasattr(task, "sampler") else "",
            output_type=task.OUTPUT_TYPE,
            num_fewshot=shots,
            fewshot_seed=spec.fewshot_seed if shots else 0,
            chat_template=None if chat is False else "true" if chat is True else chat,
            fewshot_as_multiturn=bool(chat and shots) and spec.fewshot_as_multiturn,
            system_prompt=spec.system_prompt or None,
            decoding=json.dumps(_whole(spec.decoding) if generates else {}, sort_keys=True),
            metric=metric,
            filter=chosen,
            higher_is_better=bool(better.get(metric, True)),
            correct_threshold=threshold,
            items=len(self.docs),
            aggregation=aggregation,
            overlong=None if spec.overlong == "fail" else spec.overlong,
            stated={
                "metric": stated,
                "higher_is_better": bool(better.get(stated, True)),
                "correct_threshold": _threshold(stated),
            },
            sampling=self._sampling(),
            examples=self._examples,
        )

    def _sampling(self) -> str | None:
        if self.task.OUTPUT_TYPE != "generate_until":
            return None
        implied = sampling_identity(self.task.config.generation_kwargs or {})
        return json.dumps(implied, sort_keys=True) if implied else None

    @property
    def request_kind(self) -> str:
        """The kind of its requests (collectors.engines.KINDS): lm-eval asks choices by their log-likelihoods."""
        kind = self.settings.output_type
        return "loglikelihood" if kind == "multiple_choice" else kind

    @property
    def tokens_needed(self) -> int:
        """The context that an item may need, tokens: the longest answer, and an estimate of the longest prompt.

        The estimate takes three bytes for a token, and examples that are as long as the longest item.
        """
        answer: int = 1
        if self.request_kind == "generate_until":
            settings = {**(self.task.config.generation_kwargs or {}), **self.spec.decoding}
            answer = answer_limit(settings)
        prompt: int = self.longest * (1 + self.settings.num_fewshot) // 3
        return answer + prompt + PROMPT_MARGIN

    def item_table(self) -> pa.Table:
        """Returns all items of the task, whatever a run's limit, as rows of schemas.records.ITEM."""
        settings = self.settings
        rows = [
            {
                "task": self.name,
                "items_digest": settings.items_digest,
                "item": i,
                "item_hash": self.hashes[i],
                "prompt": self.question(doc),
                "target": self.target(doc),
                "choices": self.choices(doc),
                "subject": next((str(doc[k]) for k in ("subject", "category", "topic") if doc.get(k)), None),
                "doc": json.dumps(plain(doc), ensure_ascii=False),
                "content_hash": document_hash(doc),
                "source_key": None,
            }
            for i, doc in enumerate(self.docs)
        ]
        return pa.Table.from_pylist(rows, schema=ITEM)

    def question(self, doc: Any) -> str | None:
        """The document's text as the task renders it, without few-shot examples; None where the choices contain it."""
        text = self._read("doc_to_text", doc)
        return text if isinstance(text, str) else None  # winogrande gives an index into the choices

    def target(self, doc: Any) -> str | None:
        """The reference answer as JSON; None where the task has none or cannot read it."""
        try:
            target = plain(self._read("doc_to_target", doc))
        except NoContentError:
            return None
        return None if target is None else json.dumps(target, ensure_ascii=False)

    def choices(self, doc: Any) -> list[str] | None:
        """The document's answer choices; None for free-form tasks, and where the task cannot read them."""
        if not getattr(self.task.config, "doc_to_choice", None):
            return None
        choices = self._read("doc_to_choice", doc)
        return None if choices is None else [str(choice) for choice in choices]

    def _read(self, name: str, doc: Any) -> Any:
        try:
            return getattr(self.task, name)(doc)
        except Exception as error:  # a document that the task's code cannot read must not end the run
            logger.warning("task %s: %s failed: %r", self.name, name, error)
            return None


def _threshold(metric: str) -> float | None:
    return CORRECT_THRESHOLD if metric.startswith(UNIT_METRICS) else None


def answer_limit(settings: Mapping[str, Any]) -> int:
    """The limit of an answer's tokens by a task's generation settings, which may have wrong values."""
    for name in ("max_gen_toks", "max_tokens", "max_new_tokens"):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            if value := int(settings.get(name) or 0):
                return value
    return DEFAULT_MAX_GEN_TOKENS


def _whole(value: Any) -> Any:
    """Returns `value` with whole floats as integers, since a config may write 1.0 or 1."""
    if isinstance(value, dict):
        return {k: _whole(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_whole(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def use_datasets(folder: str | None) -> None:
    """Makes this process read items from a prepared HF datasets cache instead of the hub.

    The cache is copied to this machine once, because `datasets` writes lock files beside the data. Raises ConfigError
    when `folder` does not exist or cannot be copied.
    """
    if folder is None:
        return
    source = Path(os.path.expanduser(folder))
    if not source.is_dir():
        raise ConfigError(f"datasets: no folder {folder}; leave the key out to read from the hub")
    try:
        files = sorted(f for f in source.rglob("*") if f.is_file() and not f.name.endswith(".lock"))
        key = digest([(str(f.relative_to(source)), f.stat().st_size, f.stat().st_mtime_ns) for f in files])
        target = cache_dir("datasets") / key
        if not target.is_dir():
            try:
                with replacing(target) as copy:
                    ignore = shutil.ignore_patterns("*.lock")
                    shutil.copytree(source, copy, ignore=ignore, ignore_dangling_symlinks=True)
            except OSError:
                if not target.is_dir():  # no other process was faster
                    raise
    except OSError as error:
        raise ConfigError(f"datasets: {folder} cannot be copied to this machine's cache: {one_line(error)}") from error
    datasets.config.HF_DATASETS_CACHE = target
    datasets.config.HF_HUB_OFFLINE = datasets.config.HF_DATASETS_OFFLINE = True


def load_tasks(spec: TaskSpec, include: list[str]) -> tuple[list[BoundTask], dict[str, TaskError]]:
    """Loads the task that `spec` names, or every task of that group; also returns the errors of failed tasks by name.

    Raises TaskError when the name itself cannot be loaded or stands for no task, and ConfigError when `spec` names a
    metric or filter that a task lacks.
    """
    loaded, groups, failed = _load(manager_of(spec.task, include), spec.task)
    bound = []
    for name, task in loaded.items():
        try:
            bound.append(_bind(task, spec.model_copy(update={"task": name})))
        except TaskError as error:
            failed[name] = error
    for one in bound:
        one.groups = groups
    if not bound and not failed:
        raise TaskError(f"group {spec.task} has no tasks", kind="empty_task")
    return bound, failed


def _bind(task: Any, spec: TaskSpec) -> BoundTask:
    try:
        return BoundTask(task, spec)
    except NoContentError as error:
        raise TaskError(f"task {spec.task}: {error}", "multimodal") from error
    except RouterlakeError:
        raise
    except (Exception, SystemExit) as error:  # documents, metrics and settings come from the task's own code
        raise TaskError(f"task {spec.task} cannot be read: {one_line(error)}") from error


def load_like(spec: TaskSpec, group: str, prompting: str, include: list[str]) -> BoundTask:
    """Loads a task that another machine planned, and checks that its prompting hash is the same.

    Tries the task's own name, then `group`, its group in the plan: a group may change its tasks' settings. Raises the
    error of the failed load, or TaskError when neither has the planned hash.
    """
    reasons: dict[str, RouterlakeError] = {}
    for name in dict.fromkeys((spec.task, group)):
        try:
            tasks, failed = load_tasks(spec.model_copy(update={"task": name}), include)
        except RouterlakeError as error:  # without its group the task may lack the chosen filter
            reasons[spec.task] = error
            continue
        reasons |= failed
        for bound in (task for task in tasks if task.name == spec.task):
            if bound.settings.prompting == prompting:
                return bound
            reasons.pop(spec.task, None)  # it loads, but with another hash
    raise reasons.get(spec.task) or TaskError(
        f"task {spec.task} is not the one that was planned: lm-eval's version or the data differ between the machines"
    )


class _Lenient(TaskFactory):
    """Builds a group without its broken tasks and keeps their errors; lm-eval would drop the whole group."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: dict[str, BaseException] = {}

    def _build_group_members(self, member_list: list[Any], group_name: str, overrides: Any, registry: Any) -> list[Any]:
        children = []
        for member in member_list:
            name = str(member.get("task") or member.get("group") if isinstance(member, dict) else member)
            try:
                if isinstance(member, str) and member not in registry:
                    raise TaskError(f"lm-eval has no task or group {name!r}, a member of {group_name}", "unknown_task")
                children += super()._build_group_members([member], group_name, overrides, registry)
            except (KeyboardInterrupt, MemoryError):
                raise
            except (Exception, SystemExit) as error:
                self.failed[name] = error
        return children

    def _build_task(self, entry: Any, overrides: dict[str, Any] | None) -> Any:
        # Some tasks shuffle choices with the global generators while they load. lm-eval's seeds are set again for each
        # task, so that the other tasks of a run or group cannot change its items.
        random.seed(0)
        np.random.seed(1234)
        try:
            return super()._build_task(entry, overrides)
        except (KeyboardInterrupt, MemoryError):
            raise
        except (Exception, SystemExit) as error:  # task files run code of their own
            self.failed[entry.name] = _unsafe(entry.name) if _runs_code(entry, overrides) else error
            return Group(name=entry.name)  # an empty group in the task's place


def _unsafe(task: str) -> TaskError:
    return TaskError(f"task {task} runs code that models write, so it is refused", kind="unsafe_code")


def _runs_code(entry: Entry, overrides: dict[str, Any] | None) -> bool:
    """Whether a task that failed to load would be refused anyway, so that its error is not worth mending.

    HumanEval's code loads and tries the metric code_eval when it is imported, and fails where that is missing.
    """
    try:
        config = load_yaml(entry.yaml_path, resolve_func=False) if entry.yaml_path else entry.cfg or {}
    except Exception:  # the first error describes it
        return False
    return {**config, **(overrides or {})}.get("unsafe_code", False) is not False


def _load(manager: TaskManager, name: str) -> tuple[dict[str, Any], list[Group], dict[str, TaskError]]:
    """Returns the tasks by name, the groups that aggregate if no task failed, and the errors by task."""
    manager._factory = factory = _Lenient()
    try:
        with _hub_switch():
            loaded = manager.load([name])
    except (KeyboardInterrupt, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise _task_error(name, error) from error
    groups = [] if factory.failed else [group for group in loaded.get("groups", {}).values() if group.has_aggregation]
    return loaded["tasks"], groups, {task: _task_error(task, error) for task, error in factory.failed.items()}


def _task_error(name: str, error: BaseException) -> TaskError:
    """Turns an error of lm-eval, `datasets` or a task's own code into a TaskError with a kind."""
    if isinstance(error, TaskError):
        return error
    empty = isinstance(error, IndexError | StopIteration)  # no first document, or a JSON file without a line
    if empty and str(error) != "string index out of range":
        return TaskError(f"task {name}: its data set has no items", kind="empty_task")
    if isinstance(error, KeyError) and _raised_in(error) == datasets.dataset_dict.__file__:
        return TaskError(f"task {name}: its data set has no split {error}", kind="no_data")
    offline = bool(datasets.config.HF_DATASETS_OFFLINE)
    missing = isinstance(error, datasets.exceptions.DatasetsError | ConnectionError | FileNotFoundError)
    if missing or (offline and "cache" in str(error)):
        hint = " (only the config's `datasets` folder is read)" if offline else ""
        return TaskError(f"task {name}: its data cannot be read{hint}: {one_line(error)}", kind="no_data")
    return TaskError(f"task {name} cannot be loaded: {one_line(error)}")


def _raised_in(error: BaseException) -> str:
    """The file whose code raised the error."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    return place.tb_frame.f_code.co_filename if place else ""


@contextmanager
def _hub_switch() -> Iterator[None]:
    """Keeps `datasets` off the hub while it loads local data. Models may still come from the hub afterwards.

    The offline switch of `datasets` is not enough: version 5.2 asks the hub for a README first and retries for 30 s.
    """
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = before or datasets.config.HF_HUB_OFFLINE
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _settings(task: Any) -> dict[str, Any]:
    """Returns the task's resolved config without the places of its files on this machine.

    lm-eval 0.4.13 adds the path of the YAML file. The contents of local data files count in the digests of items and
    few-shot examples.
    """
    config: dict[str, Any] = plain(task.config.to_dict(keep_callable=True))
    for key, places in (("metadata", ("config_source",)), ("dataset_kwargs", ("data_files", "data_dir"))):
        if isinstance(config.get(key), dict):
            config[key] = {k: v for k, v in config[key].items() if k not in places}
    return config
