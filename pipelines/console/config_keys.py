"""All keys of collect.py's config, with their types, defaults and meaning, read from the config's own code.

Owns the layout of the list. It cannot lag behind: keys and comments are those that the config is checked by.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

#: Columns of the list.
_WIDTH = 100


class ShowKeys(argparse.Action):
    """The option --keys: prints the list and ends, as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(config_keys())
        parser.exit()


def config_keys() -> str:
    """Returns the list: a section a part of the config, the run's own keys first."""
    from collectors import specs
    from collectors.runs import config

    sections: Sequence[tuple[str, type[BaseModel], tuple[type[BaseModel], ...]]] = (
        ("the run", config.RunConfig, (specs.Prompting,)),
        ("an entry of models: a model, or its source alone", specs.ModelSpec, (specs.Thinking,)),
        ("an entry of models: models of a catalog", specs.CatalogSpec, (specs.ModelOptions,)),
        ("models: endpoint", specs.EndpointSpec, ()),
        ("an entry of tasks, or a task's name alone", specs.TaskSpec, (specs.Prompting,)),
        ("how questions are asked: keys of the run, each also of a task", specs.Prompting, (specs.Thinking,)),
        ("how models think: keys of the run, each also of a model or task", specs.Thinking, ()),
        ("thinking", specs.ThinkingSpec, ()),
        ("sample: of each task, share or items", specs.SampleSpec, ()),
        ("repeats: times, and share, items or ids", specs.RepeatsSpec, ()),
        ("until", specs.UntilSpec, ()),
        ("engine", config.EngineSpec, ()),
        ("fleet", config.FleetSpec, ()),
        ("fleet: an entry of gpus, or its name alone", specs.GpuSpec, ()),
        ("budget", config.BudgetSpec, ()),
    )
    return "\n\n".join("\n".join(_section(title, part, above)) for title, part, above in sections)


def _section(title: str, part: type[BaseModel], above: tuple[type[BaseModel], ...]) -> Iterator[str]:
    """Lines for the keys of a part, without those of `above`, which have sections of their own."""
    yield f"{title}:"
    elsewhere = {key for one in above for key in one.model_fields}
    written = {key: lines for one in reversed(part.__mro__) for key, lines in _written(one).items()}
    for key, field in part.model_fields.items():
        if key in elsewhere:
            continue
        kind, comment = written[key]
        yield f"  {key}: {kind}, {_default(field)}"
        yield from textwrap.wrap(comment, _WIDTH - 6, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return "see below" if hasattr(value, "model_dump") else f"default {json.dumps(value)}"


def _written(part: type) -> dict[str, tuple[str, str]]:
    """Key -> its type and its comment, as they are written in the class."""
    if part.__module__.split(".")[0] != "collectors":
        return {}
    text = textwrap.dedent(inspect.getsource(part))
    lines = text.splitlines()
    [body] = ast.parse(text).body
    assert isinstance(body, ast.ClassDef)
    keys = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            comment: list[str] = []
            line = node.lineno - 2
            while lines[line].lstrip().startswith("#:"):
                comment.insert(0, lines[line].lstrip()[2:].strip())
                line -= 1
            keys[node.target.id] = _kind(node.annotation), " ".join(comment)
    return keys


#: Names of types in the config's code -> words. Others are written as they are.
_WORDS = {
    "str": "text",
    "Name": "text",
    "Dtype": "text",
    "int": "whole number",
    "float": "number",
    "Share": "number",
    "bool": "true or false",
    "None": "null",
    "Settings": "mapping",
    "ThinkingSpec": "true or a mapping",
    "ModelEntry": "models",
    "TaskSpec": "tasks",
    "GpuSpec": "classes",
}


def _kind(node: ast.expr) -> str:
    """A type in words."""
    match node:
        case ast.BinOp():
            return f"{_kind(node.left)} or {_kind(node.right)}"
        case ast.Subscript(value=ast.Name(id="list")):
            return f"list of {_kind(node.slice)}"
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, *_])):
            return _kind(inner)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=values)):
            return " or ".join(ast.unparse(value).strip("'") for value in values)
        case ast.Subscript(value=ast.Name(id="Literal")):
            return ast.unparse(node.slice).strip("'")
        case ast.Constant(value=None):
            return "null"
    name = ast.unparse(node)
    return _WORDS.get(name, "mapping" if name.endswith("Spec") else name)
