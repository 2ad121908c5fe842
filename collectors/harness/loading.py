"""Loads lm-eval's tasks by name, alone or as a group's, and turns what goes wrong into TaskErrors.

Owns the loading: lm-eval's factory, the data sets' folder, and the errors. tasks.py owns loaded tasks.
"""

from __future__ import annotations

import contextvars
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import datasets
import huggingface_hub.constants as hub
import numpy as np
from lm_eval.api.group import Group
from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry
from lm_eval.tasks._yaml_loader import load_yaml

from collectors.atomic import replacing
from collectors.cache import cache_dir
from collectors.harness.bounds import check_data
from collectors.harness.code_eval import in_sandbox, is_allowed
from collectors.harness.documents import NoContentError
from collectors.harness.index import manager_of
from collectors.harness.own_code import is_shipped, loading, refusal
from collectors.harness.tasks import BoundTask, unsafe_error
from collectors.specs import TaskSpec
from schemas.failures import ConfigError, RouterlakeError, TaskError, one_line
from schemas.identity import digest

#: Each load would tell a server so, for its counts of downloads: without a network that waits five seconds a task.
if "HF_UPDATE_DOWNLOAD_COUNTS" not in os.environ:
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False

datasets.logging.set_verbosity_error()  # else two warnings per task about a local cache


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
    with in_sandbox(spec.code == "sandbox"):
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
        if reason := refusal(error):
            raise TaskError(f"task {spec.task} {reason}", "unsafe_code") from error
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


#: Keys laid over the config of each task that is built.
_over: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("over", default=None)


@contextmanager
def building(over: dict[str, Any]) -> Iterator[None]:
    """Lays `over` over the configs of tasks that are built inside. Their data is not checked: they get none."""
    token = _over.set(over)
    try:
        yield
    finally:
        _over.reset(token)


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
            if (over := _over.get()) is not None:
                overrides = {**(overrides or {}), **over}
            elif entry.yaml_path and not is_shipped(entry.yaml_path):
                check_data(entry.name, entry.yaml_path.parent, _config_of(entry, overrides))
            with loading(entry.yaml_path):
                return super()._build_task(entry, overrides)
        except (KeyboardInterrupt, MemoryError):
            raise
        except (Exception, SystemExit) as error:  # task files run code of their own
            is_refused = not is_allowed() and _runs_code(entry, overrides)
            self.failed[entry.name] = unsafe_error(entry.name) if is_refused else error
            return Group(name=entry.name)  # an empty group in the task's place


def _config_of(entry: Entry, overrides: dict[str, Any] | None) -> dict[str, Any]:
    """The task's file, without the code that it names."""
    config = load_yaml(entry.yaml_path, resolve_func=False) if entry.yaml_path else entry.cfg or {}
    return {**config, **(overrides or {})}


def _runs_code(entry: Entry, overrides: dict[str, Any] | None) -> bool:
    """Whether a task that failed to load would be refused anyway, so that its error is not worth mending.

    HumanEval's code loads and tries the metric code_eval when it is imported, and fails where that is missing.
    """
    try:
        return _config_of(entry, overrides).get("unsafe_code", False) is not False
    except Exception:  # the first error describes it
        return False


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
    if reason := refusal(error):
        return TaskError(f"task {name} {reason}", "unsafe_code")
    if isinstance(error, TaskError):
        return error
    frame = _raising(error)
    if isinstance(error, IndexError) and frame and isinstance(frame.f_locals.get("test_target"), int):
        # lm-eval looks at the first document's right answer while it loads a task
        what = f"doc_to_target gives {frame.f_locals['test_target']}, and its first item has no such choice"
        return TaskError(f"task {name}: {what}")
    empty = isinstance(error, IndexError | StopIteration)  # no first document, or a JSON file without a line
    if empty and str(error) != "string index out of range":
        return TaskError(f"task {name}: its data set has no items", kind="empty_task")
    if isinstance(error, KeyError) and frame and frame.f_code.co_filename == datasets.dataset_dict.__file__:
        return TaskError(f"task {name}: its data set has no split {error}", kind="no_data")
    offline = bool(datasets.config.HF_DATASETS_OFFLINE)
    missing = isinstance(error, datasets.exceptions.DatasetsError | ConnectionError | FileNotFoundError)
    if missing or (offline and "cache" in str(error)):
        hint = " (only the config's `datasets` folder is read)" if offline else ""
        if isinstance(error, FileNotFoundError) and os.getcwd() in str(error):
            hint = " (relative paths begin at the folder that the command is run from, as in lm-eval)"
        first = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        return TaskError(f"task {name}: its data cannot be read{hint}: {one_line(first or error)}", kind="no_data")
    if "malformed node or string" in str(error):  # ast.literal_eval of doc_to_choice, which is no template
        return TaskError(
            f"task {name} cannot be loaded: its doc_to_choice is neither a column of the documents nor a list"
        )
    return TaskError(f"task {name} cannot be loaded: {one_line(error)}")


def _raising(error: BaseException) -> FrameType | None:
    """The frame whose code raised the error."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    return place.tb_frame if place else None


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
