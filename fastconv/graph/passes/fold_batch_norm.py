"""BatchNormalization, and multiplications and additions by channel, into the convolution before.

``scale * (w * x + b) + shift`` is a convolution with the weights ``scale * w`` and the bias
``scale * b + shift``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastconv.graph.ir import Array, Graph, Node

#: Which axis of the weights counts output channels.
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}
Affine = tuple[Array, Array]


def run(graph: Graph) -> int:
    """Fold every node that follows a convolution alone."""
    count = 0
    for node in list(graph.nodes):
        found = _convolution_before(graph, node)
        affine = found and _AFFINE[node.operator](node, found)
        if not found or not affine:
            continue
        _scale(graph, found, *affine)
        graph.replace(node.output, found.output)
        _rename(graph, node, found)
        count += 1
    return count


def _rename(graph: Graph, node: Node, conv: Node) -> None:
    """Remove a node; the convolution writes the node's value, which keeps its name."""
    name = node.output.name
    graph.remove(node)
    conv.output.name = name


def _convolution_before(graph: Graph, node: Node) -> Node | None:
    """Return the convolution with constant weights that alone produces what a node scales."""
    if node.operator not in _AFFINE or any(value for value in node.outputs[1:]):
        return None
    for index in (0, 1) if node.operator in ("Mul", "Add") else (0,):
        value = node.input(index)
        conv = None if value is None else value.producer
        if value is None or conv is None or graph.only_user(value) is not node:
            continue
        plain = "activation" not in conv.attributes and conv.input(3) is None
        constant = conv.constant(1) is not None and (
            conv.input(2) is None or conv.constant(2) is not None
        )
        grouped = conv.operator == "ConvTranspose" and conv.attributes.get("group", 1) != 1
        if conv.operator in _CHANNEL_AXIS and plain and constant and not grouped:
            return conv
    return None


def _batch_norm(node: Node, conv: Node) -> Affine | None:
    numbers = [node.constant(i) for i in range(1, 5)]
    if any(array is None for array in numbers) or node.attributes.get("training_mode", 0):
        return None
    gamma, beta, mean, var = (np.asarray(array, np.float64) for array in numbers)
    scale = gamma / np.sqrt(var + node.attributes.get("epsilon", 1e-5))
    return scale, beta - mean * scale


def _factor(node: Node, conv: Node) -> Affine | None:
    numbers = _by_channel(node, conv)
    return None if numbers is None else (numbers, np.zeros_like(numbers))


def _offset(node: Node, conv: Node) -> Affine | None:
    numbers = _by_channel(node, conv)
    return None if numbers is None else (np.ones_like(numbers), numbers)


def _by_channel(node: Node, conv: Node) -> Array | None:
    """Return the constant of a node, if it has one number a channel or one number in all."""
    array = next(
        (v.constant for v in node.inputs if v is not None and v.constant is not None), None
    )
    shape = conv.output.shape
    if array is None or shape is None or node.output.shape != shape:
        return None
    channels = shape[1]
    wanted = (channels, *(1,) * (len(shape) - 2))
    if array.size == 1:
        return np.full(channels, array.reshape(()), np.float64)
    fits = array.size == channels and array.shape[-len(wanted) :] == wanted
    return np.asarray(array, np.float64).reshape(-1) if fits else None


_AFFINE: dict[str, Callable[[Node, Node], Affine | None]] = {
    "BatchNormalization": _batch_norm,
    "Mul": _factor,
    "Add": _offset,
}


def _scale(graph: Graph, conv: Node, scale: Array, shift: Array) -> None:
    """Give a convolution scaled weights and a new bias, computed in float64."""
    weight, bias = conv.constant(1), conv.constant(2)
    assert weight is not None
    axis = _CHANNEL_AXIS[conv.operator]
    along = scale.reshape((-1, *(1,) * (weight.ndim - 1 - axis)))
    offset = shift if bias is None else shift + scale * bias
    for index, array in ((1, weight * along), (2, offset)):
        constant = graph.constant(array.astype(weight.dtype), f"{conv.name}.folded")
        graph.set_input(conv, index, constant)
