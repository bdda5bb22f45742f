"""What must not be cut in two by a fork: first uses, which import modules and load kernels.

A child has one thread, the one that forked. A module that another thread was importing, or a lock
that it held, stays as it was for ever, and the child waits for it in vain. So a fork waits until
no other thread is inside a first use, and none begins meanwhile. Threads inside do not wait for
one another.
"""

from __future__ import annotations

# Its lock is taken around a fork from its import on, and first uses need it. So a fork must wait
# for first uses before it takes that lock: hooks run in reverse order of their registration.
import logging  # noqa: F401
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

#: Longer than the compilation of any kernel. Two threads that wait for each other, as one holds a
#: lock that the other's first use needs, go on then instead of waiting for ever.
MOST_SECONDS = 60.0


class _Gate:
    """Knows who is inside, and may be closed for those outside.

    All of it may be interrupted anywhere, by Ctrl-C or by a signal handler that comes here itself.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._inside: dict[object, int] = {}  # for each entry, its thread
        self._closed_by: int | None = None

    def enter(self, entry: object) -> None:
        me = threading.get_ident()
        with self._changed:
            if me not in self._inside.values():
                self._wait_while(lambda: self._closed_by not in (None, me))
            self._inside[entry] = me

    def leave(self, entry: object) -> None:
        with self._changed:
            self._inside.pop(entry, None)
            self._changed.notify_all()

    def close(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._wait_while(
                lambda: self._closed_by not in (None, me) or bool({*self._inside.values()} - {me})
            )
            self._closed_by = me

    def open(self) -> None:
        with self._changed:
            self._closed_by = None
            self._changed.notify_all()

    def _wait_while(self, condition: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: not condition(), MOST_SECONDS)


_gate = _Gate()


@contextmanager
def held_off() -> Iterator[None]:
    """Let nobody fork this process while the block runs."""
    gate, entry = _gate, object()
    try:
        gate.enter(entry)
        yield
    finally:
        if gate is _gate:  # a child that was forked in the block has another one
            gate.leave(entry)


_Before = Callable[[ExitStack], None]
_hooks: list[tuple[_Before, Callable[[], None]]] = []
# What each thread that forks has to undo afterwards, in the parent and in the child.
_undo: dict[int, ExitStack] = {}


def at_fork(before: _Before, after_in_child: Callable[[], None]) -> None:
    """Have functions called around each fork, inside the time in which no first use runs.

    `before` may wait for locks that are taken inside first uses: nobody is in one any more. It
    pushes what is to be undone after the fork onto a stack as soon as it is done, since it may be
    interrupted, and the fork goes on nevertheless.
    """
    _hooks.append((before, after_in_child))


def _before() -> None:
    stack = _undo[threading.get_ident()] = ExitStack()
    stack.callback(_gate.open)
    _gate.close()
    for before, _ in _hooks:
        before(stack)


def _after_in_parent() -> None:
    _undo.pop(threading.get_ident()).close()


def _after_in_child() -> None:
    global _gate
    with ExitStack() as stack:  # all of it, also after an error
        for _, after in _hooks:
            stack.callback(after)
        stack.push(_undo.pop(threading.get_ident()))
        _undo.clear()
        _gate = _Gate()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
