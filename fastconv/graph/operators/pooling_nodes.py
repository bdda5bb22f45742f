"""Poolings: maxima and means of windows, and of whole planes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv.api.adaptive_pool2d import adaptive_avg_pool2d
from fastconv.api.avg_pool2d import avg_pool2d
from fastconv.api.max_pool2d import max_pool2d
from fastconv.core.pool_problem import Pool2dProblem
from fastconv.graph.ir import Array, Node
from fastconv.graph.operators.graph_operator import Operator, Step, Type, into, register, type_of
from fastconv.graph.operators.windows import Window, as_images, image_shape
from fastconv.pooling.pool_registry import FASTEST


def _window(node: Node, shape: Sequence[int]) -> Window:
    return Window.of(node, shape[2:], node.attributes["kernel_shape"])


def _infer_windows(node: Node) -> Sequence[Type]:
    dtype, shape = type_of(node, 0)
    if shape is None:
        return [(dtype, None), (np.dtype(np.int64), None)]
    sizes = _window(node, shape).output_sizes[-len(shape[2:]) :]
    return [(dtype, (*shape[:2], *sizes)), (np.dtype(np.int64), (*shape[:2], *sizes))]


def _geometry(node: Node, shape: Sequence[int]) -> dict[str, Any]:
    window = _window(node, shape)
    return {
        "kernel_size": window.kernel,
        "stride": window.stride,
        "padding": window.padding,
        "dilation": window.dilation,
        "ceil_mode": window.ceil_mode,
        "wide_padding": True,
    }


def _compute_maximum(node: Node, inputs: Sequence[Any]) -> Any:
    (x,) = inputs
    images, geometry = as_images(x), _geometry(node, x.shape)
    if len(node.outputs) < 2 or node.outputs[1] is None:
        return _like(x, np.asarray(max_pool2d(images, **geometry)))
    values, indices = max_pool2d(images, return_indices=True, **geometry)
    # ONNX counts through the whole array, by columns with storage order 1.
    height, width = images.shape[2:]
    if node.attributes.get("storage_order", 0):
        indices = indices % width * height + indices // width
    planes = np.arange(images.shape[0] * images.shape[1]).reshape(*images.shape[:2], 1, 1)
    return _like(x, values), _like(x, indices + planes * (height * width))


def _like(x: Array, y: Array) -> Array:
    return y if x.ndim == 4 else y[:, :, 0]


def _compute_mean(node: Node, inputs: Sequence[Any]) -> Array:
    (x,) = inputs
    counted = bool(node.attributes.get("count_include_pad", 0))
    y: Array = avg_pool2d(as_images(x), count_include_pad=counted, **_geometry(node, x.shape))
    return _like(x, y)


def _bind_maximum(node: Node) -> Step | None:
    dtype, shape = type_of(node, 0)
    if shape is None or dtype.kind != "f" or dtype.itemsize < 4 or len(node.outputs) > 1:
        return None
    problem = Pool2dProblem.from_shapes(
        image_shape(shape), dtype=dtype.name, **_geometry(node, shape)
    )
    axes = problem.maximum_axes
    if any(axis.some_empty for axis in axes):
        return None

    def step(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        FASTEST.maximum(as_images(inputs[0]), axes, as_images(outputs[0]), None)

    return step


def _infer_planes(node: Node) -> Sequence[Type]:
    dtype, shape = type_of(node, 0)
    return [(dtype, None if shape is None else (*shape[:2], *(1,) * len(shape[2:])))]


def _global_mean(node: Node, inputs: Sequence[Any]) -> Array:
    (x,) = inputs
    if x.ndim == 4 and x.dtype.kind == "f":
        return adaptive_avg_pool2d(x, 1)
    return np.asarray(x.mean(axis=tuple(range(2, x.ndim)), keepdims=True))


def _global_maximum(node: Node, inputs: Sequence[Any]) -> Array:
    (x,) = inputs
    return np.asarray(x.max(axis=tuple(range(2, x.ndim)), keepdims=True))


register("MaxPool", Operator(_infer_windows, _compute_maximum, _bind_maximum))
register(
    "AveragePool",
    Operator(lambda node: _infer_windows(node)[:1], _compute_mean, into(_compute_mean)),
)
register("GlobalAveragePool", Operator(_infer_planes, _global_mean, into(_global_mean)))
register("GlobalMaxPool", Operator(_infer_planes, _global_maximum, into(_global_maximum)))
