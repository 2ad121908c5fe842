"""Plans a run from a config and a lake: cells, open item ranges, and planning failures.

Owns the plan. It knows earlier runs only by the lake's listing: a committed shard is never planned again.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collectors.engines import KINDS, OF_ENDPOINTS, ModelRef, engine_class, make_engine
from collectors.engines.gpus import GpuClass, gpu_classes
from collectors.harness.chats import chats_of
from collectors.harness.efforts import Effort, efforts_of
from collectors.harness.golds import check_golds
from collectors.harness.index import check_names, hidden_files
from collectors.harness.loading import load_tasks
from collectors.harness.own_code import use_code
from collectors.harness.tasks import BoundTask
from collectors.lake.failure_rows import failure_row
from collectors.lake.holdings import committed
from collectors.lake.item_sets import ItemSets, Range
from collectors.lake.layout import FAILURES, items_name
from collectors.lake.retractions import Retracted, read_retracted
from collectors.lake.store import Lake
from collectors.models.catalog_query import all_of
from collectors.models.pinning import resolve
from collectors.models.placement import ModelSize, need_of, place
from collectors.models.sizes import sizes_of, without_config
from collectors.runs.adapting import ROUND_SHARE, Wanted, first_share
from collectors.runs.cell_settings import CellSettings
from collectors.runs.config import DEFAULT_MAX_LENGTH, RunConfig
from collectors.runs.definitions import other_definitions
from collectors.runs.learned import Table
from collectors.runs.plan import Plan, PlannedCell
from collectors.runs.quarantine import model_digest, quarantined
from collectors.runs.repeating import check_sampled, items_of, with_repeats
from collectors.runs.sampling import Samples, chosen
from collectors.runs.work import Cell
from collectors.specs import ModelSpec, SampleSpec, TaskSpec, Thinking
from schemas.failures import ConfigError, ModelError, TaskError
from schemas.identity import MODEL_IDENTITY, ShardName, cell_identity, new_run_id

logger = logging.getLogger(__name__)

#: Contexts that are worked out are multiples of this, tokens.
CONTEXT_STEP = 1024


def make_plan(
    config: RunConfig,
    lake: Lake,
    *,
    generation: int | None = None,
    retry_failed: bool = False,
    wanted: Wanted | None = None,
) -> Plan:
    """Loads the tasks, pins the models, lists the lake and plans the missing items.

    With a `generation` it plans all items that this generation lacks, whatever older ones hold. Without, it plans the
    items that no generation holds, and adds them to the newest generation of the cell. Models that broke engines before
    (collectors.runs.quarantine) are left out unless `retry_failed`. `wanted` are the items of a later round. Raises
    ConfigError for a mistake in the config. A model or task that cannot be loaded becomes a failure of the plan, and
    the others are planned.
    """
    include = [str(Path(os.path.expanduser(folder)).absolute()) for folder in config.include_tasks]
    use_code(config.allow_code)
    check_names(config.task_specs(), include)
    plan = Plan(new_run_id(), config, [], generation=generation)
    plan.notes += hidden_files([spec.task for spec in config.task_specs()], include)
    models = resolved_models(config, lake, plan)
    loaded = list(_load_tasks(config, include, plan))
    models = _widened(models, loaded, config)
    if config.fleet.gpus:
        plan.gpus = gpu_classes(config.fleet.gpus)
        models = [*_placed(plan, lake, models).values(), *(model for model in models if model.endpoint)]
    retracted = read_retracted(lake)
    shards = committed(lake, retracted)
    wanted = wanted or Wanted(ItemSets(lake))
    plan.item_sets = wanted.sets
    banned = set() if retry_failed else quarantined(lake.names(FAILURES), shards, plan.item_sets.holds)
    samples = Samples(lake, plan.item_sets)
    of_cell = CellSettings(lake, plan.run_id, shards, generation)
    of_cell.read_ahead(models, config.task_specs())
    share = SampleSpec(share=ROUND_SHARE) if wanted.lists else _first_share(config, lake, loaded)
    held = _Lake(shards, retracted, wanted, generation)
    seen: dict[tuple[str, str], str] = {}
    for spec, task in with_repeats(loaded):
        if (task.name, task.settings.prompting) in seen:
            first = seen[task.name, task.settings.prompting]
            both = "" if first == spec.task else f", from {first!r} and {spec.task!r}"
            raise ConfigError(
                f"tasks: {task.name} comes twice with the same prompting{both}: several values of thinking_tokens or "
                "reasoning_effort stand in one list"
            )
        seen[task.name, task.settings.prompting] = spec.task
        plan.items[items_name(task.name, task.settings.items_digest)] = task
        plan.notes += task.notes
        plan.tasks[task.settings.prompting] = task
        if task.groups:
            plan.groups[spec.task] = task.groups
        asked = _Asked.of(spec, task, samples, spec.sample or share)
        for model, effort in _asked(models, task):
            try:
                _check_endpoint(model, task, effort)
                settings = of_cell.of(model, task, asked.items, effort)
                check_sampled(task, settings)
            except (TaskError, ModelError) as error:
                row = failure_row(plan.run_id, error, model=model.name, task=task.name)
                same = {**row, "failed_at": None}
                if all({**other, "failed_at": None} != same for other in plan.failures):  # another effort's
                    plan.failures.append(row)
                continue
            planned = _plan_cell(model, asked, settings, effort, held)
            is_banned = planned.todo and banned and model_digest(model) in banned
            (plan.quarantined if is_banned else plan.cells).append(planned)
    plan.notes += of_cell.notes()
    plan.probe_sets = samples.new
    plan.notes += samples.notes
    if shards:
        plan.notes += other_definitions(plan, lake)
    return plan


def _first_share(config: RunConfig, lake: Lake, loaded: list[tuple[TaskSpec, BoundTask]]) -> SampleSpec | None:
    """The share of each task that a run with `until` asks first; None: the run asks by `sample`."""
    if config.until is None or not loaded:
        return None
    tables = [Table.of(task, items_of(spec, task)) for spec, task in loaded]
    return SampleSpec(share=first_share(lake, tables, config.until.error))


def _widened(models: list[ModelRef], loaded: list[tuple[TaskSpec, BoundTask]], config: RunConfig) -> list[ModelRef]:
    """Gives engines the longest context that a task needs, where the config leaves max_length to us.

    It is no part of a cell's identity, which keeps the default of max_length. What a cell may use of it depends on the
    cell's own task alone (_context).
    """
    if "max_length" in config.model_fields_set:
        return models
    widened = []
    for model in models:
        contexts = (_context(task, effort) for _, task in loaded for effort in _efforts(model, task))
        context = max(contexts, default=0)
        # A shorter one is the model's own, or set for it.
        is_wider = model.max_length == DEFAULT_MAX_LENGTH < context
        widened.append(dataclasses.replace(model, context=context) if is_wider else model)
    return widened


def _check_endpoint(model: ModelRef, task: BoundTask, effort: Effort) -> None:
    """Raises TaskError if the model's endpoint cannot be asked the task."""
    if model.engine is None:
        return
    templated, thought = bool(task.spec.chat_template), effort.thinking_tokens
    reason = engine_class(model.engine).refusal(model, task.request_kind, templated=templated, thought=thought)
    if reason:
        raise TaskError(f"task {task.name} {reason}", "not_answerable")


