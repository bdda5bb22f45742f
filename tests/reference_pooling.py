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
        to see what is left; but then the last window is left out if it starts behind the input.
        """
        end, length = self.before + self.size + self.after, span(self.kernel, self.dilation)
        count = 0
        while count * self.stride + length <= end:
            count += 1
        something_left = (count - 1) * self.stride + length < end
        count += ceil_mode and something_left
        if ceil_mode and (count - 1) * self.stride >= self.before + self.size:
            count -= 1
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

    def all_meet_the_input(self) -> bool:
        """Return whether every window covers some of the input."""
        return all(self.inside(i) for i in range(self.count))


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
    wide_padding: bool = False,
) -> tuple[Array, NDArray[np.int64]]:
    """Values and flat positions h*W + w of the unpadded plane.

    The first maximum wins. A NaN beats every number and every NaN before it, so that the last NaN
    of a window is the one named; a window of nothing but -inf names its first position. Both are
    PyTorch's. A window that covers no input at all (dilation or wide padding can do that) has no
    maximum and is an error here; with `wide_padding` 0 and the position -1, which are ONNX's.
    """
    x = np.asarray(x)
    n, c, h, w = x.shape
    rows, columns = axes((h, w), kernel_size, stride, padding, dilation, ceil_mode)
    values = np.zeros((n, c, rows.count, columns.count), x.dtype)
    indices = np.zeros(values.shape, np.int64)
    for i in range(rows.count):
        for j in range(columns.count):
            cells = [(p, q) for p in rows.inside(i) for q in columns.inside(j)]
            if not cells and not wide_padding:
                raise ValueError("a window covers no input")
            if not cells:
                indices[:, :, i, j] = -1
                continue
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


def max_unpool2d(x: ArrayLike, indices: ArrayLike, size: Pair) -> Array:
    """Every value goes to its position, one after the other; all else is 0."""
    x, indices = np.asarray(x), np.asarray(indices)
    out = np.zeros((*x.shape[:2], size[0] * size[1]), x.dtype)
    for n, c, i, j in np.ndindex(*x.shape):
        out[n, c, indices[n, c, i, j]] = x[n, c, i, j]
    return out.reshape(*x.shape[:2], *size)


def max_unpool2d_grad(grad_output: ArrayLike, indices: ArrayLike) -> Array:
    """Every value gets the gradient of its position."""
    grad, indices = np.asarray(grad_output), np.asarray(indices)
    out = np.zeros(indices.shape, grad.dtype)
    for n, c, i, j in np.ndindex(*indices.shape):
        out[n, c, i, j] = grad[n, c].flat[indices[n, c, i, j]]
    return out


def average_windows(
    size: Pair,
    kernel_size: PairLike,
    stride: PairLike | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
    dilation: PairLike,
) -> Iterator[tuple[int, int, list[int], list[int], int]]:
    """Give each output pixel (i, j) with the input it covers and what the sum is divided by.

    Counting padding counts the cells that lie in the padded input: what hangs over its end in
    `ceil_mode` is never counted.
    """
    rows, columns = axes(size, kernel_size, stride, padding, dilation, ceil_mode)
    for i in range(rows.count):
        for j in range(columns.count):
            down, across = rows.inside(i), columns.inside(j)
            with_padding = rows.counted(i) * columns.counted(j)
            counted = with_padding if count_include_pad else len(down) * len(across)
            yield i, j, down, across, counted if divisor is None else divisor


def avg_pool2d(
    x: ArrayLike,
    kernel_size: PairLike,
    stride: PairLike | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    dilation: PairLike = 1,
) -> NDArray[np.float64]:
    """Divide sums; the mean of a window that counts nothing is NaN."""
    x = np.asarray(x, np.float64)
    size = (x.shape[2], x.shape[3])
    rows, columns = axes(size, kernel_size, stride, padding, dilation, ceil_mode)
    out = np.zeros((*x.shape[:2], rows.count, columns.count))
    rule = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation)
    for i, j, down, across, divisor in average_windows(size, *rule):
        total = x[:, :, down][:, :, :, across].sum(axis=(2, 3))
        out[:, :, i, j] = total / divisor if divisor else np.nan
    return out


def avg_pool2d_grad(
    grad_output: ArrayLike,
    input_shape: tuple[int, ...],
    kernel_size: PairLike,
    stride: PairLike | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    dilation: PairLike = 1,
) -> NDArray[np.float64]:
    """Each output pixel hands an equal share to every pixel it averaged."""
    grad = np.asarray(grad_output, np.float64)
    out = np.zeros(input_shape)
    rule = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation)
    size = (input_shape[2], input_shape[3])
    for i, j, down, across, divisor in average_windows(size, *rule):
        for p in down:
            for q in across:
                out[:, :, p, q] += grad[:, :, i, j] / divisor
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


def adaptive_max_pool2d(x: ArrayLike, output_size: PairLike) -> tuple[Array, NDArray[np.int64]]:
    """As `max_pool2d`, of the windows of `adaptive_avg_pool2d`."""
    x = np.asarray(x)
    oh, ow = pair(output_size)
    values = np.zeros((*x.shape[:2], oh, ow), x.dtype)
    indices = np.zeros(values.shape, np.int64)
    for i, (top, bottom) in enumerate(adaptive_ranges(x.shape[2], oh)):
        for j, (left, right) in enumerate(adaptive_ranges(x.shape[3], ow)):
            window = x[:, :, top:bottom, left:right]
            best, place = max_pool2d(window, window.shape[2:])
            h, w = np.divmod(place[:, :, 0, 0], right - left)
            values[:, :, i, j] = best[:, :, 0, 0]
            indices[:, :, i, j] = (top + h) * x.shape[3] + left + w
    return values, indices


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
