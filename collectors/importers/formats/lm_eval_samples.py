"""lm-eval's own output, 0.4.0 to 0.4.13: results.json and the sample files beside it.

Owns the layouts of these releases and how they differ. Sources: lm_eval/loggers/evaluation_tracker.py and
lm_eval/evaluator.py of each release.

A run is one results file and the sample files of its folder with the same time in their names; a task's sample file
holds a row per document and filter. Up to 0.4.5 no row names its filter: rows come filter by filter, in the order of
the results file's keys. A file may hold several runs, one after another, because lm-eval opens it to append.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from collectors.importers.files import BadFile, decoded, document, json_rows
from collectors.importers.formats.lm_eval_results import WEIGHTED, About
from collectors.importers.processes import Job
from collectors.importers.sources import OF_ROW, CellDescription, ImportSource, Sink, as_json
from collectors.importers.staging import Staging
from schemas.content import document_choices, document_hash
from schemas.identity import digest

PATTERNS = ("*.json", "*.jsonl")

_TIME = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?"
_SAMPLES = re.compile(rf"samples_(?P<task>.+)_(?P<time>{_TIME})\.jsonl?")
_RESULTS = re.compile(rf"(?:results|.+)_(?P<time>{_TIME})\.json")
#: Keys of a row that do not name a metric. token_usage to throughput come from a fork that counts them.
_ROW_KEYS = frozenset(
    [
        "doc_id",
        "doc",
        "target",
        "arguments",
        "resps",
        "filtered_resps",
        "filter",
        "metrics",
        "doc_hash",
        "prompt_hash",
        "target_hash",
        "token_usage",
        "latency_ms",
        "energy_joules",
        "throughput",
    ]
)


@dataclass
class _Run:
    folder: str
    time: str | None
    #: (number of the file, its content)
    results: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    #: (number of the file, task or None where the name alone does not give it)
    samples: list[tuple[int, str | None]] = field(default_factory=list)


def read(staging: Staging, source: ImportSource) -> None:
    """Stores all runs that the files hold."""
    jobs: list[Job] = []
    for run in sorted(_runs(staging), key=lambda run: (run.time or "", run.folder)):
        abouts = _abouts(staging, source, run)
        for number, _ in run.results:
            if run.samples:
                staging.describing.add(number)
            else:
                staging.holds[number] = "results of whole tasks; lm-eval writes samples beside it with --log_samples"
        for number, task in run.samples:
            owners = [about for about in abouts if run.time or about.task_of(staging.files[number].stem)]
            about = owners[0] if len(owners) == 1 else About.of(None, run.time or "", source)
            staging.format_version[number] = about.version
            jobs.append((number, (about, task or about.task_of(staging.files[number].stem), len(owners))))
    jobs.sort(key=lambda job: str(job[1][1]))  # files of one task one after another: their documents are the same
    staging.read_files(_read_samples, jobs)


def _abouts(staging: Staging, source: ImportSource, run: _Run) -> list[About]:
    """The run as each of its results files describes it, or as its sample files do if there is none."""
    abouts = []
    for number, results in run.results:
        with staging.one_file(number):
            # Its time, to the microsecond, or its content: files of one run may come one after another, and grow.
            about = About.of(results, run.time or digest([staging.files[number].sha256]), source)
            staging.format_version[number] = about.version
            abouts.append(about)
    if not run.results:
        hashes = []
        for number, _ in run.samples:
            with contextlib.suppress(BadFile):  # reading it later meets the same error, and rejects it
                hashes.append(staging.files[number].sha256)
        abouts.append(About.of(None, run.time or digest(sorted(hashes)), source))
    return abouts


def _runs(staging: Staging) -> list[_Run]:
    runs: dict[tuple[str, str | None], _Run] = {}
    for number, file in enumerate(staging.files):
        folder, stem = file.path.rpartition("/")[0], file.stem
        if match := _SAMPLES.fullmatch(stem):
            run = runs.setdefault((folder, match["time"]), _Run(folder, match["time"]))
            run.samples.append((number, match["task"]))
        elif stem.endswith(".jsonl"):
            runs.setdefault((folder, None), _Run(folder, None)).samples.append((number, None))
        else:
            results = _results(staging, number)
            if results is not None:
                match = _RESULTS.fullmatch(stem)
                time = match["time"] if match else None
                runs.setdefault((folder, time), _Run(folder, time)).results.append((number, results))
    return list(runs.values())


def _results(staging: Staging, number: int) -> dict[str, Any] | None:
    results: dict[str, Any] | None = None
    with staging.one_file(number):
        value = document(staging.files[number])
        if not isinstance(value, dict) or not all(isinstance(value.get(key), dict) for key in ("results", "config")):
            raise BadFile("unknown_layout", "neither results nor samples of lm-eval")
        results = value
    return results


# ---- samples files


def _read_samples(staging: Sink, number: int, about: About, task: str | None, owners: int) -> None:
    if owners > 1:
        raise BadFile("no_model", "several results files lie beside it: put each run into its own folder")
    if about.model is None:
        raise BadFile("no_model", "no results file beside it names the model, or has that task: give --model")
    if task is None:
        raise BadFile("unknown_layout", "its name does not end with a task of a results file beside it")
    reader, fields = _Samples(staging, number, about, task), _Fields()
    place = {"model": about.model, "task": task}
    for row, data in json_rows(staging.files[number]):
        try:  # `one_row` would take a tenth of the time of a row
            if isinstance(data, BadFile):
                raise data
            reader.read(row, fields.of(data))
        except OF_ROW as error:
            staging.reject_row(number, row, error, **place)
        reader.bytes += len(data) if isinstance(data, bytes) else 0
        if reader.bytes >= _BLOCK_BYTES or len(reader.verdicts) >= _BLOCK_ROWS:
            reader.store()
    reader.finish()


class _Samples:
    """One samples file, row by row."""

    def __init__(self, staging: Sink, number: int, about: About, task: str) -> None:
        self.staging, self.number, self.about, self.task = staging, number, about, task
        self.metrics = about.metrics(task)
        self.filters = list(self.metrics)
        self.metric: str | None = None
        self.chosen = self.filters[0] if self.filters else None
        #: Document -> rows of it so far; and documents whose item was taken.
        self.turns: Counter[int] = Counter()
        self.taken_items: set[int] = set()
        self.hashes: dict[int, str] = {}
        self.rows: Counter[int] | None = None
        #: Whether some row of the file does not name its document.
        self.is_damaged = False
        self.description: CellDescription | None = None
        #: Rows of _VERDICT and _ITEM that are not stored yet, and the bytes of the file that they came from.
        self.verdicts: list[tuple[Any, ...]] = []
        self.items: list[tuple[Any, ...]] = []
        self.bytes = 0

    def read(self, row: int, values: dict[str, Any]) -> None:
        position = _position(values)
        if position is None:
            raise BadFile("no_key", f"doc_id is {str(values.get('doc_id'))[:40]!r}, not a position in a task")
        self.turns[position] += 1  # also for a row that is refused below: it stands for its filter
        name = self._filter(values, position)
        metrics = self._metrics(values)
        if self.description is None:
            self.metric = self.metric or next(iter(metrics), "score")
            self.chosen = self.chosen or name
            self.description = self.about.description_of(self.task, self.metric, self.chosen)
            self.staging.descriptions[self.about.run, str(self.about.model), self.task] = self.description
        self._item(values, position)
        score = _score(self.metric, metrics.get(str(self.metric)))
        answers = _answers(values, self.description.output_type) if name == self.chosen else _NO_ANSWERS
        self.verdicts.append((row, str(position), name, score, as_json(metrics), *_usage(values), *answers))

    def store(self) -> None:
        same = {"run": self.about.run, "task": self.task}
        if self.items:
            self.staging.block("raw_items", same, _ITEM, self.items)
        if self.verdicts:
            same_cell = {**same, "file": self.number, "model": self.about.model, "repeat": 0}
            self.staging.block("raw_verdicts", same_cell, _VERDICT, self.verdicts)
        self.items, self.verdicts, self.bytes = [], [], 0

    def _filter(self, values: dict[str, Any], position: int) -> str:
        turn = self.turns[position] - 1
        if (stated := values.get("filter")) is not None:
            name = str(stated)
            if self.filters and name not in self.filters:
                raise BadFile("unknown_filter", f"filter {name[:60]!r} is none of {', '.join(self.filters)}")
            return name
        if len(self.filters) == 1:
            return self.filters[0]
        if self.rows is None:
            self.rows = self._rows_by_document()
        if self.filters:
            many = self.rows[position]
            # One is damaged, of any filter. A file of several runs may lack as many rows as there are filters.
            if many % len(self.filters) or (self.is_damaged and many < max(self.rows.values())):
                raise BadFile("unknown_filter", f"{many} rows of it for {len(self.filters)} filters")
            return self.filters[turn % len(self.filters)]
        # Documents that come more than once are rows of several filters that no results file names.
        return f"unlabelled-{turn + 1}" if max(self.rows.values()) > 1 else "none"

    def _rows_by_document(self) -> Counter[int]:
        counts: Counter[int] = Counter()
        for _, data in json_rows(self.staging.files[self.number]):
            try:
                position = None if isinstance(data, BadFile) else _position(_fields(data))
            except BadFile:
                position = None  # read() rejects it
            if position is None:
                self.is_damaged = True
            else:
                counts[position] += 1
        return counts

    def _metrics(self, values: dict[str, Any]) -> dict[str, Any]:
        names = values.get("metrics")
        if not isinstance(names, list):
            names = [key for key in values if key not in _ROW_KEYS]
        elif self.metric is None and names and not self.metrics:
            self.metric = str(names[0])
        if self.metric is None and self.metrics:
            self.metric = next(iter(self.metrics.values()))[0]
        return {key: values[key] for key in map(str, names) if key in values}

    def _item(self, values: dict[str, Any], position: int) -> None:
        doc_hash = values.get("doc_hash")
        if not isinstance(doc_hash, str):
            doc_hash = _doc_hash(_value(values.get("doc")))
        if self.hashes.setdefault(position, doc_hash) != doc_hash:
            raise BadFile("bad_item", f"doc_id {position} is another document than in a row before")
        if position in self.taken_items:
            return
        self.taken_items.add(position)
        cell = self.description
        assert cell
        alone = cell.num_fewshot == 0 and not cell.chat_template and not cell.system_prompt
        content_hash, choices, subject, doc = _documents.columns(_json_of(values.get("doc")))
        prompt = _first_prompt(_value(values.get("arguments"))) if alone else None
        target = as_json(values["target"]) if "target" in values else None
        text = self.staging.text(prompt, target, choices, subject, doc)
        self.items.append((str(position), position, doc_hash, content_hash, text))

    def finish(self) -> None:
        self.store()
        if self.description is None and not self.staging.counts[self.number].rejected:
            raise BadFile("damaged", "holds no row")


#: Columns of RAW_VERDICT and RAW_ITEM that differ from row to row, in their order in a row.
_ANSWERS = ("responses", "filtered", "loglikelihoods", "is_greedy")
_USAGE = ("prompt_tokens", "completion_tokens", "latency_s")
_VERDICT = ("row", "key", "filter", "score", "metrics", *_USAGE, *_ANSWERS)
_ITEM = ("key", "position", "item_hash", "content_hash", "text")
_NO_ANSWERS = (None,) * len(_ANSWERS)
_NO_USAGE = (None,) * len(_USAGE)
#: Rows, and bytes of a file, that are stored at a time.
_BLOCK_ROWS, _BLOCK_BYTES = 10_000, 64 * 2**20

#: Fields that stay undecoded until one is asked for: most of a row is prompts that nothing needs.
_LARGE = ("doc", "arguments")
#: Fields that nothing needs.
_UNUSED = ("prompt_hash", "target_hash")


class _Fields:
    """Decodes the rows of one file: most have the same fields, and a type made of those is decoded fastest."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.decoder: msgspec.json.Decoder[Any] | None = None
        self.metrics: list[Any] = []

    def of(self, data: bytes) -> dict[str, Any]:
        """The fields of a row; those of _LARGE may be msgspec.Raw. Raises BadFile."""
        if self.decoder and data.isascii():
            try:
                row = msgspec.structs.astuple(self.decoder.decode(data))
            except (msgspec.DecodeError, RecursionError):
                return _fields(data)
            if msgspec.UNSET in row:
                return _fields(data)
            values = dict(zip(self.names, row, strict=True))
            metrics = values.get("metrics")
            if type(metrics) is list and (metrics == self.metrics or values.keys() >= set(metrics)):
                self.metrics = metrics
                return values  # of other fields nothing is asked
        values = _fields(data)
        if self.decoder is None:
            self.names = tuple(name for name in values if name not in _UNUSED)
            self.decoder = msgspec.json.Decoder(_struct_of(self.names))
        return values


