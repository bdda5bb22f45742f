"""Pooling as loops, for windows of any size, stride and dilation, and any dtype.

If all windows have the same shape, the maximum of an output row is updated tap by tap: the inner
loop runs along the row, and the compiler vectorizes it. Other windows are computed one by one. The
first of equal maxima wins, and the last NaN.

All kernels share these arguments: images `x` and `out` are flat; `geometry` is a record of H, W,
OH, OW and the horizontal stride. The windows of output row i contain the input rows
``range(*rows[i])``, those of output column j the columns ``range(*columns[j])``. No number is below
`lowest`. As in `im2col_loops`, indices are unsigned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, uint64

from fastconv.jit.compiler import RangeKernel, inner_kernel, range_kernel


@inner_kernel
def keep_larger(out: Any, at: int, x: Any, start: int, count: int, stride: int) -> None:
    """Replace elements of `out` by every `stride`-th of `x` where that is larger, or NaN."""
    at, start, stride = uint64(at), uint64(start), uint64(stride)
    if stride == 1:
        for k in range(uint64(count)):
            old, new = out[at + k], x[start + k]
            out[at + k] = new if (new > old) | (new != new) else old
    else:
        for k in range(uint64(count)):
            old, new = out[at + k], x[start + k * stride]
            out[at + k] = new if (new > old) | (new != new) else old


@inner_kernel
def keep_larger_argmax(
    out: Any, argmax: Any, at: int, x: Any, start: int, count: int, stride: int, index: int
) -> None:
    """Do the same, and replace the argmax by ``index + k * stride``."""
    step, at, start, stride = stride, uint64(at), uint64(start), uint64(stride)
    for k in range(uint64(count)):
        old, new, before = out[at + k], x[start + k * stride], argmax[at + k]
        larger = (new > old) | (new != new)  # no `or`: both sides, without a branch
        out[at + k] = new if larger else old
        argmax[at + k] = index + int64(k) * step if larger else before


@range_kernel
def max_pool(
    start: int, stop: int, x: Any, rows: Any, taps: Any, geometry: Any, lowest: Any, out: Any
) -> None:
    """Fill rows of `out` with maxima of windows of one shape; `taps` is an `Axis.tap_table`."""
    g = geometry[0]
    for line in range(start, stop):
        plane, i = line // g.OH, line % g.OH
        for k in range(uint64(line * g.OW), uint64((line + 1) * g.OW)):
            out[k] = lowest
        for h in range(rows[i, 0], rows[i, 1], rows[i, 2]):
            row = (plane * g.H + h) * g.W
            for s in range(taps.shape[0]):
                first, count, column = taps[s, 0], taps[s, 1], taps[s, 2]
                keep_larger(out, line * g.OW + first, x, row + column, count, g.stride)


@range_kernel
def max_pool_argmax(
    start: int,
    stop: int,
    x: Any,
    rows: Any,
    columns: Any,
    taps: Any,
    geometry: Any,
    lowest: Any,
    out: Any,
    argmax: Any,
) -> None:
    """Do the same, and fill rows of `argmax` with h * W + w, the first tap if all are `lowest`."""
    g = geometry[0]
    for line in range(start, stop):
        plane, i = line // g.OH, line % g.OH
        for j in range(g.OW):
            out[uint64(line * g.OW + j)] = lowest
            argmax[uint64(line * g.OW + j)] = rows[i, 0] * g.W + columns[j, 0]
        for h in range(rows[i, 0], rows[i, 1], rows[i, 2]):
            for s in range(taps.shape[0]):
                first, count, index = taps[s, 0], taps[s, 1], h * g.W + taps[s, 2]
                at, source = line * g.OW + first, plane * g.H * g.W + index
                keep_larger_argmax(out, argmax, at, x, source, count, g.stride, index)


@range_kernel
def max_pool_each(
    start: int,
    stop: int,
    x: Any,
    rows: Any,
    columns: Any,
    geometry: Any,
    lowest: Any,
    out: Any,
    argmax: Any,
) -> None:
    """Do the same for windows of different shapes."""
    g = geometry[0]
    for line in range(start, stop):
        plane, i = line // g.OH, line % g.OH
        for j in range(g.OW):
            best, index = lowest, rows[i, 0] * g.W + columns[j, 0]
            for h in range(rows[i, 0], rows[i, 1], rows[i, 2]):
                row = (plane * g.H + h) * g.W
                for w in range(columns[j, 0], columns[j, 1], columns[j, 2]):
                    new = x[uint64(row + w)]
                    larger = (new > best) | (new != new)
                    best = new if larger else best
                    index = h * g.W + w if larger else index
            out[uint64(line * g.OW + j)] = best
            argmax[uint64(line * g.OW + j)] = index


@range_kernel
def mean_pool(
    start: int,
    stop: int,
    x: Any,
    rows: Any,
    columns: Any,
    row_divisors: Any,
    column_divisors: Any,
    geometry: Any,
    out: Any,
) -> None:
    """Fill rows of `out` with sums of windows, divided by the product of two divisors."""
    g = geometry[0]
    for line in range(start, stop):
        plane, i = line // g.OH, line % g.OH
        for j in range(g.OW):
            total = out.dtype.type(0)
            for h in range(rows[i, 0], rows[i, 1], rows[i, 2]):
                row = (plane * g.H + h) * g.W
                for w in range(columns[j, 0], columns[j, 1], columns[j, 2]):
                    total += x[uint64(row + w)]
            out[uint64(line * g.OW + j)] = total / (row_divisors[i] * column_divisors[j])


@range_kernel
def mean_pool_grad(
    start: int,
    stop: int,
    grad: Any,
    rows: Any,
    columns: Any,
    row_divisors: Any,
    column_divisors: Any,
    geometry: Any,
    out: Any,
) -> None:
    """Fill planes of `out` with the input gradient, adding windows in output order."""
    g = geometry[0]
    for plane in range(start, stop):
        for pixel in range(uint64(plane * g.H * g.W), uint64((plane + 1) * g.H * g.W)):
            out[pixel] = 0
        for window in range(g.OH * g.OW):
            i, j = window // g.OW, window % g.OW
            value = grad[uint64(plane * g.OH * g.OW + window)]
            value /= row_divisors[i] * column_divisors[j]
            for h in range(rows[i, 0], rows[i, 1], rows[i, 2]):
                row = (plane * g.H + h) * g.W
                for w in range(columns[j, 0], columns[j, 1], columns[j, 2]):
                    out[uint64(row + w)] += value


# Scatter and gather by argmax: arrays are (planes, windows) and (planes, H * W). One thread handles
# a plane in the order of its windows, so results are bitwise identical for any thread count.
# `wrong` tells for each plane whether an index is outside it. An index is read only once, because
# another thread may write to the caller's array; as an unsigned integer, a negative index is very
# large.


def by_indices(loop: RangeKernel, source: Any, indices: Any, out: Any, *rest: bool) -> bool:
    """Run one of the following loops on (N, C, ...); return whether all indices were inside."""
    planes = out.shape[0] * out.shape[1]
    wrong = np.empty(planes, np.bool_)
    loop(planes, *(array.reshape(planes, -1) for array in (source, indices, out)), wrong, *rest)
    return not wrong.any()


@range_kernel
def scatter(
    start: int, stop: int, values: Any, indices: Any, out: Any, wrong: Any, adding: bool
) -> None:
    """Scatter values to planes of `out`; equal indices are added, or the last value wins."""
    pixels, zero = uint64(out.shape[1]), out.dtype.type(0)
    for plane in range(start, stop):
        for pixel in range(pixels):
            out[plane, pixel] = zero
        outside = False
        for k in range(uint64(values.shape[1])):
            index = uint64(indices[plane, k])
            if index < pixels:
                before = out[plane, index] if adding else zero
                out[plane, index] = before + values[plane, k]
            else:
                outside = True
        wrong[plane] = outside


@range_kernel
def gather(start: int, stop: int, source: Any, indices: Any, out: Any, wrong: Any) -> None:
    """Fill planes of `out` with the elements of `source` at `indices`."""
    pixels = uint64(source.shape[1])
    for plane in range(start, stop):
        outside = False
        for k in range(uint64(out.shape[1])):
            index = uint64(indices[plane, k])
            if index < pixels:
                out[plane, k] = source[plane, index]
            else:
                outside = True
        wrong[plane] = outside
