"""Products of matrices, for fully connected layers: in register tiles, or by BLAS."""

from __future__ import annotations

import numpy as np
from numba.core import config

from fastconv.core.arguments import Array
from fastconv.kernels.dense_loops import product, weighted_sums
from fastconv.runtime import output_memory
from fastconv.runtime.blas import single_threaded
from fastconv.runtime.threads import run_tasks

# Multiplications worth a task of their own: a Python thread wakes in a tenth of a millisecond.
_TASK_PRODUCTS = 2**23
# Up to so many rows the time of a product is that of reading the weights.
_FEW_ROWS = 4
# Products per unit of work, by which `small` decides on threads.
_LANES = 16
# Limits of the register tiles. Every few columns of the second matrix read all of the first one;
# and if the second is not transposed, only a few cache lines of each row are read at a time, for
# which BLAS takes 0.7 times as long where they come from memory.
_MOST_BYTES_A, _MOST_BYTES_B = 2**24, 2**23


def dense(rows: Array, weight: Array, bias: Array | None) -> Array:
    """Return ``rows @ weight.T + bias``; `rows` and `weight` are contiguous and of one type."""
    if len(rows) <= _FEW_ROWS:
        sums = output_memory.empty((len(rows), len(weight)), rows.dtype)
        offsets = rows[:0].reshape(-1) if bias is None else bias
        weighted_sums.small(
            len(rows) * weight.size // _LANES, len(weight), rows, weight, offsets, sums
        )
        return sums
    sums = product_of(rows, weight, transposed=(False, True))
    if bias is not None:
        sums += bias
    return sums


def product_of(a: Array, b: Array, transposed: tuple[bool, bool] = (False, False)) -> Array:
    """Return ``a @ b``, one of which may be given transposed.

    In register tiles, without packing, where the matrices fit the caches; else by BLAS.
    """
    rows, columns = a.shape[transposed[0]], b.shape[1 - transposed[1]]
    out = output_memory.empty((rows, columns), a.dtype)
    fits = a.nbytes <= _MOST_BYTES_A and (transposed[1] or b.nbytes <= _MOST_BYTES_B)
    if fits and a.size and out.size and not config.DISABLE_JIT:
        product(a, b, out, transposed)
    else:
        _product_by_blas(a.T if transposed[0] else a, b.T if transposed[1] else b, out)
    return out


def _product_by_blas(a: Array, b: Array, out: Array) -> None:
    """Write ``a @ b`` to `out`, whose longer side is divided into tasks.

    Tasks depend on the shapes alone, and each calls BLAS on one thread: results are bitwise
    identical for any thread count.
    """
    rows, columns = out.shape
    parts = max(1, min(16, a.shape[1] * out.size // _TASK_PRODUCTS))
    step = -(-max(rows, columns) // parts)

    def part(start: int) -> None:
        if rows >= columns:
            np.matmul(a[start : start + step], b, out=out[start : start + step])
        else:
            np.matmul(a, b[:, start : start + step], out=out[:, start : start + step])

    if parts == 1:
        with single_threaded():
            np.matmul(a, b, out=out)
    elif out.size:
        run_tasks(part, range(0, max(rows, columns), step))
