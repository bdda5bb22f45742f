"""The arithmetic of sliding windows: sizes, padding, and which outputs a kernel tap can reach.

One axis at a time, plain integers only. Source: V. Dumoulin and F. Visin, "A guide to
convolution arithmetic for deep learning", arXiv:1603.07285.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from fastconv.core.array_hints import shown
from fastconv.core.hints import did_you_mean

#: What a user may pass where one number a spatial axis is meant.
IntPair: TypeAlias = int | tuple[int] | tuple[int, int]
#: Padding that has a name: what it is in pixels follows from the other sizes.
NamedPadding: TypeAlias = Literal["same", "same_lower", "valid"]
NAMED_PADDING: tuple[NamedPadding, ...] = get_args(NamedPadding)
#: Padding in numbers: ((top, bottom), (left, right)).
PaddingPairs: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
#: What a user may pass as padding in pixels, and as padding.
PixelPadding: TypeAlias = IntPair | PaddingPairs
Padding: TypeAlias = PixelPadding | NamedPadding

# Sizes up to here keep every product of sizes and strides well inside a signed 64-bit integer.
LARGEST_SIZE = 2**31 - 1
# More elements than this in one tensor is a typing error, not a tensor.
_LARGEST_TENSOR = 2**44


def as_int(name: str, value: Any, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`; floats and booleans are refused."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be an integer, got {value!r} of type {type(value).__name__}"
        ) from None
    if not minimum <= number <= LARGEST_SIZE:
        raise ValueError(f"{name} must be between {minimum} and {LARGEST_SIZE}, got {value!r}")
    return number


def as_ints(name: str, value: Any, length: int, minimum: int) -> tuple[int, ...]:
    """Return a sequence of exactly `length` integers, each at least `minimum`, as a tuple."""
    try:
        # Sets and dictionaries can be iterated too, but have no order or no values to mean. Arrays
        # of several axes are given by mistake for their shapes.
        no_sequence = isinstance(value, str | Mapping) or not hasattr(value, "__getitem__")
        if no_sequence or getattr(value, "ndim", 1) > 1:
            raise TypeError
        count = len(value)  # before it is copied: the sequence may be longer than memory
        items = tuple(value) if count == length else ()
    except TypeError:
        raise TypeError(
            f"{name} must be a sequence of {length} integers, got {shown(value)}"
        ) from None
    if count != length:
        raise ValueError(f"{name} must have {length} entries, got {count}: {shown(value)}")
    return tuple(as_int(f"{name}[{i}]", item, minimum) for i, item in enumerate(items))


def as_pair(name: str, value: Any, minimum: int) -> tuple[int, int]:
    """Return one integer, one in a tuple as in PyTorch, or a pair (height, width), as a pair.

    >>> as_pair("stride", (2,), 1)
    (2, 2)
    """
    if isinstance(value, tuple | list) and len(value) == 1:
        value = value[0], value[0]
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        number = as_int(name, value, minimum)
        return number, number
    try:
        height, width = as_ints(name, value, 2, minimum)
    except TypeError as error:  # e.g. a zero-dimensional array, which only looks iterable
        raise TypeError(f"{name} must be an integer or a pair of integers: {error}") from None
    return height, width


def as_result_size(value: Any, axes: int) -> tuple[int, int]:
    """Return (H, W) of an `output_size`, as in PyTorch also given as a shape of so many `axes`.

    >>> as_result_size((2, 64, 8, 9), axes=4)
    (8, 9)
    """
    try:
        whole = len(value) == axes
    except TypeError:
        whole = False
    last = as_ints("output_size", value, axes, 0)[-2:] if whole else value
    height, width = as_ints("output_size", last, 2, 1)
    return height, width


def as_image_shape(name: str, value: Any) -> tuple[int, int, int, int]:
    """Return a shape (N, C, H, W) of images that have pixels; `name` is the argument's."""
    N, C, H, W = as_ints(name, value, 4, 0)
    require_tensor(f"{name} {(N, C, H, W)}", (N, C, H, W))
    if 0 in (C, H, W):  # the sizes, not the shape: one image was given without N
        raise ValueError(
            f"{name} must have C, H and W of at least 1, got C={C}, H={H}, W={W}: only a batch "
            "can be empty"
        )
    return N, C, H, W


