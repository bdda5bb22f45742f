"""The forms that arguments of pooling may have, in functions and in layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_identical, refused

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
    activated = nn.Sequential(nn.ReLU(), nn.MaxPool2d(**rule)).train(training)
    assert_identical(activated(X), np.maximum(values, 0), np.float32)
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
        assert_identical(activated.backward(values), back, np.float32)
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
        with pytest.raises(
            ValueError, match=r"indices must lie in 0 \.\. 3 or be -1 .* got -1 \.\. 4"
        ):
            fastconv.max_pool2d_grad(
                grad, np.array([[[[-1, 0], [4, -1]]]]), (1, 1, 2, 2), wide_padding=True, **options
            )


def test_only_minus_one_is_an_index_in_the_padding() -> None:
    indices = np.array([[[[2**64 - 1]]]], np.uint64)
    for algorithm in fastconv.pool_algorithms():
        with refused("indices", 2**64 - 1):
            fastconv.max_pool2d_grad(
                *(np.ones((1, 1, 1, 1)), indices, (1, 1, 2, 2)),
                wide_padding=True,
                algorithm=algorithm,
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
    for wrong in (0, 1.5, True, "2"):
        with refused("divisor_override", wrong):
            nn.AvgPool2d(2, divisor_override=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layer", "flags"),
    [
        (nn.MaxPool2d, ("return_indices", "ceil_mode", "wide_padding")),
        (nn.AvgPool2d, ("ceil_mode", "count_include_pad", "wide_padding")),
        (nn.AdaptiveMaxPool2d, ("return_indices",)),
    ],
)
def test_layers_check_their_flags(layer: Any, flags: tuple[str, ...]) -> None:
    for flag in flags:
        for wrong in ("no", 1, None):
            with refused(flag, wrong):
                layer(2, **{flag: wrong})
        layer(2, **{flag: np.True_})


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (
            nn.MaxPool2d(2),
            "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)",
        ),
        (
            nn.MaxPool2d((3, 2), 1, 1, 2, True, True, wide_padding=True),
            "MaxPool2d(kernel_size=(3, 2), stride=1, padding=1, dilation=2, ceil_mode=True, "
            "return_indices=True, wide_padding=True)",
        ),
        (nn.AvgPool2d(3, 2, 1), "AvgPool2d(kernel_size=3, stride=2, padding=1)"),
        (
            nn.AvgPool2d(2, 2, 0, True, False, 3, dilation=(1, 2), wide_padding=True),
            "AvgPool2d(kernel_size=2, stride=2, padding=0, ceil_mode=True, "
            "count_include_pad=False, divisor_override=3, dilation=(1, 2), wide_padding=True)",
        ),
        (nn.AdaptiveAvgPool2d((2, None)), "AdaptiveAvgPool2d(output_size=(2, None))"),
        (nn.AdaptiveMaxPool2d(2), "AdaptiveMaxPool2d(output_size=2)"),
        (nn.AdaptiveMaxPool2d(2, True), "AdaptiveMaxPool2d(output_size=2, return_indices=True)"),
        (nn.MaxUnpool2d(2, padding=1), "MaxUnpool2d(kernel_size=2, stride=2, padding=1)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_show_what_is_not_usual(layer: nn.Module, shown: str) -> None:
    assert repr(layer) == shown


def test_gradients_go_where_the_maxima_were() -> None:
    # Whatever becomes of the indices that a layer has handed out.
    x, wide = X[:, :, :8], nn.MaxPool2d(2, padding=2, return_indices=True, wide_padding=True)
    for layer in (nn.MaxPool2d(2, return_indices=True), wide, nn.AdaptiveMaxPool2d(4, True)):
        values, _ = layer(x)
        expected = layer.backward(values)
        for other in (0, -1, 2**40):
            values, indices = layer(x)
            indices[...] = other
            assert_identical(layer.backward(values), expected, np.float32)
    values, indices = fastconv.max_pool2d(x, 2, return_indices=True)
    unpooling = nn.MaxUnpool2d(2)
    expected = fastconv.max_unpool2d_grad(x, indices)
    unpooling(values, indices)
    indices[...] = -1
    assert_identical(unpooling.backward(x), expected, np.float32)


def test_messages_show_what_was_given() -> None:
    # Not the axis of a batch that one image was given without.
    none, empty, ones = np.ones((0, 4, 4)), np.ones((1, 0, 4)), np.ones((1, 2, 2))
    calls: list[Any] = [
        lambda: fastconv.conv2d(none, np.ones((1, 1, 1, 1))),
        lambda: fastconv.conv_transpose2d(none, np.ones((0, 1, 1, 1))),
        lambda: fastconv.max_pool2d(none, 2),
        lambda: fastconv.avg_pool2d(none, 2),
        lambda: fastconv.avg_pool2d_grad(none, (0, 4, 4), 2),
        lambda: fastconv.adaptive_max_pool2d(empty, 2),
        lambda: fastconv.adaptive_avg_pool2d(empty, 2),
        lambda: fastconv.adaptive_avg_pool2d_grad(empty, (1, 4, 4)),
        lambda: fastconv.max_unpool2d(empty, np.zeros((1, 0, 4), int), 2),
        lambda: fastconv.max_pool2d_grad(ones, np.full((1, 2, 2), 9), (1, 2, 2)),
        lambda: fastconv.max_unpool2d(ones, np.full((1, 2, 2), 99), 2),
        lambda: fastconv.avg_pool2d_grad(ones, (1, 2**30, 2**30), 2),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"got|too large") as caught:
            call()
        assert "(1, 0, 4, 4)" not in str(caught.value)
        assert "(1, 1, " not in str(caught.value)
    with pytest.raises(ValueError, match=r"4 entries, \(N, C, H, W\), or 3 for one image"):
        fastconv.avg_pool2d_grad(ones, (2, 2), 2)


def test_images_without_channels() -> None:
    # As in PyTorch: adaptive pooling and unpooling take one such image, and no batch of them.
    none = np.zeros((0, 4, 4))
    values, indices = fastconv.adaptive_max_pool2d(none, 2, True)
    assert values.shape == indices.shape == fastconv.adaptive_avg_pool2d(none, 2).shape == (0, 2, 2)
    assert fastconv.max_unpool2d(values, indices, 2).shape == (0, 4, 4)
    for pool in (fastconv.max_pool2d, fastconv.avg_pool2d):
        with refused("x", 0):
            pool(none, 2)
    for pool in (fastconv.max_pool2d, fastconv.avg_pool2d, fastconv.adaptive_max_pool2d):
        with refused("x", 0):
            pool(none[np.newaxis], 2)


def test_any_momentum_of_batch_norm() -> None:
    layer = nn.BatchNorm2d(3, momentum=-0.5)
    layer(X)
    np.testing.assert_allclose(layer.running_mean, -0.5 * X.mean((0, 2, 3)), rtol=1e-5)
    for wrong in (np.inf, np.nan):
        with pytest.raises(ValueError, match="momentum must be finite"):
            nn.BatchNorm2d(3, momentum=wrong)
