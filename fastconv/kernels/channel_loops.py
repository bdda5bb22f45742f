"""Loops over channels for training: sums, batch normalization, ReLU.

An item is a channel, so a second pass over it reads from the cache. Arrays are flat images
(N, C, pixels). A block of a plane is summed in the type of the images; block sums are added in
float64.

The output of a ReLU is 0, positive or NaN. Where it is 0, the gradient is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from fastconv.jit.compiler import range_kernel, summing_kernel

#: Elements of a block, which fits L1.
BLOCK = 4096
#: The statistics and parameters of one channel. `std` is ``sqrt(variance + eps)``. Kernels read
#: `mean` and `std` by index: in plain Python the attributes are NumPy's methods.
CHANNEL = np.dtype(
    (
        np.record,
        [
            (name, np.float64)
            for name in (
                *("mean", "variance", "std", "weight", "bias"),
                *("weight_grad", "bias_grad"),
            )
        ],
    )
)


@range_kernel
def relu_grad(start: int, stop: int, grad: Any, output: Any, out: Any) -> None:
    """Write blocks `start` to `stop` of `grad` to `out`, zeros where `output` is 0."""
    last = stop * BLOCK if stop * BLOCK < out.size else out.size
    for i in range(uint64(start * BLOCK), uint64(last)):
        out[i] = grad[i] if output[i] != 0 else grad.dtype.type(0)


@summing_kernel
def _sum(x: Any, first: int, last: int) -> Any:
    """Return ``sum(x[first:last])``."""
    total = x.dtype.type(0)
    for i in range(uint64(first), uint64(last)):
        total += x[i]
    return total


@summing_kernel
def _sums_about(x: Any, first: int, last: int, centre: Any) -> tuple[Any, Any]:
    """Return the sums of ``x - centre`` and of ``(x - centre)**2``."""
    total, squares = x.dtype.type(0), x.dtype.type(0)
    for i in range(uint64(first), uint64(last)):
        difference = x[i] - centre
        total += difference
        squares += difference * difference
    return total, squares


@summing_kernel
def _grad_sums(
    grad: Any, output: Any, relu: bool, x: Any, first: int, last: int, centre: Any
) -> tuple[Any, Any]:
    """Return the sums of the gradient after the ReLU, and of its products with ``x - centre``."""
    total, along = x.dtype.type(0), x.dtype.type(0)
    for i in range(uint64(first), uint64(last)):
        g = grad[i] if output[i] != 0 or not relu else grad.dtype.type(0)
        total += g
        along += g * (x[i] - centre)
    return total, along


@range_kernel
def bias_grad(start: int, stop: int, grad: Any, pixels: int, totals: Any) -> None:
    """Sum the gradient of channels `start` to `stop` into `totals`."""
    for c in range(start, stop):
        total = 0.0
        for plane in range(c * pixels, grad.size, totals.size * pixels):
            for first in range(plane, plane + pixels, BLOCK):
                left = plane + pixels - first
                total += _sum(grad, first, first + (left if left < BLOCK else BLOCK))
        totals[c] = total


@range_kernel
def normalize(
    start: int,
    stop: int,
    x: Any,
    y: Any,
    channels: Any,
    pixels: int,
    eps: float,
    measured: bool,
    low: Any,
) -> None:
    """Write ``max((x - mean) / std * weight + bias, low)`` of channels to `y`.

    With `measured`, the mean and variance of the batch are computed and stored; std is always
    stored. The mean is subtracted first, so a large mean costs no digits; its rounding error in the
    images' type is added to the bias. `low` is 0 for a ReLU, else minus infinity.

    For the variance, each block has its own mean and sum of squared differences; these are merged.
    The first sum of a block only gives a number close to its mean, because a large mean loses its
    last digits. The sum of differences from that number recovers them. Source: T. Chan, G. Golub,
    R. LeVeque, "Algorithms for computing the sample variance", The American Statistician 37, 1983.
    """
    for c in range(start, stop):
        channel = channels[c]
        if measured:
            count, mean, squares = 0, 0.0, 0.0
            for plane in range(c * pixels, x.size, channels.size * pixels):
                for first in range(plane, plane + pixels, BLOCK):
                    left = plane + pixels - first
                    size = left if left < BLOCK else BLOCK
                    about = x.dtype.type(_sum(x, first, first + size) / size)
                    rest, spread = _sums_about(x, first, first + size, about)
                    off = np.float64(rest) / size
                    shift, both = about + off - mean, count + size
                    mean += shift * size / both
                    squares += spread - size * off * off
                    squares += shift * shift * count * size / both
                    count = both
            channel["mean"] = mean
            channel.variance = 0.0 if squares < 0.0 else squares / count
        channel["std"] = np.sqrt(channel.variance + eps)
        centre, scale = x.dtype.type(channel["mean"]), channel.weight / channel["std"]
        factor = x.dtype.type(scale)
        offset = x.dtype.type(channel.bias - (channel["mean"] - centre) * scale)
        for plane in range(c * pixels, x.size, channels.size * pixels):
            for i in range(uint64(plane), uint64(plane + pixels)):
                value = (x[i] - centre) * factor + offset
                y[i] = low if value < low else value


@range_kernel
def normalize_grad(
    start: int,
    stop: int,
    grad: Any,
    x: Any,
    output: Any,
    out: Any,
    channels: Any,
    pixels: int,
    measured: bool,
    relu: bool,
) -> None:
    """Write the input gradient of channels to `out`, and store those of weight and bias.

    The mean and variance of the batch depend on the input too. So with normalized values n, the
    gradient is ``scale * (grad - mean(grad) - n * mean(grad * n))``. With `relu` the gradient is 0
    where `output` is 0; without, `output` may be any array of that shape.
    """
    zero = x.dtype.type(0)
    for c in range(start, stop):
        channel = channels[c]
        centre, inverse = x.dtype.type(channel["mean"]), 1 / channel["std"]
        total, along = 0.0, 0.0
        for plane in range(c * pixels, x.size, channels.size * pixels):
            for first in range(plane, plane + pixels, BLOCK):
                left = plane + pixels - first
                last = first + (left if left < BLOCK else BLOCK)
                sums = _grad_sums(grad, output, relu, x, first, last, centre)
                total += sums[0]
                along += sums[1]
        rounding = channel["mean"] - centre
        along -= total * rounding
        channel.weight_grad, channel.bias_grad = along * inverse, total
        factor, average, slope = x.dtype.type(channel.weight * inverse), zero, zero
        if measured:
            count = x.size // channels.size
            steep = along * inverse * inverse / count
            slope, average = x.dtype.type(steep), x.dtype.type(total / count - rounding * steep)
        for plane in range(c * pixels, x.size, channels.size * pixels):
            for i in range(uint64(plane), uint64(plane + pixels)):
                g = grad[i] if output[i] != 0 or not relu else zero
                out[i] = (g - (x[i] - centre) * slope - average) * factor
