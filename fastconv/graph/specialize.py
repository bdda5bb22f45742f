"""Fixing a graph to input shapes: types of all values are inferred, and constants computed.

Both happen in one sweep, because the shapes of some values depend on numbers that follow from the
shapes of others: exporters write the size of a reshape as arithmetic on the sizes of an input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.operators import operator_list

# Results up to so many bytes are computed ahead, larger ones only from inputs about as large: a
# few bytes of a file can stand for terabytes.
_FOLDED_BYTES = 2**20
_GROWTH = 4
#: Operators whose results differ from run to run.
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}


def specialize(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> Graph:
    """Return a copy of a graph for inputs of these shapes.

    Raises
    ------
    ValueError
        If an operator does not exist, or refuses its inputs; the message names the node.
    """
    copy = graph.copy()
    for value in copy.inputs:
        value.shape = tuple(shapes[value.name])
    for node in list(copy.nodes):
        try:
            _infer(copy, node)
        except Exception as error:
            if isinstance(error, MemoryError):
                raise
            raise ValueError(f"node {node.name!r} ({node.operator}): {error}") from error
    return copy


def _infer(graph: Graph, node: Node) -> None:
    """Infer the types of a node's outputs, or replace them by constants."""
    operator = operator_list.of(node)
    types = list(operator.infer(node))
    for value, (dtype, shape) in zip(node.outputs, types, strict=False):
        if value is not None:
            value.dtype, value.shape = dtype, shape
    if node.operator in RANDOM:
        return
    inputs = [None if value is None else value.constant for value in node.inputs]
    known = all(
        value is None or array is not None for value, array in zip(node.inputs, inputs, strict=True)
    )
    if node.operator in ("Shape", "Size") and types[0][1] is not None:
        source = node.inputs[0]
        assert source is not None
        shape = source.shape or ()
        inputs, known = [np.broadcast_to(np.zeros((), source.dtype), shape)], True
    if known and _is_small(node):
        results = operator.compute(node, inputs)
        results = results if isinstance(results, tuple) else (results,)
        for value, array in zip(list(node.outputs), results, strict=False):
            if value is not None:
                _become_constant(value, array)
        if all(value is None or value.constant is not None for value in node.outputs):
            _forget(graph, node)


def _is_small(node: Node) -> bool:
    """Return whether the results are small enough to be computed ahead."""
    if any(value is not None and value.shape is None for value in node.outputs):
        return all(value is None or value.nbytes <= _FOLDED_BYTES for value in node.inputs)
    read = sum(value.nbytes for value in node.inputs if value is not None)
    made = sum(value.nbytes for value in node.outputs if value is not None)
    return made <= max(_FOLDED_BYTES, _GROWTH * read)


def _become_constant(value: Value, array: object) -> None:
    elements = np.asarray(array)
    if elements.flags.writeable or elements.base is not None:
        elements = elements.copy()
        elements.setflags(write=False)
    value.constant, value.dtype, value.shape = elements, elements.dtype, elements.shape


def _forget(graph: Graph, node: Node) -> None:
    """Remove a node whose outputs have become constants; they stay where they are read."""
    for value in node.inputs:
        if value is not None:
            value.users.remove(node)
    for value in node.outputs:
        if value is not None:
            value.producer = None
    graph.nodes.remove(node)
