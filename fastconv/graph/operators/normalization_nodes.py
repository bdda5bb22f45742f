"""Normalizations: by stored statistics, by their own, by neighbours, by exponentials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.graph.ir import Array, Node
from fastconv.graph.operators.graph_operator import (
    Operator,
    Type,
    axis_of,
    into,
    register,
    same_type,
    type_of,
)


def _by_channel(numbers: Array, x: Array) -> Array:
    """Return one number a channel, to be broadcast against x."""
    return numbers.reshape(-1, *(1,) * (x.ndim - 2))


def _standardized(x: Array, axes: Sequence[int], epsilon: float) -> tuple[Array, Array, Array]:
    """Return (x - mean) / sqrt(var + epsilon), the mean and the factor; float16 in float32."""
    wide = x.astype(np.result_type(x, np.float32), copy=False)
    mean = wide.mean(axis=tuple(axes), keepdims=True)
    centered = wide - mean
    factor = 1 / np.sqrt(np.square(centered).mean(axis=tuple(axes), keepdims=True) + epsilon)
    return centered * factor, mean, factor


def _infer_batch_norm(node: Node) -> Sequence[Type]:
    return [type_of(node, 0), type_of(node, 3), type_of(node, 4)][: len(node.outputs)]


def _batch_norm(node: Node, inputs: Sequence[Any]) -> Any:
    x, scale, bias, mean, var = inputs
    epsilon = node.attributes.get("epsilon", 1e-5)
    training = node.attributes.get("training_mode", 0)
    if training:
        kept, axes = node.attributes.get("momentum", 0.9), (0, *range(2, x.ndim))
        stored = mean, var
        mean, var = x.mean(axis=axes), x.var(axis=axes)
    factor = scale / np.sqrt(var + epsilon)
    y = x * _by_channel(factor, x) + _by_channel(bias - mean * factor, x)
    if not training:
        return np.asarray(y, x.dtype)
    pairs = zip(stored, (mean, var), strict=True)
    running = [(old * kept + new * (1 - kept)).astype(old.dtype) for old, new in pairs]
    return y.astype(x.dtype), *running


def _bind_batch_norm(node: Node) -> Any:
    return into(_batch_norm)(node) if len(node.outputs) == 1 else None


def _instance_norm(node: Node, inputs: Sequence[Any]) -> Array:
    x, scale, bias = inputs
    y, _, _ = _standardized(x, range(2, x.ndim), node.attributes.get("epsilon", 1e-5))
    return np.asarray(y * _by_channel(scale, x) + _by_channel(bias, x), x.dtype)


def _group_norm(node: Node, inputs: Sequence[Any]) -> Array:
    x, scale, bias = inputs
    groups = int(node.attributes["num_groups"])
    parts = x.reshape(len(x), groups, -1)
    y, _, _ = _standardized(parts, (2,), node.attributes.get("epsilon", 1e-5))
    return np.asarray(y.reshape(x.shape) * _by_channel(scale, x) + _by_channel(bias, x), x.dtype)


def _infer_layer_norm(node: Node) -> Sequence[Type]:
    dtype, shape = type_of(node, 0)
    numbers = None
    if shape is not None:
        axis = axis_of(node, len(shape), -1)
        numbers = (*shape[:axis], *(1,) * (len(shape) - axis))
    wide = np.result_type(dtype, np.float32)
    return [(dtype, shape), (wide, numbers), (wide, numbers)][: len(node.outputs)]


def _layer_norm(node: Node, inputs: Sequence[Any]) -> Any:
    x, scale, bias = (*inputs, None)[:3]
    axes = range(axis_of(node, x.ndim, -1), x.ndim)
    y, mean, factor = _standardized(x, axes, node.attributes.get("epsilon", 1e-5))
    y = y.astype(x.dtype, copy=False) * scale
    y = np.asarray(y if bias is None else y + bias, x.dtype)
    return y if len(node.outputs) == 1 else (y, mean, factor)


def _bind_layer_norm(node: Node) -> Any:
    return into(_layer_norm)(node) if len(node.outputs) == 1 else None


def _local_response(node: Node, inputs: Sequence[Any]) -> Array:
    """Return x / (bias + alpha / size * sum of squares of neighbouring channels) ** beta."""
    (x,) = inputs
    size, channels = int(node.attributes["size"]), x.shape[1]
    alpha, beta = node.attributes.get("alpha", 1e-4), node.attributes.get("beta", 0.75)
    # Windows are seldom wide; one much wider than all channels costs no more than they do.
    before, after = min((size - 1) // 2, channels), min(size // 2, channels)
    squares = np.pad(np.square(x), [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
    sums = sum(squares[:, i : i + channels] for i in range(before + after + 1))
    return np.asarray(x / (node.attributes.get("bias", 1.0) + alpha / size * sums) ** beta, x.dtype)


def _softmax(node: Node, inputs: Sequence[Any]) -> Array:
    (x,) = inputs
    axis = axis_of(node, x.ndim, -1)
    powers = np.exp(x - x.max(axis=axis, keepdims=True, initial=-np.inf))
    powers /= powers.sum(axis=axis, keepdims=True)
    return np.asarray(powers)


def _log_softmax(node: Node, inputs: Sequence[Any]) -> Array:
    (x,) = inputs
    axis = axis_of(node, x.ndim, -1)
    shifted = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


def _lp_normalization(node: Node, inputs: Sequence[Any]) -> Array:
    """Return x divided by its norm along an axis; zeros stay."""
    (x,) = inputs
    order, axis = int(node.attributes.get("p", 2)), axis_of(node, x.ndim, -1)
    norms = np.linalg.norm(x, order, axis, keepdims=True)
    return np.asarray(x / np.where(norms == 0, 1, norms), x.dtype)


register("BatchNormalization", Operator(_infer_batch_norm, _batch_norm, _bind_batch_norm))
register("LayerNormalization", Operator(_infer_layer_norm, _layer_norm, _bind_layer_norm))
for _name, _compute in {
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_normalization,
    "Softmax": _softmax,
}.items():
    register(_name, Operator(same_type, _compute, into(_compute)))
