"""One line on standard error where a program waits for the compiler: it happens once a machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Environment variable that silences the line, set to anything.
QUIET_VARIABLE = "FASTCONV_QUIET"

_told = False


@contextmanager
def compiling() -> Iterator[None]:
    """Tell, once a process, that kernels are being compiled; each loop takes about a second."""
    global _told
    if not(_told or os.environ.get(QUIET_VARIABLE) or sys.stderr is None):
        _told = True
        print(
            "fastconv: compiling kernels for this machine, once; `fastconv warmup` compiles all of them"
            f" ({QUIET_VARIABLE}=1 silences this line)",
            file=sys.stderr,
            flush=True,
        )
    yield
