"""The YAML config of collect.py, checked as a whole before anything starts.

Owns the config's keys, defaults and error messages, except those of one model, task or class of GPUs
(collectors.specs). Looks up no model, and loads no task.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from collectors.engines import ENGINES
from collectors.runs.task_files import is_task_file, read_task_file
from collectors.runs.work import DEFAULT_CONTEXT
from collectors.specs import (
    CatalogSpec,
    Dtype,
    GpuSpec,
    ModelSpec,
    Prompting,
    RepeatsSpec,
    SampleSpec,
    Settings,
    Strict,
    TaskSpec,
    ThinkingSpec,
    UntilSpec,
    in_environment,
)
from schemas.failures import ConfigError, one_line
from schemas.texts import holds_keys, without_keys


def _kind_of_entry(value: Any) -> str:
    is_catalog = isinstance(value, CatalogSpec) or (isinstance(value, dict) and "catalog" in value)
    return "<catalog>" if is_catalog else "<model>"


#: An entry of `models`. pydantic needs the tags; error messages leave them out.
ModelEntry = Annotated[
    Annotated[ModelSpec, Tag("<model>")] | Annotated[CatalogSpec, Tag("<catalog>")], Discriminator(_kind_of_entry)
]


class EngineSpec(Strict):
    """The engine of all models."""

    #: One of collectors.engines.ENGINES.
    name: str = "vllm"
    #: Options of the engine, such as max_num_seqs: the class …Options in its module of collectors/engines/. The stub's
    #: are latency and faults, such as {latency_s: 0.1, fail_load: ["org/*"], crash_after: 100}.
    options: Settings = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in ENGINES:
            raise ValueError(f"should be one of {', '.join(ENGINES)} (got {reprlib.repr(name)})")
        return name


def _four_digits(value: float) -> float:
    if round(value, 4) != value:
        raise ValueError("has more than four digits after the point, and Ray divides no finer")
    return value


Share = Annotated[float, AfterValidator(_four_digits)]


class FleetSpec(Strict):
    """The engines that run side by side, and their machines."""

    #: Number of engines; null: one per GPU of the cluster, or one per CPU core without GPUs, at most one per model.
    workers: int | None = Field(None, ge=1)
    #: Most engines at once, to leave slots of a cluster to others. Unlike `workers` it asks for no nodes. null: no
    #: limit.
    slots: int | None = Field(None, ge=1)
    #: Among runs on one cluster, those of a lower priority give their slots back after their shards while this one
    #: waits.
    priority: int = Field(0, ge=-1000, le=1000)
    #: Most models that are fetched at once, over all nodes. null: no limit.
    downloads: int | None = Field(None, ge=1)
    #: CPU cores that one engine takes of its node.
    cpus_per_worker: Share = Field(1, gt=0)
    #: null: 1 when the cluster has GPUs, else 0. Fractions share a GPU.
    gpus_per_worker: Share | None = Field(None, ge=0)
    #: Classes of GPUs, such as [L4, {name: A100, memory_gib: 79, per_node: 8}]. Each model gets the smallest placement
    #: that it fits: part of a GPU, one, or several. null: the classes of the cluster's nodes, unless gpus_per_worker
    #: gives all models the same.
    gpus: list[GpuSpec] | None = Field(None, min_length=1)
    #: Seconds of work that one shard should hold.
    shard_seconds: float = Field(60, gt=0)
    #: Items of a cell's first shard, before its speed is known.
    first_shard_items: int = Field(64, ge=1, le=4096)
    #: Seconds after which a shard is given up, the load of its model included. Its engine is ended, and another one
    #: tries the shard once more.
    stall_seconds: float = Field(3600, gt=0)
    #: Seconds to wait for a store or hub that does not answer, or a disk that is full, before the run gives up.
    patience_seconds: float = Field(900, ge=0)
    #: Seconds to wait for a node that could hold an engine if no node of the cluster could, and its autoscaler has no
    #: group of such nodes. Then the models that need it fail, or the run if no engine is at work.
    node_seconds: float = Field(900, ge=0)
    #: GiB of fetched models that each node keeps. Models used longest ago go first, never one in use. null: the node's
    #: $ROUTERLAKE_DISK_GIB, else four fifths of its disk's free space, theirs included.
    disk_gib: float | None = Field(None, ge=0)
    #: Whether the run folds the lake's shards into few files as it goes, when a thousand or more are open. Readers of a
    #: long run get faster; a file of views (matrix.duckdb) has to be written anew after a fold.
    compact: bool = True
    #: Address of a Ray cluster; null: the job's own cluster inside `ray job submit`, else a new one here.
    address: str | None = None

    @field_validator("gpus", mode="before")
    @classmethod
    def _short_gpus(cls, value: Any) -> Any:
        return [{"name": gpu} if isinstance(gpu, str) else gpu for gpu in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_way(self) -> FleetSpec:
        if self.gpus is not None and self.gpus_per_worker is not None:
            raise ValueError("gpus and gpus_per_worker: give one; with gpus each model's memory decides")
        names = [gpu.name for gpu in self.gpus or ()]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"gpus: {twice} is given twice")
        return self


class BudgetSpec(Strict):
    """Limits of all runs under one name. At a limit a run finishes the shards in hand and ends. To go on, raise the
    limit or give another name.
    """

    #: Runs on this lake whose budgets have the same name spend from one budget.
    name: str = Field("lake", min_length=1)
    #: Dollars for GPUs, from the start of an engine's process to its end, by the lake's gpu_prices.
    usd: float | None = Field(None, gt=0)
    #: Hours of runs, each from the request for its engines.
    hours: float | None = Field(None, gt=0)
    #: Finished cells.
    cells: int | None = Field(None, ge=1)
    #: Dollars of one run for one model. A model that has spent them is given up.
    model_usd: float | None = Field(None, gt=0)
    #: Hours that the engines of one run have one model, added up.
    model_hours: float | None = Field(None, gt=0)


#: The context of a run that sets none, as a cell's identity has it, tokens.
DEFAULT_MAX_LENGTH = DEFAULT_CONTEXT


class RunConfig(Prompting):
    """The whole config file."""

    #: What answers: sources (a folder, a URI or a hub repo), mappings, and catalogs.
    models: list[ModelEntry] = Field(min_length=1)
    #: What is asked: names of lm-eval's tasks and groups, and mappings.
    tasks: list[TaskSpec] = Field(min_length=1)
    #: Folder or URI that gets the records; $NAME and ${NAME} come from the environment.
    lake: str = "lake"
    #: Type of the weights while they are used: auto (the model's own), bfloat16, float16 or float32.
    dtype: Dtype = "auto"
    #: Longest context in tokens, question and answer together; null, or more than a model has: the model's own. Its
    #: key-value cache may not fit: 131,072 tokens of an 8B model take 16 GiB. Unset it is 8192, or more where a task
    #: needs more. `overlong` decides about prompts that do not fit.
    max_length: int | None = Field(DEFAULT_MAX_LENGTH, ge=1, lt=2**31)
    #: Most items of each task; null: all.
    limit: int | None = Field(None, ge=1)
    #: The part of them to ask, such as {share: 0.1} or {items: 20}: a later run without it asks only the rest. null:
    #: all.
    sample: SampleSpec | None = None
    #: Several answers to a part of them, such as {times: 10, share: 0.05}, beside one for each: the view oracle_heldout
    #: tells by them what of an oracle is luck. Answers have to be sampled (decoding: {temperature: 0.7}). null: none.
    repeats: RepeatsSpec | None = None
    #: When enough was asked, such as {error: 0.02}; `sample` is then asked first. null: when all of it was asked.
    until: UntilSpec | None = None
    #: Folder of a prepared HF datasets cache, to read items from instead of the hub.
    datasets: str | None = None
    #: Folders with lm-eval task files of your own, or one folder; `include_path`, lm-eval's word, is the same. The path
    #: of a task's own YAML file may stand in `tasks`, too.
    include_tasks: list[str] = Field(default_factory=list)
    #: Whether code of these folders runs: `!function`, and metrics that lm-eval lacks. It runs while planning, too.
    allow_code: bool = False
    engine: EngineSpec = EngineSpec()
    fleet: FleetSpec = FleetSpec()
    budget: BudgetSpec = BudgetSpec()

    @model_validator(mode="before")
    @classmethod
    def _own_tasks(cls, value: Any) -> Any:
        """Takes include_path, one folder as a text, and the paths of task files."""
        if not isinstance(value, dict):
            return value
        value = dict(value)
        given = [value.pop(key) for key in ("include_tasks", "include_path") if key in value]
        if not all(isinstance(one, str | list) for one in given):
            return {**value, "include_tasks": given[0]}
        folders = [folder for one in given for folder in ([one] if isinstance(one, str) else one)]
        tasks = value.get("tasks")
        entries = [tasks] if isinstance(tasks, str) else tasks
        if isinstance(entries, list):
            files: dict[str, str] = {}
            value["tasks"] = [_own_task(entry, folders, files) for entry in entries]
        return {**value, "include_tasks": folders} if folders or given else value

    @field_validator("models", mode="before")
    @classmethod
    def _short_models(cls, value: Any) -> Any:
        return [{"source": m} if isinstance(m, str) else m for m in value] if isinstance(value, list) else value

    @field_validator("engine", mode="before")
    @classmethod
    def _short_engine(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("tasks", mode="before")
    @classmethod
    def _short_tasks(cls, value: Any) -> Any:
        return [{"task": t} if isinstance(t, str) else t for t in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _no_duplicates(self) -> RunConfig:
        seen: dict[Any, str] = {}
        for model in self.models:
            if isinstance(model, CatalogSpec):
                continue  # a named model takes precedence over the same model of a catalog
            key = (model.label, model.dtype or self.dtype, model.quantization, model.max_length or self.max_length)
            if key in seen:
                raise ValueError(
                    f"models: the name {model.label!r} is given to both {seen[key]!r} and {model.source!r}; "
                    "remove one, or give one another `name`"
                )
            seen[key] = model.source
        return self

    @model_validator(mode="after")
    def _repeats_apart(self) -> RunConfig:
        if self.until and any(task.repeats for task in self.task_specs()):
            raise ValueError("repeats: the rounds of `until` ask for one answer each; give repeats to a run without it")
        return self

    @field_validator("include_tasks")
    @classmethod
    def _without_keys(cls, value: list[str]) -> list[str]:
        if any(map(holds_keys, value)):
            raise ValueError("holds a user, query or token: only folders of this machine are read")
        return value

    @field_validator("lake", "datasets")
    @classmethod
    def _is_set(cls, value: str | None) -> str | None:
        if value is not None:
            in_environment(value)
        return value

    @property
    def lake_uri(self) -> str:
        """`lake` with $NAME and ${NAME} from the environment, which is not stored."""
        return in_environment(self.lake)

    @property
    def datasets_folder(self) -> str | None:
        """`datasets` in the same way."""
        return None if self.datasets is None else in_environment(self.datasets)

    def task_specs(self) -> list[TaskSpec]:
        """The tasks with every unset prompting key and limit filled in from the run."""
        shared = {key: getattr(self, key) for key in (*Prompting.model_fields, "limit", "sample", "repeats")}
        return [
            task.model_copy(update={k: v for k, v in shared.items() if k not in task.model_fields_set})
            for task in self.tasks
        ]


def _own_task(entry: Any, folders: list[Any], files: dict[str, str]) -> Any:
    """An entry of `tasks`; of a task file its name. Adds the file's folder to `folders`, and its path to `files`."""
    name = entry.get("task") if isinstance(entry, dict) else entry
    if not is_task_file(name):
        return entry
    task, folder = read_task_file(str(name))
    if files.setdefault(task, str(name)) != str(name):
        raise ValueError(f"tasks: {files[task]} and {name} both define the task {task}; rename one in its file")
    if folder not in folders:
        folders.append(folder)
    return {**entry, "task": task} if isinstance(entry, dict) else task


