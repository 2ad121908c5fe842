"""Prints a lake: coverage, groups, oracle, pools, tokens, prices, catalog and failures, and each task's leaderboard.

Owns the choice of numbers and their format. Knows nothing of files or stores: it queries the views of an open database.
"""

from __future__ import annotations

from typing import Any

import duckdb
from rich.console import Console

from collectors.matrix.described import scarce
from collectors.matrix.luck import luck_line
from pipelines.console.leaderboard_shown import GROUP, older_definitions, show_corner, show_leaderboard
from pipelines.console.tables import MOST_CELLS, MOST_ITEMS, MOST_MODELS, MOST_TASKS, fetch, headed, mark, number
from schemas.failures import NOTHING_ANSWERED

#: The views and macros that are printed: other views over 100,000 open shards take seconds each to make.
SHOWN = (
    "_shard_files",
    "_sum",
    "candidates",
    "cells",
    "coverage",
    "failures",
    "leaderboard",
    "matrix",
    "model_prices",
    "oracle",
    "oracle_heldout",
    "pool",
    "prices",
    "questions",
)
#: In place of settings that differ.
ALIKE = "alike"


def show(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    show_coverage(con, console)
    # One scan of the records serves everything that is printed for each cell.
    con.execute("CREATE TEMP TABLE shown AS SELECT leaderboard.* FROM leaderboard")
    groups = fetch(
        con,
        f"SELECT {', '.join(GROUP)}, any_value(higher_is_better) AS higher_is_better, count(*) AS cells, "
        "any_value(num_fewshot) AS num_fewshot, any_value(chat_template) AS chat_template, "
        "any_value(repeats) AS repeats "
        "FROM shown LEFT JOIN (SELECT cell_id, decoding ->> '$.repeats' AS repeats FROM cells "
        "WHERE imported_from IS NULL) USING (cell_id) WHERE NOT is_group GROUP BY ALL ORDER BY ALL",
    )
    older = older_definitions(con)
    for group in groups[:MOST_TASKS]:
        cells = show_leaderboard(con, console, group)
        if newer := older.get((group["task"], group["prompting"])):
            console.print(
                f"another definition of {group['task']} is newer, of {newer}; forget.py --definition "
                f"{group['prompting']} hides this one"
            )
        show_corner(con, console, group, cells)
    if len(groups) > MOST_TASKS:
        console.print(f"… and {len(groups) - MOST_TASKS} more tasks: see the view leaderboard")
    show_groups(con, console)
    if groups:
        show_oracle(con, console)
        show_pool(con, console)
        show_tokens(con, console)
    show_failures(con, console)


def show_coverage(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    [total] = fetch(
        con,
        "SELECT count(*) AS cells, count(DISTINCT model) AS models, count(DISTINCT task) AS tasks, "
        "count(*) FILTER (missing <= 0) AS complete, count(*) FILTER (attempted = 0) AS untouched, "
        "coalesce(sum(planned), 0) AS planned, coalesce(sum(attempted), 0) AS attempted, "
        "coalesce(sum(left_out), 0) AS left_out, count(*) FILTER (left_out > 0) AS sampled FROM coverage",
    )
    console.print(
        f"models: {total['models']}; tasks: {total['tasks']}; cells: {total['cells']}, of them {total['complete']} "
        f"complete and {total['untouched']} without any item; {total['attempted']:,} of {total['planned']:,} planned "
        "items collected"
    )
    if total["sampled"]:
        console.print(
            f"{total['sampled']} cells were sampled: {total['left_out']:,} of these items were left out on purpose; "
            "such cells have no rank, and are no candidates of a task that has whole ones (--sparse mixed)"
        )
    [(refused,)] = con.execute(
        "SELECT count(DISTINCT (model, task)) FROM failures WHERE level = 'cell' AND cell_id IS NULL"
    ).fetchall()
    if refused:
        console.print(f"{refused} more could not be planned: only the view failures lists them (see below)")
    [(unplanned,)] = con.execute(
        "SELECT count(DISTINCT cell_id) FROM _shard_files WHERE cell_id NOT IN (SELECT cell_id FROM cells) "
        "AND cell_id NOT IN (SELECT cell_id FROM _retracted)"
    ).fetchall()
    if unplanned:
        console.print(f"{unplanned} cells have shards but no row in runs/: only the view records shows their records")


def show_groups(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    """Prints the metrics of groups of tasks, by lm-eval's own aggregation."""
    rows = fetch(con, f"FROM shown WHERE is_group ORDER BY task, metric, rank NULLS LAST, model LIMIT {MOST_MODELS}")
    if not rows:
        return
    console.print("\ngroups of tasks, as lm-eval aggregates them")
    table = headed("<group", "rank", "<model", "<metric", "score", "lm-eval's", "± stderr", "items", "failed")
    for row in rows:
        values = (number(row[name], ".4f") for name in ("score", "value", "value_stderr"))
        counts = (number(row[name], ",d") for name in ("attempted", "failed"))
        table.add_row(row["task"], number(row["rank"]), row["model"], row["metric"], *values, *counts)
    console.print(table)


def show_oracle(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    rows = fetch(con, f"SELECT * FROM oracle ORDER BY is_all, task LIMIT {MOST_TASKS}")
    console.print(
        "\noracle (best candidate for each question) against the best single one, on the questions that all scored"
    )
    table = headed("<task", "candidates", "<settings", "questions", "<best", "its score", "oracle", "gap")
    for row in rows:
        table.add_row(
            row["task"],
            number(row["candidates"]),
            _settings(row),
            f"{row['questions'] or 0:,} of {row['questions_scored_by_any'] or 0:,}",
            row["best_model"] or "",
            *(number(row[name], ".4f") for name in ("best_model_score", "oracle_score", "gap")),
        )
    console.print(table)
    sampled = [row for row in rows if row["sampled_once"]]
    heldout = {row["task"]: row for row in fetch(con, "FROM oracle_heldout")} if sampled else {}
    for row in sampled:
        console.print(luck_line(row["task"], row["sampled_once"], heldout.get(row["task"])), soft_wrap=True)
    left = fetch(
        con,
        "SELECT task, list(candidate ORDER BY candidate)[:6] AS names, count(*) AS number, candidates.gained "
        "FROM candidates INNER JOIN _left_out USING (task, cell_id) "
        f"GROUP BY task, round, candidates.gained ORDER BY gained DESC, task, names LIMIT {MOST_TASKS}",
    )
    for row in left:
        console.print(scarce(row["task"], row["names"], row["number"], row["gained"]))


def show_pool(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    """Prints a corner of the pools whose candidates differ in their settings: those stand in several tables above."""
    pools = fetch(con, "SELECT * FROM oracle WHERE NOT is_all AND candidates > 1 ORDER BY task")
    for row in [row for row in pools if _settings(row) != ALIKE][:MOST_TASKS]:
        values = [row["task"]]
        candidates = fetch(
            con,
            "SELECT candidate, dtype, num_fewshot, chat_template, imported_from FROM candidates INNER JOIN "
            "(SELECT cell_id, avg(score) AS mean FROM pool WHERE task = ? GROUP BY cell_id) USING (cell_id) "
            "WHERE task = ? ORDER BY CASE WHEN higher_is_better THEN -mean ELSE mean END, candidate "
            f"LIMIT {MOST_CELLS}",
            [*values, *values],
        )
        questions = con.execute(
            "SELECT question FROM questions WHERE task = ? AND is_counted ORDER BY item, items_digest, question "
            f"LIMIT {MOST_ITEMS}",
            values,
        ).fetchall()
        verdicts = {
            (candidate, question): score
            for candidate, question, score in con.execute(
                "SELECT candidate, question, score FROM pool WHERE task = ? AND list_contains(?, question)",
                [*values, [question for (question,) in questions]],
            ).fetchall()
        }
        console.print(f"\n{row['task']}: the pool, {row['candidates']} candidates side by side on the same questions")
        table = headed("<candidate", "<settings", *(f"q{place}" for place in range(1, len(questions) + 1)))
        for one in candidates:
            shots = "" if one["num_fewshot"] is None else f"{one['num_fewshot']}-shot"
            chat = "chat" if one["chat_template"] else ""
            settings = filter(None, ("imported" if one["imported_from"] else "", one["dtype"], shots, chat))
            marks = (mark(verdicts, (one["candidate"], question)) for (question,) in questions)
            table.add_row(one["candidate"], " ".join(settings), *marks)
        console.print(table)


def _settings(row: dict[str, Any]) -> str:
    """What differs between the candidates of a row of the view oracle."""
    parts = [f"{row['imported']} imported"] if 0 < row["imported"] < row["candidates"] else []
    for name, what in (("dtypes", "dtypes"), ("promptings", "promptings")):
        if row[name] > 1:
            parts.append(f"{row[name]} {what}")
    return ", ".join(parts) or ALIKE


def show_tokens(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    rows = fetch(
        con,
        "SELECT model, sum(attempted) AS items, sum(prompt_tokens) AS prompt, sum(completion_tokens) AS completion, "
        "sum(engine_tokens) AS engine, "
        "_sum(cached_share * cacheable_tokens, 1e12) / nullif(sum(cacheable_tokens), 0) AS cached, "
        "_sum(mean_latency_s * timed_items, 1e12) / nullif(sum(timed_items), 0) AS latency "
        f"FROM shown WHERE NOT is_group GROUP BY model ORDER BY model LIMIT {MOST_CELLS}",
    )
    console.print("\ntokens over all tasks; cached: share of the engine's tokens that its prefix cache held")
    table = headed("<model", "items", "prompt", "completion", "engine", "cached", "latency s")
    for row in rows:
        counts = (number(row[name], ",d") for name in ("items", "prompt", "completion", "engine"))
        table.add_row(row["model"], *counts, number(row["cached"], ".1%"), number(row["latency"], ".3f"))
    console.print(table)


def show_prices(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    """Prints the price of each model and how it was found."""
    rows = fetch(con, f"SELECT * FROM model_prices ORDER BY basis NULLS LAST, model, model_source LIMIT {MOST_MODELS}")
    counts = con.execute("SELECT basis, count(*) FROM model_prices GROUP BY ALL ORDER BY basis NULLS LAST").fetchall()
    summary = ", ".join(f"{count:,} {basis or 'unpriced'}" for basis, count in counts) or "none has records yet"
    console.print(f"models by the origin of their price: {summary}")
    if not rows:
        return
    table = headed("<model", "<origin", "<entry", "<provider", "$/M prompt", "$/M completion", "<since")
    for row in rows:
        prices = (number(row[f"usd_per_million_{kind}"], "g") for kind in ("prompt", "completion"))
        since = str(row["valid_from"] or "")
        table.add_row(
            row["model"], row["basis"] or "unpriced", row["price_model"] or "", row["provider"] or "", *prices, since
        )
    console.print(table)
    later = fetch(
        con,
        "SELECT model, provider, valid_from FROM prices WHERE valid_from > coalesce(CAST(getvariable('prices_on') AS "
        "DATE), current_date) ORDER BY valid_from, model, provider",
    )
    for row in later[:MOST_TASKS]:
        console.print(f"not yet: {row['model'] or 'a size'} by {row['provider']}, from {row['valid_from']} on")
    if len(later) > MOST_TASKS:
        console.print(f"… and {len(later) - MOST_TASKS:,} more prices that begin later: see the view prices")
    if sum(count for _, count in counts) > MOST_MODELS:
        console.print(f"… and {sum(count for _, count in counts) - MOST_MODELS:,} more: see the view model_prices")


def show_catalog(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    """Prints how many models of the catalog a config could choose, and the reasons against the others."""
    rows = fetch(
        con,
        """
        SELECT skipped, count(*) AS models, sum(weight_bytes) / 1e12 AS terabytes, count(*) FILTER (gated) AS gated,
            count(*) FILTER (vllm IS NULL AND skipped IS NULL) AS unsure,
            arg_max(model || coalesce(': ' || skipped_because, ''), coalesce(downloads, 0)) AS example
        FROM models WHERE listed_at IS NOT NULL GROUP BY ALL ORDER BY skipped NULLS FIRST
        """,
    )
    if not rows:
        console.print("no catalog yet: give a query or --names, see --help")
        return
    table = headed("<skipped", "models", "TB", "gated", "<such as")
    for row in rows:
        terabytes = number(row["terabytes"], ",.3f")
        table.add_row(row["skipped"] or "no", f"{row['models']:,}", terabytes, f"{row['gated']:,}", row["example"])
    console.print(table)
    if unsure := sum(row["unsure"] for row in rows):
        console.print(f"for {unsure:,} models the support by vLLM is unknown: vLLM is not installed here")


def show_failures(con: duckdb.DuckDBPyConnection, console: Console) -> None:
    """Prints the failures, a row for each kind and model, without those of cells that a later run completed."""
    rows = fetch(
        con,
        """
        SELECT level, kind, model,
            CASE WHEN count(DISTINCT task) > 1 THEN count(DISTINCT task) || ' tasks' ELSE max(task) END AS task,
            count(*) AS times,
            max(message) || CASE
                WHEN count(DISTINCT message) > 1 THEN ' (and ' || (count(DISTINCT message) - 1) || ' other reasons)'
                ELSE ''
            END AS message
        FROM failures
        WHERE level = 'item' OR cell_id IS NULL
            OR cell_id NOT IN (SELECT cell_id FROM coverage WHERE missing = 0)
            OR (kind = $unanswered
                AND cell_id IN (SELECT cell_id FROM coverage WHERE ok + empty + truncated = 0))
        GROUP BY level, kind, model
        ORDER BY level DESC, times DESC, kind, model
        """,
        {"unanswered": NOTHING_ANSWERED},
    )
    if not rows:
        return
    console.print("\nfailures")
    table = headed("<level", "<kind", "<model", "<task", "times", "<message")
    for row in rows[:MOST_CELLS]:
        table.add_row(*(str(row[name] if row[name] is not None else "") for name in row))
    console.print(table)
    if len(rows) > MOST_CELLS:
        console.print(f"and {len(rows) - MOST_CELLS} more: --sql 'FROM failures'")
