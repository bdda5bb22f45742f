"""Compiling several kernels at once, in processes: Numba and LLVM use only one core of a process.

A program first runs its steps inside `compiling_ahead`, where loops do not execute. Missing loops
are sent to helper processes, one for each further core, as soon as they are called. A helper only
writes files to the store: if it fails or is killed, that costs time and nothing else. It ends with
the block, or with this process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numba

from fastconv.jit import compile_notice, kernel_cache
from fastconv.jit.compiler import RangeKernel
from fastconv.jit.missing_kernels import MissingKernel, collecting, examples, is_collecting
from fastconv.runtime import threads

#: A helper takes most of a second to start: fewer loops are compiled faster without.
_WORTH_A_HELPER = 3
_MOST_HELPERS = 15
# The longest wait for helpers when this process has nothing left to compile.
_MOST_SECONDS = 30.0
_SECONDS_BETWEEN_LOOKS = 0.02


@contextmanager
def compiling_ahead(tell: Callable[[int, int], None] | None = None) -> Iterator[None]:
    """Compile the loops that are called in the block instead of running them, and wait.

    Microkernels, which take less time, are compiled in the block. If no helper can be started, or
    compiled kernels cannot be kept, a loop is compiled when it is first run.

    Parameters
    ----------
    tell : callable
        Called with the numbers of compiled and of missing loops as they change; by default
        `compile_notice.tell`.
    """
    if numba.config.DISABLE_JIT or is_collecting():  # in a block around this one, say
        yield
        return
    notice = compile_notice.changing_in_place() if tell is None else contextlib.nullcontext()
    with notice, _Helpers() as helpers, collecting(helpers.send):
        yield
        if helpers.running and kernel_cache.usable_folder() is not None:
            helpers.finish(tell or compile_notice.tell)


class _Helpers:
    """The helper processes, and the list of loops to compile."""

    def __init__(self) -> None:
        self._missing: dict[MissingKernel, None] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._unsent: list[bytes] = []
        self._sending = threading.RLock()  # loops may be called by several threads
        self._wanted = min(threads.get_num_threads(), threads.available_cores(), _MOST_HELPERS) - 1

    @property
    def running(self) -> bool:
        """Whether there are any."""
        return bool(self._processes)

    def send(self, kernel: MissingKernel) -> None:
        """Add a loop to the list."""
        with self._sending:
            if kernel in self._missing:
                return
            self._missing[kernel] = None
            if len(self._missing) == _WORTH_A_HELPER and can_help():
                for _ in range(self._wanted):
                    with contextlib.suppress(OSError):
                        self._processes.append(_started_helper())
                self._unsent = [_as_line(*self._missing)] * len(self._processes)
            else:
                self._unsent = [rest + _as_line(kernel) for rest in self._unsent]
            self._write()

    def _write(self) -> None:
        """Send as much as the helpers accept without blocking."""
        for number, process in enumerate(self._processes):
            assert process.stdin is not None
            with contextlib.suppress(OSError):  # it is full, or the helper has ended
                written = os.write(process.stdin.fileno(), self._unsent[number])
                self._unsent[number] = self._unsent[number][written:]

    def finish(self, tell: Callable[[int, int], None]) -> None:
        """Compile unclaimed loops, from the end of the list; then wait for the others."""
        total = len(self._missing)
        others = []
        for done, missing in enumerate(reversed(self._missing)):
            self._write()
            tell(done, total)
            kernel, arguments = _found(missing)
            if not kernel.compile_for(arguments, wait=False):
                others.append((kernel, arguments))
        end = time.monotonic() + _MOST_SECONDS
        while others and time.monotonic() < end:
            tell(total - len(others), total)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            others = [other for other in others if other[0].is_claimed(other[1])]
        tell(total, total)

    def __enter__(self) -> _Helpers:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()


def _as_line(*kernels: MissingKernel) -> bytes:
    lines = (json.dumps([kernel.module, kernel.function, kernel.types]) for kernel in kernels)
    return b"".join(line.encode() + b"\n" for line in lines)


# The modules are those of this process; `-I` keeps others in the working folder out.
_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from fastconv.jit.compile_ahead import serve
serve()
"""


def _started_helper() -> subprocess.Popen[bytes]:
    path = [os.path.abspath(entry) for entry in sys.path if entry]
    options = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
    process = subprocess.Popen(
        [sys.executable, *options, "-c", _PROGRAM, json.dumps(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this process, which then ends its helpers
    )
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return process


def can_help() -> bool:
    """Return whether `sys.executable` is a Python that can be started as a helper.

    If Python is embedded, it may be the embedding program.
    """
    name = Path(sys.executable or "").name.lower()
    frozen = getattr(sys, "frozen", False)
    return name.startswith("python") and not frozen and hasattr(os, "set_blocking")


# In a helper --------------------------------------------------------------------------------


def _found(missing: MissingKernel) -> tuple[RangeKernel, list[Any]]:
    """Return a loop and arguments of the types that are missing."""
    kernel = getattr(importlib.import_module(missing.module), missing.function)
    return kernel, examples(missing.types)


def serve() -> None:
    """Compile what standard input lists, as long as there is input."""
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    parent = os.getppid()
    while True:
        line = lines.get()
        if os.getppid() != parent:  # another child of the parent may keep the pipe open
            return
        with contextlib.suppress(Exception):
            module, function, types = json.loads(line)
            kernel, arguments = _found(MissingKernel(module, function, tuple(types)))
            kernel.compile_for(arguments, wait=False)


def _read(lines: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # the other process has ended, or needs no help any more