def extent(kernel: int, dilation: int) -> int:
    """Return how many input positions a dilated kernel spans: 5 for extent(3, 2)."""
    return dilation * (kernel - 1) + 1


def same_padding(
    size: int, kernel: int, stride: int, dilation: int, lower: bool = False
) -> tuple[int, int]:
    """Return the (before, after) padding that gives ceil(size / stride) outputs.

    Where the total is odd, the extra position goes after, as in TensorFlow, PyTorch and ONNX's
    SAME_UPPER; with `lower` before, as in ONNX's SAME_LOWER.

    >>> same_padding(size=5, kernel=2, stride=1, dilation=1)
    (0, 1)
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + extent(kernel, dilation) - size, 0)
    less, more = total // 2, total - total // 2
    return (more, less) if lower else (less, more)


def resolve_padding(
    padding: Any,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> PaddingPairs:
    """Return any accepted form of `padding` as ((top, bottom), (left, right))."""
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding in NAMED_PADDING:
            lower = padding == "same_lower"
            rows, columns = zip(size, kernel, stride, dilation, strict=True)
            return same_padding(*rows, lower), same_padding(*columns, lower)
        raise ValueError(
            f"padding must be an integer, a pair, ((top, bottom), (left, right)), or one of "
            f"{', '.join(map(repr, NAMED_PADDING))}, got {padding!r}"
            + did_you_mean("padding", padding, NAMED_PADDING)
        )
    if hasattr(padding, "__iter__"):
        try:
            axes = tuple(padding)
        except TypeError:  # a zero-dimensional array
            axes = ()
        if len(axes) == 2 and all(
            hasattr(axis, "__iter__") and not isinstance(axis, str) for axis in axes
        ):
            top, bottom = as_ints("padding[0]", axes[0], 2, 0)
            left, right = as_ints("padding[1]", axes[1], 2, 0)
            return (top, bottom), (left, right)
    height, width = as_pair("padding", padding, 0)
    return (height, height), (width, width)


def output_size(
    size: int,
    kernel: int,
    stride: int,
    dilation: int,
    padding: tuple[int, int],
    ceil_mode: bool = False,
) -> int:
    """Return how many windows fit an axis; zero or less when not even one does.

    With `ceil_mode` a last window may overhang the end, as long as it starts inside the
    input or the padding before it (PyTorch's rule).

    >>> output_size(size=7, kernel=3, stride=2, dilation=1, padding=(0, 0))
    3
    >>> output_size(size=8, kernel=3, stride=2, dilation=1, padding=(0, 0), ceil_mode=True)
    4
    """
    before, after = padding
    room = size + before + after - extent(kernel, dilation)
    if not ceil_mode:
        return room // stride + 1
    outputs = -(-room // stride) + 1
    if (outputs - 1) * stride >= size + before:
        outputs -= 1
    return outputs


def tap_range(size: int, outputs: int, stride: int, offset: int) -> tuple[int, int]:
    """Return the outputs [start, stop) whose position `output * stride + offset` is in [0, size).

    >>> tap_range(size=4, outputs=4, stride=1, offset=-1)
    (1, 4)
    """
    start = max(0, -(offset // stride))
    stop = min(outputs, (size - 1 - offset) // stride + 1)
    return start, max(start, stop)


def require_windows(
    name: str,
    size: tuple[int, int],
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    padding: PaddingPairs,
) -> None:
    """Raise ValueError unless a kernel, given as the argument `name`, fits its padded input."""
    for axis, word in enumerate(("height", "width")):
        span, padded = extent(kernel[axis], dilation[axis]), size[axis] + sum(padding[axis])
        if span > padded:
            raise ValueError(
                f"{name} must fit the padded input: a kernel of {kernel[axis]} with dilation "
                f"{dilation[axis]} spans {span} in {word}, but the input of {size[axis]} with "
                f"padding {padding[axis]} has {padded}"
            )


def require_tensor(cause: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError for a shape that no computer holds; `cause` names the arguments."""
    # Empty dimensions count as 1: what follows from the others, strides say, must fit too.
    if max(shape) > LARGEST_SIZE or math.prod(max(1, n) for n in shape) > _LARGEST_TENSOR:
        raise ValueError(f"{cause} would make an array of shape {shape}: too large to compute")
