"""`Resize`: every element a weighted sum of neighbours, one axis after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastconv.graph.ir import Array, Node
from fastconv.graph.operators.graph_operator import (
    NumbersUnknown,
    Operator,
    axes_from_front,
    by_shape,
    into,
    register,
)


@dataclass(frozen=True)
class _Axis:
    """How one axis is resized.

    Attributes
    ----------
    axis, size, new_size : int
    scale : float
        Size of the output by that of the input, before it is rounded.
    region : (float, float)
        The part of the input that is read, by "tf_crop_and_resize".
    """

    axis: int
    size: int
    new_size: int
    scale: float
    region: tuple[float, float] = (0.0, 1.0)

    @property
    def is_same(self) -> bool:
        return self.scale == 1 and self.new_size == self.size and self.region == (0.0, 1.0)


def _numbers(node: Node, inputs: Sequence[Any], index: int) -> list[float] | None:
    """Return an optional input's elements; an empty input is as none."""
    value = node.input(index)
    if value is None or value.shape == (0,):
        return None
    if inputs[index] is None:
        raise NumbersUnknown
    return [float(number) for number in np.ravel(inputs[index])] or None


def _axes(node: Node, shape: tuple[int, ...], inputs: Sequence[Any]) -> list[_Axis]:
    rank = len(shape)
    axes = axes_from_front(node.attributes.get("axes") or range(rank), rank)
    scales, sizes = _numbers(node, inputs, 2), _numbers(node, inputs, 3)
    given = scales if sizes is None else sizes
    if given is None or len(given) != len(axes) or min(given, default=1) < 0:
        raise ValueError(f"scales or sizes must be {len(axes)} numbers, got {given}")
    if sizes is not None:
        factors = [size / max(1, shape[axis]) for size, axis in zip(sizes, axes, strict=True)]
        policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            one = min(factors) if policy == "not_larger" else max(factors)
            factors = [one] * len(axes)
            sizes = [int(one * shape[axis] + 0.5) for axis in axes]
    else:
        factors = given
        sizes = [int(scale * shape[axis]) for scale, axis in zip(factors, axes, strict=True)]
    regions = _regions(node, inputs, len(axes))
    return [
        _Axis(axis, shape[axis], int(size), float(factor), region)
        for axis, size, factor, region in zip(axes, sizes, factors, regions, strict=True)
    ]


def _regions(node: Node, inputs: Sequence[Any], count: int) -> list[tuple[float, float]]:
    if node.attributes.get("coordinate_transformation_mode") != "tf_crop_and_resize":
        return [(0.0, 1.0)] * count
    roi = _numbers(node, inputs, 1)
    if roi is None or len(roi) != 2 * count:
        raise ValueError(f"roi must be {2 * count} numbers, got {roi}")
    return list(zip(roi[:count], roi[count:], strict=True))


def _resized(node: Node, shape: tuple[int, ...], inputs: Sequence[Any]) -> tuple[int, ...]:
    sizes = list(shape)
    for each in _axes(node, shape, inputs):
        sizes[each.axis] = each.new_size
    return tuple(sizes)


def _sources(mode: str, axis: _Axis) -> Array:
    """Return the coordinate in the input of every output."""
    y, length = np.arange(axis.new_size, dtype=np.float64), axis.scale * axis.size
    if mode == "align_corners":
        return y * 0 if length == 1 else y * (axis.size - 1) / (length - 1)
    if mode == "asymmetric":
        return y / axis.scale
    if mode == "tf_crop_and_resize":
        start, end = (bound * (axis.size - 1) for bound in axis.region)
        if length == 1:
            return y * 0 + (start + end) / 2
        return start + y * (end - start) / (length - 1)
    centers = (y + 0.5) / axis.scale - 0.5
    if mode == "half_pixel":
        return centers
    if mode == "pytorch_half_pixel":
        return y * 0 - 0.5 if length == 1 else centers
    if mode == "half_pixel_symmetric":
        return axis.size / 2 * (1 - axis.new_size / length) + centers
    raise ValueError(f"there is no coordinate_transformation_mode {mode!r}")


