"""im2col convolution with im2col and col2im as compiled loops."""

from __future__ import annotations

import numpy as np

from fastconv.convolution.algorithm import Array
from fastconv.convolution.blocking.partition import Block
from fastconv.convolution.im2col import Lowering, im2col
from fastconv.core.conv_problem import Conv2dProblem
from fastconv.kernels import im2col_loops as kernels


class CompiledLowering(Lowering):
    """im2col and col2im as compiled loops, without a padded copy."""

    im2col_per_second, col2im_per_second = 4.5e9, 4e9

    def im2col(
        self, problem: Conv2dProblem, x: Array, block: Block, c0: int, columns: Array
    ) -> None:
        """As in `Lowering.im2col`."""
        given = x.reshape(-1), columns.reshape(-1)
        kernels.im2col(*given, _numbers(block, c0, columns), problem.record)

    def col2im(
        self, problem: Conv2dProblem, columns: Array, block: Block, c0: int, out: Array
    ) -> None:
        """As in `Lowering.col2im`."""
        given = columns.reshape(-1), out.reshape(-1)
        kernels.col2im(*given, _numbers(block, c0, columns), problem.record)


def _numbers(block: Block, c0: int, columns: Array) -> Array:
    """Return a block as the integers that the kernels take."""
    return np.array((len(columns), c0, *block.images, *block.rows, *block.columns))


IM2COL_JIT = im2col("im2col_jit", CompiledLowering())
