"""What a person chooses before the views of the pool are made: which cells, which settings must be equal, which prices.

Owns the variables of DuckDB that the views read. Knows nothing of where they come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from schemas.failures import ConfigError, one_line
from schemas.reading_only import check_condition
from schemas.sql import quoted

#: Settings of a cell that a pool may demand to be equal, columns of the view cells.
SETTINGS = (
    "dtype",
    "prompting",
    "num_fewshot",
    "chat_template",
    "system_prompt",
    "decoding",
    "max_length",
    "engine",
    "imported_from",
    "quantization",
)
#: Which questions count: those that every candidate has a score for, or those that any has.
QUESTIONS = ("every", "any")
#: Cells that runs sampled: left out of a task that has whole cells, too, or candidates beside these.
SPARSE = ("apart", "mixed")


@dataclass(frozen=True)
class PoolChoice:
    """The default is all cells, whatever their settings, on the questions that every candidate has a score for."""

    #: A condition in SQL on columns of the view cells.
    where: str = "true"
    #: Names of SETTINGS.
    same: tuple[str, ...] = ()
    #: One of QUESTIONS.
    questions: str = "every"
    #: Day of the prices, YYYY-MM-DD, and their provider; None: the newest, and any.
    prices_on: str | None = None
    price_provider: str | None = None
    #: Name or id of the judge whose verdicts count; None: the tasks' own, in records.
    judge: str | None = None
    #: One of SPARSE.
    sparse: str = "apart"

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.same) - set(SETTINGS)):
            raise ConfigError(f"same: no setting {', '.join(unknown)}; there are {', '.join(SETTINGS)}")
        if self.questions not in QUESTIONS:
            raise ConfigError(f"questions: {self.questions!r} is neither {' nor '.join(QUESTIONS)}")
        if self.sparse not in SPARSE:
            raise ConfigError(f"sparse: {self.sparse!r} is neither {' nor '.join(SPARSE)}")

    def set_variables(self, con: duckdb.DuckDBPyConnection) -> None:
        """Sets all variables but the cells, which need a view."""
        texts = {
            "pool_cells": None,
            "pool_questions": self.questions,
            "pool_sparse": self.sparse,
            "prices_on": self.prices_on,
            "price_provider": self.price_provider,
        }
        values = {name: "NULL" if text is None else quoted(text) for name, text in texts.items()}
        values["pool_same"] = f"[{', '.join(map(quoted, self.same))}]::VARCHAR[]"
        # DuckDB's first parameter imports libraries, for 0.2 s of CPU.
        for name, value in values.items():
            con.execute(f"SET VARIABLE {name} = {value}")

    def check_judge(self, con: duckdb.DuckDBPyConnection) -> None:
        """Raises ConfigError where no answer was judged by the chosen judge."""
        if not con.execute("SELECT 1 FROM _shown_judges LIMIT 1").fetchall():
            names = [name for (name,) in con.execute("SELECT DISTINCT judge FROM judges ORDER BY judge").fetchall()]
            there = f"there are {', '.join(names)}" if names else "judge.py makes one"
            raise ConfigError(f"--judge {self.judge}: no answer was judged by it; {there}")

    def set_cells(self, con: duckdb.DuckDBPyConnection) -> None:
        """Sets the cells that meet the condition. Raises ConfigError for a wrong one."""
        if self.where.strip().lower() == "true":
            return
        try:
            check_condition(con, self.where)
            # In brackets alone, "false) OR (true" would be a condition.
            if len(con.extract_statements(f"SELECT {self.where}")) != 1:
                raise ConfigError("it holds a statement of its own")
            cells = con.execute(f"SELECT cell_id FROM cells WHERE (\n{self.where}\n) ORDER BY cell_id").fetchall()
        except (duckdb.Error, ConfigError) as error:
            raise ConfigError(f"the pool's condition: {one_line(error, 200)}") from error
        con.execute("SET VARIABLE pool_cells = ?", [[cell for (cell,) in cells]])
