"""Details of lighteval and of the Open LLM Leaderboard v1.

Source: huggingface/lighteval (logging/info_loggers.py, 0.8 to 0.13).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collectors.importers.files import BadFile
from collectors.importers.sources import CellDescription, ImportSource, Sink, as_json
from collectors.importers.unwrapping import asked_of
from collectors.importers.values import content_of, number_of, rows_at_once, text_of, texts, verdict, whole
from schemas.failures import NOT_JUDGED, one_line

PATTERNS = ("details_*.parquet",)

_TIME = re.compile(r"_?\d{4}-\d\d-\d\dT[\d:.-]+$")
#: Names of the three structs of a row: of 0.11 to 0.13, and of 0.10.
_STRUCTS = (("doc", "model_response", "metric"), ("__doc__", "__model_response__", "__metric__"))
#: Fills up rows of token ids to one length.
_PADDING = -1

#: Numbers of a row of the leaderboard beside its metrics.
_NO_METRICS = ("gold_index", "truncated", "padded")

#: Metrics, columns of an item, and columns of a verdict.
_Read = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


def read(staging: Sink, number: int, source: ImportSource) -> None:
    """details_<task>_<time>.parquet: metrics flat, as `metrics.<name>`, or a struct; or three structs since 0.10.

    An item is its place in the data set, which rows state since 0.11: they come by the length of their prompts. Before
    that it is its row. A folder names the model: details_<organisation>__<model>, or
    details/<organisation>/<model>/<time>.
    """
    file = staging.files[number]
    name = file.stem.removeprefix("details_").removesuffix(".parquet")
    time = _TIME.search(name)
    task, run = _TIME.sub("", name), time[0].strip("_") if time else ""
    model = source.model or _details_model(file.path)
    if model is None:
        raise BadFile("no_model", "no folder of its path names the model: give --model")
    try:
        with file.open() as stream:
            table = pq.ParquetFile(pa.BufferReader(stream.read()))
            details = _Details(staging, number, run, model, task, table)
            for batch in table.iter_batches(rows_at_once(table.metadata)):
                for values in batch.to_pylist():
                    with staging.one_row(number, details.row + 1):
                        details.take(values)
            details.describe()
    except (pa.ArrowException, OSError) as error:
        raise BadFile("damaged", f"not a whole Parquet file: {one_line(error, 160)}") from error


class _Details:
    """The rows of one file."""

    def __init__(self, staging: Sink, number: int, run: str, model: str, task: str, table: pq.ParquetFile) -> None:
        self.staging, self.number = staging, number
        self.run, self.model, self.task = run, model, task
        columns = set(table.schema_arrow.names)
        self.structs = next((names for names in _STRUCTS if names[0] in columns and names[2] in columns), None)
        self.places = _places(table, self.structs[0]) if self.structs else None
        self.padding = _padding(table, self.structs[1]) if self.structs else None
        self.metric = _primary(table, self.structs[2] if self.structs else None, task)
        self.is_unit = True
        self.row = 0

    def take(self, values: Mapping[str, Any]) -> None:
        self.row += 1
        metrics, item, columns = (
            _of_structs([values.get(name) or {} for name in self.structs], self.padding)
            if self.structs
            else _of_columns(values)
        )
        position = self.places[self.row - 1] if self.places else self.row - 1
        key = str(position)
        self.staging.item(run=self.run, task=self.task, key=key, position=position, **_hashed(item, self.task))
        score = metrics.get(self.metric)
        score = None if isinstance(score, dict | list) else score  # the parts of a metric that only a whole set has
        columns |= {"metrics": as_json(metrics), "failure": NOT_JUDGED if score is None and metrics else None}
        if (number := number_of(score)) is not None and not 0 <= number <= 1:
            self.is_unit = False
        verdict(self.staging, self.number, self.row, self.task, key, self.model, score, run=self.run, **columns)

    def describe(self) -> None:
        shots = re.search(r"\|(\d+)(?:\|\d)?$", self.task)
        description = CellDescription(metric=self.metric, num_fewshot=int(shots[1]) if shots else None)
        if not self.is_unit:
            description = replace(description, threshold=None, low=None, high=None)
        self.staging.descriptions[self.run, self.model, self.task] = description


def _hashed(item: dict[str, Any], task: str) -> dict[str, Any]:
    """The prompt identifies an item in its table, as it stands; the question in it meets other sources'."""
    prompt, are_options = item["prompt"], not item.pop("is_generated", False)
    choices = item["choices"]
    asked = asked_of(prompt, choices, task, are_options=are_options) if isinstance(prompt, str) else (None, None)
    return {**item, "item_hash": item["content_hash"], "content_hash": content_of(*asked)}


