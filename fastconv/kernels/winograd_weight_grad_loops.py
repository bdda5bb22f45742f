"""The gradient of the weights by Winograd's method: the loops around transforms and products.

A band of tiles is done at a time. First the input and the gradient of the output are transformed,
each worker taking some images of some channels: their pixels are laid out with a vector of channels
side by side, and then a tile is transformed for all of them at once. Then each worker multiplies
for some of the weights, transforms the sums of the products, and adds them to the gradient: only
sums of the size of the weights are kept from band to band.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastconv.codegen import conv_microkernel as codegen_tile
from fastconv.codegen.winograd_weight_grad_transforms import transform_pixels, transform_sums
from fastconv.jit.compiler import address_of, range_kernel
from fastconv.jit.pointers import address, call
from fastconv.kernels.weight_grad_loops import COLLECTED
from fastconv.kernels.winograd_loops import Form


@cache
def pixels_address(form: Form, filters: bool) -> int:
    """Return the address of the machine code that transforms tiles of a vector of channels.

    Of F(m, r) these are its inputs or its `filters`; both are r pixels apart. Arguments: addresses
    of the first pixel and of the result's first element; elements of a row of pixels; rows and
    columns of tiles; elements from tile to tile and from one element of a tile to the next.
    """
    m, r, bits, lanes = form
    size = bits // 8
    as_filter = int(filters)

    def tiles(source, target, row, down, across, apart, stride):  # type: ignore[no-untyped-def]
        for i in range(down):
            for j in range(across):
                of = source + (i * r * row + j * r * lanes) * size
                to = target + (i * across + j) * apart * size
                transform_pixels(of, to, row, stride, as_filter, m, r, bits, lanes)

    what = "grads" if filters else "pixels"
    return address_of(tiles, f"winograd-{what}-{form.name}", 7)


@cache
def sums_address(form: Form) -> int:
    """Return the address of the machine code that transforms sums of products to gradients.

    Its arguments: addresses of the sums' first element and of the gradient's, how many vectors
    there are, elements from one product to the next and from one tap to the next, and whether
    the gradient is only to be written, not added to.
    """
    m, r, bits, lanes = form
    size = bits // 8

    def sums(source, target, vectors, stride, plane, first):  # type: ignore[no-untyped-def]
        for v in range(vectors):
            of, to = source + v * lanes * size, target + v * lanes * size
            transform_sums(of, to, stride, plane, first, m, r, bits, lanes)

    return address_of(sums, f"winograd-sums-{form.name}", 6)


#: The numbers that the loops read from the layer's record; tiles read the first few.
FIELDS = (
    *codegen_tile.LAYER,
    *COLLECTED,
    *("C", "K", "H", "W", "OH", "OW", "groups", "C_per_group", "m", "R", "products"),
    *("pad_top", "across", "pixel_row", "grad_row", "clear", "workers"),
    *("channel_vectors", "filter_vectors", "blocks", "tile_columns"),
    *("x_step_product", "x_size", "grad_step_product", "grad_size", "grads_begin"),
    *("sums_plane", "worker_begin", "worker_size"),
)
LAYOUT = np.dtype((np.record, [(name, np.int64) for name in FIELDS]))


@range_kernel
def transform_band(
    start: int,
    stop: int,
    pack: int,
    clear: int,
    pixels: int,
    filters: int,
    x: Any,
    grad: Any,
    x_places: Any,
    grad_places: Any,
    band: Any,
    memory: Any,
    layer: Any,
) -> None:
    """Do the share of workers `start` to `stop` in transforming a band.

    `pack`, `clear`, `pixels` and `filters` are addresses of machine code; `x_places` and
    `grad_places` say where elements of an image go that is laid out. `band` holds the first image,
    how many images there are, the first row of tiles and how many rows there are. `memory` gets
    the input, (groups * vectors of channels, products, tiles, channels of a vector), then the
    gradient, (groups * filter tiles, products, tiles, filters of a tile), then what workers need.
    """
    g, size = layer[0], layer[0].itemsize
    image0, images, row0, rows = band[0], band[1], band[2], band[3]
    of_channels = g.groups * g.channel_vectors
    pieces = images * (of_channels + g.groups * g.filter_vectors)
    for worker in range(start, stop):
        buffer = address(memory) + g.worker_begin + worker * g.worker_size
        for number in range(worker * pieces // g.workers, (worker + 1) * pieces // g.workers):
            which, image = divmod(number, images)
            first_tile = image * rows * g.across
            if which < of_channels:
                group, v = divmod(which, g.channel_vectors)
                c = v * g.lanes
                top = row0 * g.m - g.pad_top
                high = rows * g.m + g.R - 1
                h0, h1 = max(0, top), min(g.H, top + high)
                plane = (image0 + image) * g.C + group * g.C_per_group + c
                if g.clear:
                    call(clear, (buffer, high * g.pixel_row))
                if h1 > h0:
                    call(
                        pack,
                        (
                            address(x) + (plane * g.H + h0) * g.W * size,
                            buffer + (h0 - top) * g.pixel_row * size,
                            address(x_places),
                            g.H * g.W,
                            g.C_per_group - c,
                            (h1 - h0) * g.W,
                            g.lanes,
                        ),
                    )
                target = which * g.x_size + first_tile * g.lanes
                call(
                    pixels,
                    (
                        buffer,
                        address(memory) + target * size,
                        g.pixel_row,
                        rows,
                        g.across,
                        g.lanes,
                        g.x_step_product,
                    ),
                )
            else:
                group, v = divmod(which - of_channels, g.filter_vectors)
                k = v * g.lanes
                i0, i1 = row0 * g.m, min(g.OH, (row0 + rows) * g.m)
                plane = (image0 + image) * g.K + group * g.K_per_group + k
                if g.clear:
                    call(clear, (buffer, rows * g.m * g.grad_row))
                call(
                    pack,
                    (
                        address(grad) + (plane * g.OH + i0) * g.OW * size,
                        buffer,
                        address(grad_places),
                        g.OH * g.OW,
                        g.K_per_group - k,
                        (i1 - i0) * g.OW,
                        g.lanes,
                    ),
                )
                t, within = divmod(k, g.tile_filters)
                target = g.grads_begin + (group * g.filter_tiles + t) * g.grad_size
                target += first_tile * g.tile_filters + within
                call(
                    filters,
                    (
                        buffer,
                        address(memory) + target * size,
                        g.grad_row,
                        rows,
                        g.across,
                        g.tile_filters,
                        g.grad_step_product,
                    ),
                )


@range_kernel
def multiply_band(
    start: int,
    stop: int,
    tile: int,
    transform: int,
    first: int,
    tiles: int,
    offsets: Any,
    none: Any,
    memory: Any,
    sums: Any,
    layer: Any,
) -> None:
    """Do the share of workers `start` to `stop` in adding up what a band contributes.

    `tile` and `transform` are addresses of machine code, `tiles` is how many tiles there are,
    `first` whether this is the first band. `sums` is (groups, filter tiles, R, R, channels,
    filters of a tile).
    """
    g, size = layer[0], layer[0].itemsize
    items = g.groups * g.filter_tiles * g.blocks
    buffered = g.tile_columns * g.tile_filters
    for worker in range(start, stop):
        buffer = address(memory) + g.worker_begin + worker * g.worker_size
        for number in range(worker * items // g.workers, (worker + 1) * items // g.workers):
            tile_number, block = divmod(number, g.blocks)
            group = tile_number // g.filter_tiles
            v, within = divmod(block * g.tile_columns, g.lanes)
            source = (group * g.channel_vectors + v) * g.x_size + within
            grads = g.grads_begin + tile_number * g.grad_size
            for product in range(g.products):
                call(
                    tile,
                    (
                        address(memory) + (source + product * g.x_step_product) * size,
                        address(offsets),
                        address(memory) + (grads + product * g.grad_step_product) * size,
                        address(none),
                        0,
                        buffer + product * buffered * size,
                        address(none),
                        address(layer),
                        tiles,
                        g.run,
                        0,
                        0,
                        0,
                        0,
                    ),
                )
            target = tile_number * g.tile_sums + block * buffered
            call(
                transform,
                (
                    buffer,
                    address(sums) + target * size,
                    buffered // g.lanes,
                    buffered,
                    g.sums_plane,
                    first,
                ),
            )
