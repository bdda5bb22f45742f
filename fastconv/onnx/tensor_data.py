"""Tensors of a model as arrays, and the files beside a model that hold the data of large ones.

A file says itself how large its tensors are and where their data lies, so nothing is believed:
data must have exactly the size that the dimensions declare, before memory is taken for it, and an
external file must be a regular one below the model's folder, links followed. A range of it is read
once, and all ranges together hold no more than the file does.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastconv.graph.ir import Array

#: NumPy's types by ONNX's numbers of them, and the field that holds elements that are not raw.
_TYPES: dict[int, tuple[type[np.generic], str]] = {
    1: (np.float32, "float_data"),
    2: (np.uint8, "int32_data"),
    3: (np.int8, "int32_data"),
    4: (np.uint16, "int32_data"),
    5: (np.int16, "int32_data"),
    6: (np.int32, "int32_data"),
    7: (np.int64, "int64_data"),
    9: (np.bool_, "int32_data"),
    10: (np.float16, "int32_data"),
    11: (np.float64, "double_data"),
    12: (np.uint32, "uint64_data"),
    13: (np.uint64, "uint64_data"),
}
#: The types of the fields of elements.
_WIDE = {
    "float_data": np.float32,
    "double_data": np.float64,
    "int32_data": np.int32,
    "int64_data": np.int64,
    "uint64_data": np.uint64,
}
_MOST_AXES = 32
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_EXTERNAL = 1  # TensorProto.DataLocation


def dtype_of(number: int, what: str) -> np.dtype[Any]:
    """Return NumPy's type for ONNX's number of it."""
    if number not in _TYPES:
        names = ", ".join(np.dtype(kind).name for kind, _ in _TYPES.values())
        raise ValueError(f"{what} has ONNX's type number {number}; fastconv knows {names}")
    return np.dtype(_TYPES[number][0])


def regular_file(path: str, flags: int = 0) -> BinaryIO:
    """Open a regular file; pipes and devices may have no end."""
    handle = os.open(path, os.O_RDONLY | _FLAGS | flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError("this is no regular file")
    return os.fdopen(handle, "rb")


class TensorReader:
    """Reads tensors of one model, whose folder may hold external data.

    Parameters
    ----------
    folder : Path or None
        None for a model that is no file: it has no external data.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = None if folder is None else folder.resolve()
        self._ranges: dict[tuple[str, int, int], bytes] = {}
        self._read: dict[str, int] = {}

    def array(self, tensor: Any) -> Array:
        """Return the elements of a tensor, read-only."""
        what = f"tensor {tensor.name!r}"
        dtype, dims = dtype_of(tensor.data_type, what), tuple(tensor.dims)
        if min(dims, default=0) < 0 or len(dims) > _MOST_AXES:
            raise ValueError(f"{what} has dimensions {dims}")
        count = math.prod(dims)
        if tensor.HasField("segment"):
            raise ValueError(f"{what} is stored in segments, which fastconv does not read")
        if tensor.data_location == _EXTERNAL:
            found = np.frombuffer(self._external(tensor, count * dtype.itemsize, what), dtype)
        elif tensor.HasField("raw_data"):
            data = tensor.raw_data
            self._check(len(data), count * dtype.itemsize, "bytes", what, dims)
            found = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)
        else:
            field = getattr(tensor, _TYPES[tensor.data_type][1])
            self._check(len(field), count, "elements", what, dims)
            stored = np.uint16 if dtype == np.float16 else dtype
            found = np.fromiter(field, _WIDE[_TYPES[tensor.data_type][1]], count).astype(stored)
            found = found.view(dtype)
        found.setflags(write=False)
        return found.reshape(dims)

    def _check(self, has: int, needs: int, unit: str, what: str, dims: tuple[int, ...]) -> None:
        if has != needs:
            raise ValueError(
                f"{what} of dimensions {dims} needs {needs} {unit}, the file has {has}"
            )

    def _external(self, tensor: Any, nbytes: int, what: str) -> bytes:
        """Return a range of a file in the model's folder."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if self.folder is None:
            raise ValueError(
                f"{what} lies in the file {location!r}: give the model's path instead of its bytes"
            )
        path = self._inside(location, what)
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", nbytes))
        except ValueError:
            raise ValueError(f"{what} has an offset or a length that is no number") from None
        if length != nbytes or offset < 0:
            raise ValueError(
                f"{what} needs {nbytes} bytes, but is said to have {length} from {offset} on"
            )
        key = path, offset, length
        if key not in self._ranges:
            self._ranges[key] = self._bytes(path, offset, length, what)
        return self._ranges[key]

    def _inside(self, location: str, what: str) -> str:
        """Return the path of an external file, which must be below the model's folder."""
        assert self.folder is not None
        try:
            path = (self.folder / location).resolve() if location else self.folder
            inside = path.is_relative_to(self.folder) and path != self.folder
        except (OSError, ValueError, RuntimeError):  # a name that is none, a circle of links
            inside = False
        if not inside or Path(location).is_absolute():
            raise ValueError(
                f"{what} has its data in {location!r}, which is not below the model's folder"
            )
        return str(path)

    def _bytes(self, path: str, offset: int, length: int, what: str) -> bytes:
        try:
            opened = regular_file(path, _NO_LINK)
        except (OSError, ValueError) as error:
            raise ValueError(f"{what} has its data in {path!r}: {error}") from None
        with opened as file:
            size = os.fstat(file.fileno()).st_size
            total = self._read.get(path, 0) + length
            if offset + length > size or total > size:
                raise ValueError(
                    f"{what} has its data in {path!r}, which has {size} bytes: "
                    f"{length} from {offset} are not there, or others overlap them"
                )
            self._read[path] = total
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise ValueError(f"{what} has its data in {path!r}, which ends too early")
        return data
