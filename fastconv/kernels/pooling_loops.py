"""Maximum pooling as loops, for windows of any size, stride and dilation.

A row of the output is the larger of itself and one tap's elements after the other: the inner loop
runs along the row, where the compiler makes vectors of it. As in `kernels.columns`, arrays are
taken flat and indexed by unsigned integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, uint64

from fastconv.kernels.columns import reachable
from fastconv.kernels.jit import inner_kernel, range_kernel


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
def maximum(
    start: int,
    stop: int,
    x: Any,
    top: Any,
    bottom: Any,
    row_step: int,
    even: Any,
    out: Any,
) -> None:
    """Fill rows of `out` with maxima.

    Rows ``range(top[i], bottom[i], row_step)`` of the input are in the windows of row i; `even`
    has the first column of the first window, the distance of windows, taps, and their distance.
    """
    H, W, OH, OW = x.shape[1], x.shape[2], out.shape[1], out.shape[2]
    image, target = x.reshape(-1), out.reshape(-1)
    left, stride, taps, gap = even
    for line in range(start, stop):
        plane, i = line // OH, line % OH
        for k in range(line * OW, (line + 1) * OW):
            target[k] = -np.inf
        for h in range(top[i], bottom[i], row_step):
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
    top: Any,
    bottom: Any,
    row_step: int,
    even: Any,
    first_column: Any,
    out: Any,
    indices: Any,
) -> None:
    """Do the same, and fill rows of `indices` with the places, h * W + w.

    `first_column` is that of each window inside the input: there is a maximum of -infinity.
    """
    H, W, OH, OW = x.shape[1], x.shape[2], out.shape[1], out.shape[2]
    image, target, places = x.reshape(-1), out.reshape(-1), indices.reshape(-1)
    left, stride, taps, gap = even
    for line in range(start, stop):
        plane, i = line // OH, line % OH
        for j in range(OW):
            target[line * OW + j] = -np.inf
            places[line * OW + j] = top[i] * W + first_column[j]
        for h in range(top[i], bottom[i], row_step):
            for s in range(taps):
                column = left + s * gap
                first, last = reachable(W, 0, OW, stride, column)
                place = h * W + first * stride + column
                keep_larger_and_place(
                    target, places, line * OW + first,
                    image, plane * H * W + place, last - first, stride, place,
                )  # fmt: skip


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
