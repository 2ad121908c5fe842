"""Names the rows of a source that look wrong without being so for certain, and changes none.

Owns the kinds of suspicions: `constant_tokens` (every prompt, or every longer answer, of a model has as many tokens),
`identical_tokens` (several models count the same, although nothing shows that they share a tokenizer), `words` (tokens
are a fixed multiple of the words), `free` (every call cost nothing), `no_usage` (right answers without a token, beside
others that have some), `fewer_rows` (a model lacks items that others of the source have), `several_questions` (one key
of an item stands for several texts, so that it joins no other source's), `mostly_rejected` (most of a model's rows on a
task are rejected), `constant_answer` (a model gives one answer to different questions: all of them, or a sentence to
many, as hosts' refusals and errors are), `no_first_answer` (an item has repeats from 1 on and no answer 0, which alone
the matrix shows), `same_file`, `contradicts` (another import scores the same
answers otherwise, contradictions.py), `odd_count` (a source states another number of answers than was
imported); by the readers of formats `odd_total` (counts of tokens do not add up to the total beside them) and
`aggregate` (a table has one row a model and task, and nothing that names an item); and by both `odd_accuracy` (no rule
gives the accuracy that a source states, or the imported scores have another mean).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collectors.importers.cells import ImportedCell
    from collectors.importers.staging import Staging

#: Kinds of suspicions about single rows, which the readers of formats raise.
ODD_TOTAL = "odd_total"
ODD_ACCURACY = "odd_accuracy"
AGGREGATE = "aggregate"
_MESSAGES = {
    ODD_TOTAL: "counts of tokens do not add up to the total beside them, so they are unknown",
    AGGREGATE: "one a model and task, without key or prompt: a mean over a task is no item",
    ODD_ACCURACY: "no rule of the source gives the accuracy that it states",
}
#: Scores whose mean differs by less are as stated: some sources round it to four digits.
_ROUNDED = 0.000051
#: A cell of fewer rows raises no suspicion: a few numbers may be equal by chance.
LEAST_ROWS = 20
#: An answer of fewer characters may be right for many questions: a letter, a number, a name.
_SENTENCE = 40


@dataclass(frozen=True)
class Suspicion:
    kind: str
    message: str
    model: str | None = None
    task: str | None = None
    cell_id: str | None = None
    #: Number of the file; None: it concerns no single file.
    file: int | None = None


#: One row per cell: all sums that a single pass over the verdicts gives.
_CELLS = """
CREATE TABLE cell_sums AS
SELECT
    cell,
    any_value(trusted.task) AS task,
    count(*) AS rows,
    {items} AS items,
    count(prompt_tokens) AS prompts,
    min(prompt_tokens) AS least_prompt,
    max(prompt_tokens) AS most_prompt,
    count(completion_tokens) AS completions,
    min(completion_tokens) AS least_completion,
    max(completion_tokens) AS most_completion,
    bit_xor(hash(key, prompt_tokens)) AS prompt_signature,
    bit_xor(hash(key, completion_tokens)) AS completion_signature,
    count(stated_usd) AS costs,
    max(abs(stated_usd)) AS most_usd,
    count(*) FILTER (score > 0 AND coalesce(prompt_tokens, 0) = 0 AND coalesce(completion_tokens, 0) = 0) AS unused,
    count(*) FILTER (prompt_tokens > 0 OR completion_tokens > 0) AS used
