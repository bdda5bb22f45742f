"""The list of algorithms, fastest first. A new algorithm is one file and one line here."""

from __future__ import annotations

from fastconv.convolution.algorithm import Algorithm
from fastconv.convolution.depthwise import Depthwise
from fastconv.convolution.fft import Fft
from fastconv.convolution.im2col import Im2col
from fastconv.convolution.im2col_jit import Im2colJit
from fastconv.convolution.implicit_gemm_and_direct import Direct, ImplicitGemm
from fastconv.convolution.naive import Naive
from fastconv.convolution.reference import Reference
from fastconv.convolution.winograd import Winograd2, Winograd4
from fastconv.core.conv_problem import DIRECTIONS, Direction

ALGORITHMS: tuple[Algorithm, ...] = (
    Winograd4(),
    Winograd2(),
    ImplicitGemm(),
    Direct(),
    Depthwise(),
    Fft(),
    Im2colJit(),
    Im2col(),
    Naive(),
    Reference(),
)


def offering(direction: Direction) -> tuple[Algorithm, ...]:
    """Return the algorithms that offer `direction`, fastest first."""
    return tuple(a for a in ALGORITHMS if direction in a.directions)


def algorithms(direction: str = "forward") -> tuple[str, ...]:
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
    raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
