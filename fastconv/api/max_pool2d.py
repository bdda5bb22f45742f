"""Maximum pooling and its gradient, as a user calls them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastconv.core.arguments import (
    Array,
    as_batch,
    as_batch_shape,
    as_computed,
    as_flag,
    as_returned,
    check_batched_alike,
    check_shape,
    result_dtypes,
)
from fastconv.core.geometry import IntPair, Padding
from fastconv.core.pool_axis import Axes, Indices
from fastconv.core.pool_problem import Pool2dProblem, problem_of
from fastconv.pooling.pool_algorithm import PoolAlgorithm
from fastconv.pooling.pool_registry import FASTEST, PoolAlgorithmName, find
from fastconv.runtime import output_memory

#: The index of a window that has none, because it is wholly in the padding.
NOWHERE = -1


def max_pool2d(
    x: ArrayLike,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: Padding = 0,
    dilation: IntPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    wide_padding: bool = False,
    algorithm: PoolAlgorithmName = "auto",
) -> Array | tuple[Array, Indices]:
    """Return the maximum of every window.

    Parameters
    ----------
    x : array-like, (N, C, H, W), or one image (C, H, W)
        Of any real type, which the maxima have too. float16 is compared in float32.
    kernel_size : int or (int, int)
        Height and width of a window.
    stride : int or (int, int), optional
        Distance of windows; the kernel size if not given.
    padding : int, (int, int), ((top, bottom), (left, right)), or str
        Words as in `fastconv.conv2d`. At most half the window, unless `wide_padding` is True.
        Padding never wins.
    dilation : int or (int, int)
        Distance of a window's elements.
    ceil_mode : bool
        Whether a last window may overhang the end.
    return_indices : bool
        Whether to return the indices of the maxima too.
    wide_padding : bool
        Whether windows may be wholly in the padding, as ONNX allows and PyTorch does not. Their
        maximum is 0 then, and their index -1, as in ONNX's reference.
    algorithm : str
        "auto", or one of ``fastconv.pool_algorithms()``.

    Returns
    -------
    values : ndarray, (N, C, OH, OW), or (C, OH, OW) for one image
    indices : ndarray of int64, shaped like the values
        Only with `return_indices`: ``h * W + w`` in the input plane. The first of equal maxima
        wins; NaN wins over every number, and the last of several NaN, as in PyTorch.

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
    array, single = as_batch("x", x)
    as_flag("return_indices", return_indices)
    dtype, returned = maximum_dtypes(array)
    geometry = kernel_size, stride, padding, dilation, ceil_mode, wide_padding
    problem = problem_of(array, dtype, *geometry)
    indices = output_memory.empty(problem.output_shape, np.int64) if return_indices else None
    values = maxima(array, problem, indices, find(algorithm))
    return maxima_returned(values, indices, returned, single)


def maximum_dtypes(array: Array) -> tuple[str, str]:
    """Return the dtypes to find maxima in and to return: a maximum is one of the elements."""
    if array.dtype.kind == "f":
        return result_dtypes(array)
    return array.dtype.name, array.dtype.name


def maxima_returned(
    values: Array, indices: Indices | None, dtype: DTypeLike, single: bool
) -> Array | tuple[Array, Indices]:
    """Return maxima, of a `single` image without a batch axis, and their indices if there are."""
    values = as_returned(values, dtype, single)
    return values if indices is None else (values, as_returned(indices, np.int64, single))


def maxima(
    x: Array,
    problem: Pool2dProblem,
    indices: Indices | None = None,
    algorithm: PoolAlgorithm = FASTEST,
) -> Array:
    """Return the maxima of a checked array, and write their indices to `indices` if given."""
    values = output_memory.empty(problem.output_shape, problem.dtype)
    if values.size:
        x = as_computed(x, problem.dtype)
        fill_maxima(x, problem.maximum_axes, values, indices, algorithm)
    return values


