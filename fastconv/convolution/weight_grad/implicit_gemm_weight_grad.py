"""Weight gradients by an implicit GEMM: pixels are the reduction axis.

``gradient[k, c, r, s] = sum over n, i, j of x[n, c, h, w] * grad[n, k, i, j]`` is a product of
the output gradient, K by pixels, and the input, pixels by taps. There is no im2col matrix: a band
of the input is packed once, channels-last, and a table holds the offset of each pixel; a tap (r, s)
only shifts the start.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution.algorithm import Array, Gradient
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND, RUN
from fastconv.convolution.weight_grad import weight_grad_cuts as cuts
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.geometry import extent
from fastconv.core.records import freeze, record_of
from fastconv.kernels import weight_grad_loops as kernels
from fastconv.runtime import cpu
from fastconv.runtime.threads import useful_threads
from fastconv.runtime.workspace import scratch

# The most bytes that are packed for a band.
BAND_BYTES = 4 * 2**20
# Pixels of a band that amortize its fixed cost.
ENOUGH_PIXELS = 8192
#: Columns of a tile by vectors of filters: as many sums as registers allow.
COLUMNS = ((2, (13, 12, 10, 8, 7, 6, 4, 3, 1)), (1, (14, 8, 4, 1)))


class Bands(NamedTuple):
    """The partition of a weight gradient, as the kernels read it."""

    shape: kernels.WeightGradShape
    #: The records `LAYOUT` and `SUMS` of `fastconv.kernels.weight_grad_loops`.
    record: NDArray[Any]
    sums_record: NDArray[Any]
    #: First image and number of images, first row of output and number of rows: (bands, 4).
    bands: NDArray[np.int64]
    #: Elements of the packed factors, and of the sums.
    memory: int
    sums: int
    #: What the records have addresses of.
    tables: dict[str, Array]


def columns_of(problem: Conv2dProblem, columns: int) -> tuple[int, int, int]:
    """Return the channels of a packed pixel, channel tiles, and blocks of columns per kernel row.

    The columns of a tile are channels. With few channels they extend over the taps of a row, whose
    channels follow in memory.
    """
    p = problem
    if p.C_per_group < columns and p.dilation[1] == 1:
        return p.C_per_group, 1, -(-p.C_per_group * p.S // columns)
    tiles = -(-p.C_per_group // columns)
    return columns, tiles, tiles * p.S


@lru_cache(maxsize=1024)
def weight_grad_shape(problem: Conv2dProblem) -> kernels.WeightGradShape:
    """Return the tile that takes the fewest cycles."""
    p, instructions = problem, cpu.describe().instructions
    lanes = instructions.lanes(p.dtype)
    found = [
        kernels.WeightGradShape(vectors * lanes, columns, 8 * p.itemsize, lanes)
        for vectors, many in COLUMNS
        for columns in many
        if vectors * (columns + 1) + 1 <= instructions.registers
    ]
    return min(found, key=lambda shape: _cycles(p, shape))


def _cycles(problem: Conv2dProblem, shape: kernels.WeightGradShape) -> float:
    """Return the estimated cycles of one core per pixel, without memory traffic."""
    p, vectors = problem, shape.filters // shape.lanes
    calls = p.groups * -(-p.K_per_group // shape.filters) * p.R * columns_of(p, shape.columns)[2]
    # Two loads per cycle; an addition has a latency of up to four cycles.
    a_cycle = cpu.describe().instructions.a_cycle
    loads = shape.columns * (1.0 if vectors > 1 else 1.2) + vectors
    step = max(vectors * shape.columns / a_cycle, loads / 2, 4)
    if shape.columns * p.itemsize % 32:  # packed pixels cross cache lines
        step *= 1.06
    return calls * (step + 0.2 + 0.02 * vectors)


def subsampled_problem(problem: Conv2dProblem) -> Conv2dProblem:
    """Return the problem on a subsampled input, for a 1 x 1 kernel with horizontal stride 2."""
    p = problem
    if p.R * p.S > 1 or p.stride[1] != 2 or any(map(any, p.padding)):
        return p
    sizes = (p.N, p.C, p.OH, p.OW, p.K, 1, 1)
    return Conv2dProblem(*sizes, (1, 1), p.padding, p.dilation, p.groups, p.dtype)


@lru_cache(maxsize=128)
def bands_of(problem: Conv2dProblem) -> Bands:
    """Partition a problem into bands."""
    p = subsampled_problem(problem)
    shape = weight_grad_shape(p)
    wide, tiles, row_blocks = columns_of(p, shape.columns)
    filter_tiles = -(-p.K_per_group // shape.filters)
    # Columns after the last window are packed too; they are not used.
    padded = max((p.OW - 1) * p.stride[1] + extent(p.S, p.dilation[1]), p.padding[1][0] + p.W)
    span = extent(p.R, p.dilation[0])

    def sizes(images: int, rows: int) -> tuple[int, int, int]:
        """Return the height of a band, and the elements of a tile of the input and gradient."""
        high = (rows - 1) * p.stride[0] + span
        overread = shape.columns + shape.lanes  # what microkernels read beyond the last pixel
        x_size = -(-(images * high * padded * wide + overread) // 16) * 16
        return high, x_size, -(-images * rows * p.OW * shape.filters // 16) * 16

    def elements(images: int, rows: int) -> int:
        _, x_size, grad_size = sizes(images, rows)
        return p.groups * (tiles * x_size + filter_tiles * grad_size)

    def too_large(images: int, rows: int) -> bool:
        pixels = rows * p.OW
        return elements(images, rows) * p.itemsize > BAND_BYTES or pixels > 2 * ENOUGH_PIXELS

    images = max(1, min(p.N, -(-ENOUGH_PIXELS // p.P)))
    bands = cuts.cut_bands(p.N, p.OH, *cuts.largest_band(images, p.OH, too_large))
    images, rows = int(bands[:, 1].max()), int(bands[:, 3].max())
    high, x_size, grad_size = sizes(images, rows)
    per_row = row_blocks * shape.columns  # columns of a row of the kernel, some of them unused
    tables, tap_offsets = _tables(p, shape, (images, rows), (high, padded), x_size)
    freeze(bands, tap_offsets, *tables.values())
    tile_sums = p.R * per_row * shape.filters
    record = record_of(
        kernels.LAYOUT,
        *(p, p.record[0]),
        **tables,
        **cuts.tiles_of_filters(p, shape),
        **{"run": RUN, "x_row": 0, "x_step": 1, "out_row": shape.filters, "out_plane": 0},
        x_plane=problem.H * problem.W,
        x_row_step=0 if p is problem else problem.stride[0] * problem.W,
        padded=padded,
        high=high,
        clear=any(map(any, p.padding)) or padded > p.W,
        channel_tiles=tiles,
        tile_channels=wide,
        chunks=-(-cuts.CHUNKS // images),
        row_blocks=row_blocks,
        x_size=x_size,
        grad_size=grad_size,
        sums_size=per_row * shape.filters,
        tile_sums=tile_sums,
    )
    sums = p.groups * filter_tiles * tile_sums
    collecting = cuts.sums_record(p, shape, tile_sums, tap_offsets)
    tables["tap_offsets"] = tap_offsets
    return Bands(shape, record, collecting, bands, elements(images, rows), sums, tables)


def _tables(
    problem: Conv2dProblem,
    shape: kernels.WeightGradShape,
    band: tuple[int, int],
    packed: tuple[int, int],
    x_size: int,
) -> tuple[dict[str, Array], Array]:
    """Return the tables of `LAYOUT`, and the offset of each tap in the sums of a filter tile.

    `band` is (images, rows), `packed` is (height, width).
    """
    p, (images, rows), (high, padded) = problem, band, packed
    wide, tiles, row_blocks = columns_of(p, shape.columns)
    n, i, j = np.indices((images, rows, p.OW)).reshape(3, -1)
    h, w = np.indices((min(p.H, high), p.W)).reshape(2, -1)
    s, c = np.indices((p.S, p.C_per_group))
    if tiles == 1 and wide == p.C_per_group < shape.columns and p.dilation[1] == 1:
        starts = np.arange(row_blocks) * shape.columns
        blocks, columns = np.stack([starts, starts], axis=1), s * p.C_per_group + c
    else:
        tile, tap = np.indices((tiles, p.S)).reshape(2, -1)
        begins = tile * x_size + tap * p.dilation[1] * wide
        blocks = np.stack([begins, (tile * p.S + tap) * shape.columns], axis=1)
        columns = (c // wide * p.S + s) * shape.columns + c % wide
    c, r, s = np.indices((p.C_per_group, p.R, p.S)).reshape(3, -1)
    taps = (r * row_blocks * shape.columns + columns[s, c]) * shape.filters
    tables = {
        "offsets": ((n * high + i * p.stride[0]) * padded + j * p.stride[1]) * wide,
        "x_numbers": h * padded + w + p.padding[1][0],
        "grad_numbers": np.arange(rows * p.OW),
        "blocks": blocks.reshape(-1),
        "zeros": np.zeros(shape.filters, p.dtype),
    }
    return tables, cuts.whole_vectors(taps, shape.lanes)


@lru_cache(maxsize=1024)
def _work(problem: Conv2dProblem) -> tuple[float, int]:
    """Return the estimated cycles of one core, and the number of bands."""
    p, cut = subsampled_problem(problem), bands_of(problem)
    g, lanes = cut.record[0], cut.shape.lanes
    # Both factors come from L2 or beyond, which costs a faster core relatively more.
    a_cycle = cpu.describe().instructions.a_cycle
    multiplying = (1 + 0.2 * a_cycle) * p.N * p.P * _cycles(p, cut.shape)
    # Packed elements include the zero padding of vectors; partial blocks and single elements take
    # longer.
    filters = p.groups * g.filter_tiles * g.tile_filters
    packing = p.N * p.P * filters * (1.8 if p.K_per_group % lanes == 0 else 2.6)
    channels = p.groups * g.channel_tiles * g.tile_channels
    packing += p.N * p.H * p.W * channels * (1.8 if p.C_per_group % lanes == 0 else 2.6)
    transposing = 1.0 * p.K * p.taps
    adding = len(cut.bands) * cut.sums / lanes * 4.0
    return multiplying + float(packing) + transposing + adding, len(cut.bands)


@lru_cache(maxsize=128)
def _loops(problem: Conv2dProblem) -> cuts.BandLoops:
    cut = bands_of(problem)
    vectors = cut.shape.bits, cut.shape.lanes
    code = record_of(
        kernels.CODE,
        transpose=kernels.transposer_address(*vectors),
        pack=kernels.pixel_packer_address(*vectors, 1),
        pack_input=kernels.pixel_packer_address(*vectors, 2 if cut.record[0].x_row_step else 1),
        clear=kernels.clear_address(*vectors),
        microkernel=kernels.weight_grad_address(cut.shape),
    )
    return cuts.BandLoops(cut, code.view(np.int64), _work(problem)[0] / CYCLES_PER_SECOND)


class ImplicitGemmWeightGrad(Gradient):
    """Sums over pixels in registers, from packed factors."""

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take problems that need little memory for a band and for the sums."""
        cut = bands_of(problem)
        band = cuts.band_refusal(cut.memory * problem.itemsize, BAND_BYTES)
        return band or cuts.sums_refusal(problem, cut.sums, BAND_BYTES)

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count instructions and copies."""
        cycles, bands = _work(problem)
        return 15e-6 + (cycles / threads + 30e3 * bands) / CYCLES_PER_SECOND

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count one band; the sums, another copy of the weights, are not included."""
        return bands_of(problem).memory * problem.itemsize

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Fill `out`, (K, C / groups, R, S), with the gradient of the weights."""
        p, loops = problem, _loops(problem)
        cut, most = loops.cut, useful_threads(loops.seconds)
        g = cut.record[0]
        tiles = int(p.groups * (g.channel_tiles + g.filter_tiles) * g.chunks)
        weights = int(p.groups * g.filter_tiles * p.R * g.row_blocks)
        with (
            scratch("bands", (cut.memory,), p.dtype) as memory,
            scratch("sums", (cut.sums,), p.dtype) as sums,
        ):
            arrays = factor.reshape(-1), grad_output.reshape(-1), memory, sums
            for band in cut.bands:
                loops.run(most, kernels.pack_address(), tiles * int(band[1]), arrays, band)
                loops.run(most, kernels.multiply_address(), weights, arrays, band)
            loops.collect(p, arrays, out)
