"""Input gradients by the same machine code as forward convolutions, a phase at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from fastconv.convolution.algorithm import Algorithm, Array
from fastconv.convolution.blocking.partition import WORTH_A_TASK, split
from fastconv.convolution.im2col_jit import Im2colJit
from fastconv.convolution.input_grad.stride_phases import Phase, leave_gaps, phases
from fastconv.convolution.packed_weights import Filters
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.runtime import threads

# What a thread clears, and what it moves of the weights.
CLEARED_BYTES_PER_SECOND = 8e9
LAID_OUT_BYTES_PER_SECOND = 12e9
# Fewer bytes of weights are laid out within the caches, in no time.
MANY_BYTES = 2**18


class ByPhases(Algorithm):
    """An algorithm whose input gradients are forward convolutions by itself.

    A subclass defines the methods with an underscore, which know of forward convolutions only;
    their stride is 1 and their padding may be negative where they make a gradient.
    """

    #: The widest step, from column to column, that results can be written at.
    farthest_step: ClassVar[int] = 4

    def _refusal(self, problem: Conv2dProblem) -> str | None:
        """Return None, or why this forward convolution is refused."""
        raise NotImplementedError

    def _seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Return about how long a forward convolution takes."""
        raise NotImplementedError

    def _workspace(self, problem: Conv2dProblem) -> int:
        """Return the scratch memory that one thread needs."""
        return 0

    def _run_phase(self, phase: Phase, filters: Filters, grad_output: Array, out: Array) -> None:
        """Fill this phase's elements of `out`."""
        raise NotImplementedError

    def supports(self, problem: Conv2dProblem, direction: Direction) -> str | None:
        """Take gradients all of whose phases are taken as convolutions."""
        if direction == "forward":
            return self._refusal(problem)
        if problem.stride[1] > self.farthest_step:
            return (
                f"needs a horizontal stride of at most {self.farthest_step}, got {problem.stride}"
            )
        for phase in phases(problem):
            reason = self._refusal(phase.problem)
            if reason is not None:
                return f"as a convolution of the output's gradient it {reason}"
        return None

    def estimated_seconds(
        self, problem: Conv2dProblem, direction: Direction, threads: int
    ) -> float:
        """Add up the phases, and for gradients what prepares the weights, done with each call."""
        if direction == "forward":
            return self._seconds(problem, threads)
        seconds = 20e-6
        if leave_gaps(problem):
            seconds += problem.input_bytes / CLEARED_BYTES_PER_SECOND / threads
        for phase in phases(problem):
            seconds += self._seconds(phase.problem, threads) + 20e-6
            seconds += self.preparing_seconds(phase.problem, threads)
            # Read for each phase, but laid out in others.
            others = problem.weight_bytes - phase.problem.weight_bytes
            seconds += others / LAID_OUT_BYTES_PER_SECOND / threads
        return seconds

    def preparing_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count the bytes that are read and written to lay out the weights, if they are many."""
        if problem.weight_bytes < MANY_BYTES:
            return 0.0
        return 2 * problem.weight_bytes / LAID_OUT_BYTES_PER_SECOND / threads

    def workspace_bytes(self, problem: Conv2dProblem, direction: Direction) -> int:
        """Return what the phase needs that needs most."""
        if direction == "forward":
            return self._workspace(problem)
        return max((self._workspace(phase.problem) for phase in phases(problem)), default=0)

    def input_grad(
        self, problem: Conv2dProblem, weight: Array, grad_output: Array, out: Array
    ) -> None:
        """Clear what no tap reaches, and compute the rest."""
        found = phases(problem)
        margins = any(side > 0 for p in found for sides in p.problem.padding for side in sides)
        if margins and not np.isfinite(weight).all():
            # Convolutions count the zeros of their margins, but zero times infinity is not zero.
            Im2colJit().input_grad(problem, weight, grad_output, out)
            return
        if leave_gaps(problem):
            clear(out)
        self._run_phases(found, weight, grad_output, out)

    def _run_phases(
        self, found: Sequence[Phase], weight: Array, grad_output: Array, out: Array
    ) -> None:
        """Compute one phase after the other, each in parallel."""
        for phase in found:
            filters = Filters(weight, phase.window(*weight.shape[2:]), finite=True)
            self._run_phase(phase, filters, grad_output, out)


def clear(out: Array) -> None:
    """Fill an array with zeros, by several threads if it is large."""
    flat = out.reshape(-1)

    def fill(some: tuple[int, int]) -> None:
        flat[slice(*some)] = 0

    threads.run_tasks(fill, split(flat.size, flat.size // WORTH_A_TASK))
