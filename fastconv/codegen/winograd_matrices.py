"""Winograd's matrices, by exact rational arithmetic from interpolation points.

F(m, r) computes m neighbouring outputs of a filter with r taps from m + r - 1 inputs, with
m + r - 1 multiplications instead of m * r::

    y = A ((G g) * (B d))      y (m,), g (r,), d (m + r - 1,)

A two-dimensional tile is transformed along both axes. The method is transposed Toom-Cook polynomial
multiplication: a product of polynomials is interpolated from its values at m + r - 2 points and at
infinity.

Sources: S. Winograd, "Arithmetic complexity of computations", 1980; A. Lavin, S. Gray, "Fast
algorithms for convolutional neural networks", arXiv:1509.09308; for the points, B. Barabasz et
al., "Error analysis and improving the accuracy of Winograd convolution for deep neural
networks", arXiv:1803.10986.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import prod
from typing import NamedTuple

Matrix = tuple[tuple[Fraction, ...], ...]


class Winograd(NamedTuple):
    """The matrices of F(m, r), exact.

    Attributes
    ----------
    outputs : Matrix, (m, m + r - 1)
        A, the output transform.
    weights : Matrix, (m + r - 1, r)
        G, the weight transform.
    inputs : Matrix, (m + r - 1, m + r - 1)
        B, the input transform.
    """

    outputs: Matrix
    weights: Matrix
    inputs: Matrix


#: Interpolation points by their number, infinity apart. Pairs of opposite sign share work. They
#: were chosen by measured error: docs/accuracy.md.
POINTS: dict[int, tuple[Fraction, ...]] = {
    3: tuple(map(Fraction, ("0", "1", "-1"))),
    5: tuple(map(Fraction, ("0", "3/4", "-3/4", "3/2", "-3/2"))),
    7: tuple(map(Fraction, ("0", "1", "-1", "2", "-2", "1/2", "-1/2"))),
}


@lru_cache(maxsize=16)
def winograd(m: int, r: int) -> Winograd:
    """Return the matrices of F(m, r).

    Examples
    --------
    >>> [[int(a) for a in row] for row in winograd(2, 3).inputs]
    [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]
    """
    return from_points(m, r, POINTS[m + r - 2])


def from_points(m: int, r: int, points: tuple[Fraction, ...]) -> Winograd:
    """Return the matrices of F(m, r) for m + r - 2 different points and infinity."""
    zero, one = Fraction(0), Fraction(1)
    inputs, weights = [], []
    for point in points:
        others = [other for other in points if other != point]
        scale = prod((point - other for other in others), start=one)
        sign = 1 if scale > 0 else -1
        inputs.append((*(sign * c for c in _polynomial(others)), zero))
        weights.append(tuple(sign * point**k / scale for k in range(r)))
    inputs.append(_polynomial(points))
    weights.append((*[zero] * (r - 1), one))
    outputs = [(*(point**j for point in points), one if j == m - 1 else zero) for j in range(m)]
    return Winograd(tuple(outputs), tuple(weights), tuple(inputs))


def _polynomial(roots: tuple[Fraction, ...] | list[Fraction]) -> tuple[Fraction, ...]:
    """Return the coefficients, lowest first, of the product of (x - root)."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        scaled = [*(-root * c for c in coefficients), Fraction(0)]
        coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return tuple(coefficients)
