"""Runtimes that go wrong, each in its own way, and some that do not."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from fastconv.bench.peers.peer_base import Ready
from fastconv.bench.peers.peer_runtimes import Numpy


class Right(Numpy):
    """As good as NumPy."""

    name = "right"


class Wrong(Numpy):
    """Makes everything a little too large."""

    name = "wrong"

    def prepare(self, problem: Any, x: Any, weight: Any) -> Ready:
        """Enlarge the weights."""
        return super().prepare(problem, x, 1.01 * weight)


class Inexact(Numpy):
    """Makes an error as of large Winograd tiles."""

    name = "inexact"

    def prepare(self, problem: Any, x: Any, weight: Any) -> Ready:
        """Enlarge the weights a little."""
        return super().prepare(problem, x, 1.001 * weight)


class WrongShape(Numpy):
    """Forgets a dimension."""

    name = "wrong_shape"

    def prepare(self, problem: Any, x: Any, weight: Any) -> Ready:
        """Return the first image only."""
        run = super().prepare(problem, x, weight).run
        return Ready(lambda: run()[0])


class WrongLater(Numpy):
    """Is right once."""

    name = "wrong_later"

    def prepare(self, problem: Any, x: Any, weight: Any) -> Ready:
        """Enlarge all results but the first."""
        run, calls = super().prepare(problem, x, weight).run, iter(range(10**9))
        return Ready(lambda: run() * (1 if next(calls) == 0 else 2))


class Raising(Numpy):
    """Does not get that far."""

    name = "raising"

    def prepare(self, problem: Any, x: Any, weight: Any) -> Ready:
        """Fail."""
        raise ZeroDivisionError("no luck")


class Unstartable(Numpy):
    """A library that is broken."""

    name = "unstartable"

    def start(self, threads: int) -> None:
        """Fail."""
        raise ImportError("half of it is missing")


class Exiting(Numpy):
    """Ends its process in the middle of the rounds."""

    name = "exiting"

    def prepare(self, problem: Any, x: Any, weight: Any) -> Ready:
        """Count calls."""
        run, end = super().prepare(problem, x, weight).run, time.monotonic() + 0.03

        def last() -> Any:
            if time.monotonic() > end:
                os._exit(7)
            return run()

        return Ready(last)


class Killed(Numpy):
    """Dies as from a fault in machine code."""

    name = "killed"

    def prepare(self, problem: Any, x: Any, weight: Any) -> Ready:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Hanging(Numpy):
    """Never answers, and has a child that holds its pipes open."""

    name = "hanging"

    def prepare(self, problem: Any, x: Any, weight: Any) -> Ready:
        """Wait for ever."""
        os.fork()
        while True:
            time.sleep(1)


class Chatty(Numpy):
    """Prints where the answers go."""

    name = "chatty"

    def prepare(self, problem: Any, x: Any, weight: Any) -> Ready:
        """Print by Python and by the system."""
        print("hello")
        os.write(1, b"hello")
        return super().prepare(problem, x, weight)


class Absent(Numpy):
    """A library that is not installed."""

    name = "absent"
    packages = ("numpy", "no_such_package_anywhere")