def _struct_of(names: Sequence[str]) -> Any:
    unset: Any = msgspec.UNSET
    fields = [
        (f"f{n}", msgspec.Raw | msgspec.UnsetType if name in _LARGE else Any, unset) for n, name in enumerate(names)
    ]
    return msgspec.defstruct("Row", fields, rename=dict(zip((f"f{n}" for n in range(len(names))), names, strict=True)))


def _fields(data: bytes) -> dict[str, Any]:
    """Every field of a row. Raises BadFile."""
    try:
        if not data.isascii():
            data.decode()  # fields that are passed over, too
        texts: dict[str, msgspec.Raw] = _FIELDS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # damaged, or with NaN
        value = decoded(data)
        if not isinstance(value, dict):
            raise BadFile("damaged", "not a JSON object") from None
        return value
    return {name: text if name in _LARGE else _value(text) for name, text in texts.items()}


_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder()


def _value(field: Any) -> Any:
    """A field, decoded. Raises BadFile."""
    if type(field) is not msgspec.Raw:
        return field
    try:
        return _VALUE.decode(field)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return decoded(bytes(field))


def _json_of(field: Any) -> bytes:
    return bytes(field) if type(field) is msgspec.Raw else as_json(field).encode()


class _Documents:
    """Columns of items by the JSON of their documents: files of one task hold the same documents."""

    def __init__(self, limit: int) -> None:
        """Keeps the columns of up to `limit` bytes of JSON."""
        self.limit, self.bytes = limit, 0
        self.columns_by_text: dict[bytes, _OfDocument] = {}

    def columns(self, text: bytes) -> _OfDocument:
        if text not in self.columns_by_text:
            if self.bytes + len(text) > self.limit:
                self.columns_by_text.clear()
                self.bytes = 0
            self.columns_by_text[text] = _read_document(text)
            self.bytes += len(text)
        return self.columns_by_text[text]


