"""Weight gradients vectorized over output width, for `direct`.

The input and the output gradient are read in place. A vector holds pixels of one row, so maps
should be wide. (1x1 kernels without padding, where rows do not matter, have
`fastconv.convolution.weight_grad.direct_1x1_weight_grad`.)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.codegen.direct_weight_grad_microkernel import Taps
from fastconv.convolution.algorithm import Array, Gradient, masks_missing
from fastconv.convolution.blocking.partition import PARTS
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND
from fastconv.convolution.weight_grad import weight_grad_cuts as cuts
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.records import freeze, record_of
from fastconv.kernels import direct_weight_grad_loops as kernels
from fastconv.runtime import cpu
from fastconv.runtime.threads import useful_threads
from fastconv.runtime.workspace import scratch

# Vectors in a block of pixels: L1 holds that many of a few planes, and rounding errors grow with
# the length of a sum.
PIXEL_BLOCK_VECTORS = 192
# Bytes of the sums of all chunks; there is always at least one chunk.
SUMS_BYTES = 2 * 2**20
# The most kernel columns, input channels and output channels of a tile.
MOST_COLUMNS, MOST_CHANNELS, MOST_FILTERS = 7, 7, 5


class Cut(NamedTuple):
    """The partition of a weight gradient, as the kernels read it."""

    shape: kernels.DirectWeightGradShape
    #: The parameters `fastconv.kernels.direct_weight_grad_loops.LAYOUT`.
    record: NDArray[Any]
    #: First image and number of images, first row and number of rows of each block of pixels, flat.
    bands: NDArray[np.int64]
    #: What the record has addresses of.
    tables: dict[str, Array]
    #: Elements of the sums.
    sums: int
    #: Number of work items.
    items: int


def shapes(problem: Conv2dProblem) -> Iterator[kernels.DirectWeightGradShape]:
    """Return the tiles that fit the registers and the weights."""
    p, instructions = problem, cpu.describe().instructions
    lanes = instructions.lanes(p.dtype)
    for filters, channels, rows in product(
        range(1, MOST_FILTERS + 1), range(1, MOST_CHANNELS + 1), {1, min(p.R, 3)}
    ):
        if filters > p.K_per_group or channels > p.C_per_group:
            continue
        taps = Taps(filters, channels, rows, _columns(p))
        if taps.sums + filters + 1 <= instructions.registers:
            yield kernels.DirectWeightGradShape(taps, p.stride[1], 8 * p.itemsize, lanes)


def _columns(problem: Conv2dProblem) -> int:
    """Return the number of kernel columns of a tile."""
    if problem.S <= MOST_COLUMNS:
        return problem.S
    columns = -(-problem.S // -(-problem.S // MOST_COLUMNS))
    return columns + columns % 2 if columns < MOST_COLUMNS else columns - 1


@lru_cache(maxsize=1024)
def best_shape(problem: Conv2dProblem) -> kernels.DirectWeightGradShape:
    """Return the tile that takes the fewest cycles."""
    return min(shapes(problem), key=lambda shape: _cycles(problem, shape))


def _cycles(problem: Conv2dProblem, shape: kernels.DirectWeightGradShape) -> float:
    """Return the estimated cycles of one core, without memory traffic."""
    p, taps = problem, shape.taps
    vectors = -(-p.OW // shape.lanes)
    steps = p.N * p.OH * vectors
    tiles = p.groups * -(-p.K_per_group // taps.filters) * -(-p.C_per_group // taps.channels)
    tiles *= -(-p.R // taps.rows) * -(-p.S // taps.columns)
    lines = taps.channels * taps.rows
    loads = taps.filters + lines * (taps.columns + taps.columns % 2 * (shape.step - 1))
    # One vector multiplication per cycle, and one load, since most loads cross cache lines; at
    # stride 2 there are twice as many loads, and L1 does not hold the data.
    step = max(taps.sums, 4, (1.3 if shape.step == 1 else 3.3) * loads) + 1 + 0.5 * lines
    begun = p.N * (1 + p.OH * vectors // PIXEL_BLOCK_VECTORS) / max(1, _images(p, vectors))
    return tiles * (steps * step + begun * (120 + 8.0 * taps.sums) + 12 * p.N * vectors)


def _images(problem: Conv2dProblem, vectors: int) -> int:
    """Return the number of images in a block of pixels, a divisor of N if possible."""
    most = PIXEL_BLOCK_VECTORS // (problem.OH * vectors)
    most = max(1, min(problem.N, most))
    dividing = max(images for images in range(1, most + 1) if problem.N % images == 0)
    return dividing if 2 * dividing >= most else most


@lru_cache(maxsize=128)
def cut_of(problem: Conv2dProblem) -> Cut:
    """Partition a problem into chunks, blocks of pixels and tiles."""
    p, shape = problem, best_shape(problem)
    taps, vectors = shape.taps, -(-p.OW // shape.lanes)
    rows = max(1, min(p.OH, PIXEL_BLOCK_VECTORS // vectors))
    pixel_blocks = cuts.cut_bands(p.N, p.OH, _images(p, vectors), rows)
    axes = (p.C_per_group, taps.channels), (p.R, taps.rows), (p.S, taps.columns)
    tap_tiles = np.array(list(product(*(cuts.tile_starts(*axis) for axis in axes))))
    filter_tiles = -(-p.K_per_group // taps.filters)
    slot = -(-taps.sums // shape.lanes) * shape.lanes
    chunk_size = p.groups * filter_tiles * len(tap_tiles) * slot
    chunks = cuts.chunks_of(len(pixel_blocks), p.groups, SUMS_BYTES // (chunk_size * p.itemsize))
    offsets: Any = np.empty((p.C_per_group, p.R, p.S), np.int64)
    own = np.arange(taps.sums // taps.filters).reshape(taps[1:])
    for tile, (c, r, s) in enumerate(tap_tiles):
        ends = c + taps.channels, r + taps.rows, s + taps.columns
        offsets[c : ends[0], r : ends[1], s : ends[2]] = tile * slot + own
    ranges = min(filter_tiles, max(1, PARTS // (chunks * p.groups)))
    zeros = np.zeros(p.W, p.dtype)
    tables = {"tap_tiles": tap_tiles, "tap_offsets": offsets.reshape(-1), "zeros": zeros}
    freeze(pixel_blocks, *tables.values())
    record = record_of(
        kernels.LAYOUT,
        *(p, p.record[0]),
        **tables,
        x_plane=p.H * p.W,
        grad_plane=p.P,
        pixel_block_count=len(pixel_blocks),
        chunks=chunks,
        ranges=ranges,
        filter_tiles=filter_tiles,
        tap_tile_count=len(tap_tiles),
        tile_filters=taps.filters,
        tile_taps=taps.sums // taps.filters,
        slot=slot,
        chunk_size=chunk_size,
    )
    sizes = chunks * chunk_size, p.groups * chunks * ranges
    return Cut(shape, record, pixel_blocks.reshape(-1), tables, *sizes)


@lru_cache(maxsize=1024)
def _work(problem: Conv2dProblem) -> float:
    """Return the estimated seconds of one core, without memory traffic."""
    p, cut = problem, cut_of(problem)
    adding = float(p.K * p.taps * cut.record[0].chunks) * 3
    # `_cycles` counts one multiplication per cycle.
    cycles = 1.1 / cpu.describe().instructions.a_cycle * (_cycles(p, cut.shape) + adding)
    return cycles / CYCLES_PER_SECOND


@lru_cache(maxsize=128)
def _loops(problem: Conv2dProblem) -> cuts.BandLoops:
    cut = cut_of(problem)
    code = record_of(kernels.CODE, microkernel=kernels.direct_weight_grad_address(cut.shape))
    return cuts.BandLoops(cut, code.view(np.int64), _work(problem))


class DirectAnyWeightGrad(Gradient):
    """Sums over the pixels of rows, read in place, each lane for itself."""

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take strides and dilations that vector loads can read, and small sums."""
        p = problem
        if p.stride[1] > 2:
            return f"needs a horizontal stride of at most 2, got {p.stride}"
        if p.stride[1] == 2 and p.dilation[1] != 1:
            return f"needs horizontal dilation 1 at stride 2, got {p.dilation}"
        return masks_missing() or cuts.sums_refusal(p, cut_of(p).sums, SUMS_BYTES)

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count instructions and memory traffic."""
        moving = (problem.input_bytes + problem.output_bytes) / 60e9
        return 15e-6 + _work(problem) / threads + moving

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count the sums."""
        return cut_of(problem).sums * problem.itemsize

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Fill `out`, (K, C / groups, R, S), with the gradient of the weights."""
        loops = _loops(problem)
        cut, most = loops.cut, useful_threads(loops.seconds)
        with scratch("sums", (cut.sums,), problem.dtype) as sums:
            arrays = factor.reshape(-1), grad_output.reshape(-1), sums, sums
            loops.run(most, kernels.correlate_address(), cut.items, arrays, cut.bands)
            loops.finish(kernels.reduce_chunks_address(cut.shape.bits), problem.K, arrays, out)
