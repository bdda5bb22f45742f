"""Compiled pooling: register tiles for windows that are small and regular, loops for others."""

from __future__ import annotations

from fastconv.kernels import pooling_loops as kernels
from fastconv.pooling import tiles
from fastconv.pooling.axis import Axes
from fastconv.pooling.base import Array, Indices, PoolAlgorithm


def _planes(tensor: Array) -> Array:
    """Return (N, C, H, W) as (N * C, H, W)."""
    return tensor.reshape(-1, *tensor.shape[2:])


def _pixels(tensor: Array) -> Array:
    """Return (N, C, H, W) as (N * C, H * W)."""
    return tensor.reshape(tensor.shape[0] * tensor.shape[1], -1)


class Jit(PoolAlgorithm):
    """Vectors of windows of each plane."""

    name = "jit"

    def maximum(self, x: Array, axes: Axes, out: Array, indices: Indices | None) -> None:
        """One plane an item of work, or a few rows of it."""
        rows, columns = axes
        if tiles.tile_window(axes) is not None:
            if indices is None:
                tiles.run("max", axes, x, out)
            else:
                tiles.run("max-index", axes, x, out, indices, columns.outputs)
            return
        planes = _planes(x)
        windows = (rows.start, rows.stop, rows.step, columns.start, columns.stop, columns.step)
        if indices is None:
            kernels.maximum(len(planes), planes, *windows, _planes(out))
        else:
            kernels.maximum_and_place(len(planes), planes, *windows, _planes(out), _planes(indices))

    def maximum_grad(self, grad: Array, indices: Indices, out: Array) -> None:
        """One plane an item of work."""
        gradients = _pixels(grad)
        kernels.maximum_grad(len(gradients), gradients, _pixels(indices), _pixels(out))

    def mean(self, x: Array, axes: Axes, out: Array) -> None:
        """One plane an item of work, or a few rows of it."""
        if tiles.tile_window(axes) is not None:
            tiles.run("mean", axes, x, out)
            return
        planes = _planes(x)
        kernels.mean(len(planes), planes, *_windows(axes), _planes(out))

    def mean_grad(self, grad: Array, axes: Axes, out: Array) -> None:
        """One plane an item of work, or a few rows of it."""
        if tiles.tile_window(axes) is not None:
            tiles.run("mean-grad", axes, grad, out)
            return
        planes = _planes(grad)
        kernels.mean_grad(len(planes), planes, *_windows(axes), _planes(out))


def _windows(axes: Axes) -> tuple[Indices, ...]:
    rows, columns = axes
    return (rows.start, rows.stop, columns.start, columns.stop, rows.divisor, columns.divisor)
