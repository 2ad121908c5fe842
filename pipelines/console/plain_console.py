"""A console that prints a lake's texts without markup, keys and terminal escape sequences."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from typing import IO, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from schemas.texts import visible, without_keys

#: Width for a file or a pipe. Rich would take 80, and a leaderboard is wider.
COLUMNS = 140

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class VisibleStream:
    """A text stream that escapes control characters: all that `print` and logging write may hold names from anywhere.

    A carriage return at the start of a text stays, as bars of progress write it.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        start = "\r" if text.startswith("\r") else ""
        self.raw.write(start + visible(without_keys(text[len(start) :])))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def raw_stream(stream: Any) -> Any:
    """Returns the stream behind, for exact rows and for a console's own escape sequences."""
    return stream.raw if isinstance(stream, VisibleStream) else stream


def rows_stream() -> Any:
    """Returns standard output for rows: exact for a file or a program, escaped for a terminal."""
    return sys.stdout if sys.stdout.isatty() else raw_stream(sys.stdout)


class PlainConsole(Console):
    """Replaces control characters. Names, messages and texts come from anywhere, and one could clear the screen."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **settings)

    @property
    def file(self) -> IO[str]:
        stream: IO[str] = raw_stream(Console.file.fget(self))  # type: ignore[attr-defined]
        return stream

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._file = stream

    def render_str(self, text: str, **settings: Any) -> Text:
        """Every text, and every cell of a table, before it is broken into lines."""
        return super().render_str(without_keys(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_CONTROL.sub("\ufffd", segment.text), segment.style)


def stdout_console() -> PlainConsole:
    """A console on standard output, as wide as the terminal, or COLUMNS wide without one."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else COLUMNS
    return PlainConsole(width=width, force_terminal=terminal)
