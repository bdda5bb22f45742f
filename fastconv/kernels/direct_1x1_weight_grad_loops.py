"""Weight gradients of 1x1 kernels: the loops around their microkernel.

Of the input channels and the output channels those that are fewer are the near factor, the others
the far one. The pixels are cut into chunks, each with sums of its own, and a chunk into pieces; the
near planes into blocks that L2 holds while all far planes pass over a piece of them.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from fastconv.codegen.direct_1x1_weight_grad_microkernel import ARGUMENTS, PlaneProduct
from fastconv.codegen.integers import Integer, counted, integer_at, integers
from fastconv.codegen.packing import copy_row
from fastconv.codegen.sums_over_pixels import store_total
from fastconv.codegen.vector import I64, vectors
from fastconv.core.records import record_type
from fastconv.jit.emitter import emitted_address
from fastconv.kernels.weight_grad_loops import Loops, emitted_loops


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


#: The numbers of a cut. `far` and `near` are how many planes a group has; the last ones are
#: addresses of where a plane's sums lie in those of a group.
LAYOUT = record_type(
    *("itemsize", "C", "W", "OH", "OW", "groups", "x_plane", "x_pitch", "stride_h", "stride_w"),
    *("far", "near", "far_image", "near_image", "far_plane", "near_plane", "filters_far"),
    *("chunks", "blocks", "ranges", "block_tiles", "far_tiles", "near_tiles", "rows", "columns"),
    *("slot", "group_size", "chunk_size", "far_offsets", "near_offsets"),
)
#: Addresses of machine code.
CODE = record_type("pick", "microkernel")


@cache
def pick_address() -> int:
    """Return the address of what copies to `memory` the pixels that are read of a plane of `x`."""
    return emitted_loops("pick-pixels", _pick, LAYOUT, CODE)


def _pick(w: Loops, plane: Integer) -> None:
    g = w.g
    target, source = w.v.memory + plane * g.x_pitch * w.size, w.v.x + plane * g.x_plane * w.size
    sizes = g.OH, g.OW, g.stride_h * g.W, g.W, g.stride_w
    w.call(w.code.pick, target, source, *sizes)


@cache
def multiply_address() -> int:
    """Return the address of what does a chunk of a group's pixels, a block of its near planes.

    An item has a range of the far planes. `x` is the far factor and `grad` the near one. `band`
    holds how many pieces there are, then of each its first image in the far and in the near factor,
    how many images, the first pixel and how many pixels. `sums` is (chunks, groups, far tiles, near
    tiles, sums of a tile), which the band with the first images writes only.
    """
    return emitted_loops("direct-1x1-weight-grad", _multiply, LAYOUT, CODE)


def _multiply(w: Loops, item: Integer) -> None:
    builder, g, size = w.builder, w.g, w.size
    some, number = item % g.ranges, item // g.ranges
    block, number = number % g.blocks, number // g.blocks
    group, chunk = number // g.chunks, number % g.chunks
    pieces, far_image, near_image = (integer_at(builder, w.v.band, n) for n in range(3))
    fresh = builder.and_(far_image.compare("==", 0), near_image.compare("==", 0))
    p0, p1 = chunk * pieces // g.chunks, (chunk + 1) * pieces // g.chunks
    i0, i1 = some * g.far_tiles // g.ranges, (some + 1) * g.far_tiles // g.ranges
    j0 = block * g.block_tiles
    j1 = (j0 + g.block_tiles).at_most(g.near_tiles)
    with counted(builder, p0, p1) as p:
        piece = w.v.band + (p * 5 + 1) * 8
        far_image, near_image, images, pixel, pixels = (
            integer_at(builder, piece, n) for n in range(5)
        )
        far = far_image * g.far_image + group * g.far * g.far_plane + pixel
        near = near_image * g.near_image + group * g.near * g.near_plane + pixel
        first = Integer(builder, builder.zext(builder.and_(fresh, p.compare("==", p0)), I64))
        with counted(builder, i0, i1) as i, counted(builder, j0, j1) as j:
            # The last tiles move back until they fit; each has its own sums.
            row = (i * g.rows).at_most(g.far - g.rows)
            column = (j * g.columns).at_most(g.near - g.columns)
            # The next far planes are prefetched meanwhile, one after the other.
            ahead = (g.rows + (j - j0) % g.rows) * g.far_plane
            x = w.v.x + (far + row * g.far_plane) * size
            y = w.v.grad + (near + column * g.near_plane) * size
            slot = chunk * g.chunk_size + group * g.group_size + (i * g.near_tiles + j) * g.slot
            steps = g.far_image, g.near_image, g.far_plane, g.near_plane
            arrays = x, y, w.v.sums + slot * size
            w.call(w.code.microkernel, *arrays, images, *steps, pixels, first, ahead)


@cache
def add_plane_sums_address(bits: int) -> int:
    """Return the address of what adds up the chunks' sums, in `memory`, for a filter.

    The result, in `sums`, is (filters, channels).
    """

    def write(w: Loops, item: Integer) -> None:
        builder, g, vector = w.builder, w.g, vectors(w.builder, bits, 1)
        far = g.filters_far.compare("!=", 0)
        filters, channels = g.far.choose(far, g.far, g.near), g.far.choose(far, g.near, g.far)
        group, k = item // filters, item % filters
        with counted(builder, 0, channels) as c:
            i = integer_at(builder, g.far_offsets, k.choose(far, k, c))
            j = integer_at(builder, g.near_offsets, k.choose(far, c, k))
            source = w.v.memory + (group * g.group_size + i + j) * w.size
            target = w.v.sums + (item * channels + c) * w.size
            store_total(vector, target, source, g.chunks, g.chunk_size)

    return emitted_loops(f"direct-1x1-weight-grad-sums-f{bits}", write, LAYOUT, CODE)
