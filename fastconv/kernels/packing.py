"""Laying out weights as register tiles read them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache

from fastconv.codegen.rows import transpose_block
from fastconv.kernels.jit import address_of


@lru_cache(maxsize=8)
def packer(bits: int, lanes: int) -> Callable[..., None]:
    """Return the function that packs filter tiles.

    It is called as ``pack(start, stop, source, target, tiles, filters, taps, tile_filters)``:
    tiles `start` to `stop` of all groups, addresses of the weights (groups, filters, taps) and of
    where they go, (groups, tiles, taps, tile_filters), and those numbers. Places without a filter
    get zeros.
    """
    size = bits // 8

    def pack(start, stop, source, target, tiles, filters, taps, tile_filters):  # type: ignore[no-untyped-def]
        for number in range(start, stop):
            group, tile = divmod(number, tiles)
            for first in range(0, tile_filters, lanes):
                k = tile * tile_filters + first
                row = (group * filters + k) * taps
                for tap in range(0, taps, lanes):
                    place = (number * taps + tap) * tile_filters + first
                    transpose_block(
                        target + place * size,
                        tile_filters,
                        source + (row + tap) * size,
                        taps,
                        filters - k,
                        taps - tap,
                        tile_filters - first,
                        bits,
                        lanes,
                    )

    address = address_of(pack, f"pack-f{bits}x{lanes}", 8)
    return ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 8)(address)
