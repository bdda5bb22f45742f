"""Maxima put back to their places, and the layers for it."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import reference_pooling
from cases import POOL_CASES, PoolCase, make_integer_pool_inputs
from checks import assert_identical, refused
from numpy.typing import DTypeLike
from pooling_answers import MAKERS, maxima
from reference import Array

import fastconv
from fastconv import nn

TYPES = [np.float16, np.float32, np.float64, np.int8, np.uint16, np.int32, np.uint64, np.bool_]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", POOL_CASES, ids=lambda case: case.name)
def test_values_and_gradients(case: PoolCase, dtype: DTypeLike) -> None:
    for make in MAKERS:
        _, _, values, indices = maxima(make, case, np.float32)
        values = values.astype(dtype)
        size: Any = case.input_shape[2:]
        # Any numbers with which the size is right will do.
        padding: Any = tuple((n - 1, 0) for n in values.shape[2:])
        planes = fastconv.max_unpool2d(values, indices, size, 1, padding)
        # Of several values with one index the last stays.
        expected = reference_pooling.max_unpool2d(values, indices, size)
        assert_identical(planes, expected, dtype)
        back = fastconv.max_unpool2d_grad(planes, indices)
        assert_identical(back, reference_pooling.max_unpool2d_grad(planes, indices), dtype)


def test_it_undoes_pooling() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 3, 12, 10)).astype(np.float32)
    for rule in ((2,), (3, 3), ((2, 3), (3, 4)), (3, 3, 1), (4, 2, ((2, 1), (1, 2)))):
        values, indices = fastconv.max_pool2d(x, *rule, return_indices=True)  # type: ignore[misc]
        planes = fastconv.max_unpool2d(values, indices, *rule, output_size=x.shape)
        assert planes.shape == x.shape
        np.testing.assert_array_equal(planes[planes != 0], x[planes != 0])
        again = fastconv.max_pool2d(planes, *rule)  # type: ignore[misc]
        np.testing.assert_array_equal(np.maximum(again, 0), np.maximum(values, 0))


def test_bits_are_copied() -> None:
    x = np.array([[[[-0.0, np.inf], [np.nan, -np.inf]]]])
    x.view(np.uint64)[0, 0, 1, 0] ^= 5  # another NaN
    planes = fastconv.max_unpool2d(x, np.array([[[[3, 1], [2, 0]]]]), 1)
    expected = x.ravel()[[3, 1, 2, 0]].reshape(x.shape)
    np.testing.assert_array_equal(planes.view(np.uint64), expected.view(np.uint64))


@pytest.mark.parametrize("bad", [-1, -(2**40), 12, 13, 2**31, 2**32, 2**62])
def test_indices_outside_the_plane(bad: int) -> None:
    for place in ((0, 0, 0, 0), (1, 2, 1, 1)):
        indices = np.zeros((2, 3, 2, 2), np.int64)
        indices[place] = bad
        with refused("indices", bad):
            fastconv.max_unpool2d(np.ones(indices.shape), indices, 2, output_size=(3, 4), stride=2)
        with refused("indices", bad):
            fastconv.max_unpool2d_grad(np.ones((2, 3, 3, 4)), indices)


def test_output_sizes() -> None:
    x, indices = np.ones((2, 3, 2, 3)), np.zeros((2, 3, 2, 3), int)

    def shape(*rule: Any, output_size: Any = None) -> tuple[int, ...]:
        return fastconv.max_unpool2d(x, indices, *rule, output_size=output_size).shape[2:]

    assert shape(2) == (4, 6)
    assert shape((2,), (), (0,)) == (4, 6)
    assert shape((3, 2), (2, 5), (1, 0)) == (3, 12)
    assert shape(3, 2, ((1, 0), (0, 2))) == (4, 5)
    for size in ((5, 6), [2, 3, 5, 6], np.array([5, 6])):
        assert shape(2, output_size=size) == (5, 6)
    for size, wrong in (((6, 6), 6), ((2, 6), 2), ((4, 8), 8), ((4, -1), -1)):
        with refused("output_size", wrong):
            shape(2, output_size=size)
    for size in ((5,), (3, 5, 6), (1, 2, 3, 4, 5), 5, "44", (4.0, 6)):
        with pytest.raises((TypeError, ValueError), match="output_size"):
            shape(2, output_size=size)
    with pytest.raises(ValueError, match=r"padding leaves planes of \(0, 2\)"):
        shape(2, 2, 2)
    with pytest.raises(TypeError, match=r"padding must be in numbers here.*'same'"):
        shape(2, 2, "same")
    with pytest.raises(ValueError, match=r"output_size .* too large"):
        shape(1, 2**31 - 1)


def test_empty_batches() -> None:
    nothing, none = np.zeros((0, 3, 2, 2)), np.zeros((0, 3, 2, 2), int)
    assert fastconv.max_unpool2d(nothing, none, 2).shape == (0, 3, 4, 4)
    assert fastconv.max_unpool2d_grad(np.zeros((0, 3, 4, 4)), none).shape == (0, 3, 2, 2)
    for shape in ((2, 0, 2, 2), (2, 3, 0, 2), (2, 3, 2, 0)):
        with refused("x", shape):
            fastconv.max_unpool2d(np.zeros(shape), np.zeros(shape, int), 2)


# Layers -------------------------------------------------------------------------------------------


class Pooled(nn.Module):
    """A maximum pooling and what undoes it, as in a network that marks the parts of an image."""

    def __init__(self) -> None:
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x: Any) -> Array:
        """Return the maxima where they were."""
        values, indices = self.pool(x)
        return self.unpool(values, indices, np.shape(x))

    def backward(self, grad: Array) -> Array:
        """Return the gradient where the maxima were."""
        return self.pool.backward(self.unpool.backward(grad))


def test_layers_of_a_network() -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 3, 6, 7)).astype(np.float32)
    model = nn.Sequential(nn.ReLU(), Pooled(), nn.ReLU())
    y = model(x)
    _, indices = fastconv.max_pool2d(np.maximum(x, 0), 2, return_indices=True)
    _, kept = fastconv.max_pool2d(x, 2, return_indices=True)
    expected = np.zeros(x.shape, np.float32)
    np.put_along_axis(expected.reshape(2, 3, -1), kept.reshape(2, 3, -1), 1, axis=2)
    np.testing.assert_array_equal(y, np.maximum(expected * x, 0))
    grad = rng.standard_normal(y.shape).astype(np.float32)
    np.testing.assert_array_equal(model.backward(grad), np.where(y > 0, grad, 0))
    assert pickle.loads(pickle.dumps(model)).eval()(x).tobytes() == model.eval()(x).tobytes()
    rows = model.summary(x.shape).rows
    assert [(row.kind, row.output_shape) for row in rows] == [
        ("ReLU", x.shape),
        ("MaxPool2d", (2, 3, 3, 3)),
        ("MaxUnpool2d", x.shape),
        ("ReLU", x.shape),
    ]
    assert indices.shape == (2, 3, 3, 3)
    nn.fit(
        nn.Sequential(model, nn.Flatten(), nn.Linear(126, 2, rng=0)),
        *(x, np.array([0, 1])),
        epochs=1,
        progress="silent",
    )


@pytest.mark.parametrize("around", [nn.Sequential, lambda *layers: layers])
def test_places_are_those_of_the_input(around: Any) -> None:
    # A ReLU before it makes ties, of which the first index counts: it must not come after.
    x = np.array([[[[-3.0, -2.0], [-1.0, -4.0]]]], np.float32)
    layers = around(nn.ReLU(), nn.MaxPool2d(2, return_indices=True))
    for mode in (True, False):
        y: Any = x
        for layer in layers if isinstance(layers, tuple) else (layers.train(mode),):
            y = layer.train(mode)(y)
        values, indices = y
        assert_identical(values, np.zeros((1, 1, 1, 1)), np.float32)
        assert_identical(indices, np.zeros((1, 1, 1, 1), int), np.int64)


def test_convolutions_do_not_take_in_a_pooling_with_indices() -> None:
    conv = nn.Conv2d(1, 2, 3, padding=1, rng=0)
    model = nn.Sequential(conv, nn.MaxPool2d(2, return_indices=True)).eval()
    x = np.random.default_rng(6).standard_normal((1, 1, 6, 6)).astype(np.float32)
    values, indices = model(x)
    expected = fastconv.max_pool2d(conv.eval()(x), 2, return_indices=True)
    np.testing.assert_array_equal(values, expected[0])
    np.testing.assert_array_equal(indices, expected[1])


def test_what_only_picks_takes_integers() -> None:
    x = np.random.default_rng(7).integers(-9, 9, (2, 3, 6, 8)).astype(np.int8)
    pool, adaptive = nn.MaxPool2d(2, return_indices=True), nn.AdaptiveMaxPool2d(3)
    values, indices = pool(x)
    assert_identical(values, fastconv.max_pool2d(x, 2), np.int8)
    assert_identical(nn.MaxPool2d(2)(x), values, np.int8)
    assert_identical(adaptive(x), fastconv.adaptive_max_pool2d(x, 3), np.int8)
    unpool = nn.MaxUnpool2d(2)
    planes = unpool(values, indices)
    assert_identical(planes, fastconv.max_unpool2d(values, indices, 2), np.int8)
    for layer, grad in ((pool, values), (adaptive, adaptive(x)), (unpool, planes)):
        with pytest.raises(TypeError, match=f"{type(layer).__name__} has no gradient .* int8"):
            layer.backward(grad)
    with pytest.raises(TypeError, match="x must be float32 or float64 for this MaxPool2d"):
        nn.MaxPool2d(2)(x.astype(np.float16))


def test_repr() -> None:
    assert repr(nn.MaxUnpool2d((2, 3), padding=(1, 0))) == (
        "MaxUnpool2d(kernel_size=(2, 3), stride=(2, 3), padding=(1, 0))"
    )
    assert repr(nn.AdaptiveMaxPool2d((2, None))) == "AdaptiveMaxPool2d(output_size=(2, None))"


def test_integer_cases_have_several_values_with_one_index() -> None:
    # Else the last of them would not be read above.
    repeated = 0
    for case in POOL_CASES:
        indices = maxima(make_integer_pool_inputs, case, np.float32)[3]
        for plane in indices.reshape(-1, *indices.shape[2:]):
            repeated += len(np.unique(plane)) < plane.size
    assert repeated > 10
