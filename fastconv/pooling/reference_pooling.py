"""Pooling as a textbook writes it: one window at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from fastconv.core.pool_axis import Axes
from fastconv.pooling.pool_algorithm import Array, Indices, PoolAlgorithm, as_planes


def _windows(planes: int, axes: Axes) -> Iterator[tuple[int, int, int, slice, slice]]:
    rows, columns = axes
    for plane, i, j in itertools.product(
        range(planes), range(rows.outputs), range(columns.outputs)
    ):
        yield plane, i, j, rows.window(i), columns.window(j)


class Reference(PoolAlgorithm):
    """Python loops over windows, NumPy slices inside."""

    name = "reference"

    def maximum(self, x: Array, axes: Axes, out: Array, indices: Indices | None) -> None:
        """Compare the elements of a window one by one."""
        planes, values = as_planes(x), as_planes(out)
        argmax = None if indices is None else as_planes(indices)
        for plane, i, j, rows, columns in _windows(len(planes), axes):
            best, index = None, -1
            for h in range(rows.start, rows.stop, rows.step):
                for w in range(columns.start, columns.stop, columns.step):
                    value = planes[plane, h, w]
                    if best is None or value > best or np.isnan(value):
                        best, index = value, h * axes[1].size + w
            values[plane, i, j] = 0 if best is None else best
            if argmax is not None:
                argmax[plane, i, j] = index

    def maximum_grad(self, grad: Array, indices: Indices, out: Array) -> bool:
        """Add every gradient at its index."""
        if indices.min() < 0 or indices.max() >= out.shape[2] * out.shape[3]:
            return False
        out[...] = 0
        gradients, where = as_planes(grad), as_planes(indices)
        flat = out.reshape(len(gradients), -1)
        for plane, i, j in np.ndindex(*gradients.shape):
            flat[plane, where[plane, i, j]] += gradients[plane, i, j]
        return True

    def mean(self, x: Array, axes: Axes, out: Array) -> None:
        """Sum a window, divide by what it counts."""
        planes, values = as_planes(x), as_planes(out)
        for plane, i, j, rows, columns in _windows(len(planes), axes):
            count = axes[0].divisor[i] * axes[1].divisor[j]
            total = np.sum(planes[plane, rows, columns])
            values[plane, i, j] = total / count if count else np.nan

    def mean_grad(self, grad: Array, axes: Axes, out: Array) -> None:
        """Add every gradient's share to each element of its window."""
        out[...] = 0
        gradients, planes = as_planes(grad), as_planes(out)
        for plane, i, j, rows, columns in _windows(len(planes), axes):
            count = axes[0].divisor[i] * axes[1].divisor[j]
            if count:  # else the window has no element
                planes[plane, rows, columns] += gradients[plane, i, j] / count
