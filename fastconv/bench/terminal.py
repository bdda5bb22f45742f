"""Lines of plain text in columns, at most 100 wide: a file reads as well as a screen.

Colour only underlines what the words say.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

WIDTH = 100


def cells(values: Iterable[str], widths: Iterable[int]) -> str:
    """Return values aligned to the right of their columns."""
    return "".join(value.rjust(width) for value, width in zip(values, widths, strict=True))


class Terminal:
    """Prints lines as they are, however wide the terminal is."""

    def __init__(self) -> None:
        self._console = Console()

    def line(self, text: Text | str = "", style: str = "") -> None:
        """Print one line."""
        if isinstance(text, Text):
            text.rstrip()
        self._console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)

    def rule(self, title: str) -> None:
        """Print a title across the page."""
        self.line()
        line = "─" * (WIDTH - len(title) - 4)
        self.line(Text.assemble(("── ", "cyan"), (title, "bold cyan"), (f" {line}", "cyan")))
