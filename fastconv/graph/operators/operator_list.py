"""All operators of graphs, and finding one."""

from __future__ import annotations

from fastconv.graph.ir import Node
from fastconv.graph.operators import (
    control_nodes,
    convolution_nodes,
    elementwise_nodes,
    matrix_nodes,
    normalization_nodes,
    pooling_nodes,
    reduction_nodes,
    resize_nodes,
    selection_nodes,
    shape_nodes,
    size_nodes,
)
from fastconv.graph.operators.graph_operator import OPERATORS, Operator

#: The modules that register operators when they are imported.
REGISTERING = (
    control_nodes,
    convolution_nodes,
    elementwise_nodes,
    matrix_nodes,
    normalization_nodes,
    pooling_nodes,
    reduction_nodes,
    resize_nodes,
    selection_nodes,
    shape_nodes,
    size_nodes,
)


def operators() -> tuple[str, ...]:
    """Return the names of all operators."""
    return tuple(sorted(OPERATORS))


def find(name: str) -> Operator | None:
    """Return the operator of that name, None if there is none."""
    return OPERATORS.get(name)


def of(node: Node) -> Operator:
    """Return the operator of a node, which must exist."""
    operator = find(node.operator)
    if operator is None:
        raise ValueError(f"there is no operator {node.operator!r} (node {node.name!r})")
    return operator
