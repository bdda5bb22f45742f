"""Means over windows of any size, and their gradients: one row an item of work, as machine code.

Register tiles (`kernels.pooling`) are for windows narrower than a vector. Here a vector lies along
the rows of one window; windows may be as large as the plane, and of differing sizes.
"""

from __future__ import annotations

from functools import cache

from fastconv.codegen.large_mean_microkernel import mean_window, share_vectors
from fastconv.jit.compiler import address_of
from fastconv.jit.pointers import integer_at

#: What a range of rows is computed from: addresses of what is read and written; where the windows
#: of each row of the output begin and end, or for gradients which windows each row of the input is
#: in; where the windows of each column begin and end; divisors; sizes of the planes.
ARGUMENTS = (
    *("source", "target", "top", "bottom", "left", "right", "row_divisors", "column_divisors"),
    *("H", "W", "OH", "OW"),
)


@cache
def means_address(bits: int, lanes: int) -> int:
    """Return the address of the machine code for a range of rows of the output."""
    size = bits // 8

    def means(  # type: ignore[no-untyped-def]
        start, stop, source, target, top, bottom, left, right, row_divisors, column_divisors,
        H, W, OH, OW,
    ):  # fmt: skip
        plane, i = divmod(start, OH)
        for line in range(start, stop):
            first = integer_at(top, i)
            rows, x = integer_at(bottom, i) - first, source + (plane * H + first) * W * size
            for j in range(OW):
                begin = integer_at(left, j)
                mean_window(
                    target + (line * OW + j) * size, x + begin * size, W, rows,
                    integer_at(right, j) - begin, row_divisors + i * size,
                    column_divisors + j * size, bits, lanes,
                )  # fmt: skip
            i += 1
            if i == OH:
                i, plane = 0, plane + 1

    return address_of(means, f"means-f{bits}x{lanes}", 2 + len(ARGUMENTS))


@cache
def shares_address(bits: int, lanes: int, vectors: int) -> int:
    """Return the address of the machine code for a range of rows of the input's gradient."""
    size = bits // 8

    def shares(  # type: ignore[no-untyped-def]
        start, stop, source, target, top, bottom, left, right, row_divisors, column_divisors,
        H, W, OH, OW,
    ):  # fmt: skip
        plane, h = divmod(start, H)
        for line in range(start, stop):
            first, end = integer_at(top, h), integer_at(bottom, h)
            for k in range(0, W, vectors * lanes):
                share_vectors(
                    target + line * W * size, k, W, source + plane * OH * OW * size, first, end,
                    left, right, row_divisors, column_divisors, OW, bits, lanes, vectors,
                )  # fmt: skip
            h += 1
            if h == H:
                h, plane = 0, plane + 1

    return address_of(shares, f"shares-f{bits}x{lanes}-1x{vectors * lanes}", 2 + len(ARGUMENTS))
