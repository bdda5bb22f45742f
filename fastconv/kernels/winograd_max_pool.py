"""The last step of Winograd's method where only the maxima of squares are wanted."""

from __future__ import annotations

from functools import cache

from fastconv.codegen.winograd_transforms import join_row, transform_pooled
from fastconv.jit.compiler import address_of
from fastconv.kernels.winograd_loops import Form


@cache
def pooled_address(form: Form) -> int:
    """Return the address of what makes rows of the maxima of 2 x 2 squares of a filter's output.

    Its arguments are those of `outputs_address`. Rows and columns of output are rows and columns
    of maxima; there is no residual.
    """
    m, r, bits, lanes = form
    size, half = bits // 8, m // 2

    def pooled(  # type: ignore[no-untyped-def]
        source, buffer, out, residual, bias, numbers, activation,
        rows, columns, plane, stride, height, width, out_row,
    ):  # fmt: skip
        for t in range(0, rows * columns, lanes):
            of, to = source + t * size, buffer + t * size
            transform_pooled(of, to, bias, numbers, activation, plane, stride, m, r, bits, lanes)
        for u in range(min(rows * half, height)):
            place = buffer + (u % half * half * plane + u // half * columns) * size
            line = out + u * out_row * size
            join_row(place, line, columns, plane, width, half, bits, lanes)

    return address_of(pooled, f"winograd-pooled-{form.name}", 14)
