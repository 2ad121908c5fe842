"""SPROUT (CARROT-LLM-Routing/SPROUT and SPROUT-o3mini): a row a prompt, and a column a model with score and tokens."""

from __future__ import annotations

from collectors.importers.files import BadFile
from collectors.importers.relation import MOST_COLUMNS, Kind, Wanted, parted, select_items, table_of
from collectors.importers.sources import CellDescription, ImportSource
from collectors.importers.staging import Staging
from schemas.sql import quoted

#: Columns of its files that are of no model.
_OTHERS = ("key", "dataset", "dataset_level", "dataset_idx", "prompt", "golden_answer")


def read(staging: Staging, source: ImportSource) -> None:
    """train, validation and test; `dataset` is the task. The score is a judge's, from 0 to 1."""
    staging.default = CellDescription(metric="judge_score")
    for number in range(len(staging.files)):
        with staging.one_file(number):
            table = table_of(staging, number)
            models = [name for name in table.names if name not in _OTHERS]
            item: Wanted = {"key": ("key", Kind.TEXT), "task": ("dataset", Kind.TEXT), "prompt": ("prompt", Kind.TEXT)}
            if "golden_answer" in table:
                item = {**item, "target": ("golden_answer", Kind.TEXT)}
            table.need(item)
            if not models:
                raise BadFile("unknown_layout", f"no column of a model beside {', '.join(_OTHERS)}")
            for some in parted(models, MOST_COLUMNS - len(item)):
                labels = {f"m{place}": model for place, model in enumerate(some)}
                rows = table.relation({**item, **{label: (model, Kind.TEXT) for label, model in labels.items()}})
                for label, model in labels.items():
                    _reject_doubled(staging, number, rows, label, model)
                    staging.select(_verdicts(number, rows, label, model))
            select_items(staging, table.relation(item), item)


#: Whether a name stands twice in the object {0}, as SQL.
_IS_DOUBLED = "coalesce(len(json_keys({0})) > len(list_distinct(json_keys({0}))), false)"


def _cells(rows: str, label: str) -> str:
    """The rows with the JSON object of one model as `cell`, as SQL: null where it is none."""
    return f"(SELECT *, CASE WHEN json_valid({label}) THEN {label}::JSON END AS cell FROM {rows})"


def _reject_doubled(staging: Staging, number: int, rows: str, label: str, model: str) -> None:
    sql = f"SELECT row, task, key FROM {_cells(rows, label)} WHERE {_IS_DOUBLED.format('cell')} ORDER BY row"
    for row, task, key in staging.con.execute(sql).fetchall():
        place = {"model": model, "task": task, "source_key": key}
        staging.reject(number, row, "doubled_name", "a name stands twice in one object", **place)


def _verdicts(number: int, rows: str, label: str, model: str) -> str:
    """A value that is not a JSON object, or whose score is not a number, has the score NaN, and is rejected."""
    tokens = {
        mine: _count(f"'$.{theirs}'")
        for mine, theirs in (("prompt_tokens", "num_input_tokens"), ("completion_tokens", "num_output_tokens"))
    }
    response = "json_extract_string(cell, '$.response')"
    return f"""
        SELECT {number} AS file, row, {quoted(model)} AS model, task, key,
            coalesce({_number("'$.score'")}, 'nan'::DOUBLE) AS score,
            {tokens["prompt_tokens"]} AS prompt_tokens, {tokens["completion_tokens"]} AS completion_tokens,
            CASE WHEN {response} IS NOT NULL THEN [{response}] END AS responses
        FROM {_cells(rows, label)}
        WHERE {label} IS NOT NULL AND NOT {_IS_DOUBLED.format("cell")}
    """


def _number(path: str) -> str:
    """A number of the cell; null for anything else, a text of digits too."""
    number = f"TRY_CAST(json_extract_string(cell, {path}) AS DOUBLE)"
    return f"CASE WHEN json_type(cell, {path}) <> 'VARCHAR' THEN {number} END"


def _count(path: str) -> str:
    """A whole number of the cell; null where there is none, and -1, which is rejected, for anything else."""
    number = _number(path)
    return f"""CASE WHEN json_extract_string(cell, {path}) IS NULL THEN NULL
        WHEN {number} = floor({number}) THEN coalesce(TRY_CAST({number} AS INTEGER), -1) ELSE -1 END"""
