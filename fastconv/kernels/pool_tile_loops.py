"""Pooling in register tiles, as machine code: the loops over blocks of rows of planes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

from fastconv.codegen.integers import counted, counted_together
from fastconv.codegen.machine_function import machine_function
from fastconv.codegen.pool_grad_microkernel import PoolGrad
from fastconv.codegen.pool_microkernel import BYTES, INDICES, Pool, Reduction
from fastconv.codegen.pool_tile import Window
from fastconv.codegen.vector import vectors

#: Forward kernels.
FORWARD = {
    "max": Reduction(),
    "max-byte": Reduction(argmax=BYTES),
    "max-relu-byte": Reduction(argmax=BYTES, relu=True),
    "max-index": Reduction(argmax=INDICES),
    "mean": Reduction(mean=True),
}
#: Backward kernels, and whether they are of average pooling.
BACKWARD = {"max-grad": False, "mean-grad": True}


class PoolShape(NamedTuple):
    """The compile-time parameters of a kernel: see `PoolTile`."""

    form: str
    window: Window
    rows: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """The kernel's name; docs/kernels.md has the grammar."""
        tile = f"f{self.bits}x{self.lanes}-{self.rows}x{self.lanes}"
        return f"{self.form}-{tile}-{self.window.name}"


#: The arguments, forward or backward: a range of blocks; addresses of source and target, of the
#: argmax or 0, and of the divisors; sizes of the input and output planes; the row stride of the
#: argmax; the top and left padding.
ARGUMENTS = (
    *("start", "stop", "source", "target", "argmax", "row_divisors", "column_divisors"),
    *("H", "W", "OH", "OW", "argmax_row", "pad_top", "pad_left"),
)


@machine_function(lambda shape: shape.name, *ARGUMENTS)
def pool_address(builder: Any, v: Any, shape: PoolShape) -> None:
    """Emit the loop over a range of blocks.

    A block is `rows` rows of the output, or the pixels between `rows` rows of windows and the next.
    """
    write = _write_forward if shape.form in FORWARD else _write_backward
    write(builder, v, shape)


def _write_forward(builder: Any, v: Any, shape: PoolShape) -> None:
    size, argmax_size = shape.bits // 8, 8 if shape.form == "max-index" else 1
    rows, lanes, (down, across) = shape.rows, shape.lanes, shape.window.stride
    many = (v.OH + (rows - 1)) // rows
    with counted_together(builder, v.start, v.stop, (many,)) as (plane, block):
        i = (block * rows).at_most(v.OH - rows)
        x, line = v.source + plane * v.H * v.W * size, plane * v.OH + i
        with counted(builder, 0, v.OW, lanes) as j:
            values = SimpleNamespace(
                x=x,
                out=v.target + (line * v.OW + j) * size,
                argmax=v.argmax + (line * v.argmax_row + j) * argmax_size,
                row_divisors=v.row_divisors + i * size,
                column_divisors=v.column_divisors + j * size,
                height=v.H,
                width=v.W,
                top=i * down - v.pad_top,
                left=j * across - v.pad_left,
                out_row=v.OW,
                argmax_row=v.argmax_row,
                columns=v.OW - j,
            )
            vector = vectors(builder, shape.bits, lanes)
            Pool(builder, shape.window, rows, vector, values).emit(FORWARD[shape.form])


def _write_backward(builder: Any, v: Any, shape: PoolShape) -> None:
    size, rows, lanes = shape.bits // 8, shape.rows, shape.lanes
    down, across = shape.window.stride
    many = (v.H + v.pad_top + (rows * down - 1)) // (rows * down)
    with counted_together(builder, v.start, v.stop, (many,)) as (plane, block):
        i, line = block * rows, plane * v.OH
        with counted(builder, -v.pad_left, v.W, lanes * across) as left:
            values = SimpleNamespace(
                grad=v.source + line * v.OW * size,
                argmax=v.argmax + line * v.argmax_row,
                out=v.target + plane * v.H * v.W * size,
                row_divisors=v.row_divisors,
                column_divisors=v.column_divisors,
                height=v.H,
                width=v.W,
                out_height=v.OH,
                out_width=v.OW,
                argmax_row=v.argmax_row,
                i=i,
                j=(left + v.pad_left) // across,
                top=i * down - v.pad_top,
                left=left,
            )
            vector = vectors(builder, shape.bits, lanes)
            PoolGrad(builder, shape.window, rows, vector, values).emit(BACKWARD[shape.form])
