"""Depthwise convolution: planes of the output, each from one plane of the input, nothing copied."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.codegen.depthwise import ARGUMENTS as TILE_ARGUMENTS
from fastconv.codegen.depthwise import Depthwise
from fastconv.kernels.calls import address, call
from fastconv.kernels.jit import address_of, range_kernel


class DepthwiseShape(NamedTuple):
    """What a kernel is compiled for: taps, stride, and the tile; see `codegen.depthwise`.

    `apart` is how many columns of the output are from one pixel to the next.
    """

    R: int
    S: int
    stride: tuple[int, int]
    rows: int
    vectors: int
    bits: int
    lanes: int
    apart: int = 1

    @property
    def name(self) -> str:
        """What the kernel is called; docs/kernels.md has the grammar."""
        down, across = self.stride
        tile = f"{self.rows}x{self.vectors * self.lanes}"
        taps = f"{self.R}x{self.S}-s{down}x{across}"
        apart = f"-o{self.apart}" if self.apart > 1 else ""
        return f"depthwise-f{self.bits}x{self.lanes}-{tile}-{taps}{apart}"


_shapes: dict[str, DepthwiseShape] = {}


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def _write_tile(typingctx, name, arguments):  # type: ignore[no-untyped-def]
    """Write the tile of the kernel of that name."""
    shape = _shapes[name.literal_value]

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        numbers = cgutils.unpack_tuple(builder, values[1])
        tile = Depthwise(builder, shape.bits, shape.lanes, numbers, shape.apart)
        tile.emit(shape.R, shape.S, shape.stride, shape.rows, shape.vectors)
        return context.get_dummy_value()

    return types.void(name, arguments), generate


#: The numbers of a layer, as the kernel wants them after the range of blocks and the addresses.
LAYER = (
    *("form", "C", "K", "multiplier", "H", "W", "OH", "OW", "pad_top", "pad_left"),
    *("out_row", "out_plane"),
)
_ADDRESSES = ("x", "weight", "bias", "residual", "out", "numbers")


@lru_cache(maxsize=64)
def depthwise_address(shape: DepthwiseShape) -> int:
    """Return the address of the machine code that computes a range of blocks of rows."""
    name, size = shape.name, shape.bits // 8
    _shapes[name] = shape
    rows, columns = shape.rows, shape.vectors * shape.lanes
    down, across, taps, apart = *shape.stride, shape.R * shape.S, shape.apart
    assert len(TILE_ARGUMENTS) == 13

    def blocks(  # type: ignore[no-untyped-def]
        start, stop, x, weight, bias, residual, out, numbers,
        form, C, K, multiplier, H, W, OH, OW, pad_top, pad_left, out_row, out_plane,
    ):  # fmt: skip
        many = -(-OH // rows)
        plane, block = divmod(start, many)
        image, k = divmod(plane, K)
        for _ in range(start, stop):
            i = min(block * rows, OH - rows)
            source = x + (image * C + k // multiplier) * H * W * size
            for j in range(0, OW, columns):
                j = max(0, min(j, OW - columns))
                place = ((image * K + k) * out_plane + i * out_row + j * apart) * size
                added = residual + place if residual else 0
                filter_ = weight + k * taps * size
                top, left = i * down - pad_top, j * across - pad_left
                _write_tile(
                    name,
                    (
                        source, filter_, bias + k * size, out + place, added, numbers, form,
                        H, W, top, left, out_row, OW - j,
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
            *(g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9], g[10], g[11]),
        ),
    )
