"""How evenly a cut shares out work: which tiles each worker gets, by the rule of the kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class AxisCut(NamedTuple):
    """An axis of `size` elements in `count` parts of whole tiles, `tile` elements each.

    The last tile of the axis may be smaller. It comes on top of a part's tiles where a part of
    its own would be too small for a tile. Many cuts at once have arrays of counts, and of tiles.
    """

    size: int
    tile: Any
    count: Any

    @property
    def tiles(self) -> Any:
        """How many tiles there are."""
        return -(-self.size // self.tile)

    @property
    def spread(self) -> Any:
        """How many of them are spread over the parts."""
        whole = np.maximum(1, self.size // self.tile)
        return np.where(self.tiles < 2 * self.count, whole, self.tiles)

    def start(self, part: Any) -> Any:
        """Return the first tile of a part; behind the last one, how many tiles there are."""
        return np.where(part == self.count, self.tiles, part * self.spread // self.count)

    @property
    def longest(self) -> Any:
        """The elements of the longest part, or slightly more."""
        spread = self.spread
        most = -(-spread // self.count)
        last = self.size - (spread - most) * self.tile
        return np.where(spread == self.tiles, np.minimum(self.size, most * self.tile), last)

    def starts(self) -> list[int]:
        """Return the first element of each part, and the end, of one cut."""
        first = (int(self.start(part)) * self.tile for part in range(self.count))
        return [*first, self.size]


# How much more than the mean the busiest thread may get before another cut is preferred.
BALANCED = 1.05


def imbalance_penalty(share: Any, num_threads: int) -> Any:
    """Return what the cost of a cut is multiplied by for the comparison with others.

    Threads that wait are certain, what else counts is estimated.
    """
    return np.maximum(1.0, share * num_threads / BALANCED) ** 3


def busiest_share(outer: int, axes: tuple[AxisCut, AxisCut, AxisCut], workers: Any) -> Any:
    """Return the part of all tiles that the busiest worker gets, 1 / workers at best.

    Tasks are parts of the three axes, the last axis first, `outer` times over; each worker takes
    a contiguous range of them. Many cuts at once are arrays of one axis.
    """
    a, b, c = axes
    tasks = outer * a.count * b.count * c.count
    number = np.arange(np.max(workers) + 1)[:, np.newaxis]
    ends = np.minimum(number, workers) * tasks // workers
    rest, last = np.divmod(ends, c.count)
    rest, middle = np.divmod(rest, b.count)
    rest, first = np.divmod(rest, a.count)
    rows, columns = a.start(first), b.start(middle)
    inside = columns * c.tiles + (b.start(middle + 1) - columns) * c.start(last)
    inside = rows * b.tiles * c.tiles + (a.start(first + 1) - rows) * inside
    done = rest + inside / (a.tiles * b.tiles * c.tiles)
    return np.diff(done, axis=0).max(axis=0) / outer
