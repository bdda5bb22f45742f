"""Sizes as arrays, and arrays made of sizes: the arithmetic of shapes that exporters write."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from fastconv.graph.ir import Array, Node
from fastconv.graph.operators.graph_operator import (
    INT64,
    Operator,
    Type,
    constants_of,
    integers,
    register,
    scalar,
    type_of,
)


def _filling(node: Node) -> Array:
    value = np.asarray(node.attributes.get("value", np.zeros(1, np.float32)))
    if value.size != 1:
        raise ValueError(f"value must be one number, got shape {value.shape}")
    return value.reshape(())


def _infer_filled(node: Node) -> Sequence[Type]:
    sizes = None if node.constant(0) is None else integers(node, constants_of(node), 0)
    if sizes is not None and min(sizes, default=0) < 0:
        raise ValueError(f"a shape must not be negative, got {sizes}")
    return [(_filling(node).dtype, sizes)]


def _filled(node: Node, inputs: Sequence[Any]) -> Array:
    value = _filling(node)
    return np.full(integers(node, inputs, 0), value, value.dtype)


def _range_size(inputs: Sequence[Any]) -> int:
    start, limit, delta = (scalar(inputs, i, 0) for i in range(3))
    if delta == 0:
        raise ValueError("delta must not be 0")
    if np.asarray(start).dtype.kind in "iu":
        return max(0, -((int(start) - int(limit)) // int(delta)))
    size = np.ceil((np.float64(limit) - np.float64(start)) / np.float64(delta))
    return max(0, int(size))


def _infer_range(node: Node) -> Sequence[Type]:
    constants, dtype = constants_of(node), type_of(node, 0)[0]
    size = None if any(each is None for each in constants) else _range_size(constants)
    return [(dtype, None if size is None else (size,))]


def _range(node: Node, inputs: Sequence[Any]) -> Array:
    start, delta, dtype = scalar(inputs, 0, 0), scalar(inputs, 2, 0), inputs[0].dtype
    computed = np.dtype(np.float32) if dtype == np.float16 else dtype
    steps = np.arange(_range_size(inputs)).astype(computed)
    return (steps * computed.type(delta) + computed.type(start)).astype(dtype)


def _part(node: Node, shape: Sequence[int]) -> Sequence[int]:
    return shape[node.attributes.get("start", 0) : node.attributes.get("end")]


def _infer_shape(node: Node) -> Sequence[Type]:
    shape = type_of(node, 0)[1]
    return [(INT64, None if shape is None else (len(_part(node, shape)),))]


def _shape(node: Node, inputs: Sequence[Any]) -> Array:
    return np.array(_part(node, inputs[0].shape), np.int64)


def _size(node: Node, inputs: Sequence[Any]) -> Array:
    return np.asarray(prod(inputs[0].shape), np.int64)


register("ConstantOfShape", Operator(_infer_filled, _filled))
register("Range", Operator(_infer_range, _range))
register("Shape", Operator(_infer_shape, _shape))
register("Size", Operator(lambda node: [(INT64, ())], _size))
