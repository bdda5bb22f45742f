"""Weight gradients by an implicit GEMM: the loops around their microkernel.

A band of pixels is done at a time. First the gradient of the output and the input are packed, so
that the channels of one pixel lie side by side; then each worker takes a range of the weights, and
adds to their gradient what the pixels of the band contribute.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from fastconv.codegen import conv_microkernel
from fastconv.codegen.integers import counted, integer_at, integers, pointer_to
from fastconv.codegen.packing import clear_row, gather_block, transpose_block
from fastconv.codegen.vector import Vectors, prefetch, vectors
from fastconv.codegen.weight_grad_microkernel import GradientTile
from fastconv.core.records import record_type
from fastconv.jit import pointers
from fastconv.jit.compiler import inner_kernel, range_kernel
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

    return emitted_address(shape.name, conv_microkernel.ARGUMENTS, emit)


@cache
def pixel_packer_address(bits: int, lanes: int, step: int = 1) -> int:
    """Return the address of the machine code that packs channels of one pixel side by side.

    Its arguments: addresses of the first channel's first pixel, of the target, and of the number
    that each pixel gets there (int64); elements from channel to channel, how many channels, rows
    and pixels of a row there are, elements from row to row, and how many channels lie side by
    side. Those that are missing are undefined. With `step` 2 every second pixel is packed.
    """

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        v, vector = integers(builder, arguments), vectors(builder, bits, lanes)
        if step > 1:
            _pack_blocks(builder, v, vector, step)
            return
        narrow = v.wide.compare("<=", lanes // 4)  # a vector would be nearly empty
        with builder.if_else(narrow) as (elements, blocks):
            with elements:
                _pack_elements(builder, v, vector)
            with blocks:
                _pack_blocks(builder, v, vector, step)

    names = (
        *("source", "target", "numbers", "pitch", "channels"),
        *("rows", "pixels", "row_step", "wide"),
    )
    name = f"pixels-f{bits}x{lanes}" + ("-s2" if step > 1 else "")
    return emitted_address(name, names, emit)


def _pack_elements(builder: Any, v: SimpleNamespace, vector: Vectors) -> None:
    """Write the packing of single elements of a row; missing channels keep what they hold."""
    existing = v.wide.at_most(v.channels)
    with counted(builder, 0, v.pixels) as pixel, counted(builder, 0, existing) as c:
        element = builder.load(pointer_to(vector, v.source, c * v.pitch, pixel))
        number = integer_at(builder, v.numbers, pixel)
        builder.store(element, pointer_to(vector, v.target, number * v.wide, c))


def _pack_blocks(builder: Any, v: SimpleNamespace, vector: Vectors, step: int) -> None:
    """Write the packing of blocks of pixels and channels, a vector of each."""
    size, lanes = vector.bits // 8, vector.lanes
    with counted(builder, 0, v.wide, lanes) as first:
        left, target = v.channels - first, v.target + first * size
        after = (v.wide - first).at_most(lanes) * v.pitch
        with counted(builder, 0, v.rows) as row, counted(builder, 0, v.pixels, lanes) as pixel:
            source = v.source + (first * v.pitch + row * v.row_step + pixel * step) * size
            with counted(builder, 0, left.at_most(lanes)) as c:
                # The next channels lie behind these.
                for part in range(step):
                    behind = c * v.pitch + after + part * lanes
                    prefetch(builder, pointer_to(vector, source, behind))
            numbers = v.numbers + (row * v.pixels + pixel) * 8
            counts = left, v.pixels - pixel, v.wide - first
            transpose_block(vector, target, v.wide, source, v.pitch, numbers, *counts, step)


@cache
def clear_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that clears elements from an address on."""

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        v = integers(builder, arguments)
        clear_row(vectors(builder, bits, lanes), v.target, v.count.value)

    return emitted_address(f"clear-f{bits}x{lanes}", ("target", "count"), emit)


@cache
def transposer_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that brings sums of a vector of filters into place.

    Its arguments: address of the first filter's first tap, elements from filter to filter, the
    addresses of the sums and of the offset of each tap in them (int64, whole vectors of them), and
    how many filters (at most a vector of them is used) and taps there are.
    """

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        v, vector = integers(builder, arguments), vectors(builder, bits, lanes)
        with counted(builder, 0, v.taps, lanes) as t:
            target, offsets, left = v.target + t * (bits // 8), v.offsets + t * 8, v.taps - t
            gather_block(vector, target, v.to_row, v.sums, offsets, v.filters, left)

    names = "target", "to_row", "sums", "offsets", "filters", "taps"
    return emitted_address(f"sums-f{bits}x{lanes}", names, emit)


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
#: Addresses of machine code. `pack_input` packs every second column of rows `x_row_step` elements
#: apart, unless that is 0; H and W are those of what is packed.
CODE = record_type("pack", "pack_input", "clear", "microkernel")
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
        rows, pixels = (h1 - h0, g.W) if g.x_row_step else (1, (h1 - h0) * g.W)
        call(code.pack_input, (*arrays, rows, pixels, row_step, g.tile_channels))


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
    call(code.pack, (*arrays, 1, (i1 - i0) * g.OW, 0, g.tile_filters))


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
        source = group * g.channel_tiles * g.x_size + pointers.integer_at(g.blocks, 2 * block)
        source += r * g.dilation_h * g.padded * g.tile_channels
        target = number * g.tile_sums + r * g.sums_size
        target += pointers.integer_at(g.blocks, 2 * block + 1) * g.tile_filters
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
