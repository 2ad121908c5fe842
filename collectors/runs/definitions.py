"""Names tasks that the lake holds under another definition or with other settings, before a run asks them anew.

Owns the comparison of a task's items and settings with those in the lake. A number of examples, a template or a limit
is a choice of the config, and is no other definition.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from collectors.lake.holdings import Holdings
from collectors.lake.reading import ask
from collectors.lake.store import Lake
from schemas.records import RUN_CELL

if TYPE_CHECKING:
    import duckdb

    from collectors.harness.tasks import BoundTask
    from collectors.runs.plan import Plan

#: Settings of a task's definition, columns of the view cells.
SETTINGS = ("task_version", "output_type", "metric", "filter", "higher_is_better")

#: Settings of a config that make another cell of one model and task, columns of the view cells.
CHOSEN = (
    "revision",
    "dtype",
    "quantization",
    "num_fewshot",
    "chat_template",
    "system_prompt",
    "decoding",
    "max_length",
)
#: Cells that are compared: the first ones show what a config changed.
_MOST = 10_000
_EFFORT = ("thinking_tokens", "reasoning_effort")
#: Counts cells of the same models that differ from those of which the lake has nothing, a row a task. A cell that asks
#: its items several times is not the same model's cell that asks each once.
_UNLIKE = f"""
SELECT task, count(DISTINCT there.cell_id), {", ".join(f"bool_or(there.{n} IS DISTINCT FROM here.{n})" for n in CHOSEN)}
FROM _run_cells AS there INNER JOIN fresh AS here USING (task, model)
WHERE there.cell_id <> here.cell_id AND there.items_digest = here.items_digest AND there.task_digest = here.task_digest
    AND {" AND ".join(f"there.{name} IS NOT DISTINCT FROM here.{name}" for name in _EFFORT)}
    AND (there.decoding ->> '$.repeats' IS NULL) = (here.decoding ->> '$.repeats' IS NULL)
GROUP BY task
ORDER BY task
"""

#: One reading for all tasks. Not of the view cells, which makes a row of fifty columns for each of a million cells.
_DEFINITIONS = f"""
CREATE TEMP TABLE definitions AS
SELECT task, items_digest, task_digest, {", ".join(SETTINGS)}, count(DISTINCT cell_id),
    max(epoch(started_at)) AS started
FROM _run_cells
GROUP BY ALL
"""


def other_definitions(plan: Plan, lake: Lake) -> list[str]:
    """A line for each task of which the lake has cells, but under another definition or with other settings.

    Raises StorageError if the lake cannot be read.
    """
    todo = {planned.cell.prompting for planned in plan.cells if planned.todo}
    tasks = {task.name: task for prompting, task in plan.tasks.items() if prompting in todo}
    if not tasks:
        return []

    def lines(con: duckdb.DuckDBPyConnection, _: Holdings) -> list[str]:
        con.execute(_DEFINITIONS)
        return [*(line for task in tasks.values() for line in _compared(con, task)), *_unlike(con, plan)]

    return ask(lake, lines, only=["_run_cells", "items"], include="collected", shards=False)


def _compared(con: duckdb.DuckDBPyConnection, task: BoundTask) -> Iterator[str]:
    query = "SELECT * EXCLUDE (task) FROM definitions WHERE task = ? ORDER BY started, items_digest, task_digest"
    rows = con.execute(query, [task.name]).fetchall()
    mine = task.settings
    if not rows or any(row[:2] == (mine.items_digest, mine.task_digest) for row in rows):
        return
    items_digest, task_digest, *settings, cells, started = rows[-1]
    items = _items(con, task, items_digest)
    changed = [name for name, value in zip(SETTINGS, settings, strict=True) if value != getattr(mine, name)]
    differs = [*items, *changed] or ["settings of its file"]
    is_verdict = not items and changed and set(changed) <= {"metric", "filter"}
    again = "; judge.py judges their answers again" if is_verdict else ""
    old = items_digest if items_digest != mine.items_digest else task_digest
    when = dt.datetime.fromtimestamp(started, dt.UTC)
    yield (
        f"task {task.name}: the lake has {cells:,} cells under another definition, of {when:%Y-%m-%d %H:%M} UTC. "
        f"Different: {', '.join(differs)}. All items are asked anew{again}; forget.py --definition {old} hides the old "
        "answers"
    )


def _unlike(con: duckdb.DuckDBPyConnection, plan: Plan) -> Iterator[str]:
    """A line for each task of which planned models have cells with other settings, and none with these."""
    names = ("cell_id", "task", "model", "items_digest", "task_digest", *CHOSEN, *_EFFORT)
    fresh = (planned for planned in plan.cells if planned.todo and planned.items_todo == planned.wanted)
    rows = [planned.row for planned in itertools.islice(fresh, _MOST)]
    con.register(
        "fresh", pa.table({name: pa.array([row[name] for row in rows], RUN_CELL.field(name).type) for name in names})
    )
    for task, cells, *differ in con.execute(_UNLIKE).fetchall():
        changed = [name for name, differs in zip(CHOSEN, differ, strict=True) if differs]
        if changed:
            yield (
                f"task {task}: the lake has {cells:,} cells of these models with other settings. Different: "
                f"{', '.join(changed)}. Their answers stay apart, and all items are asked"
            )
    con.unregister("fresh")


def _items(con: duckdb.DuckDBPyConnection, task: BoundTask, items_digest: str) -> list[str]:
    """Phrases on the items that differ. Equal documents are one; the first of each counts."""
    columns = ("item", "content_hash", "target", "prompt")
    rows = con.execute(
        f"SELECT {', '.join(columns)} FROM items WHERE task = ? AND items_digest = ? ORDER BY item",
        [task.name, items_digest],
    ).fetchall()
    table = task.item_table().select(columns).to_pylist()
    # Of one table the places tell items apart, else their content. Older programs knew the content of fewer documents.
    name = 0 if items_digest == task.settings.items_digest else 1 if all(row[1] for row in rows) else 3
    old, new = _by_name(rows, name), _by_name([tuple(row.values()) for row in table], name)
    both = [(old[one], new[one]) for one in new if one in old]
    counts = {
        "right answers": sum(before[2] != after[2] for before, after in both),
        "texts (doc_to_text)": sum(before[3] != after[3] for before, after in both),
    }
    phrases = [f"{count:,} of {len(new):,} {what}" for what, count in counts.items() if count]
    if added := len(new.keys() - old.keys()):
        phrases.append(f"{added:,} new items")
    if gone := len(old.keys() - new.keys()):
        phrases.append(f"{gone:,} items that are gone")
    return phrases or ([] if items_digest == task.settings.items_digest else ["the order of its items"])


def _by_name(rows: list[Any], name: int) -> dict[Any, tuple[Any, ...]]:
    return {row[name]: tuple(row) for row in reversed(rows)}
