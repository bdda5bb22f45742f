"""Weight gradients vectorized over output width: the loops around their microkernel.

The pixels are cut into chunks, each with sums of its own, and a chunk into pieces that the caches
hold while all tiles of filters and of taps pass over them.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from fastconv.codegen.direct_weight_grad_microkernel import ARGUMENTS, PixelGradient, Taps
from fastconv.core.records import record_type
from fastconv.jit.compiler import range_kernel
from fastconv.jit.emitter import emitted_address
from fastconv.jit.pointers import address, call


class PixelGradientShape(NamedTuple):
    """What a tile is compiled for: taps and filters, horizontal stride, and vectors."""

    taps: Taps
    step: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """What the kernel is called; docs/kernels.md has the grammar."""
        taps = "x".join(map(str, self.taps))
        return f"gradient-pixels-f{self.bits}x{self.lanes}-{taps}-s{self.step}"


@cache
def pixel_gradient_address(shape: PixelGradientShape) -> int:
    """Return the address of a tile's machine code."""

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        PixelGradient(builder, shape.bits, shape.lanes, arguments).emit(shape.taps, shape.step)

    return emitted_address(shape.name, ARGUMENTS, emit)


#: The numbers that the loops read from the layer's record.
LAYOUT = record_type(
    *("itemsize", "N", "C", "K", "H", "W", "OH", "OW", "x_plane", "grad_plane", "groups"),
    *("C_per_group", "K_per_group", "taps", "stride_h", "dilation_h", "dilation_w"),
    *("pad_top", "pad_left", "pieces", "chunks", "ranges", "filter_tiles", "tap_tiles"),
    *("tile_filters", "tile_taps", "slot", "chunk_size"),
)


@range_kernel
def correlate(
    start: int,
    stop: int,
    microkernel: int,
    x: Any,
    grad: Any,
    zeros: Any,
    pieces: Any,
    tap_tiles: Any,
    sums: Any,
    layer: Any,
) -> None:
    """Do items `start` to `stop`: a range of filters of one group and chunk.

    `pieces` holds of each piece the first image and how many images, the first row and how many
    rows; `tap_tiles` of each tile the first channel, row and column of the kernel. `sums` is
    (chunks, groups, filter tiles, tap tiles, sums of a tile).
    """
    g, size = layer[0], layer[0].itemsize
    for number in range(start, stop):
        number, some = divmod(number, g.ranges)
        group, chunk = divmod(number, g.chunks)
        t0 = some * g.filter_tiles // g.ranges
        t1 = (some + 1) * g.filter_tiles // g.ranges
        p0 = chunk * g.pieces // g.chunks
        p1 = (chunk + 1) * g.pieces // g.chunks
        for piece in range(p0, p1):
            image, images, row = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
            x_group = (image * g.C + group * g.C_per_group) * g.x_plane
            steps = g.C * g.x_plane, g.K * g.grad_plane, g.x_plane, g.grad_plane
            distances = g.stride_h, g.dilation_h, g.dilation_w
            for t in range(t0, t1):
                # The last tiles move back until they fit; each has its own sums.
                k = min(t * g.tile_filters, g.K_per_group - g.tile_filters)
                grads = (image * g.K + group * g.K_per_group + k) * g.grad_plane
                slot = ((chunk * g.groups + group) * g.filter_tiles + t) * g.tap_tiles
                for tap in range(g.tap_tiles):
                    top = tap_tiles[tap, 1] * g.dilation_h - g.pad_top
                    left = tap_tiles[tap, 2] * g.dilation_w - g.pad_left
                    pixels = address(x) + (x_group + tap_tiles[tap, 0] * g.x_plane) * size
                    to = address(sums) + (slot + tap) * g.slot * size
                    arrays = pixels, address(grad) + grads * size, to, address(zeros)
                    sizes = g.H, g.W, g.OW, row, row + pieces[piece, 3], top, left
                    first = int(piece == p0)
                    call(microkernel, (*arrays, images, *steps, *sizes, *distances, first))


@range_kernel
def add_chunks(start: int, stop: int, tap_offsets: Any, sums: Any, out: Any, layer: Any) -> None:
    """Add up the chunks' sums for filters `start` to `stop`; `out` is (filters, taps), flat.

    `tap_offsets` says where a tap's sum lies in those of a tile of filters, for the first filter.
    """
    g = layer[0]
    for number in range(start, stop):
        group, k = divmod(number, g.K_per_group)
        t = min(k // g.tile_filters, g.filter_tiles - 1)
        f = k - min(t * g.tile_filters, g.K_per_group - g.tile_filters)
        begin = (group * g.filter_tiles + t) * g.tap_tiles * g.slot + f * g.tile_taps
        for tap in range(g.taps):
            element = begin + tap_offsets[tap]
            total = sums[element]
            for chunk in range(1, g.chunks):
                total += sums[chunk * g.chunk_size + element]
            out[number * g.taps + tap] = total
