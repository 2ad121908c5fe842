"""lm-eval's own output, 0.4.0 to 0.4.13: results.json and the sample files beside it.

Owns the layouts of these releases and how they differ. Sources: lm_eval/loggers/evaluation_tracker.py and
lm_eval/evaluator.py of each release.

A run is one results file and the sample files of its folder with the same time in their names; a task's sample file
holds a row per document and filter. Up to 0.4.5 no row names its filter: rows come filter by filter, in the order of
the results file's keys. A file may hold several runs, one after another, because lm-eval opens it to append.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from collectors.importers.files import BadFile
from collectors.importers.formats import evalchemy
from collectors.importers.formats.lm_eval_results import WEIGHTED, About
from collectors.importers.formats.lm_eval_rows import (
    ANSWERS,
    NO_ANSWERS,
    USAGE,
    Fields,
    answers_of,
    documents,
    fields_of,
    first_prompt,
    hash_of,
    json_of,
    number_in,
    seconds_of,
    value_of,
)
from collectors.importers.json_values import document, json_rows
from collectors.importers.processes import Job
from collectors.importers.sources import OF_ROW, CellDescription, ImportSource, Sink, as_json
from collectors.importers.usage import Usage
from schemas.identity import digest

if TYPE_CHECKING:
    from collectors.importers.staging import Staging

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
_NO_USAGE = Usage.of(None, _USAGE)

#: Columns of RAW_VERDICT and RAW_ITEM that differ from row to row, in their order in a row.
_VERDICT = ("row", "key", "filter", "score", "metrics", *USAGE, *ANSWERS)
_ITEM = ("key", "position", "item_hash", "content_hash", "text")
#: Rows, and bytes of a file, that are stored at a time.
_BLOCK_ROWS, _BLOCK_BYTES = 10_000, 64 * 2**20


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
    reader, fields = _Samples(staging, number, about, task), Fields()
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
        self.turns: dict[int, int] = {}
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
        # Also for a row that is refused below: it stands for its filter.
        self.turns[position] = self.turns.get(position, 0) + 1
        name = self._filter(values, position)
        metrics = self._metrics(values)
        if self.description is None:
            self.metric = self.metric or next(iter(metrics), "score")
            self.chosen = self.chosen or name
            self.description = self.about.description_of(self.task, self.metric, self.chosen)
            self.staging.descriptions[self.about.run, str(self.about.model), self.task] = self.description
        self._item(values, position)
        usage = _NO_USAGE
        if "token_usage" in values:
            usage = Usage.of(values["token_usage"], _USAGE)
            usage.suspect(self.staging, self.number, self.about.run, str(self.about.model), self.task)
        counts = usage.prompt_tokens, usage.completion_tokens, seconds_of(values)
        score = _score(self.metric, metrics.get(str(self.metric)))
        answers = answers_of(values, self.description.output_type) if name == self.chosen else NO_ANSWERS
        self.verdicts.append((row, str(position), name, score, as_json(metrics), *counts, *answers))

    def store(self) -> None:
        same = {"run": self.about.run, "task": self.task}
        if self.items:
            self.staging.block("raw_items", same, _ITEM, self.items)
        if self.verdicts:
            same_cell = {**same, "file": self.number, "model": self.about.model, "repeat": 0}
            self.staging.block("raw_verdicts", same_cell, _VERDICT, self.verdicts)
        self.items, self.verdicts, self.bytes = [], [], 0

    def _filter(self, values: dict[str, Any], position: int) -> str:
        if (stated := values.get("filter")) is not None:
            name = str(stated)
            if self.filters and name not in self.filters:
                raise BadFile("unknown_filter", f"filter {name[:60]!r} is none of {', '.join(self.filters)}")
            return name
        if len(self.filters) == 1:
            return self.filters[0]
        turn = self.turns[position] - 1
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
                position = None if isinstance(data, BadFile) else _position(fields_of(data))
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
        return {key: values[key] for name in names if (key := str(name)) in values}

    def _item(self, values: dict[str, Any], position: int) -> None:
        doc_hash = values.get("doc_hash")
        if not isinstance(doc_hash, str):
            doc_hash = hash_of(value_of(values.get("doc")))
        if self.hashes.setdefault(position, doc_hash) != doc_hash:
            raise BadFile("bad_item", f"doc_id {position} is another document than in a row before")
        if position in self.taken_items:
            return
        self.taken_items.add(position)
        cell = self.description
        assert cell
        alone = cell.num_fewshot == 0 and not cell.chat_template and not cell.system_prompt
        content_hash, choices, subject, doc = documents.columns(json_of(values.get("doc")))
        prompt = first_prompt(value_of(values.get("arguments"))) if alone else None
        target = as_json(values["target"]) if "target" in values else None
        text = self.staging.text(prompt, target, choices, subject, doc)
        self.items.append((str(position), position, doc_hash, content_hash, text))

    def finish(self) -> None:
        self.store()
        if self.description:
            figures = self.about.stated(self.task, self.description)
            self.staging.state(
                file=self.number, run=self.about.run, model=str(self.about.model), task=self.task, **figures
            )
        if self.description is None and not self.staging.counts[self.number].rejected:
            raise BadFile("damaged", "holds no row")


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
        loglikelihood, weight = (number_in(part) for part in value)
        if loglikelihood is None or not weight:
            return None
        if metric == "bits_per_byte":
            return -loglikelihood / weight / math.log(2)
        try:
            return math.exp(-loglikelihood / weight)
        except OverflowError:
            return math.inf
    return None
