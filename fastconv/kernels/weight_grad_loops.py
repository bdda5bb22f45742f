"""Weight gradients by an implicit GEMM: the loops around their microkernel.

A band of pixels is done at a time. First the gradient of the output and the input are packed, so
that the channels of one pixel lie side by side; then each worker takes a range of the weights, and
adds to their gradient what the pixels of the band contribute.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from fastconv.codegen import conv_microkernel
from fastconv.codegen.row_copies import (
    clear_row,
    copy_to_place,
    fetch,
    gather_block,
    transpose_block,
)
from fastconv.codegen.weight_grad_microkernel import GradientTile
from fastconv.core.records import record_type
from fastconv.jit.compiler import address_of, inner_kernel, range_kernel
from fastconv.jit.emitter import emitted_address
from fastconv.jit.pointers import address, call, integer_at


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

    return emitted_address(shape.name, conv_microkernel.ARGUMENTS, emit)


@cache
def pixel_packer_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that packs channels of one pixel side by side.

    Its arguments: addresses of the first channel's first pixel, of the target, and of the number
    that each pixel gets there (int64); elements from channel to channel, how many channels and
    pixels there are, and how many channels lie side by side. Those that are missing are undefined.
    """
    size = bits // 8

    def pack(source, target, numbers, pitch, channels, pixels, wide):  # type: ignore[no-untyped-def]
        if wide <= lanes // 4:  # a vector would be nearly empty
            for pixel in range(pixels):
                # Columns without a channel keep what they hold: their sums are not used.
                for c in range(min(wide, channels)):
                    element = source + (c * pitch + pixel) * size
                    copy_to_place(target + c * size, numbers + pixel * 8, wide, element, bits)
            return
        for first in range(0, wide, lanes):
            rows = min(lanes, channels - first)
            # The next channels lie behind these, and are prefetched.
            after = min(lanes, wide - first) * pitch * size
            for pixel in range(0, pixels, lanes):
                of = source + (first * pitch + pixel) * size
                for row in range(rows):
                    fetch(of + row * pitch * size + after)
                left, n = channels - first, pixels - pixel
                to, at = target + first * size, numbers + pixel * 8
                transpose_block(to, wide, of, pitch, at, left, n, wide - first, 1, bits, lanes)

    return address_of(pack, f"pixels-f{bits}x{lanes}", 7)


@cache
def strided_packer_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that packs every second pixel of some rows.

    Its arguments are those of `pixel_packer_address`, with the number of rows and of pixels of a
    row instead of all pixels, then the elements from row to row.
    """
    size = bits // 8

    def pack(source, target, numbers, pitch, channels, rows, width, row_step, wide):  # type: ignore[no-untyped-def]
        row_vectors = -(-width // lanes)
        for first in range(0, wide, lanes):
            after = min(lanes, wide - first) * pitch * size
            for number in range(rows * row_vectors):
                row, pixel = number // row_vectors, number % row_vectors * lanes
                of = source + (first * pitch + row * row_step + 2 * pixel) * size
                for c in range(min(lanes, channels - first)):
                    fetch(of + c * pitch * size + after)
                    fetch(of + (c * pitch + lanes) * size + after)
                left, n = channels - first, width - pixel
                to, at = target + first * size, numbers + (row * width + pixel) * 8
                transpose_block(to, wide, of, pitch, at, left, n, wide - first, 2, bits, lanes)

    return address_of(pack, f"pixels-f{bits}x{lanes}-s2", 9)


@cache
def clear_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that clears elements from an address on."""

    def clear(target, count):  # type: ignore[no-untyped-def]
        clear_row(target, count, bits, lanes)

    return address_of(clear, f"clear-f{bits}x{lanes}", 2)


