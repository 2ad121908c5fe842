"""Rows of a site's database for its pages."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

from schemas.sql import quoted

_OF_CELLS = re.compile(r"\bFROM (leaderboard|matrix)( AS \w+)?\b")
_IS_THERE = "SELECT 1 FROM duckdb_tables() WHERE database_name = 'site' AND table_name = {}"


class Tables:
    """Reads the database of a site."""

    def __init__(self, path: Path) -> None:
        self.con = duckdb.connect(config={"python_enable_replacements": "false", "threads": 1})
        self.con.execute("SET enable_progress_bar = false")
        self.con.execute(f"ATTACH {quoted(str(path))} AS site (READ_ONLY); USE site")

    def rows(self, sql: str) -> list[dict[str, Any]]:
        found = self.con.execute(sql)
        names = [column[0] for column in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def row(self, sql: str) -> dict[str, Any]:
        [row] = self.rows(sql)
        return row

    def holds(self, table: str) -> bool:
        """Whether the site has a table that not every site has."""
        return bool(self.rows(_IS_THERE.format(quoted(table))))

    @cached_property
    def repeated(self) -> dict[str, int]:
        """Cells that asked a part of another cell's items several times -> how often. Empty for most sites."""
        return {row["cell_id"]: row["times"] for row in self.rows("FROM repeated")} if self.holds("repeated") else {}

    def once(self, sql: str) -> str:
        """A query of the leaderboard or matrix without the cells of `repeated`: no model counts twice."""
        return _OF_CELLS.sub(r"\g<0> ANTI JOIN repeated USING (cell_id)", sql) if self.repeated else sql

    def several(self, sql: str) -> str:
        """A query of the leaderboard of the cells of `repeated` alone."""
        return _OF_CELLS.sub(r"\g<0> INNER JOIN repeated USING (cell_id)", sql).replace("SELECT ", "SELECT times, ", 1)

    def close(self) -> None:
        self.con.close()
