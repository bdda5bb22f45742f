"""The textbook's loops, compiled by Numba and run in parallel: what a compiler alone brings."""

from __future__ import annotations

from fastconv.convolution.algorithm import Algorithm, Array, Forward, Gradient
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels import naive_loops as kernels
from fastconv.runtime.threads import useful_threads


def _seconds(problem: Conv2dProblem, threads: int, planes: int, rate: float) -> float:
    """Count one product a few cycles: each sum waits for the one before."""
    return 3e-6 + problem.flops / (rate * max(1, min(threads, planes)))


class NaiveForward(Forward):
    """One output plane (n, k) an item of work."""

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """One multiplication and addition in two nanoseconds."""
        return _seconds(problem, threads, problem.N * problem.K, 1e9)

    def run(
        self, problem: Conv2dProblem, x: Array, prepared: Array, bias: Array, out: Array
    ) -> None:
        """Run the loops over all output planes."""
        most = useful_threads(problem.flops / 1e9)
        kernels.forward.on(most, problem.N * problem.K, x, prepared, bias, out, problem.record)


class NaiveInputGrad(Gradient):
    """One input plane (n, c) an item of work."""

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Scattering takes twice as long as summing."""
        return _seconds(problem, threads, problem.N * problem.C, 0.5e9)

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Run the loops over all input planes."""
        items, most = problem.N * problem.C, useful_threads(problem.flops / 0.5e9)
        kernels.input_grad.on(most, items, factor, grad_output, out, problem.record)


class NaiveWeightGrad(Gradient):
    """One filter plane (k, c) an item of work."""

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """As forward."""
        return _seconds(problem, threads, problem.K * problem.C_per_group, 1e9)

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Run the loops over all filter planes."""
        items, most = problem.K * problem.C_per_group, useful_threads(problem.flops / 1e9)
        kernels.weight_grad.on(most, items, factor, grad_output, out, problem.record)


NAIVE = Algorithm("naive", NaiveForward(), NaiveInputGrad(), NaiveWeightGrad())
