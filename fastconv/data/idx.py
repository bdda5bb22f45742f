"""IDX files, the format of MNIST. No number in a file is trusted.

Two zero bytes, a code for the type, the number of dimensions, every dimension as a big-endian
32-bit integer, then the elements, big-endian, in C order.
"""

from __future__ import annotations

import gzip
import math
import os
import stat
import zlib
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastconv.core.arguments import Array
from fastconv.data.data_errors import DataError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 32
_CHUNK = 1 << 20
# The largest compression ratio of deflate.
_DEFLATE_RATIO = 1032

#: The parts of a data set.
Split: TypeAlias = Literal["train", "test"]
_SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("t10k", "test")}


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = 2**31) -> Array:
    """Read an IDX file, compressed by gzip or not.

    Parameters
    ----------
    path : path
        Compression is detected from the first bytes, whatever the name.
    max_bytes : int
        The largest size that a compressed file may unpack to.

    Returns
    -------
    ndarray
        Of the file's shape and type (unsigned or signed bytes, int16, int32, float32, float64),
        in the byte order of this machine.

    Raises
    ------
    DataError
        For a file that is no IDX file, is damaged, or is shorter or longer than its header says.
        Memory is allocated only for bytes that are there.
    OSError
        For a file that is missing or not readable.

    References
    ----------
    Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "labels-idx1-ubyte")
    ...     size = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     read_idx(file)
    array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: must be a file, got a folder or a device")
    with open(path, "rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        if not compressed:
            return _read(path, stream, status.st_size, "is")
        most = min(max_bytes, status.st_size * _DEFLATE_RATIO)
        try:
            with gzip.open(stream) as unpacked:
                return _read(path, unpacked, most, "can unpack to at most")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{path}: the gzip data is damaged ({error}): fetch the file again"
            ) from None


def _read(path: Path, stream: BinaryIO | gzip.GzipFile, available: int, verb: str) -> Array:
    """Read a header, compare it with the bytes `available`, then read the elements."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        codes = ", ".join(f"{code:02x}" for code in _TYPES)
        raise DataError(
            f"{path}: is no IDX file: it begins with {magic.hex(' ') or 'nothing'}, "
            f"right is 00 00, a type ({codes}) and the number of dimensions"
        )
    dtype, ndim = np.dtype(_TYPES[magic[2]]), magic[3]
    if not 1 <= ndim <= _MAX_DIMENSIONS:
        raise DataError(
            f"{path}: has {ndim} dimensions by its header, right is 1 to {_MAX_DIMENSIONS}"
        )
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise DataError(f"{path}: ends within its header of {4 + 4 * ndim} bytes")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    needed = math.prod(shape) * dtype.itemsize
    header = 4 + 4 * ndim
    claim = f"{shape} of {dtype.name} by its header, which is {header + needed:,} bytes"
    if header + needed > available:
        raise DataError(f"{path}: holds {claim}, but the file {verb} {available:,} bytes")
    content = bytearray()  # grows with the bytes that are there
    while chunk := stream.read(min(_CHUNK, needed - len(content))):
        content += chunk
    if len(content) < needed:
        raise DataError(f"{path}: holds {claim}, but ends after {header + len(content):,} bytes")
    if stream.read(1):  # at the end of a compressed file this also compares its checksum
        raise DataError(f"{path}: holds {claim}, but the file goes on after that")
    try:
        array = np.frombuffer(content, dtype).reshape(shape)
    except ValueError:  # without elements, dimensions may be too large for NumPy
        raise DataError(f"{path}: has the impossible shape {shape} by its header") from None
    return array.astype(dtype.newbyteorder("="), copy=False)


def load_idx(
    folder: str | os.PathLike[str], split: Split = "train", *, prefix: str = ""
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Load images and labels from a folder of IDX files under their usual names.

    Parameters
    ----------
    folder : path
        With ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, or with a dot
        (``train-images.idx3-ubyte``), each with or without ``.gz``; the test split is called
        ``t10k`` or ``test``.
    split : "train" or "test"
    prefix : str
        Prefix of the names of the files, such as "emnist-letters-".

    Returns
    -------
    images : ndarray, (N, 1, H, W), float32
        In [0, 1].
    labels : ndarray, (N,), int64

    Raises
    ------
    DataError
        Also where images are not bytes, or not as many as labels.
    FileNotFoundError
        With the names that were tried.
    ValueError
        For another split.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     images, labels = Path(folder, "t10k-images-idx3-ubyte"), Path(folder, "t10k-labels-idx1-ubyte")
    ...     size = images.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 255]))
    ...     size = labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
    ...     load_idx(folder, "test")
    (array([[[[0., 1.]]]], dtype=float32), array([7]))
    """  # noqa: E501
    if split not in _SPLITS:
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    image_file = _find(Path(folder), split, prefix, "images", 3)
    label_file = _find(Path(folder), split, prefix, "labels", 1)
    labels = read_idx(label_file)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{label_file}: holds {labels.dtype} of shape {labels.shape}, "
            "right are labels: whole numbers of shape (N,)"
        )
    images = read_idx(image_file)
    if images.ndim != 3 or images.dtype != np.uint8 or 0 in images.shape:
        raise DataError(
            f"{image_file}: holds {images.dtype} of shape {images.shape}, right are images: "
            "uint8 of shape (N, H, W); read_idx reads other arrays"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{image_file} holds {len(images)} images, but {label_file} holds {len(labels)} "
            "labels: they belong to different data sets"
        )
    scaled = images[:, np.newaxis].astype(np.float32)
    scaled /= 255
    return scaled, labels.astype(np.int64)


def _find(folder: Path, split: Split, prefix: str, what: str, ndim: int) -> Path:
    names = [
        f"{prefix}{start}-{what}{separator}idx{ndim}-ubyte{suffix}"
        for start in _SPLITS[split]
        for separator in "-."
        for suffix in ("", ".gz")
    ]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder}: holds none of {', '.join(names)}")
