"""What a step does and what it costs, by its shapes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastconv.graph.compiled import BoundNode
from fastconv.graph.ir import Node, Shape
from fastconv.graph.operators.convolution_nodes import RESIDUAL
from fastconv.graph.operators.windows import Window


@dataclass(frozen=True)
class StepDescription:
    """One step of a network.

    Attributes
    ----------
    operator : str
        ONNX's name, followed by what passes have fused: "Conv+add+relu".
    name : str
        Of the node, or of its output if it has none.
    output_shape : tuple of int or None
        None where only a call knows it.
    algorithm : str
        Of a convolution that was planned; empty where there is no choice.
    flops : int
        Of convolutions and matrix products, two for each multiplication and addition; 0 for all
        other operators.
    nbytes : int
        Bytes of all inputs, weights among them, and of the outputs.
    """

    operator: str
    name: str
    output_shape: tuple[int, ...] | None
    algorithm: str
    flops: int
    nbytes: int


def describe(bound: BoundNode) -> StepDescription:
    """Return what a step of a compiled network does."""
    node = bound.node
    output = next(value for value in node.outputs if value is not None)
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    return StepDescription(
        _operator(node),
        node.name or output.name,
        output.shape,
        bound.algorithm,
        flops_of(node),
        sum(value.nbytes for value in values),
    )


def sizes(shape: Shape) -> str:
    """Return a shape as text.

    >>> sizes((1, 3, 8, 8)), sizes(()), sizes(None)
    ('1x3x8x8', 'scalar', '?')
    """
    return "?" if shape is None else "x".join(map(str, shape)) or "scalar"


def _operator(node: Node) -> str:
    """Return an operator with what is fused to it."""
    parts = [node.operator]
    if node.operator == "Conv" and node.input(RESIDUAL) is not None:
        parts.append("add")
    activation = node.attributes.get("activation")
    if activation is not None:
        parts.append(activation if isinstance(activation, str) else activation[0])
    if node.attributes.get("max_pool"):
        parts.append("max_pool")
    return "+".join(parts)


def flops_of(node: Node) -> int:
    """Return the operations of a convolution or a matrix product, 0 for others."""
    if node.operator not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    x, weight = ((value.shape if value else None) for value in node.inputs[:2])
    output = node.output.shape
    if x is None or weight is None or output is None:
        return 0
    if node.operator == "Conv":
        pixels = math.prod(Window.of(node, x[2:], weight[2:]).output_sizes)
        return 2 * x[0] * pixels * math.prod(weight)
    if node.operator == "ConvTranspose":
        return 2 * math.prod(x) * math.prod(weight[1:])
    inner = x[0] if node.operator == "Gemm" and node.attributes.get("transA") else x[-1]
    return 2 * math.prod(output) * inner
