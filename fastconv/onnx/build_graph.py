"""The graph of a parsed model: names become values, and each is checked to be made once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastconv.graph.ir import Graph, Value
from fastconv.graph.operators.control_nodes import BRANCHES
from fastconv.onnx.node_checks import check_node, refuse_unknown
from fastconv.onnx.tensor_data import TensorReader, dtype_of
from fastconv.onnx.versions import Draft, newest_form

#: The versions of ONNX's operator set that are read.
OPSETS = range(7, 29)
# More than networks have; a byte of a file can stand for a thousand of memory.
_MOST_NODES = 10_000
_MOST_TENSORS = 100_000
_MOST_NUMBERS = 2**20
#: The fields of attributes, by the number of their type.
_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings"}
_TENSOR, _GRAPH = 4, 5


def graph_of(model: Any, tensors: TensorReader) -> Graph:
    """Return the graph of a parsed model.

    Raises
    ------
    ValueError
        If the model contradicts itself, or has what fastconv does not know.
    """
    versions = {each.domain: each.version for each in model.opset_import}
    version = versions.get("", versions.get("ai.onnx", 0))
    if version not in OPSETS:
        raise ValueError(
            f"the model uses version {version} of ONNX's operators; fastconv reads "
            f"{OPSETS[0]} to {OPSETS[-1]}"
        )
    nodes = sum(1 for _ in _nodes(model.graph))
    if nodes > _MOST_NODES or len(model.graph.initializer) > _MOST_TENSORS:
        raise ValueError(f"a model has at most {_MOST_NODES} nodes and tensors, got {nodes}")
    refuse_unknown(_nodes(model.graph), bool(model.functions))
    return _Builder(model.graph, int(version), tensors).graph


def _nodes(graph: Any) -> Iterable[Any]:
    """Yield all nodes, those of branches too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.name in BRANCHES:
                yield from _nodes(attribute.g)


class _Builder:
    """Makes the graph of one protobuf graph.

    Parameters
    ----------
    outer : dict of str to Value, optional
        For a branch, the values around it, which it may read: they become its inputs, in the order
        of `captured`.
    """

    def __init__(
        self,
        proto: Any,
        opset: int,
        tensors: TensorReader,
        outer: dict[str, Value] | None = None,
    ) -> None:
        self.graph = Graph((), proto.name)
        self.opset, self.tensors, self.outer = opset, tensors, outer or {}
        self.values: dict[str, Value] = {}
        self.captured: dict[str, Value] = {}
        if proto.sparse_initializer:
            raise ValueError("sparse tensors are not read")
        for tensor in proto.initializer:
            self._define(tensor.name, self.graph.constant(tensors.array(tensor)))
        for info in proto.input:
            # Before version 4 of the format, constants were listed as inputs as well.
            if info.name not in self.values or self.values[info.name].constant is None:
                self.graph.inputs.append(self._define(info.name, _input(info)))
        for node in proto.node:
            try:
                self._add(node)
            except MemoryError:
                raise
            except Exception as error:
                label = node.name or ", ".join(node.output)
                raise ValueError(f"node {label!r} ({node.op_type}): {error}") from error
        self.graph.outputs = [self._find(info.name) for info in proto.output]
        if not self.graph.outputs:
            raise ValueError("the graph has no outputs")

    def _define(self, name: str, value: Value) -> Value:
        if name in self.values:
            raise ValueError(f"the name {name!r} is given to two values")
        value.name = name
        self.values[name] = value
        return value

    def _find(self, name: str) -> Value:
        if name in self.values:
            return self.values[name]
        if name not in self.outer:
            raise ValueError(f"{name!r} is read, but no input, tensor or node before makes it")
        value = self._define(name, Value(name))
        self.graph.inputs.append(value)
        self.captured[name] = self.outer[name]
        return value

    def _add(self, node: Any) -> None:
        """Add one node."""
        check_node(node, self.opset)
        inputs = [self._find(name) if name else None for name in node.input]
        attributes = {each.name: self._attribute(each) for each in node.attribute}
        if node.op_type == "Constant":
            self._define(node.output[0], self.graph.constant(_constant(attributes)))
            return
        if node.op_type in ("Cast", "CastLike"):
            for unused in ("saturate", "round_mode"):  # of types that NumPy does not have
                attributes.pop(unused, None)
            if "to" in attributes:
                attributes["to"] = dtype_of(attributes["to"], "its result")
        if node.op_type == "Range":
            attributes.pop("stash_type", None)
        if node.op_type == "If":
            inputs += self._branches(attributes)
        outputs = [self._define(name, Value(name)) if name else None for name in node.output]
        draft = Draft(self.graph, node.op_type, inputs, outputs, attributes, node.name)
        newest_form(draft, self.opset)

    def _attribute(self, attribute: Any) -> Any:
        """Return the value of an attribute."""
        field = _FIELDS.get(attribute.type)
        if field is None or attribute.ref_attr_name:
            raise ValueError(f"attribute {attribute.name!r} is of a kind that is not read")
        found = getattr(attribute, field)
        if attribute.type == _TENSOR:
            return self.tensors.array(found)
        if attribute.type == _GRAPH:
            return _Builder(found, self.opset, self.tensors, self.outer | self.values)
        if attribute.type < _TENSOR:
            return found.decode() if isinstance(found, bytes) else found
        if len(found) > _MOST_NUMBERS:
            raise ValueError(f"attribute {attribute.name!r} has {len(found)} numbers")
        return tuple(each.decode() if isinstance(each, bytes) else each for each in found)

    def _branches(self, attributes: dict[str, Any]) -> list[Value]:
        """Make graphs of both branches, with the same inputs; return what these stand for."""
        builders = [attributes[name] for name in BRANCHES]
        names = list(dict.fromkeys(name for each in builders for name in each.captured))
        for name, builder in zip(BRANCHES, builders, strict=True):
            if len(builder.graph.inputs) != len(builder.captured):
                raise ValueError(f"{name} must not have inputs of its own")
            builder.graph.inputs = [builder.values.get(each, Value(each)) for each in names]
            attributes[name] = builder.graph
        return [self._find(name) for name in names]


def _input(info: Any) -> Value:
    """Return the value of an input of the model."""
    if not info.type.HasField("tensor_type"):
        raise ValueError(f"input {info.name!r} is no tensor, and fastconv runs tensors alone")
    kind = info.type.tensor_type
    value = Value(info.name, dtype_of(kind.elem_type, f"input {info.name!r}"))
    if kind.HasField("shape"):
        value.declared = tuple(
            int(each.dim_value)
            if each.HasField("dim_value") and each.dim_value >= 0
            else each.dim_param or "?"
            for each in kind.shape.dim
        )
    return value


#: What holds the elements of a constant, besides a tensor.
_NUMBERS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def _constant(attributes: dict[str, Any]) -> Any:
    ((name, value),) = attributes.items()
    if name != "value" and name not in _NUMBERS:
        raise ValueError(f"a constant by {name!r} is not read")
    return value if name == "value" else np.array(value, _NUMBERS[name])
