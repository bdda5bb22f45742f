"""Means over windows that register tiles do not take: large ones, and those of differing sizes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from fastconv import cpu
from fastconv.geometry import LARGEST_SIZE
from fastconv.kernels.means import means_address, shares_address
from fastconv.kernels.numbers import run_items
from fastconv.pooling.axis import Axes, Axis, Indices, divisors
from fastconv.pooling.base import Array


def forward(axes: Axes, x: Array, out: Array) -> None:
    """Fill `out` with means, one row of it an item of work."""
    rows, columns = axes = _as_one_row(axes)
    code = means_address(*_vector(axes, str(out.dtype)))
    _run(out.size // columns.outputs, code, axes, rows.start, rows.stop, x, out)


def backward(axes: Axes, grad: Array, out: Array) -> None:
    """Fill `out`, shaped like the input, with gradients, one row of it an item of work."""
    rows, columns = axes = _as_one_row(axes)
    code = shares_address(*_vector(axes, str(out.dtype)))
    _run(out.size // columns.size, code, axes, *_windows_of(rows), grad, out)


@lru_cache(maxsize=256)
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


@lru_cache(maxsize=256)
def _windows_of(axis: Axis) -> tuple[Indices, Indices]:
    """Return the first window that each position is in, and the first behind it that it is not."""
    positions = np.arange(axis.size)
    first = np.searchsorted(axis.stop, positions, "right")
    return first, np.searchsorted(axis.start, positions, "right")


def _vector(axes: Axes, dtype: str) -> tuple[int, int]:
    """Return bits and lanes of vectors no longer than the widest window, if those are there."""
    bits, lanes = 8 * np.dtype(dtype).itemsize, cpu.describe().instructions.lanes(dtype)
    widest = int((axes[1].stop - axes[1].start).max())
    while lanes * bits > 128 and widest <= lanes // 2:
        lanes //= 2
    return bits, lanes


def _run(
    items: int,
    code: int,
    axes: Axes,
    top: Indices,
    bottom: Indices,
    source: Array,
    target: Array,
) -> None:
    rows, columns = axes
    dtype = str(target.dtype)
    arrays = (
        *(source, target, top, bottom, columns.start, columns.stop),
        *(divisors(rows, dtype), divisors(columns, dtype)),
    )
    run_items(items, code, arrays, (rows.size, columns.size, rows.outputs, columns.outputs))
