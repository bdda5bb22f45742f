"""What every pooling algorithm is."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastconv.core.pool_axis import Axes

Array = NDArray[Any]
Indices = NDArray[np.int64]


def lowest(dtype: np.dtype[Any]) -> Any:
    """Return a number of that type that no other is below."""
    return dtype.type(-np.inf if dtype.kind == "f" else np.iinfo(dtype).min)


def as_planes(tensor: Array) -> Array:
    """Return (N, C, H, W) as (N * C, H, W)."""
    return tensor.reshape(-1, *tensor.shape[2:])


class PoolAlgorithm:
    """An implementation of all poolings and their gradients.

    Arrays arrive checked: C-contiguous, inputs read-only; outputs are to be filled completely.
    x is (N, C, H, W), outputs and gradients of outputs are (N, C, OH, OW). Floating point is
    float32 or float64; maxima are of integers too.
    """

    name: ClassVar[str]

    def maximum(self, x: Array, axes: Axes, out: Array, indices: Indices | None) -> None:
        """Fill `out` with each window's maximum and `indices`, if any, with its argmax, h * W + w.

        The first of equal maxima wins. NaN is larger than any number, and the last NaN wins,
        as in PyTorch. Where nothing of a window is inside the input, anything may come out.
        """
        raise NotImplementedError

    def maximum_grad(self, grad: Array, indices: Indices, out: Array) -> bool:
        """Fill `out`, shaped like x, with the sums of the gradients at their indices.

        Return whether all indices are inside the plane; if not, `out` may hold anything.
        """
        raise NotImplementedError

    def mean(self, x: Array, axes: Axes, out: Array) -> None:
        """Fill `out` with each window's sum, divided by the positions it counts; NaN if none."""
        raise NotImplementedError

    def mean_grad(self, grad: Array, axes: Axes, out: Array) -> None:
        """Fill `out`, shaped like x, with the shares of each gradient in its window."""
        raise NotImplementedError
