"""The one loader of pools, for training and scoring routers, pictures and exports.

Owns the way from the views, which choose the candidates and questions (candidates, questions, pool), to arrays. Knows
no metrics.
"""

from __future__ import annotations

import difflib
import itertools
import textwrap
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.lake.holdings import Holdings
from collectors.lake.narrowing import only_parts_of
from collectors.lake.reading import ask, imports_left_out
from collectors.lake.store import Lake
from collectors.matrix.arrays import Arrays, empty_arrays
from collectors.matrix.laying import Inexact, Placement, lay, placed, views_of
from collectors.matrix.packed import FILES, lay_packed
from collectors.matrix.pool_arrays import OTHER, SAMPLED, UNSCORED, Pool, Pools, Rows, common
from schemas.failures import ConfigError, StorageError, one_line
from schemas.identity import BLOCK_KEY, COLUMN_KEY
from schemas.sql import quoted
from schemas.texts import MAY_HOLD, without_keys
from schemas.views import PoolChoice


def load_pools(
    lake: str | Lake,
    tasks: Sequence[str] | None = None,
    choice: PoolChoice | None = None,
    *,
    include: str = "collected",
    tokens: bool = False,
    numbers: Collection[str] = (),
) -> Pools:
    """The pools of a lake or published version, or of these tasks.

    `include` is a key of schemas.views.INCLUDED, `numbers` are some of NUMBERS. Memory is 5 bytes per element, 9 where
    scores need float64, 8 more with tokens and 8 for each number, plus one file of a compaction. A damaged object is
    skipped and named in the log and in the lake's failures. Raises ConfigError for a wrong condition, and if no cell of
    these tasks has a score.
    """
    choice = choice or PoolChoice()
    lake = (lake if isinstance(lake, Lake) else Lake(lake)).open_for_reading()

    def read(con: duckdb.DuckDBPyConnection, holdings: Holdings) -> Pools:
        return read_pools(con, lake, holdings, tasks, choice, tokens=tokens, numbers=numbers)

    return ask(lake, read, only=lambda holdings: needed_views(holdings, numbers), include=include, choice=choice)


def load_matrix(
    lake: str | Lake,
    tasks: Sequence[str] | None = None,
    choice: PoolChoice | None = None,
    *,
    include: str = "collected",
    tokens: bool = True,
    numbers: Collection[str] = (),
) -> Pool:
    """The router matrix as arrays: the counted questions of all tasks × candidates. Arguments as load_pools."""
    return load_pools(lake, tasks, choice, include=include, tokens=tokens, numbers=numbers).matrix()


def needed_views(holdings: Holdings, numbers: Collection[str] = ()) -> tuple[str, ...]:
    """The views that read_pools reads."""
    needed = {"cached_tokens": "matrix"}
    return (
        "candidates",
        "questions",
        "_dropped",
        *views_of(holdings),
        *(needed.get(name, "costs") for name in numbers),
    )


def read_pools(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    holdings: Holdings,
    tasks: Sequence[str] | None,
    choice: PoolChoice,
    *,
    tokens: bool = False,
    numbers: Collection[str] = (),
) -> Pools:
    """As load_pools, for a caller whose connection was made with `choice` and has needed_views."""
    cells, left_out = _chosen(con, tasks)
    if not len(cells):
        raise _nothing(con, lake, holdings, tasks, choice)
    names = sorted(set(cells["candidate"].to_pylist()))
    questions, blocks = _questions(con, cells)
    placement = placement_of(cells, names, blocks)
    shape = (len(questions), len(names))
    con.register("places", placement.cells)
    with only_parts_of(con, lake.uri, holdings, cells="places"):
        arrays = _laid(lake, holdings, con, placement, shape, tokens=tokens)
        found = numbers_of(con, shape, placement, numbers, tasks)
    every = Pool(
        task="",
        metric=common(cells["metric"].to_pylist()) or "",
        higher_is_better=all(cells["higher_is_better"].to_pylist()),
        candidates=names,
        questions=questions,
        cells=cells,
        scores=arrays["scores"],
        prompt_tokens=arrays["prompt_tokens"],
        completion_tokens=arrays["completion_tokens"],
        numbers=found,
    )
    return Pools(choice, every, _places(questions, cells, names), blocks, left_out, _dropped(con, tasks))


