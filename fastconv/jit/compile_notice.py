"""One line on standard error while a program waits for the compiler, once per machine."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Environment variable that silences the line, set to anything.
QUIET_VARIABLE = "FASTCONV_QUIET"

_TEXT = "fastconv: compiling kernels for this machine, once"
# Shorter waits, in seconds, are not reported.
_WORTH_A_LINE = 0.5

_seconds, _kernels = 0.0, 0
_told = False  # whether this process has printed the line
_blocks = 0  # nesting of blocks without other output, where the line changes in place
_unfinished = False  # whether the terminal's line is ours
_before_list: int | None = None  # kernels compiled before those of a list


@contextmanager
def compiling() -> Iterator[None]:
    """Count a kernel and its time; print the line if compilation has taken a while."""
    global _seconds, _kernels
    if _seconds > _WORTH_A_LINE and _before_list is None:
        _show(f"{_kernels} so far")
    begin = time.perf_counter()
    try:
        yield
    finally:
        _seconds += time.perf_counter() - begin
        _kernels += 1


@contextmanager
def changing_in_place() -> Iterator[None]:
    """Update the line in place if standard error is a terminal."""
    global _blocks, _unfinished, _before_list
    _blocks += 1
    try:
        yield
    finally:
        _blocks -= 1
        _before_list = None
        if _unfinished and not _blocks:
            _unfinished = False
            _print("\n")


def tell(done: int, total: int) -> None:
    """Print the number of compiled kernels of a list, plus those compiled before in the block."""
    global _before_list
    if _before_list is None:
        _before_list = _kernels
    _show(f"{_before_list + done} of {_before_list + total}")


def _show(count: str) -> None:
    """Print the line: repeatedly in place inside a block on a terminal, else once."""
    global _told, _unfinished
    if os.environ.get(QUIET_VARIABLE) or sys.stderr is None:
        return
    if _blocks and _is_terminal():
        _told = _unfinished = True
        _print(f"\r{_TEXT} ({count})  ")
    elif not _told:
        _told = True
        _print(f"{_TEXT} ({count})\n")


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, OSError, ValueError):  # a program's own stream; it is closed
        return False


def _print(text: str) -> None:
    """Print, unless nobody can read it any more: that is no reason to stop a program."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        print(text, end="", file=sys.stderr, flush=True)
