"""Compiled pooling: register tiles for small windows, vectors along large ones, loops for others.

Gradients are gathered, each pixel from the windows that it is in: so rows of one plane are spread
over threads, and no sum depends on how many there are.
"""

from __future__ import annotations

import numpy as np
from numba.core import config

from fastconv.kernels import pooling_loops
from fastconv.pooling import means, tiles
from fastconv.pooling.axis import Axes
from fastconv.pooling.base import Array, Indices, PoolAlgorithm
from fastconv.pooling.windows import Windows


def _planes(tensor: Array) -> Array:
    """Return (N, C, H, W) as (N * C, H, W)."""
    return tensor.reshape(-1, *tensor.shape[2:])


def _pixels(tensor: Array) -> Array:
    """Return (N, C, H, W) as (N * C, H * W)."""
    return tensor.reshape(tensor.shape[0] * tensor.shape[1], -1)


class Jit(PoolAlgorithm):
    """Vectors of windows, or of elements of a window."""

    name = "jit"

    def maximum(self, x: Array, axes: Axes, out: Array, indices: Indices | None) -> None:
        """Take some rows of the output as an item of work."""
        rows, columns = axes
        if tiles.tile_window(axes) is not None:
            if indices is None:
                tiles.run("max", axes, x, out)
            else:
                tiles.run("max-index", axes, x, out, indices)
            return
        planes, values = _planes(x), _planes(out)
        lines = len(planes) * rows.outputs
        even = np.array((*(columns.even or ()), columns.step))
        windows = planes, rows.start, rows.stop, rows.step, even
        if indices is None:
            pooling_loops.maximum(lines, *windows, values)
        else:
            places = _planes(indices)
            pooling_loops.maximum_and_place(lines, *windows, columns.start, values, places)

    def maximum_grad(self, grad: Array, indices: Indices, out: Array) -> None:
        """Take one plane as an item of work: nothing tells which windows an element is in."""
        gradients = _pixels(grad)
        pooling_loops.maximum_grad(len(gradients), gradients, _pixels(indices), _pixels(out))

    def mean(self, x: Array, axes: Axes, out: Array) -> None:
        """Take some rows of the output as an item of work."""
        if config.DISABLE_JIT:
            Windows().mean(x, axes, out)
        elif tiles.tile_window(axes) is not None:
            tiles.run("mean", axes, x, out)
        else:
            means.forward(axes, x, out)

    def mean_grad(self, grad: Array, axes: Axes, out: Array) -> None:
        """Take some rows of the input as an item of work."""
        if config.DISABLE_JIT:
            Windows().mean_grad(grad, axes, out)
        elif tiles.tile_window(axes) is not None:
            tiles.run("mean-grad", axes, grad, out)
        else:
            means.backward(axes, grad, out)
