"""Lowering: copying the patches of an image into the columns of a matrix, and adding them back.

A block is a rectangle of output pixels, rows [i0, i1) and columns [j0, j1) of the images
[n0, n1). `columns` has shape (C * R * S, pixels of the block): row (c, r, s), and in it the
pixels of one image after the other.
"""

from __future__ import annotations

from typing import Any

from fastconv.kernels.jit import kernel


@kernel
def reachable(size: int, start: int, stop: int, stride: int, offset: int) -> tuple[int, int]:
    """Return the part of outputs [start, stop) whose input position is inside [0, size)."""
    first = max(start, -(offset // stride))
    last = min(stop, (size - 1 - offset) // stride + 1)
    first = min(first, stop)
    return first, max(first, last)


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
    H, W, R, S, stride = g.H, g.W, g.R, g.S, g.stride_w
    width = j1 - j0
    for row in range(columns.shape[0]):
        c, r, s = c0 + row // (R * S), row // S % R, row % S
        offset = s * g.dilation_w - g.pad_left
        first, last = reachable(W, j0, j1, stride, offset)
        pixel = 0
        for n in range(n0, n1):
            for i in range(i0, i1):
                h = i * g.stride_h + r * g.dilation_h - g.pad_top
                line = columns[row, pixel : pixel + width]
                pixel += width
                if h < 0 or h >= H:
                    line[:] = 0
                    continue
                for j in range(j0, first):
                    line[j - j0] = 0
                image = x[n, c, h]
                if stride == 1:
                    for j in range(first, last):
                        line[j - j0] = image[j + offset]
                else:
                    for j in range(first, last):
                        line[j - j0] = image[j * stride + offset]
                for j in range(last, j1):
                    line[j - j0] = 0


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
    H, W, R, S, stride = g.H, g.W, g.R, g.S, g.stride_w
    width = j1 - j0
    for row in range(columns.shape[0]):
        c, r, s = c0 + row // (R * S), row // S % R, row % S
        offset = s * g.dilation_w - g.pad_left
        first, last = reachable(W, j0, j1, stride, offset)
        pixel = 0
        for n in range(n0, n1):
            for i in range(i0, i1):
                h = i * g.stride_h + r * g.dilation_h - g.pad_top
                line = columns[row, pixel : pixel + width]
                pixel += width
                if h < 0 or h >= H:
                    continue
                image = out[n, c, h]
                if stride == 1:
                    for j in range(first, last):
                        image[j + offset] += line[j - j0]
                else:
                    for j in range(first, last):
                        image[j * stride + offset] += line[j - j0]
