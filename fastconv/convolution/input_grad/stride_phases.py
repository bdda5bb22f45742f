"""The input gradient as forward convolutions of the output gradient, one for each phase.

At stride 1 the input gradient is the convolution of the output gradient with the filters rotated
by 180 degrees, input and output channels exchanged. At larger strides each row and column of the
gradient uses only the taps of its phase, its index modulo the stride. A phase is a convolution at
stride 1 with these taps alone, so no inserted zero is multiplied. Elements that no tap reaches are
zero.

Row h of the input is read by tap r of output row i where ``h + top = i * stride + r * dilation``.
The taps of a phase have a stride of `apart`, and neighbouring taps read output rows at a distance
of ``dilation / gcd(stride, dilation)``.

Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning",
arXiv:1603.07285, chapter 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

from fastconv.convolution.algorithm import Array
from fastconv.core.conv_problem import Conv2dProblem


class Residue(NamedTuple):
    """A phase along one axis.

    Attributes
    ----------
    first, size : int
        Its first row of the gradient, and its number of rows.
    tap, apart, taps : int
        Its first tap, the stride of its taps, and their number.
    dilation : int
        Dilation of the convolution that computes it.
    padding : (int, int)
        Padding of that convolution. Negative where rows are not read.
    """

    first: int
    size: int
    tap: int
    apart: int
    taps: int
    dilation: int
    padding: tuple[int, int]


class Phase(NamedTuple):
    """One of the convolutions that compute an input gradient.

    Attributes
    ----------
    problem : Conv2dProblem
        The convolution, from the output gradient to the phase's rows and columns.
    down, across : Residue
        Its rows and columns, and its taps.
    stride : (int, int)
        The strides of its rows and columns in the input gradient.
    """

    problem: Conv2dProblem
    down: Residue
    across: Residue
    stride: tuple[int, int]

    def window(self, R: int, S: int) -> Array:
        """Return the index in this phase of each tap (r, s), -1 for taps of other phases."""
        return _window(R, S, self.down[2:5], self.across[2:5])


@lru_cache(maxsize=1024)
def _window(R: int, S: int, down: tuple[int, ...], across: tuple[int, ...]) -> Array:
    """Return `Phase.window`; `down` and `across` are the first tap, the next one, and how many."""
    taps = np.full((R, S), -1)
    own = np.arange(down[2] * across[2])[::-1].reshape(down[2], across[2])
    taps[down[0] :: down[1], across[0] :: across[1]] = own
    taps.flags.writeable = False
    return taps


@lru_cache(maxsize=1024)
def phases(problem: Conv2dProblem) -> tuple[Phase, ...]:
    """Return the phases that have taps."""
    p = problem
    rows = _residues(p.H, p.OH, p.R, p.stride[0], p.dilation[0], p.padding[0][0])
    columns = _residues(p.W, p.OW, p.S, p.stride[1], p.dilation[1], p.padding[1][0])
    return tuple(_phase(p, *both) for both in product(list(rows), list(columns)))


def has_gaps(problem: Conv2dProblem) -> bool:
    """Return whether some elements of the gradient are reached by no tap."""
    found = phases(problem)
    reached = sum(phase.down.size * phase.across.size for phase in found)
    return reached < problem.H * problem.W


def _residues(
    total: int, outputs: int, kernel: int, stride: int, dilation: int, before: int
) -> Iterator[Residue]:
    shared = math.gcd(stride, dilation)
    apart = stride // shared
    for tap in range(min(kernel, apart)):
        first = (tap * dilation - before) % stride
        if first < total:
            size = -(-(total - first) // stride)
            taps = -(-(kernel - tap) // apart)
            gap = dilation // shared if taps > 1 else 1
            # The output row of the first tap, and the distance back to that of the last one.
            offset, reach = (first + before - tap * dilation) // stride, (taps - 1) * gap
            padding = reach - offset, size - outputs + offset
            yield Residue(first, size, tap, apart, taps, gap, padding)


def _phase(problem: Conv2dProblem, down: Residue, across: Residue) -> Phase:
    p = problem
    convolution = Conv2dProblem(
        *(p.N, p.K, p.OH, p.OW, p.C, down.taps, across.taps),
        stride=(1, 1),
        padding=(down.padding, across.padding),
        dilation=(down.dilation, across.dilation),
        groups=p.groups,
        dtype=p.dtype,
    )
    return Phase(convolution, down, across, p.stride)
