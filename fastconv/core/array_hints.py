"""Sentences for arrays that do not fit: what they look like, and what would make them fit.

They are worked out only once an error is certain.
"""

from __future__ import annotations

import itertools
import math
import reprlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: For weights by their number of dimensions.
FILTER_HINTS = {
    2: "weight[np.newaxis, np.newaxis] is one filter of one channel",
    3: "weight[np.newaxis] is one filter, weight[:, np.newaxis] filters of one channel each",
}
#: For a bias by its number of dimensions.
BIAS_HINTS = {
    0: "it holds one number for each output channel, or is None; stride comes after it",
}

_LAST_TO_SECOND = (0, 3, 1, 2)
# Orders of axes that others use, and the transposition to ours.
_IMAGES = {"(N, C, H, W)": (0, 1, 2, 3), "(N, H, W, C)": _LAST_TO_SECOND}
_FILTERS = {
    "(K, C, R, S)": (0, 1, 2, 3),
    "(R, S, C, K)": (3, 2, 0, 1),
    "(K, R, S, C)": _LAST_TO_SECOND,
}


def shown(value: Any) -> str:
    """Return a value as error messages show it: of arrays and the like, the type alone and a shape.

    >>> shown(np.ones((2, 3)))
    'ndarray of shape (2, 3)'
    """
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and len(shape) > 1:
        return f"{type(value).__name__} of shape {shape}"
    text = reprlib.repr(value)
    return type(value).__name__ if "\n" in text else text


def channels_last(name: str, channels: int, shape: tuple[int, ...], single: bool) -> str:
    """Return a hint where the last axis of images, given as a batch, has the channels wanted."""
    if shape[-1] != channels:
        return ""
    axes, order = ("H W C", (2, 0, 1)) if single else ("N H W C", _LAST_TO_SECOND)
    return f": {name} looks like {axes}: {name}.transpose{order}"


def other_layout(
    images: tuple[str, tuple[int, ...]], filters: tuple[str, tuple[int, ...]], groups: int
) -> str:
    """Return a hint where channels fit with the axes of images or filters in another order.

    Both are given with the name of their argument. Kernels are taken to be square.
    """
    (_, C, *_), (K, inner, *_) = images[1], filters[1]
    if groups == 1 and inner < C and C % inner == 0 and K % (C // inner) == 0:
        return f": did you mean groups={C // inner}?"
    pairs = itertools.product(_FILTERS, _IMAGES)
    fitting = []
    for filter_axes, image_axes in pairs:
        _, C, H, W = (images[1][axis] for axis in _IMAGES[image_axes])
        K, inner, R, S = (filters[1][axis] for axis in _FILTERS[filter_axes])
        if inner * groups == C and K % groups == 0 and R == S and min(H, W) >= R:
            fitting.append((image_axes, filter_axes))
    if not fitting:
        return ""
    image_axes, filter_axes = fitting[0]
    hints = [
        _transposed(*given, axes, orders[axes])
        for given, axes, orders in (
            (images, image_axes, _IMAGES),
            (filters, filter_axes, _FILTERS),
        )
        if orders[axes] != (0, 1, 2, 3)
    ]
    return ": " + ", and ".join(hints)


def _transposed(name: str, shape: tuple[int, ...], axes: str, order: tuple[int, ...]) -> str:
    looks = f"{name} looks like {axes.strip('()').replace(',', '')}: "
    if name.endswith("_shape"):
        return looks + f"{tuple(shape[axis] for axis in order)}"
    one = ", or of one image x.transpose(2, 0, 1)" if (name, shape[0]) == ("x", 1) else ""
    return looks + f"{name}.transpose{order}{one}"


def common_divisors(*numbers: int) -> str:
    """Return the numbers that divide all of these, as text: the first few if there are many."""
    largest = math.gcd(*numbers)
    found = (str(n) for n in range(1, min(largest, 4096) + 1) if largest % n == 0)
    return ", ".join(itertools.islice(found, 8))


def not_an_array(name: str, value: Any, error: Exception) -> Exception:
    """Return the error for a value of which NumPy makes no array."""
    dtype, device = str(getattr(value, "dtype", "")), str(getattr(value, "device", "cpu"))
    if getattr(value, "requires_grad", False):
        return TypeError(
            f"{name} must not require a gradient, because none would reach it: {name}.detach()"
        )
    if "cpu" not in device.lower():
        return TypeError(
            f"{name} must be in the computer's own memory, got it on {device}: {name}.cpu()"
        )
    if "bfloat16" in dtype:
        return TypeError(f"{name} must be of a type that NumPy has, got {dtype}: {name}.float()")
    if isinstance(error, ValueError):
        return ValueError(
            f"{name} must be a regular array of numbers: {error} Images of one batch must have "
            "one size: resize them, or take them one by one"
        )
    return TypeError(f"{name} must be an array of numbers, got {type(value).__name__}: {error}")


def not_numbers(name: str, array: NDArray[Any]) -> str:
    """Return a hint for an array whose elements are no real numbers."""
    kind = array.dtype.kind
    if kind == "c":
        return f": take its parts one by one, {name}.real and {name}.imag"
    if array.ndim == 0:
        text = f", from {reprlib.repr(array.item())}"
        load = ": load the image first, e.g. np.asarray(PIL.Image.open(path))"
        return text + load if kind in "UT" else text
    if kind == "O" and np.ndim(array.flat[0] if array.size else 0):
        return ": in one batch all images have one size; resize them, or take them one by one"
    return "" if kind in "mM" else f": convert it first, {name}.astype('float32')"
