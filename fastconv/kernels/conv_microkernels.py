"""Register tiles as machine code: one small function for each shape, called by its address."""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.codegen.conv_microkernel import ARGUMENTS
from fastconv.codegen.over_channels_microkernel import FilterLanes
from fastconv.codegen.over_width_microkernel import PixelLanes
from fastconv.jit.compiler import address_of


class TileShape(NamedTuple):
    """What a tile is compiled for; everything else is data.

    Attributes
    ----------
    lanes_over : {"filters", "pixels"}
        What lies side by side in a register.
    filters, rows, columns : int
        What one call computes. A whole number of vectors of filters, or of columns.
    step : int
        Input columns from one pixel to the next, if lanes are over filters; 0 if that is to be
        read from the layer. 1 if lanes are over pixels.
    bits, lanes : int
        Of an element, and of a vector.
    apart : int
        Output columns from one pixel to the next.
    pooled : bool
        Whether maxima of 2 x 2 squares are stored.
    """

    lanes_over: Literal["filters", "pixels"]
    filters: int
    rows: int
    columns: int
    step: int
    bits: int
    lanes: int
    apart: int = 1
    pooled: bool = False

    @property
    def name(self) -> str:
        """What the kernel is called; docs/kernels.md has the grammar."""
        step = f"-s{self.step or 'n'}" if self.lanes_over == "filters" else ""
        size = f"{self.filters}x{self.rows}x{self.columns}"
        apart = f"-o{self.apart}" if self.apart > 1 else ""
        pooled = "-pooled" if self.pooled else ""
        return f"tile-{self.lanes_over}-f{self.bits}x{self.lanes}-{size}{step}{apart}{pooled}"


_shapes: dict[str, TileShape] = {}


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def _write_tile(typingctx, name, arguments):  # type: ignore[no-untyped-def]
    """Write the tile of that name: the tile is a type, and its arguments are data."""
    shape = _shapes[name.literal_value]

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        numbers = cgutils.unpack_tuple(builder, values[1])
        vectors = shape.columns // shape.lanes
        if shape.lanes_over == "pixels":
            PixelLanes(builder, shape.bits, shape.lanes, numbers, shape.apart).emit(
                shape.filters, shape.rows, vectors, shape.pooled
            )
        else:
            FilterLanes(builder, shape.bits, shape.lanes, numbers, shape.apart).emit(
                shape.rows, shape.columns, shape.filters // shape.lanes, shape.step
            )
        return context.get_dummy_value()

    return types.void(name, arguments), generate


@cache
def tile_address(shape: TileShape) -> int:
    """Return the address of a tile's machine code, compiled or read from the store."""
    name = shape.name
    _shapes[name] = shape

    def tile(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13):  # type: ignore[no-untyped-def]
        _write_tile(name, (a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13))

    return address_of(tile, name, len(ARGUMENTS))
