"""The cost model of register tiles, and the search for tile, bands and parts.

Unlike the blocks of im2col these partitions may depend on the thread count: every output element is
summed by one tile, over all its taps in a fixed order.

One search compares many tiles with many partitions each, in a few array operations. Its result is
cached: refusals, estimates, workspace and launches use the same value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastconv.convolution.blocking.balance import AxisCut, busiest_share, imbalance_penalty
from fastconv.convolution.blocking.tile_shapes import Over, shapes
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.geometry import extent
from fastconv.kernels.conv_microkernels import TileShape
from fastconv.runtime import cpu
from fastconv.runtime.threads import get_num_threads, useful_threads

# The target size of an input band, so that it stays in L2.
BAND_BYTES = 512 * 2**10
# A penalty of more cycles than any convolution takes.
TOO_LARGE = 1e20
# The limit for the band of a thread.
MOST_BAND_BYTES = 4 * 2**20
# How many of the fastest tiles are searched with all costs, for few threads and for many, which
# only some tiles give equal work.
CONSIDERED, CONSIDERED_FOR_MANY = 5, 9
# Up to so many threads are few.
FEW_THREADS = 4
# How many of the best partitions are compared by the exact share of the busiest thread.
COMPARED = 32
# Taps of a partial sum: the error of such sums is at most that of PyTorch.
RUN = 64
# L2 bandwidth while the core computes.
L2_BYTES_PER_CYCLE = 28
# The clock rate of estimates, which only have to rank.
CYCLES_PER_SECOND = 4e9
# Pixels of a memory page.
PAGE_PIXELS = 1024


class Cut(NamedTuple):
    """The numbers of row bands, column bands and parts of the output channels.

    Many partitions at once are a `Cut` of arrays.
    """

    rows: Any
    columns: Any
    parts: Any


class Blocking(NamedTuple):
    """The result of a search: the partition for a thread count, and its cost.

    Attributes
    ----------
    cost, work : float
        Cycles of the busiest thread, and of all threads together.
    shape : TileShape
    cut : Cut
    threads : int
    band_bytes : int
        Scratch memory of a thread: one band of the input, 0 if the input is read in place.
    """

    cost: float
    work: float
    shape: TileShape
    cut: Cut
    threads: int
    band_bytes: int

    @property
    def seconds(self) -> float:
        """The estimated time."""
        return 8e-6 + self.cost / CYCLES_PER_SECOND


class Sizes(NamedTuple):
    """Sizes of tiles that are vectorized over the same axis: numbers, or arrays to compare many."""

    over: Over
    lanes: int
    filters: Any
    rows: Any
    columns: Any

    def at(self, index: Any) -> Sizes:
        """Return the sizes of the indexed tiles."""
        chosen = (sizes[index] for sizes in self[2:])
        return Sizes(self.over, self.lanes, *chosen)


@lru_cache(maxsize=256)
def sizes_of(tiles: tuple[TileShape, ...]) -> Sizes:
    """Return the sizes of several tiles as arrays, of one tile as numbers."""
    if len(tiles) == 1:
        (t,) = tiles
        return Sizes(t.over, t.lanes, t.filters, t.rows, t.columns)
    columns = np.array([(t.filters, t.rows, t.columns) for t in tiles]).T
    return Sizes(tiles[0].over, tiles[0].lanes, *columns)


def as_rows(problem: Conv2dProblem) -> Conv2dProblem:
    """Return an equivalent problem on flattened images, for a 1x1 kernel at stride 1 unpadded."""
    p = problem
    plain = p.R == p.S == 1 and p.stride == (1, 1) and p.padding == ((0, 0), (0, 0))
    if not plain or p.H == 1:
        return p
    sizes = (p.N, p.C, 1, p.H * p.W, p.K, 1, 1)
    return Conv2dProblem(*sizes, p.stride, p.padding, p.dilation, p.groups, p.dtype)


# Cycles ----------------------------------------------------------------------------------


def cycles(problem: Conv2dProblem, tile: Sizes, width: Any = None, output_width: Any = None) -> Any:
    """Return the estimated cycles of one core with a tile, without memory traffic.

    `tile` may hold arrays of sizes. `width` and `output_width`, if given, replace those of the
    problem and may be arrays too.
    """
    p, here = problem, cpu.describe()
    loads: Any
    width = p.W if width is None else width
    output_width = p.OW if output_width is None else output_width
    a_cycle = here.instructions.a_cycle
    vectors = tile.filters * tile.rows * tile.columns / tile.lanes
    filter_tiles, row_tiles = -(-p.K_per_group // tile.filters), -(-p.OH // tile.rows)
    tiles = p.N * p.groups * filter_tiles * row_tiles * -(-output_width // tile.columns)
    # Two loads per cycle; an addition has a latency of up to four cycles; loop overhead.
    if tile.over == "channels":
        loads = tile.rows * tile.columns + tile.filters / tile.lanes
        # With one vector of channels each product loads its own pixel.
        loads = np.where(tile.filters == tile.lanes, loads * 1.2, loads)
        storing = 60 + 8.0 * vectors / a_cycle
        output_bytes = p.N * p.K * p.OH * output_width * p.itemsize
        # Partial cache lines that are not in L2.
        exceeds_l2 = output_bytes > 2 * here.l2_bytes
        storing = storing + exceeds_l2 * (5.0 * tile.filters * tile.rows)
    else:
        # Vectors of pixels cross cache lines, which doubles the loads.
        loads = tile.filters + 4 / a_cycle * tile.rows * tile.columns / tile.lanes
        storing = 40 + 4.0 * vectors / a_cycle
    # What does not fit L1 comes from L2: weights and new lines of input.
    line = 64 // p.itemsize
    wide = np.minimum(line + (tile.columns - 1) * p.stride[1], line * tile.columns) / (p.R * p.S)
    moved = tile.filters + wide * (tile.rows - 1 + p.R)
    fits_l1 = p.taps * moved * p.itemsize < here.l1_bytes
    moving = np.where(fits_l1, 0, moved * p.itemsize / L2_BYTES_PER_CYCLE)
    slowest = np.maximum(np.maximum(vectors / a_cycle, loads / 2), np.maximum(moving, 4))
    one_row = tile.rows == 1
    tap = slowest * np.where(one_row, 1, 1.05) + 0.5
    if tile.over == "width" and p.R * p.S == 1:
        # Each tap reads a different page.
        pages = 1 + 0.3 * (p.H * width >= PAGE_PIXELS)
        tap = tap * np.where(fits_l1, 1, pages)
    # Kernel rows in the padding are skipped.
    inside = sum(max(1, stop - start) for start, stop in map(p.rows_of_tap, range(p.R)))
    used = np.where(one_row, inside / (p.R * p.OH), 1.0)
    return tiles * (p.taps * tap * used + storing)


# Searching -------------------------------------------------------------------------------

Found = TypeVar("Found", bound="Any")


def for_useful_threads(search: Callable[[int], Found]) -> Found:
    """Return the result of a search for as many of the available threads as are useful."""
    most = get_num_threads()
    found = search(most)
    useful = useful_threads(found.work / CYCLES_PER_SECOND)
    return found if useful == most else search(useful)


@lru_cache(maxsize=4096)
def best_blocking(
    problem: Conv2dProblem, over: Over, num_threads: int, pooled: bool = False
) -> Blocking:
    """Return the tile and the partition with the least cost of the busiest thread."""
    tiles, alone = ranked_tiles(problem, over, pooled)
    most = CONSIDERED if num_threads <= FEW_THREADS else CONSIDERED_FOR_MANY
    found = _cheapest(problem, tiles[:most], alone[:most], num_threads)
    return found if found.cost < TOO_LARGE else _cheapest(problem, tiles, alone, num_threads)


@lru_cache(maxsize=1024)
def ranked_tiles(
    problem: Conv2dProblem, over: Over, pooled: bool = False
) -> tuple[tuple[TileShape, ...], Any]:
    """Return the tiles that fit a problem, the fastest first, and the cycles of one core."""
    tiles = tuple(shapes(problem, over, pooled))
    alone = np.reshape(cycles(problem, sizes_of(tiles)), -1)
    order = np.argsort(alone, kind="stable")
    return tuple(tiles[at] for at in order), alone[order]


@lru_cache(maxsize=4096)
def blocking_with(problem: Conv2dProblem, shape: TileShape, num_threads: int) -> Blocking:
    """Return the best partition for a tile."""
    alone = np.reshape(cycles(problem, sizes_of((shape,))), -1)
    return _cheapest(problem, (shape,), alone, num_threads)


def _cheapest(
    problem: Conv2dProblem, tiles: tuple[TileShape, ...], alone: Any, num_threads: int
) -> Blocking:
    """Return the best partition with any of the tiles; `alone` are the tiles' cycles."""
    p = problem
    grids = [
        _grid(
            max(1, p.OH // tile.rows),
            max(1, p.OW // tile.columns),
            -(-p.K_per_group // tile.filters),
            num_threads,
        )
        for tile in tiles
    ]
    cuts = Cut(*(np.concatenate(counts) for counts in zip(*grids, strict=True)))
    which = np.repeat(np.arange(len(tiles)), [len(grid.rows) for grid in grids])
    sizes = sizes_of(tiles)
    band = Band(p, sizes.at(which) if len(tiles) > 1 else sizes, cuts)
    work, limits = _costs(p, band, num_threads, alone[which])
    # The exact share of the busiest thread is computed only for the partitions that are best by an
    # upper bound.
    most = _most_share(p, band, num_threads)
    seems = np.argsort(work * most * imbalance_penalty(most, num_threads) + limits)[:COMPARED]
    sizes, chosen = band.tile.at(seems) if len(tiles) > 1 else sizes, Cut(*(c[seems] for c in cuts))
    axes = axes_of(p, sizes, chosen)
    outer = max(1, p.N) * p.groups
    tasks = outer * chosen.rows * chosen.columns * chosen.parts
    share = busiest_share(outer, axes, np.minimum(num_threads, tasks))
    costs = work[seems] * share + limits[seems]
    at = int(np.argmin(costs * imbalance_penalty(share, num_threads)))
    best = seems[at]
    cut = Cut(*(int(counts[best]) for counts in cuts))
    elements = int(np.broadcast_to(band.elements, work.shape)[best])
    numbers = float(costs[at]), float(work[best])
    return Blocking(*numbers, tiles[which[best]], cut, num_threads, elements * p.itemsize)


def axes_of(problem: Conv2dProblem, tile: Sizes, cut: Cut) -> tuple[AxisCut, AxisCut, AxisCut]:
    """Return the bands of rows and of columns, and the parts of the output channels."""
    p = problem
    return (
        AxisCut(p.OH, tile.rows, cut.rows),
        AxisCut(p.OW, tile.columns, cut.columns),
        AxisCut(-(-p.K_per_group // tile.filters), 1, cut.parts),
    )


class Band:
    """The padded input band of a task; with many partitions, sizes are arrays."""

    def __init__(self, problem: Conv2dProblem, tile: Sizes, cut: Cut) -> None:
        p = problem
        self.tile, self.cut = tile, cut
        over_pixels = tile.over == "width"
        padded = any(any(sides) for sides in p.padding)
        strided = over_pixels and p.stride[1] > 1
        self.copied = np.logical_or(padded or strided, over_pixels and tile.columns > p.OW)
        # Columns that no tap reads are skipped.
        self.step = p.stride[1] if over_pixels else 1
        self.phases = self.step if p.S > 1 else 1
        rows, columns = (axis.longest for axis in axes_of(p, tile, cut)[:2])
        width = (columns - 1) * p.stride[1] + extent(p.S, p.dilation[1])
        self.phase_width = -(-width // self.step)
        # All rows from the first to the last, or a set of rows for each kernel row.
        span = extent(p.R, p.dilation[0])
        height = (rows - 1) * p.stride[0] + span
        self.apart = np.logical_and(self.copied, p.R * rows < height)
        self.rows = np.minimum(p.R * rows, height)
        self.row = self.phases * self.phase_width
        self.plane = self.rows * self.row
        # Tiles may read beyond the last row, and copies write whole vectors.
        self.tail = tile.columns if over_pixels else 0
        total = p.C_per_group * self.plane + self.tail + tile.lanes
        self.elements = -(-total // 16) * 16 * self.copied


@lru_cache(maxsize=256)
def _grid(rows: int, columns: int, filter_tiles: int, num_threads: int) -> Cut:
    """Return the partitions of that many tiles that are considered, few bands first."""
    counts = (_counts(most, num_threads) for most in (rows, columns, filter_tiles))
    axes = np.meshgrid(*counts, indexing="ij")
    useful = (axes[1] == 1) | (axes[0] == rows)
    return Cut(*(axis[useful] for axis in axes))


def _counts(most: int, num_threads: int) -> list[int]:
    """Return the numbers of parts of `most` units that are considered."""
    worth = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128}
    if num_threads > FEW_THREADS:  # whose share of few large parts may be uneven
        worth |= {*range(1, 24), 28, 40, 56, 96, num_threads, 2 * num_threads}
    return sorted({n for n in worth if n < most} | {most})


def _costs(problem: Conv2dProblem, band: Band, num_threads: int, alone: Any) -> tuple[Any, Any]:
    """Return the estimated total cycles of all threads for many partitions, and a penalty.

    The tiles alone take `alone`. The penalty, per thread, is for bands that are too large.
    """
    p, cuts = problem, band.cut
    blocks = p.N * p.groups * cuts.rows * cuts.columns
    tasks = blocks * cuts.parts
    # From memory, or from a cache.
    pace = 5 if p.input_bytes > cpu.describe().l3_bytes // 2 else 16
    size = band.elements * p.itemsize
    copying = blocks * np.minimum(cuts.parts, num_threads) * (50 + size / pace)
    # Weights that do not fit L2 are loaded again for every band.
    reading = p.N * cuts.rows * cuts.columns * float(p.weight_bytes) / 24
    starting = 60.0 * tasks
    too_large = 1e2 * np.maximum(0, size - BAND_BYTES)
    too_large = too_large + TOO_LARGE * np.maximum(0, size - MOST_BAND_BYTES)
    return alone + copying + reading + starting, too_large + 0 * tasks


def _most_share(problem: Conv2dProblem, band: Band, num_threads: int) -> Any:
    """Return an upper bound of the busiest thread's share of the work for many partitions."""
    p, tile, cuts = problem, band.tile, band.cut
    tasks = max(1, p.N) * p.groups * cuts.rows * cuts.columns * cuts.parts
    share = -(-tasks // num_threads) / tasks
    # Parts and bands differ in size by at most one tile.
    for axis in axes_of(p, tile, cuts):
        share = share * (-(-axis.tiles // axis.count) * axis.count / axis.tiles)
    return share
