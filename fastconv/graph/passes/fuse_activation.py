"""Activations into the epilogue of the convolution before them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.graph.ir import Graph, Node


def run(graph: Graph) -> int:
    """Fuse every activation that alone reads a convolution's output."""
    count = 0
    for node in list(graph.nodes):
        activation = _activation(node)
        source = node.input(0)
        if activation is None or source is None or source.producer is None:
            continue
        conv = source.producer
        if conv.operator != "Conv" or {"activation", "max_pool"} & conv.attributes.keys():
            continue
        if graph.only_user(source) is not node or conv.constant(1) is None:
            continue
        conv.attributes["activation"] = activation
        name = node.output.name
        graph.replace(node.output, source)
        graph.remove(node)
        source.name = name
        count += 1
    return count


def _activation(node: Node) -> Any:
    """Return the activation as `plan_conv2d` takes it, None if it takes none such."""
    if node.operator == "Relu":
        return "relu"
    if node.operator == "LeakyRelu":
        return ("leaky_relu", float(node.attributes.get("alpha", 0.01)))
    if node.operator in ("Silu", "HardSwish"):
        return {"Silu": "silu", "HardSwish": "hard_swish"}[node.operator]
    if node.operator == "Clip":
        return _bounds(node)
    return None


def _bounds(node: Node) -> Any:
    low, high = -np.inf, np.inf
    for index in (1, 2):
        array = node.constant(index)
        if array is None and node.input(index) is not None:
            return None
        if array is not None:
            low, high = (float(array), high) if index == 1 else (low, float(array))
    return ("clip", low, high) if low <= high else None
