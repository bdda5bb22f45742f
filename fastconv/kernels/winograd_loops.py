"""Convolution by Winograd's method: the loops around the transforms and the products.

The output is cut into blocks of tiles. For each block the input is transformed, then for some
output channels at a time the products are formed, (m + r - 1)^2 matrix products of output channels
by input channels by tiles, and transformed back to outputs: all of it in buffers that stay in the
caches.

Where there are many blocks each worker takes a range of them. Where there are few, all workers
share the transformed input of one block: first each transforms a range of the input channels, then
each multiplies a range of the output channels.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from fastconv.codegen import conv_microkernel
from fastconv.codegen.winograd_transforms import (
    gather_row,
    scatter_row,
    transform_inputs,
    transform_outputs,
    transform_weights,
)
from fastconv.core.records import record_type
from fastconv.jit.compiler import address_of, inner_kernel, range_kernel
from fastconv.jit.pointers import address, call, integer_at, record_at

#: The numbers of a cut; microkernels read the first few. OH, OW and `out_m` are those of what is
#: written: the output, or its maxima over 2 x 2 windows. `offsets` is the address of where each
#: channel begins in the transformed input, `starts` that of the blocks' first rows of tiles,
#: counted through all images, and their first columns, each list with its end.
LAYOUT = record_type(
    *conv_microkernel.LAYER,
    *("itemsize", "C", "K", "H", "W", "OH", "OW", "C_per_group", "K_per_group"),
    *("m", "out_m", "products", "chunk", "chunks", "pad_top", "pad_left", "tile_rows"),
    *("row_blocks", "column_blocks", "blocks", "workers", "shared", "fresh"),
    *("tile_filters", "tile_columns", "filter_tiles", "pass_tiles"),
    *("pitch", "scatter_plane", "gather_plane", "in_stride", "product_stride", "weight_step"),
    *("shared_bytes", "worker_bytes", "gather_begin", "products_begin", "inputs_begin"),
    *("packed_begin", "weights_begin", "offsets", "starts"),
)

#: What is the same for every input. Addresses of machine code: the three transforms, the
#: microkernel, and what packs weights (and whether it rotates them). Addresses of arrays: the
#: cut's record; the weights, (groups, filter tiles, products, channels, filters of a tile), a
#: product `weight_step` elements behind the one before, or the weights as they are where they are
#: to be transformed; the offset of each tap in packed weights; the bias, (K,); the activation's
#: numbers; and `plain`, the numbers of no activation, followed by zeros, the bias of the products.
ARGUMENTS = record_type(
    *("inputs", "weights", "outputs", "microkernel", "pack", "rotated"),
    *("layer", "weight", "tap_offsets", "bias", "numbers", "plain", "form"),
)

#: What a call does: it transforms the input, multiplies, does both, or transforms all weights.
BOTH, TRANSFORM, MULTIPLY, WEIGHTS = range(4)


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

    Its arguments: addresses of the channel, of a buffer, and of the result's first element; the
    first row and column of tiles, and how many there are of each; the address of the cut's record.
    """
    m, r, bits, lanes = form
    size, alpha = bits // 8, form.alpha

    def inputs(source, buffer, target, row, column, rows, columns, layer):  # type: ignore[no-untyped-def]
        g = record_at(layer, LAYOUT)
        plane, stride = g.scatter_plane, g.in_stride
        top, left = row * m - g.pad_top, column * m - g.pad_left
        for u in range(rows * m + r - 1):
            h = top + u
            width = g.W if 0 <= h < g.H else 0
            to = buffer + (u % m * alpha * plane + u // m * columns) * size
            scatter_row(to, source + h * g.W * size, width, left, columns, plane, m, r, bits, lanes)
        for t in range(0, rows * columns, lanes):
            of, to = buffer + t * size, target + t * size
            transform_inputs(of, to, plane, columns, stride, m, r, bits, lanes)

    return address_of(inputs, f"winograd-inputs-{form.name}", 8)


@cache
def outputs_address(form: Form) -> int:
    """Return the address of the machine code that makes rows of one output channel.

    Its arguments: addresses of the products, of a buffer, of the output's first element, and of the
    residual's or 0; the channel; the first row and column of tiles, and how many there are of each;
    the address of `ARGUMENTS`.
    """
    m, r, bits, lanes = form
    size = bits // 8

    def outputs(source, buffer, out, residual, channel, row, column, rows, columns, arguments):  # type: ignore[no-untyped-def]
        a = record_at(arguments, ARGUMENTS)
        g = record_at(a.layer, LAYOUT)
        plane, stride = g.gather_plane, g.product_stride
        bias, numbers, activation = a.bias + channel * size, a.numbers, a.form
        width = min(columns * m, g.OW - column * m)
        for t in range(0, rows * columns, lanes):
            of, to = source + t * size, buffer + t * size
            transform_outputs(of, to, bias, plane, stride, m, r, bits, lanes)
        for u in range(min(rows * m, g.OH - row * m)):
            of = buffer + (u % m * m * plane + u // m * columns) * size
            line = u * g.OW * size
            added = residual + line if residual else 0
            gather_row(
                of, out + line, added, numbers, activation, columns, plane, width, m, bits, lanes
            )

    return address_of(outputs, f"winograd-outputs-{form.name}", 10)


@cache
def weights_address(form: Form) -> int:
    """Return the address of the machine code that packs weights and transforms them.

    Its arguments: addresses of `ARGUMENTS`, of a buffer, and of the first result; numbers of the
    group and of the tile of output channels in it, the first input channel, and how many.
    """
    m, r, bits, lanes = form
    size, taps = bits // 8, form.r**2

    def weights(arguments, buffer, target, group, tile, first, channels):  # type: ignore[no-untyped-def]
        a = record_at(arguments, ARGUMENTS)
        g = record_at(a.layer, LAYOUT)
        C, K, wide = g.C_per_group, g.K_per_group, g.tile_filters
        begin = group * K * C + (first * K if a.rotated else first)
        some = tile, tile + 1, a.weight + begin * taps * size, buffer, a.tap_offsets, tile + 1
        if a.rotated:
            call(a.pack, (*some, K, channels, taps, 0, 1, wide))
        else:
            call(a.pack, (*some, K, C * taps, channels * taps, wide))
        count = channels * wide
        for t in range(0, count, lanes):
            of, to = buffer + t * size, target + t * size
            transform_weights(of, to, g.chunk * wide, g.weight_step, count - t, m, r, bits, lanes)

    return address_of(weights, f"winograd-weights-{form.name}", 7)


@range_kernel
def convolve_winograd(
    start: int,
    stop: int,
    step: int,
    block: int,
    x: Any,
    residual: Any,
    out: Any,
    memory: Any,
    arguments: Any,
) -> None:
    """Do the work of workers `start` to `stop`.

    All arrays are flat. `residual` is shaped like `out` or empty; `memory` has room for all
    workers; `arguments` is a record of `ARGUMENTS`. If the workers share their input, `block` is
    the one to do. To transform weights, `out` gets all of them.
    """
    a = arguments[0]
    g = record_at(a.layer, LAYOUT)
    images = address(x), address(residual) if residual.size else 0, address(out)
    for worker in range(start, stop):
        own = address(memory) + g.shared_bytes + worker * g.worker_bytes
        if step == WEIGHTS:
            _transform_weights(worker, own, address(out), out.size, a, g)
            continue
        if g.shared:
            transformed, blocks = address(memory), (block, block + 1)
            channels, tiles = _share(worker, g.C_per_group, g), _share(worker, g.filter_tiles, g)
        else:
            transformed, blocks = own + g.inputs_begin, _share(worker, g.blocks, g)
            channels, tiles = (0, g.C_per_group), (0, g.filter_tiles)
        for number in range(blocks[0], blocks[1]):
            place = _block(number, g)
            if step != MULTIPLY:
                _transform_input(place, channels, images[0], own, transformed, a, g)
            if step != TRANSFORM:
                _multiply(place, tiles, transformed, own, images[1], images[2], a, g)


@inner_kernel
def _share(worker, items, g):  # type: ignore[no-untyped-def]
    """Return the range of so many items that a worker does."""
    return worker * items // g.workers, (worker + 1) * items // g.workers


@inner_kernel
def _block(number, g):  # type: ignore[no-untyped-def]
    """Return the group of a block, its first row of tiles and the last, first column, and width."""
    group, rest = divmod(number, g.row_blocks * g.column_blocks)
    i, j = divmod(rest, g.column_blocks)
    column_starts = g.starts + 8 * (g.row_blocks + 1)
    column = integer_at(column_starts, j)
    rows = integer_at(g.starts, i), integer_at(g.starts, i + 1)
    return group, rows[0], rows[1], column, integer_at(column_starts, j + 1) - column


@inner_kernel
def _transform_weights(worker, own, target, size, a, g):  # type: ignore[no-untyped-def]
    """Transform a worker's share of all weights, which take so many elements."""
    tile_size = g.products * g.weight_step
    first, last = _share(worker, size // tile_size * g.chunks, g)
    for item in range(first, last):
        number, chunk = divmod(item, g.chunks)
        group, t = divmod(number, g.filter_tiles)
        c = chunk * g.chunk
        to = target + (number * tile_size + c * g.tile_filters) * g.itemsize
        some = group, t, c, min(g.chunk, g.C_per_group - c)
        call(a.weights, (address(a), own + g.packed_begin, to, *some))


@inner_kernel
def _transform_input(place, channels, x, own, transformed, a, g):  # type: ignore[no-untyped-def]
    """Transform a range of the input channels of a block."""
    group, q0, q1, column, columns = place
    for c in range(channels[0], channels[1]):
        q = q0
        while q < q1:
            image, row = divmod(q, g.tile_rows)
            rows = min(q1 - q, g.tile_rows - row)
            plane = image * g.C + group * g.C_per_group + c
            source = x + plane * g.H * g.W * g.itemsize
            target = transformed + (c * g.pitch + (q - q0) * columns) * g.itemsize
            call(a.inputs, (source, own, target, row, column, rows, columns, a.layer))
            q += rows


@inner_kernel
def _multiply(place, tiles, transformed, own, residual, out, a, g):  # type: ignore[no-untyped-def]
    """Compute a range of the tiles of output channels of a block."""
    group, size = place[0], g.itemsize
    tile_size = g.products * g.weight_step * size
    at_once = g.chunk if g.fresh else g.C_per_group
    for t0 in range(tiles[0], tiles[1], g.pass_tiles):
        t1 = min(tiles[1], t0 + g.pass_tiles)
        for c in range(0, g.C_per_group, at_once):
            channels = min(at_once, g.C_per_group - c)
            weights = a.weight + (group * g.filter_tiles + t0) * tile_size
            if g.fresh:
                weights = own + g.weights_begin
                for t in range(t0, t1):
                    to = weights + (t - t0) * tile_size
                    some = group, t, c, channels
                    call(a.weights, (address(a), own + g.packed_begin, to, *some))
            for p in range(g.products):
                source = transformed + (p * g.in_stride + c * g.pitch) * size
                factors = weights + p * g.weight_step * size
                target = own + g.products_begin + p * g.product_stride * size
                _product((t0, t1), (c, channels), place, source, factors, target, a, g)
        _write_outputs(place, (t0, t1), own, residual, out, a, g)


@inner_kernel
def _product(some, channels, place, source, weights, target, a, g):  # type: ignore[no-untyped-def]
    """Multiply one element of the tiles of a block by that of some tiles of output channels.

    The products of some channels are added to those of the channels before.
    """
    size, tiles = g.itemsize, (place[2] - place[1]) * place[4]
    for t in range(some[0], some[1]):
        factors = weights + (t - some[0]) * g.products * g.weight_step * size
        left = min(g.tile_filters, g.K_per_group - t * g.tile_filters)
        to = target + (t - some[0]) * g.tile_filters * g.pitch * size
        for j in range(0, tiles, g.tile_columns):
            if not g.fresh:  # what is done twice is not added twice
                j = max(0, min(j, tiles - g.tile_columns))
            x, out = source + j * size, to + j * size
            before = out if channels[0] else 0
            arrays = x, g.offsets, factors, a.plain + 4 * size, before, out, a.plain, a.layer
            call(a.microkernel, (*arrays, channels[1], g.run, 0, left, tiles - j, 0))


@inner_kernel
def _write_outputs(place, some, own, residual, out, a, g):  # type: ignore[no-untyped-def]
    """Transform the products of some tiles of output channels, and write what they give."""
    group, q0, q1, column, columns = place
    size, k0 = g.itemsize, some[0] * g.tile_filters
    for k in range(k0, min(g.K_per_group, some[1] * g.tile_filters)):
        channel = group * g.K_per_group + k
        q = q0
        while q < q1:
            image, row = divmod(q, g.tile_rows)
            rows = min(q1 - q, g.tile_rows - row)
            first = (image * g.K + channel) * g.OH * g.OW
            first = (first + (row * g.OW + column) * g.out_m) * size
            of = own + g.products_begin + ((k - k0) * g.pitch + (q - q0) * columns) * size
            added = residual + first if residual else 0
            images = of, own + g.gather_begin, out + first, added
            call(a.outputs, (*images, channel, row, column, rows, columns, address(a)))
            q += rows
