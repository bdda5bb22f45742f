"""Lowering: copying the patches of an image into the columns of a matrix, and adding them back.

A block is a rectangle of output pixels, rows [i0, i1) and columns [j0, j1) of the images
[n0, n1). `columns` has shape (channels * R * S, pixels of the block): row (c, r, s), and in it
the pixels of one image after the other.

Arrays are taken flat and indexed by unsigned integers: a signed index might be negative and
count from the end, as far as the compiler knows, and that possibility would cost more than the
copy itself.
"""

from __future__ import annotations

from typing import Any

from numba import uint64

from fastconv.jit.compiler import inner_kernel, kernel


@inner_kernel
def reachable(size: int, start: int, stop: int, stride: int, offset: int) -> tuple[int, int]:
    """Return the part of outputs [start, stop) whose input position is inside [0, size)."""
    first = min(max(start, -(offset // stride)), stop)
    last = min(stop, (size - 1 - offset) // stride + 1)
    return first, max(first, last)


@inner_kernel
def fill_zeros(target: Any, at: int, count: int) -> None:
    """Write `count` zeros."""
    at = uint64(at)
    for k in range(uint64(count)):
        target[at + k] = 0


@inner_kernel
def gather(target: Any, at: int, source: Any, start: int, count: int, stride: int) -> None:
    """Copy every `stride`-th element of the source to the target, `count` in all."""
    at, start, stride = uint64(at), uint64(start), uint64(stride)
    if stride == 1:
        for k in range(uint64(count)):
            target[at + k] = source[start + k]
    else:
        for k in range(uint64(count)):
            target[at + k] = source[start + k * stride]


@inner_kernel
def scatter_add(target: Any, at: int, source: Any, start: int, count: int, stride: int) -> None:
    """Add `count` elements of the source to every `stride`-th element of the target."""
    at, start, stride = uint64(at), uint64(start), uint64(stride)
    if stride == 1:
        for k in range(uint64(count)):
            target[at + k] += source[start + k]
    else:
        for k in range(uint64(count)):
            target[at + k * stride] += source[start + k]


@kernel
def lower(
    x: Any,
    columns: Any,
    c0: int,
    n0: int,
    n1: int,
    i0: int,
    i1: int,
    j0: int,
    j1: int,
    geometry: Any,
) -> None:
    """Copy the block's patches of `x`, of the channels from `c0` on, into `columns`."""
    g = geometry[0]
    C, H, W, R, S, stride = g.C, g.H, g.W, g.R, g.S, g.stride_w
    image, target, width = x.reshape(-1), columns.reshape(-1), j1 - j0
    at = 0
    for row in range(columns.shape[0]):
        c, r, s = c0 + row // (R * S), row // S % R, row % S
        offset = s * g.dilation_w - g.pad_left
        first, last = reachable(W, j0, j1, stride, offset)
        for n in range(n0, n1):
            plane = (n * C + c) * H
            for i in range(i0, i1):
                h = i * g.stride_h + r * g.dilation_h - g.pad_top
                if h < 0 or h >= H:
                    fill_zeros(target, at, width)
                else:
                    start = (plane + h) * W + first * stride + offset
                    fill_zeros(target, at, first - j0)
                    gather(target, at + first - j0, image, start, last - first, stride)
                    fill_zeros(target, at + last - j0, j1 - last)
                at += width


@kernel
def raise_columns(
    columns: Any,
    out: Any,
    c0: int,
    n0: int,
    n1: int,
    i0: int,
    i1: int,
    j0: int,
    j1: int,
    geometry: Any,
) -> None:
    """Add the block's columns, for the channels from `c0` on, back onto the images `out`."""
    g = geometry[0]
    C, H, W, R, S, stride = g.C, g.H, g.W, g.R, g.S, g.stride_w
    image, source, width = out.reshape(-1), columns.reshape(-1), j1 - j0
    start = 0
    for row in range(columns.shape[0]):
        c, r, s = c0 + row // (R * S), row // S % R, row % S
        offset = s * g.dilation_w - g.pad_left
        first, last = reachable(W, j0, j1, stride, offset)
        for n in range(n0, n1):
            plane = (n * C + c) * H
            for i in range(i0, i1):
                h = i * g.stride_h + r * g.dilation_h - g.pad_top
                if 0 <= h < H:
                    at = (plane + h) * W + first * stride + offset
                    scatter_add(image, at, source, start + first - j0, last - first, stride)
                start += width
