"""Products of matrices: of a few rows by loops, of more in register tiles."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv.codegen.dense_microkernel import Product
from fastconv.codegen.integers import counted, counted_together, integers, values_of
from fastconv.jit.compiler import range_kernel, summing_kernel
from fastconv.jit.emitter import emitted_address
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


#: What a range of tiles is computed from, as `Launch` takes it: the addresses of the first matrix,
#: the result and the second one; elements from one row of each to the next, and in the
#: first from one element of a sum to the next; rows, columns, and the length of the sums.
ARGUMENTS = (
    *("start", "stop", "a", "out", "b", "unused1", "unused2"),
    *("a_row", "a_step", "b_row", "out_row", "M", "N", "depth"),
)


@cache
def product_address(shape: ProductShape) -> int:
    """Return the address of the machine code for a range of tiles, those of some columns first."""

    def emit(builder: Any, arguments: dict[str, Any]) -> None:
        _write_tiles(builder, arguments, shape)

    return emitted_address(shape.name, ARGUMENTS, emit)


def _write_tiles(builder: Any, arguments: dict[str, Any], shape: ProductShape) -> None:
    v, size = integers(builder, arguments), shape.bits // 8
    run = 2**62 if shape.turned else _RUN  # lanes keep sums short where they are over the sum
    many = (v.M + (shape.rows - 1)) // shape.rows
    with counted_together(builder, v.start, v.stop, (many,)) as (across, down):
        i, j = down * shape.rows, across * shape.columns
        corner = v.b + (j * v.b_row if shape.turned else j) * size
        with counted(builder, 0, v.depth, run) as k:
            tile = {
                "a": v.a + (i * v.a_row + k * v.a_step) * size,
                "b": corner + k * v.b_row * size,
                "out": v.out + (i * v.out_row + j) * size,
                "a_row": v.a_row,
                "a_step": v.a_step,
                "b_row": v.b_row,
                "out_row": v.out_row,
                "depth": (v.depth - k).at_most(run),
                "rows": v.M - i,
                "columns": v.N - j,
                "adds": k,
            }
            kernel = Product(builder, shape.bits, shape.lanes, values_of(tile, builder))
            if shape.turned:
                kernel.inner(shape.rows, shape.columns)
            else:
                kernel.outer(shape.rows, shape.columns // shape.lanes)


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