def load_config(path: str, overrides: dict[str, Any] | None = None) -> RunConfig:
    """Reads and checks a config file; `overrides` replace top-level keys.

    Raises ConfigError with one line per fault: the file, the key and the fault.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config {path}: {error}") from error
    try:
        data = yaml.load(text, Loader=_UniqueKeys)
    except Exception as error:  # yaml's constructors raise Python's errors: ValueError for the date 2024-13-01
        raise ConfigError(f"{path} is not valid YAML: {one_line(error)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: the config must be a mapping with models: and tasks:")
    if wrong := list(_surrogates(data, "", set())):
        raise ConfigError("\n".join(f"{path}: {place}: holds a surrogate, half of a character" for place in wrong))
    try:
        return RunConfig.model_validate({**data, **(overrides or {})})
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_explain(e)}" for e in error.errors())) from error


def _surrogates(value: Any, place: str, seen: set[int]) -> Iterator[str]:
    """Yields the places of texts with surrogates, such as YAML's "\\ud800", which no file can hold.

    `seen` has the ids of lists and mappings that were searched already, since aliases repeat them.
    """
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            yield place
    elif isinstance(value, dict | list) and id(value) not in seen:
        seen.add(id(value))
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            where = f"{place}.{_shown(key)}".removeprefix(".")
            yield from _surrogates(key, where, seen)
            yield from _surrogates(part, where, seen)


def _shown(key: Any) -> str:
    """A key as part of a place, escaped if it cannot be printed."""
    return str(key) if str(key).isprintable() else repr(key)


#: Most values of a config, with those that its aliases repeat: nine lines of nested aliases can stand for 10⁹.
MAX_VALUES = 1_000_000


def _values(node: yaml.Node, counts: dict[int, int]) -> int:
    """Counts the values of `node` with its aliases written out. `counts` keeps the counts of nodes by id."""
    if id(node) not in counts:
        counts[id(node)] = 1  # an alias inside its own anchor
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        children = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
        counts[id(node)] = 1 + sum(_values(child, counts) for child in children)
    return counts[id(node)]


class _UniqueKeys(yaml.SafeLoader):
    """Loads YAML, with an error for a key that is given twice. Merged keys (<<) may be overridden."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _values(node, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MAX_VALUES:,} values")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.YAMLError(f"key {key.value!r} is given twice, near line {key.start_mark.line + 1}")
            seen.add(name)
        return node


