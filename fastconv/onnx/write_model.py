"""Writing a model as an ONNX file.

Graphs have operators in their newest form. The file states the lowest version of ONNX's operators,
from 17 on, that has them in this form: more programs read it. The format's version follows from it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastconv
from fastconv.graph.ir import Graph, Node, Value
from fastconv.graph.specialize import specialize
from fastconv.nn.lowering import lower
from fastconv.nn.module import Module
from fastconv.runtime.atomic_files import write_atomically
from fastconv.runtime.optional_packages import require

#: The lowest version of ONNX's operators that is written.
OPSET = 17
# A limit of the format: a size has 31 bits.
_MOST_BYTES = 2**31 - 2**20
# Forms that the descriptions of operators do not tell from older ones.
_NEWER = {("GroupNormalization", None): 21, ("Pad", "wrap"): 19}


def save(
    model: Module, path: str | os.PathLike[str], input_shape: Sequence[int | str | None]
) -> None:
    """Write a model of `fastconv.nn`, as it evaluates, to an ONNX file.

    The file is complete or not there: it is written under another name and then renamed. The model
    is not changed, and may be in training mode: batch normalization is written with its running
    statistics, and dropout is left out.

    Parameters
    ----------
    model : Module
        Of `fastconv.nn`'s layers and networks. ONNX has no operator for a `forward` of your own.
    path : str or path-like
        A file there is replaced.
    input_shape : sequence of int
        Of the input, with the batch, e.g. (1, 3, 224, 224). As with ``torch.onnx.export``, the
        network takes this shape alone. The batch can be free instead: ``("N", 3, 224, 224)``, or
        None for "N".

    Raises
    ------
    ImportError
        Without the package onnx.
    TypeError
        If `model`, or a layer in it, has no counterpart in ONNX; the layer is named.
    ValueError
        If a layer does not take what it gets from `input_shape`, or the model has over 2 GiB.
    OSError
        If the file cannot be written.

    Notes
    -----
    Input and output are named "x" and "y", weights as in ``model.state_dict()``. The version of
    ONNX's operators is 17, or for some layers a higher one: 19 for circular padding and for
    `AvgPool2d` with dilation, 20 for `GELU`, 21 for `GroupNorm`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import fastconv
    >>> from fastconv import nn
    >>> path = tempfile.mkdtemp() + "/model.onnx"
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, rng=0), nn.ReLU())
    >>> fastconv.onnx.save(model, path, ("N", 3, 32, 32))
    >>> network = fastconv.onnx.load(path)
    >>> network(np.zeros((5, 3, 32, 32), np.float32)).shape
    (5, 8, 30, 30)
    """
    require("onnx", "writing ONNX files", "onnx")
    target = Path(path)
    content = model_of(lower(model, input_shape)).SerializeToString()
    write_atomically(target, lambda file: file.write_bytes(content))


def model_of(graph: Graph) -> Any:
    """Return the protobuf model of a graph of ONNX's operators with one input."""
    from onnx import helper, numpy_helper

    constants = [value for value in graph.values() if value.constant is not None]
    total = sum(value.nbytes for value in constants)
    if total > _MOST_BYTES:
        raise ValueError(f"model must have at most {_MOST_BYTES} bytes of weights, got {total}")
    (x,), (y,) = graph.inputs, graph.outputs
    proto = helper.make_graph(
        [_node(node) for node in graph.nodes],
        graph.name,
        [_information(x, x.declared)],
        [_information(y, _output_shape(graph))],
        [numpy_helper.from_array(value.constant, value.name) for value in constants],
    )
    imports = [helper.make_opsetid("", max([OPSET, *map(_version, graph.nodes)]))]
    return helper.make_model(
        proto,
        producer_name="fastconv",
        producer_version=fastconv.__version__,
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports),
    )


def _node(node: Node) -> Any:
    from onnx import helper

    inputs, outputs = (
        ["" if value is None else value.name for value in values]
        for values in (node.inputs, node.outputs)
    )
    return helper.make_node(node.operator, inputs, outputs, node.name, **node.attributes)


def _information(value: Value, shape: Sequence[int | str | None] | None) -> Any:
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(value.name, kind, shape)


def _output_shape(graph: Graph) -> list[int | str | None]:
    """Return the sizes of the output; those that are the batch's have its name."""
    (x,), (y,) = graph.inputs, graph.outputs
    assert x.declared is not None
    batch, *sizes = x.declared
    if y.shape is not None:
        return list(y.shape)
    one, two = (_shape_for(graph, (n, *sizes)) for n in (1, 2))
    return [
        a if a == b else batch if (a, b) == (1, 2) else None for a, b in zip(one, two, strict=True)
    ]


def _shape_for(graph: Graph, shape: Sequence[Any]) -> tuple[int, ...]:
    """Return the shape of the output for one of the input."""
    found = specialize(graph, {graph.inputs[0].name: shape}).outputs[0].shape
    assert found is not None
    return found


def _version(node: Node) -> int:
    """Return the lowest version that has an operator in the form of a node."""
    from onnx import defs

    lowest = max(_NEWER.get((node.operator, m), OPSET) for m in (None, node.attributes.get("mode")))
    for version in range(lowest, defs.onnx_opset_version() + 1):
        if _has(node, version):
            return version
    raise ValueError(f"{node.label} has no form in ONNX")


def _has(node: Node, version: int) -> bool:
    from onnx import defs

    try:
        schema = defs.get_schema(node.operator, version, "")
    except defs.SchemaError:
        return False
    return all(name in schema.attributes for name in node.attributes)
