"""One algorithm on its way through the benchmark: first call, check, timing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastconv.bench.bench_calls import Call, make_call
from fastconv.bench.measure import Timing
from fastconv.bench.results import Record
from fastconv.bench.suites import Layer
from fastconv.bench.verify import Check, Oracle, Sample
from fastconv.convolution.algorithm import Algorithm
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.runtime import threads


@dataclass(kw_only=True)
class Measured:
    """What is known so far about one way to compute a layer."""

    first_seconds: float = 0.0  # with the preparation of the weights and all compilation
    check: Check | None = None
    timing: Timing | None = None
    failure: str | None = None  # what was raised: a result, not the end of the benchmark

    @property
    def scale(self) -> float:
        """How many calls make the whole layer."""
        return 1.0

    @property
    def correct(self) -> bool:
        """Whether the result was checked and found right."""
        return self.failure is None and self.check is not None and self.check.correct

    @property
    def median(self) -> float | None:
        """Seconds for the whole layer."""
        return self.timing.median * self.scale if self.timing and self.correct else None

    def record(
        self, layer: Layer, problem: Conv2dProblem, direction: Direction, **more: Any
    ) -> Record:
        """Return what is known, as one record; `more` are the fields that nothing here tells."""
        sizes = {
            name: getattr(problem, name) for name in ("C", "K", "H", "W", "R", "S", "OH", "OW")
        }
        columns = ("stride", "padding", "dilation", "groups", "count")
        median, timing = self.median, self.timing
        if timing is not None and median is not None:
            more |= {
                "median_s": median,
                "spread_s": timing.spread * self.scale,
                "rounds": len(timing.samples),
                "repeats": timing.repeats,
                "gflops": problem.flops / median / 1e9,
                # How much longer the first call took than a later one.
                "compile_s": max(0.0, self.first_seconds - timing.median),
            }
        return Record(
            suite=layer.suite,
            layer=layer.id,
            direction=direction,
            batch=problem.N,
            dtype=problem.dtype,
            threads=threads.get_num_threads(),
            gflop=problem.flops / 1e9,
            correct=self.correct,
            max_rel_error=self.check.error if self.check else None,
            failure=self.failure,
            **sizes,
            **{name: getattr(layer, name) for name in columns},
            **more,
        )


@dataclass(kw_only=True)
class Candidate(Measured):
    """An algorithm and what it is to compute: all of a layer, the reference loops a sample."""

    algorithm: Algorithm
    direction: Direction
    part: Sample
    call: Call | None = None

    @property
    def name(self) -> str:
        """The algorithm's name."""
        return self.algorithm.name

    @property
    def scale(self) -> float:
        """How many calls make the whole layer."""
        return 1 / self.part.share

    def first_call(self) -> None:
        """Compile, and compute the result that will be checked."""
        with self._guarded():
            begin = time.perf_counter()
            self.call = make_call(
                self.part.problem, self.direction, self.algorithm, self.part.tensors
            )
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