def fill_maxima(
    x: Array, axes: Axes, values: Array, indices: Indices | None, algorithm: PoolAlgorithm
) -> None:
    """Write the maxima of windows, and their indices; of windows without any element 0 and -1."""
    as_bytes = x.dtype.kind == "b"  # which have the order of truth values
    given, found = (x.view(np.uint8), values.view(np.uint8)) if as_bytes else (x, values)
    algorithm.maximum(given, axes, found, indices)
    rows, columns = axes
    if rows.some_empty or columns.some_empty:
        for empty in (np.s_[:, :, rows.empty], np.s_[:, :, :, columns.empty]):
            values[empty] = 0
            if indices is not None:
                indices[empty] = NOWHERE


def max_pool2d_grad(
    grad_output: ArrayLike,
    indices: ArrayLike,
    input_shape: tuple[int, ...],
    *,
    wide_padding: bool = False,
    algorithm: PoolAlgorithmName = "auto",
) -> Array:
    """Return the gradient of `max_pool2d` or `adaptive_max_pool2d` with respect to its input.

    Parameters
    ----------
    grad_output : array-like, (N, C, OH, OW), or (C, OH, OW) for one image
        Gradient of the loss with respect to the maxima.
    indices : array-like of integers, shaped like `grad_output`
        What ``max_pool2d(..., return_indices=True)`` returned.
    input_shape : (N, C, H, W) or (C, H, W)
        Shape of the pooled array.
    wide_padding : bool
        Whether an index may be -1, that of a window without any element: its gradient is dropped.
    algorithm : str
        "auto", or one of ``fastconv.pool_algorithms()``.

    Returns
    -------
    ndarray, (N, C, H, W) or (C, H, W)
        Where several windows have the same argmax, their gradients add up.

    Raises
    ------
    TypeError, ValueError
        Also where an index is outside the input plane.

    Examples
    --------
    >>> import numpy as np
    >>> max_pool2d_grad(np.ones((1, 1, 1, 1)), np.full((1, 1, 1, 1), 3), (1, 1, 2, 2))
    array([[[[0., 0.],
             [0., 1.]]]])
    """
    grad, where, single = with_indices("grad_output", grad_output, indices)
    shape, single_shape = as_batch_shape("input_shape", input_shape)
    check_batched_alike(grad_output=single, input_shape=single_shape)
    wide_padding = as_flag("wide_padding", wide_padding)
    wanted = *shape[:2], *grad.shape[2:]
    check_shape("grad_output", grad, wanted, "N and C as in input_shape", single)
    check_shape("indices", where, grad.shape, "as grad_output", single)
    dtype, returned = result_dtypes(grad)
    chosen = find(algorithm)
    if not grad.size:
        return as_returned(np.zeros(shape, returned), returned, single)
    out = output_memory.empty(shape, dtype)
    # As int64, an index too large for that is negative: outside, too.
    given, argmax = as_computed(grad, dtype), as_computed(where, "int64")
    if wide_padding:
        empty = where == NOWHERE  # as they were given: uint64 has larger numbers instead
        given, argmax = np.where(empty, given.dtype.type(0), given), np.where(empty, 0, argmax)
    if not (out.size and chosen.maximum_grad(given, argmax, out)):
        raise outside(where, shape[single:], "input_shape", wide_padding)
    return as_returned(out, returned, single)


def with_indices(name: str, value: ArrayLike, indices: ArrayLike) -> tuple[Array, Array, bool]:
    """Return the argument `name` and indices of maxima as batches, and whether of one image."""
    array, single = as_batch(name, value)
    where, single_indices = as_batch("indices", indices)
    if where.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers, got dtype {where.dtype}")
    check_batched_alike(**{name: single, "indices": single_indices})
    return array, where, single


def outside(
    indices: Array, shape: tuple[int, ...], name: str, or_nowhere: bool = False
) -> ValueError:
    """Return the error for indices that are not all inside planes of that shape."""
    H, W = shape[-2:]
    found = f"got {indices.min()} .. {indices.max()}"
    if H * W == 0:
        return ValueError(
            f"indices must lie inside the plane, but with H={H} and W={W} in {name} it has no "
            f"positions: {found}"
        )
    allowed = f"0 .. {H * W - 1}" + f" or be {NOWHERE}" * or_nowhere
    return ValueError(f"indices must lie in {allowed} for {name} {shape}, {found}")
