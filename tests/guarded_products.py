"""Products of matrices on arrays that touch protected pages: a stray access ends the process.

`guarded_runs` runs it.
"""

from __future__ import annotations

import sys

import numpy as np
from guarded_memory import guarded

import fastconv
from fastconv.core.arguments import as_computed
from fastconv.kernels.dense_loops import product, product_shape

#: Which of the two matrices are given transposed.
TRANSPOSED = ((False, False), (True, False), (False, True))


def check(rng: np.random.Generator, number: int) -> bool:
    """Return whether all three products of one shape come out right, whole numbers exactly."""
    dtype = np.dtype(("f4", "f8")[number % 2])
    fastconv.set_num_threads(number % 3 + 1)
    right = True
    for transposed in TRANSPOSED:
        tile = product_shape(transposed[1], dtype)
        # From below a tile to some of them; sums from none of a vector to several runs.
        M, N = (int(rng.integers(1, 3 * size + 2)) for size in (tile.rows, tile.columns))
        depth = int(rng.integers(1, (2 * tile.lanes + 2, 300)[number % 4 > 1]))
        a = rng.integers(-9, 10, (M, depth)).astype(dtype)
        b = rng.integers(-9, 10, (depth, N)).astype(dtype)
        for at_end in (True, False):
            given = (
                as_computed(guarded(np.ascontiguousarray(x.T if flag else x), at_end), dtype)
                for x, flag in zip((a, b), transposed, strict=True)
            )
            out = guarded(np.full((M, N), np.nan, dtype), at_end)
            product(*given, out, transposed)
            if not np.array_equal(out, a.astype(int) @ b.astype(int)):
                print(M, N, depth, dtype, transposed, file=sys.stderr)
                right = False
    return right
