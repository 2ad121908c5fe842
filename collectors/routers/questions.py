"""A pool with the texts of its questions, ready for routers; and splits of it, stored in a lake.

Owns the text that a router reads, and the rows of the table splits. Knows no routers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.lake.holdings import Holdings
from collectors.lake.layout import split_name
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from collectors.matrix.described import check_more_is_better, head
from collectors.matrix.judged import shown_judges
from collectors.matrix.pool_arrays import Pool, Pools
from collectors.matrix.pool_files import ChosenPool
from collectors.matrix.pools import load_pools
from collectors.metrics.near_duplicates import near_groups
from collectors.metrics.splits import (
    CONTENT,
    MODEL,
    OWN_RULES,
    TASK,
    TIME,
    OwnSplit,
    content_split,
    leaks,
    model_split,
    names_of_groups,
    task_split,
    time_split,
)
from schemas.failures import ConfigError
from schemas.identity import digest
from schemas.records import SPLIT

#: Numbers of an answer that a board needs.
NUMBERS = ("usd", "latency_s", "completion_tokens")


@dataclass(frozen=True)
class Questions:
    """Questions × candidates with texts, in the order of the pool's rows."""

    pool: Pool
    #: (questions,): prompt and choices; the key where the lake holds no text.
    texts: list[str]
    #: (questions,): names that differ where the contents differ.
    keys: list[str]
    subjects: list[str | None]
    #: (questions,): seconds of the first run that asked the question; NaN if unknown.
    times: npt.NDArray[np.float64]
    #: Candidates that are not in the pool, and lines on it for the user.
    left_out: list[str]
    notes: list[str]

    @property
    def tasks(self) -> list[str]:
        tasks: list[str] = self.pool.questions["task"].to_pylist()
        return tasks

    @property
    def ids(self) -> list[str]:
        ids: list[str] = self.pool.questions["question"].to_pylist()
        return ids

    @cached_property
    def groups(self) -> npt.NDArray[np.int64]:
        """(questions,): equal for near-duplicates."""
        return near_groups(self.texts)

    @cached_property
    def near(self) -> list[str]:
        return names_of_groups(self.keys, self.groups)


def load_questions(lake: Lake, chosen: ChosenPool, tasks: Sequence[str] | None = None) -> Questions:
    """The pool over these tasks, or all: the candidates and questions that a board compares on.

    Raises ConfigError if no candidate is in all tasks, their scores cannot be averaged, or less is better.
    """
    wanted = list(tasks) if tasks else None
    pools = load_pools(lake, wanted, chosen.choice, include=chosen.include, numbers=NUMBERS)
    if lost := sorted(set(wanted or ()) - set(pools.tasks)):
        raise ConfigError(f"no cell with a score of task {', '.join(lost)} in the pool")
    [*names] = pools.tasks
    try:
        pool = pools.of_task(names[0]) if len(names) == 1 else pools.over(names)
    except ValueError as error:
        advice = ": name tasks by --task, or see --pool"
        raise ConfigError(f"a board over {len(names)} tasks: {error}", advice=advice) from error
    check_more_is_better(pool)
    if not len(pool.questions) or len(pool.candidates) < 2:
        raise ConfigError(
            f"{len(pool.candidates)} candidates have {len(pool.questions)} questions in common",
            advice=": see --pool, --questions",
        )
    texts, keys, subjects = _texts(lake, chosen, pool)
    missing = sorted(set(pools.every.candidates) - set(pool.candidates))
    left_out = sorted({*missing, *pools.left_out["candidate"].to_pylist()})
    notes = [*chosen.cited(lake.uri), *shown_judges(lake, chosen.choice, chosen.include), *head(pools)]
    if missing:
        notes.append(f"{len(missing)} candidates are not in all of the {len(names)} tasks: {', '.join(missing[:5])}")
    if unread := sum(text == key for text, key in zip(texts, keys, strict=True)):
        notes.append(f"{unread:,} questions have no text in the lake: routers see their ids alone")
    return Questions(pool, texts, keys, subjects, _times(pools, pool), left_out, notes)


def _texts(lake: Lake, chosen: ChosenPool, pool: Pool) -> tuple[list[str], list[str], list[str | None]]:
    keys = pool.questions.select(["task", "question"])
    keys = keys.append_column("row", pa.array(np.arange(len(keys))))

    def read(con: duckdb.DuckDBPyConnection, _: Holdings) -> list[tuple[Any, ...]]:
        con.register("asked", keys)
        query = (
            "SELECT prompt, choices, content_hash, subject, asked.task || '/' || asked.question "
            "FROM asked LEFT JOIN questions USING (task, question) ORDER BY row"
        )
        return con.execute(query).fetchall()

    rows = ask(lake, read, only=["questions"], include=chosen.include, choice=chosen.choice)
    texts, hashes, subjects = [], [], []
    for prompt, choices, content, subject, name in rows:
        lines = [prompt, *(choices or [])]
        key = content or name
        texts.append("\n".join(line for line in lines if line) or key)
        hashes.append(key)
        subjects.append(subject)
    return texts, hashes, subjects


