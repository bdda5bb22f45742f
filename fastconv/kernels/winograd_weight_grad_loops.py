"""The gradient of the weights by Winograd's method: the loops around transforms and products.

A band of tiles is done at a time. First the input and the gradient of the output are transformed,
each worker taking some images of some channels: their pixels are packed with a vector of channels
side by side, and then a tile is transformed for all of them at once. Then each worker multiplies
for some of the weights, transforms the sums of the products, and adds them to the gradient: only
sums of the size of the weights are kept from band to band.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastconv.codegen import conv_microkernel
from fastconv.core.records import record_type
from fastconv.jit.compiler import inner_kernel, range_kernel
from fastconv.jit.pointers import address, call

#: The numbers of a cut; microkernels read the first few. The last ones are addresses: of each
#: tile's offset; of the number that an element of an image's rows gets in a packed band, of the
#: input and of the gradient; and of zeros.
LAYOUT = record_type(
    *conv_microkernel.LAYER,
    *("itemsize", "C", "K", "H", "W", "OH", "OW", "groups", "C_per_group", "K_per_group"),
    *("m", "R", "products", "pad_top", "across", "pixel_row", "grad_row", "clear", "workers"),
    *("lanes", "channel_vectors", "filter_vectors", "blocks"),
    *("tile_columns", "filter_tiles", "tile_filters", "tile_sums"),
    *("x_step_product", "x_size", "grad_step_product", "grad_size", "grads_begin"),
    *("sums_plane", "worker_begin", "worker_size"),
    *("offsets", "x_numbers", "grad_numbers", "zeros"),
)
#: Addresses of machine code.
CODE = record_type("pack", "clear", "pixels", "grads", "microkernel", "sums")


class Rows(NamedTuple):
    """Rows of tiles of an image."""

    image: int
    row: int
    rows: int


@range_kernel
def transform_band(
    start: int, stop: int, x: Any, grad: Any, band: Any, memory: Any, code: Any, layer: Any
) -> None:
    """Do the share of workers `start` to `stop` in transforming a band.

    `band` holds the first image, how many images there are, the first row of tiles and how many
    rows there are. `memory` gets the input, (groups * vectors of channels, products, tiles,
    channels of a vector), then the gradient, (groups * filter tiles, products, tiles, filters of a
    tile), then what workers need.
    """
    g, codes = layer[0], code[0]
    images, rows = band[1], band[3]
    of_channels = g.groups * g.channel_vectors
    items = images * (of_channels + g.groups * g.filter_vectors)
    for worker in range(start, stop):
        buffer = address(memory) + g.worker_begin + worker * g.worker_size
        for number in range(worker * items // g.workers, (worker + 1) * items // g.workers):
            vector, image = divmod(number, images)
            tile, some = image * rows * g.across, Rows(band[0] + image, band[2], rows)
            if vector < of_channels:
                target = address(memory) + (vector * g.x_size + tile * g.lanes) * g.itemsize
                _transform_pixels(address(x), buffer, target, vector, some, codes, g)
            else:
                grads = address(memory) + g.grads_begin * g.itemsize
                vector -= of_channels
                _transform_grads(address(grad), buffer, grads, vector, tile, some, codes, g)


@inner_kernel
def _transform_pixels(x, buffer, target, vector, some, code, g):  # type: ignore[no-untyped-def]
    """Transform the tiles of some rows of an image, of a vector of channels."""
    size = g.itemsize
    group, v = divmod(vector, g.channel_vectors)
    c = v * g.lanes
    top, high = some.row * g.m - g.pad_top, some.rows * g.m + g.R - 1
    h0, h1 = max(0, top), min(g.H, top + high)
    plane = some.image * g.C + group * g.C_per_group + c
    if g.clear:
        call(code.clear, (buffer, high * g.pixel_row))
    if h1 > h0:
        source, to = x + (plane * g.H + h0) * g.W * size, buffer + (h0 - top) * g.pixel_row * size
        sizes = g.H * g.W, g.C_per_group - c, 1, (h1 - h0) * g.W, 0, g.lanes
        call(code.pack, (source, to, g.x_numbers, *sizes))
    tiles = g.pixel_row, some.rows, g.across, g.lanes
    call(code.pixels, (buffer, target, *tiles, g.x_step_product))


@inner_kernel
def _transform_grads(grad, buffer, grads, vector, tile, some, code, g):  # type: ignore[no-untyped-def]
    """Transform the tiles of some rows of an image's gradient, of a vector of filters."""
    size = g.itemsize
    group, v = divmod(vector, g.filter_vectors)
    k = v * g.lanes
    i0, i1 = some.row * g.m, min(g.OH, (some.row + some.rows) * g.m)
    plane = some.image * g.K + group * g.K_per_group + k
    if g.clear:
        call(code.clear, (buffer, some.rows * g.m * g.grad_row))
    source = grad + (plane * g.OH + i0) * g.OW * size
    sizes = g.OH * g.OW, g.K_per_group - k, 1, (i1 - i0) * g.OW, 0, g.lanes
    call(code.pack, (source, buffer, g.grad_numbers, *sizes))
    t, within = divmod(k, g.tile_filters)
    target = (group * g.filter_tiles + t) * g.grad_size + tile * g.tile_filters + within
    tiles = g.grad_row, some.rows, g.across, g.tile_filters
    call(code.grads, (buffer, grads + target * size, *tiles, g.grad_step_product))


@range_kernel
def multiply_band(
    start: int, stop: int, first: int, tiles: int, memory: Any, sums: Any, code: Any, layer: Any
) -> None:
    """Do the share of workers `start` to `stop` in adding up what a band contributes.

    `tiles` is how many tiles there are, `first` whether this is the first band. `sums` is (groups,
    filter tiles, R, R, channels, filters of a tile).
    """
    g, size = layer[0], layer[0].itemsize
    items = g.groups * g.filter_tiles * g.blocks
    buffered = g.tile_columns * g.tile_filters
    for worker in range(start, stop):
        buffer = address(memory) + g.worker_begin + worker * g.worker_size
        for number in range(worker * items // g.workers, (worker + 1) * items // g.workers):
            tile, block = divmod(number, g.blocks)
            v, within = divmod(block * g.tile_columns, g.lanes)
            source = (tile // g.filter_tiles * g.channel_vectors + v) * g.x_size + within
            grads = g.grads_begin + tile * g.grad_size
            for product in range(g.products):
                x = address(memory) + (source + product * g.x_step_product) * size
                factors = address(memory) + (grads + product * g.grad_step_product) * size
                to = buffer + product * buffered * size
                arrays = x, g.offsets, factors, g.zeros, 0, to, g.zeros, address(g)
                call(code[0].microkernel, (*arrays, tiles, g.run, 0, 0, 0, 0))
            target = address(sums) + (tile * g.tile_sums + block * buffered) * size
            sizes = buffered // g.lanes, buffered, g.sums_plane
            call(code[0].sums, (buffer, target, *sizes, first))
