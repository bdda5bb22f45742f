"""The benchmark itself: every layer, direction and algorithm, checked and then measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fastconv.bench.bench_calls import make_tensors
from fastconv.bench.candidate import Candidate
from fastconv.bench.machine import Peak
from fastconv.bench.measure import interleave
from fastconv.bench.results import LayerResult, Record
from fastconv.bench.suites import Item, Layer
from fastconv.bench.verify import Oracle, sample_for_reference, tolerance
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.runtime import threads
from fastconv.select import conv_registry, plan

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
    baselines : bool
        Whether the two that all are compared with are timed too, asked for or not.
    """

    algorithms: tuple[str, ...] = ()
    batch: int | None = None
    dtype: str = "float32"
    rounds: int = 15
    seconds: float = 0.8
    baselines: bool = True


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
        dataclasses.replace(record, fraction_of_peak=record.gflops and record.gflops / peak)
        for record in result.records
    )
    return dataclasses.replace(result, records=records)


def measure_layer(layer: Layer, direction: Direction, options: Options, tell: Tell) -> LayerResult:
    """Check and measure all algorithms on one layer in one direction."""
    problem = layer.problem(options.batch, options.dtype)
    name = f"{layer.id} {direction}"
    tell(f"{name}: first calls")
    tensors = make_tensors(problem, layer)
    offered = {algorithm.name: algorithm for algorithm in conv_registry.offering(direction)}
    refused = {n for n, a in offered.items() if a[direction].refusal(problem) is not None}
    shown = options.algorithms or tuple(offered)
    baselines = (REFERENCE, NAIVE)
    timed = {*shown, *(baselines if options.baselines else ())}
    reference, naive = offered[REFERENCE], offered[NAIVE]
    sample = sample_for_reference(problem, direction, tensors, reference)
    candidates = [
        Candidate(reference, sample.problem, direction, sample.tensors, 1 / sample.share)
        if algorithm is reference
        else Candidate(algorithm, problem, direction, tensors)
        for algorithm in offered.values()
        if algorithm.name not in refused and algorithm.name in timed
    ]
    for candidate in candidates:
        candidate.first_call()

    tell(f"{name}: checking")
    oracle = Oracle(problem, direction, tensors, sample, reference, naive)
    for candidate in candidates:
        candidate.verify(oracle)

    tell(f"{name}: measuring")
    right = {c.name: c for c in candidates if c.correct}
    functions = {n: c.call.run for n, c in right.items() if c.call}
    for each, timing in interleave(functions, options.seconds, options.rounds).items():
        right[each].timing = timing
        right[each].verify(oracle)

    medians = [right[n].median if n in right else None for n in baselines]
    chosen = plan.choose(problem, direction)
    records = [
        _record(layer, candidate, problem, candidate.algorithm is chosen, medians)
        for candidate in candidates
        if candidate.name in shown
    ]
    if sample.share < 1:
        records = [dataclasses.replace(r, reference_is_estimate=True) for r in records]
    return LayerResult(
        layer, direction, problem, tuple(records), tuple(n for n in shown if n in refused)
    )


def _record(
    layer: Layer,
    candidate: Candidate,
    problem: Conv2dProblem,
    chosen_by_auto: bool,
    baselines: Sequence[float | None],
) -> Record:
    median, timing, check = candidate.median, candidate.timing, candidate.check
    speedups = [baseline / median if median and baseline else None for baseline in baselines]
    return Record(
        suite=layer.suite,
        layer=layer.id,
        direction=candidate.direction,
        algorithm=candidate.name,
        batch=problem.N,
        dtype=problem.dtype,
        threads=threads.get_num_threads(),
        **{name: getattr(problem, name) for name in ("C", "K", "H", "W", "R", "S", "OH", "OW")},
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
        count=layer.count,
        gflop=problem.flops / 1e9,
        workspace_bytes=candidate.algorithm[candidate.direction].workspace_bytes(problem),
        chosen_by_auto=chosen_by_auto,
        correct=candidate.correct,
        max_rel_error=check.error if check else None,
        tolerance=tolerance(candidate.problem, candidate.direction),
        failure=candidate.failure,
        median_s=median,
        spread_s=timing.spread * candidate.scale if timing and median else None,
        rounds=len(timing.samples) if timing else 0,
        repeats=timing.repeats if timing else 0,
        gflops=problem.flops / median / 1e9 if median else None,
        speedup_over_reference=speedups[0],
        speedup_over_naive=speedups[1],
        compile_s=candidate.compile_seconds,
    )
