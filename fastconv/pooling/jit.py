"""Compiled pooling: register tiles for small windows, vectors along large ones, loops for others.

Loops run along rows of the output where windows are alike, and over one window after the other
where they are not.

Gradients are gathered, each pixel from the windows that it is in: so rows of one plane are spread
over threads, and no sum depends on how many there are.
"""

from __future__ import annotations

import numpy as np
from numba.core import config

from fastconv.kernels import pooling_loops
from fastconv.pooling import means, tiles
from fastconv.pooling.axis import Axes, divisors
from fastconv.pooling.base import Array, Indices, PoolAlgorithm, lowest
from fastconv.pooling.windows import Windows


def _planes(tensor: Array) -> Array:
    """Return (N, C, H, W) as (N * C, H, W)."""
    return tensor.reshape(-1, *tensor.shape[2:])


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
        if x.dtype.kind == "f" and tiles.tile_window(axes) is not None:
            if indices is None:
                tiles.run("max", axes, x, out)
            else:
                tiles.run("max-index", axes, x, out, indices)
            return
        planes, values, least = _planes(x), _planes(out), lowest(x.dtype)
        lines = len(planes) * rows.outputs
        if columns.even is None:
            places = np.empty(values.shape, np.int64) if indices is None else _planes(indices)
            pooling_loops.maximum_of_each(lines, planes, *_ranges(axes), least, values, places)
            return
        even = np.array((*columns.even, columns.step))
        windows = planes, rows.start, rows.stop, rows.step, even, least
        if indices is None:
            pooling_loops.maximum(lines, *windows, values)
        else:
            places = _planes(indices)
            pooling_loops.maximum_and_place(lines, *windows, columns.start, values, places)

    def maximum_grad(self, grad: Array, indices: Indices, out: Array) -> bool:
        """Take one plane as an item of work: nothing tells which windows an element is in."""
        gradients, planes = _pixels(grad), _pixels(out)
        wrong = np.empty(len(planes), np.bool_)
        pooling_loops.maximum_grad(len(planes), gradients, _pixels(indices), planes, wrong)
        return not wrong.any()

    def mean(self, x: Array, axes: Axes, out: Array) -> None:
        """Take some rows of the output as an item of work."""
        if config.DISABLE_JIT:
            Windows().mean(x, axes, out)
        elif tiles.tile_window(axes) is not None:
            tiles.run("mean", axes, x, out)
        elif _dilated(axes):
            lines = out.shape[0] * out.shape[1] * out.shape[2]
            pooling_loops.mean(lines, _planes(x), *_ranges(axes), *_divisors(axes, x), _planes(out))
        else:
            means.forward(axes, x, out)

    def mean_grad(self, grad: Array, axes: Axes, out: Array) -> None:
        """Take some rows of the input as an item of work, or a plane where windows are dilated."""
        if config.DISABLE_JIT:
            Windows().mean_grad(grad, axes, out)
        elif tiles.tile_window(axes) is not None:
            tiles.run("mean-grad", axes, grad, out)
        elif _dilated(axes):
            numbers = *_ranges(axes), *_divisors(axes, grad)
            pooling_loops.mean_grad(len(_planes(out)), _planes(grad), *numbers, _planes(out))
        else:
            means.backward(axes, grad, out)


def _dilated(axes: Axes) -> bool:
    return axes[0].step != 1 or axes[1].step != 1


def _ranges(axes: Axes) -> tuple[Indices, Indices, int, Indices, Indices, int]:
    """Return first and last row, and their distance, of each window; the same of columns."""
    rows, columns = axes
    return rows.start, rows.stop, rows.step, columns.start, columns.stop, columns.step


def _divisors(axes: Axes, tensor: Array) -> tuple[Array, Array]:
    return divisors(axes[0], str(tensor.dtype)), divisors(axes[1], str(tensor.dtype))
