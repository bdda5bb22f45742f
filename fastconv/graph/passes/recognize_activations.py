"""Activations that a file spells out, each as one node: products with a gate, and bounds.

SiLU is ``x * sigmoid(x)``, Mish ``x * tanh(softplus(x))``. With a hard sigmoid as the gate,
``clip(x + 3, 0, 6) / 6``, the product is hard swish. Exporters write factors and divisors in any
order, so products are compared as sets of factors with one number.
"""

from __future__ import annotations

import math
from typing import Any

from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.passes import remove_dead_nodes

#: Gates, and what their product with their own input is.
_PRODUCTS = {"Sigmoid": "Silu", "HardSigmoid": "HardSwish", "Tanh": "Mish"}
# Of hard swish's sigmoid.
_HARD = {"alpha": 1 / 6, "beta": 0.5}
# How deep products are nested that are looked through.
_DEPTH = 3
# Relative: constants were rounded to float32, or float16.
_CLOSE = 1e-3


def run(graph: Graph) -> int:
    """Replace every activation that is spelled out."""
    count = 0
    for node in list(graph.nodes):
        found = _bounded(graph, node) or _gated(node)
        if found is None:
            continue
        operator, inputs, attributes = found
        made = graph.add(operator, inputs, None, attributes, name=node.name, before=node)
        old = node.output
        made.output.dtype, made.output.shape, made.output.name = old.dtype, old.shape, old.name
        graph.replace(old, made.output)
        graph.remove(node)
        count += 1
    if count:
        remove_dead_nodes.run(graph)  # or they would seem to read what is to be fused
    return count


Replacement = tuple[str, list[Value | None], dict[str, Any]]


# Products ---------------------------------------------------------------------------------


def _gated(node: Node) -> Replacement | None:
    """Return the activation that a product is, None if it is none."""
    if node.operator == "Swish" and node.attributes.get("alpha", 1.0) == 1:
        return "Silu", node.inputs, {}
    if node.operator not in ("Mul", "Div"):
        return None
    for gate in _factors(node.output, None)[0]:
        found = _gate(gate)
        if found is None or found[1].shape != node.output.shape:
            continue
        name, x, scale = found
        factors, number = _factors(node.output, x)
        others = [factor for factor in factors if factor is not gate]
        if len(others) != len(factors) - 1 or not math.isclose(number * scale, 1, rel_tol=_CLOSE):
            continue
        if len(others) == 1 and others[0] is x:
            return _PRODUCTS[name], [x], {}
        if not others and name == "HardSigmoid":
            return name, [x], dict(_HARD)
    return None


def _factors(value: Value, whole: Value | None, depth: int = _DEPTH) -> tuple[list[Value], float]:
    """Return the factors of a product, but for one that stays whole, and the constants' product."""
    node, number = value.producer, _number(value)
    if number is not None:
        return [], number
    if value is whole or node is None or node.operator not in ("Mul", "Div") or not depth:
        return [value], 1.0
    first, second = node.inputs
    assert first is not None
    assert second is not None
    left, a = _factors(first, whole, depth - 1)
    right, b = _factors(second, whole, depth - 1)
    if node.operator == "Mul":
        return left + right, a * b
    return (left, a / b) if not right and b else ([value], 1.0)


def _gate(value: Value) -> tuple[str, Value, float] | None:
    """Return a gate's name, its input, and what it must be multiplied by."""
    node = value.producer
    if node is None or node.input(0) is None:
        return None
    x = node.inputs[0]
    assert x is not None
    if node.operator == "Sigmoid":
        return "Sigmoid", x, 1.0
    if node.operator == "HardSigmoid" and all(
        math.isclose(node.attributes.get(name, default), _HARD[name], rel_tol=_CLOSE)
        for name, default in (("alpha", 0.2), ("beta", 0.5))
    ):
        return "HardSigmoid", x, 1.0
    if node.operator == "Tanh" and x.producer is not None and x.producer.operator == "Softplus":
        inner = x.producer.inputs[0]
        return None if inner is None else ("Tanh", inner, 1.0)
    if node.operator == "Clip" and _bounds(node) == (0, 6) and x.producer is not None:
        shifted = _shifted_by(x.producer, 3)
        return None if shifted is None else ("HardSigmoid", shifted, 6.0)
    return None


def _shifted_by(node: Node, number: float) -> Value | None:
    """Return what a node adds a number to."""
    if node.operator != "Add":
        return None
    for value, other in (node.inputs, node.inputs[::-1]):
        if other is not None and _number(other) == number:
            return value
    return None


# Bounds -----------------------------------------------------------------------------------


def _bounded(graph: Graph, node: Node) -> Replacement | None:
    """Return one Clip for two bounds in a row, as ReLU and a minimum."""
    outer = _limits(node)
    source = None if outer is None else outer[0]
    inner = None if source is None or source.producer is None else _limits(source.producer)
    if outer is None or inner is None or inner[0].shape != node.output.shape:
        return None
    low, high = max(inner[1], outer[1]), min(inner[2], outer[2])
    # min(max(y, low), high) of bounded numbers is one such step only if the ranges overlap.
    if not max(inner[1], outer[1]) <= min(inner[2], outer[2]):
        return None
    bounds = [
        graph.constant(node.output.dtype.type(bound), "bound") if math.isfinite(bound) else None  # type: ignore[union-attr]
        for bound in (low, high)
    ]
    return "Clip", [inner[0], *bounds], {}


def _limits(node: Node) -> tuple[Value, float, float] | None:
    """Return what a node bounds, from below and from above."""
    x = node.input(0)
    if x is None:
        return None
    if node.operator == "Relu":
        return x, 0.0, math.inf
    if node.operator == "Clip":
        bounds = _bounds(node)
        return None if bounds is None else (x, *bounds)
    if node.operator in ("Max", "Min") and len(node.inputs) == 2:
        for value, other in (node.inputs, node.inputs[::-1]):
            number = None if other is None else _number(other)
            if number is not None and value is not None:
                return (
                    (value, number, math.inf)
                    if node.operator == "Max"
                    else (value, -math.inf, number)
                )
    return None


def _bounds(node: Node) -> tuple[float, float] | None:
    """Return the bounds of a Clip, None if they are not constant."""
    bounds = [-math.inf, math.inf]
    for index in (1, 2):
        value = node.input(index)
        if value is not None:
            number = _number(value)
            if number is None:
                return None
            bounds[index - 1] = number
    return bounds[0], bounds[1]


def _number(value: Value) -> float | None:
    """Return the only element of a constant, None if there is none or more than one."""
    array = value.constant
    if array is None or array.size != 1 or array.dtype.kind != "f":
        return None
    return float(array.reshape(()))
