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

from typing import Any

from fastconv.jit.compiler import inner_kernel, range_kernel
from fastconv.jit.pointers import address, call, integer_at, record_at
from fastconv.kernels.winograd_microkernels import LAYOUT

#: What a call does: it transforms the input, multiplies, does both, or transforms all weights.
BOTH, TRANSFORM, MULTIPLY, WEIGHTS = range(4)


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
