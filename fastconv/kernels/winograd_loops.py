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

from typing import Any, NamedTuple

from fastconv.jit.compiler import inner_kernel, range_kernel
from fastconv.jit.pointers import address, call, integer_at, record_at
from fastconv.kernels.winograd_microkernels import LAYOUT

#: What a call does: it transforms the input, multiplies, does both, or transforms all weights.
BOTH, TRANSFORM, MULTIPLY, WEIGHTS = range(4)


class Block(NamedTuple):
    """Rows of tiles of one group, counted through all images, and columns of tiles."""

    group: int
    row: int
    end_row: int
    column: int
    columns: int


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
            some = _block(number, g)
            if step != MULTIPLY:
                _transform_input(some, channels, images[0], own, transformed, a, g)
            if step != TRANSFORM:
                _multiply(some, tiles, transformed, own, images[1], images[2], a, g)


@inner_kernel
def _share(worker, items, g):  # type: ignore[no-untyped-def]
    """Return the range of so many items that a worker does."""
    return worker * items // g.workers, (worker + 1) * items // g.workers


@inner_kernel
def _block(number, g):  # type: ignore[no-untyped-def]
    group, rest = divmod(number, g.row_blocks * g.column_blocks)
    i, j = divmod(rest, g.column_blocks)
    column_starts = g.starts + 8 * (g.row_blocks + 1)
    column = integer_at(column_starts, j)
    columns = integer_at(column_starts, j + 1) - column
    return Block(group, integer_at(g.starts, i), integer_at(g.starts, i + 1), column, columns)


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
def _transform_input(block, channels, x, own, transformed, a, g):  # type: ignore[no-untyped-def]
    """Transform a range of the input channels of a block."""
    for c in range(channels[0], channels[1]):
        q = block.row
        while q < block.end_row:
            image, row = divmod(q, g.tile_rows)
            rows = min(block.end_row - q, g.tile_rows - row)
            plane = image * g.C + block.group * g.C_per_group + c
            source = x + plane * g.H * g.W * g.itemsize
            tile = c * g.pitch + (q - block.row) * block.columns
            target = transformed + tile * g.itemsize
            tiles = row, block.column, rows, block.columns
            call(a.inputs, (source, own, target, *tiles, a.layer))
            q += rows


@inner_kernel
def _multiply(block, tiles, transformed, own, residual, out, a, g):  # type: ignore[no-untyped-def]
    """Compute a range of the tiles of output channels of a block."""
    size = g.itemsize
    tile_size = g.products * g.weight_step * size
    at_once = g.chunk if g.fresh else g.C_per_group
    for t0 in range(tiles[0], tiles[1], g.pass_tiles):
        t1 = min(tiles[1], t0 + g.pass_tiles)
        for c in range(0, g.C_per_group, at_once):
            channels = min(at_once, g.C_per_group - c)
            weights = a.weight + (block.group * g.filter_tiles + t0) * tile_size
            if g.fresh:
                weights = own + g.weights_begin
                for t in range(t0, t1):
                    to = weights + (t - t0) * tile_size
                    some = block.group, t, c, channels
                    call(a.weights, (address(a), own + g.packed_begin, to, *some))
            for p in range(g.products):
                source = transformed + (p * g.in_stride + c * g.pitch) * size
                factors = weights + p * g.weight_step * size
                target = own + g.products_begin + p * g.product_stride * size
                _product((t0, t1), (c, channels), block, source, factors, target, a, g)
        _write_outputs(block, (t0, t1), own, residual, out, a, g)


@inner_kernel
def _product(some, channels, block, source, weights, target, a, g):  # type: ignore[no-untyped-def]
    """Multiply one element of the tiles of a block by that of some tiles of output channels.

    The products of some channels are added to those of the channels before.
    """
    size, tiles = g.itemsize, (block.end_row - block.row) * block.columns
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
def _write_outputs(block, some, own, residual, out, a, g):  # type: ignore[no-untyped-def]
    """Transform the products of some tiles of output channels, and write what they give."""
    size, k0 = g.itemsize, some[0] * g.tile_filters
    for k in range(k0, min(g.K_per_group, some[1] * g.tile_filters)):
        channel = block.group * g.K_per_group + k
        q = block.row
        while q < block.end_row:
            image, row = divmod(q, g.tile_rows)
            rows = min(block.end_row - q, g.tile_rows - row)
            first = (image * g.K + channel) * g.OH * g.OW
            first = (first + (row * g.OW + block.column) * g.out_m) * size
            tile = (k - k0) * g.pitch + (q - block.row) * block.columns
            products = own + g.products_begin + tile * size
            added = residual + first if residual else 0
            images = products, own + g.gather_begin, out + first, added
            tiles = row, block.column, rows, block.columns
            call(a.outputs, (*images, channel, *tiles, address(a)))
            q += rows
