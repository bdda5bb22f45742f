"""Overlap-save: a convolution as tiles that FFTs of a fixed size compute.

FFTs of n points compute a circular convolution, so only the results whose kernel does not wrap
around are correct: n - extent + 1 along an axis. So tiles read more than they write, and their
inputs overlap.

Source: A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", section 8.7 (3rd ed.).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

from fastconv.convolution.blocking.partition import Range
from fastconv.convolution.blocking.spectra import (
    MOST_POINTS,
    Integers,
    Reading,
    Writing,
    transform_of,
)
from fastconv.core.conv_problem import Conv2dProblem, Direction
from fastconv.core.geometry import extent
from fastconv.runtime import cpu

#: The most bytes of spectra of tiles; the points of a transform need at most another 2 MiB.
SPECTRA_BYTES = 5 * 2**20
#: The most bytes of the weights' spectra, which a plan keeps.
WEIGHT_BYTES = 512 * 2**20
# Bytes of tables per plane of a tile.
TABLE_BYTES = 80
# Tiles for an efficient matrix product.
WORTHWHILE_TILES = 16


class Axis(NamedTuple):
    """One axis of a direction: the number of tiles, and what they read and write."""

    tiles: int
    source: Reading
    filter: Reading
    result: Writing


def axis_of(problem: Conv2dProblem, direction: Direction, axis: int, n: int) -> Axis | None:
    """Return the tiles of `n` points along an axis, None if `n` is too small.

    For the weight gradient the source is x, and the filter is the output gradient.
    """
    p = problem
    kernel, size, out = (p.R, p.S)[axis], (p.H, p.W)[axis], (p.OH, p.OW)[axis]
    pad, dilation = p.padding[axis][0], p.dilation[axis] if kernel > 1 else 1
    stride = p.stride[axis] if out > 1 else 1
    reach = extent(kernel, dilation) - 1
    if n <= reach:
        return None
    weights = Reading(0, 0, kernel, dilation)
    if direction == "input_grad":
        # The output gradient, dilated by the stride, is convolved with the weights. Tiles begin
        # where an element falls on the first point.
        shift = (pad - reach) % stride
        count = min(stride * -(-size // stride), (n - reach - shift) // stride * stride)
        if count < 1:
            return None
        first = (pad - reach - shift) // stride
        read = (count + reach + shift - 1) // stride + 1
        source = Reading(first, count // stride, read, stride)
        return Axis(-(-size // count), source, weights, Writing(count, reach + shift, 1))
    count = min(out, (n - reach - 1) // stride + 1)
    tiles = -(-out // count)
    source = Reading(-pad, count * stride, (count - 1) * stride + reach + 1, 1)
    if direction == "forward":
        return Axis(tiles, source, weights, Writing(count, 0, stride))
    return Axis(tiles, source, Reading(0, count, count, stride), Writing(kernel, 0, dilation))


class Cut(NamedTuple):
    """Tiles of ``n_h`` by ``n_w`` points, and how much is computed at a time."""

    n_h: int
    n_w: int
    #: What tiles read and write.
    down: Axis
    across: Axis
    #: The number of tiles of all images, and of tiles and groups at a time.
    total: int
    tiles: int
    groups: int
    #: Channels of a group at a time; only for the weight gradient fewer than all.
    filters: int
    channels: int

    @property
    def frequencies(self) -> int:
        """Complex numbers of a spectrum."""
        return self.n_h * (self.n_w // 2 + 1)

    def tiles_at(self, some: Range) -> tuple[Integers, tuple[Integers, Integers]]:
        """Return the image of each tile, and its row and column of tiles there."""
        image, tile = np.divmod(np.arange(*some), self.down.tiles * self.across.tiles)
        return image, np.divmod(tile, self.across.tiles)


def cuts(problem: Conv2dProblem, direction: Direction) -> Iterator[Cut]:
    """Yield the partitions whose spectra are not too large."""
    p, axes = problem, []
    for axis in (0, 1):
        sizes = [2**k for k in range(MOST_POINTS.bit_length())]
        found = [(n, some) for n in sizes if (some := axis_of(p, direction, axis, n))]
        # If one tile covers the axis, a larger one is useless.
        single = [n for n, some in found if some.tiles == 1][1:]
        axes.append([(n, some) for n, some in found if n not in single])
    for (n_h, down), (n_w, across) in product(*axes):
        total = max(1, p.N) * down.tiles * across.tiles
        whole = (n_h, n_w, down, across, total, total, p.groups, p.K_per_group, p.C_per_group)
        cut = _within(p, direction, Cut(*whole))
        if cut is not None:
            yield cut


def _within(problem: Conv2dProblem, direction: Direction, cut: Cut) -> Cut | None:
    """Return the partition, reduced until its spectra fit, None if that is impossible."""
    size, summed = 2 * problem.itemsize * cut.frequencies, direction == "weight_grad"
    if not summed and size * problem.K * problem.C_per_group > WEIGHT_BYTES:
        return None
    if summed:  # a sum and a product are kept for all tiles
        while 2 * size * cut.filters * cut.channels > max(SPECTRA_BYTES // 2, 2 * size):
            larger = "filters" if cut.filters >= cut.channels else "channels"
            cut = cut._replace(**{larger: -(-getattr(cut, larger) // 2)})
    kept, each = spectra_bytes(problem, direction, cut._replace(groups=1))
    groups = SPECTRA_BYTES // (kept + each * min(cut.total, WORTHWHILE_TILES))
    cut = cut._replace(groups=min(cut.groups, max(1, groups)))
    tiles = (SPECTRA_BYTES - kept * cut.groups) // (each * cut.groups)
    return cut._replace(tiles=min(cut.total, tiles)) if tiles > 0 else None


def spectra_bytes(problem: Conv2dProblem, direction: Direction, cut: Cut) -> tuple[int, int]:
    """Return the bytes of spectra that are kept for all tiles, and those of one tile."""
    size = 2 * problem.itemsize * cut.frequencies
    kept = 2 * size * cut.groups * cut.filters * cut.channels if direction == "weight_grad" else 0
    return kept, cut.groups * (cut.filters + cut.channels) * (size + TABLE_BYTES)


def workspace_bytes(problem: Conv2dProblem, direction: Direction, cut: Cut) -> int:
    """Return the bytes of all spectra, and of the points of one thread."""
    kept, each = spectra_bytes(problem, direction, cut)
    spread = max(cut.across.source.spread, cut.across.filter.spread)
    points = transform_of(problem.dtype, cut.n_h, cut.n_w).points(spread)
    return kept + cut.tiles * each + points * problem.itemsize


@lru_cache(maxsize=4096)
def best_cut(problem: Conv2dProblem, direction: Direction) -> Cut | None:
    """Return the partition with the least estimated time on one thread, None if there is none.

    Results must not depend on the thread count.
    """
    every = cuts(problem, direction)
    return min(every, key=lambda cut: seconds(problem, direction, cut, 1), default=None)


def seconds(problem: Conv2dProblem, direction: Direction, cut: Cut, threads: int) -> float:
    """Return the estimated seconds, the weights' spectra included."""
    p, filters = problem, problem.K * problem.C_per_group
    filter_parts = -(-p.K_per_group // cut.filters)
    channel_parts = -(-p.C_per_group // cut.channels)
    planes = cut.total * (p.C * filter_parts + p.K * channel_parts)
    transforming = (planes + 0.5 * filters) * cut.n_h * cut.n_w * 1e-9
    products = cut.total * cut.frequencies * filters
    passes = -(-cut.total // cut.tiles)
    if p.C_per_group == 1:
        multiplying = products * 3e-9
    else:
        calls = passes * p.groups * filter_parts * channel_parts * cut.frequencies
        multiplying = products * 8 / 55e9 + calls * 0.14e-6
    reading = passes * cut.frequencies * filters * 2 * p.itemsize / 20e9
    if p.dtype == "float64":
        transforming, multiplying = 2 * transforming, 2 * multiplying
    batches = passes * -(-p.groups // cut.groups) * filter_parts * channel_parts
    measured = (1 + batches) * 200e-6 + (transforming + multiplying + reading) / threads
    # Measured on a processor with one vector multiplication per cycle, where register tiles took a
    # quarter longer than their estimates.
    estimates = 0.5 if cpu.describe().instructions.a_cycle > 1 else 0.8
    return measured * estimates if direction == "forward" else measured
