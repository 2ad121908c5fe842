"""Estimates the tokens, GPU-hours and dollars of a plan, per class of models.

Uses the lake's measurements. Where it has none, owns the assumptions, each a named constant with its source, and counts
the cells that rest on them. An unknown number is None, never 0; if a sum leaves one out, a note names it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from collectors.engines import ModelRef, engine_class
from collectors.engines.gpus import GpuClass, Placement, is_device
from collectors.harness.tasks import DEFAULT_MAX_GEN_TOKENS, BoundTask, answer_limit
from collectors.lake.store import Lake
from collectors.models.placement import FIXED_GIB, KV_TOKENS, UTILIZATION, ModelSize
from collectors.models.sizes import sizes_of
from collectors.prices.tables import how_to_price, token_prices, usd_per_gpu_hour
from collectors.runs.measured import Measured, measured
from collectors.runs.plan import Plan, PlannedCell
from collectors.specs import SampleSpec

#: Operations per parameter and token of a forward pass (Kaplan et al. 2020, "Scaling Laws", table 1).
OPERATIONS = 2
#: Share of a GPU's peak operations that prompts reach, and share of its peak bandwidth that answers reach. Both are
#: assumed; Pope et al. 2022 ("Efficiently Scaling Transformer Inference") reach at most 0.76 of the operations.
PROMPT_SHARE, ANSWER_SHARE = 0.4, 0.6
#: Below so many parameters the first share falls by this power of the size: narrow matrices fill no GPU. Assumed.
FULL_PARAMETERS, NARROW = 4e9, 0.35
#: An engine's step takes at least so many seconds, for at most so many tokens of prompts or one of each answer: the CPU
#: schedules and launches it. A request takes some of the CPU, too (tokens, log-probabilities). Assumed.
STEP_SECONDS, STEP_TOKENS, REQUEST_SECONDS = 0.005, 2048, 0.001
#: Requests that generate side by side and share each reading of the weights; assumed.
SIDE_BY_SIDE = 64
#: Seconds to start an engine, and bytes of weights per second that it fetches and reads; assumed.
START_SECONDS, LOAD_BYTES = 60.0, 1e9
#: Items of a task whose texts are measured.
SAMPLE = 20

#: Tiers of sizes, each with its limit in parameters.
TIERS = (("<1B", 1e9), ("1-4B", 4e9), ("4-10B", 1e10), ("10-20B", 2e10), ("20-40B", 4e10), ("40-80B", 8e10))


def tier_of(parameters: int | None) -> str:
    if parameters is None:
        return "size unknown"
    return next((name for name, most in TIERS if parameters < most), ">80B")


@dataclass(frozen=True)
class Tokens:
    """Tokens that an engine computes for one item, without those from its prefix cache."""

    prompt: float
    generated: float
    measured: bool


@dataclass(frozen=True)
class Pace:
    """Seconds of an engine per token of a prompt, per generated token, per load of the model, and per request."""

    prompt: float
    generated: float
    #: None: unknown.
    load: float | None
    #: "own" (shards of the same model), "class" (shards of models of its class) or "formula".
    by: str
    #: Measurements per token have it in them.
    request: float = 0.0


@dataclass
class Row:
    """One class of models: a tier of sizes on one placement."""

    tier: str
    place: str
    models: int = 0
    cells: int = 0
    #: Cells whose tokens and pace both rest on measurements.
    measured: int = 0
    items: int = 0
    tokens: float = 0.0
    #: GPU-hours, or engine-hours without GPUs. None: the pace of some cell is unknown.
    hours: float | None = 0.0
    #: None: the GPU has no price, or the hours are unknown.
    usd: float | None = 0.0

    def add(self, other: Row) -> None:
        for name in ("models", "cells", "measured", "items", "tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.hours = None if self.hours is None or other.hours is None else self.hours + other.hours
        self.usd = None if self.usd is None or other.usd is None else self.usd + other.usd


@dataclass
class Estimate:
    """The work left in a plan, per class of models."""

    rows: list[Row]
    #: One line each.
    assumptions: list[str]

    @property
    def total(self) -> Row:
        """The sum of all rows. Its hours and dollars cover the rows that have them; None if none has."""
        total = Row("in all", "")
        for row in self.rows:
            total.add(row)
        total.hours = _sum(row.hours for row in self.rows)
        total.usd = _sum(row.usd for row in self.rows)
        return total


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum without unknown values; None if all are unknown."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) if numbers else None


def estimate(plan: Plan, lake: Lake) -> Estimate:
    """Estimates the work left in `plan` from the lake's measurements. Asks no hub and starts nothing."""
    return Estimator(plan, lake).run()


