"""Convolution by register tiles: the loops around the tiles.

The work is a grid of tasks: image, group, band of output rows, band of output columns, part of
the filters. Each worker takes a contiguous range of them. Where the input needs a zero margin,
or its columns taken apart, a task first copies its band into the worker's buffer.

Tiles at the end of a band overlap their neighbours instead of being cut where there is room: an
element computed twice gets the same value twice. Bands do not overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastconv.codegen import tile as codegen_tile
from fastconv.kernels.jit import range_kernel

#: The numbers that the loops read from the layer's record; tiles read the first few.
FIELDS = (
    *codegen_tile.LAYER,
    *("itemsize", "groups", "C_per_group", "K_per_group", "H", "W", "OH", "OW"),
    *("stride_h", "stride_w", "pad_top", "pad_left", "span_h"),
    *("tile_filters", "tile_rows", "tile_columns", "filter_tiles"),
    *("row_bands", "column_bands", "parts", "pixel_tiles", "tasks", "workers"),
    *("copied", "band_elements", "band_plane", "phases", "phase_width", "behind"),
)
LAYOUT = np.dtype((np.record, [(name, np.int64) for name in FIELDS]))


@intrinsic  # type: ignore[misc, unused-ignore]
def _call(typingctx, address, arguments):  # type: ignore[no-untyped-def]
    """Call the machine code at `address` with a tuple of 64-bit integers."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        integer = ir.IntType(64)
        function = ir.FunctionType(ir.VoidType(), [integer] * len(arguments))
        place = builder.inttoptr(values[0], function.as_pointer())
        count = len(arguments)
        builder.call(place, [builder.extract_value(values[1], i) for i in range(count)])
        return context.get_dummy_value()

    return types.void(types.int64, arguments), generate


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
    offsets: Any,
    bands: Any,
    layer: Any,
) -> None:
    """Work through the tasks of workers `start` to `stop`.

    `tile` and `band_copy` are addresses of machine code. All arrays are flat: `weight` is
    (groups, filter tiles, taps, filters of a tile), with zeros where there is no filter; `bias`
    is (K,); `residual` is shaped like `out` or empty; `numbers` and `form` are the activation's;
    `offsets` says where a tap's element lies; `bands` has room for every worker.
    """
    g = layer[0]
    size = g.itemsize
    pixels = g.OH * g.OW
    row_units, column_units = max(1, g.OH // g.tile_rows), max(1, g.OW // g.tile_columns)
    for worker in range(start, stop):
        buffer = bands.ctypes.data + worker * g.band_elements * size
        filled = -1
        for task in range(worker * g.tasks // g.workers, (worker + 1) * g.tasks // g.workers):
            band, part = task // g.parts, task % g.parts
            image, column_band = band // g.column_bands, band % g.column_bands
            image, row_band = image // g.row_bands, image % g.row_bands
            group = image % g.groups
            row0 = row_band * row_units // g.row_bands * g.tile_rows
            row1 = (row_band + 1) * row_units // g.row_bands * g.tile_rows
            if row_band + 1 == g.row_bands:
                row1 = g.OH
            column0 = column_band * column_units // g.column_bands * g.tile_columns
            column1 = (column_band + 1) * column_units // g.column_bands * g.tile_columns
            if column_band + 1 == g.column_bands:
                column1 = g.OW
            source = x.ctypes.data + image * g.C_per_group * g.H * g.W * size
            if g.copied:
                if filled != band:
                    _call(
                        band_copy,
                        (
                            source,
                            buffer,
                            g.C_per_group,
                            g.H,
                            g.W,
                            row0 * g.stride_h - g.pad_top,
                            column0 * g.stride_w - g.pad_left,
                            g.phases,
                            (row1 - row0 - 1) * g.stride_h + g.span_h,
                            g.band_plane,
                            g.phase_width,
                            g.behind,
                        ),
                    )
                    filled = band
                source = buffer
            else:
                source += (row0 * g.stride_h * g.W + column0 * g.stride_w) * size
            across = -(-(column1 - column0) // g.tile_columns)
            many = across * -(-(row1 - row0) // g.tile_rows)
            first_tile = part * g.filter_tiles // g.parts
            last_tile = (part + 1) * g.filter_tiles // g.parts
            for block in range(0, many, g.pixel_tiles):
                for t in range(first_tile, last_tile):
                    k = t * g.tile_filters
                    packed = (group * g.filter_tiles + t) * g.tile_filters
                    target = (image * g.K_per_group + k) * pixels
                    for p in range(block, min(block + g.pixel_tiles, many)):
                        i = min(p // across * g.tile_rows, row1 - row0 - g.tile_rows)
                        j = max(
                            0, min(p % across * g.tile_columns, column1 - column0 - g.tile_columns)
                        )
                        place = (target + (row0 + i) * g.OW + column0 + j) * size
                        _call(
                            tile,
                            (
                                source + (i * g.x_row + j * g.x_step) * size,
                                offsets.ctypes.data,
                                weight.ctypes.data + packed * g.taps * size,
                                bias.ctypes.data + (group * g.K_per_group + k) * size,
                                residual.ctypes.data + place if residual.size else 0,
                                out.ctypes.data + place,
                                numbers.ctypes.data,
                                layer.ctypes.data,
                                form,
                                min(g.tile_filters, g.K_per_group - k),
                                min(g.tile_columns, column1 - column0 - j),
                            ),
                        )
