"""Load balance of a partition: the tiles of each worker, by the same rule as in the kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class AxisCut(NamedTuple):
    """An axis of `size` elements in `count` parts of whole tiles, `tile` elements each.

    The last tile of the axis may be smaller. It is added to another part if a part of its own would
    be smaller than a tile. `count` and `tile` may be arrays, for many partitions at once.
    """

    size: int
    tile: Any
    count: Any

    @property
    def tiles(self) -> Any:
        """The number of tiles."""
        return -(-self.size // self.tile)

    @property
    def spread(self) -> Any:
        """The number of tiles that are distributed over the parts."""
        whole = np.maximum(1, self.size // self.tile)
        return np.where(self.tiles < 2 * self.count, whole, self.tiles)

    def start(self, part: Any) -> Any:
        """Return the first tile of a part; after the last part, the number of tiles."""
        return np.where(part == self.count, self.tiles, part * self.spread // self.count)

    @property
    def longest(self) -> Any:
        """The elements of the longest part, or slightly more."""
        spread = self.spread
        most = -(-spread // self.count)
        last = self.size - (spread - most) * self.tile
        return np.where(spread == self.tiles, np.minimum(self.size, most * self.tile), last)

    def starts(self) -> list[int]:
        """Return the first element of each part, and the end."""
        first = (int(self.start(part)) * self.tile for part in range(self.count))
        return [*first, self.size]


# The busiest thread's share, relative to the mean, up to which there is no penalty.
BALANCED = 1.05


def imbalance_penalty(share: Any, num_threads: int) -> Any:
    """Return the factor by which imbalance raises a partition's cost in comparisons.

    It is steep, because imbalance is certain and the other costs are estimates.
    """
    return np.maximum(1.0, share * num_threads / BALANCED) ** 3


def busiest_share(outer: int, axes: tuple[AxisCut, AxisCut, AxisCut], workers: Any) -> Any:
    """Return the busiest worker's share of all tiles, 1 / workers at best.

    Tasks are parts of the three axes, the last axis varying fastest, `outer` times; each worker
    takes a contiguous range of them. Many partitions at once are arrays of one axis.
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
