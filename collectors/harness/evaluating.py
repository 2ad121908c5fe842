"""Finds tasks whose judging would run a model's answer: as Python, by a shell or by a compiler.

Owns the functions that must not meet an answer, and the walk to them from a task's filters, metrics and judging code.
The walk goes through functions of lm-eval and of the task's own files, by the objects that their names stand for, so an
alias hides nothing. Libraries are not walked: math-verify, for one, hands Python only numbers and operators.
"""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api.task import ConfigurableTask

_OF_OS = [f"{verb}{form}" for verb in ("exec", "spawn") for form in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")]

#: Functions that run a text, by module and name; a name of `*` stands for all functions of the module.
SINKS = {
    "builtins": ("eval", "exec", "compile", "__import__"),
    "code": ("*",),
    "cloudpickle": ("load", "loads"),
    "cloudpickle.cloudpickle": ("load", "loads"),
    "dill": ("load", "loads"),
    "dill._dill": ("load", "loads"),
    "joblib": ("load",),
    "marshal": ("load", "loads"),
    "nt": ("system",),
    "numexpr": ("evaluate",),
    "numexpr.necompiler": ("evaluate",),
    "os": ("popen", "system", *_OF_OS),
    "pandas": ("eval", "read_pickle"),
    "pandas.core.computation.eval": ("eval",),
    "pandas.io.pickle": ("read_pickle",),
    "pickle": ("load", "loads", "_load", "_loads"),
    "_pickle": ("load", "loads"),
    "posix": ("system", "execv", "execve", "posix_spawn", "posix_spawnp", *_OF_OS),
    "pty": ("spawn",),
    "runpy": ("*",),
    "subprocess": ("*",),
    "sympy": ("S", "sympify", "parse_expr"),
    "sympy.core.sympify": ("sympify", "_sympify"),
    "sympy.parsing": ("parse_expr",),
    "sympy.parsing.sympy_parser": ("parse_expr", "eval_expr", "evaluateFalse"),
    "timeit": ("*",),
    "torch": ("load",),
    "yaml": ("unsafe_load", "unsafe_load_all"),
    "yaml.loader": ("FullLoader", "Loader", "UnsafeLoader"),
}
#: Metrics of the library `evaluate` that run the answers.
RUNNING_METRICS = ("code_eval", "apps_metric", "code_eval_octopack")

#: The module with what runs such an answer in a sandbox: the walk ends there.
STAND_IN = "collectors.harness.code_eval"

_LM_EVAL = Path(lm_eval.__file__).parent
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def runs_answers(task: Any) -> str | None:
    """Returns the name of a function that would run an answer of this lm-eval task; None without one."""
    return reached(judging_code(task))


def runs_in_sandbox(task: Any) -> bool:
    """Whether this lm-eval task hands answers to the stand-in of code_eval."""
    return any(_is_stand_in(one) for one in _walk(judging_code(task)))


def judging_code(task: Any) -> Iterator[Any]:
    """Yields what lm-eval calls with an answer of `task`: filters, judging function, metrics and aggregations."""
    for ensemble in task._filters:
        yield from ensemble.filters
    own = getattr(task.config, "process_results", None)
    if callable(own):
        yield own
    for method in ("process_results", "apply_filters", "aggregation"):
        if getattr(type(task), method, None) is not getattr(ConfigurableTask, method):
            yield getattr(task, method)
    for functions in (getattr(task, "_metric_fn_list", {}), getattr(task, "_aggregation_list", {})):
        yield from (function for function in functions.values() if function is not None)


def reached(roots: Iterable[Any]) -> str | None:
    """Returns the first of SINKS that any of `roots` reaches, as 'module.function'; None without one."""
    return next(filter(None, map(_sink, _walk(roots))), None)


def _walk(roots: Iterable[Any]) -> Iterator[Any]:
    """Yields each object that `roots` reach, once."""
    waiting, seen = list(roots), set[int]()
    kept = []  # an id is unique as long as its object lives
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        kept.append(one)
        yield one
        if not _is_stand_in(one):
            waiting += _next(one)


def _is_stand_in(one: Any) -> bool:
    return getattr(one, "__module__", None) == STAND_IN


def _sink(one: Any) -> str | None:
    if getattr(one, "name", None) in RUNNING_METRICS and hasattr(one, "compute"):
        return f"evaluate's {one.name}"
    module, name = getattr(one, "__module__", None), getattr(one, "__name__", None)
    if type(one).__name__ == "SingletonRegistry" and module == "sympy.core.singleton":
        return "sympy.S"
    if not isinstance(module, str) or not isinstance(name, str) or isinstance(one, types.ModuleType):
        return None
    names = SINKS.get(module, ())
    is_one = name in names or ("*" in names and callable(one))
    return f"{module}.{name}" if is_one else None


def _next(one: Any) -> Iterator[Any]:
    """Yields all that a function, method, class or callable object may call."""
    if isinstance(one, functools.partial):
        yield one.func
        yield from (value for value in (*one.args, *one.keywords.values()) if callable(value))
    elif inspect.ismethod(one):
        yield one.__func__
        yield one.__self__
    elif isinstance(one, types.MethodWrapperType):  # lm-eval keeps the __call__ of a task's metric
        yield one.__self__
    elif isinstance(one, types.FunctionType):
        if wrapped := getattr(one, "__wrapped__", None):
            yield wrapped
        if _is_own(one.__code__.co_filename):
            yield from _names(one)
    elif isinstance(one, type):
        # The bases of tasks also keep requests, with dill. Their judging is among the roots (judging_code).
        is_base = one.__module__ == ConfigurableTask.__module__
        if not is_base and _is_own(getattr(sys.modules.get(one.__module__), "__file__", None)):
            yield from (_plain(value) for value in vars(one).values())
            yield from one.__bases__
    elif isinstance(one, list | tuple | set | frozenset):
        yield from (value for value in one if callable(value))
    elif isinstance(one, dict):
        yield from (value for value in one.values() if callable(value))
    elif not inspect.isbuiltin(one):
        yield type(one)


def _names(function: types.FunctionType) -> Iterator[Any]:
    """Yields the objects that a function's names stand for, those of nested functions and closures too."""
    namespace = function.__globals__
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not bound yet
            continue
    yield from function.__defaults__ or ()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [value for value in code.co_consts if isinstance(value, types.CodeType)]
        names, attributes = _read_names(code)
        yield from _imports(code, attributes)
        for name in names:
            value = namespace[name] if name in namespace else getattr(builtins, name, None)
            if isinstance(value, types.ModuleType):
                yield from _attributes(value, attributes)
            elif name == "__builtins__":
                yield from _attributes(builtins, attributes)
            yield value


def _read_names(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Returns the global names in the code, and the names of attributes: those given as texts, too, for getattr."""
    steps = list(dis.get_instructions(code))
    names = {str(step.argval) for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    attributes = {str(step.argval) for step in steps if step.opname in ("LOAD_ATTR", "LOAD_METHOD")}
    if names & {"getattr", "__builtins__", "vars", "globals"}:
        attributes |= {value for value in code.co_consts if isinstance(value, str)}
    return names, attributes


def _attributes(module: types.ModuleType, names: Iterable[str]) -> Iterator[Any]:
    """Yields the values of the names in the module and in its modules: the names of an expression have no order."""
    for name in names:
        value = vars(module).get(name)
        if isinstance(value, types.ModuleType) and value is not module:
            yield from (vars(value).get(inner) for inner in names)
        yield value


def _imports(code: types.CodeType, attributes: set[str]) -> Iterator[Any]:
    """Yields the imports inside a function's body. A module that is not loaded yet is named, not imported."""
    module = ""
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            module = str(step.argval)
            loaded = sys.modules.get(module)
            if loaded is not None:
                yield from _attributes(loaded, attributes)
            else:
                yield from (_Named(module, name) for name in attributes)
        elif step.opname == "IMPORT_FROM":
            loaded = sys.modules.get(module)
            name = str(step.argval)
            yield _Named(module, name) if loaded is None else getattr(loaded, name, None)


class _Named:
    """A function of a module that is not loaded."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__name__ = module, name

    def __call__(self) -> None:
        raise AssertionError("it stands for a name")


def _plain(value: Any) -> Any:
    return value.__func__ if isinstance(value, staticmethod | classmethod) else value


def _is_own(file: str | None) -> bool:
    """Whether a file is lm-eval's or a task's, and not a library's."""
    if not file or file.startswith("<"):
        return False
    path = Path(file)
    return path.is_relative_to(_LM_EVAL) or not str(path).startswith(_LIBRARIES)
