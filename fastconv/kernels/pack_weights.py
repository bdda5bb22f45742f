"""Laying out weights as register tiles read them."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastconv.codegen.row_copies import copy_part, transpose_block, transpose_some
from fastconv.jit.compiler import address_of, range_kernel
from fastconv.jit.pointers import address, call

#: How many numbers the two kinds of packers take.
ARGUMENTS, TURNED_ARGUMENTS = 10, 12


@cache
def packer_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that packs filter tiles.

    It is called as ``pack(start, stop, source, target, places, tiles, filters, pitch, taps,
    tile_filters)``: tiles `start` to `stop` of all groups, addresses of the weights (groups,
    filters, taps), filters `pitch` elements apart, of where these tiles go, (tiles, taps,
    tile_filters), and of the place that each tap gets (int64), and those numbers. Places without
    a filter get zeros.
    """
    size = bits // 8

    def pack(  # type: ignore[no-untyped-def]
        start, stop, source, target, places, tiles, filters, pitch, taps, tile_filters
    ):
        for number in range(start, stop):
            group, tile = divmod(number, tiles)
            for first in range(0, tile_filters, lanes):
                k = tile * tile_filters + first
                row = (group * filters + k) * pitch
                for tap in range(0, taps, lanes):
                    transpose_block(
                        target + ((number - start) * taps * tile_filters + first) * size,
                        tile_filters,
                        source + (row + tap) * size,
                        pitch,
                        places + tap * 8,
                        filters - k,
                        taps - tap,
                        tile_filters - first,
                        1,
                        bits,
                        lanes,
                    )

    return address_of(pack, f"pack-f{bits}x{lanes}", ARGUMENTS)


@cache
def turned_packer_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code that packs the filter tiles of an input gradient.

    Its filters are the channels of the weights, and its channels the filters: it is called as
    ``pack(start, stop, source, target, places, tiles, filters, channels, window, taps, step,
    tile_filters)`` with addresses of the weights (groups, channels, filters, window), of where
    these tiles go, (tiles, taps, tile_filters), and of the place that each tap of the window gets
    for the first channel, negative if it is left out; places are `step` apart from one channel to
    the next. Places without a filter get zeros.
    """
    size = bits // 8

    def pack_turned(  # type: ignore[no-untyped-def]
        start, stop, source, target, places, tiles, filters, channels, window, taps, step,
        tile_filters,
    ):  # fmt: skip
        for number in range(start, stop):
            group, tile = divmod(number, tiles)
            for first in range(0, tile_filters, lanes):
                c = tile * tile_filters + first
                wide = tile_filters - first
                for k in range(channels):
                    row = source + ((group * channels + k) * filters + c) * window * size
                    place = ((number - start) * taps + k * step) * tile_filters + first
                    to = target + place * size
                    if window == 1:
                        copy_part(to, row, filters - c, wide, bits, lanes)
                    else:
                        for tap in range(0, window, lanes):
                            transpose_some(
                                to,
                                tile_filters,
                                row + tap * size,
                                window,
                                places + tap * 8,
                                filters - c,
                                window - tap,
                                wide,
                                bits,
                                lanes,
                            )

    return address_of(pack_turned, f"pack-turned-f{bits}x{lanes}", TURNED_ARGUMENTS)


@range_kernel
def pack_tiles(
    start: int, stop: int, pack: int, turned: int, weight: Any, places: Any, sizes: Any, packed: Any
) -> None:
    """Lay out tiles `start` to `stop` of filters, counted over all groups.

    `pack` is the address of one of the two packers above, `sizes` are the numbers that it takes.
    `packed` is (tiles, taps, filters of a tile), flat.
    """
    step = sizes[len(sizes) - 1] * sizes[len(sizes) - 2 - turned]
    target = address(packed) + start * step * packed.itemsize
    if turned:
        numbers = (sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6])
        call(pack, (start, stop, address(weight), target, address(places), *numbers))
    else:
        straight = (sizes[0], sizes[1], sizes[2], sizes[3], sizes[4])
        call(pack, (start, stop, address(weight), target, address(places), *straight))
