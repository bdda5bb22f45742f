"""Weight gradients of 1x1 kernels: the loops around their microkernel.

Of the input channels and the output channels those that are fewer are the near factor, the others
the far one. The pixels are cut into chunks, each with sums of its own, and a chunk into pieces; the
near planes into blocks that L2 holds while all far planes pass over a piece of them.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from fastconv.codegen.direct_1x1_weight_grad_microkernel import ARGUMENTS, PlaneProduct
from fastconv.codegen.integers import counted, integers
from fastconv.codegen.packing import copy_row
from fastconv.codegen.vector import vectors
from fastconv.core.records import record_type
from fastconv.jit.compiler import range_kernel
from fastconv.jit.emitter import emitted_address
from fastconv.jit.pointers import address, call


class PlaneProductShape(NamedTuple):
    """What a tile is compiled for: planes of the far and of the near factor, and vectors."""

    rows: int
    columns: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """What the kernel is called; docs/kernels.md has the grammar."""
        return f"gradient-planes-f{self.bits}x{self.lanes}-{self.rows}x{self.columns}"


@cache
def plane_product_address(shape: PlaneProductShape) -> int:
    """Return the address of a tile's machine code."""

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        tile = PlaneProduct(builder, shape.bits, shape.lanes, arguments)
        tile.emit(shape.rows, shape.columns)

    return emitted_address(shape.name, ARGUMENTS, emit)


@cache
def pixel_picker_address(step: int, bits: int, lanes: int) -> int:
    """Return the address of the machine code that copies the pixels of a plane that are read.

    Its arguments: addresses of target and plane; how many rows and columns are read; elements from
    one of these rows to the next, the width of the plane, and pixels from one column to the next,
    which are `step` unless that is 0. It writes up to one vector beyond the end.
    """
    size = bits // 8

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        v, vector = integers(builder, arguments), vectors(builder, bits, lanes)
        with counted(builder, 0, v.rows) as i:
            target, row = v.target + i * v.columns * size, v.source + i * v.row_step * size
            copy_row(vector, target, row, v.width, 0, v.column_step, v.columns, step)

    names = "target", "source", "rows", "columns", "row_step", "width", "column_step"
    return emitted_address(f"picked-f{bits}x{lanes}-s{step}", names, emit)


#: The numbers that the loops read from the layer's record. `far` and `near` are how many planes a
#: group has.
LAYOUT = record_type(
    *("itemsize", "C", "W", "OH", "OW", "groups", "x_plane", "x_pitch", "stride_h", "stride_w"),
    *("far", "near", "far_image", "near_image", "far_plane", "near_plane", "filters_far"),
    *("chunks", "blocks", "ranges", "block_tiles", "far_tiles", "near_tiles", "rows", "columns"),
    *("slot", "group_size", "chunk_size"),
)


@range_kernel
def pick_pixels(
    start: int, stop: int, pick: int, image: int, x: Any, picked: Any, layer: Any
) -> None:
    """Copy the pixels that are read of planes `start` to `stop`, counted from `image` on."""
    g, size = layer[0], layer[0].itemsize
    for plane in range(start, stop):
        target = address(picked) + plane * g.x_pitch * size
        source = address(x) + (image * g.C + plane) * g.x_plane * size
        call(pick, (target, source, g.OH, g.OW, g.stride_h * g.W, g.W, g.stride_w))


@range_kernel
def multiply_planes(
    start: int,
    stop: int,
    microkernel: int,
    fresh: int,
    far: Any,
    near: Any,
    pieces: Any,
    sums: Any,
    layer: Any,
) -> None:
    """Do items `start` to `stop`: a group's chunk of pixels, block of near planes, range of far.

    `pieces` holds of each piece its first image in `far` and in `near`, how many images there are,
    the first pixel and how many pixels. `sums` is (chunks, groups, far tiles, near tiles, sums of a
    tile), and is only written if it is `fresh`.
    """
    g, size = layer[0], layer[0].itemsize
    for item in range(start, stop):
        number, some = divmod(item, g.ranges)
        number, block = divmod(number, g.blocks)
        group, chunk = divmod(number, g.chunks)
        i0, i1 = some * g.far_tiles // g.ranges, (some + 1) * g.far_tiles // g.ranges
        j0 = block * g.block_tiles
        j1 = min(j0 + g.block_tiles, g.near_tiles)
        p0, p1 = chunk * len(pieces) // g.chunks, (chunk + 1) * len(pieces) // g.chunks
        for p in range(p0, p1):
            pixel = pieces[p, 3]
            far_group = pieces[p, 0] * g.far_image + group * g.far * g.far_plane + pixel
            near_group = pieces[p, 1] * g.near_image + group * g.near * g.near_plane + pixel
            for i in range(i0, i1):
                # The last tiles move back until they fit; each has its own sums.
                row = min(i * g.rows, g.far - g.rows)
                slot = chunk * g.chunk_size + group * g.group_size + i * g.near_tiles * g.slot
                x = address(far) + (far_group + row * g.far_plane) * size
                for j in range(j0, j1):
                    column = min(j * g.columns, g.near - g.columns)
                    # The next far planes are prefetched meanwhile, one after the other.
                    ahead = (g.rows + (j - j0) % g.rows) * g.far_plane
                    y = address(near) + (near_group + column * g.near_plane) * size
                    to = address(sums) + (slot + j * g.slot) * size
                    steps = g.far_image, g.near_image, g.far_plane, g.near_plane
                    first = int(fresh and p == p0)
                    call(microkernel, (x, y, to, pieces[p, 2], *steps, pieces[p, 4], first, ahead))


@range_kernel
def add_plane_sums(
    start: int, stop: int, far_offsets: Any, near_offsets: Any, sums: Any, out: Any, layer: Any
) -> None:
    """Add up the chunks' sums for filters `start` to `stop`; `out` is (filters, channels), flat.

    `far_offsets` and `near_offsets` say where a plane's sums lie in those of a group.
    """
    g = layer[0]
    filters, channels = (g.far, g.near) if g.filters_far else (g.near, g.far)
    for number in range(start, stop):
        group, k = divmod(number, filters)
        for c in range(channels):
            i, j = (k, c) if g.filters_far else (c, k)
            element = group * g.group_size + far_offsets[i] + near_offsets[j]
            total = sums[element]
            for chunk in range(1, g.chunks):
                total += sums[chunk * g.chunk_size + element]
            out[number * channels + c] = total
