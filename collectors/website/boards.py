"""The pages that compare models: leaderboard, heat map, pairs.

Owns their columns and the queries behind them.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from collectors.matrix.luck import lines_of
from collectors.website.reading import Tables
from collectors.website.rendering import Page
from collectors.website.tables import Column, Table, known, model_page, shown, task_page

#: Records of a cell, behind its numbers.
OF_CELL = "FROM matrix WHERE cell_id = {cell_id} ORDER BY item"
_COSTS = "USD for a thousand items"
_MEAN = (
    "Each task counts the same in the mean score. A model that lacks items has no rank: its mean is over those that it "
    "has, so it does not compare with the others. Intervals stand on the pages of the tasks."
)
_NO_MEAN = (
    "No model has a score on every task, so there is no mean score and no rank over all: compare models on the pages "
    "of the tasks."
)
_RANKS = "Ranks are among models that were asked the same questions in the same way, under the same metric."


def with_pages(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the addresses of the pages of their model and task."""
    for row in rows:
        if row.get("task") is not None:
            row["task_page"] = task_page(row["task"])
        if row.get("model") is not None:
            row["model_page"] = model_page(row["model"])
    return rows


_TASKS = """
SELECT
    shown.task, questions.items, shown.models, oracle.best_model AS best, oracle.best_model_score AS best_score,
    oracle.oracle_score, oracle.gap, oracle.questions AS common, oracle.best_cell_id AS cell_id, shown.metric
FROM (SELECT task, count(DISTINCT model) AS models, min(metric) AS metric FROM cells GROUP BY task) AS shown
LEFT JOIN (SELECT task, count(*) AS items FROM questions GROUP BY task) AS questions USING (task)
LEFT JOIN oracle ON shown.task = oracle.task AND NOT oracle.is_all
ORDER BY shown.task
"""


def tasks_table(tables: Tables) -> Table:
    columns = [
        Column("task", "task", "name", link="task_page"),
        Column("models", "models", "count"),
        Column("items", "questions", "count"),
        Column("metric", "metric"),
        Column("best", "best single model"),
        Column("best_score", "its score", "score", sql=OF_CELL),
        Column("oracle_score", "oracle", "score", note="the best model for each question"),
        Column("gap", "gap", "score", note="oracle - best single model: what routing can gain"),
        Column("common", "shared questions", "count", note="those that every candidate has a score for"),
    ]
    return Table(
        "tasks",
        "Tasks: what the best model reaches, and what a router could",
        columns,
        with_pages(tables.rows(_TASKS)),
        _TASKS,
        notes=luck_of(tables),
    )


def luck_of(tables: Tables, tasks: Collection[str] | None = None) -> list[str]:
    """Lines on the tasks, or all, whose gap is partly luck."""
    rows = tables.rows("SELECT task, sampled_once FROM oracle WHERE NOT is_all AND sampled_once > 0 ORDER BY task")
    sampled = {row["task"]: row["sampled_once"] for row in rows if tasks is None or row["task"] in tasks}
    heldout = tables.rows("FROM oracle_heldout WHERE NOT is_all") if tables.holds("oracle_heldout") else []
    return [shown(line, "prose") for line in lines_of(sampled, {row["task"]: row for row in heldout})]


# ---- leaderboard

_OVERALL = """
SELECT overall.*, models.parameters, models.licence
FROM overall LEFT JOIN models USING (model)
ORDER BY rank NULLS LAST, tasks DESC, scored_items DESC, candidate
"""


def overall_table(tables: Tables, first: int = 100, name: str = "overall") -> Table:
    columns = [
        Column("rank", "rank", "count", note="among the models that have a score for every item of all tasks"),
        Column("candidate", "model", "name", link="model_page"),
        Column("score", "mean score", "score", note="mean of the tasks' scores; only with all tasks"),
        Column("tasks", "tasks", "count"),
        Column(
            "scored_items", "scored", "count", note="items with a score", sql="FROM leaderboard WHERE model = {model}"
        ),
        Column("items", "of items", "count", note="planned in all tasks"),
        Column("usd_per_1000", "$ per 1,000", "usd", note=_COSTS),
        Column("mean_prompt_tokens", "prompt tokens", "number", note="mean of an item"),
        Column("mean_completion_tokens", "completion tokens", "number", note="mean of an item"),
        Column("mean_latency_s", "latency", "seconds", note="mean of an item"),
        Column("truncated", "truncated", "count", note="answers that were cut off"),
        Column("parameters", "size", "billions", note="parameters"),
        Column("licence", "licence", note="that the model's card states"),
    ]
    rows = with_pages(tables.rows(_OVERALL))
    if name == "best":
        rows = rows[:first]
    filters = ("candidate", "licence", "parameters", "usd_per_1000") if name == "overall" else ()
    caption = "Models over all tasks" if name == "overall" else "The first models over all tasks"
    notes = [_MEAN] if any(row["score"] is not None for row in rows) else [_NO_MEAN]
    return Table(name, caption, known(columns, rows), rows, _OVERALL, filters, first=first, notes=notes)


