"""A progress bar on stderr that never disturbs a measurement, and is silent in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T")


class ProgressBar:
    """Shows how far a long task is.

    It is drawn only when told something new: a thread that redraws it ten times a second would
    take its time from what is being measured.
    """

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        # Older releases of rich print an empty line at the end even of a bar that is disabled.
        console.quiet = not console.is_terminal
        self._progress = Progress(
            *(BarColumn(30), MofNCompleteColumn()),
            *(TextColumn("{task.description}"), TimeElapsedColumn()),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total)

    def tell(self, text: str) -> None:
        """Show what is being done."""
        self._progress.update(self._task, description=text, refresh=True)

    def advance(self) -> None:
        """One step is done."""
        self._progress.update(self._task, advance=1, refresh=True)

    def show(self, done: int, total: int, text: str) -> None:
        """Show how far a part of the task is: `done` of `total` steps, and what comes now."""
        self._progress.update(
            self._task, completed=done, total=total, description=text, refresh=True
        )

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar away while something is printed to the same terminal."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


def collect(
    steps: Callable[[Callable[[str], None]], Iterator[T]], total: int, show: Callable[[T], None]
) -> tuple[list[T], bool]:
    """Show what a long task yields as it comes; return it all, and whether the task ended.

    Ctrl-C ends the task, not the program: what it has yielded until then is returned.
    """
    found: list[T] = []
    try:
        with ProgressBar(total) as bar:
            for each in steps(bar.tell):
                found.append(each)
                with bar.hidden():
                    show(each)
                bar.advance()
    except KeyboardInterrupt:
        return found, False
    return found, True