def _nothing(
    con: duckdb.DuckDBPyConnection, lake: Lake, holdings: Holdings, tasks: Sequence[str] | None, choice: PoolChoice
) -> ConfigError:
    which = "" if holdings.include == "all" else f"{holdings.include} "
    of = f" of task {', '.join(tasks)}" if tasks else ""
    where = choice.where.strip()
    meets = "" if where.lower() == "true" else f" that meets the pool's condition, {textwrap.shorten(where, 200)}"
    place = "version" if lake.is_published() else "lake"
    known = sorted({task for (task,) in con.execute("SELECT DISTINCT task FROM _run_cells").fetchall()})
    near = [one for task in tasks or () if task not in known for one in difflib.get_close_matches(task, known, n=2)]
    what = f"the {place} at {lake.uri} has no {which}cell with a score{of}{meets}"
    if near:
        return ConfigError(f"{what}; did you mean {' or '.join(near)}?")
    return ConfigError(what, advice=imports_left_out(lake, holdings.include) or ": see --pool and --include")


def _chosen(con: duckdb.DuckDBPyConnection, tasks: Sequence[str] | None) -> tuple[pa.Table, pa.Table]:
    """The cells of the pool, by task and candidate, and those that are left out, as in the view candidates."""
    # For a time with a zone Arrow imports pandas, 0.4 s of CPU.
    rows = con.execute(
        f"""
        SELECT _pool_cells.* REPLACE (epoch_us(started_at) AS started_at), _left_out.cell_id IS NOT NULL AS is_left_out,
            round, gained
        FROM _pool_cells LEFT JOIN _left_out USING (task, cell_id)
        WHERE {of_tasks(tasks, "_pool_cells")}
        """
    ).to_arrow_table()
    import pyarrow.compute as pc  # 75 ms

    # DuckDB sorts whole rows, in twice the time, and Arrow texts in four times that of their ranks.
    rows = rows.take(np.lexsort([_ranks(rows["candidate"]), _ranks(rows["task"])])).combine_chunks()
    is_left_out = rows["is_left_out"]
    rows = _without_keys(rows.drop_columns(["is_left_out"]))
    return rows.filter(pc.invert(is_left_out)).drop_columns(["round"]), rows.filter(is_left_out)


def _without_keys(cells: pa.Table) -> pa.Table:
    """`cells` with keys cut out of the candidates' names, which an older release stored. No two get one name."""
    import pyarrow.compute as pc

    distinct = pc.unique(cells["candidate"])
    # One pass of RE2: few are suspects, and each other name takes 40 µs.
    if not pc.any(pc.match_substring_regex(distinct, MAY_HOLD)).as_py():
        return cells
    column = cells["candidate"].to_pylist()
    names = {name: without_keys(name) for name in sorted(distinct.to_pylist())}
    if all(name == cut for name, cut in names.items()):
        return cells
    taken = {name for name, cut in names.items() if name == cut}
    for name, cut in names.items():
        if name != cut:
            numbered = itertools.chain([cut], (f"{cut} ({number})" for number in itertools.count(2)))
            names[name] = next(one for one in numbered if one not in taken)
            taken.add(names[name])
    place = cells.column_names.index("candidate")
    return cells.set_column(place, "candidate", pa.array([names[name] for name in column], pa.string()))


#: Answers of tasks that are read together: a query costs as much time as a million of them.
GROUP = 1 << 22
#: The words of the view _dropped.
_WHY = {"unscored": UNSCORED, "sampled": SAMPLED, "metric": OTHER}
#: Settings whose values say something to a person; of the others the name is enough.
_TOLD = ("dtype", "num_fewshot", "chat_template", "max_length", "engine", "quantization")


def _dropped(con: duckdb.DuckDBPyConnection, tasks: Sequence[str] | None) -> list[tuple[str, str, str]]:
    """As Pools.dropped."""
    rows = con.execute(f"SELECT task, name, why, differs FROM _dropped WHERE {of_tasks(tasks, '_dropped')}").fetchall()
    return sorted((task, name, _WHY.get(why) or _differing(differs)) for task, name, why, differs in rows)


def _differing(settings: Sequence[str]) -> str:
    """A phrase on settings that differ from the pool's, each as name=value."""
    pairs = [one.partition("=") for one in settings]
    told = (f"{name} {value or 'unknown'}" if name in _TOLD else name for name, _, value in pairs)
    return f"--same: {', '.join(told)}"


