"""The oracle: every operation written a second time, plainly and slowly, with NumPy alone.

It imports nothing from the library and takes other roads than the library does, so that one
misunderstanding is unlikely to sit in both: sizes are counted, not computed by formula; a
convolution is a sum over kernel taps of shifted slices; a transposed convolution scatters each
input pixel and never speaks of gradients; columns are cut out one output pixel at a time.
Pooling is in `reference_pooling`.

N batch, C input channels, K output channels, H W input size, R S kernel size, OH OW output
size, G groups. Sums are taken in float64 unless another `dtype` is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array = NDArray[Any]
Pair = tuple[int, int]
PairLike = int | Pair
Padding = int | str | Pair | tuple[Pair, Pair]


# sizes -------------------------------------------------------------------------------------------


def pair(value: PairLike) -> Pair:
    """One number for both axes, or (vertical, horizontal)."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def span(kernel: int, dilation: int) -> int:
    """Input pixels from the first tap to the last, both counted."""
    return (kernel - 1) * dilation + 1


def count_windows(size: int, window: int, stride: int) -> int:
    """Windows that fit, found by placing them one after another."""
    count = 0
    while count * stride + window <= size:
        count += 1
    return count


def resolve_padding(
    padding: Padding, size: Pair, kernel: Pair, stride: Pair, dilation: Pair
) -> tuple[Pair, Pair]:
    """Any accepted spelling of padding as ((top, bottom), (left, right))."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding in ("same", "same_lower"):
        axes = []
        for length, taps, step, rate in zip(size, kernel, stride, dilation, strict=True):
            # TensorFlow: one output for each stride begun, the odd pixel of padding at the end.
            # ONNX calls that SAME_UPPER; SAME_LOWER has it at the beginning.
            wanted = len(range(0, length, step))
            total = 0
            while count_windows(length + total, span(taps, rate), step) < wanted:
                total += 1
            less = total // 2
            axes.append((less, total - less) if padding == "same" else (total - less, less))
        return axes[0], axes[1]
    if isinstance(padding, str):
        raise ValueError(f"unknown padding {padding!r}")
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    vertical, horizontal = padding
    if isinstance(vertical, int) and isinstance(horizontal, int):
        return (vertical, vertical), (horizontal, horizontal)
    assert isinstance(vertical, tuple)
    assert isinstance(horizontal, tuple)
    return vertical, horizontal


class Geometry:
    """Where the taps of a convolution fall, with every argument spelled out."""

    def __init__(
        self, size: Pair, kernel: Pair, stride: PairLike, padding: Padding, dilation: PairLike
    ) -> None:
        self.size, self.kernel = size, kernel
        self.stride, self.dilation = pair(stride), pair(dilation)
        self.pad = resolve_padding(padding, size, kernel, self.stride, self.dilation)
        self.padded = (size[0] + sum(self.pad[0]), size[1] + sum(self.pad[1]))
        self.out = (self._count(0), self._count(1))

    def _count(self, axis: int) -> int:
        window = span(self.kernel[axis], self.dilation[axis])
        return count_windows(self.padded[axis], window, self.stride[axis])

    def taps(self) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
        """Give each tap (r, s) with the slices it meets: one element per output pixel."""
        (sh, sw), (dh, dw), (oh, ow) = self.stride, self.dilation, self.out
        for r in range(self.kernel[0]):
            for s in range(self.kernel[1]):
                rows = slice(r * dh, r * dh + (oh - 1) * sh + 1, sh)
                columns = slice(s * dw, s * dw + (ow - 1) * sw + 1, sw)
                yield r, s, (rows, columns)

    def windows(self) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
        """Give each output pixel (i, j) with the slices it reads: one element per tap."""
        (sh, sw), (dh, dw) = self.stride, self.dilation
        height, width = span(self.kernel[0], dh), span(self.kernel[1], dw)
        for i in range(self.out[0]):
            for j in range(self.out[1]):
                rows = slice(i * sh, i * sh + height, dh)
                yield i, j, (rows, slice(j * sw, j * sw + width, dw))

    def crop(self, padded: Array) -> Array:
        """Cut the input out of a padded plane."""
        top, left = self.pad[0][0], self.pad[1][0]
        return padded[..., top : top + self.size[0], left : left + self.size[1]]


def output_size(
    size: Pair,
    kernel: Pair,
    stride: PairLike = 1,
    padding: Padding = 0,
    dilation: PairLike = 1,
) -> Pair:
    return Geometry(size, kernel, stride, padding, dilation).out


# convolution -------------------------------------------------------------------------------------


def zero_pad(x: Array, pad: tuple[Pair, Pair]) -> Array:
    return np.pad(x, ((0, 0), (0, 0), *pad))


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: PairLike = 1,
    padding: Padding = 0,
    dilation: PairLike = 1,
    groups: int = 1,
    dtype: DTypeLike = np.float64,
) -> Array:
    """Cross-correlation: for each tap, a slice of the zero-padded input times the tap's matrix."""
    x, weight = np.asarray(x, dtype), np.asarray(weight, dtype)
    n, c, k = x.shape[0], x.shape[1], weight.shape[0]
    g = Geometry(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    padded = zero_pad(x, g.pad).reshape(n, groups, c // groups, *g.padded)
    taps = weight.reshape(groups, k // groups, *weight.shape[1:])
    out = np.zeros((n, groups, k // groups, *g.out), dtype)
    for r, s, where in g.taps():
        out += np.einsum("ngcij,gkc->ngkij", padded[(..., *where)], taps[..., r, s])
    out = out.reshape(n, k, *g.out)
    return out if bias is None else out + np.asarray(bias, dtype)[:, None, None]


def conv2d_input_grad(
    input_shape: tuple[int, ...],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: PairLike = 1,
    padding: Padding = 0,
    dilation: PairLike = 1,
    groups: int = 1,
    dtype: DTypeLike = np.float64,
) -> Array:
    """Each tap hands the output's gradient back to the slice it read."""
    weight, grad = np.asarray(weight, dtype), np.asarray(grad_output, dtype)
    n, c, k = input_shape[0], input_shape[1], weight.shape[0]
    g = Geometry((input_shape[2], input_shape[3]), weight.shape[2:], stride, padding, dilation)
    grad = grad.reshape(n, groups, k // groups, *g.out)
    taps = weight.reshape(groups, k // groups, *weight.shape[1:])
    padded = np.zeros((n, groups, c // groups, *g.padded), dtype)
    for r, s, where in g.taps():
        padded[(..., *where)] += np.einsum("ngkij,gkc->ngcij", grad, taps[..., r, s])
    return g.crop(padded.reshape(n, c, *g.padded))


def conv2d_weight_grad(
    x: ArrayLike,
    weight_shape: tuple[int, ...],
    grad_output: ArrayLike,
    stride: PairLike = 1,
    padding: Padding = 0,
    dilation: PairLike = 1,
    groups: int = 1,
    dtype: DTypeLike = np.float64,
) -> Array:
    """Each tap's gradient: inner product of the output's gradient and the slice the tap read."""
    x, grad = np.asarray(x, dtype), np.asarray(grad_output, dtype)
    n, c, k = x.shape[0], x.shape[1], weight_shape[0]
    g = Geometry(x.shape[2:], (weight_shape[2], weight_shape[3]), stride, padding, dilation)
    padded = zero_pad(x, g.pad).reshape(n, groups, c // groups, *g.padded)
    grad = grad.reshape(n, groups, k // groups, *g.out)
    out = np.zeros((groups, k // groups, *weight_shape[1:]), dtype)
    for r, s, where in g.taps():
        out[..., r, s] = np.einsum("ngkij,ngcij->gkc", grad, padded[(..., *where)])
    return out.reshape(weight_shape)


def conv_transpose2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: PairLike = 1,
    padding: PairLike = 0,
    output_padding: PairLike = 0,
    groups: int = 1,
    dilation: PairLike = 1,
    dtype: DTypeLike = np.float64,
) -> Array:
    """Each input pixel stamps the kernel, times its value, onto the output.

    The weight has shape (C, K/G, R, S).
    """
    x, weight = np.asarray(x, dtype), np.asarray(weight, dtype)
    (n, c, h, w), (_, per_group, r, s) = x.shape, weight.shape
    (sh, sw), (dh, dw), (ph, pw) = pair(stride), pair(dilation), pair(padding)
    extra = pair(output_padding)
    height, width = span(r, dh), span(s, dw)
    stamps = weight.reshape(groups, c // groups, per_group, r, s)
    pixels = x.reshape(n, groups, c // groups, h, w)
    full = ((h - 1) * sh + height + extra[0], (w - 1) * sw + width + extra[1])
    canvas = np.zeros((n, groups, per_group, *full), dtype)
    for i in range(h):
        for j in range(w):
            stamp = np.einsum("ngc,gckrs->ngkrs", pixels[..., i, j], stamps)
            rows, columns = slice(i * sh, i * sh + height, dh), slice(j * sw, j * sw + width, dw)
            canvas[..., rows, columns] += stamp
    out = canvas[..., ph : full[0] - ph, pw : full[1] - pw]
    out = out.reshape(n, groups * per_group, *out.shape[3:])
    return out if bias is None else out + np.asarray(bias, dtype)[:, None, None]


# columns -----------------------------------------------------------------------------------------


def im2col(
    x: ArrayLike,
    kernel_size: PairLike,
    dilation: PairLike = 1,
    padding: Padding = 0,
    stride: PairLike = 1,
) -> Array:
    """Each window of the zero-padded input, flattened, as one column: (N, C*R*S, OH*OW)."""
    x = np.asarray(x)
    n, c = x.shape[:2]
    g = Geometry(x.shape[2:], pair(kernel_size), stride, padding, dilation)
    padded = zero_pad(x, g.pad)
    out = np.zeros((n, c * g.kernel[0] * g.kernel[1], g.out[0] * g.out[1]), x.dtype)
    for i, j, where in g.windows():
        out[:, :, i * g.out[1] + j] = padded[(..., *where)].reshape(n, out.shape[1])
    return out


def col2im(
    cols: ArrayLike,
    output_size: Pair,
    kernel_size: PairLike,
    dilation: PairLike = 1,
    padding: Padding = 0,
    stride: PairLike = 1,
) -> Array:
    """Each column added back onto the window it was cut from."""
    cols = np.asarray(cols)
    g = Geometry(output_size, pair(kernel_size), stride, padding, dilation)
    n, c = cols.shape[0], cols.shape[1] // (g.kernel[0] * g.kernel[1])
    padded = np.zeros((n, c, *g.padded), cols.dtype)
    for i, j, where in g.windows():
        padded[(..., *where)] += cols[:, :, i * g.out[1] + j].reshape(n, c, *g.kernel)
    return g.crop(padded)


def sliding_windows(
    x: ArrayLike, kernel_size: PairLike, dilation: PairLike = 1, stride: PairLike = 1
) -> Array:
    """(N, C, OH, OW, R, S), as a copy."""
    x = np.asarray(x)
    g = Geometry(x.shape[2:], pair(kernel_size), stride, 0, dilation)
    out = np.zeros((*x.shape[:2], *g.out, *g.kernel), x.dtype)
    for i, j, where in g.windows():
        out[:, :, i, j] = x[(..., *where)]
    return out
