"""One image without the batch axis: what a batch of one gives, and no axis in the result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import POOL_CASES, PoolCase, make_pool_inputs
from checks import assert_identical
from numpy.typing import DTypeLike
from pooling_answers import average_rule, max_rule

import fastconv
from fastconv import nn

# The first image of each case; a batch of none has none.
EVERY = pytest.mark.parametrize(
    "case", [case for case in POOL_CASES if case.input_shape[0]], ids=lambda case: case.name
)
ALGORITHMS = ("auto", *fastconv.pool_algorithms())


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@EVERY
def test_functions(case: PoolCase, dtype: DTypeLike) -> None:
    x, grad = (array[:1] for array in make_pool_inputs(case, dtype))
    for algorithm in ALGORITHMS:
        options: dict[str, Any] = {"algorithm": algorithm}
        rule = max_rule(case)
        values, indices = fastconv.max_pool2d(x, *rule, return_indices=True, **options)
        one, where = fastconv.max_pool2d(x[0], *rule, return_indices=True, **options)
        assert_identical(one, values[0], dtype)
        assert_identical(where, indices[0], np.int64)
        assert_identical(fastconv.max_pool2d(x[0], *rule, **options), values[0], dtype)
        back = fastconv.max_pool2d_grad(grad, indices, x.shape, **options)
        one = fastconv.max_pool2d_grad(grad[0], where, x.shape[1:], **options)
        assert_identical(one, back[0], dtype)
        mean_rule = average_rule(case, count_include_pad=True)
        means = fastconv.avg_pool2d(x, **mean_rule, **options)
        assert_identical(fastconv.avg_pool2d(x[0], **mean_rule, **options), means[0], dtype)
        back = fastconv.avg_pool2d_grad(grad, x.shape, **mean_rule, **options)
        one = fastconv.avg_pool2d_grad(grad[0], x.shape[1:], **mean_rule, **options)
        assert_identical(one, back[0], dtype)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_adaptive_functions(algorithm: str) -> None:
    rng = np.random.default_rng(1)
    x, grad = rng.standard_normal((1, 3, 7, 8)), rng.standard_normal((1, 3, 2, 3))
    means = fastconv.adaptive_avg_pool2d(x, (2, 3), algorithm=algorithm)
    one = fastconv.adaptive_avg_pool2d(x[0], (2, 3), algorithm=algorithm)
    assert_identical(one, means[0], np.float64)
    back = fastconv.adaptive_avg_pool2d_grad(grad, x.shape, algorithm=algorithm)
    one = fastconv.adaptive_avg_pool2d_grad(grad[0], x.shape[1:], algorithm=algorithm)
    assert_identical(one, back[0], np.float64)
    values, indices = fastconv.adaptive_max_pool2d(x, (2, 3), True, algorithm=algorithm)
    one, where = fastconv.adaptive_max_pool2d(x[0], (2, 3), True, algorithm=algorithm)
    assert_identical(one, values[0], np.float64)
    assert_identical(where, indices[0], np.int64)


def test_unpooling() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 3, 6, 8))
    values, indices = fastconv.max_pool2d(x, 2, return_indices=True)
    planes = fastconv.max_unpool2d(values, indices, 2)
    assert_identical(fastconv.max_unpool2d(values[0], indices[0], 2), planes[0], np.float64)
    back = fastconv.max_unpool2d_grad(x, indices)
    assert_identical(fastconv.max_unpool2d_grad(x[0], indices[0]), back[0], np.float64)


LAYERS: dict[str, Any] = {
    "maximum": lambda: nn.MaxPool2d(3, 2, 1),
    "maximum of large windows": lambda: nn.MaxPool2d(6, 2, 3, ceil_mode=True),
    "mean": lambda: nn.AvgPool2d(2),
    "dilated mean": lambda: nn.AvgPool2d(2, dilation=3, divisor_override=3),
    "adaptive mean": lambda: nn.AdaptiveAvgPool2d((2, None)),
    "adaptive maximum": lambda: nn.AdaptiveMaxPool2d((None, 3)),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, training: bool) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, 3, 9, 10)).astype(np.float32)
    layer = LAYERS[name]().train(training)
    y = layer(x)
    assert_identical(layer(x[0]), y[0], np.float32)
    if training:
        grad = rng.standard_normal(y.shape).astype(np.float32)
        layer(x[0])
        one = layer.backward(grad[0])
        layer(x)
        assert_identical(one, layer.backward(grad)[0], np.float32)


def test_layers_with_indices() -> None:
    x = np.random.default_rng(4).standard_normal((1, 3, 6, 8)).astype(np.float32)
    for pooling in (nn.MaxPool2d(2, return_indices=True), nn.AdaptiveMaxPool2d((3, 4), True)):
        values, indices = pooling(x)
        one, where = pooling(x[0])
        assert_identical(one, values[0], np.float32)
        assert_identical(where, indices[0], np.int64)
        unpooling = nn.MaxUnpool2d(2)
        planes = unpooling(values, indices)
        back = unpooling.backward(x)
        assert_identical(unpooling(one, where), planes[0], np.float32)
        assert_identical(unpooling.backward(x[0]), back[0], np.float32)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("max_pool2d_grad", (np.ones((1, 2, 2, 2)), np.zeros((1, 2, 2, 2), int), (1, 2, 4, 4))),
        ("avg_pool2d_grad", (np.ones((1, 2, 2, 2)), (1, 2, 4, 4), 2)),
        ("adaptive_avg_pool2d_grad", (np.ones((1, 2, 2, 2)), (1, 2, 4, 4))),
        ("max_unpool2d", (np.ones((1, 2, 2, 2)), np.zeros((1, 2, 2, 2), int), 2)),
        ("max_unpool2d_grad", (np.ones((1, 2, 4, 4)), np.zeros((1, 2, 2, 2), int))),
    ],
)
def test_all_have_the_axis_or_none(function: str, arguments: tuple[Any, ...]) -> None:
    getattr(fastconv, function)(*arguments)
    for i, argument in enumerate(arguments):
        if isinstance(argument, int):
            continue
        mixed = list(arguments)
        mixed[i] = argument[1:] if isinstance(argument, tuple) else argument[0]
        with pytest.raises(ValueError, match="all or none of these must have a batch axis"):
            getattr(fastconv, function)(*mixed)


def test_batch_norm_wants_a_batch() -> None:
    with pytest.raises(ValueError, match=r"x must have 4 dimensions, got shape \(3, 4, 4\)"):
        nn.BatchNorm2d(3)(np.ones((3, 4, 4), np.float32))


def test_wrong_shapes_are_shown_without_an_axis() -> None:
    with pytest.raises(ValueError, match=r"grad_output must have shape \(2, 2, 2\).*\(2, 3, 2\)"):
        fastconv.avg_pool2d_grad(np.ones((2, 3, 2)), (2, 4, 4), 2)
    with pytest.raises(ValueError, match=r"indices must have shape \(2, 2, 2\).*\(2, 2, 3\)"):
        fastconv.max_unpool2d(np.ones((2, 2, 2)), np.zeros((2, 2, 3), int), 2)