def of_tasks(tasks: Sequence[str] | None, table: str) -> str:
    """A condition on the rows of a table; None: all."""
    return "true" if tasks is None else f"{table}.task IN ({', '.join(map(quoted, tasks)) or 'NULL'})"


def _questions(con: duckdb.DuckDBPyConnection, cells: pa.Table) -> tuple[pa.Table, dict[tuple[str, str], Rows]]:
    """The axis of questions by task and place, and for each item table of a task the rows of its items."""
    con.register("pool_tables", cells.select(["task", "items_digest"]))
    read = con.execute(
        """
        SELECT task, items_digest, item,
            dense_rank() OVER (ORDER BY task, place.is_imported, place.item, place.items_digest) - 1 AS row_number
        FROM _questions_of SEMI JOIN pool_tables USING (task, items_digest)
        ORDER BY task, items_digest, item
        """
    ).fetchnumpy()
    axis = con.execute(
        """
        SELECT task, question, names.items_digest, names.item
        FROM _question_names AS names
        SEMI JOIN (
            SELECT question_number FROM _questions_of SEMI JOIN pool_tables USING (task, items_digest)
        ) AS asked ON names.question_number = asked.question_number
        INNER JOIN (SELECT DISTINCT question_number, place FROM _questions_of) AS places
            ON names.question_number = places.question_number
        ORDER BY task, place.is_imported, place.item, place.items_digest
        """
    ).to_arrow_table()
    con.unregister("pool_tables")
    row_numbers = np.asarray(read["row_number"], np.int64)
    blocks: dict[tuple[str, str], Rows] = {}
    starts = _starts(np.asarray(read["task"]), np.asarray(read["items_digest"]))
    for first, stop in zip(starts, [*starts[1:], len(row_numbers)], strict=True):
        blocks[str(read["task"][first]), str(read["items_digest"][first])] = row_numbers[first:stop]
    return axis, blocks


