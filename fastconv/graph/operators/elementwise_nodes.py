"""Operators that compute each element from the elements at its place, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastconv.graph.ir import Node, Shape
from fastconv.graph.operators.graph_operator import Operator, Step, Type, into, register, type_of

Elements = Callable[..., Any]


def broadcast(node: Node) -> Shape:
    """Return the shape of all inputs together."""
    shapes = [type_of(node, i)[1] for i, value in enumerate(node.inputs) if value is not None]
    if any(shape is None for shape in shapes):
        return None
    try:
        return np.broadcast_shapes(*shapes)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(
            f"{node.operator} {node.name!r} needs shapes that broadcast, got {shapes}"
        ) from error


def _same_type(node: Node) -> Sequence[Type]:
    return [(type_of(node, 0)[0], broadcast(node))]


def _truth(node: Node) -> Sequence[Type]:
    return [(np.dtype(bool), broadcast(node))]


def ufunc(
    name: str, function: np.ufunc, infer: Callable[[Node], Sequence[Type]] = _same_type
) -> None:
    """Register an operator that is a universal function of NumPy's."""

    def compute(node: Node, inputs: Sequence[Any]) -> Any:
        with np.errstate(all="ignore"):
            return np.asarray(function(*inputs))

    def bind(node: Node) -> Step:
        def step(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            with np.errstate(all="ignore"):
                function(*inputs, out=outputs[0])

        return step

    register(name, Operator(infer, compute, bind))


def elements(name: str, function: Callable[..., Any]) -> None:
    """Register ``function(x, **attributes)`` of one input, in its type."""

    def compute(node: Node, inputs: Sequence[Any]) -> Any:
        with np.errstate(all="ignore"):
            return np.asarray(function(*inputs, **node.attributes)).astype(
                inputs[0].dtype, copy=False
            )

    def bind(node: Node) -> Step:
        def step(inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
            outputs[0][...] = compute(node, inputs)

        return step

    register(name, Operator(_same_type, compute, bind))


for _name, _function in {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Abs": np.absolute,
    "Neg": np.negative,
    "Tanh": np.tanh,
}.items():
    ufunc(_name, _function)
for _name, _function in {"Less": np.less, "Greater": np.greater, "Equal": np.equal}.items():
    ufunc(_name, _function, _truth)


def _relu(x: Any) -> Any:
    return np.maximum(x, 0)


def _leaky_relu(x: Any, alpha: float = 0.01) -> Any:
    return np.where(x < 0, x * x.dtype.type(alpha), x)


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)); exp(-x) = infinity gives the right limit, 0."""
    return 1 / (1 + np.exp(-x))


def _hard_sigmoid(x: Any, alpha: float = 0.2, beta: float = 0.5) -> Any:
    return np.clip(x * x.dtype.type(alpha) + x.dtype.type(beta), 0, 1)


elements("Relu", _relu)
elements("LeakyRelu", _leaky_relu)
elements("Sigmoid", sigmoid)
elements("HardSigmoid", _hard_sigmoid)


def _sum(node: Node, inputs: Sequence[Any]) -> Any:
    total = inputs[0]
    for term in inputs[1:]:
        total = total + term
    return np.asarray(total)


register("Sum", Operator(_same_type, _sum, into(_sum)))
