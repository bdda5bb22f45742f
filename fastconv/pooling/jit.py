"""Pooling as Numba loops, the planes spread over threads."""

from __future__ import annotations

from fastconv.kernels import pooling as kernels
from fastconv.pooling.axis import Axes
from fastconv.pooling.base import Array, Indices, PoolAlgorithm


def _planes(tensor: Array) -> Array:
    """Return (N, C, H, W) as (N * C, H, W)."""
    return tensor.reshape(-1, *tensor.shape[2:])


def _pixels(tensor: Array) -> Array:
    """Return (N, C, H, W) as (N * C, H * W)."""
    return tensor.reshape(tensor.shape[0] * tensor.shape[1], -1)


class Jit(PoolAlgorithm):
    """Compiled loops over the windows of each plane."""

    name = "jit"

    def maximum(self, x: Array, axes: Axes, out: Array, indices: Indices) -> None:
        """One plane an item of work."""
        rows, columns = axes
        planes = _planes(x)
        windows = (rows.start, rows.stop, rows.step, columns.start, columns.stop, columns.step)
        kernels.maximum(len(planes), planes, *windows, _planes(out), _planes(indices))

    def maximum_grad(self, grad: Array, indices: Indices, out: Array) -> None:
        """One plane an item of work."""
        gradients = _pixels(grad)
        kernels.maximum_grad(len(gradients), gradients, _pixels(indices), _pixels(out))

    def mean(self, x: Array, axes: Axes, out: Array) -> None:
        """One plane an item of work."""
        planes = _planes(x)
        kernels.mean(len(planes), planes, *_windows(axes), _planes(out))

    def mean_grad(self, grad: Array, axes: Axes, out: Array) -> None:
        """One plane an item of work."""
        planes = _planes(grad)
        kernels.mean_grad(len(planes), planes, *_windows(axes), _planes(out))


def _windows(axes: Axes) -> tuple[Indices, ...]:
    rows, columns = axes
    return (rows.start, rows.stop, columns.start, columns.stop, rows.divisor, columns.divisor)
