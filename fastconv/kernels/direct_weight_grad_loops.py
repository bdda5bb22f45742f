"""Weight gradients vectorized over output width: the loops around their microkernel.

The pixels are divided into chunks with separate sums, and each chunk into blocks of pixels that fit
the caches. All tiles of output channels and taps are computed for one block before the next.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastconv.codegen.direct_weight_grad_microkernel import (
    ARGUMENTS,
    DirectWeightGradMicrokernel,
    Taps,
)
from fastconv.codegen.integers import Integer, counted, integer_at
from fastconv.codegen.machine_function import machine_function
from fastconv.codegen.sums_over_pixels import store_total
from fastconv.codegen.vector import I64, vectors
from fastconv.core.records import record_type
from fastconv.kernels.weight_grad_loops import Loops, machine_loops


class DirectWeightGradShape(NamedTuple):
    """The compile-time parameters of a microkernel: tile, horizontal stride, bits and lanes."""

    taps: Taps
    step: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """The kernel's name; docs/kernels.md has the grammar."""
        taps = "x".join(map(str, self.taps))
        return f"direct-weight-grad-f{self.bits}x{self.lanes}-{taps}-s{self.step}"


@machine_function(lambda shape: shape.name, *ARGUMENTS)
def direct_weight_grad_address(builder: Any, v: Any, shape: DirectWeightGradShape) -> None:
    """Emit a microkernel."""
    tile = DirectWeightGradMicrokernel(builder, shape.bits, shape.lanes, v)
    tile.emit(shape.taps, shape.step)


#: The parameters of a partition. The last fields are addresses: of the first channel, kernel row
#: and kernel column of each tile of taps; of the offset of each tap's sum within those of a filter
#: tile, for its first filter; and of a row of zeros.
LAYOUT = record_type(
    *("itemsize", "N", "C", "K", "H", "W", "OH", "OW", "x_plane", "grad_plane", "groups"),
    *("C_per_group", "K_per_group", "taps", "stride_h", "dilation_h", "dilation_w"),
    *("pad_top", "pad_left", "pixel_block_count", "chunks", "ranges", "filter_tiles"),
    *("tap_tile_count", "tile_filters", "tile_taps", "slot", "chunk_size"),
    *("tap_tiles", "tap_offsets", "zeros"),
)
#: Addresses of machine code.
CODE = record_type("microkernel")


@machine_loops(lambda: "direct-weight-grad", LAYOUT, CODE)
def correlate_address(w: Loops, item: Integer) -> None:
    """Emit the loops; an item is a range of filters of one group and chunk.

    `band` holds for each block of pixels the first image, the number of images, the first row and
    the number of rows. `sums` is (chunks, groups, filter tiles, tap tiles, sums of a tile).
    """
    g = w.g
    number, some = item // g.ranges, item % g.ranges
    group, chunk = number // g.chunks, number % g.chunks
    t0, t1 = some * g.filter_tiles // g.ranges, (some + 1) * g.filter_tiles // g.ranges
    p0, p1 = chunk * g.pixel_block_count // g.chunks, (chunk + 1) * g.pixel_block_count // g.chunks
    with counted(w.builder, p0, p1) as pixel_block, counted(w.builder, t0, t1) as t:
        first = Integer(w.builder, w.builder.zext(pixel_block.compare("==", p0), I64))
        slot = ((chunk * g.groups + group) * g.filter_tiles + t) * g.tap_tile_count
        with counted(w.builder, 0, g.tap_tile_count) as tap:
            _correlate_tile(
                w, pixel_block, group, (t, tap), w.v.sums + (slot + tap) * g.slot * w.size, first
            )


def _correlate_tile(
    w: Loops,
    pixel_block: Integer,
    group: Integer,
    tile: tuple[Integer, Integer],
    sums: Integer,
    first: Integer,
) -> None:
    """Emit the call of the microkernel for a block of pixels, a filter tile and a tap tile."""
    g, size, (t, tap) = w.g, w.size, tile
    image, images, row, rows = (
        integer_at(w.builder, w.v.band, pixel_block * 4 + n) for n in range(4)
    )
    c, r, s = (integer_at(w.builder, g.tap_tiles, tap * 3 + n) for n in range(3))
    # The last tiles are shifted back to fit; each has its own sums.
    k = (t * g.tile_filters).at_most(g.K_per_group - g.tile_filters)
    x = w.v.x + (image * g.C + group * g.C_per_group + c) * g.x_plane * size
    grad = w.v.grad + (image * g.K + group * g.K_per_group + k) * g.grad_plane * size
    steps = g.C * g.x_plane, g.K * g.grad_plane, g.x_plane, g.grad_plane
    top, left = r * g.dilation_h - g.pad_top, s * g.dilation_w - g.pad_left
    sizes = g.H, g.W, g.OW, row, row + rows, top, left
    distances = g.stride_h, g.dilation_h, g.dilation_w
    w.call(w.code.microkernel, x, grad, sums, g.zeros, images, *steps, *sizes, *distances, first)


@machine_loops(lambda bits: f"direct-weight-grad-sums-f{bits}", LAYOUT, CODE)
def reduce_chunks_address(w: Loops, item: Integer, bits: int) -> None:
    """Emit the loop that reduces the sums of all chunks, from `memory`.

    An item is an output channel. The result, in `sums`, is (filters, taps).
    """
    g, vector = w.g, vectors(w.builder, bits, 1)
    group, k = item // g.K_per_group, item % g.K_per_group
    t = (k // g.tile_filters).at_most(g.filter_tiles - 1)
    f = k - (t * g.tile_filters).at_most(g.K_per_group - g.tile_filters)
    begin = (group * g.filter_tiles + t) * g.tap_tile_count * g.slot + f * g.tile_taps
    with counted(w.builder, 0, g.taps) as tap:
        element = begin + integer_at(w.builder, g.tap_offsets, tap)
        target, source = item * g.taps + tap, w.v.memory + element * w.size
        store_total(vector, w.v.sums + target * w.size, source, g.chunks, g.chunk_size)
