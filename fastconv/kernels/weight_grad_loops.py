"""Weight gradients: the loops around their tiles.

A band of pixels is done at a time. First the gradient of the output and the input are laid out
anew, so that what belongs to one pixel lies side by side; then each worker takes a range of the
weights, and adds to their gradient what the pixels of the band contribute.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastconv.codegen import conv_microkernel as codegen_tile
from fastconv.codegen.row_copies import (
    clear_row,
    copy_to_place,
    fetch,
    gather_block,
    transpose_block,
)
from fastconv.codegen.weight_grad_microkernel import GradientTile
from fastconv.jit.compiler import address_of, range_kernel
from fastconv.jit.emitter import emitted_address
from fastconv.jit.pointers import address, call


class GradientShape(NamedTuple):
    """What a tile is compiled for: filters and columns (s, c) of the weights, and vectors."""

    filters: int
    columns: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """What the kernel is called; docs/kernels.md has the grammar."""
        return f"gradient-f{self.bits}x{self.lanes}-{self.filters}x{self.columns}"


@cache
def gradient_tile_address(shape: GradientShape) -> int:
    """Return the address of a tile's machine code; arguments are those of convolution's."""

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        tile = GradientTile(builder, shape.bits, shape.lanes, arguments)
        tile.emit(shape.columns, shape.filters // shape.lanes)

    return emitted_address(shape.name, codegen_tile.ARGUMENTS, emit)


@cache
def pixel_packer_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that lays channels of one pixel side by side.

    Its arguments: addresses of the first channel's first pixel, of the target, and of the place
    that each pixel gets (int64); elements from channel to channel, how many channels and pixels
    there are, and how many channels stand side by side: what is there of those that are missing
    means nothing.
    """
    size = bits // 8

    def pack(source, target, places, pitch, channels, pixels, wide):  # type: ignore[no-untyped-def]
        if wide <= lanes // 4:  # a vector would be nearly empty
            for pixel in range(pixels):
                # Columns without a channel keep what they hold: nobody wants their sums.
                for c in range(min(wide, channels)):
                    element = source + (c * pitch + pixel) * size
                    copy_to_place(target + c * size, places + pixel * 8, wide, element, bits)
            return
        for first in range(0, wide, lanes):
            rows = min(lanes, channels - first)
            # The channels that come next are asked for meanwhile: they lie behind these.
            after = min(lanes, wide - first) * pitch * size
            for pixel in range(0, pixels, lanes):
                for row in range(rows):
                    fetch(source + ((first + row) * pitch + pixel) * size + after)
                transpose_block(
                    target + first * size,
                    wide,
                    source + (first * pitch + pixel) * size,
                    pitch,
                    places + pixel * 8,
                    channels - first,
                    pixels - pixel,
                    wide - first,
                    1,
                    bits,
                    lanes,
                )

    return address_of(pack, f"pixels-f{bits}x{lanes}", 7)


@cache
def strided_packer_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that lays out every second pixel of some rows.

    Its arguments are those of `pixel_packer_address`, with the number of rows and of pixels of a
    row in the place of all pixels, then the elements from row to row.
    """
    size = bits // 8

    def pack(source, target, places, pitch, channels, rows, width, apart, wide):  # type: ignore[no-untyped-def]
        for first in range(0, wide, lanes):
            after = min(lanes, wide - first) * pitch * size
            for row in range(rows):
                for pixel in range(0, width, lanes):
                    for c in range(min(lanes, channels - first)):
                        here = (first + c) * pitch + row * apart + 2 * pixel
                        fetch(source + here * size + after)
                        fetch(source + (here + lanes) * size + after)
                    transpose_block(
                        target + first * size,
                        wide,
                        source + (first * pitch + row * apart + 2 * pixel) * size,
                        pitch,
                        places + (row * width + pixel) * 8,
                        channels - first,
                        width - pixel,
                        wide - first,
                        2,
                        bits,
                        lanes,
                    )

    return address_of(pack, f"pixels-f{bits}x{lanes}-s2", 9)


@cache
def clear_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that clears elements from an address on."""

    def clear(target, count):  # type: ignore[no-untyped-def]
        clear_row(target, count, bits, lanes)

    return address_of(clear, f"clear-f{bits}x{lanes}", 2)


