"""Makes the forecast of a lake and writes it: the tables forecasts and forecast_fits.

Owns a forecast's identity, its rows and the order of its objects: parts first, then the fit that commits them. The same
lake and settings give the same forecast, so a run that was killed goes on, and a second one writes nothing but parts
that were lost or damaged.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from collectors.forecasts.bands import FEWEST_HELD_OUT, LEVEL, Check, conformal_quantile
from collectors.forecasts.choice import goals_of, greedy
from collectors.forecasts.factors import Answers, Places, complete_models, patterns
from collectors.forecasts.foretelling import REFUSED, SPLITS, Forecaster
from collectors.forecasts.lake_answers import LakeAnswers
from collectors.forecasts.placing import place_by_metadata
from collectors.forecasts.smoothing import Learned, Reals, learn
from collectors.lake.damage import examine
from collectors.lake.keyless import keyless
from collectors.lake.layout import FORECAST_FITS, forecast_fit_name, forecasts_name, is_of_table
from collectors.lake.store import Lake, parquet_bytes
from schemas.failures import ConfigError
from schemas.identity import digest
from schemas.records import FORECAST, FORECAST_FIT

METHOD = "kernel smoothing over asked answers, conformal bands over held-out models and families"
ANSWERS, METADATA = "answers", "metadata"
ALL = ("all", "", "", "")
#: The share of items that models are taken to be asked where no model of the lake was asked some.
PROBE = 0.1
#: Models of a part: of 23,529 items a part then has 3 million rows at most.
PART_MODELS = 128
#: Key in the footer of a fit: object of a part -> its SHA-256.
PARTS = "parts"
#: What `store` did.
STORED, HELD, MENDED = ("stored", "the lake had it already", "its lost or damaged objects were made anew")


@dataclass(frozen=True)
class Settings:
    level: float = LEVEL
    seed: int = 0
    #: Whether rows for single items are written, too.
    items: bool = True
    #: Whether models that the lake describes but never planned are placed by their metadata.
    catalog: bool = False


@dataclass(frozen=True)
class Fitted:
    """A forecast of one lake, made when it is asked for."""

    source: LakeAnswers
    settings: Settings = field(default_factory=Settings)

    @cached_property
    def forecast(self) -> str:
        """Its id."""
        content = {
            "blocks": [(*block.key, block.basis, block.higher_is_better) for block in self.source.blocks],
            "models": sorted(
                [name, base or "", _size(size)]
                for name, base, size in zip(
                    self.source.names, self.source.bases, self.source.parameters.tolist(), strict=True
                )
            ),
            "settings": vars(self.settings),
            "others": sorted([name, base or "", _size(size)] for name, (base, size) in self._others.items()),
            "method": METHOD,
            "version": version(),
        }
        return digest(content, 16)

    @property
    def _others(self) -> dict[str, tuple[str | None, float]]:
        return self.source.others if self.settings.catalog else {}

    @property
    def is_measured(self) -> bool:
        """Whether nothing is left to foretell."""
        return not np.isnan(self.source.answers).any() and not self._others

    @property
    def no_mean(self) -> str | None:
        """Why there is no mean over all tasks; None: there is one, or only one task."""
        blocks = self.source.blocks
        lower = [f"a lower {block.metric} of {block.task} is better" for block in blocks if not block.higher_is_better]
        beyond = [f"scores of {block.task} go beyond 0 and 1" for block in blocks if (block.low, block.high) != (0, 1)]
        if len(blocks) < 2 or not lower + beyond:
            return None
        [reason, *_] = lower + beyond
        return f"no mean over all tasks is foretold: {reason}; name tasks of one scale (--task) for one"

    @property
    def _has_mean(self) -> bool:
        return len(self.source.blocks) > 1 and not self.no_mean

    @cached_property
    def is_whole(self) -> Any:
        """(models,): complete over all blocks."""
        return complete_models(self.source.answers)

    @cached_property
    def learned(self) -> Learned:
        given = self.source
        return learn(given.answers, given.block_of, names=given.names, bases=given.bases, seed=self.settings.seed)

    @cached_property
    def sparse(self) -> Places:
        """(models,): rows of models with some answers, and not with all."""
        seen = ~np.isnan(self.source.answers)
        return np.flatnonzero(seen.any(axis=1) & ~seen.all(axis=1))

    @cached_property
    def forecaster(self) -> Forecaster:
        answers = self.source.answers[self.sparse]
        # Models that lack a few answers by our fault each have a set of their own: they calibrate nothing.
        asked = sorted(
            ((len(rows), one) for rows, one in patterns(answers[~self.is_whole[self.sparse]])),
            key=lambda pair: -pair[0],
        )
        sets = [one for _, one in asked if len(one)]
        if not sets:
            size = max(1, round(PROBE * answers.shape[1]))
            sets = [np.sort(greedy(self.learned.factors, goals_of(self.learned.tasks), size))]
        return Forecaster(self.learned, sets, self.settings.level, self.settings.seed)

    # ---- rows

    def parts(self) -> Iterator[pa.Table]:
        """The rows of the table forecasts, in parts."""
        for start in range(0, len(self.sparse), PART_MODELS):
            rows = self.sparse[start : start + PART_MODELS]
            yield self._of_answers(rows)
        if placed := self._of_metadata():
            yield pa.Table.from_pylist(placed, FORECAST)

    def _of_answers(self, rows: Places) -> pa.Table:
        answers = self.source.answers[rows]
        values, halves = self.forecaster.means(answers)
        given = self.source
        models = [(given.names[row], given.cells[row], ~np.isnan(given.answers[row])) for row in rows.tolist()]
        tables = [pa.Table.from_pylist(list(self._means(models, values, halves, ANSWERS)), FORECAST)]
        if self.settings.items:
            expected = self.forecaster.items(answers)
            tables += [self._items(row, expected[place]) for place, row in enumerate(rows.tolist())]
        return pa.concat_tables(tables)

    def _means(
        self, models: Sequence[tuple[str, Any, Any]], values: Reals, halves: Reals, method: str
    ) -> Iterator[dict[str, Any]]:
        """Rows of `models`, each its name, its cell of each block and (items,) whether it has the answer."""
        blocks = self.source.blocks
        for (name, cells, seen), expected, half in zip(models, values, halves, strict=True):
            for number, block in enumerate(blocks):
                own = self.source.block_of == number
                if np.isnan(half[number]) or seen[own].all():
                    continue
                head = (name, cells[number], int(seen[own].sum()), int(own.sum()))
                yield self._row(block.key, head, expected[number], half[number], (block.low, block.high), method)
            if self._has_mean and not np.isnan(half[-1]):
                head = (name, None, int(seen.sum()), len(seen))
                yield self._row(ALL, head, expected[-1], half[-1], (0.0, 1.0), method)

    def _row(
        self,
        key: tuple[str, str, str, str],
        head: tuple[str, str | None, int, int],
        value: float,
        half: float,
        scale: tuple[float, float],
        method: str,
    ) -> dict[str, Any]:
        low, high = scale
        spread = high - low
        ends = (value - half, value + half)
        model, cell_id, asked, items = head
        return {
            **dict(zip(("task", "items_digest", "prompting", "metric"), key, strict=True)),
            "forecast": self.forecast,
            "model": model,
            "cell_id": cell_id,
            "item": None,
            "value": round(low + spread * float(np.clip(value, 0, 1)), 6),
            "low": round(low + spread * max(0.0, ends[0]), 6),
            "high": round(low + spread * min(1.0, ends[1]), 6),
            "level": self.settings.level,
            "method": method,
            "asked": asked,
            "items": items,
        }

    def _items(self, row: int, expected: Answers) -> pa.Table:
        """The items that a model did not answer, of its cells."""
        given = self.source
        tables = [FORECAST.empty_table()]
        for number, block in enumerate(given.blocks):
            own = np.flatnonzero((given.block_of == number) & np.isnan(given.answers[row]))
            if given.cells[row, number] is None or not len(own) or self.forecaster.goals[number].verdict == REFUSED:
                continue
            asked = int((given.block_of == number).sum() - len(own))
            same = (self.forecast, *block.key, given.names[row], given.cells[row, number])
            columns = [pa.repeat(pa.scalar(one, pa.string()), len(own)) for one in same]
            columns += [
                pa.array(given.item_of[own], pa.int32()),
                pa.array(np.round(block.low + (block.high - block.low) * expected[own].astype(np.float64), 4)),
            ]
            columns += [pa.nulls(len(own), pa.float64())] * 3
            columns += [pa.repeat(pa.scalar(ANSWERS), len(own))]
            columns += [pa.repeat(pa.scalar(one, pa.int32()), len(own)) for one in (asked, asked + len(own))]
            tables.append(pa.Table.from_arrays(columns, schema=FORECAST))
        return pa.concat_tables(tables)

    def _of_metadata(self) -> list[dict[str, Any]]:
        """Models without an answer. A refused goal has no row of theirs either."""
        given, whole = self.source, np.flatnonzero(self.is_whole)
        nothing = np.flatnonzero(np.isnan(given.answers).all(axis=1))
        others = sorted(self._others)
        if not len(nothing) + len(others):
            return []
        means = np.nan_to_num(given.answers[whole], nan=0.5).astype(np.float64) @ self.learned.goals.T
        described = [(given.names[row], given.bases[row], float(given.parameters[row])) for row in nothing.tolist()]
        described += [(name, *given.others[name]) for name in others]
        values, errors = place_by_metadata(
            means,
            [given.names[row] for row in whole],
            [given.bases[row] for row in whole],
            given.parameters[whole],
            described,
        )
        half = np.array([conformal_quantile(np.abs(column), self.settings.level) for column in errors.T])
        half[[goal.verdict == REFUSED for goal in self.forecaster.goals]] = np.nan
        cells = [*given.cells[nothing], *([None] * len(given.blocks) for _ in others)]
        seen = np.zeros(len(given.block_of), np.bool_)
        models = [(one[0], of_model, seen) for one, of_model in zip(described, cells, strict=True)]
        return list(self._means(models, values, np.tile(half, (len(models), 1)), METADATA))

    def fit_rows(self, number: int) -> pa.Table:
        """The rows of the table forecast_fits: for each task and split how the bands did."""
        checks = self.forecaster.item_checks
        asked = self.forecaster.calibrated_asked
        rows = []
        keys = [block.key for block in self.source.blocks]
        for place, goal in enumerate(self.forecaster.goals):
            if place == len(keys) and not self._has_mean:
                continue
            item_check = checks[place] if place < len(keys) else None
            block = self.source.blocks[place] if place < len(keys) else None
            trained = None if block is None else self._trained_on(place)
            for split in SPLITS:
                done = goal.checks.get(split)
                scale = 1.0 if block is None else block.high - block.low
                rows.append(
                    {
                        "forecast": self.forecast,
                        **dict(zip(("task", "items_digest", "prompting", "metric"), [*keys, ALL][place], strict=True)),
                        "number": number,
                        "method": METHOD,
                        "version": version(),
                        "basis": None if block is None else block.basis,
                        "trained_on": trained,
                        "verdict": goal.verdict,
                        "reason": goal.reason,
                        "split": split,
                        "asked": len(asked) if block is None else int((self.source.block_of[asked] == place).sum()),
                        "level": self.settings.level,
                        "brier": None if item_check is None else round(item_check.brier, 6),
                        "brier_of_mean": None if item_check is None else round(item_check.brier_of_mean, 6),
                        **_checked(done, scale),
                    }
                )
        return pa.Table.from_pylist(rows, FORECAST_FIT)

    def _trained_on(self, block: int) -> list[str]:
        own = self.source.block_of == block
        seen = (~np.isnan(self.source.answers[:, own])).any(axis=1)
        share = (~np.isnan(self.source.answers)).mean(axis=1)
        rows = np.flatnonzero(seen & (share >= 1 / 3))
        return sorted(cell for cell in self.source.cells[rows, block].tolist() if cell is not None)


def fits_of(source: LakeAnswers, settings: Settings) -> list[Fitted]:
    """One forecast over all tasks, which learn from each other; or one a task, where too few models have them all."""
    if len(source.blocks) == 1 or complete_models(source.answers).sum() >= FEWEST_HELD_OUT:
        return [Fitted(source, settings)]
    return [Fitted(source.of_block(number), settings) for number in range(len(source.blocks))]


def store(lake: Lake, fitted: Fitted) -> tuple[str, str]:
    """Writes the forecast into the lake. Returns its id, and STORED, HELD or MENDED."""
    name = forecast_fit_name(fitted.forecast)
    is_there = lake.has(name)
    if is_there and not faults_of(lake, fitted.forecast):
        return fitted.forecast, HELD
    if not fitted.is_whole.any():
        raise ConfigError(
            f"the lake at {lake.uri} has no model with all answers to these tasks: collect some models whole first, or "
            "name tasks (--task) that some models answered whole"
        )
    parts = {}
    for place, part in enumerate(fitted.parts()):
        of_part = forecasts_name(fitted.forecast, place)
        parts[of_part] = _put(lake, of_part, parquet_bytes(keyless(of_part, part), name=of_part))
    fit = keyless(name, fitted.fit_rows(_number(lake, name)))
    _put(lake, name, parquet_bytes(fit, {PARTS: parts}, name))
    return fitted.forecast, MENDED if is_there else STORED


def faults_of(lake: Lake, forecast: str) -> list[str]:
    """A line for each object of a stored forecast that is lost, damaged or another than its fit names."""
    name = forecast_fit_name(forecast)
    if reason := examine(lake, name):
        return [f"{name}: {reason}"]
    footer = pq.read_schema(io.BytesIO(lake.read(name))).metadata or {}
    faults = []
    for part, sha256 in sorted(json.loads(footer.get(PARTS.encode(), b"{}")).items()):
        if not lake.has(part):
            faults.append(f"{part}: it is missing")
        elif _sha256(lake.read(part)) != sha256:
            faults.append(f"{part}: {examine(lake, part) or 'it is another object than was written'}")
    return faults


def _put(lake: Lake, name: str, data: bytes) -> str:
    """Creates the object, in place of a damaged or foreign one. Returns its SHA-256."""
    if not lake.create(name, data) and lake.read(name) != data:
        lake.remove([name])
        lake.create(name, data)
    return _sha256(data)


def _number(lake: Lake, name: str) -> int:
    """The number of the fit `name`: the one that it has, or the next one."""
    if lake.has(name) and not examine(lake, name):
        return int(pq.read_table(io.BytesIO(lake.read(name)), columns=["number"])["number"][0].as_py())
    return 1 + sum(1 for one in lake.names(FORECAST_FITS) if is_of_table(FORECAST_FITS, one) and one != name)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _size(parameters: float) -> float:
    """Parameters for an identity; -1: unknown."""
    return -1.0 if math.isnan(parameters) else parameters


def version() -> str:
    return importlib.metadata.version("routerlake")


def _checked(done: Check | None, scale: float) -> dict[str, Any]:
    if done is None:
        return {"models": 0}
    return {
        "models": done.models,
        "coverage": round(done.coverage, 6),
        "error": round(scale * done.error, 6),
        "width": round(scale * done.width, 6),
        "pairs": done.pairs,
        "pairs_right": None if done.pairs_right is None else round(done.pairs_right, 6),
    }
