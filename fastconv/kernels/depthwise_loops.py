"""Depthwise convolution: planes of the output, each from one plane of the input, nothing copied."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.codegen.depthwise_microkernel import ARGUMENTS as TILE_ARGUMENTS
from fastconv.codegen.depthwise_microkernel import Depthwise
from fastconv.jit.compiler import address_of, range_kernel
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


_shapes: dict[str, DepthwiseShape] = {}


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def _write_tile(typingctx, name, arguments):  # type: ignore[no-untyped-def]
    """Write the tile of the kernel of that name."""
    shape = _shapes[name.literal_value]

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        numbers = cgutils.unpack_tuple(builder, values[1])
        tile = Depthwise(builder, shape.bits, shape.lanes, numbers)
        sizes = shape.R, shape.S, shape.stride, shape.rows, shape.vectors
        if shape.pooled:
            tile.emit_pooled(*sizes)
        else:
            tile.emit(*sizes, shape.odd)
        return context.get_dummy_value()

    return types.void(name, arguments), generate


#: The numbers of a layer, as the kernel wants them after the range of blocks and the addresses.
LAYER = (
    *("form", "C", "K", "multiplier", "H", "W", "OH", "OW", "pad_top", "pad_left"),
    *("pad_odd", "out_row", "out_plane"),
)
_ADDRESSES = ("x", "weight", "bias", "residual", "out", "numbers")


@cache
def depthwise_address(shape: DepthwiseShape) -> int:
    """Return the address of the machine code that computes a range of blocks of rows."""
    name, size = shape.name, shape.bits // 8
    _shapes[name] = shape
    rows, columns = shape.rows, shape.vectors * shape.lanes
    down, across = shape.stride
    # Of a pair, columns are counted in twos.
    taps, apart = shape.R * (shape.S + (shape.odd or 0)), 1 if shape.odd is None else 2
    side = 2 if shape.pooled else 1
    assert len(TILE_ARGUMENTS) == 14

    def blocks(  # type: ignore[no-untyped-def]
        start, stop, x, weight, bias, residual, out, numbers,
        form, C, K, multiplier, H, W, OH, OW, pad_top, pad_left, pad_odd, out_row, out_plane,
    ):  # fmt: skip
        many = -(-OH // rows)
        plane, block = divmod(start, many)
        image, k = divmod(plane, K)
        wide = -(-OW // apart)
        for _ in range(start, stop):
            i = min(block * rows, OH - rows)
            source = x + (image * C + k // multiplier) * H * W * size
            for j in range(0, wide, columns):
                j = max(0, min(j, wide - columns))
                row = (image * K + k) * out_plane + i // side * out_row
                place = (row + j * apart // side) * size
                added = residual + place if residual else 0
                filter_ = weight + k * taps * size
                top, left = i * down - pad_top, j * across - pad_left
                _write_tile(
                    name,
                    (
                        source, filter_, bias + k * size, out + place, added, numbers, form,
                        H, W, top, left, j - pad_odd, out_row, OW - j * apart,
                    ),
                )  # fmt: skip
            block += 1
            if block == many:
                block, k = 0, k + 1
                if k == K:
                    k, image = 0, image + 1

    return address_of(blocks, name, 2 + len(_ADDRESSES) + len(LAYER))


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
