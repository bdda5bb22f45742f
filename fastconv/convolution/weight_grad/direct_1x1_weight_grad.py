"""The gradient of the weights of 1x1 kernels: planes times planes, read where they lie.

Of a strided layer the pixels that its windows see are copied first, some images at a time.

The cut into chunks and pieces depends on the problem alone, and so does the order of every sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution.algorithm import Array, Gradient, compiler_missing
from fastconv.convolution.blocking.partition import PARTS, split
from fastconv.convolution.blocking.tile_search import CYCLES_PER_SECOND
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels.direct_1x1_weight_grad_loops import (
    LAYOUT,
    PlaneProductShape,
    add_plane_sums,
    multiply_planes,
    pick_pixels,
    pixel_picker_address,
    plane_product_address,
)
from fastconv.runtime import cpu
from fastconv.runtime.threads import useful_threads
from fastconv.runtime.workspace import scratch

# Vectors of pixels that are added up before their sum is added to the others: more make less of the
# sums across lanes, fewer leave more planes to the second-level cache.
FEWEST_VECTORS, MOST_VECTORS = 64, 256
# Sums of all chunks; the first is always there.
SUMS_BYTES = 2 * 2**20
# Pixels of a strided layer that are copied at a time.
PICKED_BYTES = 4 * 2**20
# Planes of either factor that one tile may have.
MOST_PLANES = 7


def takes(problem: Conv2dProblem) -> bool:
    """Return whether no window sees more than one pixel, and none a margin."""
    p = problem
    return p.R == p.S == 1 and not any(map(any, p.padding))


class Cut(NamedTuple):
    """How a weight gradient is cut, as the kernels read it.

    Attributes
    ----------
    shape : PlaneProductShape
    record : ndarray of one record
        The numbers `fastconv.kernels.direct_1x1_weight_grad_loops.FIELDS`.
    bands : tuple of (int, int, ndarray of int64, (pieces, 5))
        First image, number of images, and pieces of each band: first image of the far and of the
        near factor, number of images, first pixel and number of pixels.
    far_places, near_places : ndarray of int64
        Where the sums of a plane lie in those of a group.
    picked, sums : int
        Elements for copied pixels, and for the sums.
    """

    shape: PlaneProductShape
    record: NDArray[Any]
    bands: tuple[tuple[int, int, NDArray[np.int64]], ...]
    far_places: NDArray[np.int64]
    near_places: NDArray[np.int64]
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
    # Loads come from the second-level cache, and lie across two lines if planes do.
    loads = (shape.rows + shape.columns) * (1.0 if p.P % shape.lanes == 0 else 1.5)
    step = max(sums / a_cycle, 4, loads / 2) + 0.25 * loads + 0.5
    begun = max(1, vectors / MOST_VECTORS)
    return tiles * (vectors * step + begun * (60 + 4.0 * sums) + 8 * p.N)


@lru_cache(maxsize=128)
def cut_of(problem: Conv2dProblem) -> Cut:
    """Cut a problem into bands, chunks, pieces and tiles, and give all numbers of the cut."""
    p, shape, (far, near) = problem, best_shape(problem), _sides(problem)
    strided, filters_far = p.stride != (1, 1), p.K_per_group >= p.C_per_group
    vectors = -(-p.P // shape.lanes)
    x_pitch = (vectors + 1) * shape.lanes if strided else p.H * p.W
    most = max(1, PICKED_BYTES // (p.C * x_pitch * p.itemsize)) if strided else max(1, p.N)
    # As many vectors of the near planes as the second-level cache holds.
    room = cpu.describe().l2_bytes * 5 // 8 // (shape.lanes * p.itemsize)
    wanted = min(MOST_VECTORS, max(FEWEST_VECTORS, room // near))
    images = max(1, wanted // vectors)
    parts = split(vectors, -(-vectors // wanted))
    bands = []
    for b0, b1 in split(max(1, p.N), -(-max(1, p.N) // most)):
        pieces = []
        for n0, n1 in split(b1 - b0, -(-(b1 - b0) // images)):
            first = (b0 + n0, n0) if filters_far else (n0, b0 + n0)
            for v0, v1 in parts:
                end = min(v1 * shape.lanes, p.P)
                pieces.append((*first, n1 - n0, v0 * shape.lanes, end - v0 * shape.lanes))
        bands.append((b0, b1 - b0, np.array(pieces)))
    far_tiles, near_tiles = -(-far // shape.rows), -(-near // shape.columns)
    longest = max(int(piece[2] * -(-piece[4] // shape.lanes)) for piece in bands[0][2])
    blocks = -(-near_tiles // max(1, room // longest // shape.columns))
    block_tiles = -(-near_tiles // blocks)
    blocks = -(-near_tiles // block_tiles)
    slot = -(-shape.rows * shape.columns // shape.lanes) * shape.lanes
    chunk_size = p.groups * far_tiles * near_tiles * slot
    many = min(len(pieces) for _, _, pieces in bands)
    chunks = min(
        many, PARTS, max(1, SUMS_BYTES // (chunk_size * p.itemsize)), -(-PARTS // p.groups)
    )
    # Alike, if that can be.
    chunks = next((n for n in range(chunks, chunks // 2, -1) if many % n == 0), chunks)
    x = ("near", "far") if filters_far else ("far", "near")
    values: dict[str, int] = {
        **{name: getattr(p, name) for name in ("itemsize", "C", "W", "OH", "OW", "groups")},
        "x_plane": p.H * p.W,
        "x_pitch": x_pitch,
        "down": p.stride[0],
        "across": p.stride[1],
        "far": far,
        "near": near,
        f"{x[0]}_plane": x_pitch,
        f"{x[0]}_image": p.C * x_pitch,
        f"{x[1]}_plane": p.P,
        f"{x[1]}_image": p.K * p.P,
        "filters_far": filters_far,
        "chunks": chunks,
        "blocks": blocks,
        "ranges": min(far_tiles, -(-PARTS // (chunks * p.groups * blocks))),
        "block_tiles": block_tiles,
        "far_tiles": far_tiles,
        "near_tiles": near_tiles,
        "rows": shape.rows,
        "columns": shape.columns,
        "slot": slot,
        "group_size": far_tiles * near_tiles * slot,
        "chunk_size": chunk_size,
    }
    record = np.array([tuple(values[name] for name in LAYOUT.names or ())], LAYOUT)
    far_places = _places(far, shape.rows, near_tiles * slot, shape.columns)
    near_places = _places(near, shape.columns, slot, 1)
    for array in (record, far_places, near_places, *(pieces for _, _, pieces in bands)):
        array.flags.writeable = False
    picked = max(band[1] for band in bands) * p.C * x_pitch if strided else 0
    places = far_places, near_places
    return Cut(shape, record, tuple(bands), *places, picked, chunks * chunk_size)


def _places(planes: int, wide: int, tile: int, step: int) -> NDArray[np.int64]:
    """Return where the sums of each plane begin: by its tile, and its place in that."""
    places = np.empty(planes, np.int64)
    for number in range(-(-planes // wide)):
        first = min(number * wide, planes - wide)
        places[first : first + wide] = number * tile + step * np.arange(wide)
    return places


@lru_cache(maxsize=1024)
def _work(problem: Conv2dProblem) -> float:
    """Return about how many seconds one core takes, memory apart."""
    p, cut = problem, cut_of(problem)
    cycles = _cycles(p, cut.shape) + 3.0 * p.K * p.taps * cut.record[0].chunks
    cycles += 1.0 * p.N * p.C * p.P if cut.picked else 0.0
    return float(cycles) / CYCLES_PER_SECOND


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
        p, cut = problem, cut_of(problem)
        shape, g = cut.shape, cut.record[0]
        tile = plane_product_address(shape)
        x, grad = factor.reshape(-1), grad_output.reshape(-1)
        items, most = int(p.groups * g.chunks * g.blocks * g.ranges), useful_threads(_work(p))
        with (
            scratch("bands", (cut.picked,), p.dtype) as picked,
            scratch("sums", (cut.sums,), p.dtype) as sums,
        ):
            for first, images, pieces in cut.bands:
                if cut.picked:
                    step = p.stride[1] if p.stride[1] <= 2 else 0
                    pick = pixel_picker_address(step, shape.bits, shape.lanes)
                    pick_pixels.on(most, images * p.C, pick, first, x, picked, cut.record)
                pixels = picked if cut.picked else x
                factors = (grad, pixels) if g.filters_far else (pixels, grad)
                rest = int(first == 0), *factors, pieces, sums, cut.record
                multiply_planes.on(most, items, tile, *rest)
            places = cut.far_places, cut.near_places
            add_plane_sums.on(most, p.K, *places, sums, out.reshape(-1), cut.record)