def _places(table: pq.ParquetFile, doc: str) -> list[int] | None:
    """The places that rows state; None where they state none, or one twice, as tasks of several splits do."""
    if f"{doc}.id" not in (table.schema.column(i).path for i in range(len(table.schema))):
        return None
    ids = table.read(columns=[f"{doc}.id"]).column(0).combine_chunks().field("id").to_pylist()
    places = [int(one) for one in ids if isinstance(one, str) and re.fullmatch(r"[0-9]{1,7}", one)]
    return places if len(set(places)) == len(ids) else None


def _padding(table: pq.ParquetFile, answer: str) -> int | None:
    """The token that fills up prompts of the file; None where it has no such prompts."""
    names = [f"{answer}.padded_tokens_count", f"{answer}.input_tokens"]
    paths = [table.schema.column(i).path for i in range(len(table.schema))]
    if not all(any(path.startswith(name) for path in paths) for name in names):
        return None
    firsts = set()
    for batch in table.iter_batches(1000, columns=names):
        for one in batch.column(0).to_pylist():
            if one and one["input_tokens"] and (whole(one["padded_tokens_count"]) or 0) > 0:
                firsts.add(one["input_tokens"][0])
    return firsts.pop() if len(firsts) == 1 else None


def _details_model(path: str) -> str | None:
    folders = path.split("/")[:-1]
    for folder in reversed(folders):
        if match := re.fullmatch(r"details_(.+?)__(.+)", folder):
            return f"{match[1]}/{match[2]}"
    if "details" in folders:
        below = [folder for folder in folders[folders.index("details") + 1 :] if not _TIME.fullmatch(folder)]
        return "/".join(below) or None
    return None


def _leaderboard_metric(task: str) -> tuple[str, ...]:
    """Metrics of a task: the leaderboard showed the first that is there."""
    if "arc" in task or "hellaswag" in task:
        return ("acc_norm", "acc")
    return ("mc2", "mc1") if "truthfulqa" in task else ("acc", "em", "exact_match", "qem", "f1")


def _primary(table: pq.ParquetFile, struct: str | None, task: str) -> str:
    """The metric behind the score: of those with a number in some row the leaderboard's, else the first."""
    paths = _metric_paths(table, struct)
    numeric: list[str] = []
    others: list[str] = []
    for name, (path, dtype) in paths.items():
        if _has_values(table, path):
            (numeric if _is_number(dtype) else others).append(name)
    wanted = () if struct else _leaderboard_metric(task)
    return next((name for name in (*wanted, *numeric) if name in numeric), next(iter(others), "score"))


def _has_values(table: pq.ParquetFile, path: str) -> bool:
    for batch in table.iter_batches(100_000, columns=[path]):
        column = batch.column(0)
        if isinstance(column, pa.StructArray):
            column = column.flatten()[0]
        if column.null_count < len(column):
            return True
    return False


def _metric_paths(table: pq.ParquetFile, struct: str | None) -> dict[str, tuple[str, pa.DataType]]:
    """Metric -> the path of its column, and its type, in the order of the file."""
    schema = table.schema_arrow
    if struct is None and "metrics" in schema.names and pa.types.is_struct(schema.field("metrics").type):
        struct = "metrics"
    paths = {}
    if struct:
        dtype = schema.field(struct).type
        for number in range(dtype.num_fields):
            paths[dtype.field(number).name] = (f"{struct}.{dtype.field(number).name}", dtype.field(number).type)
    for field in schema:
        if field.name.startswith("metrics."):
            paths[field.name.removeprefix("metrics.")] = (field.name, field.type)
    numbers = (field for field in schema if _is_number(field.type) and field.name not in _NO_METRICS)
    return paths or {field.name: (field.name, field.type) for field in numbers}


