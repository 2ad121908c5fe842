"""A loaded task of lm-eval: its documents, its settings and the digests that identify them.

Owns the resolved task config, the items table and the settings that make up a cell's prompting. loading.py loads tasks.
Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import lm_eval.utils
import pyarrow as pa
from lm_eval.api.group import Group

from collectors.harness.aggregations import aggregation_name, primary_metric
from collectors.harness.documents import NoContentError, doc_hash, hash_and_size, plain
from collectors.harness.evaluating import runs_answers, runs_in_sandbox
from collectors.harness.examples import guard, is_fallback
from collectors.harness.needs import check_needs
from collectors.harness.own_code import refusal
from collectors.harness.sampling import sampling_identity
from collectors.specs import RepeatsSpec, TaskSpec
from schemas.content import document_hash
from schemas.failures import ConfigError, TaskError
from schemas.identity import content_hash, digest
from schemas.records import ITEM
from schemas.verdicts import CORRECT_THRESHOLD, MEAN, UNIT_METRICS, is_set_level

logger = logging.getLogger(__name__)

#: lm-eval's default when a task sets no limit on generated tokens.
DEFAULT_MAX_GEN_TOKENS = 256
#: Tokens of a prompt beside its documents: instructions, chat template, system prompt.
PROMPT_MARGIN = 512

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
    def once(self) -> TaskSettings:
        """The settings with one answer to each item, of the cell that one with repeats stands beside."""
        return dataclasses.replace(self, decoding=json.dumps(decoding_of(self.decoding), sort_keys=True))

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
            _check_sandboxed(task, spec)
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
        self._repeat()
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

    def repeated(self, times: int) -> BoundTask:
        """The task as it is bound with `repeats`, with the same documents and examples."""
        other = copy.copy(self)
        other.task = copy.copy(self.task)
        other.task._config = copy.copy(self.task._config)
        # Of all items: a cell says which of them it asks, and a list of ids would go to the workers with each shard.
        other.spec = self.spec.model_copy(update={"repeats": RepeatsSpec(times=times, share=1.0)})
        other._repeat()
        other.settings = dataclasses.replace(self.settings, decoding=other._decoding())
        other.groups, other.notes = [], []
        return other

    def _repeat(self) -> None:
        if self.spec.repeats:
            self.task.set_config(key="repeats", value=self.spec.repeats.times)

    def _decoding(self) -> str:
        """JSON of the settings that are laid over the task's, and of the number of repeats, which no others have."""
        given = _whole(self.spec.decoding) if self.task.OUTPUT_TYPE == "generate_until" else {}
        more = {"repeats": self.spec.repeats.times} if self.spec.repeats else {}
        return json.dumps({**given, **more}, sort_keys=True)

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
            decoding=self._decoding(),
            metric=_name_of_value(task, metric),
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

    @functools.cached_property
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

    @functools.cached_property
    def margin(self) -> int:
        """Tokens of a prompt beside its documents: fewer than PROMPT_MARGIN where only texts of the task are added."""
        texts = (self.task.config.description or "", self.task.config.doc_to_text)
        if self.spec.chat_template or self.spec.system_prompt or not all(isinstance(text, str) for text in texts):
            return PROMPT_MARGIN
        return min(PROMPT_MARGIN, sum(len(text.encode()) for text in texts) * (1 + self.settings.num_fewshot) // 3)

    @functools.cached_property
    def contents(self) -> list[str | None]:
        """The content hash of each document (see schemas.identity.content_hash)."""
        return [document_hash(doc) or self._rendered_hash(doc) for doc in self.docs]

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
                "content_hash": self.contents[i],
                "source_key": None,
            }
            for i, doc in enumerate(self.docs)
        ]
        return pa.Table.from_pylist(rows, schema=ITEM)

    def question(self, doc: Any) -> str | None:
        """The document's text as the task renders it, without few-shot examples; None where the choices contain it."""
        text = self._read("doc_to_text", doc)
        return text if isinstance(text, str) else None  # winogrande gives an index into the choices

    def _rendered_hash(self, doc: Any) -> str | None:
        """The content hash of a document of a shape that schemas.content does not know: of its text as it is asked.

        So a table of others' answers that holds this text meets it. None where no text is asked.
        """
        text = self.question(doc)
        return content_hash(text, self.choices(doc) or ()) if text and text.strip() else None

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
            if reason := refusal(error):
                raise TaskError(f"task {self.name} {reason}", "unsafe_code") from error
            logger.warning("task %s: %s failed: %r", self.name, name, error)
            return None


def _check_sandboxed(task: Any, spec: TaskSpec) -> None:
    """Raises TaskError for a task that runs answers, unless `spec` allows it in the sandbox and it does so there."""
    if spec.code != "sandbox":
        raise unsafe_error(task.task_name)
    if not runs_in_sandbox(task):
        raise TaskError(
            f"task {task.task_name} runs answers by code of its own, and only the metric code_eval runs them in the "
            "sandbox, so it is refused",
            kind="unsafe_code",
        )


def unsafe_error(task: str) -> TaskError:
    """The error of a task that is refused because an answer of it would be run."""
    return TaskError(
        f"task {task} runs code that models write, so it is refused; code: sandbox at the task runs it where it "
        "reaches nothing",
        kind="unsafe_code",
    )


def decoding_of(column: str | None) -> dict[str, Any]:
    """The generation settings in the column decoding, which may hold a number of repeats beside them."""
    settings: dict[str, Any] = json.loads(column or "{}")
    settings.pop("repeats", None)
    return settings


def _name_of_value(task: Any, metric: str) -> str:
    """The name under which a metric's value stands in an item's metrics: pass_at_k gives one value for each k."""
    sizes = getattr(task, "_metric_fn_kwargs", {}).get(metric, {}).get("k")
    sizes = [sizes] if isinstance(sizes, int) else sizes
    return f"pass@{sizes[0]}" if metric == "pass_at_k" and sizes else metric


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
