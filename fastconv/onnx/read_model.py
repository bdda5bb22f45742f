"""Reading an ONNX model into a graph."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastconv.graph.network import Network
from fastconv.onnx.build_graph import graph_of
from fastconv.onnx.tensor_data import TensorReader
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
        network.compiled_for(*(input_shapes[name] for name in network.inputs))
    return network


def _content(path: str) -> bytes:
    """Return what a regular file holds; pipes and devices may have no end."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("this is no regular file")
        if status.st_size > _LARGEST_FILE:
            raise ValueError(f"a model has at most {_LARGEST_FILE} bytes, got {status.st_size}")
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
