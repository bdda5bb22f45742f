"""Matrix products without packing: compiled loops for a few rows, register tiles for more."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from fastconv.codegen.dense_microkernel import DenseMicrokernel
from fastconv.codegen.integers import counted, counted_together
from fastconv.codegen.machine_function import machine_function
from fastconv.codegen.number_types import NUMBER_TYPES
from fastconv.jit.compiler import range_kernel, summing_kernel
from fastconv.jit.launch import Launch
from fastconv.runtime import cpu

# Multiplications per unit of work.
_LANES = 16
# Products in one partial sum: rounding errors grow with the length of a sum.
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

    Each row of weights is read once for all rows of `x`.
    """
    for k in range(start, stop):
        for n in range(x.shape[0]):
            total = _dot(x[n], weight[k])
            out[n, k] = total + bias[k] if bias.size else total


class ProductShape(NamedTuple):
    """The compile-time parameters of a `DenseMicrokernel`.

    Attributes
    ----------
    transposed : bool
        Whether B is transposed: it is then vectorized over the reduction axis.
    rows, columns : int
        The tile.
    bits, lanes : int
        Bits of a number, and lanes of a vector.
    """

    transposed: bool
    rows: int
    columns: int
    bits: int
    lanes: int

    @property
    def name(self) -> str:
        """The kernel's name; docs/kernels.md has the grammar."""
        form, number = "inner" if self.transposed else "outer", NUMBER_TYPES[self.bits].name
        return f"dense-{form}-{number}x{self.lanes}-{self.rows}x{self.columns}"


@lru_cache(maxsize=8)
def product_shape(transposed: bool, dtype: np.dtype[Any]) -> ProductShape:
    """Return the tile: sums take three quarters of the registers, or one lane each."""
    instructions = cpu.describe().instructions
    lanes = instructions.lanes(dtype)
    if transposed:
        rows = min(lanes, 4)
        return ProductShape(True, rows, lanes // rows, 8 * dtype.itemsize, lanes)
    rows = instructions.registers // 4
    return ProductShape(False, rows, 3 * lanes, 8 * dtype.itemsize, lanes)


#: The arguments, in the order of `Launch`: a range of tiles; addresses of A, the result and B; the
#: row stride of A, its stride along the reduction axis, the row strides of B and of the result;
#: M, N, and the length of the reduction.
ARGUMENTS = (
    *("start", "stop", "a", "out", "b", "unused1", "unused2"),
    *("a_row", "a_step", "b_row", "out_row", "M", "N", "depth"),
)


@machine_function(lambda shape: shape.name, *ARGUMENTS)
def product_address(builder: Any, v: Any, shape: ProductShape) -> None:
    """Emit the loops over a range of tiles, in column-major order."""
    size = NUMBER_TYPES[shape.bits].size
    run = 2**62 if shape.transposed else _RUN  # sums over lanes are short anyway
    many = (v.M + (shape.rows - 1)) // shape.rows
    with counted_together(builder, v.start, v.stop, (many,)) as (across, down):
        i, j = down * shape.rows, across * shape.columns
        corner = v.b + (j * v.b_row if shape.transposed else j) * size
        with counted(builder, 0, v.depth, run) as k:
            tile = SimpleNamespace(
                a=v.a + (i * v.a_row + k * v.a_step) * size,
                b=corner + k * v.b_row * size,
                out=v.out + (i * v.out_row + j) * size,
                a_row=v.a_row,
                a_step=v.a_step,
                b_row=v.b_row,
                out_row=v.out_row,
                depth=(v.depth - k).at_most(run),
                rows=v.M - i,
                columns=v.N - j,
                adds=k,
            )
            kernel = DenseMicrokernel(builder, shape.bits, shape.lanes, tile)
            if shape.transposed:
                kernel.inner(shape.rows, shape.columns)
            else:
                kernel.outer(shape.rows, shape.columns // shape.lanes)


@lru_cache(maxsize=256)
def _launch(
    transposed: tuple[bool, bool], M: int, N: int, depth: int, dtype: np.dtype[Any]
) -> tuple[int, Launch]:
    """Return the number of tiles, and the kernel's launch."""
    shape = product_shape(transposed[1], dtype)
    steps = (1, M) if transposed[0] else (depth, 1)
    sizes = *steps, depth if transposed[1] else N, N, M, N, depth
    return -(-M // shape.rows) * -(-N // shape.columns), Launch(product_address(shape), (), sizes)


def product(a: Any, b: Any, out: Any, transposed: tuple[bool, bool]) -> None:
    """Write ``a @ b`` to `out`; all non-empty, of one dtype and C-contiguous.

    `transposed` says which of the two are transposed. Results are bitwise identical for any thread
    count.
    """
    (M, N), depth = out.shape, b.shape[transposed[1]]
    shapes = (
        (depth, M) if transposed[0] else (M, depth),
        (N, depth) if transposed[1] else (depth, N),
    )
    if (a.shape, b.shape) != shapes or all(transposed):
        raise ValueError(f"shapes must match, got {a.shape} and {b.shape} for {out.shape}")
    tiles, launch = _launch(transposed, M, N, depth, out.dtype)
    launch(tiles, a, out, b, M * N * depth // _LANES)
