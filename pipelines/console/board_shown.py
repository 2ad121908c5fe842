"""A board of routers as files, pictures and a table in the terminal.

Owns the files of a board's folder and the columns of the table. Knows nothing of how the figures came about.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.console.plain_console import PlainConsole
from pipelines.console.rows_out import print_dicts
from pipelines.console.script import write_file
from schemas.failures import one_line

if TYPE_CHECKING:
    from collectors.metrics.splits import OwnSplit
    from collectors.routers.questions import Questions
    from collectors.routers.standings import Board, Standing

#: Figures of the table: column, key of a row, and digits.
COLUMNS = (
    ("score", "score", 4),
    ("gap closed", "gap_closed", 3),
    ("V_B", "v_b", 4),
    ("E_p", "selection_entropy", 3),
    ("hull", "hull_score", 4),
    ("AIQ", "aiq_paper", 4),
    ("spread", "spread_of_folds", 4),
)


def write_board(out: Path, questions: Questions, splits: Sequence[OwnSplit], board: Board) -> None:
    import numpy as np
    import sklearn

    from collectors.pictures.router_board import draw_board, draw_curves

    rows = [one.row() for one in board.standings]
    tasks = sorted(set(questions.tasks))
    first = splits[0]
    record = {
        "tasks": tasks,
        "metric": questions.pool.metric or None,
        "candidates": questions.pool.candidates,
        "left_out_candidates": questions.left_out,
        "questions": len(questions.ids),
        "left_out_questions": questions.pool.left_out,
        "split": {"rule": first.rule, "fraction": first.fraction, "seeds": [split.seed for split in splits]},
        "near_duplicates": len(questions.near) - len(set(questions.near)),
        "versions": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
        **board.head,
        "notes": [*questions.notes, *board.notes],
        "rows": rows,
    }
    # Times differ from run to run: apart, so that equal boards are equal files.
    measured = {one.router.name: one.measured for one in board.standings if one.measured}
    write_file(out / "board.json", json.dumps(record, indent=1, ensure_ascii=False).encode())
    write_file(out / "measured.json", json.dumps(measured, indent=1).encode())
    shown = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
    under = (
        f"{len(questions.ids):,} questions × {len(questions.pool.candidates):,} candidates, {len(splits)} splits by "
        f"{first.rule}; best constant {_text(board.head['best_constant_score'], 4)}, oracle "
        f"{_text(board.head['oracle_score'], 4)}"
    )
    try:
        pictures = {
            "board.png": draw_board(rows, f"{shown}: routers against the best constant", under),
            "curves.png": draw_curves(rows, f"{shown}: cost and score of routers", under),
        }
    except ModuleNotFoundError as error:
        print(f"route: no pictures: {one_line(error)}", file=sys.stderr)
        return
    for name, png in pictures.items():
        if png is not None:
            write_file(out / name, png)


def print_board(out: Path, questions: Questions, board: Board, form: str | None) -> None:
    for note in questions.notes:
        print(f"route: {note}", file=sys.stderr)
    if form:
        print_dicts(form, [one.row() for one in board.standings])
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console = PlainConsole(width=None if sys.stdout.isatty() else 1000)
    table = Table(box=SIMPLE_HEAD)
    heads = ("rank", "<router", *(title for title, _, _ in COLUMNS), "$/1000", "abstained", "<vs best constant")
    for title in (*heads, "<vs mixture", "fit s", "ms/query"):
        left = title.startswith("<")
        table.add_column(title.removeprefix("<"), justify="left" if left else "right", no_wrap=True)
    for one in board.standings:
        table.add_row(*_cells(one))
    console.print(table)
    head = board.head
    best, oracle = _text(head["best_constant_score"], 4), _text(head["oracle_score"], 4)
    print(f"best constant {best} ({', '.join(head['best_constants'])}), oracle {oracle}")
    for note in board.notes:
        print(note)
    print(f"→ {out / 'board.json'}")


def _cells(one: Standing) -> list[str]:
    if one.failed:
        return ["", one.router.name, *[""] * len(COLUMNS), "", "", one.failed, "", "", ""]
    row = one.figures
    usd = row["usd"]
    cost = f"{1000 * usd:.4g}" if usd is not None else f"{row['unpriced']:,} unknown"
    return [
        "bound" if one.is_bound else str(one.rank or ""),
        one.router.name,
        *(_text(row.get(key), digits) for _, key, digits in COLUMNS),
        cost,
        f"{row['abstained']:,}" if row["abstained"] else "",
        _against(one.constant),
        _against(one.mixture),
        f"{one.measured['fit_s']:.2f}",
        f"{1000 * one.measured['route_s_per_query']:.3f}",
    ]


def _against(comparison: Any) -> str:
    if comparison is None:
        return ""
    return f"{comparison.difference:+.4f} [{comparison.low:+.4f}, {comparison.high:+.4f}] {comparison.verdict}"


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
