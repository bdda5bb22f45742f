"""Average pooling and its gradient, by every algorithm, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import reference_pooling
from cases import POOL_CASES, PoolCase
from checks import assert_identical, assert_sum
from numpy.typing import DTypeLike
from pooling_answers import average_rule, averages, window

import fastconv

ALGORITHMS = fastconv.pool_algorithms()
NAMES = pytest.mark.parametrize("algorithm", ALGORITHMS)
TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
INCLUDE = pytest.mark.parametrize("count_include_pad", [True, False])
NAN, INF = np.nan, np.inf


@INCLUDE
@TYPES
@pytest.mark.parametrize("case", POOL_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("algorithm", ["auto", *ALGORITHMS])
def test_avg_pool2d(
    algorithm: str, case: PoolCase, dtype: DTypeLike, count_include_pad: bool
) -> None:
    x, expected, sizes = averages(case, dtype, count_include_pad, backward=False)
    arguments = average_rule(case, count_include_pad)
    actual = fastconv.avg_pool2d(x, **arguments, algorithm=algorithm)
    # The division, or a reciprocal and a product, round once or twice more.
    assert_sum(actual, expected, sizes, window(case) + 2, dtype)


@INCLUDE
@TYPES
@pytest.mark.parametrize("case", POOL_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("algorithm", ["auto", *ALGORITHMS])
def test_avg_pool2d_grad(
    algorithm: str, case: PoolCase, dtype: DTypeLike, count_include_pad: bool
) -> None:
    grad, expected, sizes = averages(case, dtype, count_include_pad, backward=True)
    arguments = average_rule(case, count_include_pad)
    actual = fastconv.avg_pool2d_grad(grad, case.input_shape, **arguments, algorithm=algorithm)
    assert_sum(actual, expected, sizes, window(case) + 2, dtype)


@NAMES
def test_avg_pool2d_by_hand(algorithm: str) -> None:
    x = [[[[4, 8, 4], [8, 4, 8], [4, 8, 12]]]]
    # The corner window sees one cell of four, the window at an edge two.
    with_padding = [[1.0, 3.0], [3.0, 8.0]]
    without = [[4.0, 6.0], [6.0, 8.0]]
    for include, expected in ((True, with_padding), (False, without)):
        actual = fastconv.avg_pool2d(
            x, 2, padding=1, count_include_pad=include, algorithm=algorithm
        )
        assert_identical(actual, np.array([[expected]]), np.float64)
    # The overhang of ceil_mode is no padding: it is never counted.
    actual = fastconv.avg_pool2d(x, 2, ceil_mode=True, algorithm=algorithm)
    assert_identical(actual, np.array([[[[6.0, 6.0], [6.0, 12.0]]]]), np.float64)


@INCLUDE
@NAMES
def test_avg_pool2d_nan_and_infinity(algorithm: str, count_include_pad: bool) -> None:
    case = PoolCase("overlapping", (2, 2, 7, 8), 3, 2, 1)
    x = np.random.default_rng(4).choice([NAN, INF, -INF, *[1.0] * 12], case.input_shape)
    arguments = average_rule(case, count_include_pad)
    with np.errstate(invalid="ignore"):
        actual = fastconv.avg_pool2d(x, **arguments, algorithm=algorithm)
        expected = reference_pooling.avg_pool2d(x, **arguments)
    # Windows without any must stay clean: nothing carries over from neighbours.
    assert np.isfinite(expected).any()
    np.testing.assert_allclose(actual, expected, rtol=1e-14)
