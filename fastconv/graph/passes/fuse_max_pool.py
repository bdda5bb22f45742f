"""Maxima of 2 x 2 windows into the convolution before them: its whole output is never stored."""

from __future__ import annotations

from fastconv.graph.ir import Graph, Node
from fastconv.graph.operators.windows import Window

_SIDE = 2


def run(graph: Graph) -> int:
    """Fuse every such pooling that alone reads a convolution's output."""
    count = 0
    for node in list(graph.nodes):
        source = node.input(0)
        conv = None if source is None else source.producer
        if source is None or conv is None or not _fits(node):
            continue
        plain = conv.operator == "Conv" and "max_pool" not in conv.attributes
        if plain and conv.constant(1) is not None and graph.only_user(source) is node:
            conv.attributes["max_pool"] = _SIDE
            source.name, source.shape = node.output.name, node.output.shape
            graph.replace(node.output, source)
            graph.remove(node)
            count += 1
    return count


def _fits(node: Node) -> bool:
    """Return whether a node takes maxima of whole 2 x 2 windows at stride 2."""
    source = node.input(0)
    if node.operator != "MaxPool" or len(node.outputs) > 1 or source is None:
        return False
    if source.shape is None or len(source.shape) != 4:
        return False
    window = Window.of(node, source.shape[2:], node.attributes["kernel_shape"])
    sides = (_SIDE, _SIDE)
    plain = window.padding == ((0, 0), (0, 0)) and window.dilation == (1, 1)
    whole = tuple(size // _SIDE for size in window.sizes) == window.output_sizes
    return plain and whole and window.kernel == window.stride == sides
