"""Activations that are spelled out become one node and fuse; padding moves into convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graph_cases import Builder
from test_graph import images, near, plainly

from fastconv.graph.ir import Graph, Value
from fastconv.graph.passes import (
    optimize,
    pad_into_conv,
    recognize_activations,
    remove_identities,
)
from fastconv.graph.specialize import specialize

SHAPE = (2, 3, 12, 10)


def constant(b: Builder, number: float) -> Value:
    return b.graph.constant(np.float32(number))


def gate(b: Builder, x: Value) -> Value:
    """Return min(max(x + 3, 0), 6)."""
    bounds = constant(b, 0), constant(b, 6)
    return b.node("Clip", b.node("Add", x, constant(b, 3)), *bounds)


def relu6(b: Builder, x: Value) -> Value:
    return b.node("Min", b.node("Relu", x), constant(b, 6))


Spelled = Callable[[Builder, Value], Value]
SPELLED: dict[str, tuple[str, Spelled]] = {
    "x * sigmoid": ("Silu", lambda b, x: b.node("Mul", x, b.node("Sigmoid", x))),
    "sigmoid * x": ("Silu", lambda b, x: b.node("Mul", b.node("Sigmoid", x), x)),
    "x * sigmoid(1 x)": (
        "Silu",
        lambda b, x: b.node("Mul", x, b.node("Sigmoid", b.node("Mul", x, constant(b, 1)))),
    ),
    "swish": ("Silu", lambda b, x: b.node("Swish", x)),
    "mish": ("Mish", lambda b, x: b.node("Mul", x, b.node("Tanh", b.node("Softplus", x)))),
    "hard sigmoid": ("HardSigmoid", lambda b, x: b.node("Div", gate(b, x), constant(b, 6))),
    "x * hard sigmoid": (
        "HardSwish",
        lambda b, x: b.node("Mul", x, b.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)),
    ),
    "x * gate / 6": (
        "HardSwish",
        lambda b, x: b.node("Div", b.node("Mul", x, gate(b, x)), constant(b, 6)),
    ),
    "x * (gate / 6)": (
        "HardSwish",
        lambda b, x: b.node("Mul", x, b.node("Div", gate(b, x), constant(b, 6))),
    ),
    "gate * x * (1 / 6)": (
        "HardSwish",
        lambda b, x: b.node("Mul", b.node("Mul", gate(b, x), x), constant(b, 1 / 6)),
    ),
    "(x / 6) * gate": (
        "HardSwish",
        lambda b, x: b.node("Mul", b.node("Div", x, constant(b, 6)), gate(b, x)),
    ),
    "of a product": (
        "HardSwish",
        lambda b, x: b.node(
            "Mul", (y := b.node("Mul", x, x)), b.node("Mul", gate(b, y), constant(b, 1 / 6))
        ),
    ),
    "relu and min": ("Clip", relu6),
    "max and min": (
        "Clip",
        lambda b, x: b.node("Min", constant(b, 2), b.node("Max", x, constant(b, -1))),
    ),
}


def specialized(b: Builder, *outputs: Value) -> Graph:
    return specialize(b.done(*outputs), {"x": SHAPE})


@pytest.mark.parametrize("spelling", SPELLED)
def test_recognized(spelling: str) -> None:
    operator, make = SPELLED[spelling]
    b = Builder()
    graph = specialized(b, make(b, b.x))
    wanted, before = plainly(graph, images())[0], len(graph.nodes)
    remove_identities.run(graph)
    assert recognize_activations.run(graph) > 0
    assert len(graph.nodes) <= (before + 1) // 2
    assert graph.nodes[-1].operator == operator
    near(plainly(graph, images())[0], wanted)


FUSED = [name for name, (operator, _) in SPELLED.items() if operator not in ("Mish", "HardSigmoid")]


@pytest.mark.parametrize("spelling", [name for name in FUSED if name != "of a product"])
def test_recognized_behind_convolutions(spelling: str) -> None:
    b = Builder()
    y = SPELLED[spelling][1](b, b.conv(b.x, 3, 4))
    graph = specialized(b, y)
    wanted = plainly(graph, images())[0]
    assert [node.operator for node in optimize(graph).nodes] == ["Conv"]
    near(plainly(graph, images())[0], wanted)


NOT_ONE: dict[str, Spelled] = {
    "another input": lambda b, x: b.node("Mul", x, b.node("Sigmoid", b.node("Neg", x))),
    "a square": lambda b, x: b.node("Mul", b.node("Mul", x, x), b.node("Sigmoid", x)),
    "a factor": lambda b, x: b.node("Mul", b.node("Mul", x, gate(b, x)), constant(b, 0.2)),
    "other slopes": lambda b, x: b.node("Mul", x, b.node("HardSigmoid", x, alpha=0.2, beta=0.5)),
    "a quotient": lambda b, x: b.node("Div", x, b.node("Sigmoid", x)),
    "two gates": lambda b, x: b.node("Mul", (s := b.node("Sigmoid", x)), s),
    "swish of another slope": lambda b, x: b.node("Swish", x, alpha=1.7),
    "bounds apart": lambda b, x: b.node(
        "Clip", b.node("Clip", x, None, constant(b, -1)), constant(b, 1), constant(b, 2)
    ),
    "squeeze and excite": lambda b, x: b.node(
        "Mul", x, b.node("Sigmoid", b.node("GlobalAveragePool", x))
    ),
}


@pytest.mark.parametrize("name", NOT_ONE)
def test_what_only_looks_alike(name: str) -> None:
    b = Builder()
    graph = specialized(b, NOT_ONE[name](b, b.x))
    wanted = plainly(graph, images())[0]
    before = str(graph)
    assert recognize_activations.run(graph) == 0
    assert str(graph) == before
    near(plainly(graph, images())[0], wanted)


def test_parts_that_others_read_stay() -> None:
    b = Builder()
    half = b.node("Sigmoid", b.x)
    graph = specialized(b, b.node("Mul", b.x, half), half)
    wanted = plainly(graph, images())
    assert recognize_activations.run(graph) == 1
    assert sorted(node.operator for node in graph.nodes) == ["Sigmoid", "Silu"]
    for actual, right in zip(plainly(graph, images()), wanted, strict=True):
        near(actual, right)


# Padding ----------------------------------------------------------------------------------------


def padded(added: Any, value: float | None = None, **attributes: Any) -> Graph:
    """Return a convolution of padded images."""
    b = Builder()
    numbers = b.graph.constant(np.array(added, np.int64))
    extra = [] if value is None else [constant(b, value)]
    mode = {"mode": attributes.pop("mode")} if "mode" in attributes else {}
    y = b.node("Pad", b.x, numbers, *extra, **mode)
    weight = b.graph.constant(b.array(4, 3, 3, 3))
    return specialized(b, b.node("Conv", y, weight, **attributes))


@pytest.mark.parametrize(
    "attributes", [{}, {"pads": (1, 0, 2, 1)}, {"auto_pad": "VALID"}, {"strides": (2, 2)}]
)
def test_padding_moves(attributes: Any) -> None:
    graph = padded([0, 0, 1, 2, 0, 0, 3, 0], 0, **attributes)
    wanted = plainly(graph, images())[0]
    assert pad_into_conv.run(graph) == 1
    assert [node.operator for node in graph.nodes] == ["Conv"]
    near(plainly(graph, images())[0], wanted)


@pytest.mark.parametrize(
    "arguments",
    [
        {"added": [0, 0, 1, 1, 0, 0, 1, 1], "value": 0.5},
        {"added": [0, 0, 1, 1, 0, 0, 1, 1], "mode": "edge"},
        {"added": [0, 0, -1, 1, 0, 0, 1, 1]},
        {"added": [1, 0, 0, 0, 0, 0, 0, 0]},
        {"added": [0, 0, 1, 1, 0, 0, 1, 1], "auto_pad": "SAME_UPPER"},
    ],
)
def test_padding_that_must_stay(arguments: Any) -> None:
    graph = padded(**arguments)
    before = str(graph)
    assert pad_into_conv.run(graph) == 0
    assert str(graph) == before
