"""Keeping one sentence of another library out of the standard error stream."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from typing import IO

_STDERR = 2


def mute(sentence: bytes) -> Callable[[], None]:
    """Hold back what this process writes to standard error; return what ends that.

    Then all lines are written after all, except those that begin with `sentence`. Whoever forks
    meanwhile calls it in both processes: only the one that began writes what was held back.
    """
    held, original, owner = _file(), None, os.getpid()
    if held is not None:
        with contextlib.suppress(OSError):  # there is no standard error stream
            original = os.dup(_STDERR)
            os.dup2(held.fileno(), _STDERR)

    def end() -> None:
        if held is None or original is None:
            return
        os.dup2(original, _STDERR)
        os.close(original)
        with held:
            if os.getpid() != owner:
                return
            held.seek(0)
            for line in held:
                if not line.startswith(sentence):
                    os.write(_STDERR, line)

    return end


def _file() -> IO[bytes] | None:
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return None
