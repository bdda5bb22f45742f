"""What the tests ask of a result: exact equality, a derived error bound, or a telling refusal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import DTypeLike
from reference import Array


def assert_identical(actual: Array, expected: Array, dtype: DTypeLike) -> None:
    """Ask for the same type, the same shape and every element equal; NaN equals NaN."""
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == np.dtype(dtype)
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


def assert_sum(
    actual: Array, expected: Array, magnitude: Array, terms: int, dtype: DTypeLike
) -> None:
    """Ask that `actual` is as near to `expected` as a sum of `terms` products must be.

    Adding n products in any order, fused or not, errs by at most n*u / (1 - n*u) times the sum
    of their absolute values, u being half of eps (Higham, Accuracy and Stability of Numerical
    Algorithms, 2nd ed., section 3.1). That sum is `magnitude`. The oracle's own float64 errors
    obey the same bound with float64's u, which is why it is added.
    A forgotten or misplaced product changes a sum by about magnitude / n: at n = 200 in float32
    that is 400 times the bound.
    """
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == np.dtype(dtype)
    assert actual.shape == expected.shape
    bound = (growth(terms, dtype) + growth(terms, np.float64)) * magnitude
    error = np.abs(actual.astype(np.float64) - expected)
    wrong = ~(error <= bound)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        pytest.fail(
            f"{wrong.sum()} of {wrong.size} elements wrong, first at {where}: "
            f"{actual[where]!r}, right is {expected[where]!r} +- {bound[where]:.3g}"
        )


#: Algorithms that err by more than a plain sum does, and by how many eps of the largest output on
#: standard-normal data: at most what docs/accuracy.md promises. Layers of tests have few outputs.
LESS_EXACT = {"winograd_2x2": 42, "winograd_4x4": 84, "fft": 42}


def assert_integers(actual: Array, integers: Array, dtype: DTypeLike) -> None:
    """Ask for every element near the integer that it must be: others are wrong by one at least."""
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == np.dtype(dtype)
    assert actual.shape == integers.shape
    np.testing.assert_allclose(actual, integers, rtol=0, atol=0.1)


def same_integers(algorithm: str) -> Callable[[Array, Array, DTypeLike], None]:
    """Return what to ask of an algorithm's result where all numbers are integers."""
    return assert_integers if algorithm in LESS_EXACT else assert_identical


def assert_close(
    actual: Array, expected: Array, algorithm: str, terms: int, dtype: DTypeLike
) -> None:
    """Ask an algorithm of `LESS_EXACT` for the error it promises on standard-normal data.

    The largest of few outputs may happen to be small; a sum of that many terms is not.
    """
    assert actual.dtype == np.dtype(dtype)
    assert actual.shape == expected.shape
    scale = max(np.abs(expected).max(initial=0), np.sqrt(max(1, terms)))
    error = np.abs(actual - expected).max(initial=0) / scale
    assert error < LESS_EXACT[algorithm] * np.finfo(dtype).eps


def whole(actual: Array, algorithm: str, part: float = 1) -> Array:
    """Return sums of whole numbers, or of multiples of a `part`, as they are to be.

    An algorithm that transforms must come near to them, and is rounded then.
    """
    if algorithm not in LESS_EXACT:
        return actual
    rounded = (np.rint(actual / part) * part).astype(actual.dtype)
    finite = np.isfinite(actual)
    np.testing.assert_allclose(actual[finite], rounded[finite], rtol=0, atol=0.05 * part)
    return rounded


def assert_transformed(
    actual: Array,
    expected: Array,
    sources: Array,
    filters: Array,
    terms: int,
    tiles: int,
    dtype: DTypeLike,
) -> None:
    """Ask for the error bound of a convolution by Fourier transforms.

    A transform of n points errs, in the Euclidean norm, by at most log2(n) * 7u (Higham, section
    24.1, with factors rounded correctly), so the error depends on all of a tile. Let a be the
    planes of `sources` and b those of `filters`, `terms` of which are summed, each in so many
    `tiles`. Each spectrum errs so, their products by 4u and sums by 2u a term; by Parseval, and by
    Cauchy and Schwarz, this changes no element by more than as many times |a|_2 |b|_2. The ring
    that is transformed back is at most |a|_2 |b|_1 long (Young), and |b|_2 <= |b|_1. Tiles have at
    most 2**14 points.
    """
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == np.dtype(dtype)
    assert actual.shape == expected.shape
    a = np.sqrt((sources.astype(np.float64) ** 2).sum(axis=(-2, -1)).max(initial=0))
    b = np.abs(filters.astype(np.float64)).sum(axis=(-2, -1)).max(initial=0)
    bound = growth(3 * 14 * 7 + 4 + 2 * terms * tiles, dtype) * terms * a * b
    error = np.abs(actual.astype(np.float64) - expected).max(initial=0)
    assert error <= bound + float(np.finfo(dtype).eps) * np.abs(expected).max(initial=0)


def growth(terms: int, dtype: DTypeLike) -> float:
    """Return n*u / (1 - n*u)."""
    nu = max(terms, 1) * float(np.finfo(dtype).eps) / 2
    return nu / (1 - nu)


@contextmanager
def refused(argument: str, value: object) -> Iterator[None]:
    """Expect a ValueError or TypeError that names the argument and shows what it was."""
    with pytest.raises((ValueError, TypeError)) as caught:
        yield
    message = str(caught.value)
    # Whole words: a "1" must not be found in "10", nor "x" in "max".
    assert re.search(rf"\b{re.escape(argument)}\b", message), f"{argument!r} not in {message!r}"
    shown = re.escape(str(value))
    assert re.search(rf"(?<![\w.]){shown}(?![\w.])", message), f"{value!r} not in {message!r}"