def _asked(models: list[ModelRef], task: BoundTask) -> Iterator[tuple[ModelRef, Effort]]:
    of_task: list[Effort] | None = None  # most models have no settings of their own, and cells are many
    for model in models:
        if model.thinking is None:
            efforts = of_task = of_task or list(_efforts(model, task))
        else:
            efforts = list(_efforts(model, task))
        yield from ((model, effort) for effort in efforts)


def _efforts(model: ModelRef, task: BoundTask) -> Iterator[Effort]:
    generates = task.request_kind == "generate_until"
    return efforts_of(model.thinking, task.spec, generates=generates, has_template=bool(task.spec.chat_template))


def _context(task: BoundTask, effort: Effort) -> int:
    """The context of a task's cells where no config sets one. Prompts are cut to the default."""
    if task.spec.overlong != "fail":
        return DEFAULT_MAX_LENGTH
    needed = task.tokens_needed + (effort.thinking_tokens or 0)
    return max(DEFAULT_MAX_LENGTH, math.ceil(needed / CONTEXT_STEP) * CONTEXT_STEP)


def resolved_models(config: RunConfig, lake: Lake, plan: Plan) -> list[ModelRef]:
    """The models of the config, pinned. Those that cannot be are among the failures of `plan`."""
    models: dict[tuple[Any, ...], ModelRef] = {}
    for spec, config_json in all_of(lake, config.models):
        if spec.endpoint:
            engine = make_engine(OF_ENDPOINTS, spec.engine)
        else:
            engine = make_engine(config.engine.name, {**config.engine.options, **spec.engine})  # loads no model
        overrides = engine.overrides | ({"trust_remote_code": True} if spec.trust_remote_code else {})
        if spec.endpoint:
            overrides |= spec.endpoint.overrides
        try:
            model = engine.pin(spec, config.dtype, config.max_length)
            model = model or resolve(spec, config.dtype, config.max_length, config_json)
        except ConfigError:
            raise
        except Exception as error:  # whatever a foreign store or config raises, only this model fails
            plan.failures.append(failure_row(plan.run_id, error, model=spec.label))
            continue
        if overrides:
            model = dataclasses.replace(model, overrides=json.dumps(overrides, sort_keys=True))
        model = dataclasses.replace(
            model, group=engine.group(model), memory_gib=spec.memory_gib, thinking=_own_thinking(spec)
        )
        identity = tuple(getattr(model, key) for key in MODEL_IDENTITY)
        if models.setdefault(identity, model) is not model:  # such as "auto" and the dtype that it stands for
            raise ConfigError(f"models: {model.name} comes twice in the same dtype, {model.dtype}; remove one")
    return list(models.values())


