"""The last step of Winograd's method where only maxima over 2 x 2 windows are wanted."""

from __future__ import annotations

from functools import cache

from fastconv.codegen.winograd_transforms import join_row, transform_pooled
from fastconv.jit.compiler import address_of
from fastconv.jit.pointers import record_at
from fastconv.kernels.winograd_loops import ARGUMENTS, LAYOUT, Form


@cache
def pooled_address(form: Form) -> int:
    """Return the address of what makes rows of the maxima of one output channel.

    Its arguments are those of `outputs_address`; there is no residual.
    """
    m, r, bits, lanes = form
    size, half = bits // 8, m // 2

    def pooled(source, buffer, out, residual, channel, row, column, rows, columns, arguments):  # type: ignore[no-untyped-def]
        a = record_at(arguments, ARGUMENTS)
        g = record_at(a.layer, LAYOUT)
        plane, stride = g.gather_plane, g.product_stride
        bias, numbers, activation = a.bias + channel * size, a.numbers, a.form
        width = min(columns * half, g.OW - column * half)
        for t in range(0, rows * columns, lanes):
            of, to = source + t * size, buffer + t * size
            transform_pooled(of, to, bias, numbers, activation, plane, stride, m, r, bits, lanes)
        for u in range(min(rows * half, g.OH - row * half)):
            of = buffer + (u % half * half * plane + u // half * columns) * size
            join_row(of, out + u * g.OW * size, columns, plane, width, half, bits, lanes)

    return address_of(pooled, f"winograd-pooled-{form.name}", 10)
