"""Average pooling, adaptive too, and the gradients, as a user calls them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv import recycling
from fastconv.arguments import as_computed, as_numbers, check_shape, result_dtypes
from fastconv.geometry import IntPair, Padding, as_ints, as_pair, require_tensor
from fastconv.pooling.axis import Axes, adaptive_axis
from fastconv.pooling.problem import Pool2dProblem, pooling_axes
from fastconv.pooling.registry import find

Array = NDArray[Any]
# Axes hold arrays as long as the output: they are made only where there is something to pool.
AxesMaker = Callable[[], Axes]


def avg_pool2d(
    x: ArrayLike,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    algorithm: str = "auto",
) -> Array:
    """Return the mean of every window.

    Parameters
    ----------
    x, kernel_size, stride, padding, ceil_mode, algorithm
        As in `max_pool2d`; padding counts as zeros.
    count_include_pad : bool
        Whether the divisor counts the padding; what `ceil_mode` adds beyond it never counts.

    Returns
    -------
    ndarray, (N, C, OH, OW)

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
    array = as_numbers("x", x, 4)
    dtype, _ = result_dtypes(array)
    outputs, axes = _mean_axes(
        "x", array.shape, kernel_size, stride, padding, ceil_mode, count_include_pad, dtype
    )
    return _mean(array, outputs, axes, algorithm)


def avg_pool2d_grad(
    grad_output: ArrayLike,
    input_shape: tuple[int, int, int, int],
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    algorithm: str = "auto",
) -> Array:
    """Return the gradient of `avg_pool2d` with respect to its input.

    Parameters
    ----------
    grad_output : array-like, (N, C, OH, OW)
    input_shape : (N, C, H, W)
    kernel_size, stride, padding, ceil_mode, count_include_pad, algorithm
        As in `avg_pool2d`.

    Returns
    -------
    ndarray, (N, C, H, W)

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
    grad = as_numbers("grad_output", grad_output, 4)
    shape = as_ints("input_shape", input_shape, 4, 0)
    dtype, _ = result_dtypes(grad)
    outputs, axes = _mean_axes(
        "input_shape", shape, kernel_size, stride, padding, ceil_mode, count_include_pad, dtype
    )
    return _mean_grad(grad, shape, outputs, axes, algorithm)


def adaptive_avg_pool2d(x: ArrayLike, output_size: IntPair, *, algorithm: str = "auto") -> Array:
    """Return the means of windows that divide the input as evenly as possible.

    Parameters
    ----------
    x : array-like, (N, C, H, W)
    output_size : int or (int, int)
        Rows and columns of the result; 1 is the global average.
    algorithm : str
        "auto", or one of ``fastconv.pool_algorithms()``.

    Returns
    -------
    ndarray, (N, C, OH, OW)
        Window i covers rows ``floor(i * H / OH)`` to ``ceil((i + 1) * H / OH)``.

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 1)
    array([[[[7.5]]]])
    """
    array = as_numbers("x", x, 4)
    outputs = as_pair("output_size", output_size, 1)
    axes = _adaptive_axes("x", array.shape, outputs)
    return _mean(array, outputs, axes, algorithm)


def adaptive_avg_pool2d_grad(
    grad_output: ArrayLike,
    input_shape: tuple[int, int, int, int],
    *,
    algorithm: str = "auto",
) -> Array:
    """Return the gradient of `adaptive_avg_pool2d` with respect to its input.

    Parameters
    ----------
    grad_output : array-like, (N, C, OH, OW)
    input_shape : (N, C, H, W)
    algorithm : str
        "auto", or one of ``fastconv.pool_algorithms()``.

    Returns
    -------
    ndarray, (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_avg_pool2d_grad(np.ones((1, 1, 1, 1)), (1, 1, 1, 2))
    array([[[[0.5, 0.5]]]])
    """
    grad = as_numbers("grad_output", grad_output, 4)
    shape = as_ints("input_shape", input_shape, 4, 0)
    if 0 in grad.shape[2:]:
        raise ValueError(f"grad_output must not be empty in height or width, got {grad.shape}")
    outputs = (grad.shape[2], grad.shape[3])
    axes = _adaptive_axes("input_shape", shape, outputs)
    return _mean_grad(grad, shape, outputs, axes, algorithm)


def _mean_axes(
    name: str,
    input_shape: tuple[int, ...],
    kernel_size: IntPair,
    stride: IntPair | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    dtype: str,
) -> tuple[tuple[int, int], AxesMaker]:
    if not isinstance(count_include_pad, bool | np.bool_):
        raise TypeError(f"count_include_pad must be True or False, got {count_include_pad!r}")
    problem = Pool2dProblem.from_shapes(
        input_shape, kernel_size, stride, padding, 1, ceil_mode, dtype, name=name
    )
    return (problem.OH, problem.OW), partial(pooling_axes, problem, bool(count_include_pad))


def _adaptive_axes(name: str, input_shape: tuple[int, ...], outputs: tuple[int, int]) -> AxesMaker:
    N, C, H, W = input_shape
    require_tensor(f"{name} {input_shape}", (N, C, H, W))
    require_tensor(f"output_size {outputs}", (N, C, *outputs))
    if H < 1 or W < 1:
        raise ValueError(f"{name} must have H and W of at least 1, got {input_shape}")
    return lambda: (adaptive_axis(H, outputs[0]), adaptive_axis(W, outputs[1]))


def _mean(array: Array, outputs: tuple[int, int], axes: AxesMaker, algorithm: str) -> Array:
    dtype, returned = result_dtypes(array)
    chosen = find(algorithm)
    out = recycling.empty((*array.shape[:2], *outputs), dtype)
    if out.size:
        chosen.mean(as_computed(array, dtype), axes(), out)
    return out.astype(returned, copy=False)


def _mean_grad(
    grad: Array,
    shape: tuple[int, ...],
    outputs: tuple[int, int],
    axes: AxesMaker,
    algorithm: str,
) -> Array:
    check_shape("grad_output", grad, (*shape[:2], *outputs), "the pooling's output")
    dtype, returned = result_dtypes(grad)
    chosen = find(algorithm)
    out = recycling.empty(shape, dtype)
    if out.size:
        chosen.mean_grad(as_computed(grad, dtype), axes(), out)
    return out.astype(returned, copy=False)
