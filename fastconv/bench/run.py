"""The benchmark itself: every layer, direction and algorithm, checked and then measured."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fastconv import plan, registry, threads
from fastconv.algorithms.base import Algorithm
from fastconv.bench.calls import Call, Tensors, make_call, make_tensors
from fastconv.bench.machine import Peak
from fastconv.bench.measure import Timing, interleave
from fastconv.bench.results import LayerResult, Record
from fastconv.bench.suites import Item, Layer
from fastconv.bench.verify import Check, Oracle, sample_for_reference, tolerance
from fastconv.problem import Conv2dProblem, Direction

#: The two algorithms that all others are compared with.
REFERENCE = "reference"
NAIVE = "naive"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is measured and how long.

    Attributes
    ----------
    algorithms : names
        Only these are reported; empty for all.
    batch : int or None
        Images a layer is given; None for what its suite says.
    dtype : str
    rounds, seconds
        See `fastconv.bench.measure.interleave`; `seconds` for one layer in one direction.
    """

    algorithms: tuple[str, ...] = ()
    batch: int | None = None
    dtype: str = "float32"
    rounds: int = 15
    seconds: float = 0.8


def run(items: Sequence[Item], options: Options, peak: Peak, tell: Tell) -> Iterator[LayerResult]:
    """Measure one layer and direction after the other.

    Parameters
    ----------
    items
        What is to be measured.
    options
        How.
    peak
        Measured once more before each layer.
    tell
        Called with a few words on what is being done.

    Yields
    ------
    LayerResult
    """
    for item in items:
        for direction in item.directions:
            peak.measure()
            result = measure_layer(item.layer, direction, options, tell)
            yield with_peak(result, peak.best)


def with_peak(result: LayerResult, peak: float) -> LayerResult:
    """Return the result with the fraction of the peak filled in."""
    records = tuple(
        dataclasses.replace(record, fraction_of_peak=record.gflops / peak)
        if record.gflops
        else record
        for record in result.records
    )
    return dataclasses.replace(result, records=records)


@dataclass
class _Candidate:
    """An algorithm on its way through the benchmark.

    The reference computes a sample only; `scale` tells how many of them make the whole.
    """

    algorithm: Algorithm
    scale: float = 1.0
    call: Call | None = None
    first_seconds: float = 0.0
    check: Check | None = None
    failure: str | None = None
    timing: Timing | None = None

    def attempt(self, step: Callable[[], None]) -> None:
        """Do a step; what an algorithm raises is its result, not the end of the benchmark."""
        if self.failure is None:
            try:
                step()
            except Exception as error:
                self.failure = f"{type(error).__name__}: {error}"

    @property
    def correct(self) -> bool:
        return self.failure is None and self.check is not None and self.check.correct

    @property
    def median(self) -> float | None:
        return self.timing.median * self.scale if self.timing and self.correct else None


def measure_layer(layer: Layer, direction: Direction, options: Options, tell: Tell) -> LayerResult:
    """Check and measure all algorithms on one layer in one direction."""
    problem = layer.problem(options.batch, options.dtype)
    name = f"{layer.id} {direction}"
    tell(f"{name}: first calls")
    tensors = make_tensors(problem, layer)
    offered = registry.offering(direction)
    by_name = {algorithm.name: algorithm for algorithm in offered}
    reference = by_name[REFERENCE]
    sample = sample_for_reference(problem, direction, tensors, reference)

    wanted = {*(options.algorithms or by_name), REFERENCE, NAIVE}
    accepted = [a for a in offered if a.supports(problem, direction) is None]
    candidates = {a.name: _Candidate(a) for a in accepted if a.name in wanted}
    candidates[REFERENCE].scale = 1 / sample.share
    for each in candidates.values():
        part = sample if each.algorithm is reference else None
        where, data = (part.problem, part.tensors) if part else (problem, tensors)
        each.attempt(lambda each=each, where=where, data=data: _first(each, where, direction, data))

    tell(f"{name}: checking")
    oracle = Oracle(problem, direction, tensors, sample, reference, by_name[NAIVE])
    for each in candidates.values():
        each.attempt(lambda each=each: _check(each, oracle))

    tell(f"{name}: measuring")
    runs = {n: c.call.run for n, c in candidates.items() if c.correct and c.call}
    for n, timing in interleave(runs, options.seconds, options.rounds).items():
        candidates[n].timing = timing
        candidates[n].attempt(lambda n=n: _check_again(candidates[n], oracle))

    shown = options.algorithms or tuple(by_name)
    return LayerResult(
        layer,
        direction,
        problem,
        tuple(
            _record(layer, direction, problem, each, candidates, sample.share < 1)
            for each in candidates.values()
            if each.algorithm.name in shown
        ),
        tuple(a.name for a in offered if a not in accepted and a.name in shown),
    )
