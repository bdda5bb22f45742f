"""Weight gradients of 1x1 kernels: inner products of planes, read in place.

For a strided layer the input is subsampled first, some images at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution.algorithm import Array, Gradient, as_read_only, masks_missing
from fastconv.convolution.blocking.partition import PARTS, split_below
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND
from fastconv.convolution.weight_grad import weight_grad_cuts as cuts
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.records import freeze, record_of
from fastconv.kernels import direct_1x1_weight_grad_loops as kernels
from fastconv.runtime import cpu
from fastconv.runtime.threads import useful_threads
from fastconv.runtime.workspace import scratch

# Vectors in a block of pixels: with more, reductions over lanes cost less; with fewer, L2 holds
# more planes.
FEWEST_VECTORS, MOST_VECTORS = 64, 256
# Bytes of the sums of all chunks; there is always at least one chunk.
SUMS_BYTES = 2 * 2**20
# Bytes of pixels that are subsampled at a time.
SUBSAMPLED_BYTES = 4 * 2**20
# The most planes of either factor in a tile.
MOST_PLANES = 7


def takes(problem: Conv2dProblem) -> bool:
    """Return whether the kernel is 1x1 without padding."""
    p = problem
    return p.R == p.S == 1 and not any(map(any, p.padding))


class Cut(NamedTuple):
    """The partition of a weight gradient, as the kernels read it."""

    shape: kernels.Direct1x1WeightGradShape
    #: The parameters `fastconv.kernels.direct_1x1_weight_grad_loops.LAYOUT`.
    record: NDArray[Any]
    #: First image and number of images of each band; its number of blocks of pixels, and for each:
    #: first image in A and in B, number of images, first pixel and number of pixels.
    bands: tuple[tuple[int, int, NDArray[np.int64]], ...]
    #: What the record has addresses of: the offset of each plane's sums within those of a group.
    tables: dict[str, Array]
    #: Elements of subsampled pixels, and of the sums.
    subsampled: int
    sums: int


def _sides(problem: Conv2dProblem) -> tuple[int, int]:
    """Return the number of planes of a group in A and in B."""
    p = problem
    return max(p.C_per_group, p.K_per_group), min(p.C_per_group, p.K_per_group)


def shapes(problem: Conv2dProblem) -> Iterator[kernels.Direct1x1WeightGradShape]:
    """Return the tiles that fit the registers and the weights."""
    p, instructions, (a, b) = problem, cpu.describe().instructions, _sides(problem)
    for rows, columns in product(range(1, MOST_PLANES + 1), repeat=2):
        fits = rows * columns + rows + 1 <= instructions.registers
        if fits and rows <= a and columns <= b:
            yield kernels.Direct1x1WeightGradShape(
                rows, columns, 8 * p.itemsize, instructions.lanes(p.dtype)
            )


@lru_cache(maxsize=1024)
def best_shape(problem: Conv2dProblem) -> kernels.Direct1x1WeightGradShape:
    """Return the tile that takes the fewest cycles."""
    return min(shapes(problem), key=lambda shape: _cycles(problem, shape))


def _cycles(problem: Conv2dProblem, shape: kernels.Direct1x1WeightGradShape) -> float:
    """Return the estimated cycles of one core, without memory traffic."""
    p, (a, b), sums = problem, _sides(problem), shape.rows * shape.columns
    tiles = p.groups * -(-a // shape.rows) * -(-b // shape.columns)
    vectors = p.N * -(-p.P // shape.lanes)
    a_cycle = cpu.describe().instructions.a_cycle
    # Loads come from L2, and cross cache lines if planes are not aligned.
    loads = (shape.rows + shape.columns) * (1.0 if p.P % shape.lanes == 0 else 1.5)
    step = max(sums / a_cycle, 4, loads / 2) + 0.25 * loads + 0.5
    begun = max(1, vectors / MOST_VECTORS)
    return tiles * (vectors * step + begun * (60 + 4.0 * sums) + 8 * p.N)


@lru_cache(maxsize=128)
def cut_of(problem: Conv2dProblem) -> Cut:
    """Partition a problem into bands, chunks, blocks of pixels and tiles."""
    p, shape, (a, b) = problem, best_shape(problem), _sides(problem)
    strided, grad_is_a = p.stride != (1, 1), p.K_per_group >= p.C_per_group
    x_pitch = (-(-p.P // shape.lanes) + 1) * shape.lanes if strided else p.H * p.W
    # As many vectors of B as fit L2.
    room = cpu.describe().l2_bytes * 5 // 8 // (shape.lanes * p.itemsize)
    most = max(1, SUBSAMPLED_BYTES // (p.C * x_pitch * p.itemsize)) if strided else max(1, p.N)
    vectors = min(MOST_VECTORS, max(FEWEST_VECTORS, room // b))
    bands = _bands(p, shape.lanes, most, vectors, grad_is_a)
    a_tiles, b_tiles = -(-a // shape.rows), -(-b // shape.columns)
    images, pixels = bands[0][2][1:].reshape(-1, 5)[:, [2, 4]].T
    longest = int((images * -(-pixels // shape.lanes)).max())
    blocks = -(-b_tiles // max(1, room // longest // shape.columns))
    block_tiles = -(-b_tiles // blocks)
    blocks = -(-b_tiles // block_tiles)
    slot = -(-shape.rows * shape.columns // shape.lanes) * shape.lanes
    chunk_size = p.groups * a_tiles * b_tiles * slot
    pixel_blocks = min(int(pixel_blocks[0]) for _, _, pixel_blocks in bands)
    chunks = cuts.chunks_of(pixel_blocks, p.groups, SUMS_BYTES // (chunk_size * p.itemsize))
    # Chunks of equal size, if possible.
    chunks = next((n for n in range(chunks, chunks // 2, -1) if pixel_blocks % n == 0), chunks)
    x, grad = ("b", "a") if grad_is_a else ("a", "b")
    tables = {
        "a_offsets": _offsets(a, shape.rows, b_tiles * slot, shape.columns),
        "b_offsets": _offsets(b, shape.columns, slot, 1),
    }
    freeze(*tables.values(), *(pixel_blocks for _, _, pixel_blocks in bands))
    record = record_of(
        kernels.LAYOUT,
        *(p, p.record[0]),
        **tables,
        x_plane=p.H * p.W,
        x_pitch=x_pitch,
        **{"a_planes": a, "b_planes": b, "grad_is_a": grad_is_a},
        **{f"{x}_plane": x_pitch, f"{x}_image": p.C * x_pitch},
        **{f"{grad}_plane": p.P, f"{grad}_image": p.K * p.P},
        chunks=chunks,
        blocks=blocks,
        ranges=min(a_tiles, -(-PARTS // (chunks * p.groups * blocks))),
        **{"block_tiles": block_tiles, "a_tiles": a_tiles, "b_tiles": b_tiles},
        **{"rows": shape.rows, "columns": shape.columns, "slot": slot},
        group_size=a_tiles * b_tiles * slot,
        chunk_size=chunk_size,
    )
    subsampled = max(band[1] for band in bands) * p.C * x_pitch if strided else 0
    return Cut(shape, record, bands, tables, subsampled, chunks * chunk_size)


def _bands(
    problem: Conv2dProblem, lanes: int, most: int, wanted: int, grad_is_a: bool
) -> tuple[tuple[int, int, NDArray[np.int64]], ...]:
    """Return the `Cut.bands`: at most `most` images each, in blocks of `wanted` vectors."""
    p, vectors = problem, -(-problem.P // lanes)
    images = max(1, wanted // vectors)
    bands = []
    for b0, b1 in split_below(max(1, p.N), most):
        pixel_blocks = []
        for (n0, n1), (v0, v1) in product(
            split_below(b1 - b0, images), split_below(vectors, wanted)
        ):
            first = (b0 + n0, n0) if grad_is_a else (n0, b0 + n0)
            start, end = v0 * lanes, min(v1 * lanes, p.P)
            pixel_blocks.append((*first, n1 - n0, start, end - start))
        bands.append((b0, b1 - b0, np.array([len(pixel_blocks), *chain(*pixel_blocks)])))
    return tuple(bands)


def _offsets(planes: int, wide: int, tile: int, step: int) -> NDArray[np.int64]:
    """Return the offset of each plane's sums, from its tile and its index within the tile."""
    offsets = np.empty(planes, np.int64)
    for number, first in enumerate(cuts.tile_starts(planes, wide)):
        offsets[first : first + wide] = number * tile + step * np.arange(wide)
    return offsets


