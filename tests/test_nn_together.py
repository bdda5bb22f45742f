"""Training with layers run together: the same numbers as layer by layer, forward and back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn_cases import scramble
from reference import Array

from fastconv import nn

SHAPE = (2, 3, 12, 10)


def images(dtype: Any = np.float32) -> Array:
    return np.random.default_rng(1).standard_normal(SHAPE).astype(dtype)


IN_TRAINING: list[Callable[[], list[nn.Module]]] = [
    lambda: [nn.Conv2d(3, 4, 3), nn.ReLU()],
    lambda: [nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU()],
    lambda: [nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)],
    lambda: [nn.BatchNorm2d(3, affine=False), nn.ReLU(), nn.ReLU(), nn.MaxPool2d(3, 2, 1)],
    lambda: [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(9, 1, 4)],
    lambda: [nn.BatchNorm2d(3).eval(keep=True), nn.ReLU(), nn.ReLU(), nn.AvgPool2d(2)],
    lambda: [nn.ReLU(), nn.MaxPool2d(2), nn.Residual(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))],
]


def one_by_one(layers: list[nn.Module], x: Array, grad: Callable[[Array], Array]) -> list[Array]:
    """Return output, input's gradient, gradients and state of layers that nobody fuses."""
    for layer in layers:
        x = layer(x)
    y, back = x, grad(x)
    for layer in reversed(layers):
        back = layer.backward(back)
    parameters = [p for layer in layers for p in layer.parameters()]
    states = [b for layer in layers for b in layer.buffers()]
    return [y, back, *(p.grad for p in parameters if p.grad is not None), *states]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", IN_TRAINING)
def test_training_is_that_of_the_layers_alone(
    layers: Callable[[], list[nn.Module]], dtype: str
) -> None:
    model = nn.Sequential(*layers())
    scramble(model.astype(dtype), np.random.default_rng(2))
    alone = copy.deepcopy(model.stages())
    x = np.round(images(dtype=dtype), 1)  # with zeros, and equal maxima

    def grad(y: Array) -> Array:
        return np.random.default_rng(3).standard_normal(y.shape).astype(dtype)

    wanted = one_by_one(alone, x, grad)
    y = model(x)
    back = model.backward(grad(y))
    assert back is not None
    found = [y, back, *(p.grad for p in model.parameters()), *model.buffers()]
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6 * np.abs(other).max())
    # Layers may go back one by one after they went forward together.
    y = model(x)
    back = grad(y)
    for layer in reversed(model.stages()):
        back = layer.backward(back)
    np.testing.assert_array_equal(back, found[1])


def test_only_known_layers_run_together() -> None:
    class Louder(nn.ReLU):
        def backward(self, grad: Array) -> Array:
            return 2 * super().backward(grad)

    class Shifted(nn.ReLU):
        def forward(self, x: Any) -> Array:
            return super().forward(x) + 1

    for layer, factor in ((Louder(), 2), (Shifted(), 1)):
        conv = nn.Conv2d(3, 4, 3, rng=0)
        model = nn.Sequential(conv, layer, nn.MaxPool2d(2))
        y = model(images())
        assert y.min() >= isinstance(layer, Shifted)
        model.backward(np.ones_like(y))
        assert conv.weight.grad is not None
        other = nn.Sequential(copy.deepcopy(conv), nn.ReLU(), nn.MaxPool2d(2))
        other.zero_grad()
        other(images())
        other.backward(np.ones_like(y))
        wanted = factor * next(other.parameters()).grad
        np.testing.assert_allclose(conv.weight.grad, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("before", [lambda: nn.Conv2d(3, 4, 3, rng=0), lambda: nn.BatchNorm2d(3)])
def test_a_way_back_that_ends_between_layers_run_together(
    before: Callable[[], nn.Module],
) -> None:
    model = nn.Sequential(before(), nn.ReLU())
    y = model(images())
    np.testing.assert_array_equal(model[1:].backward(np.ones_like(y)), y > 0)


def test_a_way_back_of_an_object_is_its_own() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    y = model(images())
    model[1].backward = lambda grad: grad  # type: ignore[method-assign]
    model(images())
    model.backward(np.ones_like(y))
    bias = next(p for p in model.parameters() if len(p.shape) == 1)
    np.testing.assert_array_equal(bias.grad, y.size // 4)  # all of it, zeros or not
