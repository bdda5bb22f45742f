"""A graph as text that a person can read: one node a line."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.graph.ir import Graph, Node, Value

# Constants of so many elements are written out.
_WRITTEN = 8


def text_of(graph: Graph) -> str:
    """Return the graph, one node a line.

    >>> x = Value("x", np.dtype("float32"), (1, 3))
    >>> graph = Graph([x], "tiny")
    >>> node = graph.add("Relu", [x])
    >>> graph.outputs = [node.output]
    >>> print(text_of(graph))
    tiny(%x:1x3:float32)
      %Relu.1:?:? = Relu(%x)
      return %Relu.1
    """
    lines = [f"{graph.name or 'graph'}({', '.join(map(repr, graph.inputs))})"]
    lines += [f"  {line_of(node)}" for node in graph.nodes]
    lines.append(f"  return {', '.join(f'%{value.name}' for value in graph.outputs)}")
    return "\n".join(lines)


def line_of(node: Node) -> str:
    """Return one node: its outputs with their shapes, its operator, inputs and attributes."""
    outputs = ", ".join("_" if value is None else repr(value) for value in node.outputs)
    inputs = ", ".join(map(_read, node.inputs))
    attributes = ", ".join(f"{key}={_short(value)}" for key, value in node.attributes.items())
    return f"{outputs} = {node.operator}({inputs}{'; ' if attributes else ''}{attributes})"


def _read(value: Value | None) -> str:
    if value is None:
        return "_"
    if value.constant is not None and value.constant.size <= _WRITTEN:
        return np.array2string(value.constant, separator=",", precision=4).replace("\n", "")
    return repr(value) if value.constant is not None else f"%{value.name}"


def _short(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
