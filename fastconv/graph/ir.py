"""The intermediate representation: values, nodes, and the graph that holds them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
#: The sizes of a value; None where they are known only when it is computed.
Shape = tuple[int, ...] | None


@dataclass(eq=False)
class Value:
    """An array that flows along the edges of a graph.

    Attributes
    ----------
    name : str
    dtype : numpy.dtype or None
        None as long as it has not been inferred.
    shape : tuple of int or None
    constant : ndarray or None
        Its elements, where they are known before the network runs.
    producer : Node or None
        None for inputs and constants.
    users : list of Node
        A node that reads the value twice is there twice.
    declared : tuple of int or str, or None
        The shape that an input must have; names stand for sizes that are free.
    """

    name: str
    dtype: np.dtype[Any] | None = None
    shape: Shape = None
    constant: Array | None = None
    producer: Node | None = None
    users: list[Node] = field(default_factory=list)
    declared: tuple[int | str, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the array; 0 if its shape is unknown."""
        if self.shape is None or self.dtype is None:
            return 0
        return math.prod(self.shape) * self.dtype.itemsize

    def __repr__(self) -> str:
        sizes = "?" if self.shape is None else "x".join(map(str, self.shape)) or "scalar"
        return f"%{self.name}:{sizes}:{'?' if self.dtype is None else self.dtype.name}"


