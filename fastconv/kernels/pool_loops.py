"""Pooling as loops, for windows of any size, stride and dilation, and any type.

Where windows are alike, a row of the output is the larger of itself and one tap's elements after
the other: the inner loop runs along the row, where the compiler makes vectors of it. Other windows
are looked at one by one. As in `kernels.columns`, arrays are taken flat and indexed by unsigned
integers.
"""

from __future__ import annotations

from typing import Any

from numba import int64, uint64

from fastconv.jit.compiler import inner_kernel, range_kernel
from fastconv.kernels.im2col_loops import reachable


@inner_kernel
def larger(old: Any, new: Any) -> Any:
    """Return whether `new` takes the place of `old`."""
    return (new > old) | (new != new)  # no `or`: both sides, without a branch


@inner_kernel
def keep_larger(out: Any, at: int, x: Any, start: int, count: int, stride: int) -> None:
    """Replace elements of `out` by every `stride`-th of `x` where that is larger, or NaN."""
    at, start, stride = uint64(at), uint64(start), uint64(stride)
    if stride == 1:
        for k in range(uint64(count)):
            old, new = out[at + k], x[start + k]
            out[at + k] = new if larger(old, new) else old
    else:
        for k in range(uint64(count)):
            old, new = out[at + k], x[start + k * stride]
            out[at + k] = new if larger(old, new) else old


@inner_kernel
def keep_larger_and_place(
    out: Any, places: Any, at: int, x: Any, start: int, count: int, stride: int, place: int
) -> None:
    """Do the same, and replace the places by ``place + k * stride``."""
    step, at, start, stride = stride, uint64(at), uint64(start), uint64(stride)
    for k in range(uint64(count)):
        old, new, before = out[at + k], x[start + k * stride], places[at + k]
        wins = larger(old, new)
        out[at + k] = new if wins else old
        places[at + k] = place + int64(k) * step if wins else before


@range_kernel
def maximum(start: int, stop: int, x: Any, rows: Any, even: Any, lowest: Any, out: Any) -> None:
    """Fill rows of `out` with maxima.

    Rows ``range(*rows[i])`` of the input are in the windows of row i; `even` has the first column
    of the first window, the distance of windows, taps, and their distance. No number is below
    `lowest`.
    """
    H, W, OH, OW = x.shape[1], x.shape[2], out.shape[1], out.shape[2]
    image, target = x.reshape(-1), out.reshape(-1)
    left, stride, taps, gap = even
    for line in range(start, stop):
        plane, i = line // OH, line % OH
        for k in range(line * OW, (line + 1) * OW):
            target[k] = lowest
        for h in range(rows[i, 0], rows[i, 1], rows[i, 2]):
            row = (plane * H + h) * W
            for s in range(taps):
                column = left + s * gap
                first, last = reachable(W, 0, OW, stride, column)
                begin = row + first * stride + column
                keep_larger(target, line * OW + first, image, begin, last - first, stride)


@range_kernel
def maximum_and_place(
    start: int,
    stop: int,
    x: Any,
    rows: Any,
    even: Any,
    columns: Any,
    lowest: Any,
    out: Any,
    indices: Any,
) -> None:
    """Do the same, and fill rows of `indices` with the places, h * W + w.

    Window j begins in column ``columns[j, 0]`` of the input: there the lowest number has its place.
    """
    H, W, OH, OW = x.shape[1], x.shape[2], out.shape[1], out.shape[2]
    image, target, places = x.reshape(-1), out.reshape(-1), indices.reshape(-1)
    left, stride, taps, gap = even
    for line in range(start, stop):
        plane, i = line // OH, line % OH
        for j in range(OW):
            target[line * OW + j] = lowest
            places[line * OW + j] = rows[i, 0] * W + columns[j, 0]
        for h in range(rows[i, 0], rows[i, 1], rows[i, 2]):
            for s in range(taps):
                column = left + s * gap
                first, last = reachable(W, 0, OW, stride, column)
                place = h * W + first * stride + column
                keep_larger_and_place(
                    target, places, line * OW + first,
                    image, plane * H * W + place, last - first, stride, place,
                )  # fmt: skip


