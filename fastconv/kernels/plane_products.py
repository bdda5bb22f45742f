"""Weight gradients of 1x1 kernels with pixels in the lanes: the loops around their tiles.

The pixels are cut into chunks, each with sums of its own, and a chunk into pieces; the channels
into blocks that the second-level cache holds while all filters pass over a piece of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.codegen.plane_product import ARGUMENTS, PlaneProduct
from fastconv.codegen.rows import copy_row
from fastconv.kernels.calls import address, call
from fastconv.kernels.jit import address_of, range_kernel


class PlaneProductShape(NamedTuple):
    """What a tile is compiled for: filters and channels, and vectors."""

    filters: int
    channels: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """What the kernel is called; docs/kernels.md has the grammar."""
        return f"gradient-planes-f{self.bits}x{self.lanes}-{self.filters}x{self.channels}"


_shapes: dict[str, PlaneProductShape] = {}


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def _write_tile(typingctx, name, arguments):  # type: ignore[no-untyped-def]
    """Write the tile of that name."""
    shape = _shapes[name.literal_value]

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        numbers = cgutils.unpack_tuple(builder, values[1])
        tile = PlaneProduct(builder, shape.bits, shape.lanes, numbers)
        tile.emit(shape.filters, shape.channels)
        return context.get_dummy_value()

    return types.void(name, arguments), generate


@lru_cache(maxsize=64)
def plane_product_address(shape: PlaneProductShape) -> int:
    """Return the address of a tile's machine code."""
    name = shape.name
    _shapes[name] = shape

    def tile(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10):  # type: ignore[no-untyped-def]
        _write_tile(name, (a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10))

    return address_of(tile, name, len(ARGUMENTS))


@lru_cache(maxsize=8)
def pixel_picker_address(step: int, bits: int, lanes: int) -> int:
    """Return the address of the machine code that copies the pixels of a plane that are wanted.

    Its arguments: addresses of target and plane; rows and columns that are wanted; elements from
    row to row of those, the width of the plane, and its pixels from column to column, which are
    `step` unless that is 0. It writes up to one vector more than is wanted.
    """
    size = bits // 8

    def pick(target, source, rows, columns, apart, width, distance):  # type: ignore[no-untyped-def]
        for i in range(rows):
            to, row = target + i * columns * size, source + i * apart * size
            copy_row(to, row, width, 0, distance, columns, step, bits, lanes)

    return address_of(pick, f"picked-f{bits}x{lanes}-s{step}", 7)


#: The numbers that the loops read from the layer's record.
FIELDS = (
    *("itemsize", "C", "K", "W", "OH", "OW", "groups", "C_per_group", "K_per_group", "taps"),
    *("x_plane", "x_pitch", "grad_plane", "down", "across", "chunks", "blocks", "ranges"),
    *("block_tiles", "filter_tiles", "tap_tiles", "tile_filters", "tile_taps"),
    *("slot", "chunk_size"),
)
LAYOUT = np.dtype((np.record, [(name, np.int64) for name in FIELDS]))


@range_kernel
def pick_pixels(
    start: int, stop: int, pick: int, image: int, x: Any, picked: Any, layer: Any
) -> None:
    """Copy planes `start` to `stop`, counted from the first of `image` on, each to its place."""
    g, size = layer[0], layer[0].itemsize
    for plane in range(start, stop):
        target = address(picked) + plane * g.x_pitch * size
        source = address(x) + (image * g.C + plane) * g.x_plane * size
        call(pick, (target, source, g.OH, g.OW, g.down * g.W, g.W, g.across))


@range_kernel
def multiply_planes(
    start: int,
    stop: int,
    tile: int,
    fresh: int,
    x: Any,
    grad: Any,
    pieces: Any,
    sums: Any,
    layer: Any,
) -> None:
    """Do items `start` to `stop`: a group's chunk of pixels, block of channels, range of filters.

    `tile` is the address of machine code. `pieces` holds of each piece its first image in `x` and
    in `grad`, how many images there are, the first pixel and how many pixels. `sums` is (chunks,
    groups, filter tiles, tap tiles, sums of a tile), and is only written if it is `fresh`.
    """
    g, size = layer[0], layer[0].itemsize
    for number in range(start, stop):
        number, some = divmod(number, g.ranges)
        number, block = divmod(number, g.blocks)
        group, chunk = divmod(number, g.chunks)
        t0 = some * g.filter_tiles // g.ranges
        t1 = (some + 1) * g.filter_tiles // g.ranges
        c0 = block * g.block_tiles
        c1 = min(c0 + g.block_tiles, g.tap_tiles)
        p0 = chunk * len(pieces) // g.chunks
        p1 = (chunk + 1) * len(pieces) // g.chunks
        for p in range(p0, p1):
            first = int(fresh and p == p0)
            pixel = pieces[p, 3]
            x_group = (pieces[p, 0] * g.C + group * g.C_per_group) * g.x_pitch + pixel
            grads = (pieces[p, 1] * g.K + group * g.K_per_group) * g.grad_plane + pixel
            for t in range(t0, t1):
                # The last tiles move back until they fit; each has its own sums.
                k = min(t * g.tile_filters, g.K_per_group - g.tile_filters)
                slot = ((chunk * g.groups + group) * g.filter_tiles + t) * g.tap_tiles
                for tap in range(c0, c1):
                    c = min(tap * g.tile_taps, g.C_per_group - g.tile_taps)
                    # The next filters are asked for once, while these meet the first channels.
                    ahead = g.tile_filters * g.grad_plane if tap == c0 else 0
                    call(
                        tile,
                        (
                            address(x) + (x_group + c * g.x_pitch) * size,
                            address(grad) + (grads + k * g.grad_plane) * size,
                            address(sums) + (slot + tap) * g.slot * size,
                            pieces[p, 2],
                            g.C * g.x_pitch,
                            g.K * g.grad_plane,
                            g.x_pitch,
                            g.grad_plane,
                            pieces[p, 4],
                            first,
                            ahead,
                        ),
                    )
