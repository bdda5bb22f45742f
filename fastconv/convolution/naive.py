"""Naive convolution: textbook loops, compiled by Numba and run in parallel, as a baseline."""

from __future__ import annotations

from fastconv.convolution.algorithm import Algorithm, Array, Forward, Gradient
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels import naive_loops as kernels
from fastconv.runtime.threads import useful_threads


def _seconds(problem: Conv2dProblem, threads: int, planes: int, rate: float) -> float:
    """Count a few cycles per product: each addition waits for the previous one."""
    return 3e-6 + problem.flops / (rate * max(1, min(threads, planes)))


class NaiveForward(Forward):
    """An item of work is one output plane (n, k)."""

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count two nanoseconds per multiplication and addition."""
        return _seconds(problem, threads, problem.N * problem.K, 1e9)

    def run(
        self, problem: Conv2dProblem, x: Array, prepared: Array, bias: Array, out: Array
    ) -> None:
        """Run the loops over all output planes."""
        most = useful_threads(problem.flops / 1e9)
        kernels.forward.on(most, problem.N * problem.K, x, prepared, bias, out, problem.record)


class NaiveInputGrad(Gradient):
    """An item of work is one input plane (n, c)."""

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count twice the time of `forward`, for scattering."""
        return _seconds(problem, threads, problem.N * problem.C, 0.5e9)

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Run the loops over all input planes."""
        items, most = problem.N * problem.C, useful_threads(problem.flops / 0.5e9)
        kernels.input_grad.on(most, items, factor, grad_output, out, problem.record)


class NaiveWeightGrad(Gradient):
    """An item of work is one weight plane (k, c)."""

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count as in `forward`."""
        return _seconds(problem, threads, problem.K * problem.C_per_group, 1e9)

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Run the loops over all weight planes."""
        items, most = problem.K * problem.C_per_group, useful_threads(problem.flops / 1e9)
        kernels.weight_grad.on(most, items, factor, grad_output, out, problem.record)


NAIVE = Algorithm("naive", NaiveForward(), NaiveInputGrad(), NaiveWeightGrad())
