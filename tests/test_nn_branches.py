"""Compositions: `Concat`, and names of layers in it and in `Sequential`."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from nn_cases import assert_fused_right, images, scrambled
from reference import Array
from test_nn_layers import check_gradients

from fastconv import nn


def inception() -> nn.Concat:
    return nn.Concat(
        nn.Sequential(nn.Conv2d(3, 2, 1, rng=0), nn.BatchNorm2d(2), nn.ReLU()),
        nn.Conv2d(3, 4, 3, padding=1, rng=1),
        nn.Identity(),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(3, 1, 1, rng=2)),
    )


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_branches(training: bool) -> None:
    model = scrambled(inception(), np.float64)
    if not training:
        model.eval(keep=True)
    rng = np.random.default_rng(0)
    check_gradients(model, rng.standard_normal((2, 3, 5, 6)), rng)


def test_branches_are_joined_in_their_order() -> None:
    model, x = scrambled(inception()), images()
    y = model.eval(keep=True)(x)
    assert y.shape == (2, 10, *x.shape[2:])
    np.testing.assert_array_equal(y[:, 6:9], x)
    np.testing.assert_array_equal(y[:, 2:6], model[1](x))
    assert_fused_right(model, x)
    assert_fused_right(scrambled(nn.Sequential(inception(), nn.ReLU6(), nn.Conv2d(10, 2, 1))), x)


def test_other_axes_and_single_images() -> None:
    x = images()
    y = nn.Concat(nn.Identity(), nn.ReLU(), axis=-1)(x)
    np.testing.assert_array_equal(y, np.concatenate([x, np.maximum(x, 0)], 3))
    model = nn.Concat(nn.Conv2d(3, 2, 3, padding=1, rng=0), nn.Identity(), axis=-3)
    assert model(x[0]).shape == (5, *x.shape[2:])
    assert model.backward(np.ones_like(model(x[0]))).shape == x[0].shape


def test_a_branch_without_gradient_of_images() -> None:
    model = nn.Concat(nn.Identity(), nn.Conv2d(3, 2, 1, rng=0))
    model[1].input_grad = False
    assert model.backward(np.ones_like(model(images()))) is None
    assert model[1].weight.grad is not None


def test_branches_that_do_not_fit() -> None:
    message = r"axis=1 only, got shapes \(2, 3, 12, 10\), \(2, 3, 6, 5\)"
    with pytest.raises(ValueError, match=message):
        nn.Concat(nn.Identity(), nn.MaxPool2d(2))(images())
    with pytest.raises(ValueError, match=r"axis=5 only, got shapes"):
        nn.Concat(nn.Identity(), axis=5)(images())
    with pytest.raises(ValueError, match="at least one Module"):
        nn.Concat()
    with pytest.raises(TypeError, match=r"layer '0' must be a Module.*did you mean Identity\(\)"):
        nn.Concat(nn.Identity)
    one = nn.ReLU()
    with pytest.raises(ValueError, match="got one ReLU as '0' and as '1'"):
        nn.Concat(one, one)


# Names -----------------------------------------------------------------------------------


def named() -> nn.Sequential:
    inner = nn.Sequential({"conv": nn.Conv2d(3, 4, 1, rng=0), "": nn.Residual(nn.BatchNorm2d(4))})
    return nn.Sequential({"stem": inner, "": nn.Sequential({"head": nn.Conv2d(4, 2, 1, rng=1)})})


def test_the_empty_name_adds_nothing() -> None:
    names = [name for name, _ in named().named_parameters()]
    assert names == [
        *("stem.conv.weight", "stem.conv.bias", "stem.body.weight", "stem.body.bias"),
        *("head.weight", "head.bias"),
    ]
    assert "  Sequential(\n    (head): Conv2d" in repr(named())


@pytest.mark.parametrize("change", ["attribute", "name", "number"])
def test_layers_are_replaced(change: str) -> None:
    model, x = nn.Sequential({"conv": nn.Conv2d(3, 4, 1, rng=0), "act": nn.ReLU()}), images()
    before = model.eval()(x)
    new = nn.Sequential(model.conv, nn.Sigmoid()).eval()
    if change == "attribute":
        model.conv = new
    else:
        model["conv" if change == "name" else 0] = new
    assert model.conv is model["conv"] is model[0] is new
    assert list(model.state_dict()) == ["conv.0.weight", "conv.0.bias"]
    wanted = 1 / (1 + np.exp(-new[0](x)))
    np.testing.assert_allclose(model(x), wanted, rtol=1e-5)
    assert np.any(model(x) != before)
    assert "conv" in dir(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other(x), model(x))


def test_layers_that_are_not_replaced() -> None:
    model = nn.Sequential({"conv": nn.Conv2d(3, 4, 1), "act": nn.ReLU()})
    with pytest.raises(TypeError, match="layer 'act' must be a Module, got None"):
        model.act = None
    with pytest.raises(ValueError, match="layers must be distinct objects"):
        model.act = model.conv
    with pytest.raises(ValueError, match="layers must be distinct objects"):
        model.act = model
    with pytest.raises(KeyError, match="no layer 'last' to replace, only 'conv', 'act'"):
        model["last"] = nn.ReLU()
    with pytest.raises(IndexError):
        model[2] = nn.ReLU()
    with pytest.raises(AttributeError, match="'Sequential' object has no attribute 'last'"):
        model.last  # noqa: B018
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.ReLU]


def test_a_shuffle_unit_learns() -> None:
    half = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4, rng=0), nn.ReLU())
    model = nn.Sequential(nn.Concat(nn.Identity(), half), nn.ChannelShuffle(2), nn.PixelShuffle(2))
    x: Array = np.random.default_rng(0).standard_normal((2, 4, 3, 5)).astype(np.float32)
    assert model(x).shape == (2, 2, 6, 10)
    assert model.backward(np.ones((2, 2, 6, 10))).shape == x.shape