_documents = _Documents(64 * 2**20)


#: content_hash, choices, subject and doc of an item.
_OfDocument = tuple[str | None, list[str] | None, str | None, str | None]


def _read_document(text: bytes) -> _OfDocument:
    doc = decoded(text)
    if not isinstance(doc, dict):
        return None, None, None, as_json(doc)
    choices = document_choices(doc)
    subject = next((str(doc[k]) for k in ("subject", "category", "topic") if doc.get(k)), None)
    return document_hash(doc, choices), choices, subject, as_json(doc)


def _doc_hash(doc: Any) -> str:
    """As lm-eval hashes a document since 0.4.3 (lm_eval.evaluator.evaluate)."""
    return hashlib.sha256(json.dumps(doc, indent=2, ensure_ascii=False).encode()).hexdigest()


def _first_prompt(arguments: Any) -> str | None:
    if isinstance(arguments, dict):
        first = arguments.get("gen_args_0")
        prompt = first.get("arg_0") if isinstance(first, dict) else None
    else:
        first = arguments[0] if isinstance(arguments, list) and arguments else None
        prompt = first[0] if isinstance(first, list) and first else None
    return prompt if isinstance(prompt, str) else None


def _position(values: dict[str, Any]) -> int | None:
    position = values.get("doc_id")
    is_one = isinstance(position, int) and not isinstance(position, bool) and 0 <= position < 10**7
    return position if is_one else None


