"""Passes over the channels of images that training needs: sums, normalization, rectifiers.

An item is a channel: what is read of it a second time comes from the cache. Arrays are
(N, C, pixels). Sums of a piece of a plane are in the images' type, sums of pieces in float64.

The output of a rectifier is 0, or positive, or NaN; where it is 0, no gradient passes. Loops with
and without one are the same: `rectified` says whether `output` is asked, any array of that shape
if not. So they remain a few vector instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.jit.compiler import inner_kernel, range_kernel, summing_kernel

#: Elements that are summed in the images' own type; they fit the first-level cache.
PIECE = 4096


@range_kernel
def rectify_grad(start: int, stop: int, grad: Any, output: Any, out: Any) -> None:
    """Write pieces `start` to `stop` of `grad` to `out`, zeros where `output` is 0; all flat."""
    here = slice(start * PIECE, stop * PIECE)
    g, o, target = grad[here], output[here], out[here]
    for i in range(target.size):
        target[i] = g[i] if o[i] != 0 else grad.dtype.type(0)


@summing_kernel
def _sum(grad: Any, output: Any, rectified: bool) -> Any:
    """Return the sum of a piece of a gradient behind the rectifier."""
    total = grad.dtype.type(0)
    for i in range(grad.size):
        total += grad[i] if output[i] != 0 or not rectified else grad.dtype.type(0)
    return total


@summing_kernel
def _sum_along(grad: Any, output: Any, rectified: bool, x: Any, centre: Any) -> Any:
    """Return the sum of its products with ``x - centre``."""
    total = grad.dtype.type(0)
    for i in range(grad.size):
        g = grad[i] if output[i] != 0 or not rectified else grad.dtype.type(0)
        total += g * (x[i] - centre)
    return total


@summing_kernel
def _sums_about(x: Any, centre: Any) -> tuple[Any, Any]:
    """Return the sums of ``x - centre`` and of its squares."""
    total, squares = x.dtype.type(0), x.dtype.type(0)
    for i in range(x.size):
        apart = x[i] - centre
        total += apart
        squares += apart * apart
    return total, squares


@range_kernel
def bias_grad(start: int, stop: int, grad: Any, output: Any, rectified: bool, totals: Any) -> None:
    """Sum the gradient of channels `start` to `stop` behind the rectifier."""
    for c in range(start, stop):
        total = 0.0
        for n in range(grad.shape[0]):
            for first in range(0, grad.shape[2], PIECE):
                piece = slice(first, first + PIECE)
                total += _sum(grad[n, c, piece], output[n, c, piece], rectified)
        totals[c] = total


@inner_kernel
def _statistics(x: Any, c: int) -> tuple[float, float]:
    """Return a channel's mean and variance over the batch.

    Pieces have their own means and sums of squares about them; these are merged. Source: T. Chan,
    G. Golub, R. LeVeque, "Algorithms for computing the sample variance", The American
    Statistician 37, 1983.

    A piece's first sum is only good for a number near its mean: where that is large, its last
    digits are lost. The sum about that number has them.
    """
    count, mean, squares = 0, 0.0, 0.0
    for n in range(x.shape[0]):
        for first in range(0, x.shape[2], PIECE):
            piece = x[n, c, first : first + PIECE]
            centre = x.dtype.type(_sum(piece, piece, False) / piece.size)
            rest, apart = _sums_about(piece, centre)
            off = np.float64(rest) / piece.size
            shift, both = centre + off - mean, count + piece.size
            mean += shift * piece.size / both
            squares += apart - piece.size * off * off
            squares += shift * shift * count * piece.size / both
            count = both
    return mean, max(squares, 0.0) / max(count, 1)


@range_kernel
def normalize(
    start: int,
    stop: int,
    x: Any,
    y: Any,
    mean: Any,
    variance: Any,
    weight: Any,
    bias: Any,
    eps: float,
    measured: bool,
    rectified: bool,
) -> None:
    """Write ``(x - mean) / sqrt(variance + eps) * weight + bias`` of channels to `y`.

    Mean and variance are those of the batch, and stored, if they are to be `measured`. Subtracting
    the mean first costs no digits where it is large; what it loses in the images' own type goes
    into the bias.
    """
    zero = x.dtype.type(0)
    for c in range(start, stop):
        if measured:
            mean[c], variance[c] = _statistics(x, c)
        centre, scale = x.dtype.type(mean[c]), weight[c] / np.sqrt(variance[c] + eps)
        factor = x.dtype.type(scale)
        offset = x.dtype.type(bias[c] - (mean[c] - centre) * scale)
        for n in range(x.shape[0]):
            for i in range(x.shape[2]):
                value = (x[n, c, i] - centre) * factor + offset
                y[n, c, i] = zero if rectified and value < 0 else value


@range_kernel
def normalize_grad(
    start: int,
    stop: int,
    grad: Any,
    x: Any,
    output: Any,
    out: Any,
    mean: Any,
    variance: Any,
    weight: Any,
    eps: float,
    measured: bool,
    rectified: bool,
    weight_grad: Any,
    bias_grad: Any,
) -> None:
    """Write the input's gradient of channels to `out`, and those of weight and bias.

    The batch's mean and variance depend on the input too: their gradients take away from that of
    the normalized values n its mean and its part along n,
    ``scale * (grad - mean(grad) - n * mean(grad * n))``.
    """
    zero, count = x.dtype.type(0), x.shape[0] * x.shape[2]
    for c in range(start, stop):
        centre, inverse = x.dtype.type(mean[c]), 1 / np.sqrt(variance[c] + eps)
        total, along = 0.0, 0.0
        for n in range(x.shape[0]):
            for first in range(0, x.shape[2], PIECE):
                piece = slice(first, first + PIECE)
                g, o = grad[n, c, piece], output[n, c, piece]
                total += _sum(g, o, rectified)
                along += _sum_along(g, o, rectified, x[n, c, piece], centre)
        beside = mean[c] - centre
        along -= total * beside
        weight_grad[c], bias_grad[c] = along * inverse, total
        factor, average, slope = x.dtype.type(weight[c] * inverse), zero, zero
        if measured:
            steep = along * inverse * inverse / count
            slope, average = x.dtype.type(steep), x.dtype.type(total / count - beside * steep)
        for n in range(x.shape[0]):
            for i in range(x.shape[2]):
                g = grad[n, c, i] if output[n, c, i] != 0 or not rectified else zero
                out[n, c, i] = (g - (x[n, c, i] - centre) * slope - average) * factor
