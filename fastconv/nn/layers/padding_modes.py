"""Padding of images by their own pixels instead of zeros, and its adjoint.

Images are padded by a copy, before a convolution without padding: first along the width, then
along the height. Each position in the padding is a copy of one inside (`source`). The adjoint runs
the steps in reverse, and adds where padding copied.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from fastconv.core.arguments import Array
from fastconv.core.geometry import PaddingPairs, require_tensor
from fastconv.core.hints import did_you_mean
from fastconv.runtime import output_memory

#: PyTorch's modes: zeros, the image mirrored without its edge, its edge pixels, the image repeated.
PaddingMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]
PADDING_MODES: tuple[PaddingMode, ...] = get_args(PaddingMode)


def check_padding_mode(mode: Any) -> None:
    """Raise ValueError unless `mode` is one of `PADDING_MODES`."""
    if not (isinstance(mode, str) and mode in PADDING_MODES):
        names = ", ".join(map(repr, PADDING_MODES))
        hint = did_you_mean("padding_mode", mode, PADDING_MODES)
        raise ValueError(f"padding_mode must be one of {names}, got {mode!r}{hint}")


def source(position: int, size: int, mode: str) -> int:
    """Return the position inside an axis that is copied to a `position` outside.

    >>> [source(position, 4, "reflect") for position in (-2, -1, 4, 5)]
    [2, 1, 2, 1]
    >>> [source(position, 4, "replicate") for position in (-2, -1, 4, 5)]
    [0, 0, 3, 3]
    >>> [source(position, 4, "circular") for position in (-2, -1, 4, 5)]
    [2, 3, 0, 1]
    """
    if mode == "circular":
        return position % size
    inside = min(max(position, 0), size - 1)
    return inside if mode == "replicate" else 2 * inside - position


def check_sides(H: int, W: int, padding: PaddingPairs, mode: str) -> None:
    """Raise ValueError unless images of H x W have the pixels that padding copies."""
    if 0 in (H, W):
        raise ValueError(f"x must have H and W of at least 1, got H={H}, W={W}")
    for size, each, word in zip((H, W), padding, ("height", "width"), strict=True):
        largest = {"reflect": size - 1, "circular": size}.get(mode)
        if largest is not None and max(each) > largest:
            raise ValueError(
                f"padding must be at most {largest} with padding_mode={mode!r} for images of "
                f"{word} {size}, got {each}"
            )


def pad(x: Array, padding: PaddingPairs, mode: str) -> Array:
    """Return images (..., H, W), padded with copies of their pixels.

    >>> pad(np.array([[1, 2, 3]]), ((0, 0), (2, 1)), "reflect")
    array([[3, 2, 1, 2, 3, 2]])
    """
    H, W = x.shape[-2:]
    check_sides(H, W, padding, mode)
    (top, bottom), (left, right) = padding
    shape = (*x.shape[:-2], top + H + bottom, left + W + right)
    require_tensor(f"padding {padding}", shape)
    out = output_memory.empty(shape, x.dtype)
    rows = out[..., top : top + H, :]
    rows[..., left : left + W] = x
    for column in _outside(W, padding[1]):
        rows[..., left + column] = rows[..., left + source(column, W, mode)]
    for row in _outside(H, padding[0]):
        out[..., top + row, :] = out[..., top + source(row, H, mode), :]
    return out


def pad_grad(grad: Array, padding: PaddingPairs, mode: str) -> Array:
    """Return the gradient of images from that of padded ones, which is overwritten.

    >>> pad_grad(np.ones((1, 6)), ((0, 0), (2, 1)), "reflect")
    array([[1., 3., 2.]])
    """
    (top, bottom), (left, right) = padding
    H, W = grad.shape[-2] - top - bottom, grad.shape[-1] - left - right
    for row in _outside(H, padding[0]):
        grad[..., top + source(row, H, mode), :] += grad[..., top + row, :]
    rows = grad[..., top : top + H, :]
    for column in _outside(W, padding[1]):
        rows[..., left + source(column, W, mode)] += rows[..., left + column]
    return np.ascontiguousarray(rows[..., left : left + W])


def _outside(size: int, padding: tuple[int, int]) -> tuple[int, ...]:
    """Return the positions of an axis before and after its `size` positions."""
    before, after = padding
    return *range(-before, 0), *range(size, size + after)
