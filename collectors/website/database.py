"""The database of a site: what its pages show and its query page asks, in one DuckDB file.

Owns the tables of `site.duckdb` and their order. The numbers are those of the views; the pages are made from this file
alone, so a query that a page shows gives the number beside it. It is in the storage of DuckDB 1.0, which DuckDB-WASM
reads by ranges. The same lake gives the same bytes (collectors.same_bytes): one thread writes them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb

from collectors.lake.holdings import Holdings, read_holdings
from collectors.lake.parts import limit_memory
from collectors.lake.reading import connect, pass_over_damage
from collectors.lake.store import Lake
from collectors.same_bytes import SAME_COMPRESSION, in_cleared_process
from schemas.columns import column_docs
from schemas.failures import ConfigError
from schemas.sql import quoted
from schemas.texts import MAY_HOLD, without_keys
from schemas.views import view_files

DATABASE = "site.duckdb"
#: Answers are copied into the site up to this number. Beyond it they stay in the version's own Parquet.
MOST_ANSWERS = 300_000
#: Pairs are made of this many candidates of a pool, the best ones: 8,500 would make 36 million.
PAIRED = 60
#: Records that are sorted at once: a sort of 20M at once took 1.6 times the CPU of one of 2M, for each record.
AT_ONCE = 4_000_000
_MEMORY = "3GB"
#: The widest prompt of a table of questions, in characters.
_HEAD = 160

#: Table -> the meaning of a row, and its query. A view's own comment stands for a row of a view that is taken whole.
_WHOLE = {
    "leaderboard": "task, is_group, items_digest, prompting, metric, filter, rank NULLS LAST, score DESC, ALL",
    "coverage": "task, model, cell_id",
    "tasks": "task, items_digest, prompting",
    "candidates": "task, candidate",
    "oracle": "is_all, task",
    "oracle_heldout": "is_all, task",
    "pareto": "is_all, task, usd_per_1000, candidate",
    "suspicions": "ALL",
    "imports": "ALL",
    "forecast_leaderboard": "task, forecast, items_digest, prompting, metric, model, ALL",
}
_CELLS = """
SELECT cell_id, task, model, source, revision, items_digest, prompting, metric, filter, higher_is_better,
    correct_threshold, planned_items, num_fewshot, chat_template, system_prompt, decoding, dtype, quantization, effort,
    max_length, engine, endpoint, imported_from, run_id, epoch_us(started_at) // 1000000 AS started
FROM cells ORDER BY task, model, cell_id
"""
_MODELS = """
SELECT
    cells.model, min(cells.source) AS source, max(models.parameters) AS parameters,
    min(models.licence) AS licence,
    min(models.architecture) AS architecture, max(models.max_length) AS max_length,
    min(models.quantization) AS quantization, min(models.base_model) AS base_model,
    string_agg(DISTINCT cells.revision, ', ' ORDER BY cells.revision) AS revisions
FROM (SELECT DISTINCT model, source, revision FROM cells) AS cells
LEFT JOIN models ON cells.model = models.model AND cells.revision = models.revision
GROUP BY cells.model ORDER BY cells.model
"""
_OVERALL = """
WITH counted AS (
    SELECT DISTINCT task FROM candidates WHERE higher_is_better AND correct_threshold IS NOT NULL
),

lengths AS (
    SELECT task, max(planned) AS items
    FROM candidates
    SEMI JOIN counted USING (task)
    INNER JOIN coverage USING (cell_id, task)
    GROUP BY task
),

