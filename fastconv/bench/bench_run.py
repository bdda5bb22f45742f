"""The benchmark itself: every layer, direction and algorithm, checked and then measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fastconv.bench.bench_calls import make_tensors
from fastconv.bench.candidate import Candidate
from fastconv.bench.machine import Peak
from fastconv.bench.measure import interleave
from fastconv.bench.results import LayerResult
from fastconv.bench.suites import Item, Layer
from fastconv.bench.verify import NAIVE, REFERENCE, Oracle, Sample, tolerance
from fastconv.core.conv_problem import Direction
from fastconv.select import choice, conv_registry

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
        Whether the two that all are compared with are timed too, even if not named.
    """

    algorithms: tuple[str, ...] = ()
    batch: int | None = None
    dtype: str = "float32"
    rounds: int = 15
    seconds: float = 0.8
    baselines: bool = True


def run(items: Sequence[Item], options: Options, peak: Peak, tell: Tell) -> Iterator[LayerResult]:
    """Measure one layer and direction after the other, and the peak before each.

    `tell` is called with a few words on what is being done.
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
    oracle = Oracle(problem, direction, tensors, offered)
    sample, whole = oracle.sample, Sample(problem, tensors, 1.0)
    candidates = [
        Candidate(
            algorithm=algorithm,
            direction=direction,
            part=sample if algorithm.name == REFERENCE else whole,
        )
        for algorithm in offered.values()
        if algorithm.name not in refused and algorithm.name in timed
    ]
    for candidate in candidates:
        candidate.first_call()

    tell(f"{name}: checking")
    naive = next((c for c in candidates if c.name == NAIVE and c.failure is None), None)
    oracle.find_truth(naive.call.out if naive and naive.call else None)
    for candidate in candidates:
        candidate.verify(oracle)

    tell(f"{name}: measuring")
    right = {c.name: c for c in candidates if c.correct}
    functions = {n: c.call.run for n, c in right.items() if c.call}
    for each, timing in interleave(functions, options.seconds, options.rounds).items():
        right[each].timing = timing
        right[each].verify(oracle)

    medians = [right[n].median if n in right else None for n in baselines]
    chosen = choice.choose(problem, direction)
    records = []
    for candidate in candidates:
        if candidate.name in shown:
            median = candidate.median
            speedups = [each / median if median and each else None for each in medians]
            record = candidate.record(
                *(layer, problem, direction),
                algorithm=candidate.name,
                workspace_bytes=candidate.algorithm[direction].workspace_bytes(problem),
                chosen_by_auto=candidate.algorithm is chosen,
                tolerance=tolerance(candidate.part.problem, direction),
                speedup_over_reference=speedups[0],
                speedup_over_naive=speedups[1],
                reference_is_estimate=sample.share < 1,
            )
            records.append(record)
    return LayerResult(
        layer, direction, problem, tuple(records), tuple(n for n in shown if n in refused)
    )
