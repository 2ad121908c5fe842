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
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import msgspec

from collectors.importers.files import BadFile, decoded, document, json_rows
from collectors.importers.formats import evalchemy
from collectors.importers.formats.lm_eval_results import WEIGHTED, About
from collectors.importers.processes import Job
from collectors.importers.sources import CellDescription, ImportSource, Sink, as_json
from collectors.importers.staging import Staging
from collectors.importers.usage import Usage
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
#: That fork's names of counts, in the order of usage.COUNTS.
_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens", "", "", "thinking_tokens")


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
    with_examples: list[Job] = []
    for run in sorted(_runs(staging), key=lambda run: (run.time or "", run.folder)):
        of_files = _abouts(staging, source, run)
        abouts = list(of_files.values())
        with_examples += [(n, (a,)) for n, a in of_files.items() if evalchemy.tasks_with_examples(a.results)]
        for number, task in run.samples:
            owners = [about for about in abouts if run.time or about.task_of(staging.files[number].stem)]
            about = owners[0] if len(owners) == 1 else About.of(None, run.time or "", source)
            staging.format_version[number] = about.version
            jobs.append((number, (about, task or about.task_of(staging.files[number].stem), len(owners))))
    jobs.sort(key=lambda job: str(job[1][1]))  # files of one task one after another: their documents are the same
    staging.read_files(_read_samples, jobs)
    staging.read_files(evalchemy.read, with_examples)


def _abouts(staging: Staging, source: ImportSource, run: _Run) -> dict[int, About]:
    """The run as each of its results files describes it, by their numbers; or as its first sample file does."""
    abouts = {}
    for number, results in run.results:
        with staging.one_file(number):
            # Its time, to the microsecond, or its content: files of one run may come one after another, and grow.
            about = About.of(results, run.time or digest([staging.files[number].sha256]), source)
            staging.format_version[number] = about.version
            abouts[number] = about
    if not run.results:
        hashes = []
        for number, _ in run.samples:
            with contextlib.suppress(BadFile):  # reading it later meets the same error, and rejects it
                hashes.append(staging.files[number].sha256)
        abouts[run.samples[0][0]] = About.of(None, run.time or digest(sorted(hashes)), source)
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
    reader = _Samples(staging, number, about, task)
    for row, data in json_rows(staging.files[number]):
        with staging.one_row(number, row, model=about.model, task=task):
            if isinstance(data, BadFile):
                raise data
            reader.read(row, _Row(data))
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

    def read(self, row: int, values: _Row) -> None:
        position = _position(values)
        if position is None:
            raise BadFile("no_key", f"doc_id is {str(values.get('doc_id'))[:40]!r}, not a position in a task")
        self.turns[position] += 1  # also for a row that is refused below: it stands for its filter
        name = self._filter(values, position)
        metrics = self._metrics(values, name)
        if self.description is None:
            self.metric = self.metric or next(iter(metrics), "score")
            self.chosen = self.chosen or name
            self.description = self.about.description_of(self.task, self.metric, self.chosen)
            self.staging.descriptions[self.about.run, str(self.about.model), self.task] = self.description
        self._item(values, position)
        usage = Usage.of(values.get("token_usage"), _USAGE)
        usage.suspect(self.staging, self.number, self.about.run, str(self.about.model), self.task)
        latency = values.get("latency_ms")
        self.staging.row(
            file=self.number,
            row=row,
            run=self.about.run,
            model=self.about.model,
            task=self.task,
            key=str(position),
            filter=name,
            repeat=0,
            score=_score(self.metric, metrics.get(str(self.metric))),
            metrics=as_json(metrics),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            latency_s=latency / 1000 if isinstance(latency, int | float) and not isinstance(latency, bool) else None,
            **(_answers(values, self.description.output_type) if name == self.chosen else {}),
        )

    def _filter(self, values: _Row, position: int) -> str:
        turn = self.turns[position] - 1
        if values.get("filter") is not None:
            name = str(values.get("filter"))
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
                position = None if isinstance(data, BadFile) else _position(_Row(data))
            except BadFile:
                position = None  # read() rejects it
            if position is None:
                self.is_damaged = True
            else:
                counts[position] += 1
        return counts

    def _metrics(self, values: _Row, name: str) -> dict[str, Any]:
        names = values.get("metrics")
        if not isinstance(names, list):
            names = [key for key in values.names if key not in _ROW_KEYS]
        elif self.metric is None and names and not self.metrics:
            self.metric = str(names[0])
        if self.metric is None and self.metrics:
            self.metric = next(iter(self.metrics.values()))[0]
        return {str(key): values.get(str(key)) for key in names if str(key) in values.names}

    def _item(self, values: _Row, position: int) -> None:
        doc_hash = values.get("doc_hash")
        if not isinstance(doc_hash, str):
            doc_hash = _doc_hash(values.get("doc"))
        if self.hashes.setdefault(position, doc_hash) != doc_hash:
            raise BadFile("bad_item", f"doc_id {position} is another document than in a row before")
        if position in self.taken_items:
            return
        self.taken_items.add(position)
        cell = self.description
        assert cell
        alone = cell.num_fewshot == 0 and not cell.chat_template and not cell.system_prompt
        self.staging.item(
            run=self.about.run,
            task=self.task,
            key=str(position),
            position=position,
            item_hash=doc_hash,
            prompt=_first_prompt(values.get("arguments")) if alone else None,
            target=as_json(values.get("target")) if "target" in values.names else None,
            **_documents.columns(values.text("doc")),
        )

    def finish(self) -> None:
        if self.description is None and not self.staging.counts[self.number].rejected:
            raise BadFile("damaged", "holds no row")


