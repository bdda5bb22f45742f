"""The oracle for pooling: windows cut out of the plane one output pixel at a time.

The rules are PyTorch's. Padding is never a value here: a window is a list of the positions it
covers inside the input, and an average that counts padding only divides by a larger number.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from reference import Array, Padding, Pair, PairLike, pair, resolve_padding, span

Range = tuple[int, int]


class Axis:
    """The windows along one axis of one pooling."""

    def __init__(
        self, size: int, kernel: int, stride: int, pad: Pair, dilation: int, ceil_mode: bool
    ) -> None:
        self.size, self.kernel, self.stride, self.dilation = size, kernel, stride, dilation
        self.before, self.after = pad
        self.count = self._count(ceil_mode)

    def _count(self, ceil_mode: bool) -> int:
        """Place windows one after another.

        A window must fit into the padded input. With `ceil_mode` one more may hang over the end
        to see what is left, but only if it starts inside the input or the padding before it.
        """
        end, length = self.before + self.size + self.after, span(self.kernel, self.dilation)
        count = 0
        while count * self.stride + length <= end:
            count += 1
        something_left = (count - 1) * self.stride + length < end
        if ceil_mode and something_left and count * self.stride < self.before + self.size:
            count += 1
        return count

    def cells(self, i: int) -> list[int]:
        """Return the positions that window i covers, those outside the input too."""
        first = i * self.stride - self.before
        return [first + t * self.dilation for t in range(self.kernel)]

    def inside(self, i: int) -> list[int]:
        """Return the positions of the input that window i covers."""
        return [p for p in self.cells(i) if 0 <= p < self.size]

    def counted(self, i: int) -> int:
        """Return how many cells of window i lie in the padded input."""
        return len([p for p in self.cells(i) if p < self.size + self.after])


def axes(
    size: Pair,
    kernel_size: PairLike,
    stride: PairLike | None = None,
    padding: Padding = 0,
    dilation: PairLike = 1,
    ceil_mode: bool = False,
) -> tuple[Axis, Axis]:
    kernel, rate = pair(kernel_size), pair(dilation)
    step = kernel if stride is None else pair(stride)
    pad = resolve_padding(padding, size, kernel, step, rate)
    rows, columns = (Axis(size[a], kernel[a], step[a], pad[a], rate[a], ceil_mode) for a in (0, 1))
    return rows, columns


def max_pool2d(
    x: ArrayLike,
    kernel_size: PairLike,
    stride: PairLike | None = None,
    padding: Padding = 0,
    dilation: PairLike = 1,
    ceil_mode: bool = False,
) -> tuple[Array, NDArray[np.int64]]:
    """Values and flat positions h*W + w of the unpadded plane.

    The first maximum wins. A NaN beats every number and every NaN before it, so that the last NaN
    of a window is the one named; a window of nothing but -inf names its first position. Both are
    PyTorch's. A window that covers no input at all (dilation can do that) has no maximum and is
    an error here.
    """
    x = np.asarray(x)
    n, c, h, w = x.shape
    rows, columns = axes((h, w), kernel_size, stride, padding, dilation, ceil_mode)
    values = np.zeros((n, c, rows.count, columns.count), x.dtype)
    indices = np.zeros(values.shape, np.int64)
    for i in range(rows.count):
        for j in range(columns.count):
            cells = [(p, q) for p in rows.inside(i) for q in columns.inside(j)]
            if not cells:
                raise ValueError("a window covers no input")
            top = x[(..., *cells[0])]
            best = np.full((n, c), cells[0][0] * w + cells[0][1])
            for p, q in cells:
                candidate = x[:, :, p, q]
                wins = (candidate > top) | np.isnan(candidate)
                top = np.where(wins, candidate, top)
                best = np.where(wins, p * w + q, best)
            values[:, :, i, j], indices[:, :, i, j] = top, best
    return values, indices


def max_pool2d_grad(
    grad_output: ArrayLike, indices: ArrayLike, input_shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Each output pixel hands its gradient to the position that won."""
    grad, indices = np.asarray(grad_output, np.float64), np.asarray(indices)
    n, c, h, w = input_shape
    out = np.zeros((n, c, h * w))
    for b in range(n):
        for k in range(c):
            where, what = indices[b, k].ravel(), grad[b, k].ravel()
            out[b, k] = np.bincount(where, weights=what, minlength=h * w)
    return out.reshape(n, c, h, w)


