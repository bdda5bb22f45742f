"""Measuring what `auto` should run, with the benchmark's own checks and clocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fastconv.bench.bench_run import Options, Tell, measure_layer
from fastconv.bench.machine import Peak
from fastconv.bench.results import LayerResult, Record
from fastconv.bench.suites import Item, Layer
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.core.precision import get_precision
from fastconv.runtime import threads
from fastconv.select import choice
from fastconv.select.tuning import Measurement

#: An algorithm whose estimate is more than so many times the cheapest one is not tried: the
#: estimates are rough, but not as rough as that, and slow algorithms take most of the time.
HOPELESS = 20.0


@dataclass(frozen=True)
class Finding:
    """What was measured of one layer in one direction, beside what the estimates say."""

    layer: Layer
    direction: Direction
    problem: Conv2dProblem
    estimated: str  # the algorithm of the cheapest estimate
    fastest: str | None  # of those measured that the precision allows; None if all were wrong
    chosen: str  # what `auto` will run: `estimated`, unless `fastest` is clearly faster
    seconds: Mapping[str, float]  # of every algorithm whose result was right
    wrong: tuple[Record, ...]  # the others

    @property
    def gain(self) -> float | None:
        """How many times as fast as that of the cheapest estimate the fastest is, if both ran."""
        if self.fastest is None or self.estimated not in self.seconds:
            return None
        return self.seconds[self.estimated] / self.seconds[self.fastest]

    @property
    def measurement(self) -> Measurement:
        """What is kept of it."""
        count = threads.get_num_threads()
        return Measurement(self.problem, self.direction, count, self.seconds)


def tune(items: Sequence[Item], options: Options, peak: Peak, tell: Tell) -> Iterator[Finding]:
    """Measure every problem once, in each of its directions; see `fastconv.bench.bench_run.run`."""
    done = set()
    for item in items:
        problem = item.layer.problem(options.batch, options.dtype)
        for direction in item.directions:
            if (problem, direction) not in done:
                done.add((problem, direction))
                peak.measure()
                yield find(item.layer, direction, options, tell)


def find(layer: Layer, direction: Direction, options: Options, tell: Tell) -> Finding:
    """Measure the algorithms worth trying on one layer in one direction."""
    problem = layer.problem(options.batch, options.dtype)
    names = worth_trying(problem, direction)
    only = dataclasses.replace(options, algorithms=names, baselines=False)
    return judged(measure_layer(layer, direction, only, tell))


def worth_trying(problem: Conv2dProblem, direction: Direction) -> tuple[str, ...]:
    """Return the algorithms that may be the fastest, at whatever precision."""
    ranked = choice.permitted(problem, direction, "high")
    limit = HOPELESS * ranked[0].estimated_seconds
    return tuple(c.algorithm.name for c in ranked if c.estimated_seconds <= limit)


def judged(result: LayerResult) -> Finding:
    """Return what a layer's records mean for the choice."""
    seconds = {r.algorithm: r.median_s for r in result.records if r.median_s}
    ranked = choice.permitted(result.problem, result.direction, get_precision())
    allowed = [c.algorithm.name for c in ranked if c.algorithm.name in seconds]
    return Finding(
        layer=result.layer,
        direction=result.direction,
        problem=result.problem,
        estimated=ranked[0].algorithm.name,
        fastest=min(allowed, key=lambda name: seconds[name], default=None),
        chosen=(choice.fastest(ranked, seconds) or ranked[0]).algorithm.name,
        seconds=seconds,
        wrong=tuple(record for record in result.records if not record.correct),
    )
