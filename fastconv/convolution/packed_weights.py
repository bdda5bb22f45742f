"""Weight packing: the weights of one tap are contiguous for all output channels of a tile.

Weights are packed for a forward convolution, or for the convolution that computes an input
gradient: input and output channels are exchanged, and taps are rotated by 180 degrees.
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

#: For an input gradient, the tap of its convolution for each tap (r, s), -1 for none; (R, S).
Window = NDArray[np.int64]


def all_finite(weight: Array) -> bool:
    """Return whether no weight is NaN or infinite."""
    return bool(np.isfinite(weight).all())


class Packer(NamedTuple):
    """Machine code that packs filter tiles, and the packed order of taps.

    Attributes
    ----------
    code : int
        Its address.
    rotated : bool
        Whether it packs for an input gradient, see `fastconv.kernels.pack_weights`.
    positions : ndarray of int64
        The packed position of each tap.
    step : int
        For an input gradient, the stride between channels in packed positions.
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
    """Return the packer of filter tiles with `channels` input channels.

    Taps are ordered (r, s, c) if `channels_last`, else (r, c, s), which keeps a kernel row
    contiguous. Weights used `once` are packed by vectors as narrow as the tile: that is twice as
    fast, but compiles one more kernel.
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
    """Packs the weights of a problem for a tile; `window` is for an input gradient."""

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
        """Return flat weights (groups, tiles, taps (r, c, s), filters of a tile), zero-padded."""
        packed = output_memory.empty(self._shape, self._dtype)
        arguments = weight.reshape(-1), self._positions, self._sizes, packed
        pack_tiles.small(packed.size, self._tiles, self._code, self._rotated, *arguments)
        return packed


@lru_cache(maxsize=256)
def _positions(C: int, R: int, S: int, channels_last: bool) -> tuple[Array, Array, int]:
    """Return the positions of taps (c, r, s), those of channel 0, and the stride of channels."""
    r, s = np.indices((R, S)).reshape(2, -1)
    first, step = ((r * S + s) * C, 1) if channels_last else (r * C * S + s, S)
    positions = (first + np.arange(C)[:, None] * step).reshape(-1)
    return as_read_only(positions), first, step
