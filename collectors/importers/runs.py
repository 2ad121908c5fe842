"""Several runs of one model on one task, in formats whose files do not make one run of it.

Owns which of them is the source's own value. Knows nothing of formats.
"""

from __future__ import annotations

from collections.abc import Callable

from collectors.importers.sources import ImportSource, Sink
from collectors.importers.staging import Staging


def by_run(
    read: Callable[[Sink, int, ImportSource], None], *, newest_first: bool = False, joins: bool = False
) -> Callable[[Staging, ImportSource], None]:
    """Makes an importer that calls `read` for one file after another, as values.by_file does.

    `read` gives each run a name of its own that sorts by time, and that no other model's run has. Of the runs of one
    model on one task the newest is the source's own with `newest_first`, else the oldest; the others are NAME#2 and so
    on. The chosen runs of all models share one item table. `joins`: runs with a space in their names are joined where
    they hold the same answers.
    """

    def read_all(staging: Staging, source: ImportSource) -> None:
        staging.read_files(read, [(number, (source,)) for number in range(len(staging.files))])
        if joins:
            _join_equal_runs(staging)
        choose_runs(staging, newest_first=newest_first)

    return read_all


def choose_runs(staging: Staging, *, newest_first: bool = False) -> None:
    """Renames the chosen run of each model and task to ''. Keeps its name in `run_names`."""
    staging.flush()
    con, first = staging.con, "max" if newest_first else "min"
    con.execute(
        f"""
        CREATE TABLE chosen_runs AS
        SELECT model, task, {first}(run) AS run FROM raw_verdicts GROUP BY ALL HAVING {first}(run) <> ''
        """
    )
    key = "model, task, run"
    for table in ("raw_verdicts", "raw_suspects", "raw_stated"):
        con.execute(f"UPDATE {table} SET run = '' WHERE ({key}) IN (SELECT ({key}) FROM chosen_runs)")
    con.execute("UPDATE raw_items SET run = '' WHERE (task, run) IN (SELECT (task, run) FROM chosen_runs)")
    for model, task, run in con.execute("FROM chosen_runs").fetchall():
        staging.run_names["", model, task] = run
        if (run, model, task) in staging.descriptions:
            staging.descriptions["", model, task] = staging.descriptions.pop((run, model, task))


#: Runs of one model on one task that share an answer, and whether all answers that they share are equal.
_PAIRS = """
WITH answers AS (
    SELECT run, model, task, key,
        hash(score, failure, prompt_tokens, completion_tokens, stated_usd, responses) AS content
    FROM raw_verdicts WHERE contains(run, ' ')
)
SELECT model, task, a.run, b.run, bool_and(a.content = b.content)
FROM answers AS a JOIN answers AS b USING (model, task, key)
WHERE a.run < b.run GROUP BY ALL ORDER BY ALL
"""


def _join_equal_runs(staging: Staging) -> None:
    """Gives runs that share answers, and differ in none, the name of the first: they are copies of one run."""
    staging.flush()
    pairs = staging.con.execute(_PAIRS).fetchall()
    differing = {(model, task, frozenset((a, b))) for model, task, a, b, is_equal in pairs if not is_equal}
    name_of: dict[tuple[str, str, str], str] = {}
    members: dict[tuple[str, str, str], list[str]] = {}
    for model, task, a, b, is_equal in pairs:
        first = name_of.get((model, task, a), a)
        group = members.setdefault((model, task, first), [first])
        is_new = is_equal and (model, task, b) not in name_of
        if is_new and not any((model, task, frozenset((one, b))) in differing for one in group):
            name_of[model, task, b] = first
            group.append(b)
    for (model, task, run), name in name_of.items():
        where = [name, model, task, run]
        for table in ("raw_verdicts", "raw_suspects", "raw_stated"):
            staging.con.execute(f"UPDATE {table} SET run = ? WHERE model = ? AND task = ? AND run = ?", where)
        staging.con.execute("UPDATE raw_items SET run = ? WHERE task = ? AND run = ?", [name, task, run])
