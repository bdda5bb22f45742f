"""Every layer's gradients against finite differences, and what layers do that PyTorch has not."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from nn_cases import CASES, Case, build, name_of, scramble, small_net
from reference import Array

import fastconv
from fastconv import nn


def check_gradients(model: nn.Module, x: Array, rng: np.random.Generator) -> None:
    """Compare derivatives along random directions with central differences, to 1e-6.

    The step is 1e-6: its error is about 1e-12 of the third derivative, and rounding adds about
    1e-16 / 1e-6 of the sum of the outputs.
    """
    generators = [m for m in model.modules() if isinstance(m, nn.Dropout)]

    def loss(x: Array) -> float:
        for layer in generators:
            layer.rng = np.random.default_rng(5)
        return float(np.sum(model(x) * weights))

    weights = rng.standard_normal(model(x).shape)
    loss(x)
    model.zero_grad()
    x_grad = model.backward(weights)
    assert x_grad is not None
    assert x_grad.dtype == x.dtype
    for _ in range(3):
        along = rng.standard_normal(x.shape)
        change = (loss(x + 1e-6 * along) - loss(x - 1e-6 * along)) / 2e-6
        assert change == pytest.approx(np.sum(along * x_grad), rel=1e-6, abs=1e-6)
        for name, p in model.named_parameters():
            start, along = p.value.copy(), rng.standard_normal(p.shape)
            p.data[...] = start + 1e-6 * along
            above = loss(x)
            p.data[...] = start - 1e-6 * along
            below = loss(x)
            p.data[...] = start
            assert p.grad is not None
            wanted = pytest.approx(np.sum(along * p.grad), rel=1e-6, abs=1e-6)
            assert (above - below) / 2e-6 == wanted, name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_gradients(case: Case, training: bool) -> None:
    rng = np.random.default_rng(1)
    layer = build(case).astype("float64")
    scramble(layer, rng)
    if not training:
        layer.eval(keep=True)
    check_gradients(layer, rng.standard_normal(case[3]), rng)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_a_network(training: bool) -> None:
    rng = np.random.default_rng(2)
    model = small_net().astype("float64")
    scramble(model, rng)
    if not training:
        model.eval(keep=True)
    check_gradients(model, rng.standard_normal((3, 3, 12, 10)), rng)


@pytest.mark.parametrize("p", [0.3, 1.0])
def test_dropout(p: float) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 50))
    layer = nn.Dropout(p, rng=7)
    y = layer(x)
    kept = y != 0
    assert abs(kept.mean() - (1 - p)) < 0.05
    np.testing.assert_allclose(y[kept], x[kept] / (1 - p) if p < 1 else [])
    np.testing.assert_array_equal(layer.backward(x), y)
    np.testing.assert_array_equal(nn.Dropout(p, rng=7)(x), y)
    np.testing.assert_array_equal(layer.eval()(x), x)
    check_gradients(nn.Dropout(p), x, rng)


@pytest.mark.parametrize("shape", [(40, 50, 2, 3), (60, 4, 5)])
def test_dropout_of_channels(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(3).standard_normal(shape)
    layer = nn.Dropout2d(0.3, rng=7)
    y = layer(x)
    kept = (y != 0).all((-1, -2))
    np.testing.assert_array_equal(kept, (y != 0).any((-1, -2)))
    assert abs(kept.mean() - 0.7) < 0.15
    np.testing.assert_allclose(y[kept], x[kept] / 0.7)
    np.testing.assert_array_equal(layer.backward(x), y)
    np.testing.assert_array_equal(layer.eval()(x), x)


#: Limits at minus infinity, 0 and infinity, and derivatives there.
LIMITS: list[tuple[nn.Module, list[float], list[float]]] = [
    (nn.Sigmoid(), [0, 0.5, 1], [0, 0.25, 0]),
    (nn.Tanh(), [-1, 0, 1], [0, 1, 0]),
    (nn.GELU(), [np.nan, 0, np.inf], [np.nan, 0.5, 1]),
    (nn.ELU(), [-1, 0, np.inf], [0, 1, 1]),
    (nn.ReLU6(), [0, 0, 6], [0, 0, 0]),
    (nn.Hardtanh(), [-1, 0, 1], [0, 1, 0]),
    (nn.Hardsigmoid(), [0, 0.5, 1], [0, 1 / 6, 0]),
    (nn.Hardswish(), [np.nan, 0, np.inf], [0, 0.5, 1]),
    (nn.PReLU(), [-np.inf, 0, np.inf], [0.25, 0.25, 1]),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("layer", "values", "slopes"), LIMITS, ids=repr)
def test_limits_of_activations(
    layer: nn.Module, values: list[float], slopes: list[float], dtype: str
) -> None:
    x = np.array([-np.inf, 0, np.inf, np.nan], dtype)
    layer.astype(dtype)
    with np.errstate(all="raise"):
        y, back = layer(x), layer.backward(np.ones_like(x))
        large = layer(np.array([-1e30, 1e30], dtype))
    np.testing.assert_array_equal(y, np.array([*values, np.nan], dtype))
    if not isinstance(layer, nn.GELU):  # whose derivative is 0 there, as infinity times 0
        np.testing.assert_array_equal(back[:3], np.array(slopes, dtype))
    if not isinstance(layer, nn.GELU | nn.Hardswish | nn.PReLU):
        np.testing.assert_allclose(large, [values[0], min(values[2], 1e30)], rtol=1e-6)


def test_gelu_keeps_the_digits_of_small_values() -> None:
    x = np.array([-0.5, -3, -8, -30])
    wanted = [value * math.erfc(-value / math.sqrt(2)) / 2 for value in x]
    np.testing.assert_allclose(nn.GELU()(x), wanted, rtol=1e-12)
    np.testing.assert_allclose(nn.GELU()(x[:3].astype(np.float32)), wanted[:3], rtol=1e-5)


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 4), nn.LayerNorm((4, 30, 30))], ids=repr)
def test_group_norm_keeps_its_digits_far_from_zero(layer: nn.Module) -> None:
    apart = np.random.default_rng(8).standard_normal((3, 4, 30, 30)).astype(np.float32)
    x = apart + np.float32(1e4)
    wide = (x - np.float32(1e4)).astype(float)  # exactly so
    exact = copy.deepcopy(layer).astype("float64")(wide)
    np.testing.assert_allclose(layer(x), exact, rtol=0, atol=2e-6)


def test_nobody_changes_the_inputs() -> None:
    rng = np.random.default_rng(4)
    for each in CASES:
        layer, x = build(each), rng.standard_normal(each[3]).astype(np.float32)
        x.flags.writeable = False
        y = layer(x)
        grad = rng.standard_normal(y.shape).astype(np.float32)
        grad.flags.writeable = False
        back = layer.backward(grad)
        assert y.dtype == back.dtype == np.float32, each
    model = nn.Residual(nn.Sequential())
    x = np.ones((1, 2), np.float32)
    x.flags.writeable = False
    model(x)
    np.testing.assert_array_equal(model.backward(x), 2 * x)


def test_gradients_add_up_until_they_are_dropped() -> None:
    layer, x = nn.Conv2d(2, 3, 3, rng=0), np.ones((1, 2, 4, 4), np.float32)
    for _ in range(2):
        layer.backward(np.ones_like(layer(x)))
    np.testing.assert_allclose(layer.bias.grad, 8)
    layer.zero_grad()
    assert layer.bias.grad is None


def test_the_first_layer_need_not_give_the_gradient_of_images() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, rng=0), nn.Flatten(), nn.Linear(8, 1, rng=1))
    x = np.ones((1, 1, 4, 4), np.float32)
    model[0].input_grad = False
    model(x)
    assert model.backward(np.ones((1, 1), np.float32)) is None
    assert model[0].weight.grad is not None
    model[2].input_grad = False
    model(x)
    with pytest.raises(RuntimeError, match="first layer only"):
        model.backward(np.ones((1, 1), np.float32))


class Halving(nn.Sequential):
    """Its own way back, which needs the gradient of its input."""

    def backward(self, grad: Array) -> Array:
        """Return half of what the layers say."""
        return super().backward(grad) / 2


class HalvingConv2d(nn.Conv2d):
    """The same in a single layer."""

    def backward(self, grad: Array) -> Array:
        """Return half of what the layer says."""
        return super().backward(grad) / 2


@pytest.mark.parametrize("whole", [nn.Sequential, Halving])
@pytest.mark.parametrize("first", [nn.Conv2d, HalvingConv2d])
@pytest.mark.parametrize("around", [nn.Sequential, Halving])
def test_first_layers_with_a_way_back_of_their_own_can_be_fitted(
    whole: type[nn.Sequential], around: type[nn.Sequential], first: type[nn.Conv2d]
) -> None:
    seen = []

    def note(run: nn.Run) -> None:
        seen.append(inner.input_grad)

    inner = first(1, 2, 3, rng=0)
    model = whole(around(inner), nn.Flatten(), nn.Linear(8, 2, rng=1))
    before = inner.weight.value.copy()
    x, y = np.random.default_rng(0).random((8, 1, 4, 4), np.float32), np.arange(8) % 2
    nn.fit(model, x, y, epochs=1, callbacks=[note], progress="silent")
    assert np.any(inner.weight.value != before)
    # It is spared where nobody asks for it, and asked for again afterwards.
    plain = (whole, around, first) == (nn.Sequential, nn.Sequential, nn.Conv2d)
    assert seen == [not plain]
    assert inner.input_grad


def test_strided_inputs_and_gradients() -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 5, 6, 3)).astype(np.float32).transpose(0, 3, 1, 2)
    for layer in (nn.Conv2d(3, 3, 3, padding=1, rng=0), nn.BatchNorm2d(3), nn.ReLU()):
        y = layer(x)
        back = layer.backward(x)
        np.testing.assert_array_equal(y, layer(np.ascontiguousarray(x)))
        np.testing.assert_array_equal(back, layer.backward(np.ascontiguousarray(x)))


def test_the_same_bits_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((8, 3, 60, 60)).astype(np.float32)

    def train() -> dict[str, Array]:
        model = small_net(0)
        optimizer = nn.Adam(model.parameters())
        for _ in range(2):
            y = model(x)
            model.zero_grad()
            model.backward(y)
            optimizer.step()
        return model.state_dict()

    before, results = fastconv.get_num_threads(), []
    for threads in (1, 2, 3):
        fastconv.set_num_threads(threads)
        try:
            results.append(train())
        finally:
            fastconv.set_num_threads(before)
    for name, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][name])
        np.testing.assert_array_equal(value, results[2][name])


def test_batch_norm_keeps_its_digits_far_from_zero() -> None:
    rng = np.random.default_rng(8)
    x = (1000 + rng.standard_normal((8, 2, 30, 30))).astype(np.float32)
    wide = x.astype(float)
    wanted = (wide - wide.mean((0, 2, 3), keepdims=True)) / wide.std((0, 2, 3), keepdims=True)
    # What the mean loses in float32, 3e-5 here, is not lost.
    np.testing.assert_allclose(nn.BatchNorm2d(2, eps=0)(x), wanted, atol=2e-6)


def test_batch_norm_of_large_planes_far_from_zero() -> None:
    rng = np.random.default_rng(8)
    apart = rng.standard_normal((2, 2, 90, 91)).astype(np.float32)
    x, grad = apart + np.float32(1e4), rng.standard_normal(apart.shape).astype(np.float32)
    near = (x - np.float32(1e4)).astype(float)  # exactly so
    layer, exact = nn.BatchNorm2d(2), nn.BatchNorm2d(2).astype(float)
    np.testing.assert_allclose(layer(x), exact(near), rtol=0, atol=2e-6)
    np.testing.assert_allclose(layer.backward(grad), exact.backward(grad), rtol=0, atol=2e-6)
    for one, other in zip(layer.parameters(), exact.parameters(), strict=True):
        np.testing.assert_allclose(one.grad, other.grad, rtol=0, atol=1e-3)
    np.testing.assert_allclose(layer.running_var, exact.running_var, rtol=1e-6)


def test_parameters_of_another_shape_are_refused() -> None:
    x, few = np.ones((2, 4, 3, 3), np.float32), np.ones(2, np.float32)
    for name in ("weight", "bias", "running_mean", "running_var"):
        layer = nn.BatchNorm2d(4).eval()
        setattr(layer, name, few if "running" in name else nn.Parameter(few))
        with pytest.raises(ValueError, match=rf"{name} must have shape \(4,\).*got \(2,\)"):
            layer(x)
    layer = nn.BatchNorm2d(4)
    y = layer(x)
    layer.weight = nn.Parameter(few)
    with pytest.raises(ValueError, match="weight must have shape"):
        layer.backward(y)
    norm = nn.GroupNorm(2, 4)
    norm.bias = nn.Parameter(few)
    with pytest.raises(ValueError, match=r"bias must have shape \(4,\) in this GroupNorm"):
        norm(x)
    dense = nn.Linear(6, 5)
    for shape in ((3, 6), (5, 4)):
        dense.weight = nn.Parameter(np.ones(shape, np.float32))
        with pytest.raises(ValueError, match=r"weight must have shape \(5, 6\) in this Linear"):
            dense(np.ones((2, 6), np.float32))


def test_empty_batches() -> None:
    for each in CASES:
        if len(each[3]) == 4:
            layer, shape = build(each).eval(keep=True), (0, *each[3][1:])
            y = layer(np.zeros(shape, np.float32))
            assert y.shape[0] == 0
            assert layer.backward(y).shape == shape
            assert not any(np.any(p.grad) for p in layer.parameters())


def test_samples_without_weight_cost_nothing() -> None:
    loss = nn.CrossEntropyLoss([0.0, 1.0])
    assert loss(np.zeros((2, 2), np.float32), np.array([0, 0])) == 0
    assert not loss.backward().any()


def test_copies_and_pickles() -> None:
    rng = np.random.default_rng(9)
    x = rng.standard_normal((2, 3, 12, 12)).astype(np.float32)
    model = small_net()
    model(x)
    model.eval()
    y = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other(x), y)
        other[0].weight.data[...] = 0
        assert np.any(other(x) != y)
        np.testing.assert_array_equal(model(x), y)
        other.train()(x)
        other.backward(np.zeros_like(y))


@pytest.mark.parametrize(
    "layers",
    [
        [nn.ReLU()],
        [nn.Softmax()],
        [nn.LayerNorm(5, elementwise_affine=False)],
        [nn.Conv2d(3, 3, 1, rng=0), nn.ReLU()],
        [nn.BatchNorm2d(3), nn.ReLU()],
        [nn.ReLU(), nn.Flatten()],
        [nn.ReLU(), nn.MaxPool2d(2)],
        [nn.ReLU(), nn.MaxPool2d((4, 1), dilation=(1, 2))],
    ],
    ids=repr,
)
def test_an_output_that_backward_needs_cannot_be_changed(layers: list[nn.Module]) -> None:
    model = nn.Sequential(*layers)
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5), np.float32)
    y = model(x)
    kept = y.copy()
    with pytest.raises(ValueError, match="read-only"):
        y += 1
    back = model.backward(np.ones_like(y))
    model(x)
    np.testing.assert_array_equal(model.backward(np.ones_like(kept)), back)
    assert x.flags.writeable
    model.eval()(x)[...] = 0  # nothing needs it
