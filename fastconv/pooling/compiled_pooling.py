"""Compiled pooling: register tiles for small windows, vectors along large ones, loops for others.

Loops run along rows of the output where windows are alike, and over one window after the other
where they are not.

Gradients are gathered, each pixel from the windows that it is in: so rows of one plane are spread
over threads, and no sum depends on how many there are.
"""

from __future__ import annotations

import numpy as np
from numba.core import config

from fastconv.core.pool_axis import Axes, divisors
from fastconv.kernels import pool_loops
from fastconv.pooling import large_means, pool_tiles
from fastconv.pooling.pool_algorithm import Array, Indices, PoolAlgorithm, as_planes, lowest
from fastconv.pooling.strided_pooling import Windows

# A row of fewer outputs is too short for loops along it, beside what each of them takes to begin.
LEAST_OUTPUTS = 3


def _pixels(tensor: Array) -> Array:
    """Return (N, C, H, W) as (N * C, H * W)."""
    N, C, H, W = tensor.shape
    return tensor.reshape(N * C, H * W)


class Jit(PoolAlgorithm):
    """Vectors of windows, or of elements of a window."""

    name = "jit"

    def maximum(self, x: Array, axes: Axes, out: Array, indices: Indices | None) -> None:
        """Take some rows of the output as an item of work."""
        rows, columns = axes
        if x.dtype.kind == "f" and pool_tiles.tile_window(axes) is not None:
            if indices is None:
                pool_tiles.run("max", axes, x, out)
            else:
                pool_tiles.run("max-index", axes, x, out, indices)
            return
        planes, values, least = as_planes(x), as_planes(out), lowest(x.dtype)
        lines = len(planes) * rows.outputs
        places = None if indices is None else as_planes(indices)
        if columns.even is None or columns.outputs < LEAST_OUTPUTS:
            places = np.empty(values.shape, np.int64) if places is None else places
            both = rows.ranges, columns.ranges
            pool_loops.maximum_of_each(lines, planes, *both, least, values, places)
            return
        even = np.array((*columns.even, columns.step))
        if places is None:
            pool_loops.maximum(lines, planes, rows.ranges, even, least, values)
        else:
            windows = rows.ranges, even, columns.ranges
            pool_loops.maximum_and_place(lines, planes, *windows, least, values, places)

    def maximum_grad(self, grad: Array, indices: Indices, out: Array) -> bool:
        """Take one plane as an item of work: nothing tells which windows an element is in."""
        gradients, planes = _pixels(grad), _pixels(out)
        wrong = np.empty(len(planes), np.bool_)
        pool_loops.maximum_grad(len(planes), gradients, _pixels(indices), planes, wrong)
        return not wrong.any()

    def mean(self, x: Array, axes: Axes, out: Array) -> None:
        """Take some rows of the output as an item of work."""
        if config.DISABLE_JIT:
            Windows().mean(x, axes, out)
        elif pool_tiles.tile_window(axes) is not None:
            pool_tiles.run("mean", axes, x, out)
        elif _dilated(axes):
            lines = out.shape[0] * out.shape[1] * out.shape[2]
            pool_loops.mean(lines, as_planes(x), *_windows(axes, x), as_planes(out))
        else:
            large_means.forward(axes, x, out)

    def mean_grad(self, grad: Array, axes: Axes, out: Array) -> None:
        """Take some rows of the input as an item of work, or a plane where windows are dilated."""
        if config.DISABLE_JIT:
            Windows().mean_grad(grad, axes, out)
        elif pool_tiles.tile_window(axes) is not None:
            pool_tiles.run("mean-grad", axes, grad, out)
        elif _dilated(axes):
            planes = as_planes(out)
            pool_loops.mean_grad(len(planes), as_planes(grad), *_windows(axes, grad), planes)
        else:
            large_means.backward(axes, grad, out)


def _dilated(axes: Axes) -> bool:
    return axes[0].step != 1 or axes[1].step != 1


def _windows(axes: Axes, tensor: Array) -> tuple[Indices, Indices, Array, Array]:
    """Return where the windows lie along both axes, and the divisors in the type of a tensor."""
    rows, columns = axes
    dtype = str(tensor.dtype)
    return rows.ranges, columns.ranges, divisors(rows, dtype), divisors(columns, dtype)
