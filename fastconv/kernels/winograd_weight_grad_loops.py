"""Winograd weight gradients: the loops around transforms and products.

Tiles are processed in bands. First the input and the output gradient are transformed, each worker
taking some images and channels: their pixels are packed channels-last, and a tile is transformed
for a vector of channels at once. Then each worker multiplies for some of the weights, transforms
the sums of the products, and adds them to the gradient. Only sums of the size of the weights are
kept between bands.
"""

from __future__ import annotations

from fastconv.codegen import conv_microkernel
from fastconv.codegen.integers import Integer, counted
from fastconv.codegen.vector import I64
from fastconv.core.records import record_type
from fastconv.kernels.weight_grad_loops import COLLECTING, Loops, machine_loops

#: The parameters of a partition; microkernels read the first few. The last fields are addresses: of
#: each tile's offset; of the packed index of each pixel of an image's rows, for the input and for
#: the gradient; and of zeros.
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
CODE = record_type(*COLLECTING, "pack", "clear", "pixels", "grads", "microkernel", "sums")


@machine_loops(lambda: "winograd-weight-grad-transform", LAYOUT, CODE)
def transform_address(w: Loops, worker: Integer) -> None:
    """Emit the loops that transform a band; an item is a worker.

    `memory` gets the input, (groups * vectors of channels, products, tiles, channels of a vector),
    then the gradient, (groups * filter tiles, products, tiles, filters of a tile), then a buffer
    for each worker.
    """
    g, images = w.g, w.band.images
    of_channels = g.groups * g.channel_vectors
    items = images * (of_channels + g.groups * g.filter_vectors)
    buffer = w.v.memory + g.worker_begin + worker * g.worker_size
    first, end = worker * items // g.workers, (worker + 1) * items // g.workers
    with counted(w.builder, first, end) as item:
        vector, image = item // images, item % images
        tile = image * w.band.rows * g.across
        is_input = vector.compare("<", of_channels)
        with w.builder.if_else(is_input) as (then, otherwise):
            with then:
                _transform_pixels(w, buffer, vector, image, tile)
            with otherwise:
                _transform_grads(w, buffer, vector - of_channels, image, tile)


def _transform_pixels(
    w: Loops, buffer: Integer, vector: Integer, image: Integer, tile: Integer
) -> None:
    """Emit the transforms of a band's input tiles, for an image and a vector of channels."""
    g, band, size = w.g, w.band, w.size
    group, c = vector // g.channel_vectors, vector % g.channel_vectors * g.lanes
    top, high = band.row * g.m - g.pad_top, band.rows * g.m + g.R - 1
    h0, h1 = top.at_least(0), (top + high).at_most(g.H)
    plane = (band.image + image) * g.C + group * g.C_per_group + c
    with w.builder.if_then(g.clear.compare("!=", 0)):
        w.call(w.code.clear, buffer, high * g.pixel_row)
    with w.builder.if_then(h1.compare(">", h0)):
        source = w.v.x + (plane * g.H + h0) * g.W * size
        target = buffer + (h0 - top) * g.pixel_row * size
        sizes = g.H * g.W, g.C_per_group - c, 1, (h1 - h0) * g.W, 0, g.lanes
        w.call(w.code.pack, source, target, g.x_numbers, *sizes)
    target = w.v.memory + (vector * g.x_size + tile * g.lanes) * size
    tiles = g.pixel_row, band.rows, g.across, g.lanes
    w.call(w.code.pixels, buffer, target, *tiles, g.x_step_product)


def _transform_grads(
    w: Loops, buffer: Integer, vector: Integer, image: Integer, tile: Integer
) -> None:
    """Emit the transforms of a band's gradient tiles, for an image and a vector of filters."""
    g, band, size = w.g, w.band, w.size
    group, k = vector // g.filter_vectors, vector % g.filter_vectors * g.lanes
    i0, i1 = band.row * g.m, ((band.row + band.rows) * g.m).at_most(g.OH)
    plane = (band.image + image) * g.K + group * g.K_per_group + k
    with w.builder.if_then(g.clear.compare("!=", 0)):
        w.call(w.code.clear, buffer, band.rows * g.m * g.grad_row)
    source = w.v.grad + (plane * g.OH + i0) * g.OW * size
    sizes = g.OH * g.OW, g.K_per_group - k, 1, (i1 - i0) * g.OW, 0, g.lanes
    w.call(w.code.pack, source, buffer, g.grad_numbers, *sizes)
    target = (group * g.filter_tiles + k // g.tile_filters) * g.grad_size + g.grads_begin
    target = target + tile * g.tile_filters + k % g.tile_filters
    tiles = g.grad_row, band.rows, g.across, g.tile_filters
    w.call(w.code.grads, buffer, w.v.memory + target * size, *tiles, g.grad_step_product)


@machine_loops(lambda: "winograd-weight-grad-multiply", LAYOUT, CODE)
def multiply_address(w: Loops, worker: Integer) -> None:
    """Emit the loops that add a band's contribution; an item is a worker.

    `sums` is (groups, filter tiles, R, R, channels, filters of a tile).
    """
    g, size = w.g, w.size
    items = g.groups * g.filter_tiles * g.blocks
    buffered = g.tile_columns * g.tile_filters
    buffer = w.v.memory + g.worker_begin + worker * g.worker_size
    tiles = w.band.images * w.band.rows * g.across
    first, end = worker * items // g.workers, (worker + 1) * items // g.workers
    with counted(w.builder, first, end) as item:
        tile, column = item // g.blocks, item % g.blocks * g.tile_columns
        source = tile // g.filter_tiles * g.channel_vectors + column // g.lanes
        source = source * g.x_size + column % g.lanes
        grads = g.grads_begin + tile * g.grad_size
        with counted(w.builder, 0, g.products) as p:
            x = w.v.memory + (source + p * g.x_step_product) * size
            factors = w.v.memory + (grads + p * g.grad_step_product) * size
            target = buffer + p * buffered * size
            arrays = x, g.offsets, factors, g.zeros, 0, target, g.zeros, w.v.layer
            w.call(w.code.microkernel, *arrays, tiles, g.run, 0, 0, 0, 0)
        target = w.v.sums + (tile * g.tile_sums + column * g.tile_filters) * size
        is_first = Integer(w.builder, w.builder.zext(w.is_first_band(), I64))
        sizes = buffered // g.lanes, buffered, g.sums_plane, is_first
        w.call(w.code.sums, buffer, target, *sizes)
