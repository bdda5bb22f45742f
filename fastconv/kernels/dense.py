"""Products of a few rows with a matrix, where BLAS would spend its time on the way there."""

from __future__ import annotations

from typing import Any

from fastconv.kernels.jit import range_kernel, summing_kernel


@summing_kernel
def _dot(a: Any, b: Any) -> Any:
    total = a.dtype.type(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@range_kernel
def weighted_sums(start: int, stop: int, x: Any, weight: Any, out: Any) -> None:
    """Write ``x @ weight.T`` to columns `start` to `stop` of `out`.

    A row of weights is read once for all rows of `x`.
    """
    for k in range(start, stop):
        for n in range(x.shape[0]):
            out[n, k] = _dot(x[n], weight[k])
