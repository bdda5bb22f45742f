"""The gradient of the weights of 1x1 kernels: planes times planes, read where they lie.

Of a strided layer the pixels that its windows see are copied first, some images at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution.algorithm import Array, Gradient, as_read_only, compiler_missing
from fastconv.convolution.blocking.partition import PARTS, split_below
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND
from fastconv.convolution.weight_grad.weight_grad_cuts import BandLoops, chunks_of, tile_starts
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.core.records import freeze, record_of
from fastconv.kernels.direct_1x1_weight_grad_loops import (
    CODE,
    LAYOUT,
    PlaneProductShape,
    add_plane_sums_address,
    multiply_address,
    pick_address,
    pixel_picker_address,
    plane_product_address,
)
from fastconv.runtime import cpu
from fastconv.runtime.threads import useful_threads
from fastconv.runtime.workspace import scratch

# Vectors of pixels that are added up before their sum is added to the others: with more, sums
# across lanes cost less; with fewer, L2 holds more planes.
FEWEST_VECTORS, MOST_VECTORS = 64, 256
# Sums of all chunks; the first is always there.
SUMS_BYTES = 2 * 2**20
# Pixels of a strided layer that are copied at a time.
PICKED_BYTES = 4 * 2**20
# Planes of either factor that one tile may have.
MOST_PLANES = 7


def takes(problem: Conv2dProblem) -> bool:
    """Return whether no window sees more than one pixel, and none sees padding."""
    p = problem
    return p.R == p.S == 1 and not any(map(any, p.padding))


class Cut(NamedTuple):
    """How a weight gradient is cut, as the kernels read it."""

    shape: PlaneProductShape
    #: The numbers `fastconv.kernels.direct_1x1_weight_grad_loops.LAYOUT`.
    record: NDArray[Any]
    #: First image and number of images of each band; how many pieces it has, and of each: first
    #: image of the far and of the near factor, number of images, first pixel and number of pixels.
    bands: tuple[tuple[int, int, NDArray[np.int64]], ...]
    #: Where the sums of a plane lie in those of a group.
    far_offsets: NDArray[np.int64]
    near_offsets: NDArray[np.int64]
    #: Elements for copied pixels, and for the sums.
    picked: int
    sums: int


def _sides(problem: Conv2dProblem) -> tuple[int, int]:
    """Return how many planes of a group are the far factor, and how many the near one."""
    p = problem
    return max(p.C_per_group, p.K_per_group), min(p.C_per_group, p.K_per_group)


def shapes(problem: Conv2dProblem) -> Iterator[PlaneProductShape]:
    """Return the tiles that fit the registers and the weights."""
    p, instructions, (far, near) = problem, cpu.describe().instructions, _sides(problem)
    for rows, columns in product(range(1, MOST_PLANES + 1), repeat=2):
        fits = rows * columns + rows + 1 <= instructions.registers
        if fits and rows <= far and columns <= near:
            yield PlaneProductShape(rows, columns, 8 * p.itemsize, instructions.lanes(p.dtype))


@lru_cache(maxsize=1024)
def best_shape(problem: Conv2dProblem) -> PlaneProductShape:
    """Return the tile that takes the fewest cycles."""
    return min(shapes(problem), key=lambda shape: _cycles(problem, shape))


def _cycles(problem: Conv2dProblem, shape: PlaneProductShape) -> float:
    """Return about how many cycles one core takes, memory apart."""
    p, (far, near), sums = problem, _sides(problem), shape.rows * shape.columns
    tiles = p.groups * -(-far // shape.rows) * -(-near // shape.columns)
    vectors = p.N * -(-p.P // shape.lanes)
    a_cycle = cpu.describe().instructions.a_cycle
    # Loads come from L2, and lie across two lines if planes do.
    loads = (shape.rows + shape.columns) * (1.0 if p.P % shape.lanes == 0 else 1.5)
    step = max(sums / a_cycle, 4, loads / 2) + 0.25 * loads + 0.5
    begun = max(1, vectors / MOST_VECTORS)
    return tiles * (vectors * step + begun * (60 + 4.0 * sums) + 8 * p.N)


@lru_cache(maxsize=128)
def cut_of(problem: Conv2dProblem) -> Cut:
    """Cut a problem into bands, chunks, pieces and tiles, with all numbers of the cut."""
    p, shape, (far, near) = problem, best_shape(problem), _sides(problem)
    strided, filters_far = p.stride != (1, 1), p.K_per_group >= p.C_per_group
    x_pitch = (-(-p.P // shape.lanes) + 1) * shape.lanes if strided else p.H * p.W
    # As many vectors of the near planes as L2 holds.
    room = cpu.describe().l2_bytes * 5 // 8 // (shape.lanes * p.itemsize)
    most = max(1, PICKED_BYTES // (p.C * x_pitch * p.itemsize)) if strided else max(1, p.N)
    vectors = min(MOST_VECTORS, max(FEWEST_VECTORS, room // near))
    bands = _bands(p, shape.lanes, most, vectors, filters_far)
    far_tiles, near_tiles = -(-far // shape.rows), -(-near // shape.columns)
    images, pixels = bands[0][2][1:].reshape(-1, 5)[:, [2, 4]].T
    longest = int((images * -(-pixels // shape.lanes)).max())
    blocks = -(-near_tiles // max(1, room // longest // shape.columns))
    block_tiles = -(-near_tiles // blocks)
    blocks = -(-near_tiles // block_tiles)
    slot = -(-shape.rows * shape.columns // shape.lanes) * shape.lanes
    chunk_size = p.groups * far_tiles * near_tiles * slot
    pieces = min(int(pieces[0]) for _, _, pieces in bands)
    chunks = chunks_of(pieces, p.groups, SUMS_BYTES // (chunk_size * p.itemsize))
    # Chunks of one size, if that can be.
    chunks = next((n for n in range(chunks, chunks // 2, -1) if pieces % n == 0), chunks)
    x, grad = ("near", "far") if filters_far else ("far", "near")
    far_offsets = _offsets(far, shape.rows, near_tiles * slot, shape.columns)
    near_offsets = _offsets(near, shape.columns, slot, 1)
    freeze(far_offsets, near_offsets, *(pieces for _, _, pieces in bands))
    record = record_of(
        LAYOUT,
        p,
        **{"far_offsets": far_offsets, "near_offsets": near_offsets},
        x_plane=p.H * p.W,
        x_pitch=x_pitch,
        **{"stride_h": p.stride[0], "stride_w": p.stride[1]},
        **{"far": far, "near": near, "filters_far": filters_far},
        **{f"{x}_plane": x_pitch, f"{x}_image": p.C * x_pitch},
        **{f"{grad}_plane": p.P, f"{grad}_image": p.K * p.P},
        chunks=chunks,
        blocks=blocks,
        ranges=min(far_tiles, -(-PARTS // (chunks * p.groups * blocks))),
        **{"block_tiles": block_tiles, "far_tiles": far_tiles, "near_tiles": near_tiles},
        **{"rows": shape.rows, "columns": shape.columns, "slot": slot},
        group_size=far_tiles * near_tiles * slot,
        chunk_size=chunk_size,
    )
    picked = max(band[1] for band in bands) * p.C * x_pitch if strided else 0
    return Cut(shape, record, bands, far_offsets, near_offsets, picked, chunks * chunk_size)


def _bands(
    problem: Conv2dProblem, lanes: int, most: int, wanted: int, filters_far: bool
) -> tuple[tuple[int, int, NDArray[np.int64]], ...]:
    """Return the bands of `Cut`: of at most so many images, with pieces of so many vectors."""
    p, vectors = problem, -(-problem.P // lanes)
    images = max(1, wanted // vectors)
    bands = []
    for b0, b1 in split_below(max(1, p.N), most):
        pieces = []
        for (n0, n1), (v0, v1) in product(
            split_below(b1 - b0, images), split_below(vectors, wanted)
        ):
            first = (b0 + n0, n0) if filters_far else (n0, b0 + n0)
            start, end = v0 * lanes, min(v1 * lanes, p.P)
            pieces.append((*first, n1 - n0, start, end - start))
        bands.append((b0, b1 - b0, np.array([len(pieces), *chain(*pieces)])))
    return tuple(bands)


def _offsets(planes: int, wide: int, tile: int, step: int) -> NDArray[np.int64]:
    """Return where the sums of each plane begin: by its tile, and its number in that."""
    offsets = np.empty(planes, np.int64)
    for number, first in enumerate(tile_starts(planes, wide)):
        offsets[first : first + wide] = number * tile + step * np.arange(wide)
    return offsets


@lru_cache(maxsize=1024)
def _work(problem: Conv2dProblem) -> float:
    """Return about how many seconds one core takes, memory apart."""
    p, cut = problem, cut_of(problem)
    cycles = _cycles(p, cut.shape) + 3.0 * p.K * p.taps * cut.record[0].chunks
    cycles += 1.0 * p.N * p.C * p.P if cut.picked else 0.0
    return float(cycles) / CYCLES_PER_SECOND


@lru_cache(maxsize=64)
def _code(shape: PlaneProductShape, step: int) -> NDArray[Any]:
    """Return the record `CODE`, for pixels `step` columns apart, or any number of them if 0."""
    pick = pixel_picker_address(step, shape.bits, shape.lanes)
    record = record_of(CODE, pick=pick, microkernel=plane_product_address(shape))
    return record.view(np.int64)


class Direct1x1WeightGrad(Gradient):
    """Products of planes with planes, pixels of strided layers copied first."""

    def refusal(self, problem: Conv2dProblem) -> str | None:
        """Take what needs little memory for copied pixels and sums."""
        p, instructions = problem, cpu.describe().instructions
        if not instructions.masks:
            return f"needs loads by mask, which {instructions.name} vectors do not have"
        cut = cut_of(p)
        if cut.picked * p.itemsize > PICKED_BYTES:
            return f"needs {cut.picked * p.itemsize / 2**20:.1f} MiB for the pixels of one image"
        if cut.sums * p.itemsize > SUMS_BYTES + 2 * p.weight_bytes:
            return f"needs sums of {cut.sums * p.itemsize / p.weight_bytes:.0f} times the weights"
        return compiler_missing()

    def estimated_seconds(self, problem: Conv2dProblem, threads: int) -> float:
        """Count instructions and the bytes that pass."""
        moving = (problem.input_bytes + problem.output_bytes) / 60e9
        return 15e-6 + _work(problem) / threads + moving

    def workspace_bytes(self, problem: Conv2dProblem) -> int:
        """Count copied pixels, and the sums."""
        cut = cut_of(problem)
        return (cut.picked + cut.sums) * problem.itemsize

    def run(self, problem: Conv2dProblem, factor: Array, grad_output: Array, out: Array) -> None:
        """Fill `out`, (K, C / groups, 1, 1), with the gradient of the weights."""
        p, x, cut = problem, factor, cut_of(problem)
        g, code = cut.record[0], _code(cut.shape, p.stride[1] if p.stride[1] <= 2 else 0)
        items, most = int(p.groups * g.chunks * g.blocks * g.ranges), useful_threads(_work(p))
        with (
            scratch("bands", (cut.picked,), p.dtype) as picked,
            scratch("sums", (cut.sums,), p.dtype) as sums,
        ):
            for first, images, pieces in cut.bands:
                pixels = x
                if cut.picked:
                    some = x[first : first + images]
                    loops = BandLoops(cut, code, most, (some, grad_output), sums)
                    loops.run(pick_address(), images * p.C, picked, pieces)
                    pixels = as_read_only(picked)
                factors = (grad_output, pixels) if g.filters_far else (pixels, grad_output)
                loops = BandLoops(cut, code, most, factors, sums)
                loops.run(multiply_address(), items, picked, pieces)
            loops.finish(add_plane_sums_address(cut.shape.bits), p.K, out)
