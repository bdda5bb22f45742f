"""Partitioning a convolution into blocks of bounded size, and into parts for parallel threads.

Partitions depend on the problem alone, never on the thread count: results are bitwise identical
for any thread count.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from fastconv.core.conv_problem import Conv2dProblem

# Enough parts to keep the cores of a common processor busy, few enough to cost little.
PARTS = 16
# The fewest pixels for an efficient matrix product.
_SMALLEST_BLOCK = 256
# The fewest elements of a column matrix for which another thread pays off.
WORTH_A_TASK = 2**16

Range = tuple[int, int]


class Block(NamedTuple):
    """A rectangle of output pixels: half-open ranges of images, rows and columns."""

    images: Range
    rows: Range
    columns: Range

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, rows, columns)."""
        (n0, n1), (i0, i1), (j0, j1) = self
        return n1 - n0, i1 - i0, j1 - j0

    @property
    def pixels(self) -> int:
        """Output pixels in the block."""
        images, rows, columns = self.shape
        return images * rows * columns


class Part(NamedTuple):
    """A range of groups and a range of channels within each of them.

    A part has one group or all channels of its groups, so its channels are consecutive.
    """

    groups: Range
    channels: Range


def split(total: int, parts: int) -> list[Range]:
    """Cut ``range(total)`` into `parts` nearly equal ranges, fewer if there is less to cut.

    >>> split(7, 3)
    [(0, 2), (2, 4), (4, 7)]
    """
    parts = max(1, min(parts, total))
    return [(part * total // parts, (part + 1) * total // parts) for part in range(parts)]


def split_below(total: int, largest: int) -> list[Range]:
    """Cut ``range(total)`` into nearly equal ranges of at most `largest`."""
    return split(total, -(-total // largest))


def parts_of(groups: int, channels: int, parts: int, smallest: int) -> list[Part]:
    """Cut `groups` groups of `channels` channels into at most `parts` parts.

    Groups are kept whole if there are several; else a part has at least `smallest` channels.
    """
    if groups > 1:
        return [Part(some, (0, channels)) for some in split(groups, parts)]
    return [Part((0, 1), some) for some in split(channels, min(parts, channels // smallest))]


def blocks_below(problem: Conv2dProblem, images: Range, largest: int) -> Iterator[Block]:
    """Cut the output pixels of `images` into blocks of at most `largest` pixels.

    The batch is cut first, then the rows, then the columns.
    """
    first, last = images
    many_images = split_below(last - first, max(1, largest // problem.P))
    many_rows = split_below(problem.OH, max(1, largest // problem.OW))
    many_columns = split_below(problem.OW, largest)
    for (n0, n1), rows, columns in product(many_images, many_rows, many_columns):
        yield Block((first + n0, first + n1), rows, columns)


def worthwhile_pixels(problem: Conv2dProblem) -> int:
    """Return the block size that gives each of `PARTS` threads enough work."""
    worth = WORTH_A_TASK // (problem.C * problem.R * problem.S)
    return max(_SMALLEST_BLOCK, worth, -(-problem.N * problem.P // PARTS))
