"""The textbook's loops, compiled by Numba and run in parallel: what a compiler alone brings."""

from __future__ import annotations

from fastconv.convolution.algorithm import Algorithm, Array
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.kernels import naive_loops as kernels


class Naive(Algorithm):
    """Nested loops in machine code, one output plane after the other."""

    name = "naive"

    def estimated_seconds(
        self, problem: Conv2dProblem, direction: Direction, threads: int
    ) -> float:
        """Count one product a few cycles: each sum waits for the one before."""
        planes, rate = {
            "forward": (problem.N * problem.K, 1e9),
            "input_grad": (problem.N * problem.C, 0.5e9),
            "weight_grad": (problem.K * problem.C_per_group, 1e9),
        }[direction]
        return 3e-6 + problem.flops / (rate * max(1, min(threads, planes)))

    def forward(
        self, problem: Conv2dProblem, x: Array, prepared: Array, bias: Array, out: Array
    ) -> None:
        """One output plane (n, k) an item of work."""
        kernels.forward(problem.N * problem.K, x, prepared, bias, out, problem.record)

    def input_grad(
        self, problem: Conv2dProblem, weight: Array, grad_output: Array, out: Array
    ) -> None:
        """One input plane (n, c) an item of work."""
        kernels.input_grad(problem.N * problem.C, weight, grad_output, out, problem.record)

    def weight_grad(self, problem: Conv2dProblem, x: Array, grad_output: Array, out: Array) -> None:
        """One filter plane (k, c) an item of work."""
        items = problem.K * problem.C_per_group
        kernels.weight_grad(items, x, grad_output, out, problem.record)
