"""The convolution microkernels as machine code: one per shape, called by address."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from fastconv.codegen.conv_microkernel import ARGUMENTS
from fastconv.codegen.machine_function import machine_function
from fastconv.codegen.number_types import NUMBER_TYPES
from fastconv.codegen.over_channels_microkernel import OverChannels
from fastconv.codegen.over_width_microkernel import OverWidth


class TileShape(NamedTuple):
    """The compile-time parameters of a microkernel; everything else is data.

    Attributes
    ----------
    over : {"channels", "width"}
        Whether it is vectorized over output channels or over the output's width.
    filters, rows, columns : int
        The tile, with whole vectors of output channels, or of columns.
    step : int
        The column stride in the input if it is vectorized over output channels, 0 to read it from
        the layer; 1 if it is vectorized over width.
    bits, lanes : int
        Bits of a number, and lanes of a vector.
    spacing : int
        The column stride in the output.
    pooled : bool
        Whether maxima over 2 x 2 windows are stored.
    """

    over: Literal["channels", "width"]
    filters: int
    rows: int
    columns: int
    step: int
    bits: int
    lanes: int
    spacing: int = 1
    pooled: bool = False

    @property
    def name(self) -> str:
        """The kernel's name; docs/kernels.md has the grammar."""
        over, step = "width", ""
        if self.over == "channels":
            over, step = "channels", f"-s{self.step or 'n'}"
        vector = f"{NUMBER_TYPES[self.bits].name}x{self.lanes}"
        size = f"{self.filters}x{self.rows}x{self.columns}"
        spacing = f"-o{self.spacing}" if self.spacing > 1 else ""
        pooled = "-pooled" if self.pooled else ""
        return f"conv-over-{over}-{vector}-{size}{step}{spacing}{pooled}"


@machine_function(lambda shape: shape.name, *ARGUMENTS)
def microkernel_address(builder: Any, v: Any, shape: TileShape) -> None:
    """Emit a microkernel."""
    like = builder, shape.bits, shape.lanes, v, shape.spacing
    if shape.over == "width":
        vectors = shape.columns // shape.lanes
        OverWidth(*like).emit(shape.filters, shape.rows, vectors, shape.pooled)
    else:
        vectors = shape.filters // shape.lanes
        OverChannels(*like).emit(shape.rows, shape.columns, vectors, shape.step)
