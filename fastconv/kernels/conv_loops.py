"""Convolution in register tiles: the loops around the microkernel.

The work is a grid of tasks: image and group, band of output rows, band of output columns, part of
the output channels. Each worker takes a contiguous range of them. If the input needs padding or
deinterleaved columns, a task first copies its padded band into the worker's buffer.

A task loops over blocks of pixels, and for each block over all its output channels, so the input
of a block stays in the caches.

Tiles at the end of a band overlap their neighbours where there is room, instead of being cut: an
element computed twice gets the same value twice. Bands do not overlap.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastconv.codegen import conv_microkernel
from fastconv.core.records import record_type
from fastconv.jit.compiler import inner_kernel, range_kernel
from fastconv.jit.pointers import address, call, integer_at, record_at
from fastconv.kernels import pack_padded_band

#: The parameters of a layer; microkernels read the first few, and the packing of bands the next.
#: `halved` is 1 with 2 x 2 max pooling, else 0.
LAYOUT = record_type(
    *conv_microkernel.LAYER,
    *pack_padded_band.LAYER,
    *("itemsize", "groups", "K_per_group", "R", "row_taps", "dilation_h", "stride_h", "stride_w"),
    *("pad_top", "pad_left", "span_h"),
    *("tile_filters", "tile_rows", "tile_columns", "filter_tiles", "block_rows", "block_columns"),
    *("row_bands", "column_bands", "parts", "tasks", "workers"),
    *("copied", "band_bytes", "out_step", "halved"),
)

#: The arguments that are the same for every input: addresses of the microkernel, of the code that
#: packs bands, of the layer's record, of the offset of each tap, of the bounds of the row bands,
#: column bands and parts, and of the activation's parameters; the activation's form.
ARGUMENTS = record_type(
    *("microkernel", "band_copy", "layer", "offsets", "starts", "numbers", "form")
)


class Arrays(NamedTuple):
    """Addresses of the arrays; that of the residual is 0 if there is none."""

    x: int
    weight: int
    bias: int
    residual: int
    out: int


class Task(NamedTuple):
    """An image of one group, rows and columns of the output, and tiles of filters."""

    image: int
    row: int
    end_row: int
    column: int
    end_column: int
    tile: int
    end_tile: int


class Block(NamedTuple):
    """Rows and columns of the output, and the distance to the input of the next block."""

    row: int
    end_row: int
    column: int
    end_column: int
    next_block: int


@range_kernel
def convolve(
    start: int,
    stop: int,
    x: Any,
    weight: Any,
    bias: Any,
    residual: Any,
    out: Any,
    bands: Any,
    skip: int,
    arguments: Any,
) -> None:
    """Run the tasks of workers `start` to `stop`.

    All arrays are flat: `weight` is (groups, filter tiles, taps, filters of a tile), zero-padded;
    `bias` is (K,); `out` begins with the first element to be written, and `residual` has its shape
    or is empty; `bands` has a buffer for every worker. `skip` says whether kernel rows in the
    padding may be skipped; `arguments` is a record of `ARGUMENTS`.
    """
    a = arguments[0]
    g = record_at(a.layer, LAYOUT)
    added = address(residual) if residual.size else 0
    arrays = Arrays(address(x), address(weight), address(bias), added, address(out))
    for worker in range(start, stop):
        band = address(bands) + worker * g.band_bytes
        first, last = worker * g.tasks // g.workers, (worker + 1) * g.tasks // g.workers
        for number in range(first, last):
            task = _task(number, a, g)
            corner = task.row * g.stride_h, task.column * g.stride_w
            source = arrays.x + task.image * g.C_per_group * g.H * g.W * g.itemsize
            if g.copied:
                # All parts of the filters read the same band.
                if number == first or task.tile == 0:
                    rows = (task.end_row - task.row - 1) * g.stride_h + g.span_h
                    rows = (rows - 1) // g.row_step + 1
                    top, left = corner[0] - g.pad_top, corner[1] - g.pad_left
                    call(a.band_copy, (source, band, top, left, rows, a.layer))
                source = band
            else:
                source += (corner[0] * g.W + corner[1]) * g.itemsize
            _convolve_task(task, _task(number + 1, a, g), source, arrays, skip, a, g)


@inner_kernel
def _task(number, a, g):  # type: ignore[no-untyped-def]
    """Return task `number`; the one after the last has an image that does not exist."""
    number, part = divmod(number, g.parts)
    number, j = divmod(number, g.column_bands)
    image, i = divmod(number, g.row_bands)
    columns = a.starts + 8 * (g.row_bands + 1)
    parts = columns + 8 * (g.column_bands + 1)
    rows = integer_at(a.starts, i), integer_at(a.starts, i + 1)
    columns_of = integer_at(columns, j), integer_at(columns, j + 1)
    return Task(image, *rows, *columns_of, integer_at(parts, part), integer_at(parts, part + 1))


@inner_kernel
def _convolve_task(task, following, source, arrays, skip, a, g):  # type: ignore[no-untyped-def]
    """Run a task whose input begins at `source`, block by block."""
    next_task = (following.image - task.image) * g.C_per_group * g.H * g.W
    next_task += (following.row - task.row) * g.stride_h * g.W
    next_task += (following.column - task.column) * g.stride_w
    for row in range(task.row, task.end_row, g.block_rows):
        for column in range(task.column, task.end_column, g.block_columns):
            end_row = min(task.end_row, row + g.block_rows)
            end_column = min(task.end_column, column + g.block_columns)
            here = (row - task.row) * g.x_row + (column - task.column) * g.x_step
            next_block = next_task - here
            if end_column < task.end_column:
                next_block = g.block_columns * g.x_step
            elif end_row < task.end_row:
                next_block = g.block_rows * g.x_row - (column - task.column) * g.x_step
            block = Block(row, end_row, column, end_column, next_block)
            for t in range(task.tile, task.end_tile):
                _convolve_block(t, block, task, source, arrays, skip, a, g)


@inner_kernel
def _convolve_block(t, block, task, source, arrays, skip, a, g):  # type: ignore[no-untyped-def]
    """Convolve a block with a tile of filters."""
    size, k = g.itemsize, t * g.tile_filters
    filters = min(g.tile_filters, g.K_per_group - k)
    group = task.image % g.groups
    weight = (group * g.filter_tiles + t) * g.tile_filters * g.R * g.row_taps
    weight = arrays.weight + weight * size
    bias = arrays.bias + (group * g.K_per_group + k) * size
    plane = (task.image * g.K_per_group + k) * g.out_plane
    # The last filter tile of a block prefetches the next block.
    ahead = 0 if g.copied or t < task.end_tile - 1 else block.next_block
    last_row, last_column = task.end_row - g.tile_rows, task.end_column - g.tile_columns
    for i in range(block.row, block.end_row, g.tile_rows):
        i = min(i, last_row)
        r0, r1 = _kernel_rows(i, g) if skip else (0, g.R)
        taps, first = (r1 - r0) * g.row_taps, r0 * g.row_taps
        head = g.run - first % g.run
        for j in range(block.column, block.end_column, g.tile_columns):
            j = min(j, max(task.column, last_column))
            corner = (i - task.row) * g.x_row + (j - task.column) * g.x_step
            offset = (plane + (i >> g.halved) * g.out_row + (j >> g.halved) * g.out_step) * size
            call(
                a.microkernel,
                (
                    source + corner * size,
                    a.offsets + first * 8,
                    weight + first * g.tile_filters * size,
                    bias,
                    arrays.residual + offset if arrays.residual else 0,
                    arrays.out + offset,
                    a.numbers,
                    a.layer,
                    *(taps, head, a.form, filters, task.end_column - j, ahead),
                ),
            )


@inner_kernel
def _kernel_rows(i, g):  # type: ignore[no-untyped-def]
    """Return the kernel rows that read inside the image for a tile at output row `i`."""
    top = i * g.stride_h - g.pad_top
    bottom = top + (g.tile_rows - 1) * g.stride_h
    r0 = max(0, -(bottom // g.dilation_h))
    r1 = min(g.R, -((top - g.H) // g.dilation_h))
    return (r0, r1) if r0 < r1 else (0, 1)  # all padding: the sums are zero
