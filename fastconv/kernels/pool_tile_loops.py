"""Pooling in register tiles: blocks of rows of planes, as machine code with an address."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.codegen.pool_grad_microkernel import PoolGrad
from fastconv.codegen.pool_microkernel import BYTES, INDICES, NOT_ASKED, Pool, Window
from fastconv.jit.compiler import address_of

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


_shapes: dict[str, PoolShape] = {}


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def _write_tile(typingctx, name, arguments):  # type: ignore[no-untyped-def]
    """Write the tile of the kernel of that name."""
    shape = _shapes[name.literal_value]

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        numbers = cgutils.unpack_tuple(builder, values[1])
        if shape.form in FORWARD:
            tile = Pool(builder, shape.bits, shape.lanes, numbers)
            tile.emit(shape.window, shape.rows, *FORWARD[shape.form])
        else:
            back = PoolGrad(builder, shape.bits, shape.lanes, numbers)
            back.emit(shape.window, shape.rows, BACKWARD[shape.form])
        return context.get_dummy_value()

    return types.void(name, arguments), generate


#: What a range of blocks is computed from, forward or backward: addresses (of what is read and
#: written, of the places or 0, of the divisors), sizes of the planes of input and output, elements
#: from one row of places to the next, and the margins before the input.
ARGUMENTS = (
    *("source", "target", "places", "row_divisors", "column_divisors"),
    *("H", "W", "OH", "OW", "place_row", "pad_top", "pad_left"),
)


@cache
def pool_address(shape: PoolShape) -> int:
    """Return the address of the machine code that computes a range of blocks.

    A block is `rows` rows of the output, or the pixels between `rows` rows of windows and the next.
    """
    name, size = shape.name, shape.bits // 8
    _shapes[name] = shape
    rows, lanes, (down, across) = shape.rows, shape.lanes, shape.window.stride
    place_size = 8 if shape.form == "max-index" else 1

    def forward(  # type: ignore[no-untyped-def]
        start, stop, source, target, places, row_divisors, column_divisors,
        H, W, OH, OW, place_row, pad_top, pad_left,
    ):  # fmt: skip
        many = -(-OH // rows)
        plane, block = divmod(start, many)
        for _ in range(start, stop):
            i = min(block * rows, OH - rows)
            x, line = source + plane * H * W * size, plane * OH + i
            for j in range(0, OW, lanes):
                _write_tile(
                    name,
                    (
                        x, target + (line * OW + j) * size,
                        places + (line * place_row + j) * place_size,
                        row_divisors + i * size, column_divisors + j * size,
                        H, W, i * down - pad_top, j * across - pad_left, OW, place_row, OW - j,
                    ),
                )  # fmt: skip
            block += 1
            if block == many:
                block, plane = 0, plane + 1

    def backward(  # type: ignore[no-untyped-def]
        start, stop, source, target, places, row_divisors, column_divisors,
        H, W, OH, OW, place_row, pad_top, pad_left,
    ):  # fmt: skip
        many = -(-(H + pad_top) // (rows * down))
        plane, block = divmod(start, many)
        for _ in range(start, stop):
            i, line = block * rows, plane * OH
            grad, out = source + line * OW * size, target + plane * H * W * size
            for left in range(-pad_left, W, lanes * across):
                j = (left + pad_left) // across
                _write_tile(
                    name,
                    (
                        grad, places + line * place_row, out, row_divisors, column_divisors,
                        H, W, OH, OW, place_row, i, j, i * down - pad_top, left,
                    ),
                )  # fmt: skip
            block += 1
            if block == many:
                block, plane = 0, plane + 1

    function = forward if shape.form in FORWARD else backward
    return address_of(function, name, 2 + len(ARGUMENTS))
