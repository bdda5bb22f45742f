"""Pooling and its gradients, as a user calls them."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.arguments import as_computed, as_numbers, check_shape, result_dtypes
from fastconv.geometry import IntPair, Padding, as_ints, as_pair, require_tensor
from fastconv.pooling.axis import Axes, adaptive_axis, pooling_axes
from fastconv.pooling.base import PoolAlgorithm
from fastconv.pooling.jit import Jit
from fastconv.pooling.problem import Pool2dProblem
from fastconv.pooling.reference import Reference
from fastconv.pooling.windows import Windows

Array = NDArray[Any]

#: Fastest first: "auto" takes the first.
ALGORITHMS: tuple[PoolAlgorithm, ...] = (Jit(), Windows(), Reference())


def pool_algorithms() -> tuple[str, ...]:
    """Return the names of the pooling algorithms, fastest first.

    Examples
    --------
    >>> pool_algorithms()
    ('jit', 'windows', 'reference')
    """
    return tuple(algorithm.name for algorithm in ALGORITHMS)


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
    problem = Pool2dProblem.from_shapes(
        array.shape, kernel_size, stride, padding, dilation, ceil_mode, dtype, name="x"
    )
    chosen = _find(algorithm)
    values = np.empty(problem.output_shape, dtype)
    indices = np.empty(problem.output_shape, np.int64)
    if values.size:
        axes = pooling_axes(problem, count_include_pad=False)
        chosen.maximum(as_computed(array, dtype), axes, values, indices)
    values = values.astype(returned, copy=False)
    return (values, indices) if return_indices else values


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
    if places.size and (places.min() < 0 or places.max() >= H * W):
        raise ValueError(
            f"indices must lie in 0 .. {H * W - 1} for input_shape {(N, C, H, W)}, got "
            f"{places.min()} .. {places.max()}"
        )
    dtype, returned = result_dtypes(grad)
    chosen = _find(algorithm)
    out = np.zeros((N, C, H, W), dtype)
    if grad.size:
        chosen.maximum_grad(as_computed(grad, dtype), as_computed(places, "int64"), out)
    return out.astype(returned, copy=False)


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
    axes = _mean_axes(
        "x", array.shape, kernel_size, stride, padding, ceil_mode, count_include_pad, dtype
    )
    return _mean(array, axes, algorithm)


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
    axes = _mean_axes(
        "input_shape", shape, kernel_size, stride, padding, ceil_mode, count_include_pad, dtype
    )
    return _mean_grad(grad, shape, axes, algorithm)


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
    axes = _adaptive_axes("x", array.shape, as_pair("output_size", output_size, 1))
    return _mean(array, axes, algorithm)


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
    axes = _adaptive_axes("input_shape", shape, (grad.shape[2], grad.shape[3]))
    return _mean_grad(grad, shape, axes, algorithm)


def _find(name: str) -> PoolAlgorithm:
    if name == "auto":
        return ALGORITHMS[0]
    for algorithm in ALGORITHMS:
        if algorithm.name == name:
            return algorithm
    names = ", ".join(repr(known) for known in ("auto", *pool_algorithms()))
    raise ValueError(f"algorithm must be one of {names}, got {name!r}")


def _mean_axes(
    name: str,
    input_shape: tuple[int, ...],
    kernel_size: IntPair,
    stride: IntPair | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    dtype: str,
) -> Axes:
    if not isinstance(count_include_pad, bool | np.bool_):
        raise TypeError(f"count_include_pad must be True or False, got {count_include_pad!r}")
    problem = Pool2dProblem.from_shapes(
        input_shape, kernel_size, stride, padding, 1, ceil_mode, dtype, name=name
    )
    return pooling_axes(problem, bool(count_include_pad))


def _adaptive_axes(name: str, input_shape: tuple[int, ...], outputs: tuple[int, int]) -> Axes:
    N, C, H, W = input_shape
    require_tensor(f"{name} {input_shape}", (N, C, H, W))
    require_tensor(f"output_size {outputs}", (N, C, *outputs))
    if H < 1 or W < 1:
        raise ValueError(f"{name} must have H and W of at least 1, got {input_shape}")
    return adaptive_axis(H, outputs[0]), adaptive_axis(W, outputs[1])


def _mean(array: Array, axes: Axes, algorithm: str) -> Array:
    dtype, returned = result_dtypes(array)
    chosen = _find(algorithm)
    out = np.empty((*array.shape[:2], axes[0].outputs, axes[1].outputs), dtype)
    if out.size:
        chosen.mean(as_computed(array, dtype), axes, out)
    return out.astype(returned, copy=False)


def _mean_grad(grad: Array, shape: tuple[int, ...], axes: Axes, algorithm: str) -> Array:
    wanted = (*shape[:2], axes[0].outputs, axes[1].outputs)
    check_shape("grad_output", grad, wanted, "the pooling's output")
    dtype, returned = result_dtypes(grad)
    chosen = _find(algorithm)
    out = np.empty(shape, dtype)
    if out.size:
        chosen.mean_grad(as_computed(grad, dtype), axes, out)
    return out.astype(returned, copy=False)