@dataclass(eq=False)
class Node:
    """One operation.

    Attributes
    ----------
    operator : str
        ONNX's name of it, or one of `fastconv.graph.operators` that has no counterpart there.
    inputs : list of Value or None
        None where an optional input is missing.
    outputs : list of Value or None
        None where an optional output is not wanted.
    attributes : dict
    name : str
        For messages.
    """

    operator: str
    inputs: list[Value | None]
    outputs: list[Value | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    def __str__(self) -> str:
        outputs = ", ".join("_" if value is None else repr(value) for value in self.outputs)
        inputs = ", ".join(map(_read, self.inputs))
        attributes = ", ".join(f"{key}={_short(value)}" for key, value in self.attributes.items())
        return f"{outputs} = {self.operator}({inputs}{'; ' if attributes else ''}{attributes})"

    @property
    def label(self) -> str:
        """What messages call it."""
        name = self.name or next((value.name for value in self.outputs if value is not None), "")
        return f"node {name!r} ({self.operator})"

    @property
    def output(self) -> Value:
        """The only output, or the first of several."""
        first = self.outputs[0]
        assert first is not None
        return first

    def input(self, index: int) -> Value | None:
        """Return an input, None if it is missing."""
        return self.inputs[index] if index < len(self.inputs) else None

    def constant(self, index: int) -> Array | None:
        """Return the elements of an input, None if it is missing or not constant."""
        value = self.input(index)
        return None if value is None else value.constant


class Graph:
    """Nodes in an order in which they can run, with inputs, outputs and all values between.

    All changes go through its methods, which keep `Value.producer` and `Value.users` right.
    `rewrites` counts what each pass did to it.
    """

    def __init__(self, inputs: Iterable[Value] = (), name: str = "") -> None:
        self.name = name
        self.inputs: list[Value] = list(inputs)
        self.outputs: list[Value] = []
        self.nodes: list[Node] = []
        self.rewrites: dict[str, int] = {}
        self._fresh = 0

    # Building ----------------------------------------------------------------------------

    def add(
        self,
        operator: str,
        inputs: Iterable[Value | None],
        outputs: Iterable[Value | None] | None = None,
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str = "",
        before: Node | None = None,
    ) -> Node:
        """Add a node at the end, or before another one; by default with one new output."""
        if outputs is None:
            outputs = [self.new_value(name or operator)]
        node = Node(operator, list(inputs), list(outputs), dict(attributes or {}), name)
        for value in node.inputs:
            if value is not None:
                value.users.append(node)
        for value in node.outputs:
            if value is not None:
                value.producer = node
        at = len(self.nodes) if before is None else self.nodes.index(before)
        self.nodes.insert(at, node)
        return node

    def new_value(self, stem: str) -> Value:
        """Return a value with a name of its own."""
        self._fresh += 1
        return Value(f"{stem}.{self._fresh}")

    def constant(self, elements: Any, stem: str = "constant") -> Value:
        """Return a constant value; a read-only array is not copied."""
        array = np.asarray(elements)
        if array.flags.writeable:
            array = array.copy()
            array.setflags(write=False)
        value = self.new_value(stem)
        value.dtype, value.shape, value.constant = array.dtype, array.shape, array
        return value

    # Rewriting ---------------------------------------------------------------------------

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        """Make a node read another value, or none."""
        old = node.input(index)
        if old is not None:
            old.users.remove(node)
        node.inputs += [None] * (index + 1 - len(node.inputs))
        node.inputs[index] = value
        if value is not None:
            value.users.append(node)

    def replace(self, old: Value, new: Value) -> None:
        """Let all that reads `old` read `new`, outputs of the graph too."""
        for user in list(old.users):
            for index, value in enumerate(user.inputs):
                if value is old:
                    self.set_input(user, index, new)
        self.outputs = [new if value is old else value for value in self.outputs]

    def remove(self, node: Node) -> None:
        """Remove a node that nobody reads."""
        for value in node.inputs:
            if value is not None:
                value.users.remove(node)
        for value in node.outputs:
            if value is not None:
                assert not value.users, f"{value} is still read"
                value.producer = None
        self.nodes.remove(node)

    def only_user(self, value: Value) -> Node | None:
        """Return the node that alone reads a value, which is no output of the graph."""
        if len(value.users) == 1 and not any(value is out for out in self.outputs):
            return value.users[0]
        return None

    # Reading -----------------------------------------------------------------------------

    def values(self) -> list[Value]:
        """Return all values: inputs, constants and results, each once."""
        found: dict[int, Value] = {id(value): value for value in self.inputs}
        for node in self.nodes:
            for value in (*node.inputs, *node.outputs):
                if value is not None:
                    found.setdefault(id(value), value)
        for value in self.outputs:
            found.setdefault(id(value), value)
        return list(found.values())

    def copy(self) -> Graph:
        """Return a graph that can be changed apart; constants are shared."""
        twins: dict[int, Value] = {}

        def twin(value: Value | None) -> Value | None:
            if value is None:
                return None
            if id(value) not in twins:
                made = Value(value.name, value.dtype, value.shape, value.constant)
                made.declared = value.declared
                twins[id(value)] = made
            return twins[id(value)]

        graph = Graph((twin(value) for value in self.inputs), self.name)  # type: ignore[misc]
        graph._fresh = self._fresh
        for node in self.nodes:
            values = map(twin, node.inputs), map(twin, node.outputs)
            graph.add(node.operator, *values, node.attributes, name=node.name)
        graph.outputs = [twin(value) for value in self.outputs]  # type: ignore[misc]
        return graph

    def __getstate__(self) -> dict[str, Any]:
        """Return the graph with numbers for values: links would be followed node by node."""
        values = self.values()
        number = {id(value): index for index, value in enumerate(values)}

        def numbers(some: Iterable[Value | None]) -> list[int | None]:
            return [None if value is None else number[id(value)] for value in some]

        return {
            "name": self.name,
            "fresh": self._fresh,
            "values": [(v.name, v.dtype, v.shape, v.constant, v.declared) for v in values],
            "nodes": [
                (n.operator, numbers(n.inputs), numbers(n.outputs), n.attributes, n.name)
                for n in self.nodes
            ],
            "inputs": numbers(self.inputs),
            "outputs": numbers(self.outputs),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        values = []
        for name, dtype, shape, constant, declared in state["values"]:
            if constant is not None:
                constant.setflags(write=False)
            values.append(Value(name, dtype, shape, constant, declared=declared))

        def found(numbers: Iterable[int | None]) -> list[Any]:
            return [None if number is None else values[number] for number in numbers]

        self.__init__(found(state["inputs"]), state["name"])  # type: ignore[misc]
        for operator, inputs, outputs, attributes, name in state["nodes"]:
            self.add(operator, found(inputs), found(outputs), attributes, name=name)
        self.outputs, self._fresh = found(state["outputs"]), state["fresh"]

    def __str__(self) -> str:
        """Return the graph as text, one node a line.

        >>> x = Value("x", np.dtype("float32"), (1, 3))
        >>> graph = Graph([x], "tiny")
        >>> graph.outputs = [graph.add("Relu", [x]).output]
        >>> print(graph)
        tiny(%x:1x3:float32)
          %Relu.1:?:? = Relu(%x)
          return %Relu.1
        """
        lines = [f"{self.name or 'graph'}({', '.join(map(repr, self.inputs))})"]
        lines += [f"  {node}" for node in self.nodes]
        lines.append(f"  return {', '.join(f'%{value.name}' for value in self.outputs)}")
        return "\n".join(lines)


# Constants of so many elements are written out.
_WRITTEN = 8


def _read(value: Value | None) -> str:
    if value is None:
        return "_"
    if value.constant is not None and value.constant.size <= _WRITTEN:
        return np.array2string(value.constant, separator=",", precision=4).replace("\n", "")
    return repr(value) if value.constant is not None else f"%{value.name}"


def _short(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
