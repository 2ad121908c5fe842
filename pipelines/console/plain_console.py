"""A console that prints a lake's texts as they are, without markup and without terminal escape sequences."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

#: Width for a file or a pipe. Rich would take 80, and a leaderboard is wider.
COLUMNS = 140

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class PlainConsole(Console):
    """Replaces control characters. Names, messages and texts come from anywhere, and one could clear the screen."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_CONTROL.sub("\ufffd", segment.text), segment.style)


def stdout_console() -> PlainConsole:
    """A console on standard output, as wide as the terminal, or COLUMNS wide without one."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else COLUMNS
    return PlainConsole(width=width, force_terminal=terminal)
