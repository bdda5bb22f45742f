"""Where the windows of a pooling lie along one axis.

All poolings are the same to an algorithm: window i covers the positions
``range(start[i], stop[i], step)`` of the input. Padding, ceil_mode and adaptive sizes only
decide what these numbers are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.geometry import extent

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Axis:
    """The windows along one axis of length `size`.

    Attributes
    ----------
    size : int
        Length of the input.
    start, stop : ndarray of int64, one entry a window
        Clipped to the input; never empty.
    step : int
        The dilation.
    divisor : ndarray of int64
        How many positions a window counts in a mean: inside the input, or with the padding.
    even : (int, int, int) or None
        (first start before clipping, distance of windows, positions a window), where all
        windows are alike; None for adaptive windows of differing sizes.
    """

    size: int
    start: Indices
    stop: Indices
    step: int
    divisor: Indices
    even: tuple[int, int, int] | None

    @property
    def outputs(self) -> int:
        """Number of windows."""
        return len(self.start)

    def window(self, i: int) -> slice:
        """Return window `i` as a slice of the axis."""
        return slice(int(self.start[i]), int(self.stop[i]), self.step)


Axes = tuple[Axis, Axis]


@lru_cache(maxsize=256)
def divisors(axis: Axis, dtype: str) -> NDArray[Any]:
    """Return how many positions each window counts, in the type that means are computed in."""
    return axis.divisor.astype(dtype)


def _frozen(values: Indices) -> Indices:
    values = np.ascontiguousarray(values, np.int64)
    values.flags.writeable = False
    return values


def even_axis(
    size: int,
    outputs: int,
    kernel: int,
    stride: int,
    dilation: int,
    padding: tuple[int, int],
    count_include_pad: bool,
) -> Axis:
    """Return windows of `kernel` positions each, `stride` apart."""
    before, after = padding
    start = np.arange(outputs, dtype=np.int64) * stride - before
    stop = start + extent(kernel, dilation)
    # The first tap of each window that is inside: start, start + dilation, ...
    inside = start + np.maximum(-(start // dilation), 0) * dilation
    first = np.where(start < 0, inside, start)
    last = np.minimum(stop, size)
    # PyTorch's rule: the padding counts, what ceil_mode adds beyond it does not.
    counted = np.minimum(stop, size + after) - start if count_include_pad else last - first
    even = (-before, stride, kernel)
    return Axis(size, _frozen(first), _frozen(last), dilation, _frozen(counted), even)


@lru_cache(maxsize=256)
def adaptive_axis(size: int, outputs: int) -> Axis:
    """Return `outputs` windows that cover `size` positions as evenly as whole numbers allow.

    Window i is ``range(floor(i * size / outputs), ceil((i + 1) * size / outputs))``.
    """
    i = np.arange(outputs, dtype=np.int64)
    start = i * size // outputs
    stop = -(-(i + 1) * size // outputs)
    even = None
    if size % outputs == 0:
        even = (0, size // outputs, size // outputs)
    return Axis(size, _frozen(start), _frozen(stop), 1, _frozen(stop - start), even)
