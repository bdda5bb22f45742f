"""Convolution by Winograd's method: the loops around the transforms and the products.

The output is cut into blocks of tiles. For each block the input is transformed, then for some
filters at a time the products are formed, (m + r - 1)^2 matrix products of filters by channels by
tiles, and transformed back to outputs: all of it in buffers that stay in the caches.

Where there are many blocks each worker takes a range of them. Where there are few, all workers
share the transformed input of one block: first each transforms a range of the channels, then each
multiplies a range of the filters.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv.codegen import tile as codegen_tile
from fastconv.codegen.winograd import (
    gather_row,
    scatter_row,
    transform_inputs,
    transform_outputs,
    transform_weights,
)
from fastconv.kernels.calls import address, call
from fastconv.kernels.jit import address_of, kernel, range_kernel


class Form(NamedTuple):
    """What transforms are compiled for: outputs of a tile and taps along one axis, and vectors."""

    m: int
    r: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """What the kernels are called; docs/kernels.md has the grammar."""
        return f"f{self.bits}x{self.lanes}-m{self.m}r{self.r}"

    @property
    def alpha(self) -> int:
        """Side of a transformed tile."""
        return self.m + self.r - 1


@lru_cache(maxsize=32)
def inputs_address(form: Form) -> int:
    """Return the address of the machine code that transforms rows of tiles of one channel.

    Its arguments: addresses of the channel, of a buffer, and of the result's first element; then
    height and width of the channel, its first row and column (negative in the margin), rows and
    columns of tiles, elements of a plane of the buffer, and from one element of a transformed
    tile to the next.
    """
    m, r, bits, lanes = form
    size, alpha = bits // 8, form.alpha

    def inputs(source, buffer, target, height, width, top, left, rows, columns, plane, stride):  # type: ignore[no-untyped-def]
        for u in range(rows * m + r - 1):
            h = top + u
            there = width if 0 <= h < height else 0
            place = buffer + (u % m * alpha * plane + u // m * columns) * size
            row = source + h * width * size
            scatter_row(place, row, there, left, columns, plane, m, r, bits, lanes)
        for t in range(0, rows * columns, lanes):
            of, to = buffer + t * size, target + t * size
            transform_inputs(of, to, plane, columns, stride, m, r, bits, lanes)

    return address_of(inputs, f"winograd-inputs-{form.name}", 11)


@lru_cache(maxsize=32)
def outputs_address(form: Form) -> int:
    """Return the address of the machine code that makes rows of one filter's output.

    Its arguments: addresses of the products, of a buffer, of the output's first element, of the
    residual's or 0, of the bias, and of the activation's numbers; its form; rows and columns of
    tiles, elements of a plane of the buffer, and from one product of a tile to the next; rows and
    columns of output that there are, and elements of a row of it.
    """
    m, r, bits, lanes = form
    size = bits // 8

    def outputs(  # type: ignore[no-untyped-def]
        source, buffer, out, residual, bias, numbers, activation,
        rows, columns, plane, stride, height, width, out_row,
    ):  # fmt: skip
        for t in range(0, rows * columns, lanes):
            of, to = source + t * size, buffer + t * size
            transform_outputs(of, to, bias, plane, stride, m, r, bits, lanes)
        for u in range(min(rows * m, height)):
            place = buffer + (u % m * m * plane + u // m * columns) * size
            line = u * out_row * size
            added = residual + line if residual else 0
            gather_row(
                place, out + line, added, numbers, activation, columns, plane, width, m, bits, lanes
            )

    return address_of(outputs, f"winograd-outputs-{form.name}", 14)


@lru_cache(maxsize=32)
def weights_address(form: Form) -> int:
    """Return the address of the machine code that transforms weights laid out for tiles.

    Its arguments: addresses of taps and of results, elements from one tap and from one result to
    the next, and how many filters to transform.
    """
    m, r, bits, lanes = form
    size = bits // 8

    def weights(source, target, plane, stride, count):  # type: ignore[no-untyped-def]
        for t in range(0, count, lanes):
            of, to = source + t * size, target + t * size
            transform_weights(of, to, plane, stride, count - t, m, r, bits, lanes)

    return address_of(weights, f"winograd-weights-{form.name}", 5)


#: The numbers that the loops read from the layer's record; product tiles read the first few. OH, OW
#: and `out_m` are those of what is written: the output, or the maxima of its squares.
FIELDS = (
    *codegen_tile.LAYER,
    *("itemsize", "C", "K", "H", "W", "OH", "OW", "C_per_group", "K_per_group"),
    *("m", "out_m", "products", "taps", "chunk", "chunks", "pad_top", "pad_left", "tile_rows"),
    *("row_blocks", "column_blocks", "blocks", "workers", "shared", "fresh"),
    *("tile_filters", "tile_columns", "filter_tiles", "pass_tiles"),
    *("pitch", "scatter_plane", "gather_plane", "in_stride", "product_stride", "weight_step"),
    *("shared_bytes", "worker_bytes", "gather_begin", "products_begin", "inputs_begin"),
    *("laid_out_begin", "filters_begin"),
)
LAYOUT = np.dtype((np.record, [(name, np.int64) for name in FIELDS]))


@kernel
def make_filters(
    source: int,
    pack: int,
    turned: int,
    transform: int,
    places: int,
    buffer: int,
    target: int,
    group: int,
    t: int,
    first: int,
    channels: int,
    g: Any,
) -> None:
    """Lay out `channels` channels of tile `t` of a group's filters, from `first` on, and transform.

    `source`, `places`, `buffer` and `target` are addresses, and so are `pack` and `transform`, of
    machine code; `places` and `buffer` are made for ``g.chunk`` channels. The weights lie as those
    of a convolution, or, `turned`, as those of the convolution whose input gradient is computed.
    """
    wide, filters = g.tile_filters, g.K_per_group
    begin = source + group * filters * g.C_per_group * g.taps * g.itemsize
    if turned:
        begin += first * filters * g.taps * g.itemsize
        sizes = (filters, channels, g.taps, 0, 1, wide)
        call(pack, (t, t + 1, begin, buffer, places, t + 1, *sizes))
    else:
        begin += first * g.taps * g.itemsize
        pitch = g.C_per_group * g.taps
        numbers = (filters, pitch, channels * g.taps, wide)
        call(pack, (t, t + 1, begin, buffer, places, t + 1, *numbers))
    call(transform, (buffer, target, g.chunk * wide, g.weight_step, channels * wide))


@range_kernel
def transform_filters(
    start: int,
    stop: int,
    workers: int,
    pack: int,
    turned: int,
    transform: int,
    source: Any,
    places: Any,
    buffers: Any,
    out: Any,
    layer: Any,
) -> None:
    """Transform the shares of workers `start` to `stop` of all filters, see `make_filters`.

    `source` holds the weights, flat, `buffers` a row for each worker; `out` gets (groups, filter
    tiles, products, channels, filters of a tile), flat, a product `weight_step` elements behind
    the one before.
    """
    g, size = layer[0], layer[0].itemsize
    pieces = out.size // (g.products * g.weight_step) * g.chunks
    for worker in range(start, stop):
        buffer = address(buffers) + worker * buffers.shape[1] * size
        for piece in range(worker * pieces // workers, (worker + 1) * pieces // workers):
            number, chunk = divmod(piece, g.chunks)
            group, t = divmod(number, g.filter_tiles)
            first = chunk * g.chunk
            target = number * g.products * g.weight_step + first * g.tile_filters
            make_filters(
                address(source),
                pack,
                turned,
                transform,
                address(places),
                buffer,
                address(out) + target * size,
                group,
                t,
                first,
                min(g.chunk, g.C_per_group - first),
                g,
            )


#: What a call does: both steps, or one of them.
BOTH, TRANSFORM, MULTIPLY = range(3)


@range_kernel
def convolve_winograd(
    start: int,
    stop: int,
    step: int,
    block: int,
    inputs: int,
    tile: int,
    outputs: int,
    pack: int,
    turned: int,
    transform: int,
    x: Any,
    weight: Any,
    places: Any,
    bias: Any,
    residual: Any,
    out: Any,
    numbers: Any,
    form: int,
    plain: Any,
    offsets: Any,
    cuts: Any,
    memory: Any,
    layer: Any,
) -> None:
    """Do the work of workers `start` to `stop`.

    `inputs`, `tile` and `outputs` are addresses of machine code. All arrays are flat: `weight` is
    (groups, filter tiles, products, channels, filters of a tile), a product `weight_step` elements
    behind the one before; `bias` is (K,); `residual` is
    shaped like `out` or empty; `numbers` and `form` are the activation's; `plain` holds the
    numbers of no activation and then zeros, the bias of the products; `offsets` says where a
    channel lies in the transformed input; `cuts` holds the first rows of tiles of the blocks,
    counted through all images, and their first columns, each list with its end; `memory` has
    room for all workers. If they share their input, `block` is the one to do.
    """
    g = layer[0]
    size = g.itemsize
    row_starts, column_starts = cuts[: g.row_blocks + 1], cuts[g.row_blocks + 1 :]
    for worker in range(start, stop):
        own = address(memory) + g.shared_bytes + worker * g.worker_bytes
        gathered, products = own + g.gather_begin, own + g.products_begin
        if g.shared:
            transformed = address(memory)
            first, last = block, block + 1
            c0 = worker * g.C_per_group // g.workers
            c1 = (worker + 1) * g.C_per_group // g.workers
            f0 = worker * g.filter_tiles // g.workers
            f1 = (worker + 1) * g.filter_tiles // g.workers
        else:
            transformed = own + g.inputs_begin
            first = worker * g.blocks // g.workers
            last = (worker + 1) * g.blocks // g.workers
            c0, c1, f0, f1 = 0, g.C_per_group, 0, g.filter_tiles
        for number in range(first, last):
            group, rest = divmod(number, g.row_blocks * g.column_blocks)
            row_block, column_block = divmod(rest, g.column_blocks)
            q0, q1 = row_starts[row_block], row_starts[row_block + 1]
            column0 = column_starts[column_block]
            columns = column_starts[column_block + 1] - column0
            tiles = (q1 - q0) * columns
            if step != MULTIPLY:
                for c in range(c0, c1):
                    q = q0
                    while q < q1:
                        image, row = divmod(q, g.tile_rows)
                        rows = min(q1 - q, g.tile_rows - row)
                        plane = image * g.C + group * g.C_per_group + c
                        call(
                            inputs,
                            (
                                address(x) + plane * g.H * g.W * size,
                                own,
                                transformed + (c * g.pitch + (q - q0) * columns) * size,
                                g.H,
                                g.W,
                                row * g.m - g.pad_top,
                                column0 * g.m - g.pad_left,
                                rows,
                                columns,
                                g.scatter_plane,
                                g.in_stride,
                            ),
                        )
                        q += rows
            if step == TRANSFORM:
                continue
            for pass0 in range(f0, f1, g.pass_tiles):
                pass1 = min(f1, pass0 + g.pass_tiles)
                at_once = g.chunk if g.fresh else g.C_per_group
                for channel0 in range(0, g.C_per_group, at_once):
                    channels = min(at_once, g.C_per_group - channel0)
                    filters = address(weight)
                    filters += (group * g.filter_tiles + pass0) * g.products * g.weight_step * size
                    if g.fresh:
                        filters = own + g.filters_begin
                        for t in range(pass0, pass1):
                            make_filters(
                                address(weight),
                                pack,
                                turned,
                                transform,
                                address(places),
                                own + g.laid_out_begin,
                                filters + (t - pass0) * g.products * g.weight_step * size,
                                group,
                                t,
                                channel0,
                                channels,
                                g,
                            )
                    for p in range(g.products):
                        source = transformed + (p * g.in_stride + channel0 * g.pitch) * size
                        target = products + p * g.product_stride * size
                        for t in range(pass0, pass1):
                            packed = filters + ((t - pass0) * g.products + p) * g.weight_step * size
                            wanted = min(g.tile_filters, g.K_per_group - t * g.tile_filters)
                            to = target + (t - pass0) * g.tile_filters * g.pitch * size
                            for j in range(0, tiles, g.tile_columns):
                                if not g.fresh:  # what is done twice is not added twice
                                    j = max(0, min(j, tiles - g.tile_columns))
                                call(
                                    tile,
                                    (
                                        source + j * size,
                                        address(offsets),
                                        packed,
                                        address(plain) + 4 * size,
                                        to + j * size if channel0 else 0,
                                        to + j * size,
                                        address(plain),
                                        address(layer),
                                        channels,
                                        g.run,
                                        0,
                                        wanted,
                                        tiles - j,
                                        0,
                                    ),
                                )
                k0 = pass0 * g.tile_filters
                for k in range(k0, min(g.K_per_group, pass1 * g.tile_filters)):
                    channel = group * g.K_per_group + k
                    q = q0
                    while q < q1:
                        image, row = divmod(q, g.tile_rows)
                        rows = min(q1 - q, g.tile_rows - row)
                        place = (image * g.K + channel) * g.OH * g.OW
                        place = (place + row * g.out_m * g.OW + column0 * g.out_m) * size
                        call(
                            outputs,
                            (
                                products + ((k - k0) * g.pitch + (q - q0) * columns) * size,
                                gathered,
                                address(out) + place,
                                address(residual) + place if residual.size else 0,
                                address(bias) + channel * size,
                                address(numbers),
                                form,
                                rows,
                                columns,
                                g.gather_plane,
                                g.product_stride,
                                g.OH - row * g.out_m,
                                min(columns * g.out_m, g.OW - column0 * g.out_m),
                                g.OW,
                            ),
                        )
                        q += rows
