"""Reading an ONNX model into a graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastconv.graph.network import Network
from fastconv.onnx.build_graph import graph_of
from fastconv.onnx.tensor_data import TensorReader, regular_file
from fastconv.runtime.optional_packages import require

#: The limit of the format.
_LARGEST_FILE = 2**31


def load(
    source: str | os.PathLike[str] | bytes,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
) -> Network:
    """Read a trained network from an ONNX file.

    Parameters
    ----------
    source : path or bytes
        The file, or its content. Data of tensors that lies in other files is read from the folder
        of the model alone.
    input_shapes : mapping of str to sequence of int, optional
        Compile for these shapes of inputs now, instead of at the first call.

    Returns
    -------
    Network
        Call it with arrays, in the order of ``network.inputs``.

    Raises
    ------
    ValueError
        If the file is no ONNX model or is damaged, or has operators that fastconv does not know:
        all are listed.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import fastconv
    >>> path = tempfile.mkdtemp() + "/model.onnx"
    >>> fastconv.onnx.save(fastconv.nn.models.squeezenet1_1(rng=0), path, ("N", 3, 32, 32))
    >>> network = fastconv.onnx.load(path)
    >>> network(np.zeros((2, 3, 32, 32), np.float32)).shape
    (2, 1000)
    """
    require("onnx", "reading ONNX files", "onnx")
    name = "the model" if isinstance(source, bytes) else os.fspath(source)
    folder = None if isinstance(source, bytes) else Path(name).parent
    try:
        model = _parsed(source if isinstance(source, bytes) else _content(name))
        network = Network(graph_of(model, TensorReader(folder)))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise ValueError(f"{name}: {error}") from error
    if input_shapes is not None:
        if set(input_shapes) != set(network.inputs):
            raise ValueError(
                f"input_shapes must have a shape for each of {', '.join(network.inputs)}, got "
                f"{', '.join(input_shapes) or 'none'}"
            )
        network.compiled_for(*(input_shapes[name] for name in network.inputs))
    return network


def _content(path: str) -> bytes:
    """Return what a file holds."""
    with regular_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST_FILE:
            raise ValueError(f"a model has at most {_LARGEST_FILE} bytes, got {size}")
        return file.read()


def _parsed(content: bytes) -> Any:
    from onnx import ModelProto

    try:
        model = ModelProto.FromString(content)
    except Exception as error:
        raise ValueError(f"this is no ONNX model, or it is damaged: {error}") from None
    if not model.HasField("graph"):
        raise ValueError("this is no ONNX model: it has no graph")
    return model