def _score(metric: str | None, value: Any) -> float | None:
    """The metric of one document, also from a pair (log-likelihood, weight); None where only many documents have one.

    Source: lm_eval.api.metrics.weighted_perplexity and bits_per_byte.
    """
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, str):
        raise BadFile("damaged", f"the score {value[:40]!r} is not a number")
    if metric in WEIGHTED and isinstance(value, list) and len(value) == 2:
        loglikelihood, weight = (_number(part) for part in value)
        if loglikelihood is None or not weight:
            return None
        if metric == "bits_per_byte":
            return -loglikelihood / weight / math.log(2)
        try:
            return math.exp(-loglikelihood / weight)
        except OverflowError:
            return math.inf
    return None


def _usage(values: dict[str, Any]) -> tuple[Any, ...]:
    """RECORD's columns of _USAGE, which one fork states."""
    usage, latency = values.get("token_usage"), values.get("latency_ms")
    if usage is None and latency is None:
        return _NO_USAGE
    usage = usage if isinstance(usage, dict) else {}
    seconds = latency / 1000 if isinstance(latency, int | float) and not isinstance(latency, bool) else None
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")), seconds


def _answers(values: dict[str, Any], output_type: str | None) -> tuple[Any, ...]:
    """RECORD's columns of _ANSWERS: texts, or log-likelihoods and whether each was the greedy continuation."""
    requests = values.get("resps")
    answers: list[list[Any]] = [one for one in requests if isinstance(one, list)] if isinstance(requests, list) else []
    if output_type == "generate_until" or (
        answers and all(isinstance(x, str) and _number(x) is None for a in answers for x in a)
    ):
        texts = [text for answer in answers for text in answer if isinstance(text, str)]
        filtered = values.get("filtered_resps")
        return texts or None, as_json(filtered) if filtered is not None else None, None, None
    pairs = [answer[0] if answer and isinstance(answer[0], list) else answer for answer in answers]
    scores = [_number(pair[0]) if pair else None for pair in pairs]
    greedy = [_FLAGS.get(str(pair[1])) if len(pair) > 1 else None for pair in pairs]
    known = scores if scores and None not in scores else None
    return None, None, known, greedy if greedy and None not in greedy else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


_FLAGS = {"True": True, "False": False}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31 else None
