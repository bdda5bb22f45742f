"""Products of matrices: of a few rows by loops, of more in register tiles."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.codegen.dense_microkernel import Product
from fastconv.jit.compiler import address_of, range_kernel, summing_kernel
from fastconv.jit.launch import Launch
from fastconv.runtime import cpu

# Multiplications that are one step of work.
_LANES = 16
# Products that are summed up before they are added to a sum: rounding errors grow with its length.
_RUN = 128


@summing_kernel
def _dot(a: Any, b: Any) -> Any:
    total = a.dtype.type(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@range_kernel
def weighted_sums(start: int, stop: int, x: Any, weight: Any, bias: Any, out: Any) -> None:
    """Write ``x @ weight.T + bias`` to columns `start` to `stop` of `out`; `bias` may be empty.

    A row of weights is read once for all rows of `x`.
    """
    for k in range(start, stop):
        for n in range(x.shape[0]):
            total = _dot(x[n], weight[k])
            out[n, k] = total + bias[k] if bias.size else total


class ProductShape(NamedTuple):
    """What a tile is compiled for: see `codegen.dense`.

    Attributes
    ----------
    turned : bool
        Whether the second matrix is given turned, and lanes are over the sum.
    rows, columns : int
        What one call computes.
    bits, lanes : int
        Of an element, and of a vector.
    """

    turned: bool
    rows: int
    columns: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """What the kernel is called; docs/kernels.md has the grammar."""
        what = "inner" if self.turned else "outer"
        return f"product-{what}-f{self.bits}x{self.lanes}-{self.rows}x{self.columns}"


@lru_cache(maxsize=8)
def product_shape(turned: bool, dtype: np.dtype[Any]) -> ProductShape:
    """Return the tile: two thirds of the registers are sums, or as many as a vector has lanes."""
    instructions = cpu.describe().instructions
    lanes = instructions.lanes(dtype)
    if turned:
        rows = min(lanes, 4)
        return ProductShape(True, rows, lanes // rows, 8 * dtype.itemsize, lanes)
    rows = instructions.registers // 4
    return ProductShape(False, rows, 3 * lanes, 8 * dtype.itemsize, lanes)


_shapes: dict[str, ProductShape] = {}


@intrinsic(prefer_literal=True)  # type: ignore[misc, unused-ignore]
def _write_tile(typingctx, name, arguments):  # type: ignore[no-untyped-def]
    """Write the tile of that name."""
    shape = _shapes[name.literal_value]

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        numbers = cgutils.unpack_tuple(builder, values[1])
        product = Product(builder, shape.bits, shape.lanes, numbers)
        if shape.turned:
            product.inner(shape.rows, shape.columns)
        else:
            product.outer(shape.rows, shape.columns // shape.lanes)
        return context.get_dummy_value()

    return types.void(name, arguments), generate


#: What a range of tiles is computed from, after the addresses of the first matrix, the result and
#: the second one, as `Launch` takes them: elements from one row of each to the next, and in the
#: first from one element of a sum to the next; rows, columns, and the length of the sums.
ARGUMENTS = ("a", "out", "b", "a_row", "a_step", "b_row", "out_row", "M", "N", "depth")


@cache
def product_address(shape: ProductShape) -> int:
    """Return the address of the machine code for a range of tiles, those of some columns first."""
    name, size = shape.name, shape.bits // 8
    _shapes[name] = shape
    rows, columns, turned = shape.rows, shape.columns, shape.turned
    run = 2**62 if turned else _RUN  # lanes keep sums short where they are over the sum

    def product(  # type: ignore[no-untyped-def]
        start, stop, a, out, b, skipped1, skipped2, a_row, a_step, b_row, out_row, M, N, depth
    ):
        many = -(-M // rows)
        across, down = divmod(start, many)
        for _ in range(start, stop):
            i, j = down * rows, across * columns
            corner = b + (j * b_row if turned else j) * size
            for k in range(0, depth, run):
                _write_tile(
                    name,
                    (
                        a + (i * a_row + k * a_step) * size, corner + k * b_row * size,
                        out + (i * out_row + j) * size, a_row, a_step, b_row, out_row,
                        min(run, depth - k), M - i, N - j, k,
                    ),
                )  # fmt: skip
            down += 1
            if down == many:
                down, across = 0, across + 1

    return address_of(product, name, 2 + 2 + len(ARGUMENTS))


@lru_cache(maxsize=256)
def _launch(
    turned: tuple[bool, bool], M: int, N: int, depth: int, dtype: np.dtype[Any]
) -> tuple[int, Launch]:
    """Return how many tiles there are, and the kernel ready to be called with its arrays."""
    shape = product_shape(turned[1], dtype)
    steps = (1, M) if turned[0] else (depth, 1)
    sizes = *steps, depth if turned[1] else N, N, M, N, depth
    return -(-M // shape.rows) * -(-N // shape.columns), Launch(product_address(shape), (), sizes)


def product(a: Any, b: Any, out: Any, turned: tuple[bool, bool]) -> None:
    """Write ``a @ b`` to `out`, no dimension empty, all of one type and C-contiguous.

    `turned` says which of the two are given turned. Each sum has its order, whoever computes it.
    """
    (M, N), depth = out.shape, b.shape[turned[1]]
    shapes = (depth, M) if turned[0] else (M, depth), (N, depth) if turned[1] else (depth, N)
    if (a.shape, b.shape) != shapes or all(turned):
        raise ValueError(f"matrices must fit, got {a.shape} and {b.shape} for {out.shape}")
    tiles, launch = _launch(turned, M, N, depth, out.dtype)
    launch(tiles, a, out, b, M * N * depth // _LANES)
