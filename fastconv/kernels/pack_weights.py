"""Weight packing for the microkernels."""

from __future__ import annotations

from typing import Any

from fastconv.codegen.integers import counted
from fastconv.codegen.machine_function import machine_function
from fastconv.codegen.number_types import NUMBER_TYPES
from fastconv.codegen.packing import copy_part, transpose_block, transpose_some
from fastconv.codegen.vector import vectors
from fastconv.jit.compiler import range_kernel
from fastconv.jit.pointers import address, call

#: The arguments of a packer: a range of tiles, counted over all groups; addresses of the weights
#: (groups, filters, taps), of the packed tiles (tiles, taps, tile_filters), and of the packed row
#: index of each tap (int64); tiles and filters of a group, the filter stride in elements, taps.
ARGUMENTS = (
    *("start", "stop", "source", "target", "rows", "tiles", "filters", "pitch", "taps"),
    "tile_filters",
)

#: The arguments of the packer that rotates weights (groups, channels, filters, window) by 180
#: degrees: row indices are those of the first channel's taps, negative for a skipped tap; `step` is
#: the row stride between channels.
ROTATED_ARGUMENTS = (
    *("start", "stop", "source", "target", "rows", "tiles", "filters", "channels", "window"),
    *("taps", "step", "tile_filters"),
)


@machine_function(lambda bits, lanes: f"pack-{NUMBER_TYPES[bits].name}x{lanes}", *ARGUMENTS)
def packer_address(builder: Any, v: Any, bits: int, lanes: int) -> None:
    """Emit the packing of filter tiles, zero-padded."""
    vector, size = vectors(builder, bits, lanes), NUMBER_TYPES[bits].size
    with (
        counted(builder, v.start, v.stop) as tile,
        counted(builder, 0, v.tile_filters, lanes) as first,
    ):
        k = tile % v.tiles * v.tile_filters + first
        source = v.source + (tile // v.tiles * v.filters + k) * v.pitch * size
        target = v.target + ((tile - v.start) * v.taps * v.tile_filters + first) * size
        with counted(builder, 0, v.taps, lanes) as tap:
            left = v.filters - k, v.taps - tap, v.tile_filters - first
            block = source + tap * size, v.pitch, v.rows + tap * 8
            transpose_block(vector, target, v.tile_filters, block, left)


@machine_function(
    lambda bits, lanes: f"pack-rotated-{NUMBER_TYPES[bits].name}x{lanes}", *ROTATED_ARGUMENTS
)
def rotated_packer_address(builder: Any, v: Any, bits: int, lanes: int) -> None:
    """Emit the packing of filter tiles for an input gradient.

    Input and output channels of the weights are exchanged. Tiles are zero-padded.
    """
    vector, size = vectors(builder, bits, lanes), NUMBER_TYPES[bits].size
    with (
        counted(builder, v.start, v.stop) as tile,
        counted(builder, 0, v.tile_filters, lanes) as first,
        counted(builder, 0, v.channels) as k,
    ):
        c, wide = tile % v.tiles * v.tile_filters + first, v.tile_filters - first
        filters = v.filters - c
        row = ((tile // v.tiles * v.channels + k) * v.filters + c) * v.window
        row = v.source + row * size
        to = ((tile - v.start) * v.taps + k * v.step) * v.tile_filters + first
        to = v.target + to * size
        with builder.if_else(v.window.compare("==", 1)) as (single, several):
            with single:
                copy_part(vector, to, row, filters, wide)
            with several, counted(builder, 0, v.window, lanes) as tap:
                block = row + tap * size, v.window, v.rows + tap * 8
                left = filters, v.window - tap, wide
                transpose_some(vector, to, v.tile_filters, block, left)


@range_kernel
def pack_tiles(
    start: int,
    stop: int,
    pack: int,
    rotated: int,
    weight: Any,
    rows: Any,
    sizes: Any,
    packed: Any,
) -> None:
    """Pack filter tiles `start` to `stop`, counted over all groups.

    `pack` is the address of one of the two packers above, `sizes` are its integers. `rows` is the
    packed row index of each tap. `packed` is (tiles, taps, filters of a tile), flat.
    """
    step = sizes[len(sizes) - 1] * sizes[len(sizes) - 2 - rotated]
    target = address(packed) + start * step * packed.itemsize
    if rotated:
        numbers = (sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6])
        call(pack, (start, stop, address(weight), target, address(rows), *numbers))
    else:
        fewer = (sizes[0], sizes[1], sizes[2], sizes[3], sizes[4])
        call(pack, (start, stop, address(weight), target, address(rows), *fewer))