@lru_cache(maxsize=1024)
def _work(problem: Conv2dProblem) -> float:
    """Return the estimated seconds of one core, without memory traffic."""
    p, cut = problem, cut_of(problem)
    cycles = _cycles(p, cut.shape) + 3.0 * p.K * p.taps * cut.record[0].chunks
    cycles += 1.0 * p.N * p.C * p.P if cut.subsampled else 0.0
    return float(cycles) / CYCLES_PER_SECOND


@lru_cache(maxsize=128)
def _loops(problem: Conv2dProblem) -> cuts.BandLoops:
    cut, step = cut_of(problem), problem.stride[1]
    shape = cut.shape
    subsample = kernels.subsampler_address(step if step <= 2 else 0, shape.bits, shape.lanes)
    code = record_of(
        kernels.CODE, subsample=subsample, microkernel=kernels.direct_1x1_weight_grad_address(shape)
    )
    return cuts.BandLoops(cut, code.view(np.int64), _work(problem))


class Direct1x1WeightGrad(Gradient):
    """Inner products of planes; the input of strided layers is subsampled first."""

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take problems that need little memory for subsampled pixels and sums."""
        cut = cut_of(problem)
        subsampled = cut.subsampled * problem.itemsize
        if subsampled > SUBSAMPLED_BYTES:
            return f"needs {subsampled / 2**20:.1f} MiB for the pixels of one image"
        return masks_missing() or cuts.sums_refusal(problem, cut.sums, SUMS_BYTES)

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count instructions and memory traffic."""
        moving = (problem.input_bytes + problem.output_bytes) / 60e9
        return 15e-6 + _work(problem) / threads + moving

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count subsampled pixels and the sums."""
        cut = cut_of(problem)
        return (cut.subsampled + cut.sums) * problem.itemsize

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Fill `out`, (K, C / groups, 1, 1), with the gradient of the weights."""
        p, loops = problem, _loops(problem)
        cut, most = loops.cut, useful_threads(loops.seconds)
        g, grad = cut.record[0], grad_output.reshape(-1)
        items = int(p.groups * g.chunks * g.blocks * g.ranges)
        with (
            scratch("bands", (cut.subsampled,), p.dtype) as subsampled,
            scratch("sums", (cut.sums,), p.dtype) as sums,
        ):
            for first, images, pixel_blocks in cut.bands:
                pixels = factor[first : first + images].reshape(-1)
                if cut.subsampled:
                    arrays = pixels, grad, subsampled, sums
                    loops.run(most, kernels.subsample_address(), images * p.C, arrays, pixel_blocks)
                    pixels = as_read_only(subsampled)
                factors = (grad, pixels) if g.grad_is_a else (pixels, grad)
                arrays = *factors, subsampled, sums
                loops.run(most, kernels.multiply_address(), items, arrays, pixel_blocks)
            loops.finish(kernels.reduce_chunks_1x1_address(cut.shape.bits), p.K, arrays, out)
