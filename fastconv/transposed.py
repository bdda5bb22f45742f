"""Transposed convolution, as a user calls it: an input gradient used to enlarge images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv import recycling
from fastconv.arguments import as_computed, as_numbers, check_shape, result_dtypes
from fastconv.geometry import (
    IntPair,
    Padding,
    as_int,
    as_pair,
    extent,
    require_tensor,
    resolve_padding,
)
from fastconv.plan import choose
from fastconv.problem import Conv2dProblem

Array = NDArray[Any]


def conv_transpose2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
) -> Array:
    """Transposed convolution: the input gradient of a convolution, used to enlarge images.

    Parameters
    ----------
    x : array-like, (N, C, H, W)
    weight : array-like, (C, K / groups, R, S)
        Input channels first, as in PyTorch.
    bias : array-like, (K,), optional
    stride, dilation : int or (int, int)
        Of the convolution whose transpose this is.
    padding : int, (int, int), ((top, bottom), (left, right)) or "valid"
        Rows and columns cut from the result's edges.
    output_padding : int or (int, int)
        Rows and columns added at the bottom and right; below the stride or the dilation.
    groups : int

    Returns
    -------
    ndarray, (N, K, OH, OW)
        ``OH = (H - 1) * stride - top - bottom + dilation * (R - 1) + output_padding + 1``

    Raises
    ------
    TypeError, ValueError
        As `conv2d`; also for padding="same", which does not say how large the result is.

    References
    ----------
    V. Dumoulin, F. Visin, arXiv:1603.07285, chapter 4.

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose2d(np.array([[[[1.0, 2.0]]]]), np.ones((1, 1, 1, 2)), stride=2)
    array([[[[1., 1., 2., 2.]]]])
    """
    array = as_numbers("x", x, 4)
    filters = as_numbers("weight", weight, 4)
    groups = as_int("groups", groups, 1)
    step = as_pair("stride", stride, 1)
    gap = as_pair("dilation", dilation, 1)
    extra = as_pair("output_padding", output_padding, 0)
    if isinstance(padding, str) and padding == "same":
        raise ValueError(
            "padding must be given in pixels, got 'same', which leaves the output size of a "
            "transposed convolution open"
        )
    N, C, H, W = array.shape
    if filters.shape[0] != C:
        raise ValueError(
            f"weight must have shape (C, K / groups, R, S) with C={C}, as x has, "
            f"got {filters.shape}"
        )
    if 0 in filters.shape or 0 in array.shape[1:]:
        raise ValueError(
            f"x and weight must not be empty but for the batch, got shapes {array.shape} and "
            f"{filters.shape}"
        )
    if C % groups:
        raise ValueError(f"groups must divide the input channels, got groups={groups} with C={C}")
    kernel = filters.shape[2], filters.shape[3]
    margins = resolve_padding(padding, (H, W), kernel, step, gap)
    sizes = []
    for axis, size in enumerate((H, W)):
        if extra[axis] >= max(step[axis], gap[axis]):
            raise ValueError(
                f"output_padding must be smaller than stride or dilation, got "
                f"{output_padding!r} with stride {step} and dilation {gap}"
            )
        spanned = (size - 1) * step[axis] + extent(kernel[axis], gap[axis]) + extra[axis]
        sizes.append(spanned - sum(margins[axis]))
        if size < 1 or sizes[-1] < 1:
            raise ValueError(
                f"padding must leave an output: x of shape {array.shape} gives {spanned} rows "
                f"or columns, of which padding {margins[axis]} cuts all"
            )
    output_shape = (N, filters.shape[1] * groups, sizes[0], sizes[1])
    require_tensor(f"stride {step} with dilation {gap}", output_shape)
    offsets = () if bias is None else (as_numbers("bias", bias, 1),)
    for each in offsets:
        check_shape("bias", each, (output_shape[1],), "one for each output channel")
    dtype, returned = result_dtypes(array, filters, *offsets)
    out = np.zeros(output_shape, dtype)
    # Rows and columns of output_padding that reach beyond every tap stay zero. Without them the
    # convolution whose input gradient this is has exactly the outputs (H, W).
    beyond = [max(0, extra[axis] - margins[axis][1]) for axis in (0, 1)]
    height, width = sizes[0] - beyond[0], sizes[1] - beyond[1]
    if N and height > 0 and width > 0:
        (top, bottom), (left, right) = margins
        cut = (top, max(0, bottom - extra[0])), (left, max(0, right - extra[1]))
        problem = Conv2dProblem.from_shapes(
            (N, output_shape[1], height, width),
            filters.shape,
            step,
            cut,
            gap,
            groups,
            dtype,
            names=("x", "weight"),
        )
        reached = recycling.empty(problem.input_shape, dtype)
        chosen = choose(problem, "input_grad")
        chosen.input_grad(problem, as_computed(filters, dtype), as_computed(array, dtype), reached)
        out[:, :, :height, :width] = reached
    for each in offsets:
        out += each.astype(dtype).reshape(-1, 1, 1)
    return out.astype(returned, copy=False)