def _left_of(share: float) -> Callable[[PlannedCell], int]:
    """The items of a cell that a run has to ask for `share` of them, without those that the lake holds. A part that is
    asked several times is no such share."""
    size = functools.cache(SampleSpec(share=share).size)  # few lengths, many cells

    def left(planned: PlannedCell) -> int:
        if planned.cell.spec.repeats:
            return 0
        items, still_open = planned.cell.items, planned.open_items
        wanted = size(items) - items + still_open
        return wanted if 0 <= wanted <= still_open else 0 if wanted < 0 else still_open

    return left


@dataclass
class _Sum:
    """Sums over measurements of one model or class."""

    tokens: float = 0.0
    seconds: float = 0.0
    loads: int = 0
    load_seconds: float = 0.0
    devices: set[str | None] = field(default_factory=set)

    def add(self, one: Measured) -> None:
        self.tokens += one.tokens
        self.seconds += one.engine_seconds
        self.loads += one.loads
        self.load_seconds += one.load_seconds
        self.devices.add(one.gpu)

    @property
    def load(self) -> float | None:
        return self.load_seconds / self.loads if self.loads else None


class Estimator:
    """Estimates one plan. It reads the lake once."""

    def __init__(self, plan: Plan, lake: Lake) -> None:
        self.plan, self.lake = plan, lake
        #: The cells of each model, found once: there may be a million, and five estimates are made of them.
        self._cells: dict[ModelRef, list[PlannedCell]] = {}
        for cell in plan.cells:
            self._cells.setdefault(cell.cell.model, []).append(cell)
        models = list(self._cells)
        self.sizes = dict(plan.sizes) or {
            model: size for model, size in sizes_of(lake, models, far=False) if isinstance(size, ModelSize)
        }
        self.gpus = {gpu.name: gpu for gpu in plan.gpus}
        self.shards = measured(lake, plan.config.engine.name, {cell.cell.cell_id for cell in plan.cells})
        self.tokens_of: dict[str, tuple[float, int]] = {}
        self.own: defaultdict[str, _Sum] = defaultdict(_Sum)
        self.of_class: defaultdict[tuple[str, str], _Sum] = defaultdict(_Sum)
        named = {model.name: model for model in models}
        self._sum_up(named)
        self.slower = self._slower(named)
        self.engine = engine_class(plan.config.engine.name)
        self.characters = self.engine.characters_per_token
        self._texts: dict[str, Tokens] = {}
        #: Models of endpoints: their prices in words, and names of those without one.
        self.hosted: list[str] = []
        self.unpriced_hosts: list[str] = []
        #: Number of cells by the source of their tokens and of their pace.
        self.by: defaultdict[str, int] = defaultdict(int)
        self.usd = usd_per_gpu_hour(lake, self._priced())

    def _sum_up(self, models: dict[str, ModelRef]) -> None:
        for one in self.shards:
            tokens, items = self.tokens_of.get(one.prompting, (0.0, 0))
            self.tokens_of[one.prompting] = tokens + one.tokens, items + one.items
            model = models.get(one.model)
            if model and _same_place(model.placement, one):
                self.own[one.model].add(one)
                self.of_class[self._class(model)].add(one)

    def _class(self, model: ModelRef) -> tuple[str, str]:
        size = self.sizes.get(model)
        return tier_of(size.parameters if size else None), str(model.placement or "")

    def of_shares(self, shares: Sequence[float]) -> list[Row]:
        """The sums of estimates, had runs to ask these shares of each cell's items, without what the lake holds."""
        return [self.run(_left_of(share)).total for share in shares]

    def of_repeats(self) -> Row | None:
        """What repeats add to the estimate: without the load of a model that has other open cells. None without any."""
        if not any(cell.cell.spec.repeats and cell.todo for cell in self.plan.cells):
            return None
        whole, once = self.run().total, self.run(lambda cell: 0 if cell.cell.spec.repeats else cell.items_todo).total
        added = Row("repeats", "", whole.models - once.models, whole.cells - once.cells)
        added.items, added.tokens = whole.items - once.items, whole.tokens - once.tokens
        added.hours, added.usd = whole.hours, whole.usd
        if once.items:
            added.hours = None if whole.hours is None or once.hours is None else whole.hours - once.hours
            added.usd = None if whole.usd is None or once.usd is None else whole.usd - once.usd
        return added

    def run(self, items: Callable[[PlannedCell], int] = attrgetter("items_todo")) -> Estimate:
        """The estimate of the plan, where `items` is how many of a cell are to be asked."""
        self.by.clear()
        self.hosted, self.unpriced_hosts = [], []
        rows: dict[tuple[str, str], Row] = {}
        for model, cells in self._cells.items():
            of_model = [(cell, count) for cell in cells if (count := items(cell))]
            if not of_model:
                continue
            row = self._row(model, of_model)
            if (row.tier, row.place) in rows:
                rows[row.tier, row.place].add(row)
            else:
                rows[row.tier, row.place] = row
        order = {name: i for i, (name, _) in enumerate(TIERS)}
        ordered = sorted(rows.values(), key=lambda row: (order.get(row.tier, len(order)), row.tier, row.place))
        return Estimate(ordered, self._assumptions())

    def _priced(self) -> set[str]:
        return set(self.gpus) or {one.gpu for one in self.shards if one.gpu}

    def _row(self, model: ModelRef, cells: list[tuple[PlannedCell, int]]) -> Row:
        if model.endpoint:
            return self._hosted_row(model, cells)
        pace = self._pace(model)
        row = Row(*self._class(model), models=1, cells=len(cells))
        seconds = (pace.load or 0.0) if pace else 0.0
        self.by["loads unknown"] += pace is not None and pace.load is None
        self.by[f"pace {pace.by if pace else 'unknown'}"] += len(cells)
        measured_cells = 0
        for cell, items in cells:
            tokens = self._texts.get(cell.cell.prompting) or self._tokens(cell)
            generated = tokens.generated
            if tokens.measured:
                measured_cells += 1
            elif thought := cell.cell.effort.thinking_tokens:
                generated += thought
            row.items += items
            row.tokens += items * (tokens.prompt + generated)
            if pace:
                item = tokens.prompt * pace.prompt + generated * pace.generated
                seconds += items * (item + cell.requests_per_item * pace.request)
        self.by["tokens measured"] += measured_cells
        self.by["tokens assumed"] += len(cells) - measured_cells
        row.measured += measured_cells if pace and pace.by != "formula" else 0
        gpus = model.placement.gpus if model.placement else 1.0
        row.hours = seconds * gpus / 3600 if pace else None
        price = self._price(model)
        row.usd = row.hours * price if row.hours is not None and price is not None else None
        return row

    def _hosted_row(self, model: ModelRef, cells: list[tuple[PlannedCell, int]]) -> Row:
        """An endpoint's model: its dollars are its tokens' price, and its hours are unknown."""
        prices = token_prices(self.lake, (model.name, model.source))
        row = Row("hosted", model.name, models=1, cells=len(cells), hours=None, usd=None)
        usd = 0.0
        for cell, items in cells:
            tokens = self._tokens(cell)
            generated = (
                tokens.generated if tokens.measured else tokens.generated + (cell.cell.effort.thinking_tokens or 0)
            )
            prompt = tokens.prompt
            if cell.of_task["output_type"] == "generate_until" and not tokens.measured:
                prompt *= cell.requests_per_item  # a host takes the prompt of each repeat for a new one
            row.items += items
            row.tokens += items * (prompt + generated)
            row.measured += tokens.measured
            self.by["tokens measured" if tokens.measured else "tokens assumed"] += 1
            if prices:
                each = prompt * (prices["usd_per_million_prompt"] or 0.0)
                each += generated * (prices["usd_per_million_completion"] or 0.0)
                requests = cell.requests_per_item * (prices["usd_per_request"] or 0.0)
                usd += items * (each / 1e6 + requests)
        if prices:
            row.usd = usd
            rates = f"{prices['usd_per_million_prompt']:g} a million prompt tokens, "
            self.hosted.append(f"{model.name}: {rates}{prices['usd_per_million_completion']:g} completion tokens")
        else:
            self.unpriced_hosts.append(model.name)
        return row

    def _price(self, model: ModelRef) -> float | None:
        if model.placement:
            return self.usd.get(model.placement.gpu)
        sums = self.own.get(model.name) or self.of_class.get(self._class(model))
        devices = sums.devices if sums else set()
        return self.usd.get(next(iter(devices)) or "") if len(devices) == 1 else None

    # ---- tokens

    def _tokens(self, cell: PlannedCell) -> Tokens:
        prompting = cell.cell.prompting
        if prompting not in self._texts:
            task = self.plan.tasks[prompting]
            self._texts[prompting] = self._measured(task_tokens(task, cell.row, self.characters), prompting)
        return self._texts[prompting]

    def _measured(self, assumed: Tokens, prompting: str) -> Tokens:
        """Returns the measured tokens of an item, or the assumed ones if nothing was measured.

        Measurements give one sum. The assumed number of them counts as generated, and the rest as the prompt's.
        """
        tokens, items = self.tokens_of.get(prompting, (0.0, 0))
        if not items:
            return assumed
        generated = min(assumed.generated, tokens / items)
        return Tokens(tokens / items - generated, generated, True)

    # ---- pace

    def _pace(self, model: ModelRef) -> Pace | None:
        of_class = self.of_class.get(self._class(model))
        size, place = self.sizes.get(model), model.placement
        for by, sums in (("own", self.own.get(model.name)), ("class", of_class)):
            if sums and sums.tokens:
                load = sums.load or (of_class.load if of_class else None)
                if load is None and place and size and size.weight_bytes:
                    load = load_seconds(size.weight_bytes)
                return Pace(sums.seconds / sums.tokens, sums.seconds / sums.tokens, load, by)
        if place is None or size is None or not size.parameters:
            return None
        pace = formula_pace(size.parameters, size.weight_bytes, place, self.gpus[place.gpu])
        return pace and dataclasses.replace(
            pace,
            prompt=pace.prompt * self.slower,
            generated=pace.generated * self.slower,
            request=pace.request * self.slower,
        )

    def _slower(self, models: dict[str, ModelRef]) -> float:
        """How many times slower than by the formula the measured models were: the median, a tenth to ten.

        1 if none was measured.
        """
        ratios = []
        for name, sums in self.own.items():
            size, place = self.sizes.get(models[name]), models[name].placement
            if place and size and size.parameters and sums.tokens:
                pace = formula_pace(size.parameters, size.weight_bytes, place, self.gpus[place.gpu])
                if pace:
                    # Prompts alone: how many of these tokens were generated is not recorded.
                    ratios.append(sums.seconds / (sums.tokens * pace.prompt))
        return min(10.0, max(0.1, statistics.median(ratios))) if ratios else 1.0

    # ---- the list of assumptions

    def _assumptions(self) -> list[str]:
        by, lines = self.by, []
        if count := by["tokens measured"]:
            lines.append(f"tokens of {count} cells: measured, by shards of any model under the same prompting")
        if count := by["tokens assumed"]:
            lines.append(
                f"tokens of {count} cells: assumed, {self.characters:g} characters a token, contexts once per item "
                f"(choices share them), answers as long as the task allows (its own limit, or lm-eval's "
                f"{DEFAULT_MAX_GEN_TOKENS})"
            )
            if any(cell.cell.effort.thinking_tokens for cell in self.plan.cells):
                lines[-1] += ", thoughts of thinking_tokens"
        if count := by["pace own"]:
            lines.append(f"pace of {count} cells: measured, by shards of the same model")
        if count := by["pace class"]:
            lines.append(f"pace of {count} cells: measured, by shards of other models of the same row")
        if count := by["pace formula"]:
            lines.append(
                f"pace of {count} cells: assumed, {OPERATIONS} operations per parameter and token read at "
                f"{PROMPT_SHARE:.0%} of the GPUs' peak (less below {FULL_PARAMETERS / 1e9:g}B), weights read once per "
                f"token of {SIDE_BY_SIDE} answers at {ANSWER_SHARE:.0%} of their bandwidth, steps of at least "
                f"{STEP_SECONDS * 1000:g} ms and {REQUEST_SECONDS * 1000:g} ms a request; a load {START_SECONDS:g} s "
                f"and {LOAD_BYTES / 1e9:g} GB/s; never held against a GPU"
            )
            if self.slower != 1:
                lines[-1] += f"; times {self.slower:.2g}, as measured models of this lake are to it"
        if count := by["pace unknown"]:
            lines.append(
                f"pace of {count} cells: unknown, because nothing like them was measured; the sums leave them out"
            )
        if count := by["loads unknown"]:
            lines.append(f"loading {count} models: unknown, the sums leave it out")
        if not self.gpus and self.engine.needs_placement:
            lines.append(
                "GPUs: without fleet.gpus models are placed only on a running cluster, so hours are engines' hours"
            )
        if self.gpus:
            lines.append(
                "left out: nodes that boot, engines that start anew or wait (for a node, a download, the last shards), "
                "nodes that idle before they go, work that is lost with a spot node; a budget counts engines' waiting"
            )
            lines.append(
                f"memory: weights, key-value cache of {KV_TOKENS:,} tokens or one longest request, activations and "
                f"{FIXED_GIB:g} GiB, in {UTILIZATION:.0%} of a GPU or of its part"
            )
        if self.hosted:
            lines.append(
                f"USD of endpoints, no prompt cached and every answer as long as assumed: {'; '.join(self.hosted)}"
            )
        if self.unpriced_hosts:
            lines.append(
                f"USD: unknown for {', '.join(self.unpriced_hosts)}: no price in the lake (prices.py adds one)"
            )
        if self.usd:
            prices = ", ".join(f"{name} {usd:g}" for name, usd in sorted(self.usd.items()))
            lines.append(f"USD per GPU-hour, by gpu_prices: {prices}")
        if unpriced := sorted(self._priced() - self.usd.keys()):
            lines.append(
                f"USD: unknown for {', '.join(unpriced)}: no price in the lake; add it by "
                f"{how_to_price(self.lake, unpriced)}"
            )
        return lines


