"""Means over windows that register tiles do not take: large ones, and those of differing sizes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from fastconv.core.geometry import LARGEST_SIZE
from fastconv.core.pool_axis import Axes, Indices, divisors
from fastconv.jit.launch import Launch
from fastconv.kernels.large_mean_loops import mean_address, mean_grad_address
from fastconv.pooling.pool_algorithm import Array
from fastconv.runtime import cpu


def forward(axes: Axes, x: Array, out: Array) -> None:
    """Fill `out` with means, one row of it an item of work."""
    lines, launch = _forward(axes, str(out.dtype))
    launch(out.shape[0] * out.shape[1] * lines, x, out)


def backward(axes: Axes, grad: Array, out: Array) -> None:
    """Fill `out`, shaped like the input, with gradients, one row of it an item of work."""
    lines, launch = _backward(axes, str(out.dtype))
    launch(out.shape[0] * out.shape[1] * lines, grad, out)


@lru_cache(maxsize=256)
def _forward(axes: Axes, dtype: str) -> tuple[int, Launch]:
    """Return how many rows of output a plane has, and the kernel."""
    rows, columns = axes = _as_one_row(axes)
    widest = int((columns.stop - columns.start).max())
    code = mean_address(*_vector(widest, dtype))
    return rows.outputs, _launch(code, axes, (rows.start, rows.stop), dtype)


@lru_cache(maxsize=256)
def _backward(axes: Axes, dtype: str) -> tuple[int, Launch]:
    """Return how many rows of input a plane has, and the kernel."""
    rows, columns = axes = _as_one_row(axes)
    # The first window that a row is in, and the first after it that it is not in.
    h = np.arange(rows.size)
    first, end = np.searchsorted(rows.stop, h, "right"), np.searchsorted(rows.start, h, "right")
    bits, lanes = _vector(columns.size, dtype)
    code = mean_grad_address(bits, lanes, 4 if columns.size > lanes else 1)
    return rows.size, _launch(code, axes, (first, end), dtype)


def _launch(code: int, axes: Axes, by_row: tuple[Indices, Indices], dtype: str) -> Launch:
    rows, columns = axes
    tables = *by_row, columns.start, columns.stop, divisors(rows, dtype), divisors(columns, dtype)
    return Launch(code, tables, (rows.size, columns.size, rows.outputs, columns.outputs))


def _as_one_row(axes: Axes) -> Axes:
    """Return a mean over whole planes as one over rows that are as long as a plane."""
    rows, columns = axes
    size = rows.size * columns.size
    whole = all(axis.outputs == 1 and axis.stop[0] - axis.start[0] == axis.size for axis in axes)
    if not whole or size > LARGEST_SIZE:
        return axes
    one, none = np.ones(1, np.int64), np.zeros(1, np.int64)
    return (
        replace(rows, size=1, start=none, stop=one),
        replace(columns, size=size, start=none, stop=one * size),
    )


def _vector(longest: int, dtype: str) -> tuple[int, int]:
    """Return bits and lanes of vectors that are no longer than they need to be."""
    bits, lanes = 8 * np.dtype(dtype).itemsize, cpu.describe().instructions.lanes(dtype)
    while lanes * bits > 128 and longest <= lanes // 2:
        lanes //= 2
    return bits, lanes