def _times(pools: Pools, pool: Pool) -> npt.NDArray[np.float64]:
    first: dict[tuple[str, str], float] = {}
    cells = pools.every.cells.select(["task", "items_digest", "started_at"]).to_pylist()
    for cell in cells:
        if cell["started_at"] is not None:
            key = (cell["task"], cell["items_digest"])
            first[key] = min(cell["started_at"] / 1e6, first.get(key, np.inf))
    of_row = np.full(len(pools.every.questions), np.inf)
    for key, rows in pools.tables.items():
        if key in first:
            of_row[rows] = np.minimum(of_row[rows], first[key])
    every = pools.every.questions
    names = zip(every["task"].to_pylist(), every["question"].to_pylist(), strict=True)
    times = dict(zip(names, of_row.tolist(), strict=True))
    asked = zip(pool.questions["task"].to_pylist(), pool.questions["question"].to_pylist(), strict=True)
    found = np.array([times[name] for name in asked])
    return np.where(np.isinf(found), np.nan, found)


# ---- splits


def split_by(questions: Questions, rule: str, fraction: float, seed: int, probes: int = 100) -> OwnSplit:
    """A split by one of OWN_RULES. Raises ConfigError if the rule cannot be applied."""
    near = questions.near
    try:
        if rule == CONTENT:
            return content_split(near, fraction, seed)
        if rule == TASK:
            return task_split(near, questions.tasks, fraction, seed)
        if rule == TIME:
            return time_split(near, questions.times, fraction, seed)
        if rule == MODEL:
            return model_split(near, questions.pool.candidates, fraction, seed, probes)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    raise ConfigError(f"split: {rule!r} is none of {', '.join(OWN_RULES)}")


def check_leaks(split: OwnSplit, questions: Questions) -> None:
    """Raises ConfigError, with the first pair, if a test question nearly repeats a training question."""
    if pairs := leaks(split, questions.keys, questions.groups):
        train, test = pairs[0]
        names = [f"{questions.tasks[row]}/{questions.ids[row]}" for row in (train, test)]
        raise ConfigError(
            f"the split leaks: {len(pairs):,} test questions nearly repeat a training question, such as {names[1]} and "
            f"{names[0]}"
        )


def rows_of(split: OwnSplit, questions: Questions) -> pa.Table:
    """The split as rows of the table splits, in one order: the same content and seed give the same name and bytes."""
    asked = zip(questions.tasks, questions.ids, split.near, split.parts.tolist(), strict=True)
    rows: list[dict[str, Any]] = [
        {"task": task, "question": question, "near": near, "part": part} for task, question, near, part in sorted(asked)
    ]
    if split.unseen is not None:
        names = zip(questions.pool.candidates, split.unseen.tolist(), strict=True)
        rows += [{"candidate": name, "part": "unseen" if unseen else "seen"} for name, unseen in sorted(names)]
    probes = None if split.probes is None else int(split.probes.sum())
    head_of = {"rule": split.rule, "seed": split.seed, "fraction": split.fraction, "probes": probes}
    name = f"{split.rule}-{split.seed}-{digest([head_of, rows], 12)}"
    return pa.Table.from_pylist([{"split": name, **head_of, **row} for row in rows], schema=SPLIT)


def store_split(lake: Lake, split: OwnSplit, questions: Questions) -> tuple[str, bool]:
    """Writes a split into the lake. Returns its name, and whether it is new there."""
    rows = rows_of(split, questions)
    name: str = rows["split"][0].as_py()
    return name, lake.create_table(split_name(name), rows)


def stored_split(lake: Lake, name: str, questions: Questions) -> OwnSplit:
    """A split that the lake holds, for these questions; one that is not in it is left out.

    Raises ConfigError if there is none of the name, or it has none of the questions.
    """

    def read(con: duckdb.DuckDBPyConnection, _: Holdings) -> list[dict[str, Any]]:
        query = "SELECT * FROM splits WHERE split = ? ORDER BY task, question, candidate"
        rows: list[dict[str, Any]] = con.execute(query, [name]).to_arrow_table().to_pylist()
        return rows

    rows = ask(lake, read, only=["splits"])
    if not rows:
        names = "SELECT DISTINCT split FROM splits ORDER BY split"
        there = ask(lake, lambda con, _: con.execute(names).fetchall(), only=["splits"])
        known = ", ".join(one for (one,) in there) or "none"
        raise ConfigError(f"the lake at {lake.uri} has no split {name!r}; those it has: {known} (route.py split)")
    of_question = {(row["task"], row["question"]): row for row in rows if row["question"] is not None}
    asked = list(zip(questions.tasks, questions.ids, strict=True))
    parts = np.array([of_question[key]["part"] if key in of_question else "left_out" for key in asked])
    if not (parts == "train").any() or not (parts == "test").any():
        raise ConfigError(f"split {name}: the pool has no question of its training or of its test part")
    unseen = {row["candidate"] for row in rows if row["part"] == "unseen"}
    first = rows[0]
    split = OwnSplit(first["rule"], first["seed"], first["fraction"], parts, questions.near)
    if not unseen:
        return split
    again = model_split(
        questions.near, questions.pool.candidates, first["fraction"], first["seed"], first["probes"] or 0
    )
    is_unseen = np.array([candidate in unseen for candidate in questions.pool.candidates], np.bool_)
    assert again.probes is not None
    return OwnSplit(first["rule"], first["seed"], first["fraction"], parts, questions.near, is_unseen, again.probes)
