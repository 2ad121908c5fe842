"""The pages that there is one of for each task, model and question.

Owns which numbers they show. Question pages hold answers, so they are for lakes of moderate size (MOST_ANSWERS); larger
ones have one page for all questions (question_data.py).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from collectors.website.boards import BOARD, board_columns, board_notes, luck_of, pair_columns, with_pages
from collectors.website.reading import Tables
from collectors.website.rendering import Page
from collectors.website.tables import (
    Column,
    Table,
    filled,
    item_page,
    known,
    model_page,
    query_page,
    question_fragment,
    shown,
    task_page,
)
from schemas.identity import digest

#: Characters of a text, and of all answers of a page, beyond which they are cut.
LONGEST, _MOST = 20_000, 500_000

#: The records of a question.
RECORDS = "FROM matrix WHERE task = {task} AND items_digest = {items_digest} AND item = {item} ORDER BY model"
#: Those behind its numbers of right answers and verdicts.
JUDGED = RECORDS.replace(" ORDER BY ", " AND correct IS NOT NULL ORDER BY correct DESC, ")

# ---- tasks

_TASK = """
SELECT metric, filter, output_type, task_version, any_value(items) AS items, count(*) AS cells,
    bool_and(higher_is_better) AS higher_is_better
FROM tasks WHERE task = {task} GROUP BY metric, filter, output_type, task_version
ORDER BY cells DESC, metric, filter, output_type, task_version LIMIT 1
"""
_ORACLE = "FROM oracle WHERE NOT is_all AND task = {task}"
_FRONTIER = """
SELECT pareto.candidate, candidates.model, pareto.score, pareto.usd_per_1000, pareto.questions
FROM pareto LEFT JOIN candidates ON pareto.task = candidates.task AND pareto.candidate = candidates.candidate
WHERE NOT is_all AND pareto.task = {task} ORDER BY usd_per_1000
"""
_PAIRS_OF = """
SELECT * FROM pairs WHERE task = {task} ORDER BY union_score DESC, candidate_a, candidate_b LIMIT 50
"""
_QUESTIONS_OF = """
SELECT *, solved / nullif(judged, 0) AS share FROM questions WHERE task = {task} ORDER BY items_digest, item
"""


def task_pages(tables: Tables, has_items: bool, drawn: Sequence[dict[str, str]]) -> Iterator[Page]:
    """Two pages a task: what models reached, and its questions. `drawn` are the pictures, by task."""
    for row in tables.rows("SELECT DISTINCT task FROM cells ORDER BY task"):
        pictures = [picture for picture in drawn if picture.get("task") == row["task"]]
        yield _task_page(tables, row, pictures)
        yield _questions_page(tables, row, has_items)


def _task_page(tables: Tables, task: dict[str, Any], pictures: Sequence[dict[str, str]]) -> Page:
    name, key = task["task"], digest(task["task"])
    board, frontier, pairs = (filled(sql, task) for sql in (tables.once(BOARD), _FRONTIER, _PAIRS_OF))
    rows = with_pages(tables.rows(board))
    [about] = tables.rows(filled(_TASK, task)) or [{}]
    [oracle] = tables.rows(filled(_ORACLE, task)) or [{}]
    luck = luck_of(tables, [name])
    better = None if not about else "more is better" if about["higher_is_better"] else "less is better"
    stated = [
        ("metric", f"{about['metric']}, {better}" if about else None),
        ("filter", about.get("filter")),
        ("kind of request", about.get("output_type")),
        ("the task's own version", about.get("task_version")),
        ("best single model on the shared questions", oracle.get("best_model")),
        ("its score", _three(oracle.get("best_model_score"))),
        ("oracle: the best model for each question", _three(oracle.get("oracle_score"))),
        ("shared questions", oracle.get("questions")),
    ]
    cost = [
        Column("candidate", "model", "name", link="model_page"),
        Column("usd_per_1000", "$ per 1,000", "usd"),
        Column("score", "score", "score"),
        Column("questions", "questions", "count"),
    ]
    filters = ("model", "licence", "parameters", "usd_per_1000")
    return Page(
        task_page(name),
        name,
        luck,
        tables=[
            Table(
                f"board-{key}",
                "Leaderboard",
                board_columns(rows),
                rows,
                board,
                filters,
                "No record yet.",
                notes=board_notes(rows),
            ),
            *_several_tables(f"several-{key}", tables, filled(tables.several(BOARD), task)),
            Table(
                f"frontier-{key}",
                "Models that no other beats in score and cost",
                cost,
                with_pages(tables.rows(frontier)),
                frontier,
                empty="No cost is known.",
            ),
            Table(
                f"pairs-{key}",
                "Pairs: what each solves alone",
                pair_columns(),
                tables.rows(pairs),
                pairs,
                empty="No two models have verdicts on the same questions.",
            ),
        ],
        above=[("leaderboard.html", "Leaderboard")],
        stated=stated,
        links=[(questions_address(name), "All questions of this task")],
        drawn=pictures,
    )


def _several_tables(name: str, tables: Tables, sql: str) -> Iterator[Table]:
    """The leaderboard of cells that asked a part of the items several times: below the one that has the ranks."""
    if not tables.repeated or not (rows := with_pages(tables.rows(sql))):
        return
    times = {row["times"] for row in rows}
    each = f"{times.pop()} answers each" if len(times) == 1 else "several answers each"
    caption = f"Asked several times, a part of the questions: {each}"
    columns = [column for column in board_columns(rows) if column.key != "rank"]
    columns.insert(1, Column("times", "answers each", "count"))
    yield Table(name, caption, columns, rows, sql, notes=[_SEVERAL])


_SEVERAL = (
    "These cells have no rank: they tell how often a model answers a question rightly, and what of the oracle is luck. "
    "A score is that of the task's own verdict over all answers to a question."
)


def questions_address(task: str) -> str:
    return f"task/{digest(task)}-questions.html"


def _questions_page(tables: Tables, task: dict[str, Any], has_items: bool) -> Page:
    name, sql = task["task"], filled(_QUESTIONS_OF, task)
    rows = tables.rows(sql)
    for row in rows:
        row["page"] = _item_address(row, has_items)
    columns = [
        Column("item", "number", "count", link="page"),
        Column("prompt", "question", "name", link="page"),
        Column("subject", "subject"),
        Column("share", "share that solved it", "heat"),
        Column("solved", "solved by", "count", sql=tables.once(RECORDS)),
        Column("judged", "asked", "count"),
    ]
    table = Table(
        f"questions-{digest(name)}",
        "Questions",
        known(columns, rows),
        rows,
        sql,
        ("prompt", "subject", "share"),
        "No record yet.",
    )
    return Page(
        questions_address(name),
        f"Questions of {name}",
        tables=[table],
        above=[("leaderboard.html", "Leaderboard"), (task_page(name), name)],
    )


def _item_address(row: dict[str, Any], has_items: bool) -> str:
    address = item_page if has_items else question_fragment
    return address(row["task"], row["items_digest"], row["item"])


def _three(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


# ---- models

_SCORES_OF = """
SELECT leaderboard.*, coverage.planned, coverage.missing
FROM leaderboard LEFT JOIN coverage USING (cell_id)
WHERE leaderboard.model = {model}
ORDER BY is_group, leaderboard.task, cell_id
"""


def model_pages(tables: Tables) -> Iterator[Page]:
    scores = _grouped(
        tables.rows(
            tables.once(
                "SELECT l.*, c.planned, c.missing FROM leaderboard AS l LEFT JOIN coverage AS c "
                "USING (cell_id) ORDER BY l.model, is_group, l.task, cell_id"
            )
        )
    )
    for model in tables.rows("FROM models ORDER BY model"):
        yield _model_page(tables, model, with_pages(scores.get(model["model"], [])))


def _grouped(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {name: list(group) for name, group in itertools.groupby(rows, key=lambda row: row["model"])}


def _model_page(tables: Tables, model: dict[str, Any], rows: list[dict[str, Any]]) -> Page:
    stated = [
        ("source", model["source"] if model["source"] != model["model"] else None),
        ("parameters", f"{model['parameters']:,}" if model["parameters"] else None),
        ("licence", model["licence"]),
        ("architecture", model["architecture"]),
        ("context, tokens", model["max_length"]),
        ("quantization", model["quantization"]),
        ("made from", model["base_model"]),
        ("revision", model["revisions"]),
    ]
    columns = [Column("task", "task", "name", link="task_page")]
    columns += [column for column in board_columns(rows) if column.key not in ("model", "parameters", "licence")]
    columns += [Column("planned", "planned", "count"), Column("missing", "missing", "count")]
    table = Table(
        f"model-{digest(model['model'])}",
        "Scores",
        columns,
        rows,
        filled(tables.once(_SCORES_OF), model),
        ("task",),
        "No record yet.",
    )
    sql = filled(tables.several(_SCORES_OF), model)
    several = _several_tables(f"several-{digest(model['model'])}", tables, sql)
    return Page(
        model_page(model["model"]),
        model["model"],
        tables=[table, *several],
        stated=stated,
        above=[("leaderboard.html", "Leaderboard")],
    )


# ---- questions

_ANSWERS = """
SELECT answers.*, responses, filtered, loglikelihoods, num_fewshot, chat_template, effort, dtype, imported_from
FROM (
    SELECT task::VARCHAR AS task, model::VARCHAR AS model, cell_id::VARCHAR AS cell_id,
        * EXCLUDE (task, model, cell_id)
    FROM matrix
    WHERE task = {task}
) AS answers
LEFT JOIN responses USING (task, items_digest, item, cell_id)
LEFT JOIN (SELECT cell_id, num_fewshot, chat_template, effort, dtype, imported_from FROM cells) USING (cell_id)
ORDER BY items_digest, item, answers.model, cell_id
"""
SETTINGS = {"num_fewshot": "few-shot", "chat_template": "chat template", "effort": "effort", "dtype": "dtype"}


def item_pages(tables: Tables) -> Iterator[Page]:
    """A page a question, task by task: the answers of one task are in memory at a time."""
    for task in tables.rows("SELECT DISTINCT task FROM cells ORDER BY task"):
        questions = {(row["items_digest"], row["item"]): row for row in tables.rows(filled(_ITEMS_OF, task))}
        answers = tables.rows(filled(_ANSWERS, task))
        for items_digest, of_table in itertools.groupby(answers, key=lambda row: row["items_digest"]):
            told = told_apart(tables, {**task, "items_digest": items_digest})
            for item, group in itertools.groupby(of_table, key=lambda row: row["item"]):
                question = questions.get((items_digest, item))
                place = {**task, "items_digest": items_digest, "item": item}
                yield _item_page(tables, place, question, list(group), told)


_TOLD = """
SELECT * FROM cells SEMI JOIN (FROM coverage WHERE attempted > 0) USING (cell_id, task)
WHERE task = {task} AND items_digest = {items_digest}
"""


def told_apart(tables: Tables, table: Mapping[str, Any]) -> list[str]:
    """The settings in which the cells of an item table of a task differ."""
    cells = tables.rows(filled(_TOLD, table))
    return [key for key in SETTINGS if len({cell[key] for cell in cells}) > 1]


def setting(row: Mapping[str, Any], told: Sequence[str]) -> str:
    """The settings of a cell by which it is told apart, and `times` if it asked several times."""
    parts = [f"{SETTINGS[key]} {row[key]}" for key in told if row[key] is not None]
    return ", ".join([*parts, *([f"{row['times']} answers each"] if row.get("times") else ())])


_ITEMS_OF = "SELECT items_digest, item, subject, prompt, choices, gold FROM items WHERE task = {task}"


def _item_page(
    tables: Tables,
    place: dict[str, Any],
    question: dict[str, Any] | None,
    answers: list[dict[str, Any]],
    told: Sequence[str],
) -> Page:
    question = question or {"subject": None, "prompt": None, "choices": None, "gold": None}
    task, items_digest, item = place["task"], place["items_digest"], place["item"]
    longest = min(LONGEST, _MOST // len(answers))
    several = [
        {**one, "times": tables.repeated[one["cell_id"]]} for one in answers if one["cell_id"] in tables.repeated
    ]
    answers = [one for one in answers if one["cell_id"] not in tables.repeated]
    more = {
        "question": None if question["prompt"] is None else cut(question["prompt"], LONGEST),
        "choices": [choice[:LONGEST] for choice in question["choices"] or ()],
        "gold": gold_text(question["gold"], question["choices"]),
        "solved": sum(answer["correct"] is True for answer in answers),
        "judged": sum(answer["correct"] is not None for answer in answers),
        "answers": [_answer(answer, longest, told) for answer in answers],
        "several": [_answer(answer, longest, told) for answer in several],
        "sql": filled(RECORDS, place),
        "counted": filled(tables.once(JUDGED), place),
    }
    return Page(
        item_page(task, items_digest, item),
        f"Question {item:,}",
        above=[("leaderboard.html", "Leaderboard"), (task_page(task), task), (questions_address(task), "Questions")],
        stated=[("task", task), ("subject", question["subject"])],
        template="item.html",
        more=more,
    )


def _answer(row: dict[str, Any], longest: int, told: Sequence[str]) -> dict[str, Any]:
    verdict = {True: "right", False: "wrong", None: "unjudged"}[row["correct"]]
    words = {"right": "✓ right", "wrong": "✗ wrong", "unjudged": "not judged"}[verdict]
    outcome = row["outcome"]
    texts = [cut(text, longest) for text in row["responses"] or () if text is not None]
    return {
        **row,
        "verdict": verdict,
        "words": words if outcome in (None, "ok") else f"{words}, {outcome}",
        "setting": setting(row, told),
        "measured": _measured(row),
        "page": model_page(row["model"]),
        "query": query_page(filled("FROM matrix WHERE cell_id = {cell_id} AND item = {item}", row)),
        "texts": texts,
        "choices": [] if texts else _likelihoods(row["loglikelihoods"]),
    }


def _measured(row: dict[str, Any]) -> list[str]:
    """Score, tokens, seconds and cost of an answer, as far as they are there."""
    score, latency, usd = (
        None if row[key] is None else shown(row[key], kind)
        for key, kind in (("score", "score"), ("latency_s", "seconds"), ("usd", "usd"))
    )
    tokens = [
        f"{row[f'{kind}_tokens']:,} {kind}" for kind in ("prompt", "completion") if row[f"{kind}_tokens"] is not None
    ]
    parts = [score and f"score {score}", tokens and f"{' and '.join(tokens)} tokens", latency, usd]
    return [part for part in parts if part]


def _likelihoods(values: Sequence[float | None] | None) -> list[dict[str, Any]]:
    numbers = [value for value in values or () if value is not None and math.isfinite(value)]
    best = max(numbers, default=None)
    return [
        {"value": "–" if value is None or not math.isfinite(value) else f"{value:.2f}", "best": value == best}
        for value in values or ()
    ]


def cut(text: str, longest: int) -> dict[str, Any]:
    """`text` up to `longest` characters; `cut` is its length where some are missing."""
    return {"text": text[:longest], "cut": len(text) if len(text) > longest else None}


def gold_text(target: str | None, choices: Sequence[str] | None) -> str | None:
    """The right answer: a text as it is, the number of a choice with its text, other JSON as such."""
    if target is None:
        return None
    try:
        value = json.loads(target)
    except (ValueError, RecursionError):
        value = target
    if type(value) is int and 0 <= value < len(choices or ()):
        return f"{value}: {(choices or ())[value]}"[:LONGEST]
    text = value if isinstance(value, str) else target
    return text[:LONGEST]
