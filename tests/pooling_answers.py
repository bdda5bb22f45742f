"""What the oracle makes of the named poolings, each computed once for all algorithms."""

from __future__ import annotations

from functools import cache
from typing import Any

import reference_pooling
from cases import PoolCase, make_integer_pool_inputs, make_pool_inputs
from numpy.typing import DTypeLike
from reference import Array, pair

MAKERS = (make_integer_pool_inputs, make_pool_inputs)


def max_rule(case: PoolCase) -> tuple[Any, ...]:
    """Return the arguments of max_pool2d that follow the array."""
    return case.kernel_size, case.stride, case.padding, case.dilation, case.ceil_mode


def average_rule(case: PoolCase, count_include_pad: bool) -> dict[str, Any]:
    """Return the arguments of avg_pool2d that follow the array."""
    return {
        "kernel_size": case.kernel_size,
        "stride": case.stride,
        "padding": case.padding,
        "ceil_mode": case.ceil_mode,
        "count_include_pad": count_include_pad,
        "dilation": case.dilation,
    }


@cache
def maxima(make: Any, case: PoolCase, dtype: DTypeLike) -> tuple[Array, Array, Array, Array]:
    """Return an input, a gradient of the output, and the oracle's maxima and indices."""
    x, grad = make(case, dtype)
    return x, grad, *reference_pooling.max_pool2d(x, *max_rule(case))


@cache
def max_grads(make: Any, case: PoolCase, dtype: DTypeLike) -> tuple[Array, Array]:
    """Return the oracle's gradient of maxima, and the sums of the absolute values."""
    _, grad, _, indices = maxima(make, case, dtype)
    scatter = reference_pooling.max_pool2d_grad
    return scatter(grad, indices, case.input_shape), scatter(abs(grad), indices, case.input_shape)


@cache
def averages(
    case: PoolCase, dtype: DTypeLike, count_include_pad: bool, backward: bool
) -> tuple[Array, Array, Array]:
    """Return an array, the oracle's means or their gradient, and those of absolute values."""
    x, grad = make_pool_inputs(case, dtype)
    rule = average_rule(case, count_include_pad)
    if not backward:
        return x, *(reference_pooling.avg_pool2d(a, **rule) for a in (x, abs(x)))
    shape = case.input_shape
    return grad, *(reference_pooling.avg_pool2d_grad(a, shape, **rule) for a in (grad, abs(grad)))


def window(case: PoolCase) -> int:
    """Count the cells of a window."""
    rows, columns = pair(case.kernel_size)
    return rows * columns
