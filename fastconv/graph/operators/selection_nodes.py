"""Operators that select elements by index, by order or by overlap; sizes may be known only then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.graph.ir import Array, Node, Shape
from fastconv.graph.operators.graph_operator import (
    INT64,
    Operator,
    Type,
    axis_of,
    integers,
    into,
    known,
    register,
    same_type,
    scalar,
    type_of,
)

# By index ---------------------------------------------------------------------------------


def joined_shape(*parts: Shape) -> Shape:
    """Return shapes one after another, None if one is unknown."""
    if any(part is None for part in parts):
        return None
    return tuple(size for part in parts for size in part or ())


def _infer_gather(node: Node) -> Sequence[Type]:
    (dtype, shape), (_, indices) = type_of(node, 0), type_of(node, 1)
    if shape is None:
        return [(dtype, None)]
    axis = axis_of(node, len(shape))
    return [(dtype, joined_shape(shape[:axis], indices, shape[axis + 1 :]))]


def _gather(node: Node, inputs: Sequence[Any]) -> Array:
    x, indices = inputs
    return np.asarray(np.take(x, indices, axis_of(node, x.ndim)))


def _infer_gather_elements(node: Node) -> Sequence[Type]:
    return [(type_of(node, 0)[0], type_of(node, 1)[1])]


def _gather_elements(node: Node, inputs: Sequence[Any]) -> Array:
    x, indices = inputs
    axis = axis_of(node, x.ndim)
    # Along the other axes only the first elements are read.
    part = tuple(
        slice(None) if i == axis else slice(size) for i, size in enumerate(indices.shape[: x.ndim])
    )
    return np.take_along_axis(x[part], indices, axis)


def _infer_gather_nd(node: Node) -> Sequence[Type]:
    (dtype, shape), (_, indices) = type_of(node, 0), type_of(node, 1)
    if shape is None or indices is None:
        return [(dtype, None)]
    batch = int(node.attributes.get("batch_dims", 0))
    return [(dtype, joined_shape(indices[:-1], shape[batch + indices[-1] :]))]


def _gather_nd(node: Node, inputs: Sequence[Any]) -> Array:
    x, indices = inputs
    batch = int(node.attributes.get("batch_dims", 0))
    shared = np.ogrid[tuple(slice(size) for size in x.shape[:batch])] if batch else ()
    inner = indices.ndim - 1 - batch
    places = tuple(each.reshape(each.shape + (1,) * inner) for each in shared)
    return np.asarray(x[(*places, *np.moveaxis(indices, -1, 0))])


_REDUCTIONS = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


def _scattered(node: Node, x: Array, places: Any, updates: Array) -> Array:
    """Return a copy of x with updates written to, or combined with, the elements at places."""
    y, reduction = x.copy(), node.attributes.get("reduction", "none")
    if reduction == "none":
        y[places] = updates
    else:
        _REDUCTIONS[reduction].at(y, places, updates)
    return y


def _scatter_nd(node: Node, inputs: Sequence[Any]) -> Array:
    x, indices, updates = inputs
    return _scattered(node, x, tuple(np.moveaxis(indices, -1, 0)), updates)


def _scatter_elements(node: Node, inputs: Sequence[Any]) -> Array:
    x, indices, updates = inputs
    places = list(np.ogrid[tuple(slice(size) for size in indices.shape)])
    places[axis_of(node, x.ndim)] = indices
    return _scattered(node, x, tuple(places), updates)


register("Gather", Operator(_infer_gather, _gather, into(_gather)))
register(
    "GatherElements", Operator(_infer_gather_elements, _gather_elements, into(_gather_elements))
)
register("GatherND", Operator(_infer_gather_nd, _gather_nd, into(_gather_nd)))
register("ScatterElements", Operator(same_type, _scatter_elements, into(_scatter_elements)))
register("ScatterND", Operator(same_type, _scatter_nd, into(_scatter_nd)))


# By value ---------------------------------------------------------------------------------


def _infer_nonzero(node: Node) -> Sequence[Type]:
    return [(INT64, None)]


def _nonzero(node: Node, inputs: Sequence[Any]) -> Array:
    x = inputs[0]
    return np.array(np.nonzero(x), np.int64) if x.ndim else np.zeros((0, int(bool(x))), np.int64)


register("NonZero", Operator(_infer_nonzero, _nonzero))


def _top_shape(node: Node, shape: tuple[int, ...], inputs: Sequence[Any]) -> tuple[int, ...]:
    (count,), axis = integers(node, inputs, 1), axis_of(node, len(shape), -1)
    if not 0 <= count <= shape[axis]:
        raise ValueError(f"k must be between 0 and the {shape[axis]} of axis {axis}, got {count}")
    return (*shape[:axis], count, *shape[axis + 1 :])


def _infer_top(node: Node) -> Sequence[Type]:
    dtype, shape = type_of(node, 0)
    found = known(_top_shape, node, shape)
    return [(dtype, found), (INT64, found)]


def _top(node: Node, inputs: Sequence[Any]) -> tuple[Array, Array]:
    """Return the largest or smallest elements and their indices; of equal ones the first."""
    x, axis = inputs[0], axis_of(node, inputs[0].ndim, -1)
    count = _top_shape(node, x.shape, inputs)[axis]
    if node.attributes.get("largest", 1):
        order = np.flip(x.shape[axis] - 1 - _sorted(np.flip(x, axis), axis), axis)
    else:
        order = _sorted(x, axis)
    indices = np.take(order, np.arange(count), axis)
    return np.take_along_axis(x, indices, axis), indices


def _sorted(x: Array, axis: int) -> Array:
    return np.argsort(x, axis, kind="stable")


register("TopK", Operator(_infer_top, _top))


# By overlap -------------------------------------------------------------------------------


def _corners(boxes: Array, from_center: bool) -> tuple[Array, Array]:
    """Return the lower and upper corners, (..., 2) each."""
    if from_center:
        center, half = boxes[..., :2], boxes[..., 2:] / 2
        return center - half, center + half
    return np.minimum(boxes[..., :2], boxes[..., 2:]), np.maximum(boxes[..., :2], boxes[..., 2:])


def _suppress(scores: Array, low: Array, high: Array, most: int, overlap: float) -> list[int]:
    """Return the boxes that overlap no chosen box of a higher score, best first."""
    areas = np.prod(high - low, axis=-1)
    order = np.argsort(-scores, kind="stable")
    chosen: list[int] = []
    while order.size and len(chosen) < most:
        best, order = order[0], order[1:]
        chosen.append(int(best))
        sides = np.minimum(high[order], high[best]) - np.maximum(low[order], low[best])
        common = np.prod(np.maximum(sides, 0), axis=-1)
        union = areas[order] + areas[best] - common
        # Without division: boxes without an area overlap nothing.
        order = order[~((common > 0) & (common > overlap * union))]
    return chosen


def _non_max_suppression(node: Node, inputs: Sequence[Any]) -> Array:
    """Return (image, class, box) of each box that stays."""
    boxes, scores = inputs[:2]
    most = int(scalar(inputs, 2, 0))
    overlap, least = float(scalar(inputs, 3, 0)), scalar(inputs, 4, None)
    low, high = _corners(boxes, bool(node.attributes.get("center_point_box", 0)))
    found = []
    for image, class_ in np.ndindex(*scores.shape[:2]):
        numbers = scores[image, class_]
        kept = np.arange(len(numbers)) if least is None else np.flatnonzero(numbers > least)
        chosen = _suppress(numbers[kept], low[image, kept], high[image, kept], most, overlap)
        found += [(image, class_, kept[box]) for box in chosen]
    return np.array(found, np.int64).reshape(-1, 3)


register("NonMaxSuppression", Operator(_infer_nonzero, _non_max_suppression))
