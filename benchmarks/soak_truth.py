"""What the soak compares with: every operation in float64, by NumPy's own sliding windows.

Nothing of the library is used. A convolution is one `einsum` over strided windows of the padded
images; the gradient of its input adds one tap after the other to where that tap has read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]
Pair = tuple[int, int]


class Geometry(NamedTuple):
    """How a kernel slides; the padding is the same on opposite sides."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


def padded(x: Array, padding: Pair, value: float = 0.0) -> Array:
    """Return images in float64 with a border."""
    border = ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2)
    return np.pad(x.astype(np.float64), border, constant_values=value)


def windows(images: Array, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Array:
    """Return a view (N, C, OH, OW, R, S) of padded images."""
    span = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    view = sliding_window_view(images, span, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _grouped(array: Array, axis: int, groups: int) -> Array:
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])


def conv2d(x: Array, weight: Array, bias: Array | None, g: Geometry) -> Array:
    """Return the convolution."""
    seen = windows(padded(x, g.padding), weight.shape[2:], g.stride, g.dilation)
    filters = _grouped(weight.astype(np.float64), 0, g.groups)
    y = np.einsum("ngchwrs,gkcrs->ngkhw", _grouped(seen, 1, g.groups), filters, optimize=True)
    y = y.reshape(len(x), len(weight), *y.shape[3:])
    return y if bias is None else y + bias.astype(np.float64)[:, None, None]


def conv2d_weight_grad(x: Array, shape: tuple[int, ...], grad: Array, g: Geometry) -> Array:
    """Return the gradient of the weights."""
    seen = windows(padded(x, g.padding), shape[2:], g.stride, g.dilation)
    out = _grouped(grad.astype(np.float64), 1, g.groups)
    seen = _grouped(seen[:, :, : grad.shape[2], : grad.shape[3]], 1, g.groups)
    return np.einsum("ngkhw,ngchwrs->gkcrs", out, seen, optimize=True).reshape(shape)


def conv2d_input_grad(shape: tuple[int, ...], weight: Array, grad: Array, g: Geometry) -> Array:
    """Return the gradient of the input."""
    (N, C, H, W), (height, width) = shape, grad.shape[2:]
    back = np.zeros((N, C, H + 2 * g.padding[0], W + 2 * g.padding[1]))
    out = _grouped(grad.astype(np.float64), 1, g.groups)
    filters = _grouped(weight.astype(np.float64), 0, g.groups)
    for r in range(weight.shape[2]):
        for s in range(weight.shape[3]):
            sent = np.einsum("ngkhw,gkc->ngchw", out, filters[..., r, s], optimize=True)
            top, left = r * g.dilation[0], s * g.dilation[1]
            rows = slice(top, top + (height - 1) * g.stride[0] + 1, g.stride[0])
            columns = slice(left, left + (width - 1) * g.stride[1] + 1, g.stride[1])
            back[:, :, rows, columns] += sent.reshape(N, C, height, width)
    return back[:, :, g.padding[0] : g.padding[0] + H, g.padding[1] : g.padding[1] + W]


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> tuple[Array, Array]:
    """Return the maxima and their positions in the planes."""
    seen = windows(padded(x, padding, -np.inf), kernel, stride)
    flat = seen.reshape(*seen.shape[:4], -1)
    tap = flat.argmax(axis=-1)
    rows = np.arange(seen.shape[2])[:, None] * stride[0] + tap // kernel[1] - padding[0]
    columns = np.arange(seen.shape[3]) * stride[1] + tap % kernel[1] - padding[1]
    return flat.max(axis=-1), rows * x.shape[3] + columns


def max_pool2d_grad(grad: Array, argmax: Array, shape: tuple[int, ...]) -> Array:
    """Return the gradient, sent back to the maxima."""
    back = np.zeros((shape[0] * shape[1], shape[2] * shape[3]))
    plane = np.arange(len(back))[:, None]
    np.add.at(back, (plane, argmax.reshape(len(back), -1)), grad.reshape(len(back), -1))
    return back.reshape(shape)


def avg_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """Return the means; the zeros of the padding count."""
    return windows(padded(x, padding), kernel, stride).mean(axis=(4, 5))


def avg_pool2d_grad(
    grad: Array, shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair
) -> Array:
    """Return the gradient: that of a convolution of each channel with equal weights."""
    weight = np.full((shape[1], 1, *kernel), 1 / (kernel[0] * kernel[1]))
    return conv2d_input_grad(shape, weight, grad, Geometry(stride, padding, groups=shape[1]))


def silu(x: Array) -> tuple[Array, Array]:
    """Return ``x / (1 + exp(-x))`` and its derivative."""
    s = 1 / (1 + np.exp(-x))
    return x * s, s * (1 + x * (1 - s))


def batch_norm(x: Array, eps: float) -> tuple[Array, Array]:
    """Return the normalized batch, and one over the standard deviation of each channel."""
    axes = (0, 2, 3)
    scale = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + eps)
    return (x - x.mean(axis=axes, keepdims=True)) * scale, scale


def batch_norm_grad(grad: Array, normal: Array, scale: Array) -> Array:
    """Return the gradient of what was normalized."""
    mean, along = (a.mean(axis=(0, 2, 3), keepdims=True) for a in (grad, grad * normal))
    return scale * (grad - mean - normal * along)
