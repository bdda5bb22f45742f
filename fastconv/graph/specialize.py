"""Fixing a graph to input shapes: types of all values are inferred, and constants computed.

Both happen in one sweep, because the shapes of some values depend on numbers that follow from the
shapes of others: exporters write the size of a reshape as arithmetic on the sizes of an input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.memory_plan import check_bytes
from fastconv.graph.operators import control_nodes, operator_list

# Results up to so many bytes are computed ahead, larger ones only from inputs about as large: a
# few bytes of a file can stand for terabytes. All together may take this many times the bytes that
# the graph's own constants have, or the number below.
_FOLDED_BYTES = 2**20
_GROWTH = 4
_FOLDED_TOGETHER = 2**26


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
    with np.errstate(all="ignore"):
        _Sweep(copy).run()
    return copy


class _Sweep:
    """One sweep over the nodes of a graph, which are kept, replaced or forgotten."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        own = sum(value.nbytes for value in graph.values() if value.constant is not None)
        self.left = max(_FOLDED_TOGETHER, _GROWTH * own)

    def run(self) -> None:
        waiting, self.graph.nodes = deque(self.graph.nodes), []
        folded = 0
        while waiting:
            node = waiting.popleft()
            try:
                if node.operator == "If":
                    waiting.extendleft(reversed(control_nodes.chosen_branch(self.graph, node)))
                elif self._is_constant(node):
                    _forget(node)
                    folded += 1
                else:
                    self.graph.nodes.append(node)
            except MemoryError:
                raise
            except Exception as error:
                raise ValueError(f"{node.label}: {error}") from error
        self.graph.rewrites["fold_constants"] = folded

    def _is_constant(self, node: Node) -> bool:
        """Infer the types of a node's outputs; return whether they have become constants."""
        operator = operator_list.of(node)
        types = list(operator.infer(node))
        for value, (dtype, shape) in zip(node.outputs, types, strict=False):
            if value is not None:
                value.dtype, value.shape = dtype, shape
                check_bytes(value.nbytes, f"an array of shape {shape}")
        inputs = [None if value is None else value.constant for value in node.inputs]
        known = all(
            value is None or array is not None
            for value, array in zip(node.inputs, inputs, strict=True)
        )
        if node.operator in ("Shape", "Size") and types[0][1] is not None:
            source = node.inputs[0]
            assert source is not None
            if source.shape is not None:
                inputs = [np.broadcast_to(np.zeros((), source.dtype), source.shape)]
                known = True
        if not known or not self._is_small(node):
            return False
        results = operator.compute(node, inputs)
        results = results if isinstance(results, tuple) else (results,)
        for value, array in zip(list(node.outputs), results, strict=False):
            if value is not None:
                _become_constant(value, array)
                self.left -= value.nbytes
        return all(value is None or value.constant is not None for value in node.outputs)

    def _is_small(self, node: Node) -> bool:
        """Return whether the results are small enough to be computed ahead."""
        if any(value is not None and value.shape is None for value in node.outputs):
            # Their size is that of the inputs at most, in the operators that choose elements.
            return all(value is None or value.nbytes <= _FOLDED_BYTES for value in node.inputs)
        read = sum(value.nbytes for value in node.inputs if value is not None)
        made = sum(value.nbytes for value in node.outputs if value is not None)
        return made <= min(self.left, max(_FOLDED_BYTES, _GROWTH * read))


def _become_constant(value: Value, array: object) -> None:
    elements = np.asarray(array)
    if elements.flags.writeable or elements.base is not None:
        elements = elements.copy()
        elements.setflags(write=False)
    value.constant, value.dtype, value.shape = elements, elements.dtype, elements.shape


def _forget(node: Node) -> None:
    """Let go of a node whose outputs have become constants; they stay where they are read."""
    for value in node.inputs:
        if value is not None:
            value.users.remove(node)
    for value in node.outputs:
        if value is not None:
            value.producer = None
