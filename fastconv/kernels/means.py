"""Means over windows of any size, and their gradients: one row an item of work, as machine code.

Register tiles (`kernels.pooling`) are for windows narrower than a vector. Here a vector lies along
the rows of one window; windows may be as large as the plane, and of differing sizes.
"""

from __future__ import annotations

from functools import lru_cache

from fastconv.codegen.windows import mean_window, share_row
from fastconv.kernels.calls import integer_at
from fastconv.kernels.jit import address_of

#: What a range of rows is computed from: addresses of what is read and written; where the windows
#: of each row of the output begin and end, or for gradients which windows each row of the input is
#: in; where the windows of each column begin and end; divisors; sizes of the planes.
ARGUMENTS = (
    *("source", "target", "top", "bottom", "left", "right", "row_divisors", "column_divisors"),
    *("H", "W", "OH", "OW"),
)


@lru_cache(maxsize=16)
def means_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code for a range of rows of the output."""
    size = bits // 8

    def means(  # type: ignore[no-untyped-def]
        start, stop, source, target, top, bottom, left, right, row_divisors, column_divisors,
        H, W, OH, OW,
    ):  # fmt: skip
        for line in range(start, stop):
            plane, i = divmod(line, OH)
            first = integer_at(top, i)
            rows, x = integer_at(bottom, i) - first, source + (plane * H + first) * W * size
            for j in range(OW):
                begin = integer_at(left, j)
                mean_window(
                    target + (line * OW + j) * size, x + begin * size, W, rows,
                    integer_at(right, j) - begin, row_divisors + i * size,
                    column_divisors + j * size, bits, lanes,
                )  # fmt: skip

    return address_of(means, f"means-f{bits}x{lanes}", 2 + len(ARGUMENTS))


@lru_cache(maxsize=16)
def shares_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code for a range of rows of the input's gradient."""
    size = bits // 8

    def shares(  # type: ignore[no-untyped-def]
        start, stop, source, target, top, bottom, left, right, row_divisors, column_divisors,
        H, W, OH, OW,
    ):  # fmt: skip
        for line in range(start, stop):
            plane, h = divmod(line, H)
            first, end = integer_at(top, h), integer_at(bottom, h)
            out, done = target + line * W * size, 0
            for j in range(OW):
                begin, behind = integer_at(left, j), integer_at(right, j)
                share_row(
                    out, done, begin, behind, source + (plane * OH * OW + j) * size, OW, first, end,
                    row_divisors, column_divisors + j * size, bits, lanes,
                )  # fmt: skip
                done = behind
            # Columns behind the last window: a gap, and a share of nothing.
            share_row(out, done, W, W, source, OW, 0, 0, row_divisors, column_divisors, bits, lanes)

    return address_of(shares, f"shares-f{bits}x{lanes}", 2 + len(ARGUMENTS))
