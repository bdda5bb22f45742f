"""Laying out weights as register tiles read them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache

from fastconv.codegen.rows import copy_part, transpose_block, transpose_some
from fastconv.kernels.jit import address_of


@lru_cache(maxsize=8)
def packer(bits: int, lanes: int) -> Callable[..., None]:
    """Return the function that packs filter tiles.

    It is called as ``pack(start, stop, source, target, places, tiles, filters, taps,
    tile_filters)``: tiles `start` to `stop` of all groups, addresses of the weights (groups,
    filters, taps), of where these tiles go, (tiles, taps, tile_filters), and of the place that
    each tap gets (int64), and those numbers. Places without a filter get zeros.
    """
    size = bits // 8

    def pack(  # type: ignore[no-untyped-def]
        start, stop, source, target, places, tiles, filters, taps, tile_filters
    ):
        for number in range(start, stop):
            group, tile = divmod(number, tiles)
            for first in range(0, tile_filters, lanes):
                k = tile * tile_filters + first
                row = (group * filters + k) * taps
                for tap in range(0, taps, lanes):
                    transpose_block(
                        target + ((number - start) * taps * tile_filters + first) * size,
                        tile_filters,
                        source + (row + tap) * size,
                        taps,
                        places + tap * 8,
                        filters - k,
                        taps - tap,
                        tile_filters - first,
                        1,
                        bits,
                        lanes,
                    )

    address = address_of(pack, f"pack-f{bits}x{lanes}", 9)
    return ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 9)(address)


@lru_cache(maxsize=8)
def turned_packer(bits: int, lanes: int) -> Callable[..., None]:
    """Return the function that packs the filter tiles of an input gradient.

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

    address = address_of(pack_turned, f"pack-turned-f{bits}x{lanes}", 12)
    return ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 12)(address)
