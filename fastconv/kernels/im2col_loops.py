"""im2col and col2im: copying patches of images into the columns of a matrix, and adding them back.

A block of output pixels is an array of integers: the number of rows of the matrix, the first
channel, and the bounds of its images [n0, n1), rows [i0, i1) and columns [j0, j1). `columns` has
rows (c, r, s), each with the pixels (n, i, j).

Arrays are flat and indexed by unsigned integers. A signed index could be negative and count from
the end, and that check would cost more than the copy itself.
"""

from __future__ import annotations

from typing import Any

from numba import uint64

from fastconv.jit.compiler import inner_kernel, kernel


@inner_kernel
def reachable(size: int, start: int, stop: int, stride: int, offset: int) -> tuple[int, int]:
    """Return the part of the outputs [start, stop) that read inside [0, size)."""
    first, last = -(offset // stride), (size - 1 - offset) // stride + 1
    first = start if first < start else first
    first = stop if first > stop else first
    last = stop if last > stop else last
    return first, first if last < first else last


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
def im2col(x: Any, columns: Any, block: Any, geometry: Any) -> None:
    """Copy a block's patches of `x` into `columns`."""
    g, stride = geometry[0], geometry[0].stride_w
    c0, n0, n1, i0, i1 = block[1], block[2], block[3], block[4], block[5]
    j0, width = block[6], block[7] - block[6]
    at, taps = 0, g.R * g.S
    for row in range(block[0]):
        c, r, s = c0 + row // taps, row // g.S % g.R, row % g.S
        offset = s * g.dilation_w - g.pad_left
        first, last = reachable(g.W, j0, j0 + width, stride, offset)
        for n in range(n0, n1):
            for i in range(i0, i1):
                h = i * g.stride_h + r * g.dilation_h - g.pad_top
                if h < 0 or h >= g.H:
                    fill_zeros(columns, at, width)
                else:
                    start = ((n * g.C + c) * g.H + h) * g.W + first * stride + offset
                    fill_zeros(columns, at, first - j0)
                    gather(columns, at + first - j0, x, start, last - first, stride)
                    fill_zeros(columns, at + last - j0, j0 + width - last)
                at += width


@kernel
def col2im(columns: Any, out: Any, block: Any, geometry: Any) -> None:
    """Add a block's columns back onto the images `out`."""
    g, stride = geometry[0], geometry[0].stride_w
    c0, n0, n1, i0, i1 = block[1], block[2], block[3], block[4], block[5]
    j0, width = block[6], block[7] - block[6]
    start, taps = 0, g.R * g.S
    for row in range(block[0]):
        c, r, s = c0 + row // taps, row // g.S % g.R, row % g.S
        offset = s * g.dilation_w - g.pad_left
        first, last = reachable(g.W, j0, j0 + width, stride, offset)
        for n in range(n0, n1):
            for i in range(i0, i1):
                h = i * g.stride_h + r * g.dilation_h - g.pad_top
                if 0 <= h < g.H:
                    at = ((n * g.C + c) * g.H + h) * g.W + first * stride + offset
                    scatter_add(out, at, columns, start + first - j0, last - first, stride)
                start += width
