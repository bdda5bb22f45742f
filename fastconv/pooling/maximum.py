"""Maximum pooling and its gradient, as a user calls them."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv import recycling
from fastconv.arguments import as_computed, as_numbers, check_shape, result_dtypes
from fastconv.geometry import IntPair, Padding, as_ints, require_tensor
from fastconv.pooling.axis import pooling_axes
from fastconv.pooling.base import PoolAlgorithm
from fastconv.pooling.problem import Pool2dProblem, problem_of
from fastconv.pooling.registry import FASTEST, find

Array = NDArray[Any]


@overload
def max_pool2d(
    x: ArrayLike,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
    *,
    algorithm: str = "auto",
) -> Array: ...
@overload
def max_pool2d(
    x: ArrayLike,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
    algorithm: str = "auto",
) -> tuple[Array, NDArray[np.int64]]: ...
def max_pool2d(
    x: ArrayLike,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    algorithm: str = "auto",
) -> Array | tuple[Array, NDArray[np.int64]]:
    """Return the maximum of every window.

    Parameters
    ----------
    x : array-like, (N, C, H, W)
        Types as in `fastconv.conv2d`.
    kernel_size : int or (int, int)
        Height and width of a window.
    stride : int or (int, int), optional
        Distance of windows; the kernel size if not given.
    padding : int, (int, int), ((top, bottom), (left, right)), "same" or "valid"
        At most half the window. Padding never wins.
    dilation : int or (int, int)
        Distance of a window's elements.
    ceil_mode : bool
        Whether a last window may overhang the end.
    return_indices : bool
        Whether to return the places of the maxima too.
    algorithm : str
        "auto", or one of ``fastconv.pool_algorithms()``.

    Returns
    -------
    values : ndarray, (N, C, OH, OW)
    indices : ndarray of int64, (N, C, OH, OW)
        Only if asked for: ``h * W + w`` in the input plane. The first of equal maxima wins;
        NaN wins over every number, and the last of several NaN, as in PyTorch.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what it was, and what would be right.

    Examples
    --------
    >>> import numpy as np
    >>> max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """
    array = as_numbers("x", x, 4)
    if not isinstance(return_indices, bool | np.bool_):
        raise TypeError(f"return_indices must be True or False, got {return_indices!r}")
    dtype, returned = result_dtypes(array)
    problem = problem_of(array, dtype, kernel_size, stride, padding, dilation, ceil_mode)
    indices = recycling.empty(problem.output_shape, np.int64) if return_indices else None
    values = maxima(array, problem, indices, find(algorithm)).astype(returned, copy=False)
    return values if indices is None else (values, indices)


def maxima(
    x: Array,
    problem: Pool2dProblem,
    indices: NDArray[np.int64] | None = None,
    algorithm: PoolAlgorithm = FASTEST,
) -> Array:
    """Return the maxima of a checked array, and write their places to `indices` if given."""
    values = recycling.empty(problem.output_shape, problem.dtype)
    if values.size:
        axes = pooling_axes(problem, count_include_pad=False)
        algorithm.maximum(as_computed(x, problem.dtype), axes, values, indices)
    return values


def max_pool2d_grad(
    grad_output: ArrayLike,
    indices: ArrayLike,
    input_shape: tuple[int, int, int, int],
    *,
    algorithm: str = "auto",
) -> Array:
    """Return the gradient of `max_pool2d` with respect to its input.

    Parameters
    ----------
    grad_output : array-like, (N, C, OH, OW)
        Gradient of the loss with respect to the maxima.
    indices : array-like of integers, (N, C, OH, OW)
        What ``max_pool2d(..., return_indices=True)`` returned.
    input_shape : (N, C, H, W)
        Shape of the pooled array.
    algorithm : str
        "auto", or one of ``fastconv.pool_algorithms()``.

    Returns
    -------
    ndarray, (N, C, H, W)
        Where several windows have their maximum at one place, their gradients add up.

    Raises
    ------
    TypeError, ValueError
        Also where an index lies outside the input plane.

    Examples
    --------
    >>> import numpy as np
    >>> max_pool2d_grad(np.ones((1, 1, 1, 1)), np.full((1, 1, 1, 1), 3), (1, 1, 2, 2))
    array([[[[0., 0.],
             [0., 1.]]]])
    """
    grad = as_numbers("grad_output", grad_output, 4)
    places = as_numbers("indices", indices, 4)
    if places.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers, got dtype {places.dtype}")
    N, C, H, W = as_ints("input_shape", input_shape, 4, 0)
    require_tensor(f"input_shape {(N, C, H, W)}", (N, C, H, W))
    check_shape("grad_output", grad, (N, C, *grad.shape[2:]), "N and C as in input_shape")
    check_shape("indices", places, grad.shape, "as grad_output")
    dtype, returned = result_dtypes(grad)
    chosen = find(algorithm)
    if not grad.size:
        return np.zeros((N, C, H, W), returned)
    out = recycling.empty((N, C, H, W), dtype)
    # As int64, an index too large for that is negative: outside, too.
    if not chosen.maximum_grad(as_computed(grad, dtype), as_computed(places, "int64"), out):
        raise ValueError(
            f"indices must lie in 0 .. {H * W - 1} for input_shape {(N, C, H, W)}, got "
            f"{places.min()} .. {places.max()}"
        )
    return out.astype(returned, copy=False)