def _explain(error: Any) -> str:
    """Describes pydantic's error in one line: the key and its fault."""
    place = ".".join(_shown(part) for part in error["loc"] if str(part)[:1] != "<")
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key; {_advice(error['loc'])}"
    if error["type"] == "missing":
        return f"{place}: this key is missing"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}" if place else str(error["ctx"]["error"])
    given = _SHORT.repr(error["input"])
    if error["type"] == "model_type":
        keys = sorted(_level(error["loc"]).model_fields)
        return f"{place}: should be a mapping of {', '.join(keys)} (got {given})"
    return f"{place}: {error['msg'][0].lower()}{error['msg'][1:]} (got {given})"


#: Where a key stands, without numbers -> the class with the keys of that place.
_LEVELS: dict[tuple[str, ...], type[BaseModel]] = {
    (): RunConfig,
    ("tasks",): TaskSpec,
    ("models", "<model>"): ModelSpec,
    ("models", "<catalog>"): CatalogSpec,
    ("engine",): EngineSpec,
    ("fleet",): FleetSpec,
    ("fleet", "gpus"): GpuSpec,
    ("budget",): BudgetSpec,
    ("sample",): SampleSpec,
    ("repeats",): RepeatsSpec,
    ("until",): UntilSpec,
    ("thinking",): ThinkingSpec,
}


def _advice(loc: tuple[Any, ...]) -> str:
    """What an unknown key may mean, or the keys that its place has."""
    key = str(loc[-1])
    keys = sorted(_level(loc[:-1]).model_fields)
    near = difflib.get_close_matches(key, keys, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(keys)}"


def _level(loc: tuple[Any, ...]) -> type[BaseModel]:
    """The class with the keys of a place."""
    place = tuple(str(part) for part in loc if not isinstance(part, int))
    return _LEVELS.get(place) or _LEVELS.get(place[-1:]) or RunConfig


class _Short(reprlib.Repr):
    """A value in few characters, without keys: half of an address is not seen to hold one."""

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(without_keys(x), level)


_SHORT = _Short()
