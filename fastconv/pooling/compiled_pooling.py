"""Compiled pooling: register tiles for small windows, vectors along large ones, loops for others.

Loops run along rows of the output where windows are alike, and over one window after the other
where they are not.

Gradients of means are gathered, each pixel from the windows that it is in: so rows of one plane are
spread over threads, and no sum depends on how many there are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba.core import config

from fastconv.core.pool_axis import Axes, divisors
from fastconv.core.records import record_of, record_type
from fastconv.kernels import pool_loops
from fastconv.pooling import large_means, pool_tiles
from fastconv.pooling.pool_algorithm import Array, Indices, PoolAlgorithm, lowest

# A row of fewer outputs is too short for loops along it, beside what each of them takes to begin.
LEAST_OUTPUTS = 3


class Jit(PoolAlgorithm):
    """Vectors of windows, or of elements of a window."""

    name = "jit"

    def maximum(self, x: Array, axes: Axes, out: Array, indices: Indices | None) -> None:
        """Take some rows of the output as an item of work."""
        rows, columns = axes
        if x.dtype.kind == "f" and pool_tiles.tile_window(axes) is not None:
            pool_tiles.run("max" if indices is None else "max-index", axes, x, out, indices)
            return
        lines, geometry, least = out.size // columns.outputs, _geometry(axes), lowest(x.dtype)
        image, values = x.reshape(-1), out.reshape(-1)
        if columns.even is None or columns.outputs < LEAST_OUTPUTS:
            argmax = np.empty(out.shape, np.int64) if indices is None else indices
            given = image, rows.ranges, columns.ranges, geometry, least
            pool_loops.max_pool_each(lines, *given, values, argmax.reshape(-1))
        elif indices is None:
            given = image, rows.ranges, columns.tap_table, geometry, least
            pool_loops.max_pool(lines, *given, values)
        else:
            ranges = rows.ranges, columns.ranges, columns.tap_table
            argmax = indices.reshape(-1)
            pool_loops.max_pool_argmax(lines, image, *ranges, geometry, least, values, argmax)

    def maximum_grad(self, grad: Array, indices: Indices, out: Array) -> bool:
        """Take one plane as an item of work: nothing tells which windows an element is in."""
        return pool_loops.by_indices(pool_loops.scatter, grad, indices, out, True)

    def mean(self, x: Array, axes: Axes, out: Array) -> None:
        """Take some rows of the output as an item of work."""
        if pool_tiles.tile_window(axes) is not None:
            pool_tiles.run("mean", axes, x, out)
        elif _needs_loops(axes):
            lines = out.size // axes[1].outputs
            pool_loops.mean_pool(lines, x.reshape(-1), *_windows(axes, x), out.reshape(-1))
        else:
            large_means.forward(axes, x, out)

    def mean_grad(self, grad: Array, axes: Axes, out: Array) -> None:
        """Take some rows of the input as an item of work, or a plane where windows are dilated."""
        if pool_tiles.tile_window(axes) is not None:
            pool_tiles.run("mean-grad", axes, grad, out)
        elif _needs_loops(axes):
            windows, planes = _windows(axes, grad), out.shape[0] * out.shape[1]
            pool_loops.mean_pool_grad(planes, grad.reshape(-1), *windows, out.reshape(-1))
        else:
            large_means.backward(axes, grad, out)


def _needs_loops(axes: Axes) -> bool:
    """Return whether only loops compute means: of dilated windows, or without the compiler."""
    return bool(config.DISABLE_JIT) or axes[0].step != 1 or axes[1].step != 1


_GEOMETRY = record_type("H", "W", "OH", "OW", "stride")


@lru_cache(maxsize=256)
def _geometry(axes: Axes) -> Array:
    """Return the sizes that loops need, as a record."""
    rows, columns = axes
    return record_of(
        _GEOMETRY,
        H=rows.size,
        W=columns.size,
        OH=rows.outputs,
        OW=columns.outputs,
        stride=columns.even[1] if columns.even else 0,
    )


def _windows(axes: Axes, tensor: Array) -> tuple[Any, ...]:
    """Return the windows along both axes, their divisors in the type of a tensor, and the sizes."""
    rows, columns = axes
    by = divisors(rows, str(tensor.dtype)), divisors(columns, str(tensor.dtype))
    return rows.ranges, columns.ranges, *by, _geometry(axes)