def _own_thinking(spec: ModelSpec) -> Thinking | None:
    own = {name: getattr(spec, name) for name in Thinking.model_fields if name in spec.model_fields_set}
    return Thinking.model_construct(**own) if own else None


def place_on(plan: Plan, lake: Lake, gpus: list[GpuClass]) -> list[dict[str, Any]]:
    """Places the models of a plan without GPU classes on `gpus`, the classes of the cluster.

    Removes the cells of models that fit nowhere from the plan. Adds their failures to the plan and returns these rows.
    """
    plan.gpus = gpus
    before = len(plan.failures)
    placed = _placed(plan, lake, list(dict.fromkeys(cell.cell.model for cell in plan.cells if cell.todo)))
    plan.cells = [cell for cell in plan.cells if not cell.todo or cell.cell.model.endpoint or cell.cell.model in placed]
    for cell in plan.cells:
        if cell.todo and cell.cell.model in placed:
            cell.cell = dataclasses.replace(cell.cell, model=placed[cell.cell.model])
    return plan.failures[before:]


def _placed(plan: Plan, lake: Lake, models: list[ModelRef]) -> dict[ModelRef, ModelRef]:
    """Model -> the model with placements on the plan's GPUs, without those of endpoints. Models that fit nowhere become
    failures of the plan."""
    placed = {}
    models = [model for model in models if not model.endpoint]
    for model, size in sizes_of(lake, models, far=True):
        options = {**plan.config.engine.options, **model.options}
        try:
            if isinstance(size, ModelError) and model.memory_gib is None:
                raise size
            size = ModelSize() if isinstance(size, ModelError) else size
            placed[model] = place(model, need_of(model, size), plan.gpus, options)
            plan.sizes[model] = without_config(size)
        except ModelError as error:
            plan.failures.append(failure_row(plan.run_id, error, model=model.name))
    return placed


