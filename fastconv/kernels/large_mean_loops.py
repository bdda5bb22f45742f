"""Average pooling with windows of any size, and its backward, as machine code; an item is a row.

Register tiles (`pool_tile_loops`) are for windows narrower than a vector. Here the code is
vectorized along the rows of one window; windows may be as large as the plane, and differ in size.
"""

from __future__ import annotations

from typing import Any

from fastconv.codegen.integers import counted, counted_together, integer_at
from fastconv.codegen.large_mean_microkernel import LargeMean, LargeMeanGrad
from fastconv.codegen.machine_function import machine_function

#: The arguments: a range of rows; addresses of source and target; the bounds of the windows of each
#: output row, or in backward the range of windows that contain each input row; the bounds of the
#: windows of each column; divisors; sizes of the planes.
ARGUMENTS = (
    *("start", "stop", "source", "target", "top", "bottom", "left", "right"),
    *("row_divisors", "column_divisors", "H", "W", "OH", "OW"),
)


@machine_function(lambda bits, lanes: f"large-mean-f{bits}x{lanes}", *ARGUMENTS)
def mean_address(builder: Any, v: Any, bits: int, lanes: int) -> None:
    """Emit the loop over a range of rows of the output."""
    tile, size = LargeMean(builder, bits, lanes), bits // 8
    with counted_together(builder, v.start, v.stop, (v.OH,)) as (plane, i):
        first, end = (integer_at(builder, table, i) for table in (v.top, v.bottom))
        x = v.source + (plane * v.H + first) * v.W * size
        with counted(builder, 0, v.OW) as j:
            left, right = (integer_at(builder, table, j) for table in (v.left, v.right))
            total = tile.total(x + left * size, v.W, end - first, right - left)
            divisors = v.row_divisors + i * size, v.column_divisors + j * size
            tile.store(total, *divisors, v.target + ((plane * v.OH + i) * v.OW + j) * size)


@machine_function(
    lambda bits, lanes, vectors: f"large-mean-grad-f{bits}x{lanes}-1x{vectors * lanes}", *ARGUMENTS
)
def mean_grad_address(builder: Any, v: Any, bits: int, lanes: int, vectors: int) -> None:
    """Emit the loop over a range of rows of the input gradient."""
    size = bits // 8
    with counted_together(builder, v.start, v.stop, (v.H,)) as (plane, h):
        first, end = (integer_at(builder, table, h) for table in (v.top, v.bottom))
        tile = LargeMeanGrad(builder, bits, lanes, v, v.source + plane * v.OH * v.OW * size)
        with counted(builder, 0, v.W, vectors * lanes) as k:
            tile.emit(first, end, k, vectors, v.target + (plane * v.H + h) * v.W * size)
