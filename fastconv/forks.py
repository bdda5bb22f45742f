"""What must not be cut in two by a fork: first uses, which import modules and load kernels.

A child has one thread, the one that forked. A module that another thread was importing, or a
lock that it held, stays as it was for ever, and the child waits for it in vain. So who forks waits
until no other thread is inside a first use, and none begins meanwhile. Threads inside do not wait
for one another.
"""

from __future__ import annotations

# Their own locks are taken around a fork from their import on. First uses need these locks: so
# theirs must be taken after a fork has waited for first uses, and hooks run in reverse order.
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Longer than the compilation of any kernel. Two threads that wait for each other, as one holds a
# lock that the other's first use needs, go on then instead of waiting for ever.
_MOST_SECONDS = 60.0


class _Gate:
    """Counts the threads inside, and may be closed for those outside."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may convolve while its thread is in here.
        self._changed = threading.Condition(threading.RLock())
        self._inside: Counter[int] = Counter()
        self._closed_by: int | None = None

    def enter(self) -> None:
        me = threading.get_ident()
        with self._changed:
            if not self._inside[me]:
                self._wait_while(lambda: self._closed_by not in (None, me))
            self._inside[me] += 1

    def leave(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
            self._changed.notify_all()

    def close(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._wait_while(
                lambda: self._closed_by not in (None, me) or bool(self._inside.keys() - {me})
            )
            self._closed_by = me

    def open(self) -> None:
        with self._changed:
            self._closed_by = None
            self._changed.notify_all()

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: not condition(), _MOST_SECONDS)


_gate = _Gate()


@contextmanager
def held_off() -> Iterator[None]:
    """Let nobody fork this process while the block runs."""
    gate = _gate  # a child's block ends where it began
    gate.enter()
    try:
        yield
    finally:
        gate.leave()


_Hook = Callable[[], None]
_hooks: list[tuple[_Hook, _Hook, _Hook]] = []


def at_fork(before: _Hook, after_in_parent: _Hook, after_in_child: _Hook) -> None:
    """Have functions called around each fork, inside the time in which no first use runs.

    `before` may wait for locks that are taken inside first uses: nobody is in one any more.
    """
    _hooks.append((before, after_in_parent, after_in_child))


def _before() -> None:
    _gate.close()
    for before, _, _ in _hooks:
        before()


def _after_in_parent() -> None:
    for _, after, _ in reversed(_hooks):
        after()
    _gate.open()


def _after_in_child() -> None:
    global _gate
    for _, _, after in reversed(_hooks):
        after()
    _gate = _Gate()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
