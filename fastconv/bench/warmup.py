"""Compiling kernels ahead of their first use, into the folder of compiled kernels."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastconv.bench.progress_bar import ProgressBar
from fastconv.bench.warmup_programs import Program
from fastconv.jit.compile_ahead import compiling_ahead
from fastconv.jit.kernel_cache import cache_folder, usable_folder


@dataclass(frozen=True)
class Kernels:
    """The compiled kernels on disk."""

    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Their size."""
        return sum(file.stat().st_size for file in self.files)


def stored_kernels(folder: Path | None = None) -> Kernels:
    """Return the kernels of this build, or those below `folder`."""
    if folder is None:
        folder = usable_folder()
    files = folder.rglob("*.kernel") if folder else ()
    return Kernels(tuple(sorted(file for file in files if file.is_file())))


def clear() -> int:
    """Delete all compiled kernels, those of other versions too; return how many.

    Only files ``*.kernel`` in the sub-folders that fastconv makes; then these sub-folders, if
    nothing else is in them.
    """
    count = 0
    root = cache_folder()
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not re.fullmatch("[0-9a-f]{16}", folder.name) or folder.is_symlink():
            continue
        # The others are left by processes that were killed while compiling or writing.
        for pattern in ("*.kernel", "*.claim", "tmp*"):
            for file in folder.glob(pattern):
                if file.is_file() and not file.is_symlink():
                    file.unlink(missing_ok=True)
                    count += pattern == "*.kernel"
        with contextlib.suppress(OSError):  # not empty, or another process is writing
            folder.rmdir()
    return count


def compile_programs(programs: Sequence[Program], bar: ProgressBar) -> None:
    """Compile and store all that these programs need.

    First they run without their loops, which helpers compile meanwhile: see `compiling_ahead`.
    Then they run, which compiles what depends on numbers that loops compute.
    """

    def show(done: int, total: int) -> None:
        bar.show(done, total, "loops")

    with compiling_ahead(show):
        for done, (name, program) in enumerate(programs):
            bar.show(done, len(programs), f"microkernels: {name}")
            # It cannot go on where what a loop has computed makes no sense.
            with contextlib.suppress(Exception), np.errstate(all="ignore"):
                program()
    for done, (name, program) in enumerate(programs):
        bar.show(done, len(programs), name)
        program()
