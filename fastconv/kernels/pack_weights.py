"""Packing weights as microkernels read them."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastconv.codegen.integers import counted, integers
from fastconv.codegen.number_types import NUMBER_TYPES
from fastconv.codegen.packing import copy_part, transpose_block, transpose_some
from fastconv.codegen.vector import vectors
from fastconv.jit.compiler import range_kernel
from fastconv.jit.emitter import emitted_address
from fastconv.jit.pointers import address, call

#: What a packer is called with: a range of tiles, counted over all groups; addresses of the weights
#: (groups, filters, taps), of where these tiles go, (tiles, taps, tile_filters), and of the row
#: that each tap gets (int64); tiles and filters of a group, elements from filter to filter, taps.
ARGUMENTS = (
    *("start", "stop", "source", "target", "rows", "tiles", "filters", "pitch", "taps"),
    "tile_filters",
)

#: What a packer is called with that rotates weights (groups, channels, filters, window) by 180
#: degrees: rows are those of the first channel's taps, negative for a tap that is left out, and
#: `step` apart from one channel to the next.
ROTATED_ARGUMENTS = (
    *("start", "stop", "source", "target", "rows", "tiles", "filters", "channels", "window"),
    *("taps", "step", "tile_filters"),
)


@cache
def packer_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that packs tiles of filters.

    Rows without a filter get zeros.
    """
    number = NUMBER_TYPES[bits]

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        vector, size = vectors(builder, bits, lanes), number.size
        v = integers(builder, arguments)
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
                transpose_block(vector, target, v.tile_filters, *block, *left)

    return emitted_address(f"pack-{number.name}x{lanes}", ARGUMENTS, emit)


@cache
def rotated_packer_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that packs the filter tiles of an input gradient.

    Its filters are the channels of the weights, and its channels the filters. Rows without a filter
    get zeros.
    """
    number = NUMBER_TYPES[bits]

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        vector, size = vectors(builder, bits, lanes), number.size
        v = integers(builder, arguments)
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
                    transpose_some(vector, to, v.tile_filters, *block, *left)

    return emitted_address(f"pack-rotated-{number.name}x{lanes}", ROTATED_ARGUMENTS, emit)


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
    """Pack tiles `start` to `stop` of filters, counted over all groups.

    `pack` is the address of one of the two packers above, `sizes` are the numbers that it takes.
    `rows` says which row of a tile each tap gets. `packed` is (tiles, taps, filters of a tile),
    flat.
    """
    step = sizes[len(sizes) - 1] * sizes[len(sizes) - 2 - rotated]
    target = address(packed) + start * step * packed.itemsize
    if rotated:
        numbers = (sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6])
        call(pack, (start, stop, address(weight), target, address(rows), *numbers))
    else:
        straight = (sizes[0], sizes[1], sizes[2], sizes[3], sizes[4])
        call(pack, (start, stop, address(weight), target, address(rows), *straight))
