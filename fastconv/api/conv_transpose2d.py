"""Transposed convolution, as a user calls it: an input gradient used to enlarge images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fastconv.core.arguments import (
    Array,
    as_batch,
    as_bias,
    as_computed,
    as_numbers,
    as_returned,
    check_shape,
    result_dtypes,
)
from fastconv.core.array_hints import channels_last
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.geometry import (
    IntPair,
    PaddingPairs,
    PixelPadding,
    as_int,
    as_pair,
    as_result_size,
    extent,
    require_tensor,
    resolve_padding,
)
from fastconv.runtime import output_memory
from fastconv.select.choice import choose


def conv_transpose2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: IntPair = 1,
    padding: PixelPadding | Literal["valid"] = 0,
    output_padding: IntPair = 0,
    groups: int = 1,
    dilation: IntPair = 1,
    *,
    output_size: Sequence[int] | None = None,
) -> Array:
    """Transposed convolution: the input gradient of a convolution, used to enlarge images.

    Parameters
    ----------
    x : array-like, (N, C, H, W) or (C, H, W)
    weight : array-like, (C, K / groups, R, S), as in PyTorch
    bias : array-like, (K,), optional
    stride, dilation : int or (int, int)
        Of the convolution whose transpose this is.
    padding : int, (int, int), ((top, bottom), (left, right)) or "valid"
        Rows and columns cut from the result's edges.
    output_padding : int or (int, int)
        Rows and columns added at the bottom and right; below the stride or the dilation.
    groups : int
    output_size : (int, int), or a shape that ends with it, optional
        Height and width of the result, instead of `output_padding`: a stride gives images of
        several sizes the size of `x`.

    Returns
    -------
    ndarray, (N, K, OH, OW), of one image (K, OH, OW)
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
    >>> x, weight = np.ones((1, 3, 3)), np.ones((1, 1, 1, 1))
    >>> conv_transpose2d(x, weight, stride=2, output_size=(6, 5)).shape
    (1, 6, 5)
    """
    array, single = as_batch("x", x)
    filters = as_numbers("weight", weight, 4)
    groups = as_int("groups", groups, 1)
    step, gap = as_pair("stride", stride, 1), as_pair("dilation", dilation, 1)
    _check_channels(array, filters, groups, single)
    (H, W), (R, S) = array.shape[2:], filters.shape[2:]
    cut = _resolve_cut(padding, (H, W), (R, S), step, gap)
    spans = spanned((H, W), (R, S), step, gap)
    wanted = None if output_size is None else as_result_size(output_size, 4 - single)
    extra = _resolve_extra(output_padding, wanted, step, gap, spans, cut)
    size = _output_size(spans, extra, cut, array.shape[single:])
    output_shape = (array.shape[0], filters.shape[1] * groups, *size)
    require_tensor(f"stride {step} with dilation {gap}", output_shape)
    offsets = () if bias is None else (as_bias(bias),)
    for each in offsets:
        check_shape("bias", each, (output_shape[1],), "one for each output channel")
    dtype, returned = result_dtypes(array, filters, *offsets)
    out = np.zeros(output_shape, dtype)
    (rows, columns), pads = reached(size, extra, cut)
    if len(array) and rows and columns:
        inner, geometry = (*output_shape[:2], rows, columns), (step, pads, gap, groups, dtype)
        problem = Conv2dProblem.from_shapes(inner, filters.shape, *geometry, names=("x", "weight"))
        out[:, :, :rows, :columns] = _input_grad(problem, filters, array)
    for each in offsets:
        out += each.astype(dtype).reshape(-1, 1, 1)
    return as_returned(out, returned, single)


def _input_grad(problem: Conv2dProblem, weight: Array, grad: Array) -> Array:
    dtype, chosen = problem.dtype, choose(problem, "input_grad")
    out = output_memory.empty(problem.input_shape, dtype)
    chosen.input_grad.run(problem, as_computed(weight, dtype), as_computed(grad, dtype), out)
    return out


def reached(
    sizes: tuple[int, int], extra: tuple[int, int], cut: PaddingPairs
) -> tuple[tuple[int, int], PaddingPairs]:
    """Return height and width without the rows and columns of output padding that no tap reaches.

    The convolution whose input gradient those are has exactly the outputs (H, W): the padding
    returned is its.
    """
    (top, bottom), (left, right) = cut
    height = sizes[0] - max(0, extra[0] - bottom)
    width = sizes[1] - max(0, extra[1] - right)
    pads = (top, max(0, bottom - extra[0])), (left, max(0, right - extra[1]))
    return (max(0, height), max(0, width)), pads


def spanned(
    size: tuple[int, int], kernel: tuple[int, int], step: tuple[int, int], gap: tuple[int, int]
) -> tuple[int, int]:
    """Return height and width of all that the taps reach, nothing cut from it yet."""
    rows, columns = (
        (n - 1) * s + extent(k, d) for n, k, s, d in zip(size, kernel, step, gap, strict=True)
    )
    return rows, columns


def _output_size(
    spans: tuple[int, int], extra: tuple[int, int], cut: PaddingPairs, shape: tuple[int, ...]
) -> tuple[int, int]:
    """Return height and width of the result; raise where padding leaves nothing of it."""
    whole = spans[0] + extra[0], spans[1] + extra[1]
    for size, pads in zip(whole, cut, strict=True):
        if size <= sum(pads):
            raise ValueError(
                f"padding must leave an output: x of shape {shape} gives {size} rows or columns, "
                f"of which padding {pads} cuts all"
            )
    return whole[0] - sum(cut[0]), whole[1] - sum(cut[1])


def _resolve_cut(
    padding: PixelPadding | Literal["valid"],
    size: tuple[int, int],
    kernel: tuple[int, int],
    step: tuple[int, int],
    gap: tuple[int, int],
) -> PaddingPairs:
    if isinstance(padding, str) and padding in ("same", "same_lower"):
        raise ValueError(
            f"padding must be given in pixels, got {padding!r}, which leaves the output size of a "
            "transposed convolution open"
        )
    return resolve_padding(padding, size, kernel, step, gap)


def _resolve_extra(
    output_padding: IntPair,
    wanted: tuple[int, int] | None,
    step: tuple[int, int],
    gap: tuple[int, int],
    spans: tuple[int, int],
    cut: PaddingPairs,
) -> tuple[int, int]:
    """Return the output padding that is given, or that makes the result as large as wanted."""
    given = as_pair("output_padding", output_padding, 0)
    if wanted is None:
        for axis in (0, 1):
            if given[axis] >= max(step[axis], gap[axis]):
                raise ValueError(
                    f"output_padding must be smaller than stride or dilation, got "
                    f"{output_padding!r} with stride {step} and dilation {gap}"
                )
        return given
    if given != (0, 0):
        raise ValueError(
            f"output_padding must be 0 where output_size is given, got {output_padding!r}"
        )
    extra = []
    for axis, word in enumerate(("height", "width")):
        smallest = spans[axis] - sum(cut[axis])
        largest = smallest + step[axis] - 1
        if largest >= 1 and not smallest <= wanted[axis] <= largest:
            raise ValueError(
                f"output_size must be from {max(1, smallest)} to {largest} in {word}, the sizes "
                f"that a convolution with stride {step[axis]} makes that of x, got {wanted}"
            )
        extra.append(max(0, min(wanted[axis], largest) - smallest))
    return extra[0], extra[1]


def _check_channels(x: Array, weight: Array, groups: int, single: bool) -> None:
    C = x.shape[1]
    if weight.shape[0] != C:
        raise ValueError(
            f"weight must have shape (C, K / groups, R, S) with C={C}, as x has, got {weight.shape}"
            + channels_last("x", weight.shape[0], x.shape, single)
        )
    if 0 in weight.shape or 0 in x.shape[1:]:
        raise ValueError(
            f"x and weight must not be empty but for the batch, got shapes {x.shape[single:]} "
            f"and {weight.shape}"
        )
    if C % groups:
        raise ValueError(f"groups must divide the input channels, got groups={groups} with C={C}")
