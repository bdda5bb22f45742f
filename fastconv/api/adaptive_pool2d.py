"""Pooling to an output of a given size: means, maxima, and the gradient of means."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike

from fastconv.api.avg_pool2d import Means, means, means_grad
from fastconv.api.max_pool2d import fill_maxima, maxima_returned, maximum_dtypes
from fastconv.core.arguments import Array, as_batch, as_computed, as_flag, as_gradient
from fastconv.core.geometry import as_int, as_pair, require_tensor
from fastconv.core.pool_axis import Indices, adaptive_axis
from fastconv.pooling.pool_registry import PoolAlgorithmName, find
from fastconv.runtime import output_memory

#: What a user may pass as output size: None keeps that of the input.
OutputSize: TypeAlias = "int | tuple[int | None, int | None]"


def adaptive_avg_pool2d(
    x: ArrayLike, output_size: OutputSize, *, algorithm: PoolAlgorithmName = "auto"
) -> Array:
    """Return the means of windows that divide the input as evenly as possible.

    Parameters
    ----------
    x : array-like, (N, C, H, W), or one image (C, H, W)
    output_size : int or (int or None, int or None)
        Rows and columns of the result; 1 is the global average, None in a pair keeps the input's.
    algorithm : str
        "auto", or one of ``fastconv.pool_algorithms()``.

    Returns
    -------
    ndarray, (N, C, OH, OW), or (C, OH, OW) for one image
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
    array, single = as_batch("x", x)
    return means(array, _windows("x", array.shape, output_size), algorithm, single)


def adaptive_avg_pool2d_grad(
    grad_output: ArrayLike, input_shape: tuple[int, ...], *, algorithm: PoolAlgorithmName = "auto"
) -> Array:
    """Return the gradient of `adaptive_avg_pool2d` with respect to its input.

    Parameters
    ----------
    grad_output : array-like, (N, C, OH, OW), or (C, OH, OW) for one image
    input_shape : (N, C, H, W) or (C, H, W)
    algorithm : str
        "auto", or one of ``fastconv.pool_algorithms()``.

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
    >>> adaptive_avg_pool2d_grad(np.ones((1, 1, 1, 1)), (1, 1, 1, 2))
    array([[[[0.5, 0.5]]]])
    """
    grad, shape, single = as_gradient(grad_output, input_shape)
    if 0 in grad.shape[2:]:
        raise ValueError(
            f"grad_output must not be empty in height or width, got {grad.shape[single:]}"
        )
    windows = _windows("input_shape", shape, (grad.shape[2], grad.shape[3]))
    return means_grad(grad, shape, windows, algorithm, single)


@overload
def adaptive_max_pool2d(
    x: ArrayLike,
    output_size: OutputSize,
    return_indices: Literal[False] = False,
    *,
    algorithm: PoolAlgorithmName = "auto",
) -> Array: ...
@overload
def adaptive_max_pool2d(
    x: ArrayLike,
    output_size: OutputSize,
    return_indices: Literal[True],
    *,
    algorithm: PoolAlgorithmName = "auto",
) -> tuple[Array, Indices]: ...
def adaptive_max_pool2d(
    x: ArrayLike,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    algorithm: PoolAlgorithmName = "auto",
) -> Array | tuple[Array, Indices]:
    """Return the maxima of windows that divide the input as evenly as possible.

    `max_pool2d_grad` gives the gradient.

    Parameters
    ----------
    x : array-like, (N, C, H, W), or one image (C, H, W)
        Of any real type, as in `max_pool2d`.
    output_size : int or (int or None, int or None)
        Rows and columns of the result, as in `adaptive_avg_pool2d`.
    return_indices : bool
        Whether to return the indices of the maxima too.
    algorithm : str
        "auto", or one of ``fastconv.pool_algorithms()``.

    Returns
    -------
    values : ndarray, (N, C, OH, OW), or (C, OH, OW) for one image
        Of the same windows as in `adaptive_avg_pool2d`.
    indices : ndarray of int64, shaped like the values
        Only with `return_indices`; as in `max_pool2d`.

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> adaptive_max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), (1, 2))
    array([[[[13., 15.]]]])
    """
    array, single = as_batch("x", x)
    as_flag("return_indices", return_indices)
    windows = _windows("x", array.shape, output_size)
    # As in PyTorch: one image may be without channels, images of a batch may not.
    if array.shape[1] == 0 and not single:
        raise ValueError(f"x must have at least one channel, got shape {array.shape}")
    chosen = find(algorithm)
    dtype, returned = maximum_dtypes(array)
    shape = (*array.shape[:2], *windows.outputs)
    values = output_memory.empty(shape, dtype)
    indices = output_memory.empty(shape, np.int64) if return_indices else None
    if values.size:
        fill_maxima(as_computed(array, dtype), windows.axes(), values, indices, chosen)
    return maxima_returned(values, indices, returned, single)


def as_output_size(value: Any) -> tuple[int | None, int | None]:
    """Return an output size as a pair, in which None stands for the input's size."""
    if isinstance(value, tuple | list) and len(value) == 2 and any(n is None for n in value):
        pair = [
            None if size is None else as_int(f"output_size[{i}]", size, 1)
            for i, size in enumerate(value)
        ]
        return pair[0], pair[1]
    return as_pair("output_size", value, 1)


def _windows(name: str, input_shape: tuple[int, ...], output_size: Any) -> Means:
    """Return windows over the images of that shape, which the argument `name` gave."""
    N, C, H, W = input_shape
    OH, OW = as_output_size(output_size)
    outputs = H if OH is None else OH, W if OW is None else OW
    require_tensor(f"{name} {input_shape}", (N, C, H, W))
    require_tensor(f"output_size {outputs}", (N, C, *outputs))
    if H < 1 or W < 1:
        raise ValueError(f"{name} must have H and W of at least 1, got H={H}, W={W}")
    return Means(outputs, lambda: (adaptive_axis(H, outputs[0]), adaptive_axis(W, outputs[1])))