BOARD = """
SELECT leaderboard.*, models.parameters, models.licence
FROM leaderboard LEFT JOIN models USING (model)
WHERE task = {task}
ORDER BY is_group, items_digest, prompting, metric, filter, rank NULLS LAST, score DESC NULLS LAST, model, cell_id
"""


def board_columns(rows: list[dict[str, Any]]) -> list[Column]:
    """The columns of a task's leaderboard: settings show where they differ."""
    settings = [
        Column("num_fewshot", "few-shot", "count"),
        Column("chat_template", "chat template"),
        Column("dtype", "dtype"),
        Column("quantization", "quantization"),
        Column("effort", "effort"),
        Column("metric", "metric"),
        Column("imported_from", "imported from"),
    ]
    differing = [column for column in settings if len({row[column.key] for row in rows}) > 1]
    columns = [
        Column("rank", "rank", "count"),
        Column("model", "model", "name", link="model_page"),
        *differing,
        Column("score", "score", "score", sql=OF_CELL),
        Column("ci_low", "95 % interval", "interval", high="ci_high", middle="score"),
        Column("attempted", "items", "count"),
        Column("usd_per_1000", "$ per 1,000", "usd", note=_COSTS),
        Column("mean_prompt_tokens", "prompt tokens", "number", note="mean of an item"),
        Column("mean_completion_tokens", "completion tokens", "number", note="mean of an item"),
        Column("mean_latency_s", "latency", "seconds", note="mean of an item"),
        Column("truncated", "truncated", "count", note="answers that were cut off"),
        Column("empty", "empty", "count", note="empty answers"),
        Column("failed", "failed", "count", note="by our own fault: they have no score"),
        Column("parameters", "size", "billions", note="parameters"),
        Column("licence", "licence"),
    ]
    return known(columns, rows)


def board_notes(rows: list[dict[str, Any]]) -> list[str]:
    """What a reader needs who sees a rank twice: groups of models that do not compare."""
    groups = {tuple(row[key] for key in _COMPARED) for row in rows if not row["is_group"]}
    return [_RANKS] if len(groups) > 1 else []


_COMPARED = ("items_digest", "prompting", "metric", "filter")
_HIDDEN = "FROM hidden ORDER BY task"


def hidden_table(tables: Tables) -> Table:
    columns = [
        Column("task", "task", "name", link="task_page"),
        Column("answers", "answers", "count"),
        Column("truncated", "truncated", "count", note="cut off by a limit"),
        Column("refused", "refused", "count", note="the weights lack a token, or the host refuses the request"),
        Column("filtered", "withheld", "count", note="by the host's filter of contents"),
        Column("empty", "empty", "count"),
        Column("unparsed", "unparsed", "count", note="the task's filters found nothing in them"),
        Column("contested", "contested", "count", note="two filters read them, and judge differently"),
        Column(
            "doubted",
            "doubtful gold",
            "count",
            note="most of the strongest models agree on another answer",
        ),
    ]
    empty = "Only a site with its answers counts these; the view hidden of the lake has them."
    caption = "What the verdicts hide"
    return Table("hidden", caption, columns, with_pages(tables.rows(_HIDDEN)), _HIDDEN, empty=empty)


def leaderboard(tables: Tables) -> Page:
    tasks = tables.rows("SELECT DISTINCT task FROM cells ORDER BY task")
    return Page(
        "leaderboard.html",
        "Leaderboard",
        ["All tasks together. A task's own page has its scores with intervals: choose one."],
        [overall_table(tables), hidden_table(tables)],
        links=[(task_page(row["task"]), row["task"]) for row in tasks],
    )