@cache
def transposer_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that brings sums of a vector of filters into place.

    Its arguments: address of the first filter's first tap, elements from filter to filter, the
    addresses of the sums and of the offset of each tap in them (int64, whole vectors of them), and
    how many filters (at most a vector of them is used) and taps there are.
    """
    size = bits // 8

    def transpose(target, to_row, sums, offsets, filters, taps):  # type: ignore[no-untyped-def]
        for t in range(0, taps, lanes):
            to, at = target + t * size, offsets + t * 8
            gather_block(to, to_row, sums, at, filters, taps - t, bits, lanes)

    return address_of(transpose, f"sums-f{bits}x{lanes}", 6)


#: The numbers of a cut; microkernels read the first few. Those after `sums_size` are addresses: of
#: each pixel's offset in a packed band; of the number that an element of an image's rows gets in
#: it, of the input and of the gradient; of `blocks`, which says of each block where it begins in
#: the input and in a row of the sums; and of zeros.
LAYOUT = record_type(
    *conv_microkernel.LAYER,
    *("itemsize", "C", "K", "H", "W", "P", "OW", "R", "groups", "C_per_group", "K_per_group"),
    *("x_plane", "x_row_step", "stride_h", "pad_top", "dilation_h", "padded", "high"),
    *("channel_tiles", "tile_channels", "filter_tiles", "tile_filters", "tile_sums"),
    *("chunks", "row_blocks", "x_size", "grad_size", "clear", "sums_size"),
    *("offsets", "x_numbers", "grad_numbers", "blocks", "zeros"),
)
#: Addresses of machine code. `pack_strided` packs where every second column is used only, of rows
#: `x_row_step` elements apart: H and W are then those of what is used.
CODE = record_type("pack", "pack_strided", "clear", "microkernel")
#: How the sums of a tile of filters lie, which `collect` transposes.
SUMS = record_type(
    *("itemsize", "K_per_group", "lanes", "taps", "tap_step", "tap_chunks"),
    *("filter_tiles", "tile_filters", "tile_sums"),
)


@range_kernel
def pack_band(
    start: int, stop: int, x: Any, grad: Any, band: Any, memory: Any, code: Any, layer: Any
) -> None:
    """Pack items `start` to `stop` of a band: chunks of the rows of an image, of tiles of channels.

    `band` holds the first image, how many images there are, the first row of output and how many
    rows there are. `memory` gets the input, (groups * channel tiles, padded pixels, channels of a
    tile), and then the gradient, (groups * filter tiles, pixels, filters of a tile).
    """
    g, codes = layer[0], code[0]
    channel_tiles = g.groups * g.channel_tiles
    tiles = channel_tiles + g.groups * g.filter_tiles
    grads = address(memory) + channel_tiles * g.x_size * g.itemsize
    rows = band[2], band[3]
    for number in range(start, stop):
        rest, tile = divmod(number, tiles)
        image, chunk = divmod(rest, g.chunks)
        images = band[0] + image, image
        if tile < channel_tiles:
            _pack_input(address(x), address(memory), tile, images, rows[0], chunk, codes, g)
        else:
            tile -= channel_tiles
            _pack_gradient(address(grad), grads, tile, images, rows, chunk, codes, g)


@inner_kernel
def _pack_input(x, memory, tile, images, row0, chunk, code, g):  # type: ignore[no-untyped-def]
    """Pack a chunk of an image's rows: those that a band of output rows from `row0` on reads."""
    size, row = g.itemsize, g.padded * g.tile_channels
    top = row0 * g.stride_h - g.pad_top
    group, t = divmod(tile, g.channel_tiles)
    c = t * g.tile_channels
    u0, u1 = chunk * g.high // g.chunks, (chunk + 1) * g.high // g.chunks
    target = memory + (tile * g.x_size + images[1] * g.high * row) * size
    if g.clear:
        call(code.clear, (target + u0 * row * size, (u1 - u0) * row))
    h0, h1 = max(0, top + u0), min(g.H, top + u1)
    if h1 > h0:
        plane = (images[0] * g.C + group * g.C_per_group + c) * g.x_plane
        row_step = g.x_row_step if g.x_row_step else g.W
        source = x + (plane + h0 * row_step) * size
        target += (h0 - top) * row * size
        arrays = source, target, g.x_numbers, g.x_plane, g.C_per_group - c
        if g.x_row_step:
            sizes = h1 - h0, g.W, row_step, g.tile_channels
            call(code.pack_strided, (*arrays, *sizes))
        else:
            call(code.pack, (*arrays, (h1 - h0) * g.W, g.tile_channels))


