"""The forms that arguments of pooling may have, in functions and in layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_identical

import fastconv
from fastconv import nn

X = np.random.default_rng(1).standard_normal((2, 3, 9, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        ({"kernel_size": (2,)}, {"kernel_size": (2, 2)}),
        ({"kernel_size": [3], "stride": (2,)}, {"kernel_size": 3, "stride": (2, 2)}),
        ({"kernel_size": 3, "stride": ()}, {"kernel_size": 3, "stride": (3, 3)}),
        ({"kernel_size": (3, 2), "stride": []}, {"kernel_size": (3, 2), "stride": (3, 2)}),
        ({"kernel_size": 3, "padding": (1,)}, {"kernel_size": 3, "padding": (1, 1)}),
        ({"kernel_size": 2, "dilation": (3,)}, {"kernel_size": 2, "dilation": (3, 3)}),
    ],
)
def test_one_number_for_both_axes(short: dict[str, Any], whole: dict[str, Any]) -> None:
    for pool, layer in ((fastconv.max_pool2d, nn.MaxPool2d), (fastconv.avg_pool2d, nn.AvgPool2d)):
        expected = pool(X, **whole)
        assert_identical(pool(X, **short), expected, np.float32)
        assert_identical(layer(**short)(X), expected, np.float32)
    grad = fastconv.avg_pool2d(X, **whole)
    back = fastconv.avg_pool2d_grad(grad, X.shape, **whole)
    assert_identical(fastconv.avg_pool2d_grad(grad, X.shape, **short), back, np.float32)


RULES: list[dict[str, Any]] = [
    {"kernel_size": 3, "stride": 2, "padding": "same"},
    {"kernel_size": (2, 4), "padding": "same_lower", "dilation": (2, 1)},
    {"kernel_size": 2, "padding": "valid"},
    {"kernel_size": 3, "padding": ((1, 0), (0, 1)), "ceil_mode": True},
    {"kernel_size": 2, "padding": 3, "stride": 3, "wide_padding": True},
    {"kernel_size": (3, 2), "padding": ((0, 9), (4, 1)), "dilation": 2, "wide_padding": True},
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_layers_do_what_functions_do(rule: dict[str, Any], training: bool) -> None:
    layer = nn.MaxPool2d(**rule).train(training)
    values, indices = fastconv.max_pool2d(X, **rule, return_indices=True)
    assert_identical(layer(X), values, np.float32)
    with_indices = nn.MaxPool2d(**rule, return_indices=True).train(training)
    for actual, wanted in zip(with_indices(X), (values, indices), strict=True):
        assert_identical(actual, wanted, wanted.dtype)
    rectified = nn.Sequential(nn.ReLU(), nn.MaxPool2d(**rule)).train(training)
    assert_identical(rectified(X), np.maximum(values, 0), np.float32)
    mean = nn.AvgPool2d(**rule, divisor_override=-2).train(training)
    means = fastconv.avg_pool2d(X, **rule, divisor_override=-2)
    assert_identical(mean(X), means, np.float32)
    if training:
        wide = rule.get("wide_padding", False)
        back = fastconv.max_pool2d_grad(values, indices, X.shape, wide_padding=wide)
        assert_identical(layer.backward(values), back, np.float32)
        assert_identical(with_indices.backward(values), back, np.float32)
        passed = np.where(values > 0, values, np.float32(0))
        back = fastconv.max_pool2d_grad(passed, indices, X.shape, wide_padding=wide)
        assert_identical(rectified.backward(values), back, np.float32)
        back = fastconv.avg_pool2d_grad(means, X.shape, **rule, divisor_override=-2)
        assert_identical(mean.backward(means), back, np.float32)


def test_no_gradient_comes_from_padding() -> None:
    indices = np.array([[[[-1, 0], [3, -1]]]])
    grad = np.array([[[[np.nan, 1.0], [2, np.inf]]]])
    for algorithm in fastconv.pool_algorithms():
        options = {"algorithm": algorithm}
        back = fastconv.max_pool2d_grad(grad, indices, (1, 1, 2, 2), wide_padding=True, **options)
        assert_identical(back, np.array([[[[1.0, 0], [0, 2]]]]), np.float64)
        with pytest.raises(ValueError, match=r"indices must lie in 0 \.\. 3 .* got -1 \.\. 3"):
            fastconv.max_pool2d_grad(grad, indices, (1, 1, 2, 2), **options)
        with pytest.raises(ValueError, match=r"indices must lie in 0 \.\. 3 .* got -1 \.\. 4"):
            fastconv.max_pool2d_grad(
                grad, np.array([[[[-1, 0], [4, -1]]]]), (1, 1, 2, 2), wide_padding=True, **options
            )


def test_layers_check_their_arguments() -> None:
    for layer in (nn.MaxPool2d, nn.AvgPool2d, nn.MaxUnpool2d):
        for wrong in (0, (1, 2, 3), 1.5, None):
            with pytest.raises((TypeError, ValueError), match="kernel_size"):
                layer(wrong)
        with pytest.raises((TypeError, ValueError), match="stride"):
            layer(2, 0)
        for wrong in (-1, "full", (1, 2, 3), 0.5):
            with pytest.raises((TypeError, ValueError), match="padding"):
                layer(2, padding=wrong)
    with pytest.raises(ValueError, match="divisor_override must not be 0"):
        nn.AvgPool2d(2, divisor_override=0)(X)


def test_any_momentum_of_batch_norm() -> None:
    layer = nn.BatchNorm2d(3, momentum=-0.5)
    layer(X)
    np.testing.assert_allclose(layer.running_mean, -0.5 * X.mean((0, 2, 3)), rtol=1e-5)
    for wrong in (np.inf, np.nan):
        with pytest.raises(ValueError, match="momentum must be finite"):
            nn.BatchNorm2d(3, momentum=wrong)