FROM trusted JOIN cell_numbers USING (run, model, task)
WHERE repeat = 0 AND trusted.filter = cell_numbers.filter
GROUP BY cell
"""

#: Cells whose texts all have k tokens a word, to the next whole number, and are too long for that to be an accident.
_WORDS = """
WITH texts AS (
    SELECT cell, {tokens} AS tokens, len(regexp_extract_all({text}, '\\S+')) AS words
    FROM trusted JOIN cell_numbers USING (run, model, task) {join}
    WHERE {tokens} > 0 AND {text} IS NOT NULL AND repeat = 0
),
ratios AS (
    SELECT *, sum(tokens) OVER (PARTITION BY cell) / sum(words) OVER (PARTITION BY cell) AS ratio FROM texts
)
SELECT cell, any_value(ratio), count(*)
FROM ratios
GROUP BY cell
HAVING count(*) >= {least} AND max(abs(tokens - words * ratio)) <= 1 AND max(words) >= 20 AND min(words) < max(words)
ORDER BY cell
"""

#: Answers of a cell that are one text for different questions, and whether it is the only answer.
_CONSTANTS = f"""
WITH answers AS (
    SELECT cell, hash(responses) AS answer, content_hash, array_to_string(responses, ' ') AS text
    FROM trusted
    JOIN cell_numbers USING (run, model, task)
    JOIN staged_items USING (run, task, key)
    WHERE responses IS NOT NULL AND failure IS NULL
),
counted AS (
    SELECT cell, answer, count(*) AS rows, count(DISTINCT content_hash) AS questions, any_value(text) AS text
    FROM answers GROUP BY cell, answer
)
SELECT cell, text, questions, rows = sum(rows) OVER (PARTITION BY cell) AS is_only
FROM counted
QUALIFY questions >= {LEAST_ROWS} AND (is_only OR len(text) >= {_SENTENCE})
ORDER BY ALL
"""


#: Cells with items that have repeats alone.
_ONLY_REPEATS = """
WITH repeats AS (
    SELECT cell, key, repeat FROM trusted JOIN cell_numbers USING (run, model, task)
    WHERE trusted.filter = cell_numbers.filter
)
SELECT cell, count(*)
FROM (
    SELECT cell, key FROM repeats
    WHERE cell IN (SELECT cell FROM repeats WHERE repeat > 0)
    GROUP BY ALL HAVING min(repeat) > 0
)
GROUP BY cell ORDER BY cell
"""

#: Figures of a source beside those of its trusted rows.
_STATED = """
WITH stated AS (
    SELECT cell, sum(answers)::BIGINT AS answers, CASE WHEN count(*) = 1 THEN any_value(mean) END AS mean
    FROM raw_stated JOIN cell_numbers USING (run, model, task)
    GROUP BY cell
),
imported AS (
    SELECT cell, count(DISTINCT key) FILTER (repeat = 0) AS items, count(DISTINCT (key, repeat)) FILTER (repeat > 0)
        AS answers, coalesce(avg(score) FILTER (repeat = 0), avg(score)) AS mean
    FROM trusted JOIN cell_numbers USING (run, model, task)
    WHERE trusted.filter = cell_numbers.filter AND cell IN (SELECT cell FROM stated)
    GROUP BY cell
)
SELECT cell, stated.answers, coalesce(nullif(imported.answers, 0), imported.items), stated.mean, imported.mean
FROM stated JOIN imported USING (cell)
ORDER BY cell
"""


def suspicions(staging: Staging, cells: Sequence[ImportedCell], *, is_single: bool = False) -> list[Suspicion]:
    """Returns the suspicions about the trusted verdicts, by cell. `is_single`: a cell has one verdict of an item."""
    con, suspects = staging.con, []
    con.execute(_CELLS.format(items="count(*)" if is_single else "count(DISTINCT key)"))

    def of(number: int, kind: str, message: str) -> None:
        cell = cells[number]
        suspects.append(Suspicion(kind, message, cell.model, cell.task, cell.cell_id))

    for cell, what, rows, tokens in con.execute(
        f"""
        SELECT cell, 'prompt', prompts, most_prompt FROM cell_sums
        WHERE prompts >= {LEAST_ROWS} AND least_prompt = most_prompt
        UNION ALL
        SELECT cell, 'answer', completions, most_completion FROM cell_sums
        WHERE completions >= {LEAST_ROWS} AND least_completion = most_completion AND most_completion > 1
        ORDER BY ALL
        """
    ).fetchall():
        of(cell, "constant_tokens", f"each {what} of {rows:,} has {tokens:,} tokens")
    for what in ("prompt", "completion"):
        for numbers, rows in con.execute(
            f"""
            SELECT list(cell ORDER BY cell), any_value({what}s) FROM cell_sums
            WHERE {what}s >= {LEAST_ROWS} AND least_{what} < most_{what}
            GROUP BY task, rows, {what}s, {what}_signature HAVING count(*) > 1 ORDER BY ALL
            """
        ).fetchall():
            models = sorted({cells[number].model for number in numbers})
            if len(models) > 1:
                some = ", ".join(models[:3]) + (", …" if len(models) > 3 else "")
                message = f"{what} tokens of {len(models)} models are the same {rows:,} numbers: {some}"
                suspects.append(Suspicion("identical_tokens", message, task=cells[numbers[0]].task))
    sources = [
        ("answers", "completion_tokens", "array_to_string(responses, ' ')", ""),
        ("prompts", "prompt_tokens", "staged_texts.prompt", "JOIN staged_texts USING (run, task, key)"),
    ]
    for what, tokens, text, join in sources:
        sql = _WORDS.format(tokens=tokens, text=text, join=join, least=LEAST_ROWS)
        for cell, ratio, rows in con.execute(sql).fetchall():
            of(cell, "words", f"tokens of {rows:,} {what} are {ratio:.3g} times their words: estimated, not counted")
    for cell, text, questions, is_only in con.execute(_CONSTANTS).fetchall():
        which = f"each of {questions:,}" if is_only else f"{questions:,} of its"
        of(cell, "constant_answer", f"{which} different questions have the answer {text[:60]!r}")
    for cell, rows in con.execute(
        f"SELECT cell, costs FROM cell_sums WHERE costs >= {LEAST_ROWS} AND most_usd = 0 ORDER BY ALL"
    ).fetchall():
        of(cell, "free", f"each of {rows:,} calls cost $0 by the source's account")
    for cell, unused in con.execute(
        "SELECT cell, unused FROM cell_sums WHERE unused > 0 AND used > 0 ORDER BY ALL"
    ).fetchall():
        of(cell, "no_usage", f"{unused:,} right answers without a token")
    has_repeats = con.execute("SELECT 1 FROM groups WHERE reason IS NULL AND most_repeat > 0 LIMIT 1").fetchall()
    for cell, items in con.execute(_ONLY_REPEATS).fetchall() if has_repeats else ():
        of(
            cell,
            "no_first_answer",
            f"{items:,} items have repeats from 1 on and none of number 0: the matrix lacks them",
        )
    for cell, kind, rows in con.execute(
        "SELECT cell, kind, count(*) FROM raw_suspects JOIN cell_numbers USING (run, model, task) "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        of(cell, kind, f"{rows:,} rows: {_MESSAGES[kind]}")
    for cell, stated, imported, mean, score in con.execute(_STATED).fetchall():
        if stated is not None and stated != imported:
            of(cell, "odd_count", f"the source states {stated:,} answers, and {imported:,} are imported")
        if None not in (mean, score) and min(abs(mean - score), abs(mean / 100 - score)) > _ROUNDED:  # or in percent
            of(
                cell,
                ODD_ACCURACY,
                f"the source states a mean score of {mean:.6g}, and the imported scores have {score:.6g}",
            )
    for model, task, bad, rows in con.execute(
        """
        SELECT model, task, sum(rows) FILTER (reason IS NOT NULL) AS bad, sum(rows) AS rows
        FROM groups GROUP BY run, model, task HAVING bad < rows AND bad * 2 > rows ORDER BY ALL
        """
    ).fetchall():
        message = f"{bad:,} of {rows:,} rows are rejected: the rest may not be a fair sample"
        suspects.append(Suspicion("mostly_rejected", message, model, task))
    for task, keys, key in con.execute(
        """
        SELECT task, count(*), min(key)
        FROM (SELECT task, key FROM raw_items GROUP BY run, task, key HAVING min(content_hash) < max(content_hash))
        GROUP BY task ORDER BY task
        """
    ).fetchall():
        message = f"{keys:,} items stand for several questions each, such as {key[:60]}"
        suspects.append(Suspicion("several_questions", message, task=task))
    for cell, rows, most in con.execute(
        "SELECT cell, items, most FROM (SELECT *, max(items) OVER (PARTITION BY task) AS most FROM cell_sums) "
        "WHERE items < most ORDER BY cell"
    ).fetchall():
        of(cell, "fewer_rows", f"{rows:,} items, while others of the source have {most:,}")
    return suspects