def average_windows(
    size: Pair,
    kernel_size: PairLike,
    stride: PairLike | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Iterator[tuple[int, int, tuple[slice, slice], int]]:
    """Give each output pixel (i, j) with the input it covers and what the sum is divided by.

    Counting padding counts the cells that lie in the padded input: what hangs over its end in
    `ceil_mode` is never counted.
    """
    rows, columns = axes(size, kernel_size, stride, padding, 1, ceil_mode)
    for i in range(rows.count):
        for j in range(columns.count):
            down, across = rows.inside(i), columns.inside(j)
            where = slice(down[0], down[-1] + 1), slice(across[0], across[-1] + 1)
            with_padding = rows.counted(i) * columns.counted(j)
            yield i, j, where, with_padding if count_include_pad else len(down) * len(across)


def avg_pool2d(
    x: ArrayLike,
    kernel_size: PairLike,
    stride: PairLike | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> NDArray[np.float64]:
    x = np.asarray(x, np.float64)
    size = (x.shape[2], x.shape[3])
    rows, columns = axes(size, kernel_size, stride, padding, 1, ceil_mode)
    out = np.zeros((*x.shape[:2], rows.count, columns.count))
    rule = (kernel_size, stride, padding, ceil_mode, count_include_pad)
    for i, j, where, divisor in average_windows(size, *rule):
        out[:, :, i, j] = x[(..., *where)].sum(axis=(2, 3)) / divisor
    return out


def avg_pool2d_grad(
    grad_output: ArrayLike,
    input_shape: tuple[int, ...],
    kernel_size: PairLike,
    stride: PairLike | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> NDArray[np.float64]:
    """Each output pixel hands an equal share to every pixel it averaged."""
    grad = np.asarray(grad_output, np.float64)
    out = np.zeros(input_shape)
    rule = (kernel_size, stride, padding, ceil_mode, count_include_pad)
    for i, j, where, divisor in average_windows((input_shape[2], input_shape[3]), *rule):
        out[(..., *where)] += grad[:, :, i, j, None, None] / divisor
    return out


def adaptive_ranges(size: int, count: int) -> list[Range]:
    """Cut `size` cells into `count` ranges, which overlap where they must.

    Cell p is in range i if the interval [p, p + 1) meets [i, i + 1) * size / count; both are
    taken times count here, to stay in integers.
    """
    parts = []
    for i in range(count):
        start, stop = i * size, (i + 1) * size
        cells = [p for p in range(size) if p * count < stop and (p + 1) * count > start]
        parts.append((cells[0], cells[-1] + 1))
    return parts


def adaptive_avg_pool2d(x: ArrayLike, output_size: PairLike) -> NDArray[np.float64]:
    x = np.asarray(x, np.float64)
    oh, ow = pair(output_size)
    out = np.zeros((*x.shape[:2], oh, ow))
    for i, (top, bottom) in enumerate(adaptive_ranges(x.shape[2], oh)):
        for j, (left, right) in enumerate(adaptive_ranges(x.shape[3], ow)):
            out[:, :, i, j] = x[:, :, top:bottom, left:right].mean(axis=(2, 3))
    return out


def adaptive_avg_pool2d_grad(
    grad_output: ArrayLike, input_shape: tuple[int, ...]
) -> NDArray[np.float64]:
    grad = np.asarray(grad_output, np.float64)
    out = np.zeros(input_shape)
    for i, (top, bottom) in enumerate(adaptive_ranges(input_shape[2], grad.shape[2])):
        for j, (left, right) in enumerate(adaptive_ranges(input_shape[3], grad.shape[3])):
            cells = (bottom - top) * (right - left)
            out[:, :, top:bottom, left:right] += grad[:, :, i, j, None, None] / cells
    return out
