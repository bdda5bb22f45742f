"""Laying out weights: all that a tile of filters reads of one tap stands side by side.

The weights lie there as a forward convolution wants them, or as those of the convolution whose
gradient is computed: then their two kinds of channels are exchanged and the taps turned on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv import threads
from fastconv.convolution.base import Array
from fastconv.convolution.blocks import PARTS, WORTH_A_TASK, split
from fastconv.kernels.packing import packer, turned_packer
from fastconv.problem import Conv2dProblem


class Filters(NamedTuple):
    """The filters of a convolution, and how they lie in memory.

    Attributes
    ----------
    weight : ndarray
        (groups, filters, channels, R, S) of the convolution; or, with a window, (groups, channels,
        filters, R', S') of the one whose input gradient it computes.
    window : ndarray of int, (R', S')
        Which tap of the convolution each of them is, -1 for none.
    finite : bool
    """

    weight: Array
    window: NDArray[np.int64] | None
    finite: bool


def forward_filters(weight: Array) -> Filters:
    """Return the filters of a forward convolution."""
    return Filters(weight, None, bool(np.isfinite(weight).all()))


def packing(
    problem: Conv2dProblem,
    filters: Filters,
    tile: tuple[int, int, int],
    channels_last: bool,
) -> Callable[[int, int, int], None]:
    """Return ``pack(start, stop, target)``, which lays out those tiles of filters, of all groups.

    `target` is the address of (tiles, taps, filters of a tile), with zeros where there is no
    filter. Taps are ordered (r, s, c) if `channels_last`, else (r, c, s): those of one row of the
    kernel stand together. `tile` is filters, bits of an element, lanes of a vector.
    """
    p, (wide, bits, lanes) = problem, tile
    tiles = -(-p.K_per_group // wide)
    places, first, step = _places(p.C_per_group, p.R, p.S, channels_last)
    sizes: tuple[int, ...] = tiles, p.K_per_group
    run: Any
    if filters.window is None:
        run, sizes = packer(bits, lanes), (*sizes, p.taps, wide)
    else:
        # Narrow tiles fill narrow vectors.
        lanes = min(lanes, max(4, 2 ** (wide - 1).bit_length()))
        window = filters.window.reshape(-1)
        places = np.where(window < 0, -1, first[window])
        # With each call, not once a plan: narrow tiles get narrow vectors, twice as fast.
        run = turned_packer(bits, min(lanes, max(4, 2 ** (wide - 1).bit_length())))
        sizes = *sizes, p.C_per_group, window.size, p.taps, step, wide

    def pack(start: int, stop: int, target: int) -> None:
        run(start, stop, filters.weight.ctypes.data, target, places.ctypes.data, *sizes)

    return pack


def by_tiles(problem: Conv2dProblem, filters: Filters, tile: tuple[int, int, int]) -> Array:
    """Return the weights as (groups, tiles, taps, filters of a tile), flat; see `packing`."""
    p = problem
    total = p.groups * -(-p.K_per_group // tile[0])
    packed = np.empty((total, p.taps, tile[0]), p.dtype)
    pack = packing(p, filters, tile, channels_last=False)

    def work(start: int, stop: int) -> None:
        pack(start, stop, packed[start:].ctypes.data)

    share(work, total, packed.size)
    return packed.reshape(-1)


def share(work: Callable[[int, int], None], total: int, elements: int) -> None:
    """Do ``work(0, total)``, by several threads if that many elements are worth it."""
    if elements < WORTH_A_TASK:
        work(0, total)
    else:
        parts = min(PARTS, elements // WORTH_A_TASK)
        threads.run_tasks(lambda some: work(*some), split(total, parts))


@lru_cache(maxsize=256)
def _places(C: int, R: int, S: int, channels_last: bool) -> tuple[Array, Array, int]:
    """Return the place of each tap (c, r, s), those of channel 0, and from channel to channel."""
    r, s = np.indices((R, S)).reshape(2, -1)
    first, step = ((r * S + s) * C, 1) if channels_last else (r * C * S + s, S)
    places = (first + np.arange(C)[:, None] * step).reshape(-1)
    return places, first, step
