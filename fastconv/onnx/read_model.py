"""Reading an ONNX model into a graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastconv.graph.ir import Graph, Value
from fastconv.graph.network import Network
from fastconv.graph.operators import operator_list
from fastconv.onnx.versions import newest_form
from fastconv.runtime.optional_packages import require

#: The versions of ONNX's operator set that are read.
OPSETS = range(7, 25)


def load(
    source: str | os.PathLike[str] | bytes,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> Network:
    """Read a trained network from an ONNX file.

    Parameters
    ----------
    source : path or bytes
        The file, or its content.
    input_shapes : mapping of str to sequence of int, optional
        Compile for these shapes of inputs now, instead of at the first call.

    Returns
    -------
    Network
        Call it with arrays, in the order of ``network.inputs``.

    Raises
    ------
    ValueError
        If the file is no ONNX model, or has operators that fastconv does not know: all are listed.
    OSError
        If it cannot be read.
    """
    network = Network(graph_of(_parsed(source)))
    if input_shapes is not None:
        network.compiled_for(*(input_shapes[name] for name in network.inputs))
    return network


def _parsed(source: Any) -> Any:
    onnx = require("onnx", "reading ONNX files", "onnx")
    if isinstance(source, bytes):
        return onnx.load_model_from_string(source)
    return onnx.load(os.fspath(source))


def graph_of(model: Any) -> Graph:
    """Return the graph of a parsed model."""
    from onnx import numpy_helper

    proto = model.graph
    opset = _opset(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.initializer}
    values: dict[str, Value] = {}
    graph = Graph((), proto.name)
    for info in proto.input:
        if info.name not in constants:
            value = values[info.name] = Value(info.name, _dtype(info))
            graph.inputs.append(value)
    for name, array in constants.items():
        value = graph.constant(array)
        value.name = name
        values[name] = value
    for node in proto.node:
        newest_form(graph, node, opset, values)
    _refuse_unknown(graph)
    graph.outputs = [values[info.name] for info in proto.output]
    return graph


def _opset(model: Any) -> int:
    versions = {each.domain: each.version for each in model.opset_import}
    version = versions.get("", versions.get("ai.onnx", 0))
    if version not in OPSETS:
        raise ValueError(
            f"the model uses version {version} of ONNX's operators; fastconv reads "
            f"{OPSETS[0]} to {OPSETS[-1]}"
        )
    return int(version)


def _dtype(info: Any) -> np.dtype[Any]:
    from onnx import helper

    found: np.dtype[Any] = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    return np.dtype(found)


def _refuse_unknown(graph: Graph) -> None:
    """Refuse operators that do not exist here, all in one message."""
    unknown: dict[str, list[str]] = {}
    for node in graph.nodes:
        if operator_list.find(node.operator) is None:
            unknown.setdefault(node.operator, []).append(node.name or node.output.name)
    if unknown:
        lines = [f"{name} (nodes {', '.join(nodes[:3])})" for name, nodes in unknown.items()]
        raise ValueError(f"fastconv has no operators {'; '.join(lines)}")
