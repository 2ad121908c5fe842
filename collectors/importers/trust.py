"""Which rows of a source are trusted.

Owns the rules that make a row of any format a reject. Knows nothing of formats, cells or the lake.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from collectors.importers.staging import Staging

_NUMBERS = ("score", "stated_usd", "latency_s", "ttft_s")
_COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "engine_tokens", "stated_usd", "latency_s")


def _values(names: Sequence[str], condition: str) -> str:
    """The columns that meet a condition, with their values, and those of a table as they stand there, as SQL."""
    parts = [f"CASE WHEN {condition.format(name)} THEN '{name} ' || {name} END" for name in names]
    return f"concat_ws(', ', {', '.join([*parts, 'what'])})"


#: Names, which objects of the lake and SQL texts spell out. A text of SQL ends at NUL.
_NAMES = ("model", "task", "filter", "key")
_HAS_NUL = " OR ".join(f"contains({name}, chr(0))" for name in _NAMES)
_WITH_NUL = ", ".join(f"CASE WHEN contains({name}, chr(0)) THEN '{name}' END" for name in _NAMES)

#: Kind -> message, as SQL.
_REASONS = {
    "encoding": f"'the character NUL stands in the name of: ' || concat_ws(', ', {_WITH_NUL})",
    "no_key": "'no model, task or item, or the repeat is not a whole number from 0 to 32767'",
    "not_finite": f"'a number is NaN, infinite or beyond 1e30: ' || {_values(_NUMBERS, 'abs({}) >= 1e30')}",
    "out_of_range": "'the score ' || score || ' is outside its range'",
    "negative_tokens": "'a count of tokens is not a whole number, or a count, cost or time is below 0: ' || "
    + _values(_COUNTS, "{} < 0"),
    "no_verdict": "'no score, and no sign that the model was asked'",
}


def trust_rows(staging: Staging) -> None:
    """Makes the view `trusted` of the verdicts that can be trusted, and the table `groups` with counts of all, and the
    first and last of their filters and repeats.

    The other verdicts become rejects, and all are counted by file.
    """
    con = staging.con
    con.execute("CREATE TABLE ranges (run VARCHAR, model VARCHAR, task VARCHAR, low DOUBLE, high DOUBLE)")
    own = [
        (*key, cell.low, cell.high)
        for key, cell in staging.descriptions.items()
        if (cell.low, cell.high) != (staging.default.low, staging.default.high)
    ]
    if own:
        columns = zip(*own, strict=True)
        con.register("given", pa.table(dict(zip(("run", "model", "task", "low", "high"), columns, strict=True))))
        con.execute("INSERT INTO ranges FROM given")
        con.unregister("given")
    default = staging.default
    low, high = ("NULL" if x is None else repr(float(x)) for x in (default.low, default.high))
    limits = f"{low}::DOUBLE AS low, {high}::DOUBLE AS high"
    if own:
        join = "LEFT JOIN ranges USING (run, model, task)"
        limits = ", ".join(
            f"CASE WHEN ranges.task IS NOT NULL THEN ranges.{name} ELSE {value} END AS {name}"
            for name, value in (("low", low), ("high", high))
        )
    else:
        join = ""
    con.execute(
        """
        CREATE VIEW every AS
        SELECT * REPLACE (
            coalesce(run, '') AS run, coalesce(repeat, 0)::SMALLINT AS repeat, coalesce(filter, 'none') AS filter
        )
        FROM raw_verdicts
        """
    )
    con.execute(
        f"""
        CREATE VIEW judged AS
        SELECT every.*, CASE
            WHEN {_HAS_NUL} THEN 'encoding'
            WHEN coalesce(model, '') = '' OR coalesce(task, '') = '' OR coalesce(key, '') = '' OR repeat < 0
                THEN 'no_key'
            -- NaN is the greatest; the mean of numbers near the largest that there are is infinite.
            WHEN greatest(abs(score), abs(stated_usd), abs(latency_s), abs(ttft_s)) >= 1e30 THEN 'not_finite'
            WHEN score < low OR score > high THEN 'out_of_range'
            WHEN least(prompt_tokens, completion_tokens, cached_tokens, engine_tokens, stated_usd, latency_s) < 0
                THEN 'negative_tokens'
            WHEN score IS NULL AND failure IS NULL AND responses IS NULL AND prompt_tokens IS NULL
                AND completion_tokens IS NULL AND filtered IS NULL AND loglikelihoods IS NULL THEN 'no_verdict'
        END AS reason
        FROM (SELECT every.*, {limits} FROM every {join}) AS every
        """
    )
    con.execute(
        """
        CREATE TABLE groups AS
        SELECT run, model, task, file, reason, count(*) AS rows, min(filter) AS first_filter,
            max(filter) AS last_filter, min(repeat) AS least_repeat, max(repeat) AS most_repeat
        FROM judged GROUP BY ALL
        """
    )
    has_rejects = con.execute("SELECT 1 FROM groups WHERE reason IS NOT NULL LIMIT 1").fetchall()
    # Each reading of the view works out the reasons anew.
    trusted = "* EXCLUDE (low, high, reason) FROM judged WHERE reason IS NULL" if has_rejects else "* FROM every"
    con.execute(f"CREATE VIEW trusted AS SELECT {trusted}")
    for file, rows in con.execute("SELECT file, sum(rows)::BIGINT FROM groups GROUP BY file").fetchall():
        staging.counts[file].rows += rows
    for count in staging.counts:
        count.rows += count.rejected + count.folded  # by the importer
    for file, rows in con.execute(
        "SELECT file, sum(rows)::BIGINT FROM groups WHERE reason IS NOT NULL GROUP BY file"
    ).fetchall():
        staging.counts[file].rejected += rows
    if not has_rejects:
        return
    reasons = " ".join(f"WHEN '{kind}' THEN {message}" for kind, message in _REASONS.items())
    con.execute(
        f"""
        INSERT INTO rejects
        SELECT file, row, reason, CASE reason {reasons} END, model, task, key
        FROM judged
        LEFT JOIN (SELECT file, row, string_agg(DISTINCT what, ', ' ORDER BY what) AS what FROM odd_values GROUP BY ALL)
            USING (file, row)
        WHERE reason IS NOT NULL
        """
    )
