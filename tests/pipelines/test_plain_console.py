"""Nothing that a lake holds acts on a terminal."""

from __future__ import annotations

import io

from rich.table import Table

from pipelines.plain_console import PlainConsole

HOSTILE = "evil\x1b[2J\x1b[31m\x07 [bold]name[/bold] :smile:"


def test_plain_console_escape_sequences_in_texts_and_tables_are_shown_not_obeyed() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, width=100, force_terminal=True)
    table = Table("model")
    table.add_row(HOSTILE)
    console.print(HOSTILE)
    console.print(table)
    told = file.getvalue()
    assert "\x1b[2J" not in told
    assert "\x07" not in told
    assert told.count("[2J") == told.count("[bold]name[/bold]") == 2
    assert ":smile:" in told


def test_plain_console_its_own_styles_reach_a_terminal() -> None:
    file = io.StringIO()
    PlainConsole(file=file, force_terminal=True, color_system="standard").print("x", style="bold")
    assert "\x1b[1mx" in file.getvalue()
