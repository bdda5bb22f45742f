"""The windows of a pooling along one axis.

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

from fastconv.core.cached import cached_property
from fastconv.core.geometry import extent, tap_range

Indices = NDArray[np.int64]

# Windows that span more positions than this, and than four times the axis, are mostly outside it.
_SMALL_SPAN = 64


@dataclass(frozen=True, eq=False)
class Axis:
    """The windows along one axis of length `size`.

    Attributes
    ----------
    size : int
        Length of the input.
    start, stop : ndarray of int64, one entry a window
        Clipped to the input, the same number where nothing is left.
    step : int
        The dilation.
    divisor : ndarray of int64
        What a mean divides by along this axis: the positions that a window counts, those inside
        the input or those in the padding too.
    even : (int, int, int) or None
        (first start before clipping, stride, taps of a window), where all windows are alike. None
        where only `start` and `stop` tell what they are: for adaptive windows of differing sizes,
        windows that are mostly outside the input, and where one is wholly.
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

    @cached_property
    def ranges(self) -> Indices:
        """Start, stop and step of each window, side by side."""
        return _frozen(np.stack([self.start, self.stop, np.full_like(self.start, self.step)], 1))

    @cached_property
    def tap_table(self) -> Indices:
        """For each tap of even windows, where it is inside: first window, windows, position."""
        assert self.even is not None
        start, stride, taps = self.even
        offsets = [start + tap * self.step for tap in range(taps)]
        spans = [tap_range(self.size, self.outputs, stride, offset) for offset in offsets]
        return _frozen(
            [
                (first, last - first, first * stride + offset)
                for (first, last), offset in zip(spans, offsets, strict=True)
            ]
        )

    @cached_property
    def empty(self) -> NDArray[np.bool_]:
        """Whether each window is wholly outside the input."""
        return self.start >= self.stop

    @cached_property
    def some_empty(self) -> bool:
        """Whether any window is wholly outside the input."""
        return bool(self.empty.any())

    def window(self, i: int) -> slice:
        """Return window `i` as a slice of the axis."""
        return slice(int(self.start[i]), int(self.stop[i]), self.step)


Axes = tuple[Axis, Axis]


@lru_cache(maxsize=256)
def divisors(axis: Axis, dtype: str) -> NDArray[Any]:
    """Return how many positions each window counts, in the type that means are computed in."""
    return axis.divisor.astype(dtype)


def _frozen(values: Any) -> Indices:
    array = np.ascontiguousarray(values, np.int64)
    array.flags.writeable = False
    return array


def even_axis(
    size: int,
    outputs: int,
    kernel: int,
    stride: int,
    dilation: int,
    padding: tuple[int, int],
    count_include_pad: bool,
) -> Axis:
    """Return windows of `kernel` taps each, `stride` apart."""
    before, after = padding
    span = extent(kernel, dilation)
    start = np.arange(outputs, dtype=np.int64) * stride - before
    stop = start + span
    # The first tap of each window that is inside: start, start + dilation, ...
    first = np.minimum(start + np.maximum(-(start // dilation), 0) * dilation, size)
    last = np.maximum(np.minimum(stop, size), first)
    # PyTorch's rule: the padding counts, what ceil_mode adds beyond it does not.
    counted = np.minimum(stop, size + after) - start if count_include_pad else last - first
    taps = -(-counted // dilation)
    even = None
    if span <= max(4 * size, _SMALL_SPAN) and (first < last).all():
        even = (-before, stride, kernel)
    return Axis(size, _frozen(first), _frozen(last), dilation, _frozen(taps), even)


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