@inner_kernel
def _pack_gradient(grad, grads, tile, images, rows, chunk, code, g):  # type: ignore[no-untyped-def]
    """Pack a chunk of a band's rows of the output's gradient."""
    size = g.itemsize
    group, t = divmod(tile, g.filter_tiles)
    k = t * g.tile_filters
    i0, i1 = chunk * rows[1] // g.chunks, (chunk + 1) * rows[1] // g.chunks
    plane = images[0] * g.K + group * g.K_per_group + k
    source = grad + (plane * g.P + (rows[0] + i0) * g.OW) * size
    target = tile * g.grad_size + (images[1] * rows[1] + i0) * g.OW * g.tile_filters
    arrays = source, grads + target * size, g.grad_numbers, g.P, g.K_per_group - k
    call(code.pack, (*arrays, (i1 - i0) * g.OW, g.tile_filters))


@range_kernel
def multiply(
    start: int, stop: int, first: int, pixels: int, memory: Any, sums: Any, code: Any, layer: Any
) -> None:
    """Add the band's share to the gradients of weights `start` to `stop`.

    Those are counted by group, tile of filters, row of the kernel and block of columns. `sums` is
    (groups, filter tiles, R, columns (s, c), filters of a tile); `first` says whether this is the
    first band.
    """
    g, size = layer[0], layer[0].itemsize
    grads = address(memory) + g.groups * g.channel_tiles * g.x_size * size
    for number in range(start, stop):
        number, block = divmod(number, g.row_blocks)
        number, r = divmod(number, g.R)
        group = number // g.filter_tiles
        source = group * g.channel_tiles * g.x_size + integer_at(g.blocks, 2 * block)
        source += r * g.dilation_h * g.padded * g.tile_channels
        target = number * g.tile_sums + r * g.sums_size
        target += integer_at(g.blocks, 2 * block + 1) * g.tile_filters
        out = address(sums) + target * size
        x, weights = address(memory) + source * size, grads + number * g.grad_size * size
        before = 0 if first else out
        arrays = x, g.offsets, weights, g.zeros, before, out, g.zeros, address(g)
        call(code[0].microkernel, (*arrays, pixels, g.run, 0, 0, 0, 0))


@range_kernel
def collect(
    start: int, stop: int, transpose: int, tap_offsets: Any, sums: Any, out: Any, layer: Any
) -> None:
    """Bring items `start` to `stop` of the gradients into place.

    An item is a vector of filters and a range of their taps. `transpose` is the address of
    `transposer_address`, `sums` is (groups, filter tiles, elements of a tile), `tap_offsets` says
    where a tap's filters begin in a tile, and `out` is (groups, filters, taps), flat.
    """
    g, size = layer[0], layer[0].itemsize
    vectors = -(-g.K_per_group // g.lanes)
    for number in range(start, stop):
        number, chunk = divmod(number, g.tap_chunks)
        group, k = divmod(number, vectors)
        k *= g.lanes
        first = chunk * g.tap_step
        t, within = divmod(k, g.tile_filters)
        source = address(sums) + ((group * g.filter_tiles + t) * g.tile_sums + within) * size
        target = address(out) + ((group * g.K_per_group + k) * g.taps + first) * size
        left = g.K_per_group - k, min(g.tap_step, g.taps - first)
        call(transpose, (target, g.taps, source, address(tap_offsets) + first * 8, *left))
