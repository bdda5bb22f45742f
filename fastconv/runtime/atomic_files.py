"""Writing files: never half of one, and on the disk when the call returns."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file in the same folder, then rename it to `path`.

    A reader of `path` sees the old content or the whole new one, even after a power failure; after
    an error the old one is still there. The target of a link is replaced, not the link, and keeps
    its permissions. A device or a pipe cannot be replaced: it is written to.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        write(target)
        return
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path must lie in a folder that exists, got {str(path)!r}")
    # The suffix stays, as it may say what is to be written; two writers never share a name.
    name = f".{target.name}.{secrets.token_hex(4)}.tmp{target.suffix}"
    temporary = target.with_name(name)
    try:
        write(temporary)
        sync(temporary)
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(target.stat().st_mode & 0o777)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync(target.parent)


def sync(path: Path) -> None:
    """Have the disk remember a file, or the names in a folder where systems offer that."""
    if not path.is_dir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        return
    with contextlib.suppress(OSError):  # nothing better is to be had there
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
