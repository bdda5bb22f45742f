"""Weight gradients by an implicit GEMM: the loops around their microkernel.

Pixels are processed in bands. First the output gradient and the input are packed channels-last.
Then each worker takes a range of the weights, and adds the band's contribution to their gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import numpy as np

from fastconv.codegen import conv_microkernel
from fastconv.codegen.integers import Integer, Record, call_at, counted, integer_at, pointer_to
from fastconv.codegen.machine_function import machine_function
from fastconv.codegen.packing import clear_row, gather_block, transpose_block
from fastconv.codegen.vector import Vectors, prefetch, vectors
from fastconv.codegen.weight_grad_microkernel import WeightGradMicrokernel
from fastconv.core.records import record_type


class WeightGradShape(NamedTuple):
    """The compile-time parameters of a microkernel: filters, columns (s, c), bits and lanes."""

    filters: int
    columns: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """The kernel's name; docs/kernels.md has the grammar."""
        return f"weight-grad-f{self.bits}x{self.lanes}-{self.filters}x{self.columns}"


@machine_function(lambda shape: shape.name, *conv_microkernel.ARGUMENTS)
def weight_grad_address(builder: Any, v: Any, shape: WeightGradShape) -> None:
    """Emit a microkernel, which takes the arguments of convolution."""
    tile = WeightGradMicrokernel(builder, shape.bits, shape.lanes, v)
    tile.emit(shape.columns, shape.filters // shape.lanes)


@machine_function(
    lambda bits, lanes, step: f"pixels-f{bits}x{lanes}" + ("-s2" if step > 1 else ""),
    *("source", "target", "numbers", "pitch", "channels", "rows", "pixels", "row_step", "wide"),
)
def pixel_packer_address(builder: Any, v: Any, bits: int, lanes: int, step: int) -> None:
    """Emit the packing of pixels channels-last.

    The arguments: addresses of the first channel's first pixel, of the target, and of the index of
    each pixel there (int64); the channel stride in elements; the numbers of channels, rows and
    pixels of a row; the row stride in elements; and the channels of a packed pixel, `wide`. Missing
    channels are undefined. With `step` 2 every second pixel is packed.
    """
    vector = vectors(builder, bits, lanes)
    if step > 1:
        _pack_blocks(builder, v, vector, step)
        return
    narrow = v.wide.compare("<=", lanes // 4)  # a vector would be nearly empty
    with builder.if_else(narrow) as (elements, blocks):
        with elements:
            _pack_elements(builder, v, vector)
        with blocks:
            _pack_blocks(builder, v, vector, step)


def _pack_elements(builder: Any, v: Any, vector: Vectors) -> None:
    """Emit the packing of single elements of a row; missing channels are not written."""
    existing = v.wide.at_most(v.channels)
    with counted(builder, 0, v.pixels) as pixel, counted(builder, 0, existing) as c:
        element = builder.load(pointer_to(vector, v.source, c * v.pitch, pixel))
        number = integer_at(builder, v.numbers, pixel)
        builder.store(element, pointer_to(vector, v.target, number * v.wide, c))


def _pack_blocks(builder: Any, v: Any, vector: Vectors, step: int) -> None:
    """Emit the packing of blocks of pixels and channels, a vector of each."""
    size, lanes = vector.bits // 8, vector.lanes
    with counted(builder, 0, v.wide, lanes) as first:
        left, target = v.channels - first, v.target + first * size
        after = (v.wide - first).at_most(lanes) * v.pitch
        with counted(builder, 0, v.rows) as row, counted(builder, 0, v.pixels, lanes) as pixel:
            source = v.source + (first * v.pitch + row * v.row_step + pixel * step) * size
            with counted(builder, 0, left.at_most(lanes)) as c:
                # Prefetch the next channels.
                for part in range(step):
                    ahead = c * v.pitch + after + part * lanes
                    prefetch(builder, pointer_to(vector, source, ahead))
            numbers = v.numbers + (row * v.pixels + pixel) * 8
            counts = left, v.pixels - pixel, v.wide - first
            transpose_block(vector, target, v.wide, (source, v.pitch, numbers), counts, step)


@machine_function(lambda bits, lanes: f"clear-f{bits}x{lanes}", "target", "count")
def clear_address(builder: Any, v: Any, bits: int, lanes: int) -> None:
    """Emit code that sets elements to zero."""
    clear_row(vectors(builder, bits, lanes), v.target, v.count)


@machine_function(
    lambda bits, lanes: f"sums-f{bits}x{lanes}",
    *("target", "to_row", "sums", "offsets", "filters", "taps"),
)
def transposer_address(builder: Any, v: Any, bits: int, lanes: int) -> None:
    """Emit code that transposes the sums of a vector of filters.

    The arguments: address of the first filter's first tap, the filter stride in elements, addresses
    of the sums and of the offset of each tap in them (int64, whole vectors), and the numbers of
    filters (at most a vector is used) and taps.
    """
    vector = vectors(builder, bits, lanes)
    with counted(builder, 0, v.taps, lanes) as t:
        target, offsets, left = v.target + t * (bits // 8), v.offsets + t * 8, v.taps - t
        gather_block(vector, target, v.to_row, v.sums, offsets, v.filters, left)


#: The parameters of a partition; microkernels read the first few. Those after `sums_size` are
#: addresses: of each pixel's offset in a packed band; of the packed index of each pixel of an
#: image's rows, for the input and for the gradient; of `blocks`, the offsets of each block in the
#: input and in a row of the sums; and of zeros.
LAYOUT = record_type(
    *conv_microkernel.LAYER,
    *("itemsize", "C", "K", "H", "W", "P", "OW", "R", "groups", "C_per_group", "K_per_group"),
    *("x_plane", "x_row_step", "stride_h", "pad_top", "dilation_h", "padded", "high"),
    *("channel_tiles", "tile_channels", "filter_tiles", "tile_filters", "tile_sums"),
    *("chunks", "row_blocks", "x_size", "grad_size", "clear", "sums_size"),
    *("offsets", "x_numbers", "grad_numbers", "blocks", "zeros"),
)
#: Addresses of machine code that `collect_address` reads.
COLLECTING = ("transpose",)
#: Addresses of machine code. If `x_row_step` is not 0, `pack_input` packs every second column of
#: rows with that stride; H and W count the packed rows and columns.
CODE = record_type(*COLLECTING, "pack", "pack_input", "clear", "microkernel")
#: The layout of the sums, (groups, filter tiles, elements of a tile); `tap_offsets` is the address
#: of the offset of each tap in a tile.
SUMS = record_type(
    *("itemsize", "K_per_group", "lanes", "taps", "tap_step", "tap_chunks"),
    *("filter_tiles", "tile_filters", "tile_sums", "tap_offsets"),
)
#: A band: its first image and their number, its first row and their number.
BAND = record_type("image", "images", "row", "rows")


class Loops:
    """The builder, records and addresses for emitting loops that `run_code` calls."""

    def __init__(self, builder: Any, v: Any, layout: np.dtype[Any], code: np.dtype[Any]) -> None:
        self.builder, self.v = builder, v
        self.g, self.code = Record(builder, v.layer, layout), Record(builder, v.code, code)
        self.band = Record(builder, v.band, BAND)
        self.size = self.g.itemsize

    def call(self, code: Integer, *numbers: Any) -> None:
        """Emit a call of machine code."""
        call_at(self.builder, code, *numbers)

    def is_first_band(self) -> Any:
        """Return whether the band is the first one: sums are then written, not added to."""
        image, row = self.band.image, self.band.row
        return self.builder.and_(image.compare("==", 0), row.compare("==", 0))


def machine_loops(
    name: Callable[..., str], layout: np.dtype[Any], code: np.dtype[Any]
) -> Callable[[Callable[..., None]], Callable[..., int]]:
    """Decorate ``write(loops, item, *parameters)``, which emits loops for `run_code`.

    As `machine_function` it returns a function of the parameters: the address of the loops.
    """

    def decorate(write: Callable[..., None]) -> Callable[..., int]:
        @wraps(write)
        def emit(builder: Any, v: Any, *parameters: Any) -> None:
            loops = Loops(builder, v, layout, code)
            with counted(builder, v.start, v.stop) as item:
                write(loops, item, *parameters)

        arrays = "x", "grad", "memory", "sums", "band"
        return machine_function(name, "start", "stop", *arrays, "code", "layer")(emit)

    return decorate


@machine_loops(lambda: "weight-grad-pack", LAYOUT, CODE)
def pack_address(w: Loops, item: Integer) -> None:
    """Emit the loops that pack a band; an item is a chunk of rows of a tile.

    `memory` gets the input, (groups * channel tiles, padded pixels, channels of a tile), and then
    the gradient, (groups * filter tiles, pixels, filters of a tile).
    """
    g = w.g
    channel_tiles = g.groups * g.channel_tiles
    tiles = channel_tiles + g.groups * g.filter_tiles
    tile, image, chunk = item % tiles, item // tiles // g.chunks, item // tiles % g.chunks
    with w.builder.if_else(tile.compare("<", channel_tiles)) as (then, otherwise):
        with then:
            _pack_input(w, tile, image, chunk)
        with otherwise:
            _pack_gradient(w, tile - channel_tiles, image, chunk)


def _pack_input(w: Loops, tile: Integer, image: Integer, chunk: Integer) -> None:
    """Emit the packing of a chunk of a band's input rows of one image."""
    g, size, row = w.g, w.size, w.g.padded * w.g.tile_channels
    group, c = tile // g.channel_tiles, tile % g.channel_tiles * g.tile_channels
    top = w.band.row * g.stride_h - g.pad_top
    u0, u1 = chunk * g.high // g.chunks, (chunk + 1) * g.high // g.chunks
    target = w.v.memory + (tile * g.x_size + image * g.high * row) * size
    with w.builder.if_then(g.clear.compare("!=", 0)):
        w.call(w.code.clear, target + u0 * row * size, (u1 - u0) * row)
    h0, h1 = (top + u0).at_least(0), (top + u1).at_most(g.H)
    strided, rows = g.x_row_step.compare("!=", 0), h1 - h0
    row_step = g.x_row_step.choose(strided, g.x_row_step, g.W)
    rows, pixels = rows.choose(strided, rows, 1), rows.choose(strided, g.W, rows * g.W)
    plane = ((w.band.image + image) * g.C + group * g.C_per_group + c) * g.x_plane
    arrays = w.v.x + (plane + h0 * row_step) * size, target + (h0 - top) * row * size, g.x_numbers
    sizes = g.x_plane, g.C_per_group - c, rows, pixels, row_step, g.tile_channels
    with w.builder.if_then(h1.compare(">", h0)):
        w.call(w.code.pack_input, *arrays, *sizes)


def _pack_gradient(w: Loops, tile: Integer, image: Integer, chunk: Integer) -> None:
    """Emit the packing of a chunk of a band's rows of the output gradient."""
    g, rows = w.g, w.band.rows
    group, k = tile // g.filter_tiles, tile % g.filter_tiles * g.tile_filters
    i0, i1 = chunk * rows // g.chunks, (chunk + 1) * rows // g.chunks
    plane = (w.band.image + image) * g.K + group * g.K_per_group + k
    source = w.v.grad + (plane * g.P + (w.band.row + i0) * g.OW) * w.size
    target = g.groups * g.channel_tiles * g.x_size + tile * g.grad_size
    target = w.v.memory + (target + (image * rows + i0) * g.OW * g.tile_filters) * w.size
    sizes = g.P, g.K_per_group - k, 1, (i1 - i0) * g.OW, 0, g.tile_filters
    w.call(w.code.pack, source, target, g.grad_numbers, *sizes)


@machine_loops(lambda: "weight-grad-multiply", LAYOUT, CODE)
def multiply_address(w: Loops, item: Integer) -> None:
    """Emit the loops that add a band's contribution to the weight gradients.

    Items are (group, filter tile, kernel row, block of columns). `sums` is (groups, filter tiles,
    R, columns (s, c), filters of a tile).
    """
    g, size = w.g, w.size
    block, r = item % g.row_blocks, item // g.row_blocks % g.R
    tile = item // g.row_blocks // g.R
    begin, column = (integer_at(w.builder, g.blocks, block * 2 + n) for n in (0, 1))
    source = tile // g.filter_tiles * g.channel_tiles * g.x_size + begin
    source = source + r * g.dilation_h * g.padded * g.tile_channels
    target = tile * g.tile_sums + r * g.sums_size + column * g.tile_filters
    x, out = w.v.memory + source * size, w.v.sums + target * size
    grads = g.groups * g.channel_tiles * g.x_size + tile * g.grad_size
    before = out.choose(w.is_first_band(), 0, out)
    arrays = x, g.offsets, w.v.memory + grads * size, g.zeros, before, out, g.zeros, w.v.layer
    pixels = w.band.images * w.band.rows * g.OW
    w.call(w.code.microkernel, *arrays, pixels, g.run, 0, 0, 0, 0)


@machine_loops(lambda: "weight-grad-collect", SUMS, record_type(*COLLECTING))
def collect_address(w: Loops, item: Integer) -> None:
    """Emit the loops that transpose sums, in `memory`, to gradients, in `sums`.

    An item is a vector of filters and a range of their taps. Gradients are (groups, filters, taps).
    """
    g = w.g
    chunk, number = item % g.tap_chunks, item // g.tap_chunks
    vectors = (g.K_per_group + g.lanes - 1) // g.lanes
    group, k = number // vectors, number % vectors * g.lanes
    first = chunk * g.tap_step
    source = (group * g.filter_tiles + k // g.tile_filters) * g.tile_sums + k % g.tile_filters
    target = (group * g.K_per_group + k) * g.taps + first
    offsets, taps = g.tap_offsets + first * 8, (g.taps - first).at_most(g.tap_step)
    arrays = w.v.sums + target * w.size, g.taps, w.v.memory + source * w.size, offsets
    w.call(w.code.transpose, *arrays, g.K_per_group - k, taps)