sums AS (
    SELECT
        candidate,
        candidates.model,
        count(counted.task) AS tasks,
        count(shown.score) FILTER (counted.task IS NOT NULL) AS scored_tasks,
        _mean(CASE WHEN counted.task IS NOT NULL THEN shown.score END, 1e12) AS mean_score,
        sum(shown.attempted)::BIGINT AS attempted,
        coalesce(sum(shown.scored) FILTER (counted.task IS NOT NULL), 0)::BIGINT AS scored_items,
        (SELECT sum(items) FROM lengths)::BIGINT AS items,
        count(*) FILTER (shown.scored = lengths.items) AS whole_tasks,
        sum(shown.truncated)::BIGINT AS truncated,
        sum(shown.failed)::BIGINT AS failed,
        _sum(shown.usd_per_1000 * shown.usd_items, 1e12) / sum(shown.usd_items) AS usd_per_1000,
        sum(shown.prompt_tokens) / sum(shown.attempted) FILTER (shown.prompt_tokens IS NOT NULL) AS mean_prompt_tokens,
        sum(shown.completion_tokens) / sum(shown.attempted) FILTER (shown.completion_tokens IS NOT NULL)
            AS mean_completion_tokens,
        _sum(shown.mean_latency_s * shown.timed_items, 1e12) / sum(shown.timed_items) AS mean_latency_s
    FROM candidates
    INNER JOIN leaderboard AS shown USING (cell_id)
    LEFT JOIN counted ON candidates.task = counted.task
    LEFT JOIN lengths ON candidates.task = lengths.task
    GROUP BY candidate, candidates.model
),

of_all AS (
    SELECT
        *,
        CASE WHEN scored_tasks = (SELECT count(*) FROM counted) THEN mean_score END AS score,
        whole_tasks = (SELECT count(*) FROM counted) AS is_whole
    FROM sums
)

SELECT
    CASE WHEN score IS NOT NULL AND is_whole THEN rank() OVER (PARTITION BY is_whole ORDER BY score DESC NULLS LAST) END
        AS rank,
    candidate, model, score, tasks,
    * EXCLUDE (candidate, model, score, tasks, scored_tasks, whole_tasks, is_whole, mean_score)
FROM of_all
ORDER BY rank NULLS LAST, tasks DESC, scored_items DESC, candidate
"""
_REPEATED = """
SELECT cell_id, min(member_cell_id) AS member_cell_id, any_value(cells.decoding ->> '$.repeats')::INTEGER AS times
FROM _drawn_cells INNER JOIN cells USING (cell_id)
GROUP BY cell_id ORDER BY cell_id
"""
_ITEMS = """
SELECT task, items_digest, item, subject, prompt, choices, target AS gold, content_hash
FROM items SEMI JOIN cells USING (task, items_digest)
ORDER BY task, items_digest, item
"""
#: Without task and items_digest, which are the same in a portion. Models and cells are sorted by one number: a sort by
#: their names took as much CPU as all else.
_PORTION = """
SELECT
    item, names.model, names.cell_id,
    score, correct, outcome, failure, prompt_tokens, completion_tokens, reasoning_tokens, latency_s, usd
FROM costs INNER JOIN names ON costs.cell_id = names.cell
WHERE {some}
ORDER BY item, names.place
"""
_MATRIX = """
SELECT
    names.task, items_digest, item, names.model, names.cell_id,
    score, correct, outcome, failure, prompt_tokens, completion_tokens, reasoning_tokens, latency_s, usd
FROM costs INNER JOIN names ON costs.cell_id = names.cell
ORDER BY names.task, items_digest, item, names.place
"""
#: The items of each item table that was asked, and its records.
_SIZES = """
SELECT task, cells.items_digest, max(planned_items), sum(attempted)::BIGINT
FROM cells INNER JOIN coverage USING (cell_id, task)
GROUP BY ALL ORDER BY ALL
"""
_RESPONSES = """
SELECT task, cells.items_digest, item, responses.model, cell_id, responses, filtered, loglikelihoods
FROM responses INNER JOIN cells USING (cell_id, task)
WHERE responses.filter = cells.filter AND repeat = 0
ORDER BY task, cells.items_digest, item, responses.model, cell_id
"""
#: Cut between words, where one begins near the end.
_HEAD_OF_PROMPT = (
    f"CASE WHEN length(prompt) <= {_HEAD} THEN prompt "
    f"ELSE regexp_replace(left(prompt, {_HEAD}), '\\s+\\S{{0,30}}$', '') || '…' END"
)
_QUESTIONS = f"""
SELECT
    task, items_digest, item, any_value(subject) AS subject, any_value({_HEAD_OF_PROMPT}) AS prompt,
    count(score) AS scored, count(*) FILTER (correct) AS solved, count(correct) AS judged