@range_kernel
def maximum_of_each(
    start: int,
    stop: int,
    x: Any,
    rows: Any,
    columns: Any,
    lowest: Any,
    out: Any,
    indices: Any,
) -> None:
    """Do the same for windows that are not alike, of rows and columns from such ranges."""
    H, W, OH, OW = x.shape[1], x.shape[2], out.shape[1], out.shape[2]
    image, target, places = x.reshape(-1), out.reshape(-1), indices.reshape(-1)
    for line in range(start, stop):
        plane, i = line // OH, line % OH
        for j in range(OW):
            best, place = lowest, rows[i, 0] * W + columns[j, 0]
            for h in range(rows[i, 0], rows[i, 1], rows[i, 2]):
                row = (plane * H + h) * W
                for w in range(columns[j, 0], columns[j, 1], columns[j, 2]):
                    new = image[uint64(row + w)]
                    wins = larger(best, new)
                    best = new if wins else best
                    place = h * W + w if wins else place
            target[line * OW + j] = best
            places[line * OW + j] = place


@range_kernel
def maximum_grad(start: int, stop: int, grad: Any, indices: Any, out: Any, wrong: Any) -> None:
    """Fill planes of `out` (planes, H * W) with the gradients at their places.

    They are added in the order of the windows, by one thread for each plane: so the sums do not
    depend on the number of threads. `wrong` says of each plane whether a place is outside it.
    """
    pixels = uint64(out.shape[1])
    for plane in range(start, stop):
        sent, places, received = grad[plane], indices[plane], out[plane]
        received[:] = 0
        outside = False
        for k in range(sent.size):
            # Read once: another thread may write to the caller's array meanwhile. A negative
            # number is a very large one without its sign.
            place = uint64(places[k])
            if place < pixels:
                received[place] += sent[k]
            else:
                outside = True
        wrong[plane] = outside


@range_kernel
def mean(
    start: int,
    stop: int,
    x: Any,
    rows: Any,
    columns: Any,
    row_divisors: Any,
    column_divisors: Any,
    out: Any,
) -> None:
    """Fill rows of `out` with sums of windows, divided by the product of two divisors."""
    H, W, OH, OW = x.shape[1], x.shape[2], out.shape[1], out.shape[2]
    image, target = x.reshape(-1), out.reshape(-1)
    for line in range(start, stop):
        plane, i = line // OH, line % OH
        for j in range(OW):
            total = target.dtype.type(0)
            for h in range(rows[i, 0], rows[i, 1], rows[i, 2]):
                row = (plane * H + h) * W
                for w in range(columns[j, 0], columns[j, 1], columns[j, 2]):
                    total += image[uint64(row + w)]
            target[line * OW + j] = total / (row_divisors[i] * column_divisors[j])


@range_kernel
def mean_grad(
    start: int,
    stop: int,
    grad: Any,
    rows: Any,
    columns: Any,
    row_divisors: Any,
    column_divisors: Any,
    out: Any,
) -> None:
    """Fill planes of `out` with each gradient's shares, added in the order of the windows."""
    OH, OW = grad.shape[1], grad.shape[2]
    for plane in range(start, stop):
        received = out[plane]
        received[:] = 0
        for i in range(OH):
            for j in range(OW):
                share = grad[plane, i, j] / (row_divisors[i] * column_divisors[j])
                for h in range(rows[i, 0], rows[i, 1], rows[i, 2]):
                    for w in range(columns[j, 0], columns[j, 1], columns[j, 2]):
                        received[h, w] += share


@range_kernel
def put(start: int, stop: int, values: Any, indices: Any, out: Any, wrong: Any) -> None:
    """Fill planes of `out` (planes, H * W) with values at their places, the last of several.

    `wrong` says of each plane whether a place is outside it.
    """
    pixels = uint64(out.shape[1])
    for plane in range(start, stop):
        given, places, filled = values[plane], indices[plane], out[plane]
        filled[:] = 0
        outside = False
        for k in range(given.size):
            place = uint64(places[k])
            if place < pixels:
                filled[place] = given[k]
            else:
                outside = True
        wrong[plane] = outside


@range_kernel
def take(start: int, stop: int, source: Any, indices: Any, out: Any, wrong: Any) -> None:
    """Fill planes of `out` with what `source` (planes, H * W) has at their places."""
    pixels = uint64(source.shape[1])
    for plane in range(start, stop):
        held, places, taken = source[plane], indices[plane], out[plane]
        outside = False
        for k in range(taken.size):
            place = uint64(places[k])
            if place < pixels:
                taken[k] = held[place]
            else:
                outside = True
        wrong[plane] = outside
