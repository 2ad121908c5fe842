"""A console on which what a lake holds is text and nothing else: no markup, and no escape sequences of a terminal."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

#: Columns of a file or a pipe, where rich would take 80: tables of a leaderboard are wider.
COLUMNS = 140

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class PlainConsole(Console):
    """Names of models, messages and texts come from anywhere; one with an escape sequence could clear a screen."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_CONTROL.sub("\ufffd", segment.text), segment.style)


def stdout_console() -> PlainConsole:
    """What a script prints to: as wide as the terminal, or COLUMNS where there is none."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else COLUMNS
    return PlainConsole(width=width, force_terminal=terminal)
