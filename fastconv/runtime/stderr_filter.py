"""Keeps one sentence of another library out of the standard error stream."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable

_STDERR = 2


def mute(sentence: bytes) -> Callable[[], None]:
    """Hold back what this process writes to standard error; return what ends that.

    Then all lines are written, except those that begin with `sentence`. After a fork, call it in
    both processes: only the one that began writes what was held back. A program that another thread
    starts meanwhile loses what it writes there: keep the time short.
    """
    owner = os.getpid()
    try:
        held = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        original = os.dup(_STDERR)
        os.dup2(held.fileno(), _STDERR)
    except OSError:  # nowhere to keep it, or no standard error stream
        return lambda: None

    def end() -> None:
        with held, contextlib.suppress(OSError):  # the stream may be a broken pipe
            os.dup2(original, _STDERR)
            os.close(original)
            if os.getpid() == owner:
                held.seek(0)
                lines = [line for line in held if not line.startswith(sentence)]
                os.write(_STDERR, b"".join(lines))

    return end
