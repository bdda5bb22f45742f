"""One algorithm on its way through the benchmark: first call, check, timing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastconv.bench.bench_calls import Call, Tensors, make_call
from fastconv.bench.measure import Timing
from fastconv.bench.verify import Check, Oracle
from fastconv.convolution.algorithm import Algorithm
from fastconv.core.conv_problem import Conv2dProblem, Direction


@dataclass
class Candidate:
    """An algorithm, what it is to compute, and what is known about it so far.

    Attributes
    ----------
    algorithm, problem, direction, tensors
        What is computed: all of a layer, but by the reference loops a sample of it.
    scale : float
        How many such calls make the whole layer.
    first_seconds : float
        Duration of the first call, with the preparation of the weights and all compilation.
    failure : str or None
        What the algorithm raised. That is its result, not the end of the benchmark.
    """

    algorithm: Algorithm
    problem: Conv2dProblem
    direction: Direction
    tensors: Tensors
    scale: float = 1.0
    call: Call | None = None
    first_seconds: float = 0.0
    check: Check | None = None
    timing: Timing | None = None
    failure: str | None = None

    @property
    def name(self) -> str:
        """The algorithm's name."""
        return self.algorithm.name

    @property
    def correct(self) -> bool:
        """Whether the result was checked and found right."""
        return self.failure is None and self.check is not None and self.check.correct

    @property
    def median(self) -> float | None:
        """Seconds for the whole layer."""
        return self.timing.median * self.scale if self.timing and self.correct else None

    @property
    def compile_seconds(self) -> float | None:
        """How much longer the first call took than a later one."""
        return max(0.0, self.first_seconds - self.timing.median) if self.timing else None

    def first_call(self) -> None:
        """Compile, and compute the result that will be checked."""
        with self._guarded():
            begin = time.perf_counter()
            self.call = make_call(self.problem, self.direction, self.algorithm, self.tensors)
            self.call.run()
            self.first_seconds = time.perf_counter() - begin

    def verify(self, oracle: Oracle) -> None:
        """Have the result checked; after the timing once more, for it may not have changed."""
        if self.failure is not None:
            return
        with self._guarded():
            assert self.call is not None
            if self.scale > 1:
                self.check = oracle.compare_sample(self.call.out)
            else:
                self.check = oracle.check(self.algorithm, self.call.out)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"