class _Row:
    """A row's fields. Each is decoded when it is asked for, because most of a row is prompts that nothing needs."""

    def __init__(self, data: bytes) -> None:
        """Raises BadFile."""
        try:
            if not data.isascii():
                data.decode()  # fields that are passed over, too
            self._texts: dict[str, msgspec.Raw] = _FIELDS.decode(data)
            self._values: dict[str, Any] = {}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # damaged, or with NaN
            value = decoded(data)
            if not isinstance(value, dict):
                raise BadFile("damaged", "not a JSON object") from None
            self._texts, self._values = {}, value

    @property
    def names(self) -> Collection[str]:
        return self._texts or self._values

    def get(self, name: str) -> Any:
        if name in self._texts and name not in self._values:
            self._values[name] = _decode(self._texts[name])
        return self._values.get(name)

    def text(self, name: str) -> bytes:
        """The field as JSON."""
        return bytes(self._texts[name]) if name in self._texts else as_json(self._values.get(name)).encode()


_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder()


def _decode(text: msgspec.Raw) -> Any:
    try:
        return _VALUE.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return decoded(bytes(text))


class _Documents:
    """Columns of items by the JSON of their documents: files of one task hold the same documents."""

    def __init__(self, limit: int) -> None:
        """Keeps the columns of up to `limit` bytes of JSON."""
        self.limit, self.bytes = limit, 0
        self.columns_by_text: dict[bytes, dict[str, Any]] = {}

    def columns(self, text: bytes) -> dict[str, Any]:
        if text not in self.columns_by_text:
            if self.bytes + len(text) > self.limit:
                self.columns_by_text.clear()
                self.bytes = 0
            self.columns_by_text[text] = _read_document(text)
            self.bytes += len(text)
        return self.columns_by_text[text]


_documents = _Documents(64 * 2**20)


def _read_document(text: bytes) -> dict[str, Any]:
    doc = decoded(text)
    if not isinstance(doc, dict):
        return {"doc": as_json(doc)}
    choices = document_choices(doc)
    return {
        "content_hash": document_hash(doc, choices),
        "choices": choices,
        "subject": next((str(doc[k]) for k in ("subject", "category", "topic") if doc.get(k)), None),
        "doc": as_json(doc),
    }


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


def _position(values: _Row) -> int | None:
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


def _answers(values: _Row, output_type: str | None) -> dict[str, Any]:
    """RECORD's columns of the answers: texts, or log-likelihoods and whether each was the greedy continuation."""
    requests = values.get("resps")
    answers: list[list[Any]] = [one for one in requests if isinstance(one, list)] if isinstance(requests, list) else []
    if output_type == "generate_until" or (
        answers and all(isinstance(x, str) and _number(x) is None for a in answers for x in a)
    ):
        texts = [text for answer in answers for text in answer if isinstance(text, str)]
        filtered = values.get("filtered_resps")
        return {"responses": texts or None, "filtered": as_json(filtered) if filtered is not None else None}
    pairs = [answer[0] if answer and isinstance(answer[0], list) else answer for answer in answers]
    scores = [_number(pair[0]) if pair else None for pair in pairs]
    greedy = [_flag(pair[1]) if len(pair) > 1 else None for pair in pairs]
    return {
        "loglikelihoods": scores if scores and None not in scores else None,
        "is_greedy": greedy if greedy and None not in greedy else None,
    }


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else {"True": True, "False": False}.get(str(value))
