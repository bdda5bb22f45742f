"""Pooling loops, one plane (n, c) an item of work.

Window (i, j) covers rows ``range(top[i], bottom[i], row_step)`` and columns
``range(left[j], right[j], column_step)``. Gradients are added in the order of the windows, so
they do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.kernels.jit import range_kernel


@range_kernel
def maximum(
    start: int,
    stop: int,
    x: Any,
    top: Any,
    bottom: Any,
    row_step: int,
    left: Any,
    right: Any,
    column_step: int,
    out: Any,
) -> None:
    """Fill planes of `out` with maxima."""
    for plane in range(start, stop):
        for i in range(len(top)):
            for j in range(len(left)):
                best = x[plane, top[i], left[j]]
                for h in range(top[i], bottom[i], row_step):
                    for w in range(left[j], right[j], column_step):
                        value = x[plane, h, w]
                        if value > best or np.isnan(value):
                            best = value
                out[plane, i, j] = best


@range_kernel
def maximum_and_place(
    start: int,
    stop: int,
    x: Any,
    top: Any,
    bottom: Any,
    row_step: int,
    left: Any,
    right: Any,
    column_step: int,
    out: Any,
    indices: Any,
) -> None:
    """Fill planes of `out` with maxima and of `indices` with their places, h * W + w."""
    W = x.shape[2]
    for plane in range(start, stop):
        for i in range(len(top)):
            for j in range(len(left)):
                place = top[i] * W + left[j]
                best = x[plane, top[i], left[j]]
                for h in range(top[i], bottom[i], row_step):
                    for w in range(left[j], right[j], column_step):
                        value = x[plane, h, w]
                        if value > best or np.isnan(value):
                            best, place = value, h * W + w
                out[plane, i, j] = best
                indices[plane, i, j] = place


@range_kernel
def maximum_grad(start: int, stop: int, grad: Any, indices: Any, out: Any) -> None:
    """Fill planes of `out` (planes, H * W) with the gradients at their places."""
    for plane in range(start, stop):
        out[plane] = 0
        for pixel in range(grad.shape[1]):
            place = indices[plane, pixel]
            # Checked before, but another thread may write to the caller's array meanwhile.
            if 0 <= place < out.shape[1]:
                out[plane, place] += grad[plane, pixel]


@range_kernel
def mean(
    start: int,
    stop: int,
    x: Any,
    top: Any,
    bottom: Any,
    left: Any,
    right: Any,
    row_divisor: Any,
    column_divisor: Any,
    out: Any,
) -> None:
    """Fill planes of `out` with window sums over divisors."""
    for plane in range(start, stop):
        for i in range(len(top)):
            for j in range(len(left)):
                total = out.dtype.type(0)
                for h in range(top[i], bottom[i]):
                    for w in range(left[j], right[j]):
                        total += x[plane, h, w]
                out[plane, i, j] = total / out.dtype.type(row_divisor[i] * column_divisor[j])


@range_kernel
def mean_grad(
    start: int,
    stop: int,
    grad: Any,
    top: Any,
    bottom: Any,
    left: Any,
    right: Any,
    row_divisor: Any,
    column_divisor: Any,
    out: Any,
) -> None:
    """Fill planes of `out` with the gradients' shares."""
    for plane in range(start, stop):
        out[plane] = 0
        for i in range(len(top)):
            for j in range(len(left)):
                share = grad[plane, i, j] / out.dtype.type(row_divisor[i] * column_divisor[j])
                for h in range(top[i], bottom[i]):
                    for w in range(left[j], right[j]):
                        out[plane, h, w] += share