# ---- heat map

_SCORES = """
SELECT candidates.candidate, candidates.model, candidates.task, candidates.cell_id, leaderboard.score,
    candidates.correct_threshold IS NOT NULL AND candidates.higher_is_better AS in_range
FROM candidates INNER JOIN leaderboard USING (cell_id)
ORDER BY candidates.candidate, candidates.task
"""


def heat_map(tables: Tables) -> Page:
    """A row a candidate, a column a task; candidates with the most tasks first, of these the highest mean.

    Tasks on another scale than 0 to 1, or of which less is better, have no colour and do not order the rows.
    """
    found = tables.rows(_SCORES)
    plain_tasks = {one["task"] for one in found if not one["in_range"]}
    rows: dict[str, dict[str, Any]] = {}
    tasks: dict[str, str] = {}
    scores: dict[str, list[float]] = {}
    for one in found:
        key = tasks.setdefault(one["task"], f"t{len(tasks)}")
        row = rows.setdefault(one["candidate"], {"candidate": one["candidate"], "model_page": model_page(one["model"])})
        row |= {key: one["score"], f"{key}_cell": one["cell_id"]}
        if one["score"] is not None and one["task"] not in plain_tasks:
            scores.setdefault(one["candidate"], []).append(one["score"])
    columns = [Column("candidate", "model", "name", link="model_page")]
    for task, key in sorted(tasks.items()):
        sql = f"FROM matrix WHERE cell_id = {{{key}_cell}} ORDER BY item"
        columns.append(Column(key, shown(task), "score" if task in plain_tasks else "heat", sql=sql))
    nothing = {name: None for column in columns for name in column.keys}
    order = {name: (-len(values), -math.fsum(values) / len(values)) for name, values in scores.items()}
    ordered = sorted(rows.values(), key=lambda row: (order.get(row["candidate"], (0, 0.0)), row["candidate"]))
    table = Table(
        "heat", "Score of each model on each task", columns, [nothing | row for row in ordered], _SCORES, ("candidate",)
    )
    lead = "Pale is low, dark green is high, on a scale from 0 to 1. An empty field was not collected."
    other = "A task without colours has another scale, or less is better there: it does not order the rows."
    return Page("heat.html", "Models × tasks", [lead, *([other] if plain_tasks else [])], [table])


# ---- pairs

_PAIRS = """
SELECT task, candidate_a, candidate_b, questions, "both", only_a, only_b, neither, union_score
FROM pairs
QUALIFY row_number() OVER (PARTITION BY task ORDER BY union_score DESC, candidate_a, candidate_b) <= 50
ORDER BY task, union_score DESC, candidate_a, candidate_b
"""
_ALONE = """SELECT item, a.model, b.model AS other, a.correct, b.correct AS other_correct
FROM matrix AS a INNER JOIN matrix AS b USING (task, items_digest, item)
WHERE a.cell_id = (SELECT cell_id FROM candidates WHERE task = {task} AND candidate = {candidate_a})
    AND b.cell_id = (SELECT cell_id FROM candidates WHERE task = {task} AND candidate = {candidate_b})
    AND a.correct <> b.correct ORDER BY item"""


def pair_columns() -> list[Column]:
    return [
        Column("candidate_a", "model a", "name"),
        Column("candidate_b", "model b"),
        Column("union_score", "one of them solves", "score", note="share of the questions that one of the two solves"),
        Column("both", "both solve", "count"),
        Column("only_a", "a alone", "count", sql=_ALONE),
        Column("only_b", "b alone", "count", sql=_ALONE),
        Column("neither", "neither", "count"),
        Column("questions", "questions", "count"),
    ]


def pairs(tables: Tables) -> Page:
    rows = with_pages(tables.rows(_PAIRS))
    columns = [Column("task", "task", link="task_page"), *pair_columns()]
    table = Table(
        "pairs",
        "Pairs of models: what each solves alone",
        columns,
        rows,
        _PAIRS,
        ("task", "candidate_a", "candidate_b"),
        "No two models have verdicts on the same questions.",
    )
    lead = "The best pairs of each task. Two models complement each other where each solves what the other does not."
    return Page("pairs.html", "Pairs", [lead], [table])