def _same_place(place: Placement | None, shard: Measured) -> bool:
    """Whether a shard ran on GPUs like the model's placement; always true for a model without one."""
    if place is None:
        return True
    if shard.gpu is None and shard.gpus is None:
        return False
    return (shard.gpu is None or is_device(place.gpu, shard.gpu)) and (shard.gpus or 1.0) == place.gpus


def formula_pace(parameters: int, weight_bytes: int | None, place: Placement, gpu: GpuClass) -> Pace | None:
    """Computes a pace from a model's size and the GPU's peaks; None if these are unknown.

    Operations bound the prompts. Reading the weights for each token bounds the answers. An engine's steps bound both.
    """
    if gpu.tflops is None or gpu.bandwidth is None:
        return None
    size = weight_bytes or 2 * parameters
    share = PROMPT_SHARE * min(1.0, parameters / FULL_PARAMETERS) ** NARROW
    prompt = OPERATIONS * parameters / (gpu.tflops * 1e12 * share * place.gpus)
    answer = size / (gpu.bandwidth * 1e9 * ANSWER_SHARE * place.gpus * SIDE_BY_SIDE)
    answer = max(answer, prompt, STEP_SECONDS / SIDE_BY_SIDE)
    return Pace(max(prompt, STEP_SECONDS / STEP_TOKENS), answer, load_seconds(size), "formula", REQUEST_SECONDS)


