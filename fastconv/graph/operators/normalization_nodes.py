"""Normalizations: by stored statistics, by neighbours, by exponentials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.graph.ir import Array, Node
from fastconv.graph.operators.graph_operator import Operator, Type, into, register, type_of


def _same(node: Node) -> Sequence[Type]:
    return [type_of(node, 0)]


def _batch_norm(node: Node, inputs: Sequence[Any]) -> Array:
    x, scale, bias, mean, var = inputs
    factor = scale / np.sqrt(var + node.attributes.get("epsilon", 1e-5))
    along = (-1, *(1,) * (x.ndim - 2))
    y = x * factor.reshape(along) + (bias - mean * factor).reshape(along)
    return np.asarray(y, x.dtype)


def _local_response(node: Node, inputs: Sequence[Any]) -> Array:
    """Return x / (bias + alpha / size * sum of squares of neighbouring channels) ** beta."""
    (x,) = inputs
    size = int(node.attributes["size"])
    alpha, beta = node.attributes.get("alpha", 1e-4), node.attributes.get("beta", 0.75)
    before = (size - 1) // 2
    squares = np.pad(x * x, [(0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2)])
    sums = sum(squares[:, i : i + x.shape[1]] for i in range(size))
    return np.asarray(x / (node.attributes.get("bias", 1.0) + alpha / size * sums) ** beta, x.dtype)


def _softmax(node: Node, inputs: Sequence[Any]) -> Array:
    (x,) = inputs
    axis = int(node.attributes.get("axis", -1))
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


for _name, _compute in {
    "BatchNormalization": _batch_norm,
    "LRN": _local_response,
    "Softmax": _softmax,
}.items():
    register(_name, Operator(_same, _compute, into(_compute)))
