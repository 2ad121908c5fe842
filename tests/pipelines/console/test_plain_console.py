"""Nothing that a lake holds acts on a terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import sys
import termios

import pytest
from rich.table import Table

from pipelines.console.plain_console import COLUMNS, PlainConsole, VisibleStream, raw_stream, stdout_console

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


def test_visible_stream_control_characters_are_escaped_and_a_consoles_own_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", VisibleStream(file))
    print(f"{HOSTILE}\rgone\u202eenog\u200e\u061c\ufeff\U000e0041\tx\u200dy")
    escaped = "\\rgone\\u202eenog\\u200e\\u061c\\ufeff\\U000e0041\tx\u200dy\n"
    assert file.getvalue() == f"evil\\x1b[2J\\x1b[31m\\x07 [bold]name[/bold] :smile:{escaped}"
    PlainConsole(force_terminal=True, color_system="standard").print("x", style="bold")
    assert "\x1b[1mx" in file.getvalue()
    assert raw_stream(sys.stdout) is file


def test_plain_console_its_own_styles_reach_a_terminal() -> None:
    file = io.StringIO()
    PlainConsole(file=file, force_terminal=True, color_system="standard").print("x", style="bold")
    assert "\x1b[1mx" in file.getvalue()


def test_stdout_console_is_as_wide_as_the_terminal_or_wide_enough_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        assert (stdout_console().width, stdout_console().is_terminal) == (COLUMNS, False)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "__stdout__", terminal)
        patch.delenv("COLUMNS", raising=False)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 97, 0, 0))
        assert (stdout_console().width, stdout_console().is_terminal) == (97, True)
    os.close(ours)
