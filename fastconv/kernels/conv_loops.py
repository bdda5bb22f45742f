"""Convolution by register tiles: the loops around the tiles.

The work is a grid of tasks: image, group, band of output rows, band of output columns, part of
the filters. Each worker takes a contiguous range of them. Where the input needs a zero margin,
or its columns taken apart, a task first copies its band into the worker's buffer.

Within a task the pixels are taken in blocks, and all filters of the task pass over a block before
the next: what the tiles of a block read stays in the caches meanwhile.

Tiles at the end of a band overlap their neighbours instead of being cut where there is room: an
element computed twice gets the same value twice. Bands do not overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.codegen import conv_microkernel as codegen_tile
from fastconv.jit.compiler import range_kernel
from fastconv.jit.pointers import address, call

#: The numbers that the loops read from the layer's record; tiles read the first few. `halved` is 1
#: where maxima of squares are stored, else 0.
FIELDS = (
    *codegen_tile.LAYER,
    *("itemsize", "groups", "C_per_group", "K_per_group", "H", "W"),
    *("R", "row_taps", "dilation_h", "stride_h", "stride_w", "pad_top", "pad_left", "span_h"),
    *("tile_filters", "tile_rows", "tile_columns", "filter_tiles", "block_rows", "block_columns"),
    *("row_bands", "column_bands", "parts", "tasks", "workers"),
    *("copied", "band_bytes", "band_plane", "band_step", "phases"),
    *("sets", "set_step", "set_size", "row_step"),
    *("phase_width", "behind", "out_step", "halved"),
)
LAYOUT = np.dtype((np.record, [(name, np.int64) for name in FIELDS]))


@range_kernel
def convolve(
    start: int,
    stop: int,
    tile: int,
    band_copy: int,
    x: Any,
    weight: Any,
    bias: Any,
    residual: Any,
    out: Any,
    numbers: Any,
    form: int,
    skip: int,
    offsets: Any,
    cuts: Any,
    bands: Any,
    layer: Any,
) -> None:
    """Work through the tasks of workers `start` to `stop`.

    `tile` and `band_copy` are addresses of machine code. All arrays are flat: `weight` is
    (groups, filter tiles, taps, filters of a tile), with zeros where there is no filter; `bias`
    is (K,); `out` begins with the first element to be written, and `residual` is shaped like it or
    empty; `numbers` and `form` are the activation's;
    `skip` says whether rows of the kernel that lie in the margin may be left out;
    `offsets` says where a tap's element lies; `cuts` holds the first row, column and filter tile
    of each band and part, each list with its end; `bands` has room for every worker.
    """
    g = layer[0]
    size = g.itemsize
    row_starts, column_starts = cuts[: g.row_bands + 1], cuts[g.row_bands + 1 :]
    part_starts = column_starts[g.column_bands + 1 :]
    for worker in range(start, stop):
        buffer = address(bands) + worker * g.band_bytes
        task = worker * g.tasks // g.workers
        last = (worker + 1) * g.tasks // g.workers
        image, rest = divmod(task, g.row_bands * g.column_bands * g.parts)
        row_band, rest = divmod(rest, g.column_bands * g.parts)
        column_band, part = divmod(rest, g.parts)
        fresh = True
        while task < last:
            row0, row1 = row_starts[row_band], row_starts[row_band + 1]
            column0, column1 = column_starts[column_band], column_starts[column_band + 1]
            start_of_image = image * g.C_per_group * g.H * g.W
            source = address(x) + start_of_image * size
            # The task that comes next, and where it will begin to read.
            next_part, next_column_band, next_row_band, next_image = (
                part + 1,
                column_band,
                row_band,
                image,
            )
            if next_part == g.parts:
                next_part = 0
                next_column_band += 1
                if next_column_band == g.column_bands:
                    next_column_band = 0
                    next_row_band += 1
                    if next_row_band == g.row_bands:
                        next_row_band = 0
                        next_image += 1
            afterwards = (
                (next_image - image) * g.C_per_group * g.H * g.W
                + (row_starts[next_row_band] - row0) * g.stride_h * g.W
                + (column_starts[next_column_band] - column0) * g.stride_w
            )
            if g.copied:
                if fresh:
                    call(
                        band_copy,
                        (
                            source,
                            buffer,
                            g.C_per_group,
                            g.H,
                            g.W,
                            row0 * g.stride_h - g.pad_top,
                            column0 * g.stride_w - g.pad_left,
                            g.band_step,
                            g.phases,
                            g.sets,
                            g.set_step,
                            g.row_step,
                            ((row1 - row0 - 1) * g.stride_h + g.span_h - 1) // g.row_step + 1,
                            g.set_size,
                            g.band_plane,
                            g.phase_width,
                            g.behind,
                        ),
                    )
                    fresh = False
                source = buffer
            else:
                source += (row0 * g.stride_h * g.W + column0 * g.stride_w) * size
            group = image % g.groups
            last_row, last_column = row1 - g.tile_rows, max(column0, column1 - g.tile_columns)
            for block_row in range(row0, row1, g.block_rows):
                for block_column in range(column0, column1, g.block_columns):
                    # The last filters that pass over a block ask for the next one.
                    next_block = afterwards
                    if block_column + g.block_columns < column1:
                        next_block = (block_column + g.block_columns - column0) * g.x_step
                        next_block += (block_row - row0) * g.x_row
                    elif block_row + g.block_rows < row1:
                        next_block = (block_row + g.block_rows - row0) * g.x_row
                    next_block -= (block_column - column0) * g.x_step
                    next_block -= (block_row - row0) * g.x_row
                    for t in range(part_starts[part], part_starts[part + 1]):
                        ahead = 0
                        if not g.copied and t == part_starts[part + 1] - 1:
                            ahead = next_block
                        k = t * g.tile_filters
                        filters = min(g.tile_filters, g.K_per_group - k)
                        packed = (group * g.filter_tiles + t) * g.tile_filters * g.R * g.row_taps
                        offset = group * g.K_per_group + k
                        plane = (image * g.K_per_group + k) * g.out_plane
                        for i in range(block_row, min(row1, block_row + g.block_rows), g.tile_rows):
                            i = min(i, last_row)
                            r0, r1 = 0, g.R
                            if skip:
                                top = i * g.stride_h - g.pad_top
                                bottom = top + (g.tile_rows - 1) * g.stride_h
                                r0 = max(0, -(bottom // g.dilation_h))
                                r1 = min(g.R, -((top - g.H) // g.dilation_h))
                                if r1 <= r0:  # all margin: zeros come out
                                    r0, r1 = 0, 1
                            first = r0 * g.row_taps
                            head = g.run - first % g.run
                            for j in range(
                                block_column,
                                min(column1, block_column + g.block_columns),
                                g.tile_columns,
                            ):
                                j = min(j, last_column)
                                row = plane + (i >> g.halved) * g.out_row
                                place = (row + (j >> g.halved) * g.out_step) * size
                                corner = (i - row0) * g.x_row + (j - column0) * g.x_step
                                call(
                                    tile,
                                    (
                                        source + corner * size,
                                        address(offsets) + first * 8,
                                        address(weight) + (packed + first * g.tile_filters) * size,
                                        address(bias) + offset * size,
                                        address(residual) + place if residual.size else 0,
                                        address(out) + place,
                                        address(numbers),
                                        address(layer),
                                        (r1 - r0) * g.row_taps,
                                        head,
                                        form,
                                        filters,
                                        column1 - j,
                                        ahead,
                                    ),
                                )
            task += 1
            fresh = fresh or next_part == 0
            part, column_band, row_band, image = (
                next_part,
                next_column_band,
                next_row_band,
                next_image,
            )