def _ranks(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """(rows,): the place of each value among the distinct ones in their order, with nulls last."""
    import pyarrow.compute as pc

    coded = column.dictionary_encode().combine_chunks()
    coded = coded.chunk(0) if isinstance(coded, pa.ChunkedArray) else coded
    order = pc.sort_indices(coded.dictionary).to_numpy()
    ranks = np.empty(len(order) + 1, np.int64)
    ranks[order] = np.arange(len(order))
    ranks[-1] = len(order)
    places: Rows = ranks[coded.indices.fill_null(len(order)).to_numpy()]
    return places


def _starts(*columns: npt.NDArray[Any]) -> list[int]:
    """The rows where a value of `columns` differs from the one before."""
    if not len(columns[0]):
        return []
    differs = np.zeros(len(columns[0]), np.bool_)
    differs[0] = True
    for column in columns:
        differs[1:] |= column[1:] != column[:-1]
    return [int(row) for row in np.flatnonzero(differs)]


def placement_of(cells: pa.Table, names: list[str], blocks: Mapping[tuple[str, str], Rows]) -> Placement:
    """The places of `cells` (Pool.cells) in arrays with the columns `names`; `blocks` as Pools.tables."""
    numbers = {block: number for number, block in enumerate(blocks)}
    tables = zip(cells["task"].to_pylist(), cells["items_digest"].to_pylist(), strict=True)
    columns = {name: column for column, name in enumerate(names)}
    order = np.lexsort([_ranks(cells[name]) for name in reversed(COLUMN_KEY) if cells[name].null_count < len(cells)])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    places = {
        **{name: cells[name] for name in dict.fromkeys(("cell_id", "filter", *BLOCK_KEY, *COLUMN_KEY))},
        "block": np.array([numbers[table] for table in tables], np.int64),
        "model_column": np.array([columns[name] for name in cells["candidate"].to_pylist()], np.int64),
        "rank": rank,
    }
    return Placement(pa.table(places), list(blocks.values()))


def _laid(
    lake: Lake,
    holdings: Holdings,
    con: duckdb.DuckDBPyConnection,
    placement: Placement,
    shape: tuple[int, int],
    *,
    tokens: bool,
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a pool. Its scores are float32 unless one of them needs float64."""
    is_packed = not holdings.has_other_scores and _is_packed(lake, con)  # version 6 packed others, too
    for kind in (np.float32, np.float64):
        arrays = empty_arrays(*shape, tokens=tokens, scores=kind, valid=False)
        try:
            if not (is_packed and _lay_packed(lake, Arrays(**arrays), placement)):
                lay(lake, holdings, con, Arrays(**arrays), placement, exact=True)
            return arrays
        except Inexact:
            is_packed = False
    raise AssertionError("float64 holds every score")


def _lay_packed(lake: Lake, arrays: Arrays, placement: Placement) -> bool:
    try:
        return lay_packed({table: lake.open_object(name) for table, name in FILES.items()}, arrays, placement)
    except (OSError, ValueError) as error:
        raise StorageError(f"packed/ in {lake.uri} is damaged: {one_line(error)}") from error


def _is_packed(lake: Lake, con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the lake has the packed form, and this names cells by no more than their keys."""
    if not all(lake.has(name) for name in FILES.values()):
        return False
    keys = ", ".join(dict.fromkeys((*BLOCK_KEY, *COLUMN_KEY)))
    doubled = con.execute(f"SELECT 1 FROM cells GROUP BY {keys} HAVING count(*) > 1 LIMIT 1").fetchall()
    return not doubled


def numbers_of(
    con: duckdb.DuckDBPyConnection,
    shape: tuple[int, int],
    placement: Placement,
    names: Collection[str],
    tasks: Sequence[str] | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """Those of `names` (NUMBERS) that some answer has -> their array; `tasks` are those of the cells, None: all."""
    arrays: dict[str, npt.NDArray[np.float64]] = {}
    for source in ("costs", "matrix"):
        mine = [name for name in names if (name == "cached_tokens") == (source == "matrix")]
        if not mine:
            continue
        for group, part in _groups(placement, tasks):
            # That one of them is known is no condition: for it DuckDB computed each cost twice.
            known = f"{source} JOIN places USING (cell_id) WHERE {of_tasks(group, source)}"
            for rows, columns, batch in placed(con, part, mine, known):
                for name in mine:
                    values = batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)  # null is NaN
                    if name not in arrays:
                        if np.isnan(values).all():
                            continue
                        arrays[name] = np.full(shape, np.nan)
                    arrays[name][rows, columns] = values
    return arrays


def in_groups(answers: Mapping[str, int]) -> list[list[str]]:
    """The tasks, with so many answers each, in groups of neighbours of at most GROUP answers, or of one larger task."""
    groups: list[list[str]] = []
    room = 0
    for task, size in answers.items():
        if size > room:
            groups.append([])
            room = GROUP
        groups[-1].append(task)
        room -= size
    return groups


def _groups(placement: Placement, asked: Sequence[str] | None) -> Iterator[tuple[Sequence[str] | None, Placement]]:
    """The cells in groups of tasks; where one holds all, of those that were asked for."""
    tasks, sizes = placement.cells["task"].to_pylist(), np.array([len(rows) for rows in placement.rows])
    answers = Counter[str]()
    for task, size in zip(tasks, sizes[placement.cells["block"].to_numpy()].tolist(), strict=True):
        answers[task] += size
    groups = in_groups(answers)
    if len(groups) < 2:
        yield asked, placement
        return
    for group in groups:
        kept = pa.array([task in group for task in tasks], pa.bool_())
        yield group, Placement(placement.cells.filter(kept), placement.rows)


def _places(questions: pa.Table, cells: pa.Table, names: list[str]) -> dict[str, tuple[slice, Rows]]:
    import pyarrow.compute as pc

    of_row = questions["task"].to_pylist()
    columns = pc.index_in(cells["candidate"], pa.array(names, pa.string())).to_numpy()
    tasks = cells["task"].to_numpy()
    starts = _starts(tasks)  # the cells, too, are in the order of tasks
    of_task = {tasks[a]: columns[a:b] for a, b in zip(starts, [*starts[1:], len(tasks)], strict=True)}
    first = {task: of_row.index(task) for task in of_task}  # the axis is in the order of tasks
    stops = [*sorted(first.values()), len(of_row)]
    return {
        task: (slice(first[task], stops[stops.index(first[task]) + 1]), np.sort(of).astype(np.int64))
        for task, of in of_task.items()
    }
