"""Weight gradients of 1x1 kernels: the loops around their microkernel.

Of input channels and output channels, the fewer ones are the planes of B, the others those of A.
The pixels are divided into chunks with separate sums, and each chunk into blocks of pixels. The
planes of B are divided into blocks that fit L2: all planes of A are multiplied by one block, for
one block of pixels, before the next.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastconv.codegen.direct_1x1_weight_grad_microkernel import (
    ARGUMENTS,
    Direct1x1WeightGradMicrokernel,
)
from fastconv.codegen.integers import Integer, counted, integer_at
from fastconv.codegen.machine_function import machine_function
from fastconv.codegen.packing import copy_row
from fastconv.codegen.sums_over_pixels import store_total
from fastconv.codegen.vector import I64, vectors
from fastconv.core.records import record_type
from fastconv.kernels.weight_grad_loops import Loops, machine_loops


class Direct1x1WeightGradShape(NamedTuple):
    """The compile-time parameters of a microkernel: planes of A and B in a tile, bits and lanes."""

    rows: int
    columns: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """The kernel's name; docs/kernels.md has the grammar."""
        return f"direct-1x1-weight-grad-f{self.bits}x{self.lanes}-{self.rows}x{self.columns}"


@machine_function(lambda shape: shape.name, *ARGUMENTS)
def direct_1x1_weight_grad_address(builder: Any, v: Any, shape: Direct1x1WeightGradShape) -> None:
    """Emit a microkernel."""
    tile = Direct1x1WeightGradMicrokernel(builder, shape.bits, shape.lanes, v)
    tile.emit(shape.rows, shape.columns)


@machine_function(
    lambda step, bits, lanes: f"subsample-f{bits}x{lanes}-s{step}",
    *("target", "source", "rows", "columns", "row_step", "width", "column_step"),
)
def subsampler_address(builder: Any, v: Any, step: int, bits: int, lanes: int) -> None:
    """Emit the code that copies a strided subset of a plane's pixels.

    Its arguments: addresses of target and plane; the numbers of rows and columns to copy; the row
    stride in elements, the width of the plane, and the column stride, which is `step` unless that
    is 0. It writes up to one vector beyond the end.
    """
    vector, size = vectors(builder, bits, lanes), bits // 8
    with counted(builder, 0, v.rows) as i:
        target, row = v.target + i * v.columns * size, v.source + i * v.row_step * size
        copy_row(vector, target, row, v.width, (0, v.column_step, v.columns), step)


#: The parameters of a partition. `a_planes` and `b_planes` count the planes of a group; the last
#: fields are addresses of the offset of each plane's sums within those of a group.
LAYOUT = record_type(
    *("itemsize", "C", "W", "OH", "OW", "groups", "x_plane", "x_pitch", "stride_h", "stride_w"),
    *("a_planes", "b_planes", "a_image", "b_image", "a_plane", "b_plane", "grad_is_a"),
    *("chunks", "blocks", "ranges", "block_tiles", "a_tiles", "b_tiles", "rows", "columns"),
    *("slot", "group_size", "chunk_size", "a_offsets", "b_offsets"),
)
#: Addresses of machine code.
CODE = record_type("subsample", "microkernel")


@machine_loops(lambda: "subsample-pixels", LAYOUT, CODE)
def subsample_address(w: Loops, plane: Integer) -> None:
    """Emit the loops that subsample planes of `x` into `memory`."""
    g = w.g
    target, source = w.v.memory + plane * g.x_pitch * w.size, w.v.x + plane * g.x_plane * w.size
    sizes = g.OH, g.OW, g.stride_h * g.W, g.W, g.stride_w
    w.call(w.code.subsample, target, source, *sizes)


@machine_loops(lambda: "direct-1x1-weight-grad", LAYOUT, CODE)
def multiply_address(w: Loops, item: Integer) -> None:
    """Emit the loops over products of planes.

    An item is a range of the planes of A, a block of the planes of B, a group and a chunk. `x` is A
    and `grad` is B. `band` holds the number of blocks of pixels, and for each its first image in A
    and in B, the number of images, the first pixel and the number of pixels. `sums` is (chunks,
    groups, tiles of A, tiles of B, sums of a tile); the band with the first images overwrites it.
    """
    builder, g, size = w.builder, w.g, w.size
    some, number = item % g.ranges, item // g.ranges
    block, number = number % g.blocks, number // g.blocks
    group, chunk = number // g.chunks, number % g.chunks
    pixel_blocks, a_image, b_image = (integer_at(builder, w.v.band, n) for n in range(3))
    fresh = builder.and_(a_image.compare("==", 0), b_image.compare("==", 0))
    p0, p1 = chunk * pixel_blocks // g.chunks, (chunk + 1) * pixel_blocks // g.chunks
    i0, i1 = some * g.a_tiles // g.ranges, (some + 1) * g.a_tiles // g.ranges
    j0 = block * g.block_tiles
    j1 = (j0 + g.block_tiles).at_most(g.b_tiles)
    with counted(builder, p0, p1) as p:
        pixel_block = w.v.band + (p * 5 + 1) * 8
        a_image, b_image, images, pixel, pixels = (
            integer_at(builder, pixel_block, n) for n in range(5)
        )
        a = a_image * g.a_image + group * g.a_planes * g.a_plane + pixel
        b = b_image * g.b_image + group * g.b_planes * g.b_plane + pixel
        first = Integer(builder, builder.zext(builder.and_(fresh, p.compare("==", p0)), I64))
        with counted(builder, i0, i1) as i, counted(builder, j0, j1) as j:
            # The last tiles are shifted back to fit; each has its own sums.
            row = (i * g.rows).at_most(g.a_planes - g.rows)
            column = (j * g.columns).at_most(g.b_planes - g.columns)
            # Prefetch the next planes of A, one after the other.
            ahead = (g.rows + (j - j0) % g.rows) * g.a_plane
            x = w.v.x + (a + row * g.a_plane) * size
            y = w.v.grad + (b + column * g.b_plane) * size
            slot = chunk * g.chunk_size + group * g.group_size + (i * g.b_tiles + j) * g.slot
            steps = g.a_image, g.b_image, g.a_plane, g.b_plane
            arrays = x, y, w.v.sums + slot * size
            w.call(w.code.microkernel, *arrays, images, *steps, pixels, first, ahead)


@machine_loops(lambda bits: f"direct-1x1-weight-grad-sums-f{bits}", LAYOUT, CODE)
def reduce_chunks_1x1_address(w: Loops, item: Integer, bits: int) -> None:
    """Emit the loop that reduces the sums of all chunks, from `memory`.

    An item is an output channel. The result, in `sums`, is (filters, channels).
    """
    builder, g, vector = w.builder, w.g, vectors(w.builder, bits, 1)
    grad_is_a = g.grad_is_a.compare("!=", 0)
    filters, channels = (
        g.a_planes.choose(grad_is_a, g.a_planes, g.b_planes),
        g.a_planes.choose(grad_is_a, g.b_planes, g.a_planes),
    )
    group, k = item // filters, item % filters
    with counted(builder, 0, channels) as c:
        i = integer_at(builder, g.a_offsets, k.choose(grad_is_a, k, c))
        j = integer_at(builder, g.b_offsets, k.choose(grad_is_a, c, k))
        source = w.v.memory + (group * g.group_size + i + j) * w.size
        target = w.v.sums + (item * channels + c) * w.size
        store_total(vector, target, source, g.chunks, g.chunk_size)
