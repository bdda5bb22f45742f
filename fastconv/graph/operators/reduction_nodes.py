"""Sums, means and extremes along axes, and where extremes are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from fastconv.graph.ir import Array, Node
from fastconv.graph.operators.graph_operator import (
    INT64,
    Operator,
    axes_from_front,
    axis_from_front,
    axis_of,
    by_shape,
    integers,
    into,
    register,
    scalar,
)


def _axes(node: Node, rank: int, inputs: Sequence[Any]) -> tuple[int, ...]:
    """Return the axes to reduce; without any, all or none."""
    axes = integers(node, inputs, 1, ())
    if axes:
        return axes_from_front(axes, rank)
    return () if node.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))


def _without(shape: Sequence[int], axes: Sequence[int], kept: bool) -> tuple[int, ...]:
    """Return a shape without these axes, or with size 1 there."""
    sizes = (1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(sizes) if kept or axis not in axes)


def _keeps(node: Node) -> bool:
    return bool(node.attributes.get("keepdims", 1))


def _reduced(node: Node, shape: tuple[int, ...], inputs: Sequence[Any]) -> tuple[int, ...]:
    return _without(shape, _axes(node, len(shape), inputs), _keeps(node))


def _mean(x: Array, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Return means, of integers and float16 in a wider type; of nothing NaN, without a warning."""
    sums = np.sum(x, axis, np.result_type(x, np.float32), keepdims=keepdims)
    return sums / prod(x.shape[each] for each in axis)


def _log_sum_exp(x: Array, **axes: Any) -> Any:
    largest = np.max(x, axis=axes["axis"], keepdims=True, initial=-np.inf)
    largest = np.where(np.isfinite(largest), largest, 0)
    sums = np.log(np.sum(np.exp(x - largest), **axes))
    return sums + (largest if axes["keepdims"] else np.squeeze(largest, axes["axis"]))


def _extreme(reduce: Callable[..., Any], worst: str) -> Callable[..., Any]:
    """Return a reduction that gives the `worst` number of the type for nothing."""

    def reduced(x: Array, **axes: Any) -> Any:
        if x.dtype.kind == "f":
            initial = -np.inf if worst == "min" else np.inf
        elif x.dtype.kind == "b":
            initial = worst == "max"
        else:
            initial = getattr(np.iinfo(x.dtype), worst)
        return reduce(x, initial=initial, **axes)

    return reduced


def _register(name: str, function: Callable[..., Any]) -> None:
    def compute(node: Node, inputs: Sequence[Any]) -> Any:
        x = inputs[0]
        axes = _axes(node, x.ndim, inputs)
        return np.asarray(function(x, axis=axes, keepdims=_keeps(node)), x.dtype)

    register(name, Operator(by_shape(_reduced), compute, into(compute)))


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceL1": lambda x, **axes: np.sum(np.abs(x), **axes),
    "ReduceL2": lambda x, **axes: np.sqrt(np.sum(np.square(x), **axes)),
    "ReduceLogSum": lambda x, **axes: np.log(np.sum(x, **axes)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _extreme(np.max, "min"),
    "ReduceMean": _mean,
    "ReduceMin": _extreme(np.min, "max"),
    "ReduceProd": np.prod,
    "ReduceSum": np.sum,
    "ReduceSumSquare": lambda x, **axes: np.sum(np.square(x), **axes),
}
for _name, _function in _REDUCTIONS.items():
    _register(_name, _function)


# Where extremes are -----------------------------------------------------------------------


def _reduced_axis(node: Node, shape: tuple[int, ...], inputs: Sequence[Any]) -> tuple[int, ...]:
    return _without(shape, (axis_of(node, len(shape)),), _keeps(node))


def _register_place(name: str, function: Callable[..., Any]) -> None:
    def compute(node: Node, inputs: Sequence[Any]) -> Any:
        (x,) = inputs
        axis = axis_of(node, x.ndim)
        if node.attributes.get("select_last_index", 0):
            found = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis, keepdims=True)
        else:
            found = function(x, axis=axis, keepdims=True)
        return np.asarray(found if _keeps(node) else np.squeeze(found, axis), INT64)

    register(name, Operator(by_shape(_reduced_axis, INT64), compute, into(compute)))


_register_place("ArgMax", np.argmax)
_register_place("ArgMin", np.argmin)


def _cumulative(node: Node, inputs: Sequence[Any]) -> Array:
    """Return running sums, from the end if `reverse`, of what lies before if `exclusive`."""
    x, axis = inputs[0], axis_from_front(int(scalar(inputs, 1, 0)), inputs[0].ndim)
    source = np.flip(x, axis) if node.attributes.get("reverse", 0) else x
    sums = np.cumsum(source, axis, x.dtype)
    if node.attributes.get("exclusive", 0):
        sums = np.roll(sums, 1, axis)
        np.moveaxis(sums, axis, 0)[:1] = 0
    return np.asarray(np.flip(sums, axis) if node.attributes.get("reverse", 0) else sums)


register(
    "CumSum",
    Operator(by_shape(lambda node, shape, inputs: shape), _cumulative, into(_cumulative)),
)
