"""RouterBench's tables (withmartian/routerbench), wide and long."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from collectors.importers.files import BadFile
from collectors.importers.relation import (
    INDEX,
    MOST_COLUMNS,
    Constant,
    Kind,
    SourceTable,
    parted,
    response_of,
    select_items,
    table_of,
)
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging, name_of
from schemas.sql import quoted

_COST, _ANSWER = "|total_cost", "|model_response"
#: Columns of its wide files that are of no model, and those of a frame's index.
_OTHERS = frozenset(
    [
        *("sample_id", "prompt", "eval_name", "oracle_model_to_route_to", "source", "embedding"),
        *INDEX,
    ]
)


def read(staging: Staging, source: ImportSource) -> None:
    """Wide (a column a model, beside it `<model>|total_cost` and `<model>|model_response`) and long files."""
    staging.default = CellDescription(metric="performance", low=-1.0)  # similarities of embeddings may be below 0
    for number in range(len(staging.files)):
        with staging.one_file(number):
            table = table_of(staging, number)
            if "model_name" in table and "performance" in table:
                _long(staging, number, table)
            else:
                _wide(staging, number, table)


def _wide(staging: Staging, number: int, table: SourceTable) -> None:
    beside = {name.removesuffix(end) for name in table.names for end in (_COST, _ANSWER) if name.endswith(end)}
    models = [name for name in table.names if name in beside]
    if not models or "sample_id" not in table:
        raise BadFile("unknown_layout", "no column sample_id, or none of a model beside its `|total_cost`")
    for name, why in _passed_over(table, beside):
        staging.reject(number, None, "unknown_layout", f"the column {name[:60]!r} is not read: {why}")
    for some in parted(models, (MOST_COLUMNS - 2) // 3):
        _read_models(staging, number, table, some)
    _items(staging, table)


def _passed_over(table: SourceTable, beside: set[str]) -> Iterator[tuple[str, str]]:
    """Columns that may be of a model although the others of it are not there, and why each is passed over."""
    for name in sorted(beside - set(table.names)):
        yield name, f"it has a cost or an answer, and no score (a column {name[:60]!r})"
    unclear = [name for name in table.names if name not in beside | _OTHERS and "|" not in name]
    for some in parted(unclear, MOST_COLUMNS):
        rows = table.relation({f"c{place}": (name, Kind.SCORE) for place, name in enumerate(some)})
        [are_scores] = table.ask(
            "SELECT " + ", ".join(f"bool_and(isfinite(c{place}))" for place in range(len(some))) + f" FROM {rows}"
        )
        for name, is_score in zip(some, are_scores, strict=True):
            if is_score:
                yield name, f"it holds numbers, and neither `{name[:60]}{_COST}` nor `…{_ANSWER}` is beside it"


def _read_models(staging: Staging, number: int, table: SourceTable, models: Sequence[str]) -> None:
    wanted = _item(table)
    for place, model in enumerate(models):
        wanted[f"score_{place}"] = model, Kind.SCORE
        if (cost := f"{model}{_COST}") in table:
            wanted[f"usd_{place}"] = cost, Kind.NUMBER
        if (answer := f"{model}{_ANSWER}") in table:
            wanted[f"answer_{place}"] = answer, Kind.TEXT
    rows = table.relation(wanted)
    are_lists = _are_lists(table, rows, [label for label in wanted if label.startswith("answer_")])
    for place, model in enumerate(models):
        usd = f"usd_{place}" if f"usd_{place}" in wanted else "NULL::DOUBLE"
        staging.select(
            f"SELECT {number} AS file, row, {quoted(model)} AS model, {_task(table)} AS task, key, "
            f"score_{place} AS score, {usd} AS stated_usd, "
            f"{_response_of(f'answer_{place}', wanted, are_lists)} AS responses FROM {rows}"
        )


def _long(staging: Staging, number: int, table: SourceTable) -> None:
    wanted = _item(table) | {"model": ("model_name", Kind.TEXT), "score": ("performance", Kind.SCORE)}
    if cost := name_of(table.names, "cost", "total_cost"):
        wanted["usd"] = cost, Kind.NUMBER
    if "model_response" in table:
        wanted["answer"] = "model_response", Kind.TEXT
    rows = table.relation(wanted)
    response = _response_of("answer", wanted, _are_lists(table, rows, [one for one in wanted if one == "answer"]))
    staging.select(
        f"SELECT {number} AS file, row, model, {_task(table)} AS task, key, score, "
        f"{'usd' if cost else 'NULL::DOUBLE'} AS stated_usd, {response} AS responses FROM {rows}"
    )
    _items(staging, table)


def _are_lists(table: SourceTable, rows: str, labels: Sequence[str]) -> bool:
    """Whether all answers are lists written as text, as RouterBench writes them: then each is one of its answer."""
    if not labels:
        return False
    flags = ", ".join(f"bool_and(starts_with({label}, '[') AND ends_with({label}, ']'))" for label in labels)
    [are_lists] = table.ask(f"SELECT {flags} FROM {rows}")
    return False not in are_lists


def _response_of(label: str, labels: Collection[str], are_lists: bool) -> str:
    response = response_of(label, labels)
    return response.replace(f"[{label}]", f"[text_of_list({label})]") if are_lists else response


def _item(table: SourceTable) -> dict[str, tuple[str | Constant, Kind]]:
    name = {"name": ("eval_name", Kind.TEXT)} if "eval_name" in table else {}
    return {"key": ("sample_id", Kind.TEXT), **name}


def _task(table: SourceTable) -> str:
    """eval_name, or the beginning of the sample's id, where RouterBench's own converter takes it from."""
    return "name" if "eval_name" in table else "split_part(key, '.', 1)"


def _items(staging: Staging, table: SourceTable) -> None:
    """A prompt is a list of one text, written as text, in the wide files, and the plain text in others.

    The list identifies an item, as it did when it was taken for the prompt: the tables of older lakes hold it.
    """
    if "prompt" in table:
        rows = table.relation(_item(table) | {"given": ("prompt", Kind.TEXT)})
        both = "text_of_list(given) AS prompt, list_of_text(given) AS known_as"
        select_items(staging, f"(SELECT *, {both}, {_task(table)} AS task FROM {rows})", ["prompt", "known_as"])
