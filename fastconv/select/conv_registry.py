"""The list of algorithms, fastest first: a new one is a file, a line here, and its name below."""

from __future__ import annotations

from typing import Literal, TypeAlias

from fastconv.convolution.algorithm import Algorithm
from fastconv.convolution.depthwise import DEPTHWISE
from fastconv.convolution.direct import DIRECT
from fastconv.convolution.fft import FFT
from fastconv.convolution.im2col import IM2COL
from fastconv.convolution.im2col_jit import IM2COL_JIT
from fastconv.convolution.implicit_gemm import IMPLICIT_GEMM
from fastconv.convolution.naive import NAIVE
from fastconv.convolution.reference import REFERENCE
from fastconv.convolution.winograd import WINOGRAD_2X2, WINOGRAD_4X4
from fastconv.core.conv_problem import DIRECTIONS, Direction
from fastconv.core.hints import did_you_mean

ALGORITHMS: tuple[Algorithm, ...] = (
    WINOGRAD_4X4,
    WINOGRAD_2X2,
    IMPLICIT_GEMM,
    DIRECT,
    DEPTHWISE,
    FFT,
    IM2COL_JIT,
    IM2COL,
    NAIVE,
    REFERENCE,
)

# The same names for type checkers: what a user may pass as `algorithm`.
ForwardAlgorithm: TypeAlias = Literal[
    "auto",
    "winograd_4x4",
    "winograd_2x2",
    "implicit_gemm",
    "direct",
    "depthwise",
    "fft",
    "im2col_jit",
    "im2col",
    "naive",
    "reference",
]
InputGradAlgorithm: TypeAlias = ForwardAlgorithm
WeightGradAlgorithm: TypeAlias = Literal[
    "auto",
    "winograd_4x4",
    "winograd_2x2",
    "implicit_gemm",
    "direct",
    "fft",
    "im2col_jit",
    "im2col",
    "naive",
    "reference",
]


def offering(direction: Direction) -> tuple[Algorithm, ...]:
    """Return the algorithms that offer `direction`, fastest first."""
    return tuple(a for a in ALGORITHMS if direction in a.directions)


def algorithms(direction: Direction = "forward") -> tuple[str, ...]:
    """Return the names of the convolution algorithms, fastest first.

    Parameters
    ----------
    direction : {"forward", "input_grad", "weight_grad"}
        What is to be computed.

    Raises
    ------
    ValueError
        For another direction.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.algorithms("forward")[-2:]
    ('naive', 'reference')
    """
    for known in DIRECTIONS:
        if isinstance(direction, str) and direction == known:
            return tuple(a.name for a in offering(known))
    names, hint = ", ".join(DIRECTIONS), did_you_mean("direction", direction, DIRECTIONS)
    raise ValueError(f"direction must be one of {names}, got {direction!r}{hint}")