FROM (SELECT task::VARCHAR AS task, * EXCLUDE (task) FROM site.matrix)
LEFT JOIN (SELECT task, items_digest, item, subject, prompt FROM site.items) USING (task, items_digest, item)
GROUP BY task, items_digest, item
ORDER BY task, items_digest, item
"""
_FAILURES = """
SELECT kind, task, model, count(*) AS failures, min(message) AS message
FROM failures GROUP BY kind, task, model ORDER BY failures DESC, kind, task, model
"""
_PAIRED = f"""
SELECT pool AS task, candidate
FROM _members LEFT JOIN leaderboard USING (cell_id)
WHERE NOT is_all
QUALIFY row_number() OVER (
    PARTITION BY pool ORDER BY merit_sign * leaderboard.score DESC NULLS LAST, candidate
) <= {PAIRED}
"""
#: As the view complementarity, of fewer candidates: it would pair all of them first.
_PAIRS = """
WITH verdicts AS MATERIALIZED (
    SELECT members.pool AS task, members.candidate, question_number, correct
    FROM _pool_rows
    INNER JOIN (
        FROM _members SEMI JOIN paired ON _members.pool = paired.task AND _members.candidate = paired.candidate
        WHERE NOT is_all
    ) AS members USING (cell_id)
    WHERE correct IS NOT NULL
)

SELECT
    a.task,
    a.candidate AS candidate_a,
    b.candidate AS candidate_b,
    count(*) AS questions,
    count(*) FILTER (a.correct AND b.correct) AS both,
    count(*) FILTER (a.correct AND NOT b.correct) AS only_a,
    count(*) FILTER (b.correct AND NOT a.correct) AS only_b,
    count(*) FILTER (NOT a.correct AND NOT b.correct) AS neither,
    count(*) FILTER (a.correct OR b.correct) / count(*) AS union_score
FROM verdicts AS a
INNER JOIN verdicts AS b
    ON a.task = b.task AND a.question_number = b.question_number AND a.candidate < b.candidate
