"""Models as graphs: `lower` turns a module, as it evaluates, into nodes with ONNX's operators.

`RULES` has a function for each class of layers: see `layer_rules.py` and `window_rules.py`. Batch
normalization uses its running statistics, and dropout is nothing, whatever mode the model is in.
Padding that has a name, and what `ceil_mode` adds, are written as numbers, which follow from the
sizes of the images: runtimes differ in what they take these words for. So only the size of the
batch can be free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from fastconv.core.geometry import as_ints
from fastconv.graph.ir import Graph, Value
from fastconv.nn.fusion import Branches, Chain
from fastconv.nn.layer_rules import LAYERS
from fastconv.nn.layers.containers import Concat
from fastconv.nn.lowered_graph import Lowering, Rule
from fastconv.nn.module import Module
from fastconv.nn.window_rules import WINDOWS


def lower(model: Module, input_shape: Sequence[int | str | None]) -> Graph:
    """Return the graph that computes what a model returns in evaluation.

    Parameters
    ----------
    model : Module
        It is not changed. The graph's constants are its parameters, not copies of them.
    input_shape : sequence of int
        With the batch, whose size may be free: a name, or None for "N".

    Returns
    -------
    Graph
        From the input "x" to the output "y". Parameters and statistics have their names in
        ``model.state_dict()``. Shapes of values are known unless the batch is free.

    Raises
    ------
    TypeError
        For a module that is not one of `fastconv.nn`'s, or whose `forward` is not.
    ValueError
        For a layer that does not take what it gets, and for one that no operator computes.

    Examples
    --------
    >>> from fastconv import nn
    >>> print(lower(nn.Sequential(nn.Linear(32, 16), nn.ReLU()), (1, 32)))
    Sequential(%x:1x32:float32)
      %0.Gemm:1x16:float32 = Gemm(%x, %0.weight:16x32:float32, %0.bias:16:float32; transB=1)
      %y:1x16:float32 = Relu(%0.Gemm)
      return %y
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module of fastconv.nn, got {model!r}")
    batch = input_shape[0] if isinstance(input_shape, list | tuple) and input_shape else 1
    free = batch is None or isinstance(batch, str)
    known: Sequence[Any] = (1, *input_shape[1:]) if free else input_shape
    shape = as_ints("input_shape", known, np.size(known) or 1, 1)
    states: Iterator[Any] = chain(model.parameters(), model.buffers())
    dtype = next((each.dtype for each in states if each.dtype.kind == "f"), model.dtype)
    x = Value("x", dtype, shape, declared=(batch or "N", *shape[1:]) if free else shape)
    lowering = Lowering(model, x, RULES)
    y, graph = lowering.run(model, x), lowering.graph
    if y is x:
        y = lowering.add("Identity", x)
    y.name, graph.outputs = "y", [y]
    if free:
        for value in graph.values():
            value.shape = None if value.constant is None else value.shape
    return graph


# Compositions --------------------------------------------------------------------------------


def _chain(to: Lowering, layer: Chain, x: Value) -> Value:
    for each in layer.stages():
        x = to.run(each, x)
    return x


def _branches(to: Lowering, layer: Branches, x: Value) -> Value:
    y = to.run(layer.body, x)
    other = x if layer.shortcut is None else to.run(layer.shortcut, x)
    if y.shape != other.shape:
        raise to.refused(f"body and shortcut must return one shape, got {y.shape}, {other.shape}")
    return to.add("Add", y, other)


def _concat(to: Lowering, layer: Concat, x: Value) -> Value:
    return to.add("Concat", *(to.run(each, x) for each in layer), axis=layer.axis)


#: By class; a class that is not here has the rule of its base, if it computes the same.
RULES: dict[type, Rule] = {
    Chain: _chain,
    Branches: _branches,
    Concat: _concat,
    **LAYERS,
    **WINDOWS,
}
