"""Cutting a convolution into register tiles, bands of output, and parts of the filters.

Unlike the blocks of im2col these cuts may depend on the number of threads: every output element
is summed by one tile, over all its taps in their order, wherever the tile lies.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution.blocking.tile_shapes import Lanes, shapes
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.geometry import extent
from fastconv.kernels.conv_loops import LAYOUT
from fastconv.kernels.conv_microkernels import TileShape
from fastconv.runtime import cpu

# What a band of the input may take: it is to stay in the second-level cache.
BAND_BYTES = 512 * 2**10
# More cycles than any convolution takes.
TOO_LARGE = 1e20
# No thread borrows more than this, whatever the layer.
MOST_BAND_BYTES = 4 * 2**20
# How many tiles with few cycles are considered with all that comes on top.
CONSIDERED = 5
# Taps of a partial sum: the error of sums this long is that of PyTorch's, or less.
RUN = 64
# What the second-level cache delivers while the core computes.
L2_BYTES_PER_CYCLE = 28
# What estimates are made in; they only have to rank.
CYCLES_PER_SECOND = 4e9
# So many pixels fill a page of memory.
PAGE_PIXELS = 1024
# Tiles of pixels over which all filters pass before the next pixels are taken.
BLOCK_TILES = 16


class Tiling(NamedTuple):
    """How the work is cut, as the kernel reads it.

    Attributes
    ----------
    record : ndarray of one record
        The numbers `fastconv.kernels.conv_loops.LAYOUT`.
    offsets : ndarray of int64, (taps,)
        Where each tap (r, c, s) reads, in elements from where its tile begins.
    cuts : ndarray of int64
        Where bands of rows, bands of columns, and parts of the filters begin and end.
    workers : int
        How many threads have work.
    step : int
        Distance of the columns that lie side by side in a band.
    band_bytes : int
        Buffer of one worker: one band of the input, 0 where the input is read where it lies.
    """

    record: NDArray[Any]
    offsets: NDArray[np.int64]
    cuts: NDArray[np.int64]
    workers: int
    step: int
    band_bytes: int


class Target(NamedTuple):
    """Where the output goes: elements from a row, a pixel and a channel to the next."""

    row: int
    step: int
    plane: int


def as_rows(problem: Conv2dProblem) -> Conv2dProblem:
    """Return a problem of the same arrays that suits tiles better.

    A 1x1 kernel at stride 1 without margins does not see where a row ends: the image is one row.
    """
    p = problem
    plain = p.R == p.S == 1 and p.stride == (1, 1) and p.padding == ((0, 0), (0, 0))
    if not plain or p.H == 1:
        return p
    sizes = (p.N, p.C, 1, p.H * p.W, p.K, 1, 1)
    return Conv2dProblem(*sizes, p.stride, p.padding, p.dilation, p.groups, p.dtype)


def cycles(problem: Conv2dProblem, shape: TileShape) -> float:
    """Return about how many cycles one core computes with these tiles, memory apart."""
    return float(cycles_of_widths(problem, shape, problem.W, problem.OW))


def cycles_of_widths(problem: Conv2dProblem, shape: TileShape, W: Any, OW: Any) -> Any:
    """Return the same of problems that differ in their widths: numbers or arrays."""
    p, vectors = problem, shape.filters * shape.rows * shape.columns / shape.lanes
    tiles = (
        p.N
        * p.groups
        * -(-p.K_per_group // shape.filters)
        * -(-p.OH // shape.rows)
        * -(-OW // shape.columns)
    )
    # Two loads a cycle; a sum takes up to four cycles; the loop itself.
    a_cycle = cpu.describe().instructions.a_cycle
    if shape.lanes_over == "filters":
        loads = shape.rows * shape.columns + shape.filters / shape.lanes
        if shape.filters == shape.lanes:  # each product loads its pixel anew
            loads *= 1.2
        storing = 60 + 8.0 * vectors / a_cycle
        output_bytes = p.N * p.K * p.OH * OW * p.itemsize
        # Parts of lines, far away.
        far = output_bytes > 2 * cpu.describe().l2_bytes
        storing = storing + far * (5.0 * shape.filters * shape.rows)
    else:
        # Vectors of pixels lie across two cache lines, and come in halves as products do.
        loads = shape.filters + 4 / a_cycle * shape.rows * shape.columns / shape.lanes
        storing = 40 + 4.0 * vectors / a_cycle
    # More than the first-level cache holds comes from the second, weights and new lines of input.
    line = 64 // p.itemsize
    wide = min(line + (shape.columns - 1) * p.stride[1], line * shape.columns) / (p.R * p.S)
    moved = shape.filters + wide * (shape.rows - 1 + p.R)
    near = p.taps * moved * p.itemsize < cpu.describe().l1_bytes
    moving = 0 if near else moved * p.itemsize / L2_BYTES_PER_CYCLE
    tap = max(vectors / a_cycle, loads / 2, moving, 4) * (1 if shape.rows == 1 else 1.05) + 0.5
    if shape.lanes_over == "pixels" and not near and p.R * p.S == 1:
        tap = tap * (1 + 0.3 * (p.H * W >= PAGE_PIXELS))  # each tap reads another page
    used = 1.0
    if shape.rows == 1:  # rows of the kernel that lie in the margin are left out
        used = sum(max(1, stop - start) for start, stop in map(p.rows_of_tap, range(p.R)))
        used /= p.R * p.OH
    return tiles * (p.taps * tap * used + storing)


@lru_cache(maxsize=4096)
def tile_shape(problem: Conv2dProblem, over: Lanes, count: int, pooled: bool = False) -> TileShape:
    """Return the tile that is done first, all `count` threads considered."""
    every = sorted(shapes(problem, over, pooled), key=partial(cycles, problem))
    best = min(every[:CONSIDERED], key=lambda shape: _best_cut(problem, shape, count)[0])
    if _best_cut(problem, best, count)[0] < TOO_LARGE:
        return best
    return min(every, key=lambda shape: _best_cut(problem, shape, count)[0])


def seconds(problem: Conv2dProblem, over: Lanes, num_threads: int) -> float:
    """Return about how long a convolution takes."""
    shape = tile_shape(problem, over, num_threads)
    return 8e-6 + _best_cut(problem, shape, num_threads)[0] / CYCLES_PER_SECOND


@lru_cache(maxsize=128)
def tiling_of(
    problem: Conv2dProblem, shape: TileShape, num_threads: int, target: Target | None = None
) -> Tiling:
    """Return the cut that keeps `num_threads` busy and moves least memory.

    Without a `target` the output is an array of its own.
    """
    p = problem
    cut = _best_cut(problem, shape, num_threads)[1]
    band = _Band(p, shape, cut)
    sets, set_step, row_step = (p.R, p.dilation[0], p.stride[0]) if band.apart else (1, 0, 1)
    filter_tiles = -(-p.K_per_group // shape.filters)
    tasks = p.N * p.groups * cut.rows * cut.columns * cut.parts
    workers = max(1, min(num_threads, tasks))
    row, plane = (band.row, band.plane) if band.copied else (p.W, p.H * p.W)
    block_rows, block_columns = _block(p, shape, cut, row)
    target = target or Target(p.OW, 1, p.P)
    values: dict[str, Any] = {
        **{name: getattr(p, name) for name in ("itemsize", "groups", "C_per_group", "K_per_group")},
        **{name: getattr(p, name) for name in ("R", "H", "W")},
        "row_taps": p.C_per_group * p.S,
        "dilation_h": p.dilation[0],
        "x_row": p.stride[0] // row_step * row if band.copied else p.stride[0] * row,
        "x_step": p.stride[1] // band.step if band.copied else p.stride[1],
        "out_row": target.row,
        "out_step": target.step,
        "out_plane": target.plane,
        "run": -(-p.taps // -(-p.taps // RUN)),
        "stride_h": p.stride[0],
        "stride_w": p.stride[1],
        "pad_top": p.padding[0][0],
        "pad_left": p.padding[1][0],
        "span_h": 1 if band.apart else extent(p.R, p.dilation[0]),
        "tile_filters": shape.filters,
        "tile_rows": shape.rows,
        "tile_columns": shape.columns,
        "filter_tiles": filter_tiles,
        "row_bands": cut.rows,
        "column_bands": cut.columns,
        "parts": cut.parts,
        "block_rows": block_rows,
        "block_columns": block_columns,
        "tasks": tasks,
        "workers": workers,
        "copied": band.copied,
        "band_bytes": band.elements * p.itemsize,
        "band_plane": band.plane,
        "band_step": band.step,
        "phases": band.phases,
        "sets": sets,
        "set_step": set_step,
        "set_size": band.plane // sets,
        "row_step": row_step,
        "phase_width": band.phase_width,
        "behind": band.behind,
        "halved": int(shape.pooled),
    }
    record = np.array([tuple(values[name] for name in LAYOUT.names or ())], LAYOUT)
    record.flags.writeable = False
    r, c, s = np.indices((p.R, p.C_per_group, p.S)).reshape(3, -1)
    down, across = r * p.dilation[0] * row, s * p.dilation[1]
    if band.copied:
        down = r * (band.plane // sets) if band.apart else down
        across = across % band.step * band.phase_width + across // band.step
    offsets = c * plane + down + across
    offsets.flags.writeable = False
    cuts = np.array(
        [
            *_starts(p.OH, shape.rows, cut.rows),
            *_starts(p.OW, shape.columns, cut.columns),
            *_starts(filter_tiles, 1, cut.parts),
        ]
    )
    cuts.flags.writeable = False
    return Tiling(record, offsets, cuts, workers, band.step, int(band.elements) * p.itemsize)


@lru_cache(maxsize=4096)
def _best_cut(problem: Conv2dProblem, shape: TileShape, num_threads: int) -> tuple[float, Cut]:
    """Return the cycles of the busiest thread with the best cut, and that cut."""
    cuts = _cuts(problem, shape)
    costs = _costs(problem, shape, num_threads, cuts)
    best = int(np.argmin(costs))
    return float(costs[best]), Cut(*(int(counts[best]) for counts in cuts))


class Cut(NamedTuple):
    """Into how many bands of rows and columns and parts of the filters the work is cut.

    Many cuts at once are a `Cut` of arrays.
    """

    rows: Any
    columns: Any
    parts: Any


class _Band:
    """What a task copies of its input, if it does; with many cuts, sizes are arrays."""

    def __init__(self, problem: Conv2dProblem, shape: TileShape, cut: Cut) -> None:
        p = problem
        pixel_lanes = shape.lanes_over == "pixels"
        narrow = pixel_lanes and (p.stride[1] > 1 or shape.columns > p.OW)
        self.copied = any(any(sides) for sides in p.padding) or narrow
        # Of the columns, phases that no tap reads are left out.
        self.step = p.stride[1] if pixel_lanes else 1
        self.phases = self.step if p.S > 1 else 1
        rows = _largest(p.OH, shape.rows, cut.rows)
        columns = _largest(p.OW, shape.columns, cut.columns)
        width = (columns - 1) * p.stride[1] + extent(p.S, p.dilation[1])
        self.phase_width = -(-width // self.step)
        # All rows from the first to the last, or for each row of the kernel those that it reads.
        span = extent(p.R, p.dilation[0])
        height = (rows - 1) * p.stride[0] + span
        self.apart = p.R * rows < height
        self.rows = np.minimum(p.R * rows, height)
        self.row = self.phases * self.phase_width
        self.plane = self.rows * self.row
        # Tiles may read beyond the last row, and copies write whole vectors.
        self.behind = shape.columns if pixel_lanes else 0
        total = p.C_per_group * self.plane + self.behind + shape.lanes
        self.elements = -(-total // 16) * 16 if self.copied else 0 * total


def _block(problem: Conv2dProblem, shape: TileShape, cut: Cut, row: int) -> tuple[int, int]:
    """Return the rows and columns over which all filters pass before the next pixels are taken.

    As many tiles as have their input in the second-level cache; the rows of a block are equal.
    `row` is the width of what is read.
    """
    p, line = problem, 64 // problem.itemsize
    room = cpu.describe().l2_bytes * 5 // 8 // 64
    across = max(1, -(-p.OW // (shape.columns * cut.columns)))
    down = max(1, -(-p.OH // (shape.rows * cut.rows)))

    def lines(tiles_down: int, tiles_across: int) -> int:
        height = (tiles_down * shape.rows - 1) * p.stride[0] + extent(p.R, p.dilation[0])
        height = min(height, tiles_down * shape.rows * p.R)
        width = (tiles_across * shape.columns - 1) * p.stride[1] + extent(p.S, p.dilation[1])
        if width >= row:  # whole rows lie side by side
            height, width = 1, height * row
        return p.C_per_group * height * (line + width) // line

    wide = min(across, BLOCK_TILES)
    while wide > 1 and lines(1, wide) > room:
        wide -= 1
    high = min(down, max(1, BLOCK_TILES // wide)) if wide == across else 1
    while high > 1 and lines(high, wide) > room:
        high -= 1
    wide, high = -(-across // -(-across // wide)), -(-down // -(-down // high))
    return high * shape.rows, wide * shape.columns


def _starts(total: int, unit: int, bands: int) -> list[int]:
    """Return where bands begin, at multiples of `unit`, and where the last one ends."""
    units = max(1, total // unit)
    return [band * units // bands * unit for band in range(bands)] + [total]


def _largest(total: int, unit: int, bands: Any) -> Any:
    """Return how long the longest of these bands is: it is the last, which takes the rest."""
    units = max(1, total // unit)
    return total - (units - -(-units // bands)) * unit


def _cuts(problem: Conv2dProblem, shape: TileShape) -> Cut:
    """Return all cuts that are worth considering, few bands before many."""
    rows, columns = max(1, problem.OH // shape.rows), max(1, problem.OW // shape.columns)
    return _grid(rows, columns, -(-problem.K_per_group // shape.filters))


@lru_cache(maxsize=256)
def _grid(rows: int, columns: int, filter_tiles: int) -> Cut:
    axes = np.meshgrid(*map(_counts, (rows, columns, filter_tiles)), indexing="ij")
    useful = (axes[1] == 1) | (axes[0] == rows)
    return Cut(*(axis[useful] for axis in axes))


def _counts(most: int) -> list[int]:
    """Return into how many parts `most` units are worth cutting."""
    return sorted({n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128) if n < most} | {most})


def _costs(problem: Conv2dProblem, shape: TileShape, num_threads: int, cuts: Cut) -> Any:
    """Return about how many cycles the busiest thread takes with each of the cuts."""
    p, band = problem, _Band(problem, shape, cuts)
    blocks = p.N * p.groups * cuts.rows * cuts.columns
    tasks = blocks * cuts.parts
    share = -(-tasks // num_threads) / np.maximum(1, tasks)
    # Parts, and bands, are of equal size but for one tile.
    for total, pieces in (
        (-(-p.K_per_group // shape.filters), cuts.parts),
        (-(-p.OH // shape.rows), cuts.rows),
        (-(-p.OW // shape.columns), cuts.columns),
    ):
        share *= -(-total // pieces) * pieces / total
    # From memory, or from a cache.
    pace = 5 if p.input_bytes > cpu.describe().l3_bytes // 2 else 16
    size = band.elements * p.itemsize
    copying = blocks * np.minimum(cuts.parts, num_threads) * (50 + size / pace)
    # Weights that do not fit L2 come anew for every band.
    reading = p.N * cuts.rows * cuts.columns * float(p.weight_bytes) / 24
    starting = 60.0 * tasks
    too_large = 1e2 * np.maximum(0, size - BAND_BYTES)
    too_large = too_large + TOO_LARGE * np.maximum(0, size - MOST_BAND_BYTES)
    return share * (cycles(p, shape) + copying + reading + starting) + too_large
