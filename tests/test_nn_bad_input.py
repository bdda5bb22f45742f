"""Layers, losses and `fit` refuse what they cannot use, and name the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from checks import refused
from nn_cases import CASES, Case, build, case, name_of

from fastconv import nn

RAGGED = [[1.0, 2.0], [3.0]]
LAYERS: list[Case] = [*{entry[0]: entry for entry in CASES}.values()]
LAYERS.append(case("DepthwiseSeparableConv2d", 2, 3, 3, shape=(1, 2, 4, 4)))


def chain() -> nn.Module:
    return nn.Sequential(nn.Residual(nn.Sequential(nn.ReLU())))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{name_of(entry): (lambda entry=entry: build(entry), entry[3]) for entry in LAYERS},
    "Residual": (chain, (2, 3)),
    "Sequential": (lambda: nn.Sequential(nn.ReLU()), (2, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_inputs_that_are_no_arrays_of_numbers(name: str) -> None:
    make, shape = MODELS[name]
    for wrong, shown in (
        (RAGGED, "regular array"),
        ([["a", "b"]], "real numbers"),
        (np.ones(shape, complex), "complex128"),
        (np.ones(shape, object), "object"),
        (np.ma.masked_array(np.ones(shape, np.float32)), "masked"),
        (np.ones(shape, int), "int64"),
        (None, "object"),
    ):
        if shown == "int64" and isinstance(make(), nn.MaxPool2d | nn.AdaptiveMaxPool2d):
            continue  # a maximum is one of the elements, of whatever type
        with refused("x", shown):
            make()(wrong)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_that_are_no_arrays_of_numbers(name: str) -> None:
    make, shape = MODELS[name]
    layer = make()
    y = layer(np.ones(shape, np.float32))
    for wrong, shown in (
        (np.ones(y.shape, complex), "complex128"),
        (np.ones(y.shape, "<U1"), "<U1"),
        (np.ones(y.shape, object), "object"),
        (np.ma.masked_array(np.ones(y.shape, np.float32)), "masked"),
        (RAGGED, "regular array"),
        (np.ones((*y.shape, 1)), "shape"),
    ):
        with refused("grad", shown):
            layer.backward(wrong)
        assert all(parameter.grad is None for parameter in layer.parameters())
    # Nothing is used up: the right one is still taken, and so are lists of integers.
    assert layer.backward(np.ones(y.shape, int).tolist()).shape == shape


def optimizer() -> nn.Optimizer:
    return nn.Adam([nn.Parameter(np.ones(2))])


def train(**options: Any) -> None:
    model = nn.Linear(3, 2, rng=0)
    x, y = np.ones((4, 3), np.float32), np.zeros(4, int)
    nn.fit(model, x, y, epochs=1, progress="silent", **options)


FLAGS: dict[str, Callable[[Any], Any]] = {
    "Linear bias": lambda flag: nn.Linear(3, 3, flag),
    "Conv2d bias": lambda flag: nn.Conv2d(2, 2, 3, bias=flag),
    "ConvTranspose2d bias": lambda flag: nn.ConvTranspose2d(2, 2, 3, bias=flag),
    "DepthwiseSeparableConv2d bias": lambda flag: nn.DepthwiseSeparableConv2d(2, 2, 3, bias=flag),
    "BatchNorm2d affine": lambda flag: nn.BatchNorm2d(2, affine=flag),
    "SGD nesterov": lambda flag: nn.SGD([nn.Parameter(np.ones(1))], momentum=0.9, nesterov=flag),
    "OneCycleLR cycle_momentum": lambda flag: nn.OneCycleLR(optimizer(), 1, 9, cycle_momentum=flag),
    "OneCycleLR three_phase": lambda flag: nn.OneCycleLR(optimizer(), 1, 9, three_phase=flag),
    "EarlyStopping restore_best": lambda flag: nn.EarlyStopping(restore_best=flag),
    "train mode": lambda flag: nn.ReLU().train(flag),
    "eval keep": lambda flag: nn.ReLU().eval(keep=flag),
    "load_state_dict strict": lambda flag: nn.ReLU().load_state_dict({}, flag),
    "fit shuffle": lambda flag: train(shuffle=flag),
    "fit resume": lambda flag: train(resume=flag),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags(name: str) -> None:
    for wrong in ("a", "", 1, 0, None, [True], 1.0, np.ones(1, bool)):
        with refused(name.split()[1], repr(wrong)):
            FLAGS[name](wrong)
    for right in (True, False, np.True_, np.False_):
        FLAGS[name](right)


def test_flags_of_numpy_mean_the_same() -> None:
    for kind in (bool, np.bool_):
        assert nn.Linear(3, 3, kind(False)).bias is None  # type: ignore[arg-type]
        assert nn.Linear(3, 3, kind(True)).bias is not None  # type: ignore[arg-type]
        assert nn.BatchNorm2d(3, affine=kind(False)).weight is None  # type: ignore[arg-type]


def test_ragged_lists_elsewhere() -> None:
    pred = np.zeros((2, 3), np.float32)
    for loss in (nn.CrossEntropyLoss(), nn.MSELoss()):
        with refused("pred", "regular array"):
            loss(RAGGED, [0, 1])  # type: ignore[arg-type]
        with refused("target", "regular array"):
            loss(pred, RAGGED)  # type: ignore[arg-type]
    with refused("weight", "regular array"):
        nn.CrossEntropyLoss(RAGGED)  # type: ignore[arg-type]
    with refused("data", "regular array"):
        nn.Parameter(RAGGED)  # type: ignore[arg-type]
    model = nn.Linear(3, 2)
    with refused("x", "regular array"):
        nn.fit(model, RAGGED, [0, 1])  # type: ignore[arg-type]
    with refused("y", "regular array"):
        nn.fit(model, pred, RAGGED)  # type: ignore[arg-type]
