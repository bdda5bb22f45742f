"""One line on standard error where a program waits for the compiler: it happens once a machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Environment variable that silences the line, set to anything.
QUIET_VARIABLE = "FASTCONV_QUIET"

_TEXT = "fastconv: compiling kernels for this machine, once"
# Nobody needs to know of less.
_WORTH_A_LINE = 0.5

_seconds = 0.0
_told = False


@contextmanager
def compiling() -> Iterator[None]:
    """Count the time that a kernel takes; tell of it, once a process, if it is long."""
    global _seconds
    if _seconds > _WORTH_A_LINE:
        _print_once()
    begin = time.perf_counter()
    yield
    _seconds += time.perf_counter() - begin


def tell(done: int, total: int) -> None:
    """Tell how many kernels of a list are compiled: in one line, on a terminal always the same."""
    global _told
    if _silent():
        return
    if not sys.stderr.isatty():
        _print_once(f" ({total} of them)")
        return
    _told = True
    end = "\n" if done == total else ""
    print(f"\r{_TEXT} ({done} of {total})", end=end, file=sys.stderr, flush=True)


def _print_once(more: str = "") -> None:
    global _told
    if not (_told or _silent()):
        _told = True
        print(f"{_TEXT}{more}", file=sys.stderr, flush=True)


def _silent() -> bool:
    return bool(os.environ.get(QUIET_VARIABLE)) or sys.stderr is None
