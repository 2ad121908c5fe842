"""Rows of a site's database for its pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from schemas.sql import quoted


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

    def close(self) -> None:
        self.con.close()