def load_seconds(weight_bytes: int) -> float:
    """Assumed seconds to start an engine and load that many bytes of weights."""
    return START_SECONDS + weight_bytes / LOAD_BYTES


def task_tokens(task: BoundTask, columns: dict[str, Any], characters: float) -> Tokens:
    """Estimates the tokens of an item of `task` from the lengths of its texts, on average over a sample.

    `columns` are the cell's columns of RUN_CELL, which give its prompting; `characters` is the length of a token.
    """
    sample = task.docs[:: max(len(task.docs) // SAMPLE, 1)][:SAMPLE]
    choices = [task.choices(doc) or [] for doc in sample]
    question = statistics.mean(len(task.question(doc) or "") for doc in sample)
    answer = statistics.mean(
        len(max(given, key=len)) if given else len(task.target(doc) or "")
        for doc, given in zip(sample, choices, strict=True)
    )
    shots = columns["num_fewshot"] or 0
    context = (shots + 1) * question + shots * answer + len(columns["system_prompt"] or "")
    if columns["output_type"] == "generate_until":
        settings = {**(task.task.config.generation_kwargs or {}), **json.loads(columns["decoding"] or "{}")}
        repeats = int(getattr(task.task.config, "repeats", None) or 1)
        return Tokens(context / characters, float(repeats * answer_limit(settings)), False)
    offered = statistics.mean(sum(map(len, given)) for given in choices) if any(choices) else answer
    return Tokens((context + offered) / characters, 0.0, False)
