"""Operators that move elements without computing: views, joins, the arithmetic of shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from fastconv.graph.ir import Array, Node, Shape
from fastconv.graph.operators.graph_operator import (
    Operator,
    Step,
    Type,
    axis_of,
    integers,
    register,
    type_of,
)

INT64 = np.dtype(np.int64)

# Views ------------------------------------------------------------------------------------


def reshaped(shape: Shape, wanted: Sequence[int] | None, allow_zero: bool = False) -> Shape:
    """Return the shape that `Reshape` gives: 0 keeps a size, -1 stands for what remains."""
    if shape is None or wanted is None:
        return None
    sizes = [
        shape[i] if size == 0 and not allow_zero and i < len(shape) else size
        for i, size in enumerate(wanted)
    ]
    if sizes.count(-1) == 1:
        known = -prod(sizes)
        sizes[sizes.index(-1)] = prod(shape) // known if known else 0
    if prod(sizes) != prod(shape) or min(sizes, default=0) < 0:
        raise ValueError(f"an array of shape {shape} cannot be reshaped to {tuple(wanted)}")
    return tuple(sizes)


def _infer_reshape(node: Node) -> Sequence[Type]:
    dtype, shape = type_of(node, 0)
    allow_zero = bool(node.attributes.get("allowzero", 0))
    return [(dtype, reshaped(shape, integers(node.constant(1)), allow_zero))]


def _compute_reshape(node: Node, inputs: Sequence[Any]) -> Array:
    allow_zero = bool(node.attributes.get("allowzero", 0))
    shape = reshaped(inputs[0].shape, integers(inputs[1]), allow_zero)
    assert shape is not None
    return np.asarray(inputs[0].reshape(shape))


def _flat(node: Node, shape: Sequence[int]) -> tuple[int, int]:
    axis = int(node.attributes.get("axis", 1))
    axis += len(shape) if axis < 0 else 0
    return prod(shape[:axis]), prod(shape[axis:])


def _infer_flatten(node: Node) -> Sequence[Type]:
    dtype, shape = type_of(node, 0)
    return [(dtype, None if shape is None else _flat(node, shape))]


def _compute_flatten(node: Node, inputs: Sequence[Any]) -> Array:
    return np.asarray(inputs[0].reshape(_flat(node, inputs[0].shape)))


def _infer_same(node: Node) -> Sequence[Type]:
    return [type_of(node, 0)]


register("Reshape", Operator(_infer_reshape, _compute_reshape, view=True))
register("Flatten", Operator(_infer_flatten, _compute_flatten, view=True))
register("Identity", Operator(_infer_same, lambda _, inputs: inputs[0], view=True))


def unsqueezed(shape: Shape, axes: Sequence[int] | None) -> Shape:
    """Return the shape with axes of size 1 inserted at these places of the result."""
    if shape is None or axes is None:
        return None
    rank = len(shape) + len(axes)
    at = {axis % rank for axis in axes}
    rest = iter(shape)
    return tuple(1 if axis in at else next(rest) for axis in range(rank))


def _infer_unsqueeze(node: Node) -> Sequence[Type]:
    dtype, shape = type_of(node, 0)
    return [(dtype, unsqueezed(shape, integers(node.constant(1))))]


def _compute_unsqueeze(node: Node, inputs: Sequence[Any]) -> Array:
    return np.asarray(inputs[0].reshape(unsqueezed(inputs[0].shape, integers(inputs[1]))))


register("Unsqueeze", Operator(_infer_unsqueeze, _compute_unsqueeze, view=True))
register("Dropout", Operator(_infer_same, lambda _, inputs: inputs[0], view=True))


# Permutations and constants ---------------------------------------------------------------


def _permutation(node: Node, rank: int) -> tuple[int, ...]:
    return tuple(node.attributes.get("perm") or range(rank)[::-1])


def _infer_transpose(node: Node) -> Sequence[Type]:
    dtype, shape = type_of(node, 0)
    if shape is None:
        return [(dtype, None)]
    return [(dtype, tuple(shape[axis] for axis in _permutation(node, len(shape))))]


def _compute_transpose(node: Node, inputs: Sequence[Any]) -> Array:
    return np.ascontiguousarray(inputs[0].transpose(_permutation(node, inputs[0].ndim)))


def _bind_transpose(node: Node) -> Step:
    def step(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        outputs[0][...] = inputs[0].transpose(_permutation(node, inputs[0].ndim))

    return step


def _filling(node: Node) -> Array:
    return np.asarray(node.attributes.get("value", np.zeros(1, np.float32)))


def _infer_filled(node: Node) -> Sequence[Type]:
    return [(_filling(node).dtype, integers(node.constant(0)))]


def _compute_filled(node: Node, inputs: Sequence[Any]) -> Array:
    value = _filling(node)
    return np.full(integers(inputs[0]) or (), value.reshape(-1)[0], value.dtype)


register("Transpose", Operator(_infer_transpose, _compute_transpose, _bind_transpose))
register("ConstantOfShape", Operator(_infer_filled, _compute_filled))

# Joins ------------------------------------------------------------------------------------


def _infer_concat(node: Node) -> Sequence[Type]:
    types = [type_of(node, i) for i in range(len(node.inputs))]
    shapes = [shape for _, shape in types]
    first = shapes[0]
    if first is None or any(shape is None for shape in shapes):
        return [(types[0][0], None)]
    axis = axis_of(node, len(first))
    apart = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes if shape is not None}
    if len(apart) > 1:
        raise ValueError(f"Concat {node.name!r} needs shapes that differ along one axis: {shapes}")
    total = sum(shape[axis] for shape in shapes if shape is not None)
    return [(types[0][0], (*first[:axis], total, *first[axis + 1 :]))]


def _compute_concat(node: Node, inputs: Sequence[Any]) -> Array:
    return np.concatenate(inputs, axis=int(node.attributes.get("axis", 0)))


def _bind_concat(node: Node) -> Step:
    axis = int(node.attributes.get("axis", 0))

    def step(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        np.concatenate(inputs, axis=axis, out=outputs[0])

    return step


register("Concat", Operator(_infer_concat, _compute_concat, _bind_concat))


# The arithmetic of shapes -----------------------------------------------------------------


def _infer_shape(node: Node) -> Sequence[Type]:
    _, shape = type_of(node, 0)
    return [(INT64, None if shape is None else (len(_part(node, shape)),))]


def _part(node: Node, shape: Sequence[int]) -> Sequence[int]:
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return shape[start:end]


def _compute_shape(node: Node, inputs: Sequence[Any]) -> Array:
    return np.array(_part(node, inputs[0].shape), np.int64)


register("Shape", Operator(_infer_shape, _compute_shape))
