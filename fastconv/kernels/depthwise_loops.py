"""Depthwise convolution: planes of the output, each from one plane of the input, nothing copied."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from fastconv.codegen.depthwise_microkernel import Depthwise
from fastconv.codegen.integers import counted, counted_together, integers, values_of
from fastconv.jit.compiler import range_kernel
from fastconv.jit.emitter import emitted_address
from fastconv.jit.pointers import address, call


class DepthwiseShape(NamedTuple):
    """What a kernel is compiled for: taps, stride, and the tile; see `codegen.depthwise`.

    With `odd` the even columns of the output are from R x S taps, the odd ones from R x `odd`. If
    `pooled`, maxima of 2 x 2 squares are stored.
    """

    R: int
    S: int
    stride: tuple[int, int]
    rows: int
    vectors: int
    bits: int
    lanes: int
    odd: int | None = None
    pooled: bool = False

    @property
    def name(self) -> str:
        """What the kernel is called; docs/kernels.md has the grammar."""
        down, across = self.stride
        tile = f"{self.rows}x{self.vectors * self.lanes}"
        odd = "" if self.odd is None else f"+{self.odd}"
        pooled = "-pooled" if self.pooled else ""
        taps = f"{self.R}x{self.S}{odd}-s{down}x{across}"
        return f"depthwise-f{self.bits}x{self.lanes}-{tile}-{taps}{pooled}"


#: The numbers of a layer, as the kernel wants them after the range of blocks and the addresses.
LAYER = (
    *("form", "C", "K", "multiplier", "H", "W", "OH", "OW", "pad_top", "pad_left"),
    *("pad_odd", "out_row", "out_plane"),
)
_ADDRESSES = ("x", "weight", "bias", "residual", "out", "numbers")


@cache
def depthwise_address(shape: DepthwiseShape) -> int:
    """Return the address of the machine code that computes a range of blocks of rows."""

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        _write_blocks(builder, arguments, shape)

    return emitted_address(shape.name, ("start", "stop", *_ADDRESSES, *LAYER), emit)


def _write_blocks(builder: Any, arguments: dict[str, Any], shape: DepthwiseShape) -> None:
    v, size = integers(builder, arguments), shape.bits // 8
    rows, columns = shape.rows, shape.vectors * shape.lanes
    # Of a pair, columns are counted in twos.
    taps, apart = shape.R * (shape.S + (shape.odd or 0)), 1 if shape.odd is None else 2
    side = 2 if shape.pooled else 1
    wide = (v.OW + (apart - 1)) // apart
    many = (v.OH + (rows - 1)) // rows
    with counted_together(builder, v.start, v.stop, (v.K, many)) as (image, k, block):
        i = (block * rows).at_most(v.OH - rows)
        x = v.x + (image * v.C + k // v.multiplier) * v.H * v.W * size
        out_row = (image * v.K + k) * v.out_plane + i // side * v.out_row
        with counted(builder, 0, wide, columns) as first:
            j = first.at_most(wide - columns).at_least(0)
            place = (out_row + j * apart // side) * size
            tile = {
                "x": x,
                "weight": v.weight + k * (taps * size),
                "bias": v.bias + k * size,
                "out": v.out + place,
                "residual": v.residual.choose(v.residual.compare("!=", 0), v.residual + place, 0),
                "numbers": v.numbers,
                "form": v.form,
                "height": v.H,
                "width": v.W,
                "top": i * shape.stride[0] - v.pad_top,
                "left": j * shape.stride[1] - v.pad_left,
                "left_odd": j - v.pad_odd,
                "out_row": v.out_row,
                "columns": v.OW - j * apart,
            }
            kernel = Depthwise(builder, shape.bits, shape.lanes, values_of(tile, builder))
            sizes = shape.R, shape.S, shape.stride, rows, shape.vectors
            if shape.pooled:
                kernel.emit_pooled(*sizes)
            else:
                kernel.emit(*sizes, shape.odd)


@range_kernel
def run_blocks(
    start: int,
    stop: int,
    code: int,
    x: Any,
    weight: Any,
    bias: Any,
    residual: Any,
    out: Any,
    numbers: Any,
    layer: Any,
) -> None:
    """Call the machine code `code`, of `depthwise_address`, for blocks `start` to `stop`.

    A block is `rows` rows of one plane of the output; `layer` holds the numbers `LAYER`. `out`
    begins with the first element to be written; `residual` is shaped like it or empty.
    """
    g = layer
    call(
        code,
        (
            start,
            stop,
            address(x),
            address(weight),
            address(bias),
            address(residual) if residual.size else 0,
            address(out),
            address(numbers),
            *(g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10], g[11], g[12]),
        ),
    )
