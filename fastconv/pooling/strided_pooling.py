"""Pooling on stride-trick views: all windows of an image at once, reduced by NumPy.

Adaptive windows of differing sizes have no common stride: maxima are taken of one after the other,
and sums slice by slice, first along the height and then along the width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.core.geometry import extent
from fastconv.core.pool_axis import Axes, Axis
from fastconv.core.sliding_windows import windows_view
from fastconv.pooling.pool_algorithm import Array, Indices, PoolAlgorithm, lowest


class Windows(PoolAlgorithm):
    """NumPy reductions over a view of every window."""

    name = "windows"

    def maximum(self, x: Array, axes: Axes, out: Array, indices: Indices | None) -> None:
        """Reduce the view with `max`, find its index with `argmax`."""
        rows, columns = axes
        if rows.even is None or columns.even is None:
            self._maximum_of_each(x, axes, out, indices)
            return
        view = _view(x, axes, lowest(x.dtype))
        flat = view.reshape(*view.shape[:4], -1)  # copies the windows
        # Padding must never win, nor be the argmax of lowest numbers: mark the window's real
        # elements, and among equal values take the first of those.
        inside = _view(np.ones((1, 1, *x.shape[2:]), bool), axes, False)
        real = inside.reshape(1, 1, *view.shape[2:4], -1)
        tap = _first_largest(flat, real)
        # The element itself, not the maximum that NumPy found: zeros have signs.
        out[...] = np.take_along_axis(flat, tap[..., np.newaxis], axis=-1)[..., 0]
        if indices is not None:
            r, s = np.divmod(tap, view.shape[-1])
            h = _first_taps(rows)[:, np.newaxis] + r * rows.step
            w = _first_taps(columns) + s * columns.step
            indices[...] = h * columns.size + w

    def _maximum_of_each(self, x: Array, axes: Axes, out: Array, indices: Indices | None) -> None:
        """Take the windows one after the other."""
        rows, columns = axes
        positions = np.arange(rows.size * columns.size).reshape(1, 1, rows.size, columns.size)
        for i, j in np.ndindex(rows.outputs, columns.outputs):
            if rows.empty[i] or columns.empty[j]:
                continue
            here = (..., rows.window(i), columns.window(j))
            flat = x[here].reshape(*x.shape[:2], -1)
            tap = _first_largest(flat, True)
            out[:, :, i, j] = np.take_along_axis(flat, tap[..., np.newaxis], axis=-1)[..., 0]
            if indices is not None:
                indices[:, :, i, j] = positions[here].reshape(-1)[tap]

    def maximum_grad(self, grad: Array, indices: Indices, out: Array) -> bool:
        """Count the indices with the gradients as weights; sums are formed in float64."""
        plane = out.shape[2] * out.shape[3]
        if indices.min() < 0 or indices.max() >= plane:
            return False
        planes = out.shape[0] * out.shape[1]
        first = np.arange(planes)[:, np.newaxis] * plane
        flat = (first + indices.reshape(planes, -1)).ravel()
        out[...] = np.bincount(flat, grad.ravel(), out.size).reshape(out.shape)
        return True

    def mean(self, x: Array, axes: Axes, out: Array) -> None:
        """Sum the last two axes of the view."""
        rows, columns = axes
        if rows.even and columns.even:
            sums = _view(x, axes, 0).sum(axis=(4, 5))
        else:
            bands = [x[:, :, rows.window(i)].sum(axis=2) for i in range(rows.outputs)]
            band = np.stack(bands, axis=2)
            cells = [band[..., columns.window(j)].sum(axis=3) for j in range(columns.outputs)]
            sums = np.stack(cells, axis=3)
        counts = np.broadcast_to(_counts(axes).astype(x.dtype), sums.shape)
        np.divide(sums, counts, out=out, where=counts != 0)
        out[counts == 0] = np.nan

    def mean_grad(self, grad: Array, axes: Axes, out: Array) -> None:
        """Spread the gradients' shares over rows of the input, then over its columns."""
        rows, columns = axes
        counts = np.broadcast_to(_counts(axes).astype(grad.dtype), grad.shape)
        shares = np.divide(grad, counts, out=np.zeros_like(grad), where=counts != 0)
        bands = np.zeros((*out.shape[:3], columns.outputs), out.dtype)
        for i in range(rows.outputs):
            bands[:, :, rows.window(i)] += shares[:, :, i : i + 1]
        out[...] = 0
        for j in range(columns.outputs):
            out[..., columns.window(j)] += bands[..., j : j + 1]


def _first_largest(flat: Array, real: Any) -> Indices:
    """Return where along the last axis the first maximum of `real` elements is, or the last NaN."""
    best = flat.max(axis=-1)
    equal = (flat == best[..., np.newaxis]) & real
    tap: Indices = equal.argmax(axis=-1)
    if np.isnan(best).any():
        last_nan = flat.shape[-1] - 1 - np.isnan(flat)[..., ::-1].argmax(axis=-1)
        tap = np.where(np.isnan(best), last_nan, tap)
    return tap


def _counts(axes: Axes) -> Indices:
    return np.multiply.outer(axes[0].divisor, axes[1].divisor)


def _first_taps(axis: Axis) -> Indices:
    """Return the position of each window's first tap, in the padding or not."""
    assert axis.even is not None
    start, stride, _ = axis.even
    return start + stride * np.arange(axis.outputs, dtype=np.int64)


def _view(x: Array, axes: Axes, fill: float) -> Array:
    """Return the view (N, C, OH, OW, R, S) of all windows of `x`, with `fill` outside."""
    widths = [(0, 0), (0, 0)]
    kernel, stride = [], []
    for axis in axes:
        assert axis.even is not None
        start, distance, taps = axis.even
        end = start + (axis.outputs - 1) * distance + extent(taps, axis.step)
        widths.append((-start, max(0, end - axis.size)))
        kernel.append(taps)
        stride.append(distance)
    padded = np.pad(x, widths, constant_values=fill) if np.any(widths) else x
    (OH, OW), (R, S), (down, across) = (axis.outputs for axis in axes), kernel, stride
    return windows_view(padded, (OH, OW), (R, S), (down, across), (axes[0].step, axes[1].step))
