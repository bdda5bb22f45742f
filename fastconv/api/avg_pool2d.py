"""Average pooling and its gradient, as a user calls them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from fastconv.core.arguments import (
    Array,
    as_batch,
    as_computed,
    as_flag,
    as_gradient,
    as_returned,
    check_shape,
    result_dtypes,
)
from fastconv.core.geometry import LARGEST_SIZE, IntPair, Padding, as_int
from fastconv.core.pool_axis import Axes
from fastconv.core.pool_problem import Pool2dProblem, pooling_axes
from fastconv.pooling.pool_registry import PoolAlgorithmName, find
from fastconv.runtime import output_memory


class Means(NamedTuple):
    """How many windows down and across, and a function that makes them.

    Axes hold arrays as long as the output: they are made only where there is something to pool.
    """

    outputs: tuple[int, int]
    axes: Callable[[], Axes]


def avg_pool2d(
    x: ArrayLike,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: IntPair = 1,
    wide_padding: bool = False,
    algorithm: PoolAlgorithmName = "auto",
) -> Array:
    """Return the mean of every window.

    Parameters
    ----------
    x : array-like, (N, C, H, W), or one image (C, H, W)
        Types as in `fastconv.conv2d`.
    kernel_size, stride, padding, dilation, ceil_mode, algorithm
        As in `max_pool2d`; padding counts as zeros.
    count_include_pad : bool
        Whether the divisor counts the padding; what `ceil_mode` adds beyond it never counts.
    divisor_override : int, optional
        What sums are divided by, instead of how many positions they are of; not 0.
    wide_padding : bool
        As in `max_pool2d`. The mean of a window wholly in the padding is 0, or NaN if padding does
        not count.

    Returns
    -------
    ndarray, (N, C, OH, OW), or (C, OH, OW) for one image

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """
    array, single = as_batch("x", x)
    geometry = kernel_size, stride, padding, dilation, ceil_mode, result_dtypes(array)[0]
    problem = Pool2dProblem.from_shapes(array.shape, *geometry, name="x", wide_padding=wide_padding)
    return means(array, _means(problem, count_include_pad, divisor_override), algorithm, single)


def avg_pool2d_grad(
    grad_output: ArrayLike,
    input_shape: tuple[int, ...],
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: IntPair = 1,
    wide_padding: bool = False,
    algorithm: PoolAlgorithmName = "auto",
) -> Array:
    """Return the gradient of `avg_pool2d` with respect to its input.

    Parameters
    ----------
    grad_output : array-like, (N, C, OH, OW), or (C, OH, OW) for one image
    input_shape : (N, C, H, W) or (C, H, W)
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    dilation, wide_padding, algorithm
        As in `avg_pool2d`.

    Returns
    -------
    ndarray, (N, C, H, W) or (C, H, W)

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool2d_grad(np.ones((1, 1, 1, 1)), (1, 1, 2, 2), 2)
    array([[[[0.25, 0.25],
             [0.25, 0.25]]]])
    """
    grad, shape, single = as_gradient(grad_output, input_shape)
    geometry = kernel_size, stride, padding, dilation, ceil_mode, result_dtypes(grad)[0]
    problem = Pool2dProblem.from_shapes(shape, *geometry, wide_padding=wide_padding)
    windows = _means(problem, count_include_pad, divisor_override)
    return means_grad(grad, shape, windows, algorithm, single)


def _means(problem: Pool2dProblem, count_include_pad: bool, divisor_override: Any) -> Means:
    counted, divisor = as_flag("count_include_pad", count_include_pad), as_divisor(divisor_override)
    return Means((problem.OH, problem.OW), partial(pooling_axes, problem, counted, divisor))


def as_divisor(value: Any) -> int | None:
    """Return `divisor_override`, an integer but 0, or None."""
    divisor = None if value is None else as_int("divisor_override", value, -LARGEST_SIZE)
    if divisor == 0:
        raise ValueError("divisor_override must not be 0, by which nothing can be divided")
    return divisor


def means(array: Array, windows: Means, algorithm: PoolAlgorithmName, single: bool) -> Array:
    """Return the means of a checked array's windows, of a `single` image without a batch axis."""
    dtype, returned = result_dtypes(array)
    chosen = find(algorithm)
    out = output_memory.empty((*array.shape[:2], *windows.outputs), dtype)
    if out.size:
        chosen.mean(as_computed(array, dtype), windows.axes(), out)
    return as_returned(out, returned, single)


def means_grad(
    grad: Array, shape: tuple[int, ...], windows: Means, algorithm: PoolAlgorithmName, single: bool
) -> Array:
    """Return the gradients of `means` with respect to an array of that shape."""
    wanted = *shape[:2], *windows.outputs
    check_shape("grad_output", grad, wanted, "the pooling's output", single)
    dtype, returned = result_dtypes(grad)
    chosen = find(algorithm)
    out = output_memory.empty(shape, dtype)
    if out.size:
        chosen.mean_grad(as_computed(grad, dtype), windows.axes(), out)
    return as_returned(out, returned, single)
