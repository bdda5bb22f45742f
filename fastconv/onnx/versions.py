"""Nodes of older operator sets in the newest form of each operator."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.graph.ir import Graph, Value


def newest_form(graph: Graph, proto: Any, opset: int, values: dict[str, Value]) -> None:
    """Add a node of a model to the graph, in the newest form of its operator."""
    from onnx import helper, numpy_helper

    attributes: dict[str, Any] = {}
    for attribute in proto.attribute:
        found = helper.get_attribute_value(attribute)
        if isinstance(found, bytes):
            found = found.decode()
        attributes[attribute.name] = tuple(found) if isinstance(found, list) else found
    inputs = [values[name] if name else None for name in proto.input]
    if proto.op_type == "Constant":
        value = graph.constant(_constant(attributes, numpy_helper))
        value.name = proto.output[0]
        values[proto.output[0]] = value
        return
    if proto.op_type == "Clip" and opset < 11:
        for name in ("min", "max"):
            bound = attributes.pop(name, None)
            inputs.append(None if bound is None else graph.constant(np.float32(bound)))
    if proto.op_type == "BatchNormalization":
        for gone in ("spatial", "momentum", "is_test", "consumed_inputs"):
            attributes.pop(gone, None)
    if proto.op_type == "Unsqueeze" and opset < 13:
        inputs.append(graph.constant(np.array(attributes.pop("axes"), np.int64)))
    if proto.op_type == "Softmax" and opset < 13:
        attributes.setdefault("axis", 1)
    for name, found in attributes.items():
        if hasattr(found, "dims"):
            attributes[name] = numpy_helper.to_array(found)
    outputs = []
    for name in proto.output:
        if name:
            values[name] = Value(name)
        outputs.append(values[name] if name else None)
    graph.add(proto.op_type, inputs, outputs, attributes, name=proto.name)


def _constant(attributes: dict[str, Any], numpy_helper: Any) -> Any:
    ((name, value),) = attributes.items()
    if name == "value":
        return numpy_helper.to_array(value)
    dtype = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    return np.array(value, dtype[name])
