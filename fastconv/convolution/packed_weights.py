"""Packing weights: all that a tile of filters reads of one tap stands side by side.

The weights are packed as a forward convolution reads them, or as the convolution does whose result
is an input gradient: its filters are the channels of the weights, its taps rotated by 180 degrees.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.convolution.algorithm import Array, as_read_only
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels.conv_microkernels import TileShape
from fastconv.kernels.pack_weights import pack_tiles, packer_address, rotated_packer_address
from fastconv.runtime import output_memory

#: For an input gradient, which tap of its convolution each tap (r, s) is, -1 for none; (R, S).
Window = NDArray[np.int64]


def all_finite(weight: Array) -> bool:
    """Return whether no weight is NaN or infinite."""
    return bool(np.isfinite(weight).all())


class Packer(NamedTuple):
    """Machine code that packs tiles of filters, and the order in which it packs their taps.

    Attributes
    ----------
    code : int
        Its address.
    rotated : bool
        Whether it packs the filters of an input gradient, see `fastconv.kernels.pack_weights`.
    positions : ndarray of int64
        The position of each tap.
    step : int
        Of an input gradient, from the position of a tap to that of the next channel's.
    """

    code: int
    rotated: bool
    positions: NDArray[np.int64]
    step: int


def packer_of(
    problem: Conv2dProblem,
    tile: TileShape,
    channels: int,
    window: Window | None,
    channels_last: bool,
    once: bool,
) -> Packer:
    """Return what packs tiles of filters, so many channels of them.

    Taps are ordered (r, s, c) if `channels_last`, else (r, c, s): those of one row of the kernel
    stand together. Weights used `once` get vectors as narrow as their tile, which is twice as
    fast, but one kernel more.
    """
    p, lanes = problem, tile.lanes
    positions, first, step = _positions(channels, p.R, p.S, channels_last)
    if once:
        lanes = min(lanes, max(4, 2 ** (tile.filters - 1).bit_length()))
    if window is None:
        return Packer(packer_address(tile.bits, lanes), False, positions, step)
    taps = window.reshape(-1)
    positions = as_read_only(np.where(taps < 0, -1, first[taps]))
    return Packer(rotated_packer_address(tile.bits, lanes), True, positions, step)


class TilePacker:
    """Packs the weights of a problem for a tile; those of an input gradient have a window."""

    def __init__(self, problem: Conv2dProblem, tile: TileShape, window: Window | None) -> None:
        p, wide, once = problem, tile.filters, window is not None
        tiles = -(-p.K_per_group // wide)
        pack = packer_of(p, tile, p.C_per_group, window, channels_last=False, once=once)
        sizes: tuple[int, ...] = tiles, p.K_per_group, p.taps, p.taps, wide
        if window is not None:
            sizes = tiles, p.K_per_group, p.C_per_group, window.size, p.taps, pack.step, wide
        self._tiles = p.groups * tiles
        self._shape, self._dtype = (self._tiles * p.taps * wide,), np.dtype(p.dtype)
        self._code, self._rotated, self._positions = pack.code, int(pack.rotated), pack.positions
        self._sizes = as_read_only(np.array(sizes))

    def __call__(self, weight: Array) -> Array:
        """Return the weights as (groups, tiles, taps, filters of a tile), flat, taps as (r, c, s).

        Positions without a filter hold zeros.
        """
        packed = output_memory.empty(self._shape, self._dtype)
        arguments = weight.reshape(-1), self._positions, self._sizes, packed
        pack_tiles.small(packed.size, self._tiles, self._code, self._rotated, *arguments)
        return packed


@lru_cache(maxsize=256)
def _positions(C: int, R: int, S: int, channels_last: bool) -> tuple[Array, Array, int]:
    """Return the positions of taps (c, r, s), those of channel 0, and from channel to channel."""
    r, s = np.indices((R, S)).reshape(2, -1)
    first, step = ((r * S + s) * C, 1) if channels_last else (r * C * S + s, S)
    positions = (first + np.arange(C)[:, None] * step).reshape(-1)
    return as_read_only(positions), first, step
