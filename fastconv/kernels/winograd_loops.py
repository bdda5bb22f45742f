"""Convolution by Winograd's method: the loops around the transforms and the products.

The output is cut into blocks of tiles. For each block the input is transformed, then for some
filters at a time the products are formed, (m + r - 1)^2 matrix products of filters by channels by
tiles, and transformed back to outputs: all of it in buffers that stay in the caches.

Where there are many blocks each worker takes a range of them. Where there are few, all workers
share the transformed input of one block: first each transforms a range of the channels, then each
multiplies a range of the filters.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastconv.codegen import conv_microkernel as codegen_tile
from fastconv.codegen.winograd_transforms import (
    gather_row,
    scatter_row,
    transform_inputs,
    transform_outputs,
    transform_weights,
)
from fastconv.jit.compiler import address_of, range_kernel
from fastconv.jit.pointers import address, call


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


@cache
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


@cache
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


@cache
def filters_address(form: Form) -> int:
    """Return the address of the machine code that lays out filters of a tile and transforms them.

    Its arguments: the address of machine code that lays out, see `pack_weights`, and
    whether it turns; addresses of the weights, of the place of each tap (int64), of a buffer, and
    of the first result; numbers of the group and of the tile in it, the first channel and how many
    are wanted; channels and filters of a group, filters of a tile, for how many channels places
    and buffer are made, and elements from one result to the next.
    """
    m, r, bits, lanes = form
    size, taps = bits // 8, form.r**2

    def make(  # type: ignore[no-untyped-def]
        pack, turned, source, places, buffer, target, group, tile, first, wanted,
        channels, filters, wide, room, stride,
    ):  # fmt: skip
        begin = group * filters * channels
        if turned:
            begin = source + (begin + first * filters) * taps * size
            turning = (filters, wanted, taps, 0, 1, wide)
            call(pack, (tile, tile + 1, begin, buffer, places, tile + 1, *turning))
        else:
            begin = source + (begin + first) * taps * size
            numbers = (filters, channels * taps, wanted * taps, wide)
            call(pack, (tile, tile + 1, begin, buffer, places, tile + 1, *numbers))
        count = wanted * wide
        for t in range(0, count, lanes):
            of, to = buffer + t * size, target + t * size
            transform_weights(of, to, room * wide, stride, count - t, m, r, bits, lanes)

    return address_of(make, f"winograd-weights-{form.name}", 15)


#: The numbers that the loops read from the layer's record; product tiles read the first few. OH, OW
#: and `out_m` are those of what is written: the output, or the maxima of its squares.
FIELDS = (
    *codegen_tile.LAYER,
    *("itemsize", "C", "K", "H", "W", "OH", "OW", "C_per_group", "K_per_group"),
    *("m", "out_m", "products", "chunk", "chunks", "pad_top", "pad_left", "tile_rows"),
    *("row_blocks", "column_blocks", "blocks", "workers", "shared", "fresh"),
    *("tile_filters", "tile_columns", "filter_tiles", "pass_tiles"),
    *("pitch", "scatter_plane", "gather_plane", "in_stride", "product_stride", "weight_step"),
    *("shared_bytes", "worker_bytes", "gather_begin", "products_begin", "inputs_begin"),
    *("laid_out_begin", "filters_begin"),
)
LAYOUT = np.dtype((np.record, [(name, np.int64) for name in FIELDS]))


#: What a call does: it transforms the input, multiplies, does both, or transforms all filters.
BOTH, TRANSFORM, MULTIPLY, FILTERS = range(4)


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
    filters: int,
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

    `inputs`, `tile`, `outputs`, `pack` and `filters` are addresses of machine code. All arrays
    are flat: `weight` is (groups, filter tiles, products, channels, filters of a tile), a product
    `weight_step` elements behind the one before; or the weights as they are, where they are to be
    transformed, all of them into `out`, or fresh ones for each block. `pack`, `turned` and
    `places` are then what `filters_address` wants. `bias` is (K,); `residual` is
    shaped like `out` or empty; `numbers` and `form` are the activation's; `plain` holds the
    numbers of no activation and then zeros, the bias of the products; `offsets` says where a
    channel lies in the transformed input; `cuts` holds the first rows of tiles of the blocks,
    counted through all images, and their first columns, each list with its end; `memory` has
    room for all workers. If they share their input, `block` is the one to do.
    """
    g = layer[0]
    size = g.itemsize
    tile_size = g.products * g.weight_step * size
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
        if step == FILTERS:
            pieces = out.size // (g.products * g.weight_step) * g.chunks
            for piece in range(worker * pieces // g.workers, (worker + 1) * pieces // g.workers):
                number, chunk = divmod(piece, g.chunks)
                group, t = divmod(number, g.filter_tiles)
                channel0 = chunk * g.chunk
                target = number * tile_size + channel0 * g.tile_filters * size
                call(
                    filters,
                    (
                        pack,
                        turned,
                        address(weight),
                        address(places),
                        own + g.laid_out_begin,
                        address(out) + target,
                        group,
                        t,
                        channel0,
                        min(g.chunk, g.C_per_group - channel0),
                        g.C_per_group,
                        g.K_per_group,
                        g.tile_filters,
                        g.chunk,
                        g.weight_step,
                    ),
                )
            continue
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
                    packed = address(weight) + (group * g.filter_tiles + pass0) * tile_size
                    if g.fresh:
                        packed = own + g.filters_begin
                        for t in range(pass0, pass1):
                            call(
                                filters,
                                (
                                    pack,
                                    turned,
                                    address(weight),
                                    address(places),
                                    own + g.laid_out_begin,
                                    packed + (t - pass0) * tile_size,
                                    group,
                                    t,
                                    channel0,
                                    channels,
                                    g.C_per_group,
                                    g.K_per_group,
                                    g.tile_filters,
                                    g.chunk,
                                    g.weight_step,
                                ),
                            )
                    for p in range(g.products):
                        source = transformed + (p * g.in_stride + channel0 * g.pitch) * size
                        target = products + p * g.product_stride * size
                        for t in range(pass0, pass1):
                            factors = packed + (t - pass0) * tile_size + p * g.weight_step * size
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
                                        factors,
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
