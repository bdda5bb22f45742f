"""Register tiles as machine code: one small function for each shape, called by its address."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple

from fastconv.codegen.conv_microkernel import ARGUMENTS
from fastconv.codegen.over_channels_microkernel import FilterLanes
from fastconv.codegen.over_width_microkernel import PixelLanes
from fastconv.jit.emitter import emitted_address


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


@cache
def tile_address(shape: TileShape) -> int:
    """Return the address of a tile's machine code, compiled or read from the store."""

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        like = builder, shape.bits, shape.lanes, arguments, shape.apart
        if shape.lanes_over == "pixels":
            vectors = shape.columns // shape.lanes
            PixelLanes(*like).emit(shape.filters, shape.rows, vectors, shape.pooled)
        else:
            vectors = shape.filters // shape.lanes
            FilterLanes(*like).emit(shape.rows, shape.columns, vectors, shape.step)

    return emitted_address(shape.name, ARGUMENTS, emit)
