"""The comparison itself: on every layer all runtimes are checked, then timed in turns."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastconv.bench.bench_calls import make_tensors
from fastconv.bench.bench_run import Options, Tell, with_peak
from fastconv.bench.candidate import Measured
from fastconv.bench.machine import Peak
from fastconv.bench.measure import Timing
from fastconv.bench.peers.peer_base import Runtime
from fastconv.bench.peers.peer_process import Block, First, RuntimeFailure, Worker
from fastconv.bench.peers.peer_runtimes import Fastconv
from fastconv.bench.results import LayerResult, Record
from fastconv.bench.suites import Item, Layer
from fastconv.bench.verify import Check, Oracle, tolerance
from fastconv.convolution.algorithm import Algorithm
from fastconv.core.arguments import Array
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.select import choice, conv_registry

#: So long this process's own threads, which have just checked results, get to fall asleep.
_FALL_ASLEEP_SECONDS = 0.1
#: A peer's error, over the largest output, that no method explains. Large Winograd tiles leave up
#: to 3e-3; one product missing from a sum of a few hundred changes it by 1e-2.
MISTAKE = 5e-3


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

    def __exit__(self, *error: object) -> None:
        for worker in self._workers.values():
            worker.kill()

    @property
    def pids(self) -> dict[str, int]:
        """The numbers of the processes that are there, by the names of their runtimes."""
        return {name: worker.pid for name, worker in self._workers.items() if worker.alive}

    def ask(self, runtime: Runtime, question: str, *arguments: Any) -> Any:
        """Ask the runtime's worker; one that died before gets a successor. See `Worker.ask`."""
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


@dataclass(kw_only=True)
class Entry(Measured):
    """A runtime on one layer."""

    runtime: Runtime
    first: First | None = None
    blocks: list[Block] = field(default_factory=list)


def run(
    items: Sequence[Item], crew: Crew, options: Options, peak: Peak, tell: Tell
) -> Iterator[LayerResult]:
    """Let a crew compute one layer after the other; see `fastconv.bench.bench_run.run`."""
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
    entries = [Entry(runtime=each) for each in crew.runtimes if each.name not in refused]
    tensors = make_tensors(problem, layer)
    arrays = {
        "forward": (tensors.x, tensors.weight),
        "input_grad": (tensors.weight, tensors.grad_output),
        "weight_grad": (tensors.x, tensors.grad_output),
    }[direction]
    for entry in entries:
        tell(f"{layer.id}: first call of {entry.runtime.name}")
        entry.first = _ask(crew, entry, "prepare", problem, *arrays, direction)

    tell(f"{layer.id}: checking")
    oracle = Oracle(problem, direction, tensors, _known(direction))
    oracle.find_truth()
    for entry in entries:
        if entry.first is not None:
            entry.first_seconds = entry.first.seconds
            entry.check = _check(oracle, entry, problem, direction, entry.first.output)

    tell(f"{layer.id}: measuring")
    time.sleep(_FALL_ASLEEP_SECONDS)
    take_turns(entries, crew, options.rounds)
    for entry in entries:
        if entry.correct and (output := _ask(crew, entry, "output")) is not None:
            entry.check = _check(oracle, entry, problem, direction, output)
            seconds = tuple(block.seconds for block in entry.blocks)
            entry.timing = Timing(seconds, entry.blocks[0].repeats)
    records = tuple(_records(layer, problem, direction, entries))
    return LayerResult(layer, direction, problem, records, tuple(refused))


def take_turns(entries: Sequence[Entry], crew: Crew, rounds: int) -> None:
    """Time one block of every entry in each round, each round in a new order."""
    shuffle = random.Random(0).shuffle
    order = list(entries)
    for _ in range(rounds):
        shuffle(order)
        for entry in order:
            if entry.correct and (block := _ask(crew, entry, "block")) is not None:
                entry.blocks.append(block)


def _ask(crew: Crew, entry: Entry, question: str, *arguments: Any) -> Any:
    """Return the answer; None after a failure, which is noted."""
    try:
        return crew.ask(entry.runtime, question, *arguments)
    except RuntimeFailure as failure:
        entry.failure = str(failure)
        return None


def _known(direction: Direction) -> dict[str, Algorithm]:
    return {each.name: each for each in conv_registry.offering(direction)}


def _refuses(runtime: Runtime, problem: Conv2dProblem, direction: Direction) -> bool:
    if not isinstance(runtime, Fastconv) or runtime.algorithm == "auto":
        return False
    return _known(direction)[runtime.algorithm][direction].refusal(problem) is not None


def _allowed(entry: Entry, problem: Conv2dProblem, direction: Direction) -> float:
    """Return the largest error that is no mistake: fastconv is held to what rounding explains."""
    explained = tolerance(problem, direction)
    return explained if isinstance(entry.runtime, Fastconv) else max(explained, MISTAKE)


def _check(
    oracle: Oracle, entry: Entry, problem: Conv2dProblem, direction: Direction, output: Array
) -> Check:
    shape = problem.result_shape(direction)
    if output.shape != shape or output.dtype != np.dtype(problem.dtype):
        return Check(math.nan, False)
    error = oracle.compare(output).error
    return Check(error, error <= _allowed(entry, problem, direction))  # False for NaN


def _records(
    layer: Layer, problem: Conv2dProblem, direction: Direction, entries: Sequence[Entry]
) -> Iterator[Record]:
    known, chosen = _known(direction), choice.choose(problem, direction)
    medians = [e.median for e in entries if isinstance(e.runtime, Fastconv) and e.median]
    for entry in entries:
        name = (entry.first and entry.first.algorithm) or entry.runtime.name
        algorithm = known.get(name)  # None of a peer: its scratch memory is unknown
        yield entry.record(
            *(layer, problem, direction),
            algorithm=name,
            contender=entry.runtime.name,
            workspace_bytes=algorithm and algorithm[direction].workspace_bytes(problem),
            chosen_by_auto=algorithm is chosen,
            tolerance=_allowed(entry, problem, direction),
            time_over_fastconv=entry.median / medians[0] if entry.median and medians else None,
        )
