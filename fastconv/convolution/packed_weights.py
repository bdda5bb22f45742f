"""Laying out weights: all that a tile of filters reads of one tap stands side by side.

The weights lie there as a forward convolution wants them, or as those of the convolution whose
gradient is computed: then their two kinds of channels are exchanged and the taps turned on the way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution.algorithm import Array, as_read_only
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels.pack_weights import pack_tiles, packer_address, turned_packer_address
from fastconv.runtime import output_memory


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
    kept : bool
        Whether they are laid out once for many calls: then several threads are not worth the time
        to compile their kernel.
    """

    weight: Array
    window: NDArray[np.int64] | None
    finite: bool
    kept: bool = False


def forward_filters(weight: Array, kept: bool) -> Filters:
    """Return the filters of a forward convolution."""
    return Filters(weight, None, bool(np.isfinite(weight).all()), kept)


class Packer(NamedTuple):
    """Machine code that lays out tiles of filters, and how it lays out those of some channels.

    Attributes
    ----------
    code : int
        Its address.
    turned : bool
        Whether it turns the filters on the way, see `fastconv.kernels.pack_weights`.
    places : ndarray of int64
        The place of each tap.
    step : int
        Turned, from the place of a tap to that of the next channel's.
    """

    code: int
    turned: bool
    places: NDArray[np.int64]
    step: int


def packer_of(
    problem: Conv2dProblem,
    filters: Filters,
    tile: tuple[int, int, int],
    channels: int,
    channels_last: bool,
    once: bool,
) -> Packer:
    """Return what lays out tiles of filters, so many channels of them.

    Taps are ordered (r, s, c) if `channels_last`, else (r, c, s): those of one row of the kernel
    stand together. `tile` is filters, bits of an element, lanes of a vector. Weights used `once`
    get vectors as narrow as their tile, which is twice as fast, but one kernel more.
    """
    p, (wide, bits, lanes) = problem, tile
    places, first, step = _places(channels, p.R, p.S, channels_last)
    if once:
        lanes = min(lanes, max(4, 2 ** (wide - 1).bit_length()))
    if filters.window is None:
        return Packer(packer_address(bits, lanes), False, places, step)
    window = filters.window.reshape(-1)
    places = np.where(window < 0, -1, first[window])
    return Packer(turned_packer_address(bits, lanes), True, places, step)


def by_tiles(problem: Conv2dProblem, filters: Filters, tile: tuple[int, int, int]) -> Array:
    """Return the weights as (groups, tiles, taps, filters of a tile), flat, taps as (r, c, s).

    Where there is no filter there are zeros.
    """
    p, wide = problem, tile[0]
    tiles = -(-p.K_per_group // wide)
    total = p.groups * tiles
    packed = output_memory.empty((total * p.taps * wide,), p.dtype)
    once = filters.window is not None  # gradients have no plans
    pack = packer_of(p, filters, tile, p.C_per_group, channels_last=False, once=once)
    sizes: tuple[int, ...] = tiles, p.K_per_group, p.taps, p.taps, wide
    if filters.window is not None:
        sizes = tiles, p.K_per_group, p.C_per_group, filters.window.size, p.taps, pack.step, wide
    weight = as_read_only(filters.weight.reshape(-1))
    places = as_read_only(pack.places)
    rest = int(pack.turned), weight, places, as_read_only(np.array(sizes)), packed
    pack_tiles.small(0 if filters.kept else packed.size, total, pack.code, *rest)
    return packed


@lru_cache(maxsize=256)
def _places(C: int, R: int, S: int, channels_last: bool) -> tuple[Array, Array, int]:
    """Return the place of each tap (c, r, s), those of channel 0, and from channel to channel."""
    r, s = np.indices((R, S)).reshape(2, -1)
    first, step = ((r * S + s) * C, 1) if channels_last else (r * C * S + s, S)
    places = (first + np.arange(C)[:, None] * step).reshape(-1)
    return places, first, step