def _load_tasks(config: RunConfig, include: list[str], plan: Plan) -> Iterator[tuple[TaskSpec, BoundTask]]:
    answers = engine_class(config.engine.name).answers
    for spec in config.task_specs():
        try:
            tasks, failed = load_tasks(spec.model_copy(update={"repeats": None}), include)
        except TaskError as error:
            tasks, failed = [], {spec.task: error}
        plan.failures.extend(failure_row(plan.run_id, error, task=name) for name, error in failed.items())
        for task in tasks:
            try:
                if task.request_kind in KINDS - answers:
                    raise TaskError(
                        f"task {task.name} asks by {task.request_kind}, and engine {config.engine.name} answers only "
                        f"{', '.join(sorted(answers))}",
                        "not_answerable",
                    )
                chats_of(task, 1)  # what fails for the first item would fail in every cell
                task.notes += check_golds(task)
            except TaskError as error:
                plan.failures.append(failure_row(plan.run_id, error, task=task.name))
            else:
                yield spec, task


@dataclass(frozen=True)
class _Asked:
    """Values shared by all cells of one task under one prompting, computed once for up to 8,500 models."""

    spec: TaskSpec
    task: BoundTask
    prompting: str
    #: The columns of RUN_CELL that describe the task.
    columns: dict[str, Any]
    items: int
    requests_per_item: float
    #: The list of the items to ask; None: all.
    sample: str | None = None

    @classmethod
    def of(cls, spec: TaskSpec, task: BoundTask, samples: Samples, sampled: SampleSpec | None) -> _Asked:
        columns = dataclasses.asdict(task.settings)
        for name in ("fewshot_digest", "stated", "sampling", "examples"):
            del columns[name]
        prompting, items = task.settings.prompting, items_of(spec, task)
        if task.spec.repeats and spec.repeats:
            sample = samples.repeated(task, items, spec.repeats)
        else:
            sample = samples.of(task, items, sampled) if sampled else None
        columns["prompting"] = prompting
        return cls(spec, task, prompting, columns, items, _requests_per_item(task), sample)


@dataclass(frozen=True)
class _Lake:
    """What the lake holds of all cells, and the generation that is to be collected."""

    shards: dict[str, list[ShardName]]
    retracted: Retracted
    wanted: Wanted
    generation: int | None
    #: Ranges of open items that many cells share: a list of its own in each takes 200 bytes.
    same: dict[tuple[Range, ...], list[Range]] = field(default_factory=dict)


def _plan_cell(model: ModelRef, asked: _Asked, settings: dict[str, str], effort: Effort, lake: _Lake) -> PlannedCell:
    identity = {key: getattr(model, key) for key in MODEL_IDENTITY}
    cell_id = cell_identity(identity, asked.prompting, settings | effort.settings)
    shards, generation = lake.shards.get(cell_id, []), lake.generation
    newest = lake.retracted.next_generation(cell_id, max((shard.generation for shard in shards), default=0))
    if generation is not None and generation < newest:
        raise ConfigError(
            f"{model.name} on {asked.task.name} has generation {newest} already: use that or a higher one"
        )
    relevant = [shard for shard in shards if generation is None or shard.generation == generation]
    sets, sample = lake.wanted.sets, lake.wanted.lists.get(cell_id, asked.sample)
    open_items = chosen(sets, relevant, asked.items, sample)
    cell = Cell(
        cell_id=cell_id,
        model=model,
        spec=asked.task.spec,
        group=asked.spec.task,
        prompting=asked.prompting,
        generation=newest if generation is None else generation,
        items=asked.items,
        item_set=open_items.item_set,
        context=_context(asked.task, effort) if model.context else None,
        effort=effort,
        **settings,
    )
    return PlannedCell(
        cell,
        asked.columns,
        lake.same.setdefault(tuple(open_items.todo), open_items.todo),
        asked.requests_per_item,
        listed=sets.of(open_items.item_set) if open_items.item_set else None,
        sample=sample or "",
        sampled_items=len(sets.of(sample)) if sample else None,
        open_items=open_items.open,
    )


def _requests_per_item(task: BoundTask) -> float:
    """lm-eval's requests for one item: its choices (mean of the first 20 items) times the repeats."""
    repeats = int(getattr(task.task.config, "repeats", None) or 1)
    if task.settings.output_type != "multiple_choice":
        return repeats
    sample = task.docs[:20]
    return repeats * sum(len(task.choices(doc) or [1]) for doc in sample) / len(sample)
