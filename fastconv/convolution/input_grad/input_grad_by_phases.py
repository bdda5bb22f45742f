"""Input gradients by the kernels of forward convolutions, one phase after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from fastconv.convolution.algorithm import Array, Forward, Gradient
from fastconv.convolution.blocking.partition import WORTH_A_TASK, split
from fastconv.convolution.im2col_jit import IM2COL_JIT
from fastconv.convolution.input_grad.stride_phases import Phase, has_gaps, phases
from fastconv.convolution.packed_weights import all_finite
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.runtime import threads

#: Fills a part of an input gradient: ``call(weight, grad_output, out)``.
PhaseCall: TypeAlias = Callable[[Array, Array, Array], None]

# The speed of a thread in clearing memory, and in packing weights.
CLEARED_BYTES_PER_SECOND = 8e9
PACKED_BYTES_PER_SECOND = 12e9
# Packing fewer bytes of weights stays in the caches, and its time is negligible.
MANY_BYTES = 2**18


class PhaseForward(Forward):
    """A forward convolution that computes the phases of input gradients too.

    Their stride is 1 and their padding may be negative.
    """

    def phase_call(self, problem: Conv2dProblem, phase: Phase) -> PhaseCall:
        """Return a function that computes one phase of the problem's input gradient."""
        raise NotImplementedError

    def preparing_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the bytes that packing reads and writes, if they are many."""
        if problem.weight_bytes < MANY_BYTES:
            return 0.0
        return 2 * problem.weight_bytes / PACKED_BYTES_PER_SECOND / threads


class InputGradByPhases(Gradient):
    """An input gradient as forward convolutions of the output gradient.

    The column stride of a phase is at most `widest_step`.
    """

    def __init__(self, forward: PhaseForward, widest_step: int = 4) -> None:
        self.forward, self.widest_step = forward, widest_step

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take a gradient if the forward convolution takes all its phases."""
        if problem.stride[1] > self.widest_step:
            return f"needs a horizontal stride of at most {self.widest_step}, got {problem.stride}"
        for phase in phases(problem):
            reason = self.forward.refusal(phase.problem)
            if reason is not None:
                return f"as a convolution of the output's gradient it {reason}"
        return None

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Add up the phases and the packing of weights, which each call repeats."""
        seconds = 20e-6
        if has_gaps(problem):
            seconds += problem.input_bytes / CLEARED_BYTES_PER_SECOND / threads
        for phase in phases(problem):
            seconds += self.forward.estimated_seconds(phase.problem, threads) + 20e-6
            seconds += self.forward.preparing_seconds(phase.problem, threads)
            # Each phase reads all weights, but packs only its own taps.
            others = problem.weight_bytes - phase.problem.weight_bytes
            seconds += others / PACKED_BYTES_PER_SECOND / threads
        return seconds

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Return the largest workspace of a phase."""
        sizes = (self.forward.workspace_bytes(phase.problem) for phase in phases(problem))
        return max(sizes, default=0)

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Clear elements that no tap reaches, and compute the others."""
        ready = _ready(self, problem)
        if ready.padded and not all_finite(factor):
            # Convolutions count the zeros of their padding, but zero times infinity is not zero.
            IM2COL_JIT.input_grad.run(problem, factor, grad_output, out)
            return
        if ready.gaps:
            clear(out)
        for call in ready.calls:
            call(factor, grad_output, out)

    def calls(self, problem: Conv2dProblem) -> tuple[PhaseCall, ...]:
        """Return the functions that compute the phases, each in parallel."""
        return tuple(self.forward.phase_call(problem, phase) for phase in phases(problem))


class _Ready(NamedTuple):
    """What follows from the problem: phases, and whether there are padding and gaps."""

    calls: tuple[PhaseCall, ...]
    padded: bool
    gaps: bool


@lru_cache(maxsize=128)
def _ready(gradient: InputGradByPhases, problem: Conv2dProblem) -> _Ready:
    sides = [s for phase in phases(problem) for sides in phase.problem.padding for s in sides]
    return _Ready(gradient.calls(problem), any(s > 0 for s in sides), has_gaps(problem))


def clear(out: Array) -> None:
    """Fill an array with zeros, on several threads if it is large."""
    flat = out.reshape(-1)

    def fill(some: tuple[int, int]) -> None:
        flat[slice(*some)] = 0

    threads.run_tasks(fill, split(flat.size, flat.size // WORTH_A_TASK))
