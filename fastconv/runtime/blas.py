"""NumPy's BLAS, limited to one thread where its products run beside each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

from fastconv.runtime import forks

# Seconds that a fork waits for the products of other threads.
LONGEST_WAIT_FOR_BLAS = 1.0


class _SingleThreadedBlas:
    """Limits every BLAS library of the process to one thread while somebody asks for it.

    The limit is a setting of the whole process, so callers are counted: the last one restores
    what the libraries had. Every caller makes sure of the limit itself, because it may be a
    signal handler that interrupts another caller between any two of these lines.
    """

    def __init__(self) -> None:
        self._gate, self._lock = threading.RLock(), threading.RLock()
        self._holders = 0
        self._saved: dict[int, int] = {}

    def pause(self, undo: ExitStack) -> None:
        """Let no other thread begin, and wait a while for those that work; `undo` ends that.

        OpenBLAS hangs for ever where a process forks between its products and changes of its
        number of threads. A fork out of a product waits in vain, so not for long.
        """
        self._gate.acquire()
        undo.callback(self._gate.release)
        end = time.monotonic() + LONGEST_WAIT_FOR_BLAS
        while self._holders and time.monotonic() < end:
            time.sleep(1e-3)
        # The last one may still be restoring the threads of the libraries: a fork then leaves
        # OpenBLAS with a number of threads that cannot be changed any more.
        self._lock.acquire()
        undo.callback(self._lock.release)

    def acquire(self) -> None:
        libraries = _blas_libraries()  # a first use, on which a fork waits, ends before the locks
        with self._gate, self._lock:
            self._holders += 1
            for number, blas in enumerate(libraries):
                threads = blas.get_num_threads()
                if threads != 1:
                    self._saved.setdefault(number, threads)
                    _set_threads(blas, 1)

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self.restore()

    def restore(self) -> None:
        """Restore the threads of the libraries, even if somebody still holds the limit."""
        for number, threads in list(self._saved.items()):
            _set_threads(_blas_libraries()[number], threads)
        self._saved = {}


_blas = _SingleThreadedBlas()


@lru_cache(maxsize=1)
def _blas_libraries() -> list[Any]:
    with forks.held_off():
        from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _set_threads(library: Any, count: int) -> None:
    """Set a library's number of threads, whichever thread asks.

    From 3.8 on threadpoolctl lets one Python thread alone change OpenBLAS, until that gives it up.
    """
    give_up = getattr(library, "clear_controlling_thread", None)
    if give_up is not None:
        give_up(force=True)
    library.set_num_threads(count)
    if give_up is not None:
        give_up(force=True)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Limit the BLAS libraries of this process to one thread inside the `with` block."""
    limit = _blas
    limit.acquire()
    try:
        yield
    finally:
        limit.release()


def names() -> list[str]:
    """Return the BLAS libraries loaded in this process, as "name version (architecture)"."""
    return [
        f"{info['internal_api']} {info.get('version') or '?'} ({info.get('architecture', '?')})"
        for info in (library.info() for library in _blas_libraries())
    ]


def after_fork_in_child() -> None:
    """Forget the callers of the parent, which do not exist here, and their limit."""
    global _blas
    _blas.restore()
    _blas = _SingleThreadedBlas()


def pause(undo: ExitStack) -> None:
    """See `_SingleThreadedBlas.pause`."""
    _blas.pause(undo)
