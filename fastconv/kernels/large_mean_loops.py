"""Average pooling with windows of any size, and its backward, as machine code; an item is a row.

Register tiles (`pool_tile_loops`) are for windows narrower than a vector. Here the code is
vectorized along the rows of one window; windows may be as large as the plane, and differ in size.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from fastconv.codegen.integers import counted, counted_together, integers
from fastconv.codegen.large_mean_microkernel import LargeMean, LargeMeanGrad, entry
from fastconv.jit.emitter import emitted_address

#: The arguments: a range of rows; addresses of source and target; the bounds of the windows of each
#: output row, or in backward the range of windows that contain each input row; the bounds of the
#: windows of each column; divisors; sizes of the planes.
ARGUMENTS = (
    *("start", "stop", "source", "target", "top", "bottom", "left", "right"),
    *("row_divisors", "column_divisors", "H", "W", "OH", "OW"),
)


@cache
def mean_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code for a range of rows of the output."""
    size = bits // 8

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        v, tile = integers(builder, arguments), LargeMean(builder, bits, lanes)
        with counted_together(builder, v.start, v.stop, (v.OH,)) as (plane, i):
            first = entry(v.top, i)
            rows, x = entry(v.bottom, i) - first, v.source + (plane * v.H + first) * v.W * size
            with counted(builder, 0, v.OW) as j:
                begin = entry(v.left, j)
                total = tile.total(x + begin * size, v.W, rows, entry(v.right, j) - begin)
                divisors = v.row_divisors + i * size, v.column_divisors + j * size
                tile.store(total, *divisors, v.target + ((plane * v.OH + i) * v.OW + j) * size)

    return emitted_address(f"large-mean-f{bits}x{lanes}", ARGUMENTS, emit)


@cache
def mean_grad_address(bits: int, lanes: int, vectors: int) -> int:
    """Return the address of the machine code for a range of rows of the input gradient."""
    size = bits // 8

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        v = integers(builder, arguments)
        with counted_together(builder, v.start, v.stop, (v.H,)) as (plane, h):
            first, end = entry(v.top, h), entry(v.bottom, h)
            tile = LargeMeanGrad(builder, bits, lanes, v, v.source + plane * v.OH * v.OW * size)
            with counted(builder, 0, v.W, vectors * lanes) as k:
                tile.emit(first, end, k, vectors, v.target + (plane * v.H + h) * v.W * size)

    return emitted_address(f"large-mean-grad-f{bits}x{lanes}-1x{vectors * lanes}", ARGUMENTS, emit)
