"""Steps of optimizers: all of a formula for an element, then the next element.

Arrays are flat, an item is a piece of them. Numbers are in the arrays' own type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.jit.compiler import range_kernel

#: Elements of a piece: enough to be worth a thread.
PIECE = 2**14


@range_kernel
def sgd(start: int, stop: int, data: Any, grad: Any, lr: float, decay: float) -> None:
    """Step along the gradient, weight decay added to it."""
    here = slice(start * PIECE, stop * PIECE)
    p, g = data[here], grad[here]
    rate, shrink = data.dtype.type(lr), data.dtype.type(decay)
    for i in range(p.size):
        p[i] -= rate * (g[i] + shrink * p[i])


@range_kernel
def momentum_sgd(
    start: int,
    stop: int,
    data: Any,
    grad: Any,
    velocity: Any,
    lr: float,
    decay: float,
    momentum: float,
    kept: float,
    ahead: float,
) -> None:
    """Step along ``ahead * gradient + (1 or momentum) * velocity``; see `fastconv.nn.SGD`.

    Nesterov's momentum looks `ahead`: 1, else 0.
    """
    here = slice(start * PIECE, stop * PIECE)
    p, g, v = data[here], grad[here], velocity[here]
    number = data.dtype.type
    rate, shrink, keep, new = number(lr), number(decay), number(momentum), number(kept)
    direct, along = number(ahead), number(momentum if ahead else 1.0)
    for i in range(p.size):
        slope = g[i] + shrink * p[i]
        v[i] = keep * v[i] + new * slope
        p[i] -= rate * (direct * slope + along * v[i])


@range_kernel
def adam(
    start: int,
    stop: int,
    data: Any,
    grad: Any,
    mean: Any,
    square: Any,
    rate: float,
    root: float,
    eps: float,
    beta1: float,
    beta2: float,
    decay: float,
    shrink: float,
) -> None:
    """Step along ``mean / (sqrt(square) / root + eps)``; see `fastconv.nn.Adam`.

    `decay` adds to the gradient, `shrink` multiplies the data before.
    """
    here = slice(start * PIECE, stop * PIECE)
    p, g, m, v = data[here], grad[here], mean[here], square[here]
    number = data.dtype.type
    size, base, least, weight, less = (
        number(rate),
        number(root),
        number(eps),
        number(decay),
        number(shrink),
    )
    kept1, new1 = number(beta1), number(1 - beta1)
    kept2, new2 = number(beta2), number(1 - beta2)
    for i in range(p.size):
        old = p[i] * less
        slope = g[i] + weight * old
        m[i] = kept1 * m[i] + new1 * slope
        v[i] = kept2 * v[i] + new2 * slope * slope
        p[i] = old - size * (m[i] / (np.sqrt(v[i]) / base + least))