GROUP BY ALL
ORDER BY task, union_score DESC, candidate_a, candidate_b
"""
#: As _QUESTIONS where the site has the table repeated: a question counts each model once.
_QUESTIONS_ONCE = _QUESTIONS.replace(
    "* EXCLUDE (task)",
    "* EXCLUDE (task) REPLACE (CASE WHEN NOT is_repeated THEN score END AS score, "
    "CASE WHEN NOT is_repeated THEN correct END AS correct)",
).replace(
    "FROM site.matrix",
    "FROM (SELECT *, cell_id::VARCHAR IN (SELECT cell_id FROM site.repeated) AS is_repeated FROM site.matrix)",
)
_DERIVED = {
    "repeated": (
        "one cell that asked a part of the items of another (member_cell_id), in the same way, `times` times each",
        _REPEATED,
    ),
    "cells": ("one model on one task in one setup", _CELLS),
    "models": ("one model", _MODELS),
    "overall": (
        "one candidate over all tasks; score is the mean of its tasks' scores, if it has all of them; it has a rank if "
        "scored_items are all items of the tasks",
        _OVERALL,
    ),
    "items": ("one question with its right answer", _ITEMS),
    "matrix": ("one question answered by one model: verdict, tokens, seconds and USD", _MATRIX),
    "responses": ("the text of an answer, or the log-likelihood of each choice", _RESPONSES),
    "questions": ("one question, and how many solved it", _QUESTIONS),
    "failures": ("one kind of failure of one model on one task", _FAILURES),
    "hidden": (
        "task: what its verdicts hide; no row where the site has no answers",
        "SELECT * FROM hidden ORDER BY task",
    ),
    "pairs": ("two candidates on one task, and the questions that one of them solves alone", _PAIRS),
}
#: Tables that read the texts of answers.
_OF_ANSWERS = ("responses", "hidden")
#: Tables that a site has where they hold a row.
_WHERE_THERE = ("repeated", "oracle_heldout")
#: Tables of texts that belong to the data, of which names alone are cut.
_CONTENT = ("items", "responses", "questions")
#: Column of names in the matrix -> its type.
_TYPES = {"task": "task_name", "model": "model_name", "cell_id": "cell_name"}
_VIEWS = (
    *_WHOLE,
    "_drawn_cells",
    "cells",
    "models",
    "items",
    "costs",
    "failures",
    "_members",
    "_pool_rows",
    "responses",
    "hidden",
)


def write_database(uri: str, path: Path, include: str = "all") -> None:
    """Writes the database of the lake or version at `uri` to `path`, where no file is yet.

    `include` is a key of schemas.views.INCLUDED. Raises ConfigError for a lake without records, StorageError if it
    cannot be read.
    """
    in_cleared_process(_write, uri, path, include)


def _write(uri: str, path: Path, include: str) -> None:
    lake = Lake(uri).open_for_reading()

    def attempt(holdings: Holdings) -> None:
        path.unlink(missing_ok=True)  # left half-way by a damaged object
        with contextlib.closing(connect(lake, holdings, only=_VIEWS)) as con:
            limit_memory(con, path.parent)
            con.execute(f"SET memory_limit = '{_MEMORY}'")
            # It keeps the records that a view reads twice: 1.8 GiB for 20M, which grow with them, against 0.3 and as
            # many CPU-seconds.
            con.execute("SET disabled_optimizers = 'common_subplan'")
            con.execute(SAME_COMPRESSION)
            con.execute(f"ATTACH {quoted(str(path))} AS site (STORAGE_VERSION 'v1.0.0')")
            _Tables(con).write()
            con.execute("DETACH site")

    pass_over_damage(lake, lambda damaged: read_holdings(lake, damaged, include), attempt)


class _Tables:
    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con
        #: Names of _WHERE_THERE that hold a row.
        self.made: set[str] = set()

    def write(self) -> None:
        if not self._number("SELECT count(*) FROM cells"):
            raise ConfigError("the lake holds no cells: there is nothing to show; see --include")
        self._make_names()
        for view, order in _WHOLE.items():
            self._make(view, f"SELECT * FROM {view} ORDER BY {_ordered(order)}")
        self.con.execute(f"CREATE TEMP TABLE paired AS {_PAIRED}")
        for name, (_, query) in _DERIVED.items():
            if name == "questions" and "repeated" in self.made:
                query = _QUESTIONS_ONCE
            if name == "matrix":
                self._make_matrix(query)
            else:
                self._make(name, query if self._is_kept(name) else f"SELECT * FROM ({query}) LIMIT 0")
        self._explain()

    def _make_names(self) -> None:
        """The names of each cell as the matrix has them: keys are cut, and a number stands for each."""
        self.con.execute("CREATE TEMP TABLE made AS SELECT cell_id AS cell, cell_id, task, model FROM cells")
        self._cut_keys(_TYPES)
        columns = [f"{column}::{self._type(name, column)} AS {column}" for column, name in _TYPES.items()]
        place = "(row_number() OVER (ORDER BY model, cell_id, cell))::INTEGER AS place"
        self.con.execute(f"CREATE TABLE names AS SELECT cell, {place}, {', '.join(columns)} FROM made")
        self.con.execute("DROP TABLE made")

    def _type(self, name: str, column: str) -> str:
        """The type of a column of names: a number for each, or text where a name holds NUL, which ends DuckDB's SQL."""
        if self._number(f"SELECT count(*) FROM made WHERE contains({column}, chr(0))"):
            return "VARCHAR"
        self.con.execute(f"CREATE TYPE site.{name} AS ENUM (SELECT DISTINCT {column} FROM made ORDER BY 1)")
        return f"site.{name}"

    def _make(self, name: str, query: str) -> None:
        """A table of moderate size: computed by all threads, whose sums are exact, and written by one."""
        self.con.execute("RESET threads")
        self.con.execute(f"CREATE TEMP TABLE made AS {query}")
        if name not in _WHERE_THERE or self._number("SELECT count(*) FROM made"):
            self._cut_keys(_TYPES if name in _CONTENT else None)
            self._written(name, "FROM made")
            self.made.update({name} & {*_WHERE_THERE})
        self.con.execute("DROP TABLE made")

    def _cut_keys(self, only: Collection[str] | None) -> None:
        """Keys that a release before this one stored with a lake's runs and failures stand on no page."""
        query = "SELECT column_name FROM duckdb_columns() WHERE table_name = 'made' AND data_type = 'VARCHAR'"
        for (column,) in self.con.execute(query).fetchall():
            if only and column not in only:
                continue
            suspects = f"SELECT DISTINCT {column} FROM made WHERE regexp_matches({column}, ?)"
            for (text,) in self.con.execute(suspects, [MAY_HOLD]).fetchall():
                if (cut := without_keys(text)) != text:
                    self.con.execute(f"UPDATE made SET {column} = ? WHERE {column} = ?", [cut, text])

    def _written(self, name: str, query: str) -> None:
        self.con.execute("SET threads = 1")
        self.con.execute(f"CREATE TABLE site.{name} AS {query}")

    def _make_matrix(self, query: str) -> None:
        """All records, sorted. Many are sorted in portions, each by a second thread while the last one is written."""
        if self._number("SELECT sum(attempted) FROM site.coverage") <= AT_ONCE:
            self._written("matrix", query)
            return
        self._written("matrix", f"SELECT * FROM ({query}) LIMIT 0")
        portions = list(self._portions())
        with contextlib.closing(self.con.cursor()) as other, ThreadPoolExecutor(1) as thread:
            other.execute("SET enable_progress_bar = false")

            def sort(number: int) -> None:
                other.execute(f"CREATE TABLE portion_{number} AS {_PORTION.replace('{some}', portions[number][2])}")

            sorting = thread.submit(sort, 0)
            for number, (task, items_digest, _) in enumerate(portions):
                sorting.result()
                if number + 1 < len(portions):
                    sorting = thread.submit(sort, number + 1)
                insert = f"INSERT INTO site.matrix SELECT ?, ?, * FROM portion_{number}"
                self.con.execute(insert, [without_keys(task), items_digest])
                self.con.execute(f"DROP TABLE portion_{number}")

    def _portions(self) -> Iterator[tuple[str, str, str]]:
        """Some items of a task at a time, which bounds the memory of a sort: task, items_digest and the condition."""
        for task, items_digest, items, records in self.con.execute(_SIZES).fetchall():
            step = max(1, items * AT_ONCE // max(records, 1))
            for first in range(0, max(items, 1), step):
                some = f"costs.task = {quoted(task)} AND items_digest = {quoted(items_digest)} AND item >= {first}"
                if first + step < items:  # the last ones may lie beyond the planned items
                    some += f" AND item < {first + step}"
                yield task, items_digest, some

    def _is_kept(self, name: str) -> bool:
        return name not in _OF_ANSWERS or self._number("SELECT count(*) FROM site.matrix") <= MOST_ANSWERS

    def _explain(self) -> None:
        """Comments, which the query page lists."""
        views = view_files()
        absent = {*_WHERE_THERE} - self.made
        for name in (*_WHOLE, *_DERIVED):
            if name in absent:
                continue
            row = f"one row per {_DERIVED[name][0]}" if name in _DERIVED else views[name].comment
            for other in absent:
                row = row.replace(f" (view {other})", "")
            self.con.execute(f"COMMENT ON TABLE site.{name} IS {quoted(row)}")
            docs = {
                **(column_docs("costs") if name == "matrix" else {}),
                **(column_docs(name) if name in views else {}),
            }
            query = "SELECT column_name FROM duckdb_columns() WHERE database_name = 'site' AND table_name = ?"
            for (column,) in self.con.execute(query, [name]).fetchall():
                if column in docs:
                    self.con.execute(f"COMMENT ON COLUMN site.{name}.{column} IS {quoted(docs[column])}")

    def _number(self, query: str) -> int:
        [(number,)] = self.con.execute(query).fetchall()
        return int(number or 0)


def _ordered(order: str) -> str:
    """`order` for ORDER BY: a trailing ALL, which DuckDB takes alone only, breaks ties by the whole row."""
    return order if order == "ALL" else re.sub(r"\bALL$", "COLUMNS(*)", order)
