"""Writing files: never half of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file in the same folder, then put it in its place.

    Whoever reads `path` sees the old content or the whole new one; after an error the old one
    is still there.
    """
    target = path.resolve()
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        write(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
