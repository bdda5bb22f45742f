"""The input gradient as forward convolutions of the output's gradient, one for each phase.

At stride 1 the gradient is the convolution of the output's gradient with the filters rotated
by 180 degrees, input and output channels exchanged. At larger strides each row of the gradient, and
each column, sees only the taps that reach it: those of its phase, its index modulo the stride.
A phase is a convolution at stride 1 with its taps alone, so that no inserted zero is multiplied;
what no tap reaches is zero.

Row h of the input is read by tap r of output row i where ``h + top = i * stride + r * dilation``.
The taps of a phase are `apart` from each other, and neighbouring ones of them read output rows
``dilation / gcd(stride, dilation)`` apart.

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
        Its first row of the gradient, and how many it has.
    tap, apart, taps : int
        Its first tap, from one to the next, and how many there are.
    dilation : int
        How far apart the rows of the output's gradient are that neighbouring taps read.
    padding : (int, int)
        Of the convolution that computes it. Negative where rows are not read at all.
    """

    first: int
    size: int
    tap: int
    apart: int
    taps: int
    dilation: int
    padding: tuple[int, int]


class Phase(NamedTuple):
    """One of the convolutions that make a gradient.

    Attributes
    ----------
    problem : Conv2dProblem
        From the output's gradient to these rows and columns of the input's.
    down, across : Residue
        Which rows and columns, and which taps.
    stride : (int, int)
        From one row, and from one column, of them to the next.
    """

    problem: Conv2dProblem
    down: Residue
    across: Residue
    stride: tuple[int, int]

    def window(self, R: int, S: int) -> Array:
        """Return which of this phase's taps each tap (r, s) is; -1 if it is not one of them."""
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
    """Return the phases that some tap reaches."""
    p = problem
    rows = _residues(p.H, p.OH, p.R, p.stride[0], p.dilation[0], p.padding[0][0])
    columns = _residues(p.W, p.OW, p.S, p.stride[1], p.dilation[1], p.padding[1][0])
    return tuple(_phase(p, *both) for both in product(list(rows), list(columns)))


def leave_gaps(problem: Conv2dProblem) -> bool:
    """Return whether there are rows or columns of the gradient that no tap reaches."""
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
            # The output row that the first tap meets there, and how far back the last one sees.
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
