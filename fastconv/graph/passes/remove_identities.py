"""Nodes that return their input as it is: Identity, Dropout in evaluation, reshapes to the same.

So does a product with one, which exporters write for the slope of a swish.
"""

from __future__ import annotations

from fastconv.graph.ir import Graph, Node

_ALWAYS = {"Identity", "Dropout"}
_SAME_SHAPE = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Transpose", "Pad"}


def run(graph: Graph) -> int:
    """Let the readers of such a node read its input."""
    count = 0
    for node in list(graph.nodes):
        source = node.input(0)
        if source is None or not _is_identity(node):
            continue
        if any(value is not None and value.users for value in node.outputs[1:]):
            continue
        if any(node.output is value for value in graph.outputs):
            continue  # the name of a result stays with its node
        graph.replace(node.output, source)
        graph.remove(node)
        count += 1
    return count


def _is_identity(node: Node) -> bool:
    source, output = node.input(0), node.output
    assert source is not None
    if node.operator == "Dropout":
        training = node.constant(2)
        return node.input(2) is None or (training is not None and not training.any())
    if node.operator in _ALWAYS:
        return True
    if node.operator == "Cast":
        return source.dtype == output.dtype
    if node.operator in ("Mul", "Div"):
        factor = node.constant(1)
        return factor is not None and source.shape == output.shape and bool((factor == 1).all())
    same = source.shape is not None and source.shape == output.shape
    if node.operator == "Transpose":
        moved = node.attributes.get("perm") or tuple(range(len(source.shape or ())))[::-1]
        return same and tuple(moved) == tuple(range(len(moved)))
    return same and node.operator in _SAME_SHAPE