_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _triangle(distance: Array, _: float) -> Array:
    return np.asarray(np.maximum(0, 1 - np.abs(distance)))


def _keys(distance: Array, a: float) -> Array:
    """Return R. Keys' cubic kernel (IEEE Trans. ASSP 29, 1981)."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.asarray(np.where(d <= 1, near, np.where(d < 2, far, 0)))


#: The kernel of each mode, and how far it reaches.
_KERNELS: dict[str, tuple[Callable[[Array, float], Array], int]] = {
    "linear": (_triangle, 1),
    "cubic": (_keys, 2),
}


def _named(node: Node, attribute: str, default: str, choices: dict[str, Any]) -> Any:
    name = node.attributes.get(attribute, default)
    if name not in choices:
        raise ValueError(f"{attribute} must be one of {', '.join(choices)}, got {name!r}")
    return choices[name]


def _weights(node: Node, axis: _Axis, x: Array) -> tuple[Array, Array]:
    """Return which elements of the axis each output reads, and their weights, (outputs, taps)."""
    mode = node.attributes.get("mode", "nearest")
    if mode == "nearest":
        rounded = _named(node, "nearest_mode", "round_prefer_floor", _NEAREST)(x)
        return np.clip(rounded, 0, axis.size - 1).astype(np.int64)[:, None], np.ones((len(x), 1))
    kernel, reach = _named(node, "mode", "nearest", _KERNELS)
    # An antialiasing kernel is stretched where the output is smaller.
    antialias = node.attributes.get("antialias", 0)
    narrow = min(1.0, axis.scale) if antialias else 1.0
    first = int(np.floor(-reach / narrow)) + 1
    indices = np.floor(x).astype(np.int64)[:, None] + np.arange(first, 2 - first)
    weights = kernel((indices - x[:, None]) * narrow, node.attributes.get("cubic_coeff_a", -0.75))
    if node.attributes.get("exclude_outside", 0):
        weights = np.where((indices < 0) | (indices >= axis.size), 0, weights)
    if antialias or node.attributes.get("exclude_outside", 0):
        sums = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(sums == 0, 1, sums)
    return np.clip(indices, 0, axis.size - 1), weights


def _resize_axis(node: Node, array: Array, axis: _Axis) -> Array:
    mode = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    x = _sources(mode, axis)
    indices, weights = _weights(node, axis, x)
    along = (-1, *(1,) * (array.ndim - 1 - axis.axis))
    if indices.shape[1] == 1:
        result = np.take(array, indices[:, 0], axis.axis)
    else:
        if array.dtype.kind != "f":
            array = array.astype(np.float64)
        result = np.zeros((), array.dtype)
        for places, weight in zip(indices.T, weights.T.astype(array.dtype), strict=True):
            result = result + np.take(array, places, axis.axis) * weight.reshape(along)
    if mode == "tf_crop_and_resize":
        outside = ((x < 0) | (x > axis.size - 1)).reshape(along)
        result = np.where(outside, node.attributes.get("extrapolation_value", 0.0), result)
    return result


def _resize(node: Node, inputs: Sequence[Any]) -> Array:
    x = inputs[0]
    shape = _resized(node, x.shape, inputs)
    if not (x.size and np.prod(shape)):
        return np.zeros(shape, x.dtype)
    result = x
    for axis in _axes(node, x.shape, inputs):
        if not axis.is_same:
            result = _resize_axis(node, result, axis)
    if x.dtype.kind in "iu" and result.dtype != x.dtype:
        limits = np.iinfo(x.dtype)
        result = np.clip(np.trunc(result), limits.min, limits.max)
    return np.asarray(result, x.dtype)


register("Resize", Operator(by_shape(_resized), _resize, into(_resize)))
