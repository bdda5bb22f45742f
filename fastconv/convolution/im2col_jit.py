"""im2col with its lowering and its col2im as Numba kernels, into the same reused columns."""

from __future__ import annotations

import numpy as np

from fastconv.convolution.algorithm import Array
from fastconv.convolution.blocking.partition import Block
from fastconv.convolution.im2col import Lowering, im2col
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels import im2col_loops as kernels


class CompiledLowering(Lowering):
    """Patches gathered by a compiled loop that needs no padded copy."""

    lowered_a_second, raised_a_second = 4.5e9, 4e9

    def lower(
        self, problem: Conv2dProblem, x: Array, block: Block, c0: int, columns: Array
    ) -> None:
        """As in `Lowering.lower`."""
        given = x.reshape(-1), columns.reshape(-1)
        kernels.lower(*given, _numbers(block, c0, columns), problem.record)

    def raise_columns(
        self, problem: Conv2dProblem, columns: Array, block: Block, c0: int, out: Array
    ) -> None:
        """As in `Lowering.raise_columns`."""
        given = columns.reshape(-1), out.reshape(-1)
        kernels.raise_columns(*given, _numbers(block, c0, columns), problem.record)


def _numbers(block: Block, c0: int, columns: Array) -> Array:
    """Return a block as the kernels take it."""
    return np.array((len(columns), c0, *block.images, *block.rows, *block.columns))


IM2COL_JIT = im2col("im2col_jit", CompiledLowering())