def _is_number(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_floating(dtype) or pa.types.is_integer(dtype) or pa.types.is_boolean(dtype))


def _of_columns(values: Mapping[str, Any]) -> _Read:
    struct = values.get("metrics")
    metrics = dict(struct) if isinstance(struct, dict) else {}
    metrics |= {key.removeprefix("metrics."): value for key, value in values.items() if key.startswith("metrics.")}
    if not metrics:
        metrics = {k: v for k, v in values.items() if isinstance(v, int | float) and k not in _NO_METRICS}
    metrics = {name: value for name, value in metrics.items() if value is not None}
    prompt = next(
        (values[k] for k in ("example", "instruction", "full_prompt") if isinstance(values.get(k), str)), None
    )
    choices = texts(values.get("choices"))
    item = {
        "prompt": prompt,
        "choices": choices,
        "target": as_json(values["gold"]) if values.get("gold") is not None else None,
        "content_hash": content_of(prompt, choices),
    }
    return metrics, item, {"responses": texts(values.get("predictions"))}


def _of_structs(structs: Sequence[Mapping[str, Any]], padding: int | None) -> _Read:
    """`structs`: the item, the model's response and its metrics. `padding`: the token that fills up texts."""
    doc, answer, given = structs
    prompt, choices = doc.get("query"), texts(doc.get("choices"))
    item = {
        "prompt": text_of(prompt),
        "choices": choices,
        "target": as_json(doc["gold_index"]) if doc.get("gold_index") is not None else None,
        "content_hash": content_of(prompt, choices),
        "is_generated": bool(answer.get("text")) and not answer.get("logprobs"),
    }
    metrics = {name: value for name, value in given.items() if value is not None}
    return metrics, item, {"responses": texts(answer.get("text")), **_tokens(answer, padding)}


def _tokens(answer: Mapping[str, Any], padding: int | None) -> dict[str, int | None]:
    """Of generated texts all tokens, of choices those of the likeliest one. Each choice may repeat the prompt.

    Prompts of a batch are filled up from the left with the end token, as many as lighteval counts; texts that end
    before others of their batch from the right, which it does not count.
    """
    given, outputs = _ids(answer.get("input_tokens")), _ids(answer.get("output_tokens"))
    chosen = 0 if len(outputs) == 1 else None
    if answer.get("text"):
        padded = whole(answer.get("padded_tokens_count")) or 0
        prompt = given[0] if len(given) == 1 else []
        if 0 < padded < len(prompt) and set(prompt[:padded]) == {padding}:
            prompt = prompt[padded:]
        generated = sum(len(ids) - max(_trailing(ids, padding) - 1, 0) for ids in outputs)
        return {"prompt_tokens": len(prompt) or None, "completion_tokens": generated or None}
    likelihoods = answer.get("logprobs")
    given_numbers = [number_of(one) for one in likelihoods] if isinstance(likelihoods, list) else []
    numbers = [number for number in given_numbers if number is not None]
    if numbers and len(numbers) == len(given_numbers) == len(outputs):
        chosen = numbers.index(max(numbers))
    prompts = given if len(given) == len(outputs) else given * len(outputs) if len(given) == 1 else []
    if chosen is None or not prompts:
        return {"prompt_tokens": len(given[0]) if len(given) == 1 else None}
    return {"prompt_tokens": len(prompts[chosen]) or None, "completion_tokens": len(outputs[chosen]) or None}


def _ids(tokens: Any) -> list[list[int]]:
    """Lists of token ids without padding, of one list or of several; none where they are not ids."""
    if not isinstance(tokens, list) or not tokens:
        return []
    rows = tokens if all(isinstance(one, list) for one in tokens) else [tokens]
    if not all(isinstance(token, int) for row in rows for token in row):
        return []
    return [[token for token in row if token != _PADDING] for row in rows]


def _trailing(ids: list[int], padding: int | None) -> int:
    """How many of the last ids are padding; the first of them is the token that ended the text."""
    return next((many for many, one in enumerate(reversed(ids)) if one != padding), len(ids))