@cache
def collector_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that brings sums of a vector of filters into place.

    Its arguments: address of the first filter's first tap, elements from filter to filter, the
    addresses of the sums and of the place of each tap in them (int64, whole vectors of them), and
    how many filters (of which no more than a vector are looked at) and taps there are.
    """
    size = bits // 8

    def turn(target, to_row, sums, places, filters, taps):  # type: ignore[no-untyped-def]
        for t in range(0, taps, lanes):
            to, where = target + t * size, places + t * 8
            gather_block(to, to_row, sums, where, filters, taps - t, bits, lanes)

    return address_of(turn, f"sums-f{bits}x{lanes}", 6)


#: What `collect` reads from a layer's record.
COLLECTED = (
    *("itemsize", "K_per_group", "lanes", "taps", "tap_step", "tap_chunks"),
    *("filter_tiles", "tile_filters", "tile_sums"),
)
#: The numbers that the loops read from the layer's record; tiles read the first few.
FIELDS = (
    *codegen_tile.LAYER,
    *COLLECTED,
    *("C", "K", "H", "W", "P", "OW", "R", "groups", "C_per_group", "x_plane", "x_apart"),
    *("stride_h", "pad_top", "dilation_h", "padded", "high"),
    *("channel_tiles", "tile_channels"),
    *("chunks", "blocks", "x_size", "grad_size", "clear", "sums_size"),
)
LAYOUT = np.dtype((np.record, [(name, np.int64) for name in FIELDS]))


@range_kernel
def lay_out(
    start: int,
    stop: int,
    pack: int,
    pack_strided: int,
    clear: int,
    x: Any,
    grad: Any,
    x_places: Any,
    grad_places: Any,
    band: Any,
    memory: Any,
    layer: Any,
) -> None:
    """Lay out pieces `start` to `stop` of the band: tiles of channels, then of filters.

    A piece is a chunk of the rows of one image. `pack_strided` lays out where only every second
    column is wanted, of rows `x_apart` elements apart: H and W then count what is wanted.

    `band` holds the first image, how many images there are, the first row of output and how many
    rows there are. `memory` gets the input, (groups * channel tiles, pixels with their margins,
    channels of a tile), and then the gradient, (groups * filter tiles, pixels, filters of a tile).
    """
    g, size = layer[0], layer[0].itemsize
    image0, row0, rows = band[0], band[2], band[3]
    top = row0 * g.stride_h - g.pad_top
    channel_tiles = g.groups * g.channel_tiles
    tiles = channel_tiles + g.groups * g.filter_tiles
    for number in range(start, stop):
        rest, tile = divmod(number, tiles)
        image, chunk = divmod(rest, g.chunks)
        if tile < channel_tiles:
            group, t = divmod(tile, g.channel_tiles)
            c = t * g.tile_channels
            row = g.padded * g.tile_channels
            u0, u1 = chunk * g.high // g.chunks, (chunk + 1) * g.high // g.chunks
            target = address(memory) + (tile * g.x_size + image * g.high * row) * size
            if g.clear:
                call(clear, (target + u0 * row * size, (u1 - u0) * row))
            h0, h1 = max(0, top + u0), min(g.H, top + u1)
            plane = ((image0 + image) * g.C + group * g.C_per_group + c) * g.x_plane
            if h1 > h0 and g.x_apart:
                call(
                    pack_strided,
                    (
                        address(x) + (plane + h0 * g.x_apart) * size,
                        target + (h0 - top) * row * size,
                        address(x_places),
                        g.x_plane,
                        g.C_per_group - c,
                        h1 - h0,
                        g.W,
                        g.x_apart,
                        g.tile_channels,
                    ),
                )
            elif h1 > h0:
                call(
                    pack,
                    (
                        address(x) + (plane + h0 * g.W) * size,
                        target + (h0 - top) * row * size,
                        address(x_places),
                        g.x_plane,
                        g.C_per_group - c,
                        (h1 - h0) * g.W,
                        g.tile_channels,
                    ),
                )
        else:
            group, t = divmod(tile - channel_tiles, g.filter_tiles)
            k = t * g.tile_filters
            i0, i1 = chunk * rows // g.chunks, (chunk + 1) * rows // g.chunks
            plane = (image0 + image) * g.K + group * g.K_per_group + k
            place = channel_tiles * g.x_size + (tile - channel_tiles) * g.grad_size
            place += (image * rows + i0) * g.OW * g.tile_filters
            call(
                pack,
                (
                    address(grad) + (plane * g.P + (row0 + i0) * g.OW) * size,
                    address(memory) + place * size,
                    address(grad_places),
                    g.P,
                    g.K_per_group - k,
                    (i1 - i0) * g.OW,
                    g.tile_filters,
                ),
            )


@range_kernel
def multiply(
    start: int,
    stop: int,
    tile: int,
    first: int,
    pixels: int,
    offsets: Any,
    blocks: Any,
    none: Any,
    memory: Any,
    sums: Any,
    layer: Any,
) -> None:
    """Add the band's share to the gradients of weights `start` to `stop`.

    Those are counted by group, tile of filters, row of the kernel and block of columns. `blocks`
    says of each block where it begins in the input and in a row of `sums`, which is (groups,
    filter tiles, R, columns (s, c), filters of a tile); `first` whether this is the first band.
    """
    g, size = layer[0], layer[0].itemsize
    grads = address(memory) + g.groups * g.channel_tiles * g.x_size * size
    for number in range(start, stop):
        number, block = divmod(number, g.blocks)
        number, r = divmod(number, g.R)
        group, t = divmod(number, g.filter_tiles)
        source = group * g.channel_tiles * g.x_size + blocks[2 * block]
        source += r * g.dilation_h * g.padded * g.tile_channels
        target = (group * g.filter_tiles + t) * g.tile_sums + r * g.sums_size
        out = address(sums) + (target + blocks[2 * block + 1] * g.tile_filters) * size
        call(
            tile,
            (
                address(memory) + source * size,
                address(offsets),
                grads + (group * g.filter_tiles + t) * g.grad_size * size,
                address(none),
                0 if first else out,
                out,
                address(none),
                address(layer),
                pixels,
                g.run,
                0,
                0,
                0,
                0,
            ),
        )


@range_kernel
def collect(start: int, stop: int, turn: int, places: Any, sums: Any, out: Any, layer: Any) -> None:
    """Bring pieces `start` to `stop` of the gradients into place.

    A piece is a vector of filters and a range of their taps. `turn` is the address of
    `collector_address`, `sums` is (groups, filter tiles, elements of a tile), `places` says where
    a tap's filters begin in a tile, and `out` is (groups, filters, taps), flat.
    """
    g, size = layer[0], layer[0].itemsize
    vectors = -(-g.K_per_group // g.lanes)
    for number in range(start, stop):
        number, chunk = divmod(number, g.tap_chunks)
        group, k = divmod(number, vectors)
        k *= g.lanes
        first = chunk * g.tap_step
        t, within = divmod(k, g.tile_filters)
        source = (group * g.filter_tiles + t) * g.tile_sums + within
        call(
            turn,
            (
                address(out) + ((group * g.K_per_group + k) * g.taps + first) * size,
                g.taps,
                address(sums) + source * size,
                address(places) + first * 8,
                g.K_per_group - k,
                min(g.tap_step, g.taps - first),
            ),
        )
