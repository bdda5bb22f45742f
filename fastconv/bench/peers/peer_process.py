"""The process that a runtime lives in, from both ends of its pipes.

Every runtime keeps its threads waiting for more work, most of them by spinning, and so slows
whatever runs next by up to two times. Therefore each has a process of its own, which is
*stopped*, all its threads with it, except while it has something to do: `Worker.ask` lets it
go on, asks, waits for the answer and stops it again.

A runtime that raises, dies or hangs has failed, which is its result: `RuntimeFailure`.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple

import numpy as np

from fastconv.bench.measure import LONG_CALL, find_repeats, time_block
from fastconv.bench.peers.peer_base import Ready, Runtime
from fastconv.core.arguments import Array
from fastconv.core.conv_problem import Conv2dProblem, Direction

#: A block of calls lasts at least this long: longer than elsewhere, for the caches and the
#: threads of a process that was stopped need a moment.
BLOCK_SECONDS = 8e-3
#: Who takes longer to answer than this never will.
PATIENCE_SECONDS = 120.0
#: Without a way to stop a process, so long its threads get to fall asleep by themselves.
_FALL_ASLEEP_SECONDS = 0.25
_LAST_BREATH_SECONDS = 5.0
_CAN_STOP = hasattr(signal, "SIGSTOP")
#: Arrays start where a cache line does, which is what libraries do with their own memory.
_CACHE_LINE = 64


class RuntimeFailure(Exception):
    """A runtime raised, died or did not answer; the message says what happened."""


class First(NamedTuple):
    """What the first call gave."""

    output: Array
    seconds: float
    algorithm: str


class Block(NamedTuple):
    """One timed block: seconds a call, and how many calls it had."""

    seconds: float
    repeats: int


# Inside the process ----------------------------------------------------------------------


class Service:
    """What a worker answers: each method is a question."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ready: Ready | None = None
        self._repeats: int | None = None
        self._expected = math.inf
        self._last: Any = None

    def start(self, threads: int) -> None:
        """Import the library."""
        self._runtime.start(threads)

    def prepare(
        self,
        problem: Conv2dProblem,
        first: Array,
        second: Array,
        direction: Direction = "forward",
    ) -> First:
        """Make a convolution or a gradient of its two arrays ready, and call it once."""
        self._ready = self._last = self._repeats = None  # the last layer's memory
        first, second = _aligned(first), _aligned(second)
        begin = time.perf_counter()
        if direction == "forward":
            self._ready = self._runtime.prepare(problem, first, second)
        else:
            self._ready = self._runtime.prepare_gradient(problem, direction, first, second)
        self._last = self._ready.run()
        seconds = time.perf_counter() - begin
        return First(self.output(), seconds, self._ready.algorithm)

    def block(self) -> Block:
        """Time a block of calls, after two that are not timed."""
        assert self._ready is not None
        run = self._ready.run
        if self._repeats is None:
            self._repeats, self._expected = find_repeats(run, BLOCK_SECONDS)
        for _ in range(2 if self._expected < LONG_CALL else 1):
            self._last = run()
        return Block(time_block(run, self._repeats), self._repeats)

    def output(self) -> Array:
        """Return the result of the last call whose result was kept."""
        return np.ascontiguousarray(np.asarray(self._last))


def _aligned(array: Array) -> Array:
    """Return a read-write copy that starts at a cache line."""
    memory = np.empty(array.nbytes + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def serve() -> None:
    """Answer the questions that arrive at the standard input, until it is closed."""
    questions = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # whatever a library prints is no answer
        service = Service(pickle.load(questions))
        with suppress(EOFError, BrokenPipeError):
            while True:
                question, arguments = pickle.load(questions)
                try:
                    answer = getattr(service, question)(*arguments)
                except Exception as error:
                    answer = RuntimeFailure(f"{type(error).__name__}: {error}")
                _send(answers, answer)


def _send(pipe: IO[bytes], message: Any) -> None:
    pickle.dump(message, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


# Outside ---------------------------------------------------------------------------------


class Worker:
    """A runtime in a process of its own, which runs only while it answers."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        # The same modules as here, wherever these were found.
        path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            # A group of its own, which Ctrl-C does not reach. And should the benchmark itself be
            # killed, the system wakes and ends the stopped processes of an orphaned group.
            process_group=0 if _CAN_STOP else None,
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout
        with suppress(BrokenPipeError):  # the first question will find out
            _send(self._questions, runtime)

    @property
    def alive(self) -> bool:
        """Whether the process can answer."""
        return self._process.poll() is None

    def ask(self, question: str, *arguments: Any) -> Any:
        """Return the answer of a method of `Service`, or raise `RuntimeFailure`.

        The process has ended then, unless the method raised.
        """
        late = threading.Timer(PATIENCE_SECONDS, self._signal, ("SIGKILL",))
        late.daemon = True
        late.start()
        begin = time.monotonic()
        try:
            with self._running():
                _send(self._questions, (question, arguments))
                answer = pickle.load(self._answers)
        except (EOFError, OSError, pickle.UnpicklingError):
            overdue = time.monotonic() - begin > PATIENCE_SECONDS
            with suppress(subprocess.TimeoutExpired):  # the pipe closes a little before the end
                self._process.wait(_LAST_BREATH_SECONDS)
            self.kill()
            reason = f"no answer within {PATIENCE_SECONDS:.0f} s" if overdue else self._cause()
            raise RuntimeFailure(reason) from None
        finally:
            late.cancel()
        if isinstance(answer, RuntimeFailure):
            raise answer
        return answer

    def kill(self) -> None:
        """End the process, whatever state it is in. A second time changes nothing."""
        if self._answers.closed:
            return
        self._signal("SIGKILL")  # reaches a stopped process too
        self._process.wait()
        for pipe in (self._questions, self._answers):
            with suppress(OSError):  # an unsent question
                pipe.close()

    def _cause(self) -> str:
        """Return what the process died of."""
        code = self._process.returncode
        name = f"exit code {code}"
        if code is not None and code < 0:
            with suppress(ValueError):
                name = signal.Signals(-code).name
        return f"its process died: {name}"

    # Stopping ----------------------------------------------------------------------------

    @contextmanager
    def _running(self) -> Iterator[None]:
        if not _CAN_STOP:
            time.sleep(_FALL_ASLEEP_SECONDS)
        self._signal("SIGCONT")
        try:
            yield
        finally:
            self._signal("SIGSTOP")
            self._wait_until_stopped()

    def _signal(self, name: str) -> None:
        """Send a signal to the process and to all that it has started."""
        if _CAN_STOP:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, getattr(signal, name))
        elif name == "SIGKILL":
            self._process.kill()

    def _wait_until_stopped(self) -> None:
        if _CAN_STOP and hasattr(os, "waitid"):
            # WNOWAIT: should it have died instead, others still want to learn of it.
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
