"""Means and maxima of windows that give an output its size, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import reference_pooling
from checks import assert_identical, assert_sum
from numpy.typing import DTypeLike
from reference import Pair

import fastconv
from fastconv import nn

ALGORITHMS = fastconv.pool_algorithms()
TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
ADAPTIVE: list[tuple[Pair, int | Pair]] = [
    ((5, 7), 1),
    ((5, 7), (3, 2)),
    ((8, 6), (4, 3)),
    ((4, 5), (4, 5)),
    ((7, 3), (3, 5)),
    ((2, 3), (5, 7)),
    ((1, 1), (3, 2)),
    ((13, 17), (5, 6)),
    ((10, 10), (7, 9)),
    ((40, 50), (3, 2)),
    ((9, 70), (9, 1)),
]


@TYPES
@pytest.mark.parametrize(("size", "output_size"), ADAPTIVE)
@pytest.mark.parametrize("algorithm", ["auto", *ALGORITHMS])
def test_adaptive_avg_pool2d(
    algorithm: str, size: Pair, output_size: int | Pair, dtype: DTypeLike
) -> None:
    x = np.random.default_rng(5).standard_normal((2, 3, *size)).astype(dtype)
    actual = fastconv.adaptive_avg_pool2d(x, output_size, algorithm=algorithm)
    expected = reference_pooling.adaptive_avg_pool2d(x, output_size)
    sizes = reference_pooling.adaptive_avg_pool2d(abs(x), output_size)
    assert_sum(actual, expected, sizes, size[0] * size[1] + 2, dtype)


@TYPES
@pytest.mark.parametrize(("size", "output_size"), ADAPTIVE)
@pytest.mark.parametrize("algorithm", ["auto", *ALGORITHMS])
def test_adaptive_avg_pool2d_grad(
    algorithm: str, size: Pair, output_size: int | Pair, dtype: DTypeLike
) -> None:
    oh, ow = (output_size, output_size) if isinstance(output_size, int) else output_size
    grad = np.random.default_rng(6).standard_normal((2, 3, oh, ow)).astype(dtype)
    shape = (2, 3, *size)
    actual = fastconv.adaptive_avg_pool2d_grad(grad, shape, algorithm=algorithm)
    expected = reference_pooling.adaptive_avg_pool2d_grad(grad, shape)
    sizes = reference_pooling.adaptive_avg_pool2d_grad(abs(grad), shape)
    assert_sum(actual, expected, sizes, oh * ow + 2, dtype)


def test_adaptive_avg_pool2d_of_nothing() -> None:
    assert fastconv.adaptive_avg_pool2d(np.zeros((0, 2, 4, 4)), 2).shape == (0, 2, 2, 2)
    back = fastconv.adaptive_avg_pool2d_grad(np.zeros((0, 2, 2, 2)), (0, 2, 4, 4))
    assert back.shape == (0, 2, 4, 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.bool_])
@pytest.mark.parametrize(("size", "output_size"), ADAPTIVE)
@pytest.mark.parametrize("algorithm", ["auto", *ALGORITHMS])
def test_adaptive_max_pool2d(
    algorithm: str, size: Pair, output_size: int | Pair, dtype: DTypeLike
) -> None:
    x = np.random.default_rng(7).integers(-2, 3, (2, 3, *size)).astype(dtype)
    values, indices = reference_pooling.adaptive_max_pool2d(x, output_size)
    actual = fastconv.adaptive_max_pool2d(x, output_size, True, algorithm=algorithm)
    assert_identical(actual[0], values, dtype)
    assert_identical(actual[1], indices, np.int64)
    alone = fastconv.adaptive_max_pool2d(x, output_size, algorithm=algorithm)
    assert_identical(alone, values, dtype)
    back = fastconv.max_pool2d_grad(values, indices, x.shape, algorithm=algorithm)
    expected = reference_pooling.max_pool2d_grad(values, indices, x.shape)
    np.testing.assert_array_equal(back, expected)
    layer = nn.AdaptiveMaxPool2d(output_size)
    assert_identical(layer(x), values, dtype)
    if back.dtype == dtype:
        assert_identical(layer.backward(values), expected.astype(dtype), dtype)


@pytest.mark.parametrize("output_size", [(None, 2), (3, None), [None, None], (None, 1)])
def test_none_keeps_an_axis(output_size: tuple[int | None, int | None]) -> None:
    x = np.random.default_rng(8).standard_normal((2, 3, 5, 7)).astype(np.float32)
    rows, columns = output_size
    wanted = rows or 5, columns or 7
    for pool, layer in (
        (fastconv.adaptive_avg_pool2d, nn.AdaptiveAvgPool2d),
        (fastconv.adaptive_max_pool2d, nn.AdaptiveMaxPool2d),
    ):
        expected = pool(x, wanted)
        assert_identical(pool(x, output_size), expected, np.float32)
        assert_identical(layer(output_size)(x), expected, np.float32)
        with pytest.raises(TypeError, match=r"output_size must be an integer.*None"):
            pool(x, None)
        for wrong in ((None, 0), (1.5, None), (None,), (None, 1, 2)):
            with pytest.raises((TypeError, ValueError), match="output_size"):
                layer(wrong)


def test_no_channels() -> None:
    # As PyTorch: means of nothing, no maxima of it, but maxima of one image without channels.
    assert fastconv.adaptive_avg_pool2d(np.zeros((2, 0, 4, 4)), 2).shape == (2, 0, 2, 2)
    assert fastconv.adaptive_avg_pool2d_grad(np.zeros((2, 0, 2, 2)), (2, 0, 4, 4)).size == 0
    assert fastconv.adaptive_max_pool2d(np.zeros((0, 4, 4)), 2).shape == (0, 2, 2)
    with pytest.raises(ValueError, match=r"x must have at least one channel, got .*\(2, 0, 4, 4\)"):
        fastconv.adaptive_max_pool2d(np.zeros((2, 0, 4, 4)), 2)
