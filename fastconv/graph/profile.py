"""How long each step of a network takes, timed inside the running network.

A step alone, in a loop, would find its input in the cache and its weights too. So whole networks
run, and a clock is read between the steps. Runs without clocks alternate with those: their time is
what a caller sees, and the difference is what the clocks cost.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastconv.graph.compiled import BoundNode, CompiledNetwork, Slots
from fastconv.graph.ir import Array
from fastconv.graph.step_description import StepDescription, describe

#: Calls before the first that is timed.
_WARMUP = 2
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 200


@dataclass(frozen=True)
class StepProfile:
    """A step and the median of its times in seconds."""

    step: StepDescription
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Times of a network, medians of several runs.

    Attributes
    ----------
    steps : tuple of StepProfile
    seconds : float
        Of the whole network, run without clocks between the steps.
    rounds : int
        How often each was run.
    """

    steps: tuple[StepProfile, ...]
    seconds: float
    rounds: int

    @property
    def steps_seconds(self) -> float:
        """The sum over the steps."""
        return sum(step.seconds for step in self.steps)


def profile(compiled: CompiledNetwork, inputs: Sequence[Array], *, seconds: float = 2.0) -> Profile:
    """Time a compiled network and each of its steps.

    Parameters
    ----------
    compiled : CompiledNetwork
        As `Network.compiled_for` returns it.
    inputs : sequence of ndarray
        Of its shapes and types, contiguous.
    seconds : float
        About how long to measure; a slow network is still run three times.

    Returns
    -------
    Profile

    Raises
    ------
    ValueError
        If a step refuses its input.

    Examples
    --------
    >>> from fastconv.graph.ir import Graph, Value
    >>> from fastconv.graph.network import Network
    >>> graph = Graph([Value("x", np.dtype("float32"))])
    >>> graph.outputs = [graph.add("Exp", graph.inputs).output]
    >>> x = np.ones((2, 3), np.float32)
    >>> found = profile(Network(graph).compiled_for((2, 3)), [x], seconds=0.01)
    >>> found.steps[0].step.operator, found.steps[0].seconds > 0
    ('Exp', True)
    """
    times: list[list[float]] = [[] for _ in compiled.steps]
    watched = copy.copy(compiled)
    watched.steps = [
        BoundNode(bound.node, _timed(bound.step, found), bound.algorithm)
        for bound, found in zip(compiled.steps, times, strict=True)
    ]
    for _ in range(_WARMUP):
        watched.run(inputs)
    for found in times:
        found.clear()
    whole: list[float] = []
    end = time.perf_counter() + seconds
    while len(whole) < _FEWEST_ROUNDS or (len(whole) < _MOST_ROUNDS and time.perf_counter() < end):
        watched.run(inputs)
        begin = time.perf_counter()
        compiled.run(inputs)
        whole.append(time.perf_counter() - begin)
    steps = (
        StepProfile(describe(bound), statistics.median(found))
        for bound, found in zip(compiled.steps, times, strict=True)
    )
    return Profile(tuple(steps), statistics.median(whole), len(whole))


def _timed(step: Callable[[Slots], None], times: list[float]) -> Callable[[Slots], None]:
    def timed(slots: Slots) -> None:
        begin = time.perf_counter()
        step(slots)
        times.append(time.perf_counter() - begin)

    return timed


def example_inputs(compiled: CompiledNetwork) -> list[Array]:
    """Return inputs to measure with: normal numbers, and zeros where integers are wanted."""
    rng, found = np.random.default_rng(0), []
    for value in compiled.graph.inputs:
        assert value.shape is not None
        array = np.zeros(value.shape, value.dtype)
        if array.dtype.kind == "f":
            array = rng.standard_normal(value.shape).astype(value.dtype)
        found.append(array)
    return found
