"""Overlap-save: cutting a convolution into tiles that transforms of a fixed size compute.

A transform of n points sees its tile as a ring, so only the results whose kernel does not reach
around the ring are correct: n - extent + 1 of them along an axis. Tiles therefore read more than
they write, and what they read overlaps.

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

#: The most that spectra of tiles take; the points of a transform come on top, 2 MiB at most.
SPECTRA_BYTES = 5 * 2**20
#: The most that the weights' spectra take, which a plan keeps.
WEIGHT_BYTES = 512 * 2**20
# Bytes of tables for each plane of a tile.
TABLE_BYTES = 80
# Tiles that make a matrix product worth having.
WORTHWHILE_TILES = 16


class Axis(NamedTuple):
    """One axis of a direction: how many tiles, what they read of both factors, and write."""

    tiles: int
    source: Reading
    filter: Reading
    result: Writing


def axis_of(problem: Conv2dProblem, direction: Direction, axis: int, n: int) -> Axis | None:
    """Return the tiles of `n` points along an axis, None if they cannot compute anything.

    For the weights' gradient the source is x, and the filter the gradient of the output.
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
        # The gradient of the output, spread by the stride, is convolved with the weights. Tiles
        # begin where an element lies on the first point of the ring.
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
    """Tiles of ``n_h`` by ``n_w`` points, and how much is taken at a time."""

    n_h: int
    n_w: int
    #: What tiles read and write.
    down: Axis
    across: Axis
    #: How many tiles there are, of all images, and how many tiles and groups are taken at a time.
    total: int
    tiles: int
    groups: int
    #: Of each group; fewer than there are for the weights' gradient alone.
    filters: int
    channels: int

    @property
    def frequencies(self) -> int:
        """Complex numbers of a spectrum."""
        return self.n_h * (self.n_w // 2 + 1)

    def tiles_at(self, some: Range) -> tuple[Integers, tuple[Integers, Integers]]:
        """Return the images of some tiles, and their numbers in them: down and across."""
        image, tile = np.divmod(np.arange(*some), self.down.tiles * self.across.tiles)
        return image, np.divmod(tile, self.across.tiles)


def cuts(problem: Conv2dProblem, direction: Direction) -> Iterator[Cut]:
    """Return the cuts whose spectra are not too large."""
    p, axes = problem, []
    for axis in (0, 1):
        sizes = [2**k for k in range(MOST_POINTS.bit_length())]
        found = [(n, some) for n in sizes if (some := axis_of(p, direction, axis, n))]
        # A single larger tile does what the smallest does that is enough.
        single = [n for n, some in found if some.tiles == 1][1:]
        axes.append([(n, some) for n, some in found if n not in single])
    for (n_h, down), (n_w, across) in product(*axes):
        total = max(1, p.N) * down.tiles * across.tiles
        whole = (n_h, n_w, down, across, total, total, p.groups, p.K_per_group, p.C_per_group)
        cut = _within(p, direction, Cut(*whole))
        if cut is not None:
            yield cut


def _within(problem: Conv2dProblem, direction: Direction, cut: Cut) -> Cut | None:
    """Return the cut that takes so little at a time that its spectra fit, None if none does."""
    size, summed = 2 * problem.itemsize * cut.frequencies, direction == "weight_grad"
    if not summed and size * problem.K * problem.C_per_group > WEIGHT_BYTES:
        return None
    if summed:  # a sum and a product stay while tiles pass
        while 2 * size * cut.filters * cut.channels > max(SPECTRA_BYTES // 2, 2 * size):
            larger = "filters" if cut.filters >= cut.channels else "channels"
            cut = cut._replace(**{larger: -(-getattr(cut, larger) // 2)})
    kept, each = spectra_bytes(problem, direction, cut._replace(groups=1))
    groups = SPECTRA_BYTES // (kept + each * min(cut.total, WORTHWHILE_TILES))
    cut = cut._replace(groups=min(cut.groups, max(1, groups)))
    tiles = (SPECTRA_BYTES - kept * cut.groups) // (each * cut.groups)
    return cut._replace(tiles=min(cut.total, tiles)) if tiles > 0 else None


def spectra_bytes(problem: Conv2dProblem, direction: Direction, cut: Cut) -> tuple[int, int]:
    """Return the bytes of spectra that stay while tiles pass, and those of one tile."""
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
    """Return the cut that takes least time, None if there is none.

    On one thread: results must not depend on their number.
    """
    every = cuts(problem, direction)
    return min(every, key=lambda cut: seconds(problem, direction, cut, 1), default=None)


def seconds(problem: Conv2dProblem, direction: Direction, cut: Cut, threads: int) -> float:
    """Return about how long a convolution takes, the weights' spectra included."""
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
    # Measured where vectors are multiplied once a cycle, in times that vary; register tiles took a
    # quarter longer than their estimates there.
    estimates = 0.5 if cpu.describe().instructions.a_cycle > 1 else 0.8
    return measured * estimates if direction == "forward" else measured
