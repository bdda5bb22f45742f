"""Optimizer steps as fused loops, one pass over the arrays.

Arrays are flat, and an item is a block of elements. All is computed in the dtype of the arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from fastconv.jit.compiler import inner_kernel, range_kernel

#: Elements of a block, enough work for a thread.
BLOCK = 2**14


@inner_kernel
def _elements(start: int, stop: int, size: int) -> range:
    """Return the elements of blocks `start` to `stop`."""
    last = stop * BLOCK if stop * BLOCK < size else size
    return range(uint64(start * BLOCK), uint64(last))


@range_kernel
def sgd(start: int, stop: int, p: Any, grad: Any, numbers: Any) -> None:
    """Step along the gradient; `numbers` are the learning rate and the weight decay."""
    number = p.dtype.type
    rate, decay = number(numbers[0]), number(numbers[1])
    for i in _elements(start, stop, p.size):
        p[i] -= rate * (grad[i] + decay * p[i])


@range_kernel
def momentum_sgd(start: int, stop: int, p: Any, grad: Any, velocity: Any, numbers: Any) -> None:
    """Step along ``direct * gradient + along * velocity``; see `fastconv.nn.SGD`.

    `numbers` are the learning rate, the weight decay, the factors of the old velocity and of the
    gradient in the new one, `direct` and `along`.
    """
    number = p.dtype.type
    rate, decay, keep = number(numbers[0]), number(numbers[1]), number(numbers[2])
    new, direct, along = number(numbers[3]), number(numbers[4]), number(numbers[5])
    for i in _elements(start, stop, p.size):
        slope = grad[i] + decay * p[i]
        velocity[i] = keep * velocity[i] + new * slope
        p[i] -= rate * (direct * slope + along * velocity[i])


@range_kernel
def adam(start: int, stop: int, p: Any, grad: Any, mean: Any, square: Any, numbers: Any) -> None:
    """Step along ``mean / (sqrt(square) / root + eps)``; see `fastconv.nn.Adam`.

    `numbers` are the learning rate, `root`, `eps`, the weight decay of the gradient, the factor of
    the data before the step, and for `mean` and `square` the factors of old value and gradient.
    """
    number = p.dtype.type
    rate, root, eps = number(numbers[0]), number(numbers[1]), number(numbers[2])
    decay, shrink = number(numbers[3]), number(numbers[4])
    keep1, new1 = number(numbers[5]), number(numbers[6])
    keep2, new2 = number(numbers[7]), number(numbers[8])
    for i in _elements(start, stop, p.size):
        old = p[i] * shrink
        slope = grad[i] + decay * old
        mean[i] = keep1 * mean[i] + new1 * slope
        square[i] = keep2 * square[i] + new2 * slope * slope
        p[i] = old - rate * (mean[i] / (np.sqrt(square[i]) / root + eps))
