"""The sum of a convolution and another value of its shape, into the convolution's epilogue."""

from __future__ import annotations

from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.operators.convolution_nodes import RESIDUAL


def run(graph: Graph) -> int:
    """Fuse every addition of which one term is a convolution's output that nothing else reads."""
    count = 0
    for node in list(graph.nodes):
        if node.operator not in ("Add", "Sum") or len(node.inputs) != 2:
            continue
        found = _convolution(graph, node)
        if found is None:
            continue
        conv, other = found
        graph.set_input(conv, RESIDUAL, other)
        _move(graph, conv, node)
        name = node.output.name
        graph.replace(node.output, conv.output)
        graph.remove(node)
        conv.output.name = name
        count += 1
    return count


def _convolution(graph: Graph, node: Node) -> tuple[Node, Value] | None:
    """Return the convolution that computes a term, and the other term; the later one of two."""
    found = []
    for index in (0, 1):
        value, other = node.inputs[index], node.inputs[1 - index]
        if value is None or other is None or value is other or value.producer is None:
            continue
        conv = value.producer
        free = conv.operator == "Conv" and conv.input(RESIDUAL) is None
        plain = free and not {"activation", "max_pool"} & conv.attributes.keys()
        same = value.shape is not None and value.shape == other.shape == node.output.shape
        bound = conv.constant(1) is not None
        if plain and same and bound and graph.only_user(value) is node:
            found.append((graph.nodes.index(conv), conv, other))
    if not found:
        return None
    _, conv, other = max(found, key=lambda each: each[0])
    return conv, other


def _move(graph: Graph, conv: Node, node: Node) -> None:
    """Let a convolution run where the sum ran, after both terms."""
    graph.nodes.remove(conv)
    graph.nodes.insert(graph.nodes.index(node), conv)
