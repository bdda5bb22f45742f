"""The partial inverse of maximum pooling: maxima go back to where they were, all else is 0."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastconv.api.max_pool2d import maximum_dtypes, outside, with_indices
from fastconv.core.arguments import Array, as_computed, as_returned, check_shape
from fastconv.core.geometry import (
    IntPair,
    PaddingPairs,
    PixelPadding,
    as_pair,
    as_result_size,
    require_tensor,
    resolve_padding,
)
from fastconv.core.pool_problem import not_given
from fastconv.jit.compiler import RangeKernel
from fastconv.kernels import pool_loops
from fastconv.runtime import output_memory


def max_unpool2d(
    x: ArrayLike,
    indices: ArrayLike,
    kernel_size: IntPair,
    stride: IntPair | None = None,
    padding: PixelPadding = 0,
    output_size: tuple[int, ...] | None = None,
) -> Array:
    """Return planes of zeros with maxima put back to their indices.

    Parameters
    ----------
    x : array-like, (N, C, OH, OW), or one image (C, OH, OW)
        Of any real type, which the result has too.
    indices : array-like of integers, shaped like `x`
        What ``max_pool2d(..., return_indices=True)`` returned. Of values with the same index, the
        last one stays.
    kernel_size, stride, padding
        Those of the pooling, as in `max_pool2d`, padding in numbers.
    output_size : (H, W), or a shape that ends with it, optional
        Several sizes may be pooled to one: which it was. Without it H is
        ``(OH - 1) * stride - padding on both sides + kernel_size``; it may differ by less than one
        stride from that.

    Returns
    -------
    ndarray, (N, C, H, W), or (C, H, W) for one image

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what it was, and what would be right; also where an index is outside
        the plane.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import max_pool2d
    >>> x = np.array([[[1.0, 2.0, 3.0, 6.0], [8.0, 5.0, 4.0, 7.0]]])
    >>> max_unpool2d(*max_pool2d(x, 2, return_indices=True), 2)
    array([[[0., 0., 0., 0.],
            [8., 0., 0., 7.]]])
    """
    array, where, single = with_indices("x", x, indices)
    check_shape("indices", where, array.shape, "as x", single)
    N, C, OH, OW = array.shape
    # Without channels as in PyTorch: one image may be, images of a batch may not.
    if 0 in (OH, OW) or (C == 0 and not single):
        raise ValueError(
            f"x must have channels, rows and columns, got shape {array.shape[single:]}"
        )
    kernel = as_pair("kernel_size", kernel_size, 1)
    step = kernel if not_given(stride) else as_pair("stride", stride, 1)
    usual = tuple(
        (n - 1) * s - sum(pad) + k
        for n, s, pad, k in zip((OH, OW), step, _in_numbers(padding), kernel, strict=True)
    )
    given = None if output_size is None else as_result_size(output_size, 4 - single)
    shape = (N, C, *_size(given, usual, step))
    require_tensor(f"output_size {shape[2:]}", shape)
    dtype = maximum_dtypes(array)[1]
    out = output_memory.empty(shape, dtype)
    if array.size and not _moved(pool_loops.scatter, array, where, out, False):
        raise outside(where, shape[single:], "planes of shape")
    return as_returned(out, dtype, single)


def max_unpool2d_grad(grad_output: ArrayLike, indices: ArrayLike) -> Array:
    """Return the gradient of `max_unpool2d` with respect to the maxima.

    Parameters
    ----------
    grad_output : array-like, (N, C, H, W), or (C, H, W) for one image
        Gradient of the loss with respect to the planes.
    indices : array-like of integers, (N, C, OH, OW) or (C, OH, OW)
        Where the maxima were put.

    Returns
    -------
    ndarray, shaped like `indices`
        What `grad_output` has there; as in PyTorch, also for values that others replaced.

    Raises
    ------
    TypeError, ValueError
        As `max_unpool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> max_unpool2d_grad(np.arange(8.0).reshape(1, 2, 4), [[[4, 7]]])
    array([[[4., 7.]]])
    """
    grad, where, single = with_indices("grad_output", grad_output, indices)
    wanted = (*grad.shape[:2], *where.shape[2:])
    check_shape("indices", where, wanted, "N and C as in grad_output", single)
    dtype = maximum_dtypes(grad)[1]
    out = output_memory.empty(where.shape, dtype)
    if out.size and not _moved(pool_loops.gather, grad, where, out):
        raise outside(where, grad.shape[single:], "planes of shape")
    return as_returned(out, dtype, single)


def _moved(loop: RangeKernel, source: Array, indices: Array, out: Array, *rest: bool) -> bool:
    """Copy elements by a loop for all types of one size; return whether all indices were inside."""
    bits = f"u{out.itemsize}"
    source, indices = as_computed(source, out.dtype), as_computed(indices, "int64")
    return pool_loops.by_indices(loop, source.view(bits), indices, out.view(bits), *rest)


def _in_numbers(padding: Any) -> PaddingPairs:
    if isinstance(padding, str):
        raise TypeError(
            f"padding must be in numbers here, because {padding!r} follows from the size of the "
            "result: give the numbers of the pooling, or 0 with an output_size"
        )
    return resolve_padding(padding, (1, 1), (1, 1), (1, 1), (1, 1))


def _size(
    size: tuple[int, int] | None, usual: tuple[int, ...], step: tuple[int, int]
) -> tuple[int, ...]:
    """Return the size of the planes: the usual one, or another that pools to the same."""
    if size is None:
        if min(usual) < 1:
            raise ValueError(f"padding leaves planes of {usual}: use less, or give an output_size")
        return usual
    for axis, (n, middle, s) in enumerate(zip(size, usual, step, strict=True)):
        if not middle - s < n < middle + s:
            raise ValueError(
                f"output_size must be above {middle - s} and below {middle + s} in "
                f"{('height', 'width')[axis]}, got {n}: other sizes are not pooled to this one"
            )
    return size
