"""Zeros around an image into the padding of the convolution that reads them."""

from __future__ import annotations

from fastconv.graph.ir import Graph, Node
from fastconv.graph.operators.graph_operator import constants_of, scalar
from fastconv.graph.operators.shape_nodes import pad_widths


def run(graph: Graph) -> int:
    """Let every convolution that alone reads padded images pad them itself."""
    count = 0
    for node in list(graph.nodes):
        source = node.input(0)
        pad = None if source is None else source.producer
        if node.operator != "Conv" or source is None or pad is None or pad.operator != "Pad":
            continue
        widths = _zeros_around(pad)
        if widths is None or graph.only_user(source) is not node:
            continue
        if node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            continue
        axes = len(widths)
        own = node.attributes.get("pads", (0,) * 2 * axes)
        if node.attributes.pop("auto_pad", "NOTSET") == "VALID":
            own = (0,) * 2 * axes
        added = [before for before, _ in widths] + [after for _, after in widths]
        node.attributes["pads"] = tuple(a + b for a, b in zip(own, added, strict=True))
        graph.set_input(node, 0, pad.inputs[0])
        graph.remove(pad)
        count += 1
    return count


def _zeros_around(pad: Node) -> list[tuple[int, int]] | None:
    """Return the zeros before and after each axis behind the channels; None if there are others."""
    shape = None if pad.inputs[0] is None else pad.inputs[0].shape
    constants = constants_of(pad)
    unknown = any(
        value is not None and array is None
        for value, array in zip(pad.inputs[1:], constants[1:], strict=True)
    )
    if shape is None or unknown or pad.attributes.get("mode", "constant") != "constant":
        return None
    widths = pad_widths(pad, len(shape), constants)
    plain = scalar(constants, 2, 0) == 0 and widths[:2] == [(0, 0), (0, 0)]
    return widths[2:] if plain and min(min(pair) for pair in widths) >= 0 else None
