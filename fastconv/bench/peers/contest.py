"""The contest itself: on every layer all runtimes are checked, then timed in turns."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.bench.bench_calls import Tensors, make_tensors
from fastconv.bench.bench_run import NAIVE, REFERENCE, Options, with_peak
from fastconv.bench.machine import Peak
from fastconv.bench.measure import Timing
from fastconv.bench.peers.peer_process import Block, First, RuntimeFailure, Worker
from fastconv.bench.peers.peer_runtimes import Fastconv, Runtime
from fastconv.bench.results import LayerResult, Record
from fastconv.bench.suites import Item, Layer
from fastconv.bench.verify import Check, Oracle, sample_for_reference, tolerance
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.runtime import threads
from fastconv.select import conv_registry, plan

Array = NDArray[Any]
Tell = Callable[[str], None]

#: So long this process's own threads, which have just checked results, get to fall asleep.
_FALL_ASLEEP_SECONDS = 0.1


class Crew:
    """One worker for each runtime; at most one of them runs at any time.

    A context manager: at its end no worker is left, whatever happened.
    """

    def __init__(self, runtimes: Sequence[Runtime], num_threads: int) -> None:
        self.runtimes = tuple(runtimes)
        self._threads = num_threads
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers.values():
            worker.kill()

    @property
    def pids(self) -> dict[str, int]:
        """The numbers of the processes that are there, by the names of their runtimes."""
        return {name: worker.pid for name, worker in self._workers.items() if worker.alive}

    def ask(self, runtime: Runtime, question: str, *arguments: Any) -> Any:
        """Ask the runtime's worker; one that died before gets a successor.

        Raises
        ------
        RuntimeFailure
            If there is no answer.
        """
        worker = self._workers.get(runtime.name)
        if worker is None or not worker.alive:
            if worker is not None:
                worker.kill()  # its pipes are still open
            worker = self._workers[runtime.name] = Worker(runtime)
            try:
                worker.ask("start", self._threads)
            except RuntimeFailure:
                worker.kill()  # half a start is none
                raise
        return worker.ask(question, *arguments)


@dataclass
class Entry:
    """A runtime on one layer, and what is known about it so far.

    Attributes
    ----------
    failure : str or None
        What it raised or died of. That is its result, not the end of the contest.
    """

    runtime: Runtime
    first: First | None = None
    check: Check | None = None
    blocks: list[Block] = field(default_factory=list)
    failure: str | None = None

    @property
    def right(self) -> bool:
        """Whether it has not failed and was not found wrong."""
        return self.failure is None and (self.check is None or self.check.correct)

    @property
    def timing(self) -> Timing | None:
        """The times, if they count."""
        if not self.blocks or not self.right:
            return None
        return Timing(tuple(block.seconds for block in self.blocks), self.blocks[0].repeats)


def run(
    items: Sequence[Item], crew: Crew, options: Options, peak: Peak, tell: Tell
) -> Iterator[LayerResult]:
    """Let all of a crew compute one layer after the other; see `fastconv.bench.bench_run.run`."""
    for item in items:
        peak.measure()
        for direction in item.directions:
            result = measure_layer(item.layer, crew, options, tell, direction)
            yield with_peak(result, peak.best)


def measure_layer(
    layer: Layer, crew: Crew, options: Options, tell: Tell, direction: Direction = "forward"
) -> LayerResult:
    """Check and time all runtimes on one layer; all of them know the direction."""
    problem = layer.problem(options.batch, options.dtype)
    refused = [each.name for each in crew.runtimes if _refuses(each, problem, direction)]
    entries = [Entry(each) for each in crew.runtimes if each.name not in refused]
    tensors = make_tensors(problem, layer)
    first, second = {
        "forward": (tensors.x, tensors.weight),
        "input_grad": (tensors.weight, tensors.grad_output),
        "weight_grad": (tensors.x, tensors.grad_output),
    }[direction]
    for entry in entries:
        tell(f"{layer.id}: first call of {entry.runtime.name}")
        entry.first = _ask(crew, entry, "prepare", problem, first, second, direction)

    tell(f"{layer.id}: checking")
    oracle = _oracle(problem, direction, tensors)
    for entry in entries:
        if entry.first is not None:
            entry.check = _check(oracle, problem, direction, entry.first.output)

    tell(f"{layer.id}: measuring")
    time.sleep(_FALL_ASLEEP_SECONDS)
    take_turns(entries, crew, options.rounds)
    for entry in entries:
        if entry.right and (output := _ask(crew, entry, "output")) is not None:
            entry.check = _check(oracle, problem, direction, output)
    records = tuple(_records(layer, problem, direction, entries))
    return LayerResult(layer, direction, problem, records, tuple(refused))


def take_turns(entries: Sequence[Entry], crew: Crew, rounds: int) -> None:
    """Time one block of every entry in each round, each round in a new order."""
    shuffle = random.Random(0).shuffle
    order = list(entries)
    for _ in range(rounds):
        shuffle(order)
        for entry in order:
            if entry.right and (block := _ask(crew, entry, "block")) is not None:
                entry.blocks.append(block)


def _ask(crew: Crew, entry: Entry, question: str, *arguments: Any) -> Any:
    """Return the answer; None after a failure, which is noted."""
    try:
        return crew.ask(entry.runtime, question, *arguments)
    except RuntimeFailure as failure:
        entry.failure = str(failure)
        return None


def _refuses(runtime: Runtime, problem: Conv2dProblem, direction: Direction) -> bool:
    if not isinstance(runtime, Fastconv) or runtime.algorithm == "auto":
        return False
    known = {each.name: each for each in conv_registry.offering(direction)}
    return known[runtime.algorithm][direction].refusal(problem) is not None


def _oracle(problem: Conv2dProblem, direction: Direction, tensors: Tensors) -> Oracle:
    known = {each.name: each for each in conv_registry.offering(direction)}
    reference, naive = known[REFERENCE], known[NAIVE]
    sample = sample_for_reference(problem, direction, tensors, reference)
    return Oracle(problem, direction, tensors, sample, reference, naive)


def _check(oracle: Oracle, problem: Conv2dProblem, direction: Direction, output: Array) -> Check:
    shape = problem.result_shape(direction)
    if output.shape != shape or output.dtype != np.dtype(problem.dtype):
        return Check(math.nan, False)
    return oracle.compare(output)


# Records ---------------------------------------------------------------------------------


def _records(
    layer: Layer, problem: Conv2dProblem, direction: Direction, entries: Sequence[Entry]
) -> Iterator[Record]:
    own = [e.timing.median for e in entries if isinstance(e.runtime, Fastconv) and e.timing]
    for entry in entries:
        record = _record(layer, problem, direction, entry)
        if own and record.median_s:
            record = dataclasses.replace(record, time_over_fastconv=record.median_s / own[0])
        yield record


def _record(layer: Layer, problem: Conv2dProblem, direction: Direction, entry: Entry) -> Record:
    timing, check, first = entry.timing, entry.check, entry.first
    algorithm = (first and first.algorithm) or entry.runtime.name
    # A peer has no entry there: its scratch memory is unknown.
    chosen = {each.name: each for each in conv_registry.offering(direction)}.get(algorithm)
    median = timing.median if timing else None
    return Record(
        suite=layer.suite,
        layer=layer.id,
        direction=direction,
        algorithm=algorithm,
        batch=problem.N,
        dtype=problem.dtype,
        threads=threads.get_num_threads(),
        **{name: getattr(problem, name) for name in ("C", "K", "H", "W", "R", "S", "OH", "OW")},
        stride=layer.stride,
        padding=layer.padding,
        groups=layer.groups,
        count=layer.count,
        gflop=problem.flops / 1e9,
        workspace_bytes=chosen[direction].workspace_bytes(problem) if chosen else None,
        chosen_by_auto=chosen is plan.choose(problem, direction),
        correct=entry.failure is None and check is not None and check.correct,
        max_rel_error=check.error if check else None,
        tolerance=tolerance(problem, direction),
        failure=entry.failure,
        median_s=median,
        spread_s=timing.spread if timing else None,
        rounds=len(timing.samples) if timing else 0,
        repeats=timing.repeats if timing else 0,
        gflops=problem.flops / median / 1e9 if median else None,
        compile_s=max(0.0, first.seconds - median) if first and median else None,
        contender=entry.runtime.name,
    )
