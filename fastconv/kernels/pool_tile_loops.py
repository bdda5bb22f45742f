"""Pooling in register tiles: blocks of rows of planes, as machine code with an address."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from fastconv.codegen.integers import counted, counted_together, integers, values_of
from fastconv.codegen.pool_grad_microkernel import PoolGrad
from fastconv.codegen.pool_microkernel import BYTES, INDICES, NOT_ASKED, Pool, Window
from fastconv.jit.emitter import emitted_address

#: What is computed: whether means, which places of maxima are stored, whether it is rectified.
FORWARD = {
    "max": (False, NOT_ASKED, False),
    "max-byte": (False, BYTES, False),
    "max-relu-byte": (False, BYTES, True),
    "max-index": (False, INDICES, False),
    "mean": (True, NOT_ASKED, False),
}
#: Whether gradients of means.
BACKWARD = {"max-grad": False, "mean-grad": True}


class PoolShape(NamedTuple):
    """What a kernel is compiled for: see `codegen.pooling` and `codegen.pooling_grad`."""

    form: str
    window: Window
    rows: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """What the kernel is called; docs/kernels.md has the grammar."""
        tile = f"f{self.bits}x{self.lanes}-{self.rows}x{self.lanes}"
        return f"{self.form}-{tile}-{self.window.name}"


#: What blocks `start` to `stop` are computed from, forward or backward: addresses (of what is read
#: and written, of the places or 0, of the divisors), sizes of the planes of input and output,
#: elements from one row of places to the next, and the margins before the input.
ARGUMENTS = (
    *("start", "stop", "source", "target", "places", "row_divisors", "column_divisors"),
    *("H", "W", "OH", "OW", "place_row", "pad_top", "pad_left"),
)


@cache
def pool_address(shape: PoolShape) -> int:
    """Return the address of the machine code that computes a range of blocks.

    A block is `rows` rows of the output, or the pixels between `rows` rows of windows and the next.
    """
    write = _write_forward if shape.form in FORWARD else _write_backward

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        write(builder, integers(builder, arguments), shape)

    return emitted_address(shape.name, ARGUMENTS, emit)


def _write_forward(builder: Any, v: SimpleNamespace, shape: PoolShape) -> None:
    size, place_size = shape.bits // 8, 8 if shape.form == "max-index" else 1
    rows, lanes, (down, across) = shape.rows, shape.lanes, shape.window.stride
    many = (v.OH + (rows - 1)) // rows
    with counted_together(builder, v.start, v.stop, (many,)) as (plane, block):
        i = (block * rows).at_most(v.OH - rows)
        x, line = v.source + plane * v.H * v.W * size, plane * v.OH + i
        with counted(builder, 0, v.OW, lanes) as j:
            tile = {
                "x": x,
                "out": v.target + (line * v.OW + j) * size,
                "places": v.places + (line * v.place_row + j) * place_size,
                "row_divisors": v.row_divisors + i * size,
                "column_divisors": v.column_divisors + j * size,
                "height": v.H,
                "width": v.W,
                "top": i * down - v.pad_top,
                "left": j * across - v.pad_left,
                "out_row": v.OW,
                "place_row": v.place_row,
                "columns": v.OW - j,
            }
            kernel = Pool(builder, shape.bits, lanes, values_of(tile, builder))
            kernel.emit(shape.window, rows, *FORWARD[shape.form])


def _write_backward(builder: Any, v: SimpleNamespace, shape: PoolShape) -> None:
    size, rows, lanes = shape.bits // 8, shape.rows, shape.lanes
    down, across = shape.window.stride
    many = (v.H + v.pad_top + (rows * down - 1)) // (rows * down)
    with counted_together(builder, v.start, v.stop, (many,)) as (plane, block):
        i, line = block * rows, plane * v.OH
        with counted(builder, -v.pad_left, v.W, lanes * across) as left:
            tile = {
                "grad": v.source + line * v.OW * size,
                "places": v.places + line * v.place_row,
                "out": v.target + plane * v.H * v.W * size,
                "row_divisors": v.row_divisors,
                "column_divisors": v.column_divisors,
                "height": v.H,
                "width": v.W,
                "out_height": v.OH,
                "out_width": v.OW,
                "place_row": v.place_row,
                "i": i,
                "j": (left + v.pad_left) // across,
                "top": i * down - v.pad_top,
                "left": left,
            }
            kernel = PoolGrad(builder, shape.bits, lanes, values_of(tile, builder))
            kernel.emit(shape.window, rows, BACKWARD[shape.form])
