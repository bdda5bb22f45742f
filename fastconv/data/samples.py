"""Data sets that scikit-learn contains or fetches."""

from __future__ import annotations

import math
from typing import Literal, overload
from urllib.error import URLError

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastconv.core.arguments import Array
from fastconv.core.geometry import IntPair, as_pair
from fastconv.data.data_errors import DataError
from fastconv.runtime.optional_packages import require

Labels = NDArray[np.int64]


@overload
def load_digits(size: IntPair | None = None) -> tuple[NDArray[np.float32], Labels]: ...
@overload
def load_digits(size: IntPair | None = None, *, dtype: DTypeLike) -> tuple[Array, Labels]: ...
def load_digits(size: IntPair | None = None, dtype: DTypeLike = "float32") -> tuple[Array, Labels]:
    """Load scikit-learn's 1797 handwritten digits of 8 x 8 pixels; nothing is downloaded.

    Parameters
    ----------
    size : int or (int, int), optional
        Height and width to resize to, bilinearly; 28 is the size of MNIST.
    dtype : dtype
        "float32" or "float64".

    Returns
    -------
    images : ndarray, (1797, 1, 8, 8) or (1797, 1, height, width)
        In [0, 1], ink is 1.
    labels : ndarray, (1797,), int64
        0 to 9.

    Raises
    ------
    TypeError, ValueError
        For another size or dtype.
    ModuleNotFoundError
        Without scikit-learn; with `size` also without Pillow.

    Examples
    --------
    >>> images, labels = load_digits()
    >>> images.shape, images.dtype, labels[:3]
    ((1797, 1, 8, 8), dtype('float32'), array([0, 1, 2]))
    >>> load_digits(size=28)[0].shape
    (1797, 1, 28, 28)
    """
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
    shape = None if size is None else as_pair("size", size, 1)
    digits = require("sklearn.datasets", "load_digits", "data").load_digits()
    images = digits.images.astype(np.float32) / 16
    if shape is not None:
        image = require("PIL.Image", "load_digits(size=...)", "data")
        height, width = shape
        bilinear = image.Resampling.BILINEAR
        images = np.stack(
            [np.asarray(image.fromarray(one).resize((width, height), bilinear)) for one in images]
        )
    return images[:, np.newaxis].astype(dtype), digits.target.astype(np.int64)


def fetch_openml(
    name: str,
    *,
    version: int | Literal["active"] = 1,
    shape: tuple[int, int, int] | None = None,
    maximum: float = 255,
    data_home: str | None = None,
) -> tuple[NDArray[np.float32], Labels]:
    """Fetch a data set of images from OpenML by scikit-learn, which caches it.

    Parameters
    ----------
    name : str
        On OpenML: "mnist_784", "Fashion-MNIST".
    version : int or "active"
    shape : (C, H, W), optional
        Of one image; square and gray by default.
    maximum : float
        The value of white, which becomes 1.
    data_home : path, optional
        The cache folder of scikit-learn.

    Returns
    -------
    images : ndarray, (N, C, H, W), float32
        In [0, 1].
    labels : ndarray, (N,), int64
        Labels that are not integers are numbered in sorted order.

    Raises
    ------
    ConnectionError
        If OpenML cannot be reached.
    DataError
        For data that are not images of `shape`, or not in [0, `maximum`].
    ModuleNotFoundError
        Without scikit-learn.

    Examples
    --------
    >>> images, labels = fetch_openml("mnist_784")  # doctest: +SKIP
    >>> images.shape  # doctest: +SKIP
    (70000, 1, 28, 28)
    """
    datasets = require("sklearn.datasets", "fetch_openml", "data")
    try:
        # as_frame and parser: so that pandas is not needed.
        found = datasets.fetch_openml(
            name, version=version, as_frame=False, parser="liac-arff", data_home=data_home
        )
    except (URLError, ConnectionError, TimeoutError) as error:
        raise ConnectionError(
            f"data set {name!r} cannot be fetched from OpenML ({error}): connect to the internet, "
            "or load local data: load_digits(), load_idx(folder), load_image_folder(folder)"
        ) from error
    data = found.data
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "fiub" or data.ndim != 2:
        raise DataError(f"data set {name!r} does not hold images: one row of numbers for each")
    side = math.isqrt(data.shape[1])
    shape = (1, side, side) if shape is None else shape
    if math.prod(shape) != data.shape[1]:
        raise DataError(
            f"data set {name!r} has {data.shape[1]} numbers a row, which is no image of shape "
            f"{shape}: pass shape=(C, H, W)"
        )
    # Not (low >= 0 and high <= maximum), so that NaN is refused.
    if data.size and not (data.min() >= 0 and data.max() <= maximum):
        raise DataError(
            f"data set {name!r} holds values from {data.min():g} to {data.max():g}, right is 0 to "
            f"maximum={maximum:g}"
        )
    images = (data / maximum).astype(np.float32).reshape(-1, *shape)
    return images, _as_labels(name, np.asarray(found.target))


def _as_labels(name: str, target: Array) -> Labels:
    """Return integers, of any type, as they are; number other labels."""
    if target.ndim != 1:
        raise DataError(f"data set {name!r} has labels of shape {target.shape}, right is (N,)")
    try:
        numbers = target.astype(np.float64)
    except (TypeError, ValueError):
        numbers = None
    if numbers is not None and np.array_equal(numbers, np.round(numbers)):
        return numbers.astype(np.int64)
    return np.unique(target.astype(str), return_inverse=True)[1].astype(np.int64)
