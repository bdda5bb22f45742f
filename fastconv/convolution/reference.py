"""Textbook convolution: slide a window over the image, multiply by a filter, sum.

It uses only Python loops and NumPy slices, so that a reader can check it by eye. Every other
algorithm is compared with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from fastconv.convolution.algorithm import Algorithm, Array, Forward, Gradient, Implementation
from fastconv.core.conv_problem import Conv2dProblem


def pad(problem: Conv2dProblem, x: Array) -> Array:
    """Return `x` (N, C, H, W) with its zero padding."""
    return np.pad(x, ((0, 0), (0, 0), *problem.padding))


def windows(problem: Conv2dProblem) -> Iterator[tuple[int, int, slice, slice]]:
    """Yield each output position (i, j) and the rows and columns of its window."""
    (stride_h, stride_w), (dilation_h, dilation_w) = problem.stride, problem.dilation
    for i, j in itertools.product(range(problem.OH), range(problem.OW)):
        top, left = i * stride_h, j * stride_w
        rows = slice(top, top + dilation_h * (problem.R - 1) + 1, dilation_h)
        columns = slice(left, left + dilation_w * (problem.S - 1) + 1, dilation_w)
        yield i, j, rows, columns


def channels_of(problem: Conv2dProblem, k: int) -> slice:
    """Return the input channels of output channel `k`."""
    first = k // problem.K_per_group * problem.C_per_group
    return slice(first, first + problem.C_per_group)


class _Loops(Implementation):
    """The costs of Python loops over all output elements."""

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count 6 microseconds of Python per output element, and the products."""
        return problem.N * problem.K * problem.P * 6e-6 + problem.flops / 2e9

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count one padded copy of the input."""
        n, c, h, w = problem.padded_shape
        return n * c * h * w * problem.itemsize


class ReferenceForward(_Loops, Forward):
    """A patch times a filter, summed."""

    def run(
        self, problem: Conv2dProblem, x: Array, prepared: Array, bias: Array, out: Array
    ) -> None:
        """out[n, k, i, j] = bias[k] + sum(patch * filter)."""
        padded, weight = pad(problem, x), prepared
        for n, k in itertools.product(range(problem.N), range(problem.K)):
            image = padded[n, channels_of(problem, k)]
            for i, j, rows, columns in windows(problem):
                out[n, k, i, j] = np.sum(image[:, rows, columns] * weight[k]) + bias[k]


class ReferenceInputGrad(_Loops, Gradient):
    """Each output gradient, times the filter, is added to its window."""

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """dx[window] += grad_output[n, k, i, j] * filter."""
        padded = np.zeros(problem.padded_shape, out.dtype)
        for n, k in itertools.product(range(problem.N), range(problem.K)):
            image = padded[n, channels_of(problem, k)]
            for i, j, rows, columns in windows(problem):
                image[:, rows, columns] += grad_output[n, k, i, j] * factor[k]
        top, left = problem.padding[0][0], problem.padding[1][0]
        out[...] = padded[:, :, top : top + problem.H, left : left + problem.W]


class ReferenceWeightGrad(_Loops, Gradient):
    """Each output gradient, times its window, is added to the filter."""

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """dw[k] += grad_output[n, k, i, j] * window."""
        padded = pad(problem, factor)
        out[...] = 0
        for n, k in itertools.product(range(problem.N), range(problem.K)):
            image = padded[n, channels_of(problem, k)]
            for i, j, rows, columns in windows(problem):
                out[k] += grad_output[n, k, i, j] * image[:, rows, columns]


REFERENCE = Algorithm("reference", ReferenceForward(), ReferenceInputGrad(), ReferenceWeightGrad())
